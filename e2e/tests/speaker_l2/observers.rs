//! What other people's programs see.

use crate::programs::{Capture, arping, ndisc6};
use crate::wire::{OTHER, OTHER6, VIP, VIP6, Wire, show};

#[test]
fn an_owned_address_is_answered_with_our_mac_and_another_is_not() {
    let wire = Wire::new();
    wire.announce_and_wait(&[VIP, VIP6]);
    let mac = show(wire.node_mac());
    assert_eq!(arping(&wire.peer, VIP).as_deref(), Some(&*mac));
    assert_eq!(ndisc6(&wire.peer, VIP6).as_deref(), Some(&*mac));
    assert_eq!(arping(&wire.peer, OTHER), None);
    assert_eq!(ndisc6(&wire.peer, OTHER6), None);

    wire.announce(&[]);
    assert_eq!(arping(&wire.peer, VIP), None, "withdrawn");
    assert_eq!(ndisc6(&wire.peer, VIP6), None, "withdrawn");
    let series = format!("metallb_layer2_requests_received{{ip=\"{VIP}\"}}");
    assert_eq!(wire.metric(&series), 0, "the series of a withdrawn address end");
}

#[test]
fn the_kernel_of_a_neighbour_learns_the_mac() {
    let wire = Wire::new();
    wire.announce_and_wait(&[VIP, VIP6]);
    for vip in [VIP, VIP6] {
        // Nobody answers the ping itself: the address is on no interface. Asking for the neighbour is what counts.
        let _unanswered = wire.peer.exec("ping", &["-c", "1", "-W", "1", vip]);
        let neighbour = wire.peer.ip(&["neigh", "show", vip]).unwrap();
        assert!(neighbour.contains(&show(wire.node_mac())), "{neighbour}");
    }
}

#[test]
fn an_unsolicited_announcement_moves_an_entry_that_exists() {
    let wire = Wire::new();
    for vip in [VIP, VIP6] {
        wire.peer
            .ip(&["neigh", "replace", vip, "lladdr", "02:00:00:00:00:99", "dev", "eth0", "nud", "stale"])
            .unwrap();
    }
    wire.announce_and_wait(&[VIP, VIP6]);
    for vip in [VIP, VIP6] {
        let neighbour = wire.peer.ip(&["neigh", "show", vip]).unwrap();
        assert!(neighbour.contains(&show(wire.node_mac())), "{neighbour}");
    }
}

#[test]
fn announcements_come_at_0_100_300_1000_ms_and_then_each_second_to_the_fifth() {
    let wire = Wire::new();
    let mut arp = Capture::start(&wire.peer, "arp host 172.25.7.100");
    let mut ndp = Capture::start(&wire.peer, "icmp6[icmp6type] == icmp6-neighboradvert");
    wire.announce(&[VIP, VIP6]);
    let expected = [0, 100, 300, 1000, 2000, 3000, 4000, 5000];

    let mut times = [Vec::new(), Vec::new()];
    for _ in expected {
        let (first, request) = arp.next();
        let (_, reply) = arp.next();
        assert!(request.contains("Request who-has 172.25.7.100"), "{request}");
        assert!(request.contains("ff:ff:ff:ff:ff:ff"), "{request}");
        assert!(reply.contains(&format!("Reply 172.25.7.100 is-at {}", show(wire.node_mac()))), "{reply}");
        times[0].push(first);
        let (at, advertisement) = ndp.next();
        assert!(advertisement.contains("fd00:25:7::100 > ff02::1"), "{advertisement}");
        times[1].push(at);
    }
    for times in times {
        for (at, expected) in times.iter().zip(expected) {
            let millis = (at - times[0]) * 1000.0;
            // Late when the machine is busy, never early.
            assert!((-20.0..250.0).contains(&(millis - f64::from(expected))), "{times:?}");
        }
    }
}

#[test]
fn an_address_that_a_successor_takes_is_answered_but_announced_no_more() {
    let wire = Wire::new();
    wire.announce_and_wait(&[VIP]);
    wire.quieten();
    let mac = show(wire.node_mac());
    assert_eq!(arping(&wire.peer, VIP).as_deref(), Some(&*mac));
    // The burst of an address that is announced after it ends long after the rest of the first one would have come.
    let sent = wire.metric(&format!("metallb_layer2_gratuitous_sent{{ip=\"{VIP}\"}}"));
    wire.announce_also(OTHER);
    wire.wait_for_metric(&format!("metallb_layer2_gratuitous_sent{{ip=\"{OTHER}\"}}"), 8);
    assert_eq!(wire.metric(&format!("metallb_layer2_gratuitous_sent{{ip=\"{VIP}\"}}")), sent);
    assert_eq!(arping(&wire.peer, VIP).as_deref(), Some(&*mac));
}
