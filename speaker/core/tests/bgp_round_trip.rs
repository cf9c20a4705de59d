//! What we write, read by us and by two other implementations.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed expectation is a failed test

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use netgauze_bgp_pkt::BgpMessage;
use netgauze_bgp_pkt::path_attribute::{AsPath, MpReach, MpUnreach, PathAttributeValue as Value};
use netgauze_bgp_pkt::wire::deserializer::BgpParsingContext;
use netgauze_parse_utils::reader::SliceReader;
use netgauze_parse_utils::traits::ParseFromWithOneInput;
use patina_crds::config::Community;
use patina_crds::net::Family;
use patina_speaker_core::bgp::codec::{Negotiated, Reader, Unsendable, encode};
use patina_speaker_core::bgp::message::{
    Attributes, Capabilities, GracefulRestart, Message, NextHop, Open, Update,
};
use patina_speaker_core::intent::routes::Prefix;
use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;

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

fn ebgp() -> Negotiated {
    Negotiated {
        four_octet_asn: true,
        extended_message: false,
        families: [Family::V4, Family::V6].into(),
        ipv4_over_ipv6: false,
        internal: false,
    }
}

/// Netgauze's reading, as strict as it can be.
fn netgauze(message: &[u8], four_octets: bool) -> Result<BgpMessage, String> {
    let mut context =
        BgpParsingContext::new(four_octets, HashMap::new(), HashMap::new(), true, true, true, true);
    let mut reader = SliceReader::new(message);
    let read = BgpMessage::parse(&mut reader, &mut context).map_err(|error| error.to_string())?;
    if reader.is_empty() { Ok(read) } else { Err(format!("{} octets are left", reader.remaining())) }
}

/// What an UPDATE of netgauze's announces and withdraws, of unicast.
fn netgauze_prefixes(message: &BgpMessage) -> (Vec<Prefix>, Vec<Prefix>) {
    let BgpMessage::Update(update) = message else { panic!("no UPDATE: {message:?}") };
    let v4 = |address: &netgauze_bgp_pkt::nlri::Ipv4UnicastAddress| {
        let net = address.network().address();
        Prefix::containing(IpAddr::V4(net.addr()), net.prefix_len())
    };
    let v6 = |address: &netgauze_bgp_pkt::nlri::Ipv6UnicastAddress| {
        let net = address.network().address();
        Prefix::containing(IpAddr::V6(net.addr()), net.prefix_len())
    };
    let mut announced: Vec<_> = update.nlri().iter().map(v4).collect();
    let mut withdrawn: Vec<_> = update.withdraw_routes().iter().map(v4).collect();
    for attribute in update.path_attributes() {
        match attribute.value() {
            Value::MpReach(MpReach::Ipv4Unicast { nlri, .. }) => announced.extend(nlri.iter().map(v4)),
            Value::MpReach(MpReach::Ipv6Unicast { nlri, .. }) => announced.extend(nlri.iter().map(v6)),
            Value::MpUnreach(MpUnreach::Ipv4Unicast { nlri }) => withdrawn.extend(nlri.iter().map(v4)),
            Value::MpUnreach(MpUnreach::Ipv6Unicast { nlri }) => withdrawn.extend(nlri.iter().map(v6)),
            _ => {}
        }
    }
    (announced, withdrawn)
}

/// What we would have had to be asked to write for this.
fn netgauze_attributes(message: &BgpMessage) -> Attributes {
    let BgpMessage::Update(update) = message else { panic!("no UPDATE: {message:?}") };
    let mut read = Attributes {
        as_path: Vec::new(),
        next_hop: NextHop::V4(Ipv4Addr::UNSPECIFIED),
        local_pref: None,
        communities: BTreeSet::new(),
    };
    let mut as4_path = None;
    for attribute in update.path_attributes() {
        match attribute.value() {
            Value::AsPath(path) => read.as_path = flat(path),
            Value::As4Path(path) => {
                as4_path = Some(path.segments().iter().flat_map(|part| part.as_numbers().to_vec()).collect());
            }
            Value::NextHop(hop) => read.next_hop = NextHop::V4(hop.next_hop()),
            Value::LocalPreference(preference) => read.local_pref = Some(preference.metric()),
            Value::Communities(list) => read.communities.extend(list.communities().iter().map(|one| {
                let [a, b, c, d] = one.value().to_be_bytes();
                Community::Standard(u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
            })),
            Value::LargeCommunities(list) => {
                read.communities.extend(
                    list.communities().iter().map(|one| {
                        Community::Large(one.global_admin(), one.local_data1(), one.local_data2())
                    }),
                );
            }
            Value::MpReach(MpReach::Ipv6Unicast { next_hop_global, next_hop_local, .. }) => {
                read.next_hop = NextHop::V6(*next_hop_global, *next_hop_local);
            }
            Value::MpReach(MpReach::Ipv4Unicast { next_hop: IpAddr::V6(global), next_hop_local, .. }) => {
                read.next_hop = NextHop::V6(*global, *next_hop_local);
            }
            Value::Origin(_) => {}
            other => panic!("never written: {other:?}"),
        }
    }
    if let Some(path) = as4_path {
        read.as_path = path;
    }
    read
}

fn flat(path: &AsPath) -> Vec<u32> {
    match path {
        AsPath::As4PathSegments(parts) => parts.iter().flat_map(|part| part.as_numbers().to_vec()).collect(),
        AsPath::As2PathSegments(parts) => {
            parts.iter().flat_map(|part| part.as_numbers().iter().map(|asn| u32::from(*asn))).collect()
        }
    }
}

fn family() -> impl Strategy<Value = Family> {
    prop_oneof![Just(Family::V4), Just(Family::V6)]
}

fn unicast(family: Family) -> BoxedStrategy<Prefix> {
    match family {
        Family::V4 => (any::<u32>(), 0..=32_u8)
            .prop_map(|(bits, length)| Prefix::containing(IpAddr::V4((bits & 0x7fff_ffff).into()), length))
            .boxed(),
        Family::V6 => (any::<u128>(), 0..=128_u8)
            .prop_map(|(bits, length)| Prefix::containing(IpAddr::V6((bits >> 3 | 1 << 125).into()), length))
            .boxed(),
    }
}

fn global() -> impl Strategy<Value = Ipv6Addr> {
    any::<u128>().prop_map(|bits| Ipv6Addr::from(bits >> 3 | 1 << 125))
}

fn community() -> impl Strategy<Value = Community> {
    prop_oneof![
        any::<(u16, u16)>().prop_map(|(a, b)| Community::Standard(a, b)),
        any::<(u32, u32, u32)>().prop_map(|(a, b, c)| Community::Large(a, b, c)),
    ]
}

prop_compose! {
    fn negotiation()(
        four_octet_asn: bool,
        extended_message: bool,
        ipv4_over_ipv6: bool,
        internal: bool,
    ) -> Negotiated {
        Negotiated { four_octet_asn, extended_message, families: [Family::V4, Family::V6].into(), ipv4_over_ipv6, internal }
    }
}

/// A family and attributes for it that can be sent on this session.
fn sendable(family: Family, negotiated: &Negotiated) -> impl Strategy<Value = Attributes> + use<> {
    let v6 = (global(), option::of(global())).prop_map(|(global, local)| NextHop::V6(global, local));
    // 1.0.0.0 and up: netgauze reads any, we none that begins with 0
    let v4 = (0x0100_0000..0xdfff_ffff_u32).prop_map(|bits| NextHop::V4(bits.into()));
    let next_hop = match family {
        Family::V4 if negotiated.ipv4_over_ipv6 => prop_oneof![v4, v6].boxed(),
        Family::V4 => v4.boxed(),
        Family::V6 => v6.boxed(),
    };
    let internal = negotiated.internal;
    (vec(1..u32::MAX, 0..600), next_hop, any::<u32>(), btree_set(community(), 0..80)).prop_map(
        move |(as_path, next_hop, preference, communities)| Attributes {
            as_path,
            next_hop,
            local_pref: internal.then_some(preference),
            communities,
        },
    )
}

fn announcement() -> impl Strategy<Value = (Negotiated, Attributes, Vec<Prefix>)> {
    (negotiation(), family()).prop_flat_map(|(negotiated, family)| {
        let attributes = sendable(family, &negotiated);
        (Just(negotiated), attributes, vec(unicast(family), 1..1500))
    })
}

prop_compose! {
    fn open()(
        asn in 1..=u32::MAX,
        hold_time in prop_oneof![Just(0), 3..=u16::MAX],
        // RFC 6286 takes more of them; netgauze goes by RFC 4271, which wants the address of a host.
        router_id in 1..0xe000_0000_u32,
        families in btree_set(family(), 0..=2),
        flags in any::<[bool; 6]>(),
        restart in option::of((any::<[bool; 2]>(), 0..4096_u16, vec((family(), any::<bool>()), 0..3))),
        long_lived in vec((family(), 0..1_u32 << 24), 0..3),
    ) -> Open {
        let [ipv4_over_ipv6, four_octet_asn, route_refresh, enhanced_route_refresh, extended_message, bfd_strict] = flags;
        // Without the capability a large number cannot be said.
        let asn = if four_octet_asn { asn } else { asn % 65535 + 1 };
        let graceful_restart = restart.map(|([restarting, notification], restart_time, families)| GracefulRestart {
            restarting, notification, restart_time, families,
        });
        Open {
            asn,
            hold_time,
            router_id: router_id.into(),
            capabilities: Capabilities {
                families,
                ipv4_over_ipv6,
                four_octet_asn,
                route_refresh,
                enhanced_route_refresh,
                extended_message,
                graceful_restart,
                long_lived,
                bfd_strict,
                other: BTreeSet::new(),
            },
        }
    }
}

/// `bgp-rs` guesses whether an IPv4 prefix has a path identifier, and the width of AS numbers; it panics where it does not
/// know on. This is the subset that it gets right: docs/decisions/0002.
fn bgp_rs_prefixes(message: &[u8]) -> (Vec<Prefix>, Vec<Prefix>) {
    let capabilities = bgp_rs::Capabilities { FOUR_OCTET_ASN_SUPPORT: true, ..Default::default() };
    let (_, read) = bgp_rs::Reader { stream: message, capabilities }.read().unwrap();
    let bgp_rs::Message::Update(update) = read else { panic!("no UPDATE: {read:?}") };
    let list = |routes: &[bgp_rs::NLRIEncoding]| -> Vec<Prefix> {
        routes
            .iter()
            .map(|route| match route {
                bgp_rs::NLRIEncoding::IP(prefix) => {
                    let (ip, length) = prefix.into();
                    Prefix::containing(ip, length)
                }
                other => panic!("{other:?}"),
            })
            .collect()
    };
    let (mut announced, mut withdrawn) = (list(&update.announced_routes), list(&update.withdrawn_routes));
    for attribute in &update.attributes {
        match attribute {
            bgp_rs::PathAttribute::MP_REACH_NLRI(reach) => announced.extend(list(&reach.announced_routes)),
            bgp_rs::PathAttribute::MP_UNREACH_NLRI(unreach) => {
                withdrawn.extend(list(&unreach.withdrawn_routes));
            }
            _ => {}
        }
    }
    (announced, withdrawn)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn an_open_is_read_as_it_was_written(open in open()) {
        let mut out = Vec::new();
        encode(&Message::Open(open.clone()), &Negotiated::default(), &mut out).unwrap();
        prop_assert_eq!(read(&out, &Negotiated::default()), [Message::Open(open)]);
        prop_assert!(netgauze(&out, true).is_ok(), "{:?}", netgauze(&out, true));
    }

    #[test]
    fn routes_are_read_as_they_were_written((negotiated, attributes, prefixes) in announcement()) {
        let update = Update::Reach { attributes: Arc::new(attributes.clone()), prefixes: prefixes.clone() };
        let mut out = Vec::new();
        let encoded = encode(&Message::Update(update), &negotiated, &mut out);
        let limit = if negotiated.extended_message { 65535 } else { 4096 };
        let mut announced = Vec::new();
        for message in split(&out) {
            prop_assert!(message.len() <= limit);
            let all = read(message, &negotiated);
            let [Message::Received(update)] = all.as_slice() else { panic!("{all:?}") };
            prop_assert_eq!(&update.tolerated, &None);
            let theirs = netgauze(message, negotiated.four_octet_asn).unwrap();
            let ours = (update.announced.iter().collect(), update.withdrawn.iter().collect());
            prop_assert_eq!(netgauze_prefixes(&theirs), ours);
            if encoded.is_ok() {
                prop_assert_eq!(netgauze_attributes(&theirs), attributes.clone());
                announced.extend(update.announced.iter());
            } else {
                announced.extend(update.withdrawn.iter());
            }
        }
        prop_assert_eq!(announced, prefixes);
        if let Err(why) = encoded {
            prop_assert!(matches!(why, Unsendable::TooLarge { .. }), "{}", why);
        }
    }

    #[test]
    fn withdrawals_are_read_as_they_were_written(
        prefixes in family().prop_flat_map(|family| vec(unicast(family), 1..1500)),
        negotiated in negotiation(),
    ) {
        let mut out = Vec::new();
        encode(&Message::Update(Update::Withdraw(prefixes.clone())), &negotiated, &mut out).unwrap();
        let mut withdrawn = Vec::new();
        for message in split(&out) {
            let theirs = netgauze_prefixes(&netgauze(message, true).unwrap());
            let all = read(message, &negotiated);
            let [Message::Received(update)] = all.as_slice() else { panic!("{all:?}") };
            prop_assert_eq!(theirs, (Vec::new(), update.withdrawn.iter().collect()));
            withdrawn.extend(update.withdrawn.iter());
        }
        prop_assert_eq!(withdrawn, prefixes);
    }

    /// Host routes of private space, and small AS numbers: nothing that `bgp-rs` has to guess.
    #[test]
    fn bgp_rs_reads_the_same_routes(
        family in family(),
        hosts in btree_set(any::<u16>(), 1..300),
        withdraw: bool,
        standard in btree_set(any::<(u16, u16)>(), 0..70),
    ) {
        let prefixes: Vec<_> = hosts.iter().map(|host| match family {
            Family::V4 => Prefix::containing(IpAddr::V4((0x0a19_0000 + u32::from(*host)).into()), 32),
            Family::V6 => Prefix::containing(IpAddr::V6((0xfd00_0025_u128 << 96 | u128::from(*host)).into()), 128),
        }).collect();
        let next_hop = match family {
            Family::V4 => NextHop::V4([10, 0, 0, 1].into()),
            Family::V6 => NextHop::V6("fd00::1".parse().unwrap(), Some("fe80::1".parse().unwrap())),
        };
        let communities = standard.iter().map(|(a, b)| Community::Standard(*a, *b)).collect();
        let attributes = Arc::new(Attributes { as_path: vec![64512], next_hop, local_pref: None, communities });
        let update = if withdraw {
            Update::Withdraw(prefixes.clone())
        } else {
            Update::Reach { attributes, prefixes: prefixes.clone() }
        };
        let mut out = Vec::new();
        encode(&Message::Update(update), &ebgp(), &mut out).unwrap();
        let (mut announced, mut withdrawn) = (Vec::new(), Vec::new());
        for message in split(&out) {
            let (more, less) = bgp_rs_prefixes(message);
            announced.extend(more);
            withdrawn.extend(less);
        }
        let expected = if withdraw { (Vec::new(), prefixes) } else { (prefixes, Vec::new()) };
        prop_assert_eq!((announced, withdrawn), expected);
    }
}
