//! What we write, octet by octet.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed expectation is a failed test

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use patina_crds::config::Community;
use patina_crds::net::Family;
use patina_speaker_core::bgp::codec::{Negotiated, Reader, Unsendable, encode};
use patina_speaker_core::bgp::message::{
    Attributes, Capabilities, GracefulRestart, Message, NextHop, Notification, Open, ReceivedUpdate, Update,
};
use patina_speaker_core::intent::routes::Prefix;

/// Without marker, in hex.
fn written(message: &Message, negotiated: &Negotiated) -> String {
    let mut out = Vec::new();
    encode(message, negotiated, &mut out).unwrap();
    let mut all = Vec::new();
    for message in split(&out) {
        all.push(message[16..].iter().map(|octet| format!("{octet:02x}")).collect::<String>());
    }
    all.join(" ")
}

/// The messages of a stream that we wrote.
fn split(mut stream: &[u8]) -> Vec<&[u8]> {
    let mut all = Vec::new();
    while !stream.is_empty() {
        assert_eq!(stream[..16], [0xff; 16]);
        let (message, rest) = stream.split_at(usize::from(u16::from_be_bytes([stream[16], stream[17]])));
        all.push(message);
        stream = rest;
    }
    all
}

fn prefix(text: &str) -> Prefix {
    let (ip, length) = text.split_once('/').unwrap();
    Prefix::containing(ip.parse().unwrap(), length.parse().unwrap())
}

fn ebgp() -> Negotiated {
    Negotiated {
        four_octet_asn: true,
        extended_message: false,
        families: [Family::V4, Family::V6].into(),
        ipv4_over_ipv6: false,
        internal: false,
    }
}

fn attributes() -> Attributes {
    Attributes {
        as_path: vec![64512],
        next_hop: NextHop::V4([192, 0, 2, 1].into()),
        local_pref: Some(200),
        communities: BTreeSet::new(),
    }
}

fn reach(attributes: &Attributes, prefixes: &[&str]) -> Message {
    let prefixes = prefixes.iter().map(|text| prefix(text)).collect();
    Message::Update(Update::Reach { attributes: Arc::new(attributes.clone()), prefixes })
}

#[test]
fn a_route_to_another_as_has_no_local_pref() {
    assert_eq!(
        written(&reach(&attributes(), &["203.0.113.5/32", "198.51.100.0/24"]), &ebgp()),
        "0034 02 0000 0014 40010100 40020602010000fc00 400304c0000201 20cb007105 18c63364".replace(' ', "")
    );
}

#[test]
fn a_route_inside_the_as_has_one_and_an_empty_path() {
    let attributes = Attributes { as_path: Vec::new(), ..attributes() };
    assert_eq!(
        written(&reach(&attributes, &["203.0.113.5/32"]), &Negotiated { internal: true, ..ebgp() }),
        "0031 02 0000 0015 40010100 400200 400304c0000201 400504000000c8 20cb007105".replace(' ', "")
    );
}

#[test]
fn inside_the_as_a_route_without_local_pref_gets_100() {
    let attributes = Attributes { as_path: Vec::new(), local_pref: None, ..attributes() };
    let written = written(&reach(&attributes, &["203.0.113.5/32"]), &Negotiated { internal: true, ..ebgp() });
    assert!(written.contains("40050400000064"), "{written}");
}

#[test]
fn an_old_peer_gets_as_trans_and_as4_path() {
    let attributes = Attributes { as_path: vec![64512, 4_200_000_001], ..attributes() };
    assert_eq!(
        written(&reach(&attributes, &["203.0.113.5/32"]), &Negotiated { four_octet_asn: false, ..ebgp() }),
        "003d 02 0000 0021 40010100 4002060202fc005ba0 400304c0000201 c0110a02020000fc00fa56ea01 20cb007105"
            .replace(' ', "")
    );
}

#[test]
fn an_old_peer_gets_no_as4_path_that_says_nothing_new() {
    assert_eq!(
        written(&reach(&attributes(), &["203.0.113.5/32"]), &Negotiated { four_octet_asn: false, ..ebgp() }),
        "002e 02 0000 0012 40010100 4002040201fc00 400304c0000201 20cb007105".replace(' ', "")
    );
}

#[test]
fn communities_of_both_kinds_stand_in_the_order_of_their_types() {
    let communities = [
        Community::Large(64512, 1, 2),
        Community::Standard(65535, 0), // GRACEFUL_SHUTDOWN (RFC 8326)
        Community::Standard(64512, 100),
    ];
    let attributes = Attributes { communities: communities.into(), ..attributes() };
    let written = written(&reach(&attributes, &["203.0.113.5/32"]), &ebgp());
    let expected = "400304c0000201 c00808fc000064ffff0000 c0200c0000fc000000000100000002 20cb007105";
    assert!(written.ends_with(&expected.replace(' ', "")), "{written}");
}

#[test]
fn more_than_63_communities_need_a_length_of_two_octets() {
    let communities = |count| (0..count).map(|n| Community::Standard(64512, n)).collect();
    let with = |count| Attributes { communities: communities(count), ..attributes() };
    let written = |count| written(&reach(&with(count), &["203.0.113.5/32"]), &ebgp());
    assert!(written(63).contains("c008fcfc000000"), "252 octets");
    assert!(written(64).contains("d0080100fc000000"), "256 octets");
}

#[test]
fn an_ipv6_route_stands_in_mp_reach_nlri_before_all_other_attributes() {
    let global = "2001:db8::1".parse().unwrap();
    let attributes = Attributes { next_hop: NextHop::V6(global, None), ..attributes() };
    assert_eq!(
        written(&reach(&attributes, &["2001:db8:5::/48", "2001:db8::7/128"]), &ebgp()),
        "0054 02 0000 003d 800e2d 0002 01 10 20010db8000000000000000000000001 00 30 20010db80005 \
         80 20010db8000000000000000000000007 40010100 40020602010000fc00"
            .replace(' ', "")
    );
}

#[test]
fn a_link_local_next_hop_goes_with_the_global_one() {
    let (global, local) = ("2001:db8::1".parse().unwrap(), "fe80::1".parse().unwrap());
    let attributes = Attributes { next_hop: NextHop::V6(global, Some(local)), ..attributes() };
    let expected = "800e2a 0002 01 20 20010db8000000000000000000000001 fe800000000000000000000000000001 00 \
                    20 20010db8 40010100";
    let written = written(&reach(&attributes, &["2001:db8::/32"]), &ebgp());
    assert!(written.contains(&expected.replace(' ', "")), "{written}");
}

#[test]
fn an_ipv4_route_over_an_ipv6_next_hop_needs_rfc_8950() {
    let attributes = Attributes { next_hop: NextHop::V6("fe80::1".parse().unwrap(), None), ..attributes() };
    let message = reach(&attributes, &["203.0.113.5/32"]);
    let agreed = Negotiated { ipv4_over_ipv6: true, ..ebgp() };
    let expected = "800e1a 0001 01 10 fe800000000000000000000000000001 00 20 cb007105 40010100";
    assert!(written(&message, &agreed).contains(&expected.replace(' ', "")));

    let mut out = Vec::new();
    assert_eq!(encode(&message, &ebgp(), &mut out), Err(Unsendable::NextHop(Family::V4)));
    assert_eq!(read(&out, &ebgp()), [received(&[], &["203.0.113.5/32"])], "withdrawn instead");
}

#[test]
fn an_ipv6_route_cannot_have_an_ipv4_next_hop() {
    let mut out = Vec::new();
    let refused = encode(&reach(&attributes(), &["2001:db8::/32"]), &ebgp(), &mut out);
    assert_eq!(refused, Err(Unsendable::NextHop(Family::V6)));
    assert_eq!(read(&out, &ebgp()), [received(&[], &["2001:db8::/32"])]);
}

#[test]
fn withdrawals_and_ends_of_rib() {
    let withdraw =
        |texts: &[&str]| Message::Update(Update::Withdraw(texts.iter().map(|text| prefix(text)).collect()));
    let v4 = withdraw(&["203.0.113.5/32", "0.0.0.0/0"]);
    assert_eq!(written(&v4, &ebgp()), "001d 02 0006 20cb007105 00 0000".replace(' ', ""));
    let v6 = withdraw(&["2001:db8::/32"]);
    assert_eq!(written(&v6, &ebgp()), "0022 02 0000 000b 800f08 0002 01 20 20010db8".replace(' ', ""));
    let end = |family| written(&Message::Update(Update::EndOfRib(family)), &ebgp());
    assert_eq!(end(Family::V4), "0017 02 0000 0000".replace(' ', ""));
    assert_eq!(end(Family::V6), "001d 02 0000 0006 800f03 0002 01".replace(' ', ""));
}

#[test]
fn a_route_that_no_message_can_carry_is_withdrawn() {
    let communities = (0..1050).map(|n| Community::Standard(64512, n)).collect();
    let attributes = Attributes { communities, ..attributes() };
    let message = reach(&attributes, &["203.0.113.5/32"]);
    let mut out = Vec::new();
    let refused = encode(&message, &ebgp(), &mut out);
    assert_eq!(refused, Err(Unsendable::TooLarge { needed: 23 + 20 + 4204 + 5, room: 4096 }));
    assert_eq!(read(&out, &ebgp()), [received(&[], &["203.0.113.5/32"])]);

    let extended = Negotiated { extended_message: true, ..ebgp() };
    out.clear();
    assert_eq!(encode(&message, &extended, &mut out), Ok(()));
    assert_eq!(read(&out, &extended), [received(&["203.0.113.5/32"], &[])]);
}

#[test]
fn prefixes_fill_messages_to_the_last_octet() {
    // 23 octets of header and lengths, 20 of attributes: room for 810 prefixes of 5 octets, 3 are left.
    let prefixes: Vec<_> =
        (0..811_u32).map(|n| Prefix::containing(IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + n)), 32)).collect();
    let message = |prefixes: &[Prefix]| {
        Message::Update(Update::Reach { attributes: Arc::new(attributes()), prefixes: prefixes.into() })
    };
    let lengths = |message: Message, negotiated: &Negotiated| {
        let mut out = Vec::new();
        encode(&message, negotiated, &mut out).unwrap();
        split(&out).iter().map(|message| message.len()).collect::<Vec<_>>()
    };
    assert_eq!(lengths(message(&prefixes[..810]), &ebgp()), [43 + 810 * 5]);
    assert_eq!(lengths(message(&prefixes), &ebgp()), [43 + 810 * 5, 43 + 5]);
    let extended = Negotiated { extended_message: true, ..ebgp() };
    assert_eq!(lengths(message(&prefixes), &extended), [43 + 811 * 5]);
}

#[test]
fn an_open_without_capabilities_has_no_parameter() {
    let open = Open {
        asn: 64512,
        hold_time: 90,
        router_id: [192, 0, 2, 1].into(),
        capabilities: Capabilities::default(),
    };
    let expected = "001d 01 04 fc00 005a c0000201 00";
    assert_eq!(written(&Message::Open(open), &ebgp()), expected.replace(' ', ""));
}

#[test]
fn an_open_with_everything() {
    let open = Open {
        asn: 4_200_000_001,
        hold_time: 90,
        router_id: [192, 0, 2, 1].into(),
        capabilities: Capabilities {
            families: [Family::V4, Family::V6].into(),
            ipv4_over_ipv6: true,
            four_octet_asn: true,
            route_refresh: true,
            enhanced_route_refresh: true,
            extended_message: true,
            graceful_restart: Some(GracefulRestart {
                restarting: true,
                notification: true,
                restart_time: 120,
                families: vec![(Family::V4, true), (Family::V6, false)],
            }),
            long_lived: vec![(Family::V4, 86400)],
            bfd_strict: true,
            other: BTreeSet::new(),
        },
    };
    let capabilities = "010400010001 010400020001 0200 0506 000100010002 0600 400a c078 00010180 00020100 \
                        4104fa56ea01 4600 4707 0001 01 80 015180 4a00";
    let expected = format!("0056 01 04 5ba0 005a c0000201 39 02 37 {capabilities}");
    assert_eq!(written(&Message::Open(open), &ebgp()), expected.replace(' ', ""));
}

#[test]
fn small_messages() {
    assert_eq!(written(&Message::Keepalive, &ebgp()), "001304");
    let refresh =
        |family, subtype| written(&Message::RouteRefresh { family: Some(family), subtype }, &ebgp());
    assert_eq!(refresh(Family::V4, 0), "00170500010001");
    assert_eq!(refresh(Family::V6, 2), "00170500020201");
    let mut out = Vec::new();
    let nothing = Message::RouteRefresh { family: None, subtype: 0 };
    assert_eq!(encode(&nothing, &ebgp(), &mut out), Err(Unsendable::Received));
    let came = Message::Received(ReceivedUpdate::default());
    assert_eq!(encode(&came, &ebgp(), &mut out), Err(Unsendable::Received));
    assert!(out.is_empty());
}

#[test]
fn notifications_by_name() {
    let cases: [(Notification, &str, &str); 18] = [
        (Notification::cease_shutdown("bye"), "0602 03 627965", "Administrative Shutdown (6/2): \"bye\""),
        (Notification::cease_shutdown(""), "0602", "Administrative Shutdown (6/2)"),
        (Notification::cease_reset("x"), "0604 01 78", "Administrative Reset (6/4): \"x\""),
        (Notification::peer_deconfigured(), "0603", "Peer De-configured (6/3)"),
        (Notification::connection_rejected(), "0605", "Connection Rejected (6/5)"),
        (Notification::configuration_change(), "0606", "Other Configuration Change (6/6)"),
        (Notification::collision(), "0607", "Connection Collision Resolution (6/7)"),
        (Notification::out_of_resources(), "0608", "Out of Resources (6/8)"),
        (Notification::bfd_down(), "060a", "BFD Down (6/10)"),
        (
            Notification::max_prefixes(Family::V6, 1000),
            "0601 0002 01 000003e8",
            "Maximum Number of Prefixes Reached (6/1): the limit is 1000",
        ),
        (
            Notification::cease_shutdown("bye").hard_reset(),
            "0609 0602 03 627965",
            "Hard Reset (6/9): Administrative Shutdown (6/2): \"bye\"",
        ),
        (Notification::hold_timer_expired(), "0400", "Hold Timer Expired (4/0)"),
        (Notification::send_hold_timer_expired(), "0800", "Send Hold Timer Expired (8/0)"),
        (
            Notification::unexpected_in_open_sent(2),
            "0501 02",
            "Receive Unexpected Message in OpenSent State (5/1)",
        ),
        (
            Notification::unexpected_in_open_confirm(1),
            "0502 01",
            "Receive Unexpected Message in OpenConfirm State (5/2)",
        ),
        (
            Notification::unexpected_in_established(1),
            "0503 01",
            "Receive Unexpected Message in Established State (5/3)",
        ),
        (Notification::missing_families([Family::V6]), "0207 0104 0002 0001", "Unsupported Capability (2/7)"),
        (Notification::bad_peer_as(), "0202", "Bad Peer AS (2/2)"),
    ];
    for (notification, body, words) in cases {
        let body = body.replace(' ', "");
        let length = 19 + body.len() / 2;
        assert_eq!(notification.to_string(), words);
        let message = Message::Notification(notification);
        assert_eq!(written(&message, &ebgp()), format!("{length:04x}03{body}"), "{words}");
    }
}

#[test]
fn a_long_farewell_is_cut_between_two_characters() {
    let text = "é".repeat(200);
    let notification = Notification::cease_shutdown(&text);
    assert_eq!((notification.data.len(), notification.data[0]), (255, 254));
    assert_eq!(notification.text().unwrap(), "é".repeat(127));
}

#[test]
fn data_that_does_not_fit_a_message_is_cut() {
    let mut out = Vec::new();
    let notification = Notification::new(3, 9, vec![7; 60000]);
    encode(&Message::Notification(notification), &ebgp(), &mut out).unwrap();
    assert_eq!(out.len(), 4096);
    assert_eq!(read(&out, &ebgp()), [Message::Notification(Notification::new(3, 9, vec![7; 4096 - 21]))]);
}

/// All messages of a stream.
fn read(stream: &[u8], negotiated: &Negotiated) -> Vec<Message> {
    let mut reader = Reader::default();
    reader.feed(stream);
    let mut all = Vec::new();
    while let Some(message) = reader.next(negotiated).unwrap() {
        all.push(message);
    }
    all
}

fn received(announced: &[&str], withdrawn: &[&str]) -> Message {
    let list = |texts: &[&str]| texts.iter().map(|text| prefix(text)).collect();
    Message::Received(ReceivedUpdate {
        announced: list(announced),
        withdrawn: list(withdrawn),
        ..ReceivedUpdate::default()
    })
}
