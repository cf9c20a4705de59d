//! Classic BPF programs for the capturing sockets: the process wakes for frames about its own addresses only.
//!
//! Pure data, in the layout of the kernel's `struct sock_filter` (linux/filter.h), for an `AF_PACKET`/`SOCK_RAW` socket:
//! offset 0 is the Ethernet header. A program returns how many bytes of the frame to deliver; 0 is none.
//!
//! | family | a frame passes when | |
//! |---|---|---|
//! | IPv4 | it is an ARP request whose target is ours | a question, or a probe |
//! |      | it is an ARP request or reply whose sender is ours | a claim (RFC 5227 2.4: "any ARP packet") |
//! | IPv6 | it is a neighbour solicitation or advertisement whose target is ours | a question, a probe, a claim |
//! |      | its IPv6 source is ours | a claim |
//!
//! Of an IPv6 address only the last 32 bits are compared: a stranger that has them in common costs a wake-up, and
//! [`Responder`](super::responder::Responder), which looks at every frame that passes, drops it.
//!
//! Every program first asks the kernel how the frame came (`SKF_AD_PKTTYPE`) and lets only `PACKET_HOST`,
//! `PACKET_BROADCAST` and `PACKET_MULTICAST` through. Beyond them are frames to other stations, frames that we sent,
//! and frames tagged for a VLAN that has no device here: the kernel marks those `PACKET_OTHERHOST` and takes the tag
//! off, so that they would look like the untagged segment's. Extension headers hide an ICMPv6 message from the filter,
//! and [`wire::ndp`](super::wire::ndp) takes none either.

mod builder;
mod ranges;

use patina_crds::net::Family;

use builder::Builder;

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

/// `BPF_MAXINSNS` of linux/bpf_common.h: the kernel takes no longer program.
pub const MOST: usize = 4096;

/// `BPF_LD | BPF_W | BPF_ABS`: A = the 32 bits at offset k.
const LOAD_WORD: u16 = 0x20;
/// `BPF_LD | BPF_H | BPF_ABS`: A = the 16 bits at offset k.
const LOAD_HALF: u16 = 0x28;
/// `BPF_LD | BPF_B | BPF_ABS`: A = the byte at offset k.
const LOAD_BYTE: u16 = 0x30;
/// `BPF_JMP | BPF_JA`: skip k.
const JUMP: u16 = 0x05;
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

/// All ARP requests and replies, or all neighbour solicitations and advertisements: for the moments in which there is no
/// better program, and for nothing longer.
#[must_use]
pub fn whole(family: Family) -> Vec<Instruction> {
    program(family, &[(0, u32::MAX)])
}

/// The program for exactly these addresses, given by their last 32 bits, in any order.
///
/// It has at most `most` instructions. Where that does not do, neighbours become ranges, those with the smallest gaps
/// first: a superset, which is exact again with fewer addresses. At [`MOST`] about 990 ranges fit, and addresses that
/// follow one another are one range.
#[must_use]
pub fn exact(family: Family, words: Vec<u32>, most: usize) -> Vec<Instruction> {
    // Two trees, each with a comparison for either end of a range, and some ten instructions around them.
    let mut ranges = most.saturating_sub(32) / 4;
    let all = ranges::of(words);
    loop {
        let program = program(family, &ranges::merged(&all, ranges));
        if program.len() <= most || ranges <= 1 {
            return program;
        }
        // Islands (`Builder`) take a few.
        ranges -= ranges.div_ceil(50);
    }
}

/// Where a family's frames have what is looked at. Offsets from the Ethernet header.
struct Layout {
    ethertype: u32,
    /// What the target of a question is compared for; what only the sender is compared for.
    kinds: [u32; 2],
    /// Whether the second kind, too, is compared by its target.
    both: bool,
    target: u32,
    sender: u32,
}

fn program(family: Family, ranges: &[(u32, u32)]) -> Vec<Instruction> {
    let layout = match family {
        // RFC 826: operation at 20 (request 1, reply 2), sender address at 28, target address at 38.
        Family::V4 => Layout { ethertype: 0x0806, kinds: [1, 2], both: false, target: 38, sender: 28 },
        // RFC 8200, RFC 4861: next header at 20, type at 54 (135, 136), the source's last word at 34, the target's at 74.
        Family::V6 => Layout { ethertype: 0x86dd, kinds: [135, 136], both: true, target: 74, sender: 34 },
    };
    let mut build = Builder::new();
    // From the end to the beginning: an instruction knows the places of what it jumps to.
    let (accept, reject) = (build.accept(), build.reject());
    let sender = build.lookup(layout.sender, ranges, accept, reject);
    let target = build.lookup(layout.target, ranges, accept, sender);
    let second = if layout.both { target } else { sender };
    let kind = build.when(IF_EQUAL, layout.kinds[1], second, reject);
    build.when(IF_EQUAL, layout.kinds[0], target, kind);
    match family {
        Family::V4 => build.load(LOAD_HALF, 20),
        Family::V6 => {
            let kind = build.load(LOAD_BYTE, 54);
            build.when(IF_EQUAL, 58, kind, reject);
            build.load(LOAD_BYTE, 20)
        }
    };
    let header = build.last();
    build.when(IF_EQUAL, layout.ethertype, header, reject);
    let ethertype = build.load(LOAD_HALF, 12);
    build.when(IF_AT_LEAST, PACKET_OTHERHOST, reject, ethertype);
    build.load(LOAD_WORD, PACKET_TYPE);
    build.finish()
}

#[cfg(test)]
mod tests;
