//! The programs in an interpreter of the kernel's machine.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::super::wire::Mac;
use super::super::wire::arp::Arp;
use super::super::wire::ndp::{Advertisement, Envelope, Message, Solicitation, solicited_node};
use super::*;

const HOST: u32 = 0;
const THEIRS: Mac = [2, 0, 0, 0, 0, 1];
/// The last words of `172.25.7.100` and of `fd00::9`.
const OURS4: u32 = 0xac19_0764;
const OURS6: u32 = 9;

/// The kernel's classic BPF machine, as far as our programs use it. A load behind the end returns 0. Also what the kernel
/// checks when a program is attached (`bpf_check_classic`): its length, its jumps, its last instruction.
fn run(program: &[Instruction], frame: &[u8], packet_type: u32) -> bool {
    assert!(!program.is_empty() && program.len() <= MOST, "{} instructions", program.len());
    assert_eq!(program.last().unwrap().code, RETURN);
    let load = |offset: u32, size: usize| -> Option<u32> {
        if (offset, size) == (PACKET_TYPE, 4) {
            return Some(packet_type);
        }
        let at = offset as usize;
        let bytes = frame.get(at..at.checked_add(size)?)?;
        Some(bytes.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte)))
    };
    let (mut a, mut pc) = (0u32, 0usize);
    loop {
        let Instruction { code, jt, jf, k } = program[pc];
        pc += 1;
        let loaded = match code {
            LOAD_WORD => load(k, 4),
            LOAD_HALF => load(k, 2),
            LOAD_BYTE => load(k, 1),
            JUMP => {
                pc += k as usize;
                continue;
            }
            IF_EQUAL | IF_AT_LEAST => {
                let holds = if code == IF_EQUAL { a == k } else { a >= k };
                pc += usize::from(if holds { jt } else { jf });
                continue;
            }
            RETURN => return k != 0,
            other => panic!("unknown instruction {other:#x}"),
        };
        match loaded {
            Some(value) => a = value,
            None => return false,
        }
    }
}

fn v4(words: &[u32]) -> Vec<Instruction> {
    exact(Family::V4, words.to_vec(), MOST)
}

fn v6(words: &[u32]) -> Vec<Instruction> {
    exact(Family::V6, words.to_vec(), MOST)
}

/// Who has `target`?
fn request(sender: u32, target: u32) -> Vec<u8> {
    let asks = Arp::gratuitous_request(Ipv4Addr::from(target), THEIRS);
    Arp { sender_ip: Ipv4Addr::from(sender), ..asks }.emit()
}

fn reply(sender: u32, target: u32) -> Vec<u8> {
    let tells = Arp::gratuitous_reply(Ipv4Addr::from(target), THEIRS);
    Arp { sender_ip: Ipv4Addr::from(sender), ..tells }.emit()
}

fn ipv6(word: u32) -> Ipv6Addr {
    Ipv6Addr::from(0xfd00 << 112 | u128::from(word))
}

fn solicitation(source: u32, target: u32) -> Vec<u8> {
    let envelope = Envelope {
        destination_mac: [0x33, 0x33, 0xff, 0, 0, 9],
        source_mac: THEIRS,
        destination: solicited_node(ipv6(target)),
        source: ipv6(source),
    };
    Solicitation { envelope, target: ipv6(target), source_link_layer: None }.emit()
}

fn advertisement(target: u32) -> Vec<u8> {
    Advertisement::unsolicited(ipv6(target), THEIRS).emit()
}

#[test]
fn constants_are_those_of_the_kernel() {
    assert_eq!(PACKET_TYPE.cast_signed(), -0x1000 + 4); // SKF_AD_OFF + SKF_AD_PKTTYPE
    assert_eq!(size_of::<Instruction>(), 8);
}

#[test]
fn questions_for_our_addresses_and_whatever_claims_one_pass() {
    let (arp, ndp) = (v4(&[OURS4]), v6(&[OURS6]));
    for frame in
        [request(1, OURS4), request(0, OURS4), request(OURS4, 1), reply(OURS4, 1), reply(OURS4, OURS4)]
    {
        assert!(run(&arp, &frame, HOST), "{frame:02x?}");
        assert!(!run(&ndp, &frame, HOST));
    }
    for frame in [solicitation(1, OURS6), solicitation(OURS6, 1), advertisement(OURS6)] {
        assert!(run(&ndp, &frame, HOST), "{frame:02x?}");
        assert!(!run(&arp, &frame, HOST));
    }
}

#[test]
fn what_is_about_others_does_not_pass() {
    let (arp, ndp) = (v4(&[OURS4]), v6(&[OURS6]));
    // A reply *to* one of ours asks for nothing.
    for frame in [request(1, 2), request(1, OURS4 - 1), request(1, OURS4 + 1), reply(1, 2), reply(1, OURS4)] {
        assert!(!run(&arp, &frame, HOST), "{frame:02x?}");
        assert!(run(&whole(Family::V4), &frame, HOST));
    }
    for frame in [solicitation(1, 2), solicitation(1, OURS6 + 1), advertisement(OURS6 - 1)] {
        assert!(!run(&ndp, &frame, HOST), "{frame:02x?}");
        assert!(run(&whole(Family::V6), &frame, HOST));
    }
}

#[test]
fn nothing_else_of_the_protocol_passes() {
    let changed = |mut frame: Vec<u8>, at: usize, value: u8| {
        frame[at] = value;
        frame
    };
    for (program, frame) in [
        (whole(Family::V4), changed(request(1, OURS4), 21, 3)),
        (whole(Family::V4), changed(request(1, OURS4), 20, 1)),
        (whole(Family::V4), changed(request(1, OURS4), 13, 0)),
        (whole(Family::V6), changed(advertisement(OURS6), 54, 137)),
        (whole(Family::V6), changed(advertisement(OURS6), 54, 134)),
        (whole(Family::V6), changed(advertisement(OURS6), 20, 17)),
        (whole(Family::V6), changed(advertisement(OURS6), 12, 8)),
    ] {
        assert!(!run(&program, &frame, HOST), "{frame:02x?}");
    }
}

#[test]
fn only_frames_for_us_pass() {
    // PACKET_HOST, BROADCAST, MULTICAST; then OTHERHOST, OUTGOING, LOOPBACK, USER, KERNEL.
    let passes = [true, true, true, false, false, false, false, false];
    for (packet_type, expected) in (0..).zip(passes) {
        for (program, frame) in [
            (v4(&[OURS4]), request(1, OURS4)),
            (v6(&[OURS6]), solicitation(1, OURS6)),
            (whole(Family::V4), request(1, 2)),
            (whole(Family::V6), advertisement(1)),
        ] {
            assert_eq!(run(&program, &frame, packet_type), expected, "packet type {packet_type}");
        }
    }
}

#[test]
fn short_frames_do_not_pass() {
    let (arp, ndp) = (request(1, OURS4), solicitation(1, OURS6));
    assert!((0..42).all(|length| !run(&v4(&[OURS4]), &arp[..length], HOST)));
    assert!((0..78).all(|length| !run(&v6(&[OURS6]), &ndp[..length], HOST)));
}

#[test]
fn no_address_lets_nothing_through() {
    assert!(!run(&v4(&[]), &request(0, 0), HOST));
    assert!(!run(&v6(&[]), &advertisement(0), HOST));
}

#[test]
fn the_ends_of_the_numbers_are_addresses_too() {
    let program = v4(&[0, u32::MAX]);
    for (word, passes) in [(0, true), (1, false), (u32::MAX - 1, false), (u32::MAX, true)] {
        assert_eq!(run(&program, &request(1 << 16, word), HOST), passes, "{word:#x}");
    }
}

#[test]
fn nine_hundred_scattered_addresses_fit_and_ten_thousand_in_a_row_do_too() {
    for family in [Family::V4, Family::V6] {
        let scattered: Vec<u32> = (0..960).map(|n| n * 7919).collect();
        let program = exact(family, scattered.clone(), MOST);
        let about = |n: u32| if family == Family::V4 { request(3, n) } else { advertisement(n) };
        for n in scattered {
            assert!(run(&program, &about(n), HOST));
            assert!([1, 4000, 7918].iter().all(|more| !run(&program, &about(n + more), HOST)), "it is exact");
        }
        let row = exact(family, (0x0a00_0000..0x0a00_2710).collect(), MOST);
        assert!(row.len() < 32, "{}", row.len());
    }
}

#[test]
fn a_lookup_is_some_twenty_steps() {
    let program = v4(&(0..960).map(|n| n * 7919).collect::<Vec<_>>());
    // Each path goes forward only; the longest one, found from the end.
    let mut longest = vec![0usize; program.len()];
    for at in (0..program.len()).rev() {
        let Instruction { code, jt, jf, k } = program[at];
        let to = |skip: usize| longest[at + 1 + skip];
        longest[at] = 1 + match code {
            RETURN => 0,
            JUMP => to(k as usize),
            IF_EQUAL | IF_AT_LEAST => to(usize::from(jt)).max(to(usize::from(jf))),
            _ => to(0),
        };
    }
    assert!(longest[0] < 50, "{} steps for two lookups", longest[0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Every owned address passes, as target and as sender, however many there are and however short the program must
    /// be; others are dropped as long as it is exact.
    #[test]
    fn every_owned_address_passes_and_others_do_not(
        words in proptest::collection::btree_set(any::<u32>(), 0..400),
        spread in prop_oneof![Just(0u32), Just(20)],
        others in proptest::collection::vec(any::<u32>(), 20),
        most in prop_oneof![Just(MOST), 40usize..600],
    ) {
        // Close to one another, or all over the place.
        let words: BTreeSet<u32> = words.into_iter().map(|word| word >> spread).collect();
        let list: Vec<u32> = words.iter().copied().collect();
        let (arp, ndp) = (exact(Family::V4, list.clone(), most), exact(Family::V6, list.clone(), most));
        prop_assert!(arp.len() <= most && ndp.len() <= most, "{} {} > {}", arp.len(), ndp.len(), most);
        let stranger = (0..).map(|n: u32| n << 12 | 0xfff).find(|n| !words.contains(n)).unwrap();
        for word in &list {
            prop_assert!(run(&arp, &request(stranger, *word), HOST));
            prop_assert!(run(&arp, &request(*word, stranger), HOST));
            prop_assert!(run(&arp, &reply(*word, stranger), HOST));
            prop_assert!(run(&ndp, &solicitation(stranger, *word), HOST));
            prop_assert!(run(&ndp, &solicitation(*word, stranger), HOST));
            prop_assert!(run(&ndp, &advertisement(*word), HOST));
        }
        let neighbours = list.iter().flat_map(|word| [word.wrapping_sub(1), word.wrapping_add(1)]);
        let others = others.into_iter().map(|word| word >> spread).chain(neighbours);
        for other in others.filter(|word| most == MOST && !words.contains(word)) {
            prop_assert!(!run(&arp, &request(stranger, other), HOST));
            prop_assert!(!run(&arp, &request(other, stranger), HOST));
            prop_assert!(!run(&ndp, &solicitation(stranger, other), HOST));
            prop_assert!(!run(&ndp, &advertisement(other), HOST));
        }
    }

    /// Whatever comes, of whatever length: the machine stays within the program, and what passes is about one of ours.
    #[test]
    fn any_frame_is_safe(
        frame in proptest::collection::vec(any::<u8>(), 0..120),
        seed in 0usize..6,
        changes in proptest::collection::vec((0usize..80, any::<u8>()), 0..3),
        cut in 0usize..120,
        packet_type in 0u32..8,
    ) {
        let mut frame = match seed {
            0 => solicitation(1, OURS6),
            1 => request(1, OURS4),
            2 => advertisement(OURS6),
            3 => reply(OURS4, 1),
            _ => frame,
        };
        for (at, value) in changes {
            if let Some(byte) = frame.get_mut(at) {
                *byte = value;
            }
        }
        frame.truncate(cut);
        let for_us = packet_type < 3;
        let is = |at: usize, bytes: &[u8]| frame.get(at..at + bytes.len()) == Some(bytes);
        let (four, six) = (OURS4.to_be_bytes(), OURS6.to_be_bytes());
        let sends = frame.len() >= 32 && is(28, &four);
        let asks = is(20, &[0, 1]) && frame.len() >= 42 && (is(38, &four) || sends);
        let arp = is(12, &[8, 6]) && (asks || is(20, &[0, 2]) && sends);
        prop_assert_eq!(run(&v4(&[OURS4]), &frame, packet_type), for_us && arp);
        let kind = is(54, &[135]) || is(54, &[136]);
        let ndp = is(12, &[0x86, 0xdd]) && is(20, &[58]) && kind && frame.len() >= 78 && (is(74, &six) || is(34, &six));
        prop_assert_eq!(run(&v6(&[OURS6]), &frame, packet_type), for_us && ndp);
    }

    /// The filter never keeps back what the responder would answer or tell of.
    #[test]
    fn they_let_through_whatever_matters(changes in proptest::collection::vec((0usize..78, any::<u8>()), 0..3)) {
        let mut frame = solicitation(1, OURS6);
        for (at, value) in changes {
            frame[at] = value;
        }
        if let Ok(Message::Solicitation(solicitation)) = Message::parse(&frame)
            && solicitation.target == ipv6(OURS6)
        {
            prop_assert!(run(&v6(&[OURS6]), &frame, HOST));
        }
    }
}
