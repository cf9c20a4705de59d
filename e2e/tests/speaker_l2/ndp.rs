//! Neighbour discovery: real probes of a real kernel, and the questions that it does not ask.

use std::net::Ipv6Addr;

use patina_e2e::wait::{self, Seen, secs};
use patina_speaker::l2::socket::Protocol;
use patina_speaker_core::l2::wire::ndp::{Envelope, Solicitation, group_mac, solicited_node};

use crate::frames::transmit;
use crate::programs::{Capture, ndisc6};
use crate::wire::{VIP6, Wire, show};

fn solicitation(wire: &Wire, source: &str, with_option: bool) -> Vec<u8> {
    let target: Ipv6Addr = VIP6.parse().unwrap();
    let group = solicited_node(target);
    let envelope = Envelope {
        destination_mac: group_mac(group),
        source_mac: wire.peer_mac(),
        destination: group,
        source: source.parse().unwrap(),
    };
    Solicitation { envelope, target, source_link_layer: with_option.then(|| wire.peer_mac()) }.emit()
}

#[test]
fn a_kernel_that_wants_the_address_finds_it_taken() {
    let wire = Wire::new();
    wire.announce_and_wait(&[VIP6]);
    let probing = wire.peer.run(|| std::fs::write("/proc/sys/net/ipv6/conf/eth0/accept_dad", "1"));
    probing.unwrap().unwrap();
    wire.peer.ip(&["address", "add", &format!("{VIP6}/64"), "dev", "eth0"]).unwrap();
    // RFC 4862 5.4.4: "the tentative address is not unique".
    wait::until_blocking("duplicate address detection failed", secs(5), || {
        let shown = wire.peer.ip(&["-6", "address", "show", "dev", "eth0"])?;
        Ok(Seen::when(shown.contains("dadfailed"), shown))
    })
    .unwrap();
}

#[test]
fn a_question_without_link_layer_option_is_answered() {
    let wire = Wire::new();
    wire.announce_and_wait(&[VIP6]);
    // Flags of the advertisement (RFC 4861 4.4): solicited and override.
    let mut answers =
        Capture::start(&wire.peer, "icmp6[icmp6type] == icmp6-neighboradvert and icmp6[4] == 0x60");
    transmit(&wire.peer, Protocol::Ipv6, &[solicitation(&wire, "fd00:25:7::9", false)]);
    let (_, line) = answers.next();
    assert!(line.starts_with(&format!("{} > {}", show(wire.node_mac()), show(wire.peer_mac()))), "{line}");
    assert!(
        line.contains(&format!("{VIP6} > fd00:25:7::9: ICMP6, neighbor advertisement, tgt is {VIP6}")),
        "{line}"
    );
}

#[test]
fn a_question_from_beyond_the_link_is_not_answered() {
    let wire = Wire::new();
    wire.announce_and_wait(&[VIP6]);
    let mut far = solicitation(&wire, "fd00:25:7::9", true);
    far[21] = 64; // hop limit; RFC 4861 7.1.1 wants 255
    transmit(&wire.peer, Protocol::Ipv6, &[far]);
    assert_eq!(ndisc6(&wire.peer, VIP6), Some(show(wire.node_mac())), "the next question is answered");
    assert_eq!(wire.metric("patina_l2_dropped_total{reason=\"malformed\"}"), 1);
    assert_eq!(wire.metric(&format!("metallb_layer2_responses_sent{{ip=\"{VIP6}\"}}")), 1);
}

#[test]
fn the_group_is_joined_and_reported_once_and_left_with_the_last_address() {
    let wire = Wire::new();
    // `fd00:25:7::1:0:100` is in the group of `fd00:25:7::100`.
    let (twin, group) = ("fd00:25:7::1:0:100", "ff02::1:ff00:100");
    // MLDv2 report (RFC 3810 5.2) behind a hop-by-hop header; the group of its first record.
    let reported = "ip6[6] == 0 and ip6[48] == 143 and ip6[60:4] == 0xff020000 and ip6[72:4] == 0xff000100";
    let mut reports = Capture::start(&wire.peer, reported);
    let joined = || wire.node.ip(&["-6", "maddress", "show", "dev", "eth0"]).unwrap().contains(group);
    assert!(!joined());
    wire.announce_and_wait(&[VIP6, twin]);
    assert!(joined());
    // A switch that snoops learns it from the report (RFC 3810).
    reports.next();
    wire.announce_and_wait(&[VIP6]);
    assert_eq!(ndisc6(&wire.peer, VIP6), Some(show(wire.node_mac())));
    assert!(joined());
    wire.announce(&[]);
    wait::until_blocking("the group is left", secs(5), || Ok(Seen::when(!joined(), "joined"))).unwrap();
}
