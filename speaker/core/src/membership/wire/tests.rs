use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

use super::*;
use crate::view::MemberInterface;

fn life() -> impl Strategy<Value = Life> {
    (0..MAX_START, 0..MAX_RENEWALS).prop_map(|(start, renewals)| Life { start, renewals })
}

fn ip() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0x0100_0000_u32..0xe000_0000).prop_map(|bits| IpAddr::V4(Ipv4Addr::from(bits))),
        (1_u128..0xff00 << 112).prop_map(|bits| IpAddr::V6(Ipv6Addr::from(bits))),
    ]
}

fn subnet() -> impl Strategy<Value = (IpAddr, u8)> {
    ip().prop_flat_map(|ip| (Just(ip), 0..=if ip.is_ipv4() { 32_u8 } else { 128 }))
}

fn who() -> impl Strategy<Value = Who> {
    let place = (ip(), 1_u16..).prop_map(|(ip, port)| SocketAddr::new(ip, port));
    ("[a-z0-9.-]{1,60}", vec(place, 1..=MAX_ADDRESSES)).prop_map(|(name, addresses)| Who { name, addresses })
}

fn interface() -> impl Strategy<Value = MemberInterface> {
    let flags = (any::<[u8; 6]>(), any::<[bool; 4]>());
    ("[ -~]{1,15}", flags, btree_set(subnet(), 0..4), btree_set(ip(), 0..4)).prop_map(
        |(name, (mac, [up, arp, ndp, isolated]), subnets, addresses)| MemberInterface {
            name,
            mac,
            up,
            arp,
            ndp,
            isolated,
            subnets,
            addresses,
        },
    )
}

fn member() -> impl Strategy<Value = Member> {
    let interfaces = proptest::option::of(vec(interface(), 0..4));
    ("[0-9a-z.-]{0,30}", any::<[bool; 2]>(), interfaces).prop_map(
        |(version, [starting, draining], interfaces)| Member { version, starting, draining, interfaces },
    )
}

fn you() -> impl Strategy<Value = Option<You>> {
    proptest::option::of((life(), any::<bool>(), any::<u32>()).prop_map(|(life, alive, said)| You {
        life,
        alive,
        said,
    }))
}

fn dead() -> impl Strategy<Value = Dead> {
    (any::<u64>(), life()).prop_map(|(key, life)| Dead { key, life })
}

fn known() -> impl Strategy<Value = Known> {
    (who(), life(), any::<u32>(), member()).prop_map(|(who, life, said, member)| Known {
        who,
        life,
        said,
        member,
    })
}

fn body() -> impl Strategy<Value = Body> {
    prop_oneof![
        any::<u32>().prop_map(|said| Body::Heartbeat { said }),
        (any::<u64>(), any::<u32>(), any::<u32>(), you()).prop_map(|(nonce, alive, said, you)| Body::Ping {
            nonce,
            alive,
            said,
            you
        }),
        (any::<u64>(), any::<u32>(), any::<u32>(), you()).prop_map(|(nonce, alive, said, you)| Body::Pong {
            nonce,
            alive,
            said,
            you
        }),
        any::<(u64, u64)>().prop_map(|(nonce, target)| Body::AskAbout { nonce, target }),
        any::<(u64, u64, Option<u16>)>().prop_map(|(nonce, target, age)| Body::Vouch { nonce, target, age }),
        (any::<bool>(), any::<u32>(), who(), member(), proptest::option::of((life(), any::<u32>())))
            .prop_map(|(want, said, who, member, knows)| Body::Intro { want, said, who, member, knows }),
        any::<u64>().prop_map(|from| Body::List { from }),
        (any::<[u64; 2]>(), vec(known(), 0..9)).prop_map(|([from, to], known)| Body::Listed {
            from,
            to,
            known
        }),
        any::<u32>().prop_map(|said| Body::IntroAck { said }),
        (any::<u32>(), vec(dead(), 0..=MAX_DEAD)).prop_map(|(seq, dead)| Body::Verdict { seq, dead }),
        any::<u32>().prop_map(|seq| Body::VerdictAck { seq }),
        Just(Body::Farewell),
        Just(Body::Gossip),
        (any::<u64>(), subnet()).prop_map(|(nonce, subnet)| Body::SegmentPing { nonce, subnet }),
        (any::<u64>(), subnet()).prop_map(|(nonce, subnet)| Body::SegmentPong { nonce, subnet }),
    ]
}

/// A valid message in its three parts.
fn message() -> impl Strategy<Value = (Sender, Body, Vec<u8>)> {
    (any::<u64>(), life(), body(), vec(any::<u8>(), 0..100)).prop_map(|(key, life, body, rest)| {
        let key = if let Body::Intro { who, .. } = &body { ring::key(&who.name) } else { key };
        (Sender { key, life }, body, rest)
    })
}

proptest! {
    #[test]
    fn what_was_written_is_read((sender, body, rest) in message()) {
        let bytes = encode(sender, &body, &rest);
        if bytes.len() > MAX_MESSAGE {
            prop_assert_eq!(decode(&bytes), Err(Unreadable::TooLong));
        } else {
            prop_assert_eq!(decode(&bytes), Ok((sender, body, rest.as_slice())));
        }
    }

    #[test]
    fn any_bytes_are_a_message_or_an_error(bytes in vec(any::<u8>(), 0..1400), version in any::<bool>()) {
        let bytes = if version { [&[VERSION], bytes.as_slice()].concat() } else { bytes };
        if let Ok((sender, body, rest)) = decode(&bytes) {
            prop_assert!(bytes.len() <= MAX_MESSAGE);
            // What was believed can be said again, and means the same.
            let again = encode(sender, &body, rest);
            prop_assert_eq!(decode(&again), Ok((sender, body, rest)));
        }
    }

    #[test]
    fn a_changed_message_is_a_message_or_an_error(
        (sender, body, rest) in message(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        length in any::<prop::sample::Index>(),
    ) {
        let mut bytes = encode(sender, &body, &rest);
        for (place, by) in changes {
            *place.get_mut(&mut bytes[..]) ^= by;
        }
        bytes.truncate(length.index(bytes.len()) + 1);
        if let Ok((sender, body, rest)) = decode(&bytes) {
            // An encoding that is longer than need be may be read, and is written shorter.
            let again = encode(sender, &body, rest);
            prop_assert!(again.len() <= bytes.len());
            prop_assert_eq!(decode(&again), Ok((sender, body, rest)));
        }
    }

    #[test]
    fn what_a_speaker_says_of_itself_fits(who in who(), interfaces in vec(interface(), 0..40), life in life()) {
        let sender = Sender { key: ring::key(&who.name), life };
        let member = Member { interfaces: Some(interfaces), version: "x".repeat(100), ..Member::default() };
        let fits = fitting(sender, &who, member.clone());
        prop_assert!(fits.interfaces.is_none() || fits.interfaces == member.interfaces);
        let intro = Body::Intro { want: true, said: u32::MAX, who, member: fits, knows: Some((life, 1)) };
        prop_assert!(decode(&encode(sender, &intro, &[])).is_ok());
    }
}

#[test]
fn what_is_out_of_bounds_is_named() {
    let sender = |name: &str| Sender { key: ring::key(name), life: Life::default() };
    let at: SocketAddr = "192.0.2.1:7946".parse().unwrap();
    let intro = |name: &str, addresses: Vec<SocketAddr>, member: Member| Body::Intro {
        want: false,
        said: 1,
        who: Who { name: name.to_owned(), addresses },
        member,
        knows: None,
    };
    let interfaces = |interface| Member { interfaces: Some(vec![interface]), ..Member::default() };
    let plain = MemberInterface { name: "eth0".to_owned(), ..MemberInterface::default() };
    let dead = Dead { key: 1, life: Life::default() };
    let later = Life { start: MAX_START, renewals: 0 };
    for (name, body, expected) in [
        ("n", intro("n", vec![at], interfaces(plain.clone())), Ok(())),
        ("n", intro("m", vec![at], Member::default()), Err("name")),
        ("", intro("", vec![at], Member::default()), Err("name")),
        ("a\n", intro("a\n", vec![at], Member::default()), Err("name")),
        ("n", intro("n", vec![], Member::default()), Err("addresses")),
        ("n", intro("n", vec![at; 5], Member::default()), Err("addresses")),
        ("n", intro("n", vec!["192.0.2.1:0".parse().unwrap()], Member::default()), Err("addresses")),
        ("n", intro("n", vec!["224.0.0.1:1".parse().unwrap()], Member::default()), Err("addresses")),
        ("n", intro("n", vec!["[::]:1".parse().unwrap()], Member::default()), Err("addresses")),
        ("n", intro("n", vec![at], Member { version: "x".repeat(65), ..Member::default() }), Err("version")),
        ("n", intro("n", vec![at], interfaces(MemberInterface::default())), Err("interface")),
        (
            "n",
            intro(
                "n",
                vec![at],
                interfaces(MemberInterface { subnets: [(at.ip(), 33)].into(), ..plain.clone() }),
            ),
            Err("subnet"),
        ),
        ("n", Body::Verdict { seq: 1, dead: vec![dead; MAX_DEAD] }, Ok(())),
        ("n", Body::Verdict { seq: 1, dead: vec![dead; MAX_DEAD + 1] }, Err("verdicts")),
        ("n", Body::Verdict { seq: 1, dead: vec![Dead { life: later, ..dead }] }, Err("life")),
        ("n", Body::SegmentPing { nonce: 1, subnet: ("fd00::".parse().unwrap(), 129) }, Err("subnet")),
    ] {
        let bytes = encode(sender(name), &body, &[]);
        let read = decode(&bytes).map(|_| ());
        assert_eq!(read, expected.map_err(Unreadable::Bounds), "{body:?}");
    }
    let later = Sender { life: later, ..sender("n") };
    assert_eq!(decode(&encode(later, &Body::Farewell, &[])), Err(Unreadable::Bounds("life")));
    assert_eq!(decode(&[]), Err(Unreadable::Malformed));
    assert_eq!(decode(&[2, 0, 0]), Err(Unreadable::Version(2)));
}
