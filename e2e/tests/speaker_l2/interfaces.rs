//! Devices that go down, come back, change their address, vanish, and join a bridge. Netlink tells; nobody polls.

use patina_e2e::wait::{self, Seen, secs};

use crate::programs::{Capture, arping, ndisc6};
use crate::wire::{VIP, VIP6, Wire, show};

const GRATUITOUS: &str = "arp[6:2] == 1 and arp host 172.25.7.100 and arp src host 172.25.7.100";

/// The next announcement of [`VIP`] carries this MAC.
fn announced_with(capture: &mut Capture, mac: &str) {
    let (_, line) = capture.next();
    assert!(line.starts_with(mac), "{line}");
}

#[test]
fn an_interface_that_comes_back_is_announced_on_from_the_start() {
    let wire = Wire::new();
    wire.announce_and_wait(&[VIP, VIP6]);
    let sent = format!("metallb_layer2_gratuitous_sent{{ip=\"{VIP}\"}}");
    // The burst is over: eight times a request and a reply.
    wire.wait_for_metric(&sent, 2);
    wire.node.ip(&["link", "set", "eth0", "down"]).unwrap();
    wait::until_blocking("nothing is sent any more", secs(5), || {
        let interfaces = wire.node.ip(&["link", "show", "eth0"])?;
        Ok(Seen::when(interfaces.contains("state DOWN"), interfaces))
    })
    .unwrap();
    let mut capture = Capture::start(&wire.peer, GRATUITOUS);
    wire.node.ip(&["link", "set", "eth0", "up"]).unwrap();
    let mac = show(wire.node_mac());
    let (first, line) = capture.next();
    assert!(line.starts_with(&mac), "{line}");
    let (second, _) = capture.next();
    assert!((0.05..0.2).contains(&(second - first)), "a new burst begins: {first} {second}");
    assert_eq!(arping(&wire.peer, VIP), Some(mac.clone()));
    // IPv6 needs its link-local address back first.
    wait::until_blocking("IPv6 is answered again", secs(5), || {
        let answer = ndisc6(&wire.peer, VIP6);
        Ok(Seen::when(answer.as_ref() == Some(&mac), answer))
    })
    .unwrap();
}

#[test]
fn a_new_mac_address_is_announced_and_answered_with() {
    let wire = Wire::new();
    wire.announce_and_wait(&[VIP]);
    let mut capture = Capture::start(&wire.peer, GRATUITOUS);
    let new = "02:00:00:00:00:42";
    wire.node.ip(&["link", "set", "eth0", "address", new]).unwrap();
    wait::until_blocking("it is announced with the new address", secs(5), || {
        let (_, line) = capture.next();
        Ok(Seen::when(line.starts_with(new), line))
    })
    .unwrap();
    assert_eq!(arping(&wire.peer, VIP).as_deref(), Some(new));
}

#[test]
fn a_device_that_is_made_anew_is_announced_on() {
    let wire = Wire::new();
    wire.announce_and_wait(&[VIP, VIP6]);
    let before = show(wire.node_mac());
    wire.node.ip(&["link", "delete", "eth0"]).unwrap();
    wire.plug();
    let mac = show(wire.node_mac());
    assert_ne!(mac, before);
    for (what, ask) in [("ARP", arping as fn(&_, &_) -> _), ("NDP", ndisc6)] {
        let vip = if what == "ARP" { VIP } else { VIP6 };
        wait::until_blocking(&format!("{what} is answered with the new device's address"), secs(5), || {
            let answer = ask(&wire.peer, vip);
            Ok(Seen::when(answer.as_ref() == Some(&mac), answer))
        })
        .unwrap();
    }
}

#[test]
fn the_port_of_a_bridge_falls_silent_and_the_bridge_answers() {
    let wire = Wire::new();
    wire.announce_and_wait(&[VIP]);
    let bridge_mac = "02:00:00:00:00:b0";
    wire.node.ip(&["link", "add", "br0", "type", "bridge"]).unwrap();
    wire.node.ip(&["link", "set", "br0", "address", bridge_mac]).unwrap();
    wire.node.ip(&["link", "set", "br0", "up"]).unwrap();
    wire.node.ip(&["link", "set", "eth0", "master", "br0"]).unwrap();
    let mut answers = Capture::start(&wire.peer, "arp[6:2] == 2 and not ether broadcast");
    wait::until_blocking("the bridge answers", secs(5), || {
        let answer = arping(&wire.peer, VIP);
        Ok(Seen::when(answer.as_deref() == Some(bridge_mac), answer))
    })
    .unwrap();
    // From here on each question has one answer.
    while !answers.next().1.starts_with(bridge_mac) {}
    for _ in 0..3 {
        assert_eq!(arping(&wire.peer, VIP).as_deref(), Some(bridge_mac));
        announced_with(&mut answers, bridge_mac);
    }
}

#[test]
fn a_renamed_interface_goes_on_without_a_new_burst() {
    let wire = Wire::new();
    wire.announce_and_wait(&[VIP]);
    let sent = format!("metallb_layer2_gratuitous_sent{{ip=\"{VIP}\"}}");
    wait::until_blocking("the schedule is through", secs(10), || {
        let value = wire.metric(&sent);
        Ok(Seen::when(value == 16, value))
    })
    .unwrap();
    let mac = show(wire.node_mac());
    // While it is up, as udev cannot but the kernel can.
    wire.node.ip(&["link", "set", "eth0", "name", "lan0"]).unwrap();
    assert_eq!(arping(&wire.peer, VIP), Some(mac));
    assert_eq!(wire.metric(&sent), 16);
}

#[test]
fn without_carrier_it_is_silent_and_with_it_announces_from_the_start() {
    let wire = Wire::new();
    wire.announce_and_wait(&[VIP]);
    wire.peer.ip(&["link", "set", "eth0", "down"]).unwrap();
    wait::until_blocking("the driver has closed its socket", secs(5), || {
        let open = packet_sockets(&wire);
        Ok(Seen::when(open == 0, open))
    })
    .unwrap();
    wire.peer.ip(&["link", "set", "eth0", "up"]).unwrap();
    wait::until_blocking("it is answered again", secs(5), || {
        let answer = arping(&wire.peer, VIP);
        Ok(Seen::when(answer == Some(show(wire.node_mac())), answer))
    })
    .unwrap();
}

#[test]
fn macvlans_have_macs_of_their_own_and_are_no_strangers_to_one_another() {
    let wire = Wire::new();
    let macs = ["02:00:00:00:00:aa", "02:00:00:00:00:ab"];
    wire.announce_and_wait(&[VIP]);
    for (n, mac) in macs.iter().enumerate() {
        let name = format!("mv{n}");
        let kind = ["type", "macvlan", "mode", "bridge"];
        let link = ["link", "add", &name, "link", "eth0", "address", mac];
        wire.node.ip(&[&link[..], &kind[..]].concat()).unwrap();
        wire.node.ip(&["link", "set", &name, "up"]).unwrap();
    }
    // All are on one segment; a test's driver announces on all.
    let mut announced = Capture::start(&wire.peer, GRATUITOUS);
    wire.again(VIP, 1, 0);
    for mac in macs {
        wait::until_blocking("it is announced with the macvlan's address", secs(5), || {
            let (_, line) = announced.next();
            Ok(Seen::when(line.starts_with(mac), line))
        })
        .unwrap();
    }
    // Macvlans of one device hear each other.
    wire.wait_for_metric("patina_l2_dropped_total{reason=\"otherInterface\"}", 1);
    assert!(wire.heard_nothing());
}

#[test]
fn a_vxlan_is_a_segment_like_any_other() {
    let wire = Wire::new();
    for (netns, host, remote) in [(&wire.node, 11, 9), (&wire.peer, 9, 11)] {
        let remote = format!("172.25.7.{remote}");
        netns
            .ip(&[
                "link", "add", "vx0", "type", "vxlan", "id", "42", "dev", "eth0", "dstport", "4789",
                "remote", &remote,
            ])
            .unwrap();
        netns.ip(&["address", "add", &format!("172.25.9.{host}/24"), "dev", "vx0"]).unwrap();
        netns.ip(&["link", "set", "vx0", "up"]).unwrap();
    }
    wire.announce_and_wait(&[VIP]);
    wait::until_blocking("it is answered over the tunnel", secs(5), || {
        let args = ["-r", "-C", "1", "-c", "3", "-w", "2", "-i", "vx0", VIP];
        let answer = wire.peer.exec("arping", &args)?;
        let shown = wire.node.ip(&["-o", "link", "show", "vx0"])?;
        Ok(Seen::when(shown.contains(answer.trim()), (answer, shown)))
    })
    .unwrap();
}

#[test]
fn a_group_that_cannot_be_joined_is_tried_again_and_ipv4_goes_on_meanwhile() {
    let wire = Wire::new();
    // RFC 8200 5: IPv6 needs an MTU of 1280; below that Linux takes it off the interface. The driver is told to use it
    // nevertheless.
    let mtu = |bytes| wire.node.ip(&["link", "set", "eth0", "mtu", bytes]).unwrap();
    wire.use_whatever_is_up();
    mtu("1200");
    wire.announce_and_wait(&[VIP, VIP6]);
    let mac = show(wire.node_mac());
    assert_eq!(arping(&wire.peer, VIP), Some(mac.clone()));
    let group = "ff02::1:ff00:100";
    let joined = || wire.node.ip(&["-6", "maddress", "show", "dev", "eth0"]).unwrap().contains(group);
    assert!(!joined());
    mtu("1500");
    wait::until_blocking("the group is joined at a later try", secs(5), || {
        Ok(Seen::when(joined(), "not yet"))
    })
    .unwrap();
    wait::until_blocking("IPv6 is answered", secs(5), || {
        let answer = ndisc6(&wire.peer, VIP6);
        Ok(Seen::when(answer.as_ref() == Some(&mac), answer))
    })
    .unwrap();
}

/// Packet sockets in the node's namespace that are bound to a protocol.
fn packet_sockets(wire: &Wire) -> usize {
    let table = wire.node.run(|| std::fs::read_to_string("/proc/thread-self/net/packet")).unwrap().unwrap();
    table.lines().skip(1).filter(|line| line.split_whitespace().nth(3).is_none_or(|p| p != "0000")).count()
}
