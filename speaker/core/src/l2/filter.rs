//! Classic BPF programs for the capturing sockets: the process wakes for ARP requests and neighbour solicitations only.
//!
//! Pure data, in the layout of the kernel's `struct sock_filter` (linux/filter.h), for an `AF_PACKET`/`SOCK_RAW` socket:
//! offset 0 is the Ethernet header. A program returns how many bytes of the frame to deliver; 0 is none.
//!
//! Both programs first ask the kernel how the frame came (`SKF_AD_PKTTYPE`) and let only `PACKET_HOST`,
//! `PACKET_BROADCAST` and `PACKET_MULTICAST` through. Beyond them are frames to other stations, frames that we sent,
//! and frames tagged for a VLAN that has no device here: the kernel marks those `PACKET_OTHERHOST` and takes the tag
//! off, so that they would look like the untagged segment's.

/// One instruction, as `struct sock_filter`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip when the comparison holds.
    pub jt: u8,
    /// Instructions to skip when it does not.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// `BPF_LD | BPF_W | BPF_ABS`: A = the 32 bits at offset k.
const LOAD_WORD: u16 = 0x20;
/// `BPF_LD | BPF_H | BPF_ABS`: A = the 16 bits at offset k.
const LOAD_HALF: u16 = 0x28;
/// `BPF_LD | BPF_B | BPF_ABS`: A = the byte at offset k.
const LOAD_BYTE: u16 = 0x30;
/// `BPF_JMP | BPF_JEQ | BPF_K`: skip jt when A == k, else jf.
const IF_EQUAL: u16 = 0x15;
/// `BPF_JMP | BPF_JGE | BPF_K`: skip jt when A >= k, else jf.
const IF_AT_LEAST: u16 = 0x35;
/// `BPF_RET | BPF_K`: deliver k bytes.
const RETURN: u16 = 0x06;

/// `SKF_AD_OFF + SKF_AD_PKTTYPE`: how the frame came.
const PACKET_TYPE: u32 = 0xffff_f004;
/// `PACKET_OTHERHOST`, the first that we do not want; see above.
const PACKET_OTHERHOST: u32 = 3;
/// The whole frame.
const ALL: u32 = 0xffff;

/// ARP requests (for a socket bound to `ETH_P_ARP`): EtherType 0x0806 at 12, operation 1 at 20.
pub const ARP_REQUESTS: [Instruction; 8] = [
    statement(LOAD_WORD, PACKET_TYPE),
    jump(IF_AT_LEAST, PACKET_OTHERHOST, 5, 0),
    statement(LOAD_HALF, 12),
    jump(IF_EQUAL, 0x0806, 0, 3),
    statement(LOAD_HALF, 20),
    jump(IF_EQUAL, 1, 0, 1),
    statement(RETURN, ALL),
    statement(RETURN, 0),
];

/// Neighbour solicitations (for a socket bound to `ETH_P_IPV6`): EtherType 0x86dd at 12, next header 58 at 20, ICMPv6
/// type 135 at 54. Extension headers hide one from the filter, and [`wire::ndp`](super::wire::ndp) takes none either.
pub const NEIGHBOUR_SOLICITATIONS: [Instruction; 10] = [
    statement(LOAD_WORD, PACKET_TYPE),
    jump(IF_AT_LEAST, PACKET_OTHERHOST, 7, 0),
    statement(LOAD_HALF, 12),
    jump(IF_EQUAL, 0x86dd, 0, 5),
    statement(LOAD_BYTE, 20),
    jump(IF_EQUAL, 58, 0, 3),
    statement(LOAD_BYTE, 54),
    jump(IF_EQUAL, 135, 0, 1),
    statement(RETURN, ALL),
    statement(RETURN, 0),
];

/// [`NEIGHBOUR_SOLICITATIONS`], and advertisements (type 136) to the all-nodes group 33:33:00:00:00:01: how a node that
/// hands an address over hears its successor. They are rare: one comes when an address or its place is new.
pub const NEIGHBOUR_DISCOVERY: [Instruction; 15] = [
    statement(LOAD_WORD, PACKET_TYPE),
    jump(IF_AT_LEAST, PACKET_OTHERHOST, 12, 0),
    statement(LOAD_HALF, 12),
    jump(IF_EQUAL, 0x86dd, 0, 10),
    statement(LOAD_BYTE, 20),
    jump(IF_EQUAL, 58, 0, 8),
    statement(LOAD_BYTE, 54),
    jump(IF_EQUAL, 135, 5, 0),
    jump(IF_EQUAL, 136, 0, 5),
    statement(LOAD_WORD, 0),
    jump(IF_EQUAL, 0x3333_0000, 0, 3),
    statement(LOAD_HALF, 4),
    jump(IF_EQUAL, 0x0001, 0, 1),
    statement(RETURN, ALL),
    statement(RETURN, 0),
];

const fn statement(code: u16, k: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k }
}

const fn jump(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use proptest::prelude::*;

    use super::super::wire::arp::Arp;
    use super::super::wire::ndp::{Advertisement, Envelope, Solicitation};
    use super::*;

    const HOST: u32 = 0;

    /// The kernel's classic BPF machine, as far as our programs use it. A load behind the end returns 0.
    fn run(program: &[Instruction], frame: &[u8], packet_type: u32) -> u32 {
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
                IF_EQUAL | IF_AT_LEAST => {
                    let holds = if code == IF_EQUAL { a == k } else { a >= k };
                    pc += usize::from(if holds { jt } else { jf });
                    continue;
                }
                RETURN => return k,
                other => panic!("unknown instruction {other:#x}"),
            };
            match loaded {
                Some(value) => a = value,
                None => return 0,
            }
        }
    }

    fn arp(frame: &[u8], packet_type: u32) -> bool {
        run(&ARP_REQUESTS, frame, packet_type) != 0
    }

    fn ndp(frame: &[u8], packet_type: u32) -> bool {
        run(&NEIGHBOUR_SOLICITATIONS, frame, packet_type) != 0
    }

    fn discovery(frame: &[u8], packet_type: u32) -> bool {
        run(&NEIGHBOUR_DISCOVERY, frame, packet_type) != 0
    }

    fn solicitation() -> Vec<u8> {
        let ip = |text: &str| text.parse::<Ipv6Addr>().unwrap();
        let envelope = Envelope {
            destination_mac: [0x33, 0x33, 0xff, 0, 0, 9],
            source_mac: [2, 0, 0, 0, 0, 1],
            destination: ip("ff02::1:ff00:9"),
            source: ip("fe80::1"),
        };
        Solicitation { envelope, target: ip("fd00::9"), source_link_layer: None }.emit()
    }

    #[test]
    fn constants_are_those_of_the_kernel() {
        assert_eq!(PACKET_TYPE.cast_signed(), -0x1000 + 4); // SKF_AD_OFF + SKF_AD_PKTTYPE
        assert_eq!(size_of::<Instruction>(), 8);
    }

    #[test]
    fn requests_pass_and_replies_do_not() {
        let request = Arp::gratuitous_request([172, 25, 7, 100].into(), [2, 0, 0, 0, 0, 1]).emit();
        let reply = Arp::gratuitous_reply([172, 25, 7, 100].into(), [2, 0, 0, 0, 0, 1]).emit();
        assert!(arp(&request, HOST));
        assert!(!arp(&reply, HOST));
        assert!(!ndp(&request, HOST));
    }

    #[test]
    fn solicitations_pass_and_advertisements_do_not() {
        let advertisement = Advertisement::unsolicited("fd00::9".parse().unwrap(), [2, 0, 0, 0, 0, 1]);
        assert!(ndp(&solicitation(), HOST));
        assert!(!ndp(&advertisement.emit(), HOST));
        assert!(discovery(&solicitation(), HOST) && discovery(&advertisement.emit(), HOST));
        let mut to_us = advertisement;
        to_us.envelope.destination_mac = [2, 0, 0, 0, 0, 9];
        assert!(!discovery(&to_us.emit(), HOST));
        assert!(!arp(&solicitation(), HOST));
    }

    #[test]
    fn only_frames_for_us_pass() {
        let request = Arp::gratuitous_request([172, 25, 7, 100].into(), [2, 0, 0, 0, 0, 1]).emit();
        // PACKET_HOST, BROADCAST, MULTICAST; then OTHERHOST, OUTGOING, LOOPBACK, USER, KERNEL.
        let passes = [true, true, true, false, false, false, false, false];
        for (packet_type, expected) in (0..).zip(passes) {
            assert_eq!(arp(&request, packet_type), expected, "packet type {packet_type}");
            assert_eq!(ndp(&solicitation(), packet_type), expected, "packet type {packet_type}");
            assert_eq!(discovery(&solicitation(), packet_type), expected, "packet type {packet_type}");
        }
    }

    #[test]
    fn short_frames_do_not_pass() {
        let request = Arp::gratuitous_request([172, 25, 7, 100].into(), [2, 0, 0, 0, 0, 1]).emit();
        assert!((0..22).all(|length| !arp(&request[..length], HOST)));
        assert!((0..55).all(|length| !ndp(&solicitation()[..length], HOST)));
    }

    proptest! {
        /// What the programs mean, said in another way, on frames that are nearly right.
        #[test]
        fn they_accept_exactly_what_they_should(
            mut frame in proptest::collection::vec(any::<u8>(), 0..120),
            seed in 0usize..5,
            changes in proptest::collection::vec((0usize..60, any::<u8>()), 0..3),
            packet_type in 0u32..8,
        ) {
            match seed {
                0 => frame = solicitation(),
                1 => frame = Arp::gratuitous_request([10, 0, 0, 1].into(), [2, 0, 0, 0, 0, 1]).emit(),
                2 => frame = Advertisement::unsolicited("fd00::9".parse().unwrap(), [2, 0, 0, 0, 0, 1]).emit(),
                _ => {}
            }
            for (at, value) in changes {
                if let Some(byte) = frame.get_mut(at) {
                    *byte = value;
                }
            }
            let for_us = packet_type < 3;
            let is = |at: usize, bytes: &[u8]| frame.get(at..at + bytes.len()) == Some(bytes);
            prop_assert_eq!(arp(&frame, packet_type), for_us && is(12, &[8, 6]) && is(20, &[0, 1]));
            let solicits = is(12, &[0x86, 0xdd]) && is(20, &[58]) && is(54, &[135]);
            prop_assert_eq!(ndp(&frame, packet_type), for_us && solicits);
            let tells = is(0, &[0x33, 0x33, 0, 0, 0, 1]) && is(12, &[0x86, 0xdd]) && is(20, &[58]) && is(54, &[136]);
            prop_assert_eq!(discovery(&frame, packet_type), for_us && (solicits || tells));
        }

        /// The filter never keeps back what the parser would take for a question.
        #[test]
        fn they_let_every_question_through(changes in proptest::collection::vec((0usize..78, any::<u8>()), 0..3)) {
            use super::super::wire::ndp::Message;
            let mut frame = solicitation();
            for (at, value) in changes {
                frame[at] = value;
            }
            if let Ok(Message::Solicitation(_)) = Message::parse(&frame) {
                prop_assert!(ndp(&frame, HOST));
            }
        }
    }
}
