//! What the wire shall do for each address, and what it hears about one. The values that ownership (who decides) and the
//! responder, the announcer and the kernel filters (who do) exchange.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::wire::Mac;

/// Every address that this node has something to do for. The newest value is all that counts.
pub type Duties = BTreeMap<IpAddr, Duty>;

/// What to do for one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Duty {
    /// Kernel indexes of the interfaces; never empty.
    pub interfaces: Arc<BTreeSet<u32>>,
    /// What to do on them.
    pub mode: Mode,
    /// Another number than before starts the announcement schedule anew (after a partition has healed, say).
    pub round: u32,
    /// Another number than before sends one announcement at once (RFC 5227 2.4 (b): the defence of an address).
    pub defence: u32,
}

/// How present an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// Listen for it, and answer nothing.
    Listen,
    /// Ask whether somebody has it (RFC 5227 2.1.1, RFC 4862 5.4), listen, and answer nothing: probes are sent when the
    /// mode is entered and every [`Probing::interval`] after, [`Probing::count`] of them.
    Probe,
    /// Answer, but do not announce: a successor is about to, and must not be contradicted.
    Answer,
    /// Answer, and announce on the schedule.
    Announce,
}

/// How often and how fast an address is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probing {
    /// How many probes.
    pub count: u32,
    /// Between them, and after the last one before the address is taken to be free.
    pub interval: std::time::Duration,
}

impl Default for Probing {
    /// Short, where RFC 5227 1.1 would have 3 probes 1 to 2 s apart and 2 s of silence (`PROBE_NUM`, `PROBE_MIN`, `ANNOUNCE_WAIT`).
    fn default() -> Self {
        Self { count: 2, interval: std::time::Duration::from_millis(100) }
    }
}

/// What leads from one value to the next, in the order of the addresses: each address whose duty differs, with the old
/// one and the new one. Equal entries cost a comparison of two pointers and three small fields; equal values nothing.
pub fn changes<'a>(
    old: &'a Arc<Duties>,
    new: &'a Arc<Duties>,
) -> impl Iterator<Item = (IpAddr, Option<&'a Duty>, Option<&'a Duty>)> {
    let same = Arc::ptr_eq(old, new);
    let (mut before, mut after) = (old.iter().peekable(), new.iter().peekable());
    std::iter::from_fn(move || {
        if same {
            return None;
        }
        loop {
            let ip = match (before.peek(), after.peek()) {
                (Some((old, _)), Some((new, _))) => **old.min(new),
                (Some((ip, _)), None) | (None, Some((ip, _))) => **ip,
                (None, None) => return None,
            };
            let old = before.next_if(|(at, _)| **at == ip).map(|(_, duty)| duty);
            let new = after.next_if(|(at, _)| **at == ip).map(|(_, duty)| duty);
            if old != new {
                return Some((ip, old, new));
            }
        }
    })
}

impl Mode {
    /// Whether questions are answered.
    #[must_use]
    pub fn answers(self) -> bool {
        matches!(self, Self::Answer | Self::Announce)
    }
}

/// A frame in which another station names an address of ours as its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Claim {
    /// The address.
    pub ip: IpAddr,
    /// On which of our interfaces.
    pub ifindex: u32,
    /// The station: the sender's hardware address that the frame names (for NDP the target link-layer option, or the
    /// frame's source without one).
    pub mac: Mac,
    /// How.
    pub kind: ClaimKind,
}

/// How a station names an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClaimKind {
    /// It announces it: a gratuitous ARP, an unsolicited neighbour advertisement.
    Announcement,
    /// It uses it: an ARP frame with this sender address, a solicited neighbour advertisement, a solicitation from it.
    Use,
    /// It asks whether the address is free (ARP probe, duplicate address detection). A conflict only while we probe it, too
    /// (RFC 5227 2.1.1; RFC 4862 5.4.3); otherwise it is answered.
    Probe,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn duties(entries: &[(u8, Mode, u32)]) -> Arc<Duties> {
        let interfaces = Arc::new(BTreeSet::from([3]));
        let duty = |mode, round| Duty { interfaces: Arc::clone(&interfaces), mode, round, defence: 0 };
        Arc::new(
            entries.iter().map(|(n, mode, round)| ([192, 0, 2, *n].into(), duty(*mode, *round))).collect(),
        )
    }

    fn names(old: &Arc<Duties>, new: &Arc<Duties>) -> Vec<(u8, Option<Mode>, Option<Mode>)> {
        changes(old, new)
            .map(|(ip, old, new)| {
                let IpAddr::V4(ip) = ip else { panic!("{ip}") };
                (ip.octets()[3], old.map(|duty| duty.mode), new.map(|duty| duty.mode))
            })
            .collect()
    }

    #[test]
    fn what_is_new_gone_or_different_is_told_once_and_in_order() {
        use Mode::{Announce, Listen, Probe};
        let old = duties(&[(1, Listen, 0), (2, Listen, 0), (4, Announce, 1), (6, Announce, 0)]);
        let new = duties(&[(0, Probe, 0), (2, Listen, 0), (4, Announce, 2), (5, Listen, 0)]);
        let expected = [
            (0, None, Some(Probe)),
            (1, Some(Listen), None),
            (4, Some(Announce), Some(Announce)),
            (5, None, Some(Listen)),
            (6, Some(Announce), None),
        ];
        assert_eq!(names(&old, &new), expected);
        assert_eq!(names(&new, &new), []);
        assert_eq!(names(&new, &Arc::new(Duties::clone(&new))), []);
    }
}
