//! Probes and defences on the wire, and what the driver hears of others that name an address of ours.

use patina_e2e::wait::{self, Seen, secs};
use patina_speaker::l2::socket::Protocol;
use patina_speaker_core::l2::duty::{ClaimKind, Mode};
use patina_speaker_core::l2::wire::ndp::Advertisement;

use crate::frames::{Arp, BAD, transmit};
use crate::programs::{Capture, arping, ndisc6};
use crate::wire::{OTHER, VIP, VIP6, Wire, show};

#[test]
fn an_address_that_is_probed_is_asked_for_twice_and_not_answered() {
    let wire = Wire::new();
    let mut arp = Capture::start(&wire.peer, "arp");
    let mut ndp = Capture::start(&wire.peer, "icmp6[icmp6type] == icmp6-neighborsolicit and src host ::");
    wire.set(VIP, Mode::Probe);
    wire.set(VIP6, Mode::Probe);
    let (first, line) = arp.next();
    assert!(line.contains("Request who-has 172.25.7.100 tell 0.0.0.0"), "{line}");
    let (second, again) = arp.next();
    assert!(again.contains("Request who-has 172.25.7.100 tell 0.0.0.0"), "{again}");
    assert!((0.08..0.35).contains(&(second - first)), "{first} {second}");
    for _ in 0..2 {
        let (_, line) = ndp.next();
        assert!(
            line.contains(":: > ff02::1:ff00:100: ICMP6, neighbor solicitation, who has fd00:25:7::100"),
            "{line}"
        );
    }
    assert_eq!(arping(&wire.peer, VIP), None);
    assert_eq!(ndisc6(&wire.peer, VIP6), None);
    assert!(wire.heard_nothing(), "our own probes are no claims");
    wire.set(VIP, Mode::Announce);
    assert_eq!(arping(&wire.peer, VIP), Some(show(wire.node_mac())));
}

#[test]
fn a_host_that_has_the_address_is_heard_to_answer_our_probe() {
    let wire = Wire::new();
    for (vip, length) in [(VIP, 32), (VIP6, 128)] {
        wire.peer.ip(&["address", "add", &format!("{vip}/{length}"), "dev", "eth0"]).unwrap();
    }
    // Its own arrival on the segment is over when it answers.
    wait::until_blocking("the peer answers", secs(5), || {
        let answer = ndisc6(&wire.node, VIP6);
        Ok(Seen::when(answer == Some(show(wire.peer_mac())), answer))
    })
    .unwrap();
    for (vip, kind) in [(VIP, ClaimKind::Use), (VIP6, ClaimKind::Announcement)] {
        wire.set(vip, Mode::Probe);
        // Of the first address there is one for each probe.
        let claim =
            std::iter::repeat_with(|| wire.claim()).find(|claim| claim.ip.to_string() == vip).unwrap();
        assert_eq!((claim.mac, claim.kind), (wire.peer_mac(), kind));
    }
}

#[test]
fn whoever_names_an_address_of_ours_is_heard_even_by_unicast() {
    let wire = Wire::new();
    wire.announce_and_wait(&[VIP, VIP6]);
    let ours = wire.node_mac();
    let sender_ip = [172, 25, 7, 100];
    let [one, two, three] = [1, 2, 3].map(|n| Arp::request([2, 0, 0, 0, 1, n]));
    for (frame, kind) in [
        (Arp { target: VIP, sender_ip, ..one }, ClaimKind::Announcement),
        (Arp { target: OTHER, sender_ip, ..two }, ClaimKind::Use),
        (Arp { target: OTHER, sender_ip, operation: 2, to: ours, ..three }, ClaimKind::Use),
    ] {
        transmit(&wire.peer, Protocol::Arp, &[frame.frame()]);
        let claim = wire.claim();
        assert_eq!((claim.ip.to_string().as_str(), claim.mac, claim.kind), (VIP, frame.from, kind));
    }
    let announced = Advertisement::unsolicited(VIP6.parse().unwrap(), wire.peer_mac());
    transmit(&wire.peer, Protocol::Ipv6, &[announced.emit()]);
    let claim = wire.claim();
    let expected = (VIP6, wire.peer_mac(), ClaimKind::Announcement);
    assert_eq!((claim.ip.to_string().as_str(), claim.mac, claim.kind), expected);
    // A probe of somebody else is answered while we announce: `duplicate address detection`, and arping -D.
    let probe = ["-0", "-r", "-C", "1", "-c", "3", "-w", "2", "-i", "eth0", VIP];
    assert_eq!(wire.peer.exec("arping", &probe).unwrap().trim(), show(ours));
    assert!(wire.heard_nothing());
}

#[test]
fn a_defence_is_one_announcement_and_a_round_the_whole_schedule() {
    let wire = Wire::new();
    let sent = format!("metallb_layer2_gratuitous_sent{{ip=\"{VIP}\"}}");
    wire.announce_and_wait(&[VIP]);
    wait::until_blocking("the schedule is through", secs(10), || {
        let value = wire.metric(&sent);
        Ok(Seen::when(value == 16, value))
    })
    .unwrap();
    wire.again(VIP, 0, 1);
    wire.wait_for_metric(&sent, 18);
    let mut capture = Capture::start(&wire.peer, "arp[6:2] == 1 and arp src host 172.25.7.100");
    wire.again(VIP, 1, 0);
    let (first, _) = capture.next();
    let (second, _) = capture.next();
    assert!((0.05..0.2).contains(&(second - first)), "{first} {second}");
}

#[test]
fn a_storm_of_claims_is_told_a_few_times() {
    let wire = Wire::new();
    wire.announce_and_wait(&[VIP]);
    let storm = vec![Arp { sender_ip: [172, 25, 7, 100], ..Arp::request(BAD) }.frame(); 2000];
    transmit(&wire.peer, Protocol::Arp, &storm);
    assert_eq!(arping(&wire.peer, VIP), Some(show(wire.node_mac())), "it goes on answering");
    let mut told = 0;
    while !wire.heard_nothing() {
        told += 1;
    }
    assert!((1..100).contains(&told), "{told}");
    assert!(wire.metric("patina_l2_dropped_total{reason=\"claimed\"}") > 100);
}

#[test]
fn frames_with_our_own_mac_are_counted_and_answered_by_nobody() {
    let wire = Wire::new();
    wire.announce_and_wait(&[VIP]);
    let mut answers = Capture::start(&wire.peer, "arp[6:2] == 2 and not ether broadcast");
    let ours = wire.node_mac();
    let twin = Arp { from: ours, sender_mac: ours, ..Arp::request(BAD) };
    let claim =
        Arp { sender_ip: [172, 25, 7, 100], ..Arp { from: ours, sender_mac: ours, ..Arp::request(BAD) } };
    transmit(&wire.peer, Protocol::Arp, &[twin.frame(), claim.frame(), Arp::request(BAD).frame()]);
    assert!(answers.next().1.contains(&format!("> {}", show(BAD))));
    assert_eq!(wire.metric("patina_l2_dropped_total{reason=\"ownFrame\"}"), 2);
    assert!(wire.heard_nothing());
}
