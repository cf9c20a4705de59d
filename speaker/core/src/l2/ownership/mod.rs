//! Which addresses this node answers for *now*: between the decision (`intent`, who should) and the wire (who does).
//!
//! One machine for all addresses. Per address:
//!
//! ```text
//!            never announced before            nobody answered the probes
//!  Silent ───────────────────────> Probing ──────────────────────────────> Announcing <──┐ a better candidate does
//!    │                                │ somebody foreign has it                  │       │ not show up
//!    │  a takeover: no probe          v                                          v       │
//!    ├──────────────────────────>  (Announcing)        Parked <── foreign, twice ┤   HandingOver ──> Silent
//!    │  failback: never | delay, and another speaker holds it                    │       ^  heard the successor
//!    └──> Waiting (until the holder dies, or the delay is over)                  └───────┘  better candidate, drain
//! ```

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::duty::{Claim, Probing};
use super::wire::Mac;
use crate::intent::L2Announcement;

/// What can be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Before an address is announced for the first time.
    pub probing: Probing,
    /// How long an address is answered for after the decision went to another node that was not heard to announce it.
    pub longest_handover: Duration,
    /// RFC 5227 1.1 `DEFEND_INTERVAL`: one defence in this time; a second foreign claim within it parks the address.
    pub defend_interval: Duration,
    /// How often a parked address is probed again.
    pub parked_retry: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            probing: Probing::default(),
            longest_handover: Duration::from_secs(3),
            defend_interval: Duration::from_secs(10),
            parked_retry: Duration::from_secs(60),
        }
    }
}

/// Something happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// A decision: every address for which this node is a candidate with an interface to announce it on.
    Decided(Arc<BTreeMap<IpAddr, L2Announcement>>),
    /// A station names an address of ours as its own.
    Heard(Claim),
    /// The MAC addresses of all speakers, dead ones too, with their nodes; not our own. They are never foreign.
    Stations(Arc<BTreeMap<Mac, Arc<str>>>),
    /// We stalled and have been let back in, or a partition has healed: whoever contradicts us shall hear us.
    Rejoined,
    /// We end: everything is handed over.
    Leave,
}

/// What the machine reports beside its duties.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// The node of this name announces an address that we hold, and is not among the candidates that we know: it lives.
    Hint(Arc<str>),
    /// We announce the address from now on.
    Took(IpAddr),
    /// We announce it no more.
    Gave(IpAddr, Gave),
    /// A foreign station has it: we do not announce it (`in_use`: any more).
    Conflict {
        /// The address.
        ip: IpAddr,
        /// Who has it, where.
        claim: Claim,
        /// We had announced it before.
        in_use: bool,
    },
    /// A foreign station named it and we defended it.
    Defended(Claim),
    /// It is free again.
    ConflictOver(IpAddr),
}

/// Why an address is given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gave {
    /// A better candidate was heard to announce it.
    Heard(Arc<str>),
    /// The successor was not heard within `longest_handover`.
    Unheard,
    /// Nobody shall announce it, or this node cannot any more.
    Withdrawn,
}
