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

/// A frame in which another station names an address of ours as its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
