//! Whatever arrives: parsing never panics, and what we write we read back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed expectation is a failed test

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use patina_speaker_core::l2::duty::{Duty, Mode};
use patina_speaker_core::l2::responder::Responder;
use patina_speaker_core::l2::wire::arp::{Arp, Operation};
use patina_speaker_core::l2::wire::ndp::{Advertisement, Envelope, Message, Solicitation, solicited_node};
use patina_speaker_core::l2::wire::{Mac, ethertype};
use proptest::prelude::*;

fn arp() -> impl Strategy<Value = Arp> {
    let operation = prop_oneof![Just(Operation::Request), Just(Operation::Reply)];
    (any::<[Mac; 4]>(), operation, any::<[u32; 2]>()).prop_map(|(macs, operation, ips)| Arp {
        destination: macs[0],
        source: macs[1],
        operation,
        sender_mac: macs[2],
        sender_ip: Ipv4Addr::from(ips[0]),
        target_mac: macs[3],
        target_ip: Ipv4Addr::from(ips[1]),
    })
}

/// An address that is no group.
fn unicast() -> impl Strategy<Value = Ipv6Addr> {
    any::<u128>().prop_map(|bits| Ipv6Addr::from(bits >> 8 | 0x20 << 120))
}

fn envelope() -> impl Strategy<Value = Envelope> {
    (any::<[Mac; 2]>(), unicast(), unicast()).prop_map(|(macs, destination, source)| Envelope {
        destination_mac: macs[0],
        source_mac: macs[1],
        destination,
        source,
    })
}

fn solicitation() -> impl Strategy<Value = Solicitation> {
    (envelope(), unicast(), any::<Option<Mac>>(), any::<bool>()).prop_map(
        |(envelope, target, source_link_layer, probe)| {
            let solicitation = Solicitation { envelope, target, source_link_layer };
            if !probe {
                return solicitation;
            }
            let destination = solicited_node(target);
            let envelope = Envelope { destination, source: Ipv6Addr::UNSPECIFIED, ..envelope };
            Solicitation { envelope, source_link_layer: None, ..solicitation }
        },
    )
}

fn advertisement() -> impl Strategy<Value = Advertisement> {
    (envelope(), unicast(), any::<[bool; 3]>(), any::<Option<Mac>>()).prop_map(
        |(envelope, target, [router, solicited, replaces], target_link_layer)| Advertisement {
            envelope,
            target,
            router,
            solicited,
            replaces,
            target_link_layer,
        },
    )
}

fn responder(ips: &[IpAddr]) -> Responder {
    let duty = Duty { interfaces: Arc::new([3].into()), mode: Mode::Announce, round: 0, defence: 0 };
    let mut responder = Responder::default();
    responder.set(Arc::new(ips.iter().map(|ip| (*ip, duty.clone())).collect()));
    responder
}

/// Any valid frame, then bytes changed, then cut or lengthened.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let valid = prop_oneof![
        arp().prop_map(|arp| arp.emit()),
        solicitation().prop_map(|solicitation| solicitation.emit()),
        advertisement().prop_map(|advertisement| advertisement.emit()),
    ];
    let changes = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    let tail = proptest::collection::vec(any::<u8>(), 0..40);
    (valid, changes, any::<prop::sample::Index>(), any::<bool>(), tail).prop_map(
        |(mut frame, changes, cut, whole, tail)| {
            for (at, value) in changes {
                let at = at.index(frame.len());
                frame[at] = value;
            }
            if !whole {
                frame.truncate(cut.index(frame.len()));
            }
            frame.extend(tail);
            frame
        },
    )
}

/// The checksum of an ICMPv6 message made right, so that mutations reach what is behind that check.
fn with_checksum(mut frame: Vec<u8>) -> Vec<u8> {
    if ethertype(&frame) != Some(0x86dd) || frame.len() < 58 {
        return frame;
    }
    let length = usize::from(u16::from_be_bytes([frame[18], frame[19]]));
    let end = (54 + length).min(frame.len());
    if end < 58 {
        return frame;
    }
    frame[56..58].fill(0);
    let word = |pair: &[u8]| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
    let mut sum: u64 = 58 + (end - 54) as u64;
    sum += frame[22..54].chunks(2).chain(frame[54..end].chunks(2)).map(word).sum::<u64>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    frame[56..58].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    frame
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_are_survived(frame in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Arp::parse(&frame);
        let _ = Message::parse(&frame);
        let _ = responder(&[]).handle(&frame, 3, [2, 0, 0, 0, 0, 9]);
    }

    #[test]
    fn damaged_frames_are_survived(frame in mutated()) {
        let _ = Arp::parse(&frame);
        let _ = Message::parse(&frame);
        let frame = with_checksum(frame);
        let target = match (Arp::parse(&frame), Message::parse(&frame)) {
            (Ok(arp), _) => IpAddr::V4(arp.target_ip),
            (_, Ok(Message::Solicitation(solicitation))) => IpAddr::V6(solicitation.target),
            _ => IpAddr::V4(Ipv4Addr::LOCALHOST),
        };
        // Announced, whatever it is: the answering half runs too.
        let _ = responder(&[target]).handle(&frame, 3, [2, 0, 0, 0, 0, 9]);
    }

    #[test]
    fn arp_round_trips(arp in arp()) {
        prop_assert_eq!(Arp::parse(&arp.emit()), Ok(arp));
        prop_assert_eq!(arp.emit().len(), 42);
    }

    #[test]
    fn solicitations_round_trip(solicitation in solicitation()) {
        prop_assert_eq!(Message::parse(&solicitation.emit()), Ok(Message::Solicitation(solicitation)));
    }

    #[test]
    fn advertisements_round_trip(advertisement in advertisement()) {
        prop_assert_eq!(Message::parse(&advertisement.emit()), Ok(Message::Advertisement(advertisement)));
    }

    /// An answer goes to one station, or to all nodes for a probe, from our MAC, about the address that was asked for.
    #[test]
    fn what_is_answered_is_answered_right(solicitation in solicitation(), ours in any::<Mac>()) {
        let Solicitation { envelope, target, .. } = solicitation;
        let envelope = Envelope { destination_mac: ours, destination: target, ..envelope };
        let asked = if solicitation.is_probe() {
            solicitation
        } else {
            Solicitation { envelope, ..solicitation }
        };
        if let Ok(reply) = responder(&[target.into()]).handle(&asked.emit(), 3, ours) {
            let Ok(Message::Advertisement(answer)) = Message::parse(&reply.frame) else {
                panic!("not an advertisement: {:?}", reply.frame);
            };
            prop_assert_eq!(answer.target, target);
            prop_assert_eq!(answer.target_link_layer, Some(ours));
            prop_assert_eq!(answer.envelope.source_mac, ours);
            prop_assert_eq!(answer.solicited, !asked.is_probe());
            prop_assert_eq!(answer.envelope.destination.is_multicast(), asked.is_probe());
            prop_assert_eq!(answer.envelope.destination_mac[0] & 1 == 1, asked.is_probe());
        }
    }
}
