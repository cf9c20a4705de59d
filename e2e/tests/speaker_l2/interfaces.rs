//! Devices that go down, come back, change their address, vanish, and join a bridge. Netlink tells; nobody polls.

use patina_e2e::wait::{self, Seen, secs};

use crate::observers::{Capture, arping, ndisc6};
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
