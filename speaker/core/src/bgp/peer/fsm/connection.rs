//! One TCP connection, from the moment it exists.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use patina_crds::net::Family;

use super::timing::{Jitter, OPEN_HOLD, SEND_HOLD};
use crate::bgp::message::{Ends, Message, Open};
use crate::bgp::peer::{Established, State};
use crate::intent::routes::Prefix;

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) ends: Ends,
    /// It exists since then.
    pub(super) since: Instant,
    /// OpenSent, OpenConfirm or Established.
    pub(super) state: State,
    /// Goes out before any route.
    pub(super) control: VecDeque<Message>,
    pub(super) hold: Option<Instant>,
    pub(super) keepalive: Option<Instant>,
    /// RFC 9687; runs while the driver holds bytes.
    pub(super) send_hold: Option<Instant>,
    /// Once the peer's OPEN was good.
    pub(super) agreed: Option<Agreed>,
    /// Our KEEPALIVE, which confirms the peer's OPEN, is kept back until BFD is up; meanwhile whether the peer's came.
    pub(super) waits_for_bfd: Option<Confirmed>,
    pub(super) established: Option<Instant>,
    /// Announced to us and not taken back.
    pub(super) received: BTreeSet<Prefix>,
    /// Families whose End-of-RIB has not gone out.
    pub(super) initial: BTreeSet<Family>,
    /// Families that are sent again, and those that the peer asked for since.
    pub(super) refreshing: BTreeSet<Family>,
    pub(super) asked: BTreeSet<Family>,
}

/// The peer has confirmed our OPEN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Confirmed(pub(super) bool);

/// What follows from both OPENs.
#[derive(Clone, Debug)]
pub(in crate::bgp::peer) struct Agreed {
    /// With whom; its link is right.
    pub(in crate::bgp::peer) with: Established,
    /// Between KEEPALIVEs, before the jitter; `None`: none are sent.
    pub(super) keepalive: Option<Duration>,
    /// Both sent the capability, and ours the N bit as well as theirs.
    pub(super) graceful_restart: bool,
    pub(super) graceful_notification: bool,
}

impl Connection {
    /// "Completes the BGP initialization, sends an OPEN message to its peer, sets the HoldTimer to a large value, changes its state
    /// to OpenSent. A HoldTimer value of 4 minutes is suggested."
    pub(super) fn new(now: Instant, ends: Ends, open: Open) -> Self {
        Self {
            ends,
            since: now,
            state: State::OpenSent,
            control: VecDeque::from([Message::Open(open)]),
            hold: now.checked_add(OPEN_HOLD),
            keepalive: None,
            send_hold: None,
            agreed: None,
            waits_for_bfd: None,
            established: None,
            received: BTreeSet::new(),
            initial: BTreeSet::new(),
            refreshing: BTreeSet::new(),
            asked: BTreeSet::new(),
        }
    }

    /// "If the negotiated HoldTime is zero, the HoldTimer ... is not started."
    pub(super) fn restart_hold(&mut self, now: Instant) {
        let hold = self.agreed.as_ref().map(|agreed| agreed.with.hold_time).filter(|hold| !hold.is_zero());
        self.hold = hold.and_then(|hold| now.checked_add(hold));
    }

    pub(super) fn restart_keepalive(&mut self, now: Instant, jitter: &mut Jitter) {
        let interval = self.agreed.as_ref().and_then(|agreed| agreed.keepalive);
        self.keepalive = interval.and_then(|interval| now.checked_add(jitter.of(interval)));
    }

    /// RFC 9687 section 4.3: "unless ... the negotiated HoldTime value is zero".
    pub(super) fn start_send_hold(&mut self, now: Instant) {
        let Some(hold) = self.agreed.as_ref().map(|agreed| agreed.with.hold_time) else { return };
        if self.state == State::Established && !hold.is_zero() && self.send_hold.is_none() {
            self.send_hold = now.checked_add(SEND_HOLD.max(hold.saturating_mul(2)));
        }
    }

    /// One at a time: who does not read gets no heap of them.
    pub(super) fn queue_keepalive(&mut self) {
        if !self.control.contains(&Message::Keepalive) {
            self.control.push_back(Message::Keepalive);
        }
    }

    pub(super) fn received_by_family(&self) -> BTreeMap<Family, usize> {
        let mut counts = BTreeMap::new();
        for prefix in &self.received {
            *counts.entry(Family::of(prefix.address())).or_default() += 1;
        }
        counts
    }

    pub(super) fn timeout(&self) -> Option<Instant> {
        [self.hold, self.keepalive, self.send_hold].into_iter().flatten().min()
    }
}
