//! One address: what is done for it, and the steps from one state to the next.

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use patina_crds::config::Failback;

use super::{ASK_INTERVAL, ASKS, Around, CAREFUL, CONTRADICT_INTERVAL, Gave, Output, REUNION};
use crate::intent::L2Announcement;
use crate::l2::duty::{Claim, Duty, Mode};
use crate::l2::wire::Mac;

/// What is done for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Another leads, and failback is not immediate: we listen who announces it, to know whom to wait for.
    Following,
    /// We lead and ask whether somebody has it.
    Probing,
    /// We lead, and a foreign station has it.
    Parked,
    /// We lead, and wait for another of our speakers to give it up.
    Waiting,
    /// We announce it. With failback that is not immediate also when another leads by now, until it is heard.
    Announcing,
    /// Another leads by now: we say a few times that we have it. If that one has it too (a partition has healed), it
    /// contradicts us, and we yield.
    Asking,
    /// Another leads and was not heard yet: we answer.
    HandingOver,
}

/// A foreign station that was reported.
#[derive(Clone, Copy, Debug)]
pub(super) struct Conflict {
    pub(super) claim: Claim,
    /// When a foreign station last named the address.
    pub(super) last: Instant,
}

/// An address that there is something to do for.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) interfaces: Arc<BTreeSet<u32>>,
    pub(super) order: Arc<[Arc<str>]>,
    /// Who may keep it when failback is not immediate, also those that `order` has no room for.
    keepers: Arc<BTreeSet<Arc<str>>>,
    pub(super) leads: bool,
    pub(super) failback: Failback,
    /// Since when we lead; meaningless while we do not.
    pub(super) led_since: Instant,
    pub(super) state: State,
    /// Rounds of probes that must stay unanswered, or times that we ask; the present one included.
    pub(super) rounds: u8,
    /// Also in [`Book::deadlines`].
    pub(super) deadline: Option<Instant>,
    /// While we probe: since when one is heard that membership misses.
    pub(super) put_off: Option<Instant>,
    /// The last of our speakers that was heard to announce or use it since we did ourselves.
    pub(super) holder: Option<(Arc<str>, Instant)>,
    /// When we contradicted one of our speakers, and how often since.
    contradicted: Option<(Instant, u8)>,
    /// When we last defended it against a foreign station, and which.
    pub(super) defended: Option<(Instant, Mac)>,
    pub(super) conflict: Option<Conflict>,
    round: u32,
    defence: u32,
}

/// Where a speaker stands, seen from us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rank {
    Ahead,
    Behind,
    /// No candidate that we know of.
    Unlisted,
}

/// What changed, for all addresses.
#[derive(Debug, Default)]
pub(super) struct Book {
    deadlines: BTreeSet<(Instant, IpAddr)>,
    /// Their duties are to be looked at.
    pub(super) touched: BTreeSet<IpAddr>,
    /// Addresses with a conflict.
    pub(super) contested: BTreeSet<IpAddr>,
    pub(super) outputs: VecDeque<Output>,
    /// The last number of a round. One sequence for all, so that an address that was gone in between has a new one too.
    rounds: u32,
}

/// Whether a candidate that does not lead listens who announces the address.
pub(super) fn follows(wanted: &L2Announcement, node: &str) -> bool {
    wanted.failback != Failback::Immediate && wanted.order.iter().any(|other| **other == *node)
}

impl Entry {
    pub(super) fn new(now: Instant, wanted: &L2Announcement) -> Self {
        Self {
            interfaces: Arc::clone(&wanted.interfaces),
            order: Arc::clone(&wanted.order),
            keepers: Arc::clone(&wanted.keepers),
            leads: wanted.leads,
            failback: wanted.failback,
            led_since: now,
            state: State::Following,
            rounds: 0,
            deadline: None,
            put_off: None,
            holder: None,
            contradicted: None,
            defended: None,
            conflict: None,
            round: 0,
            defence: 0,
        }
    }

    pub(super) fn mode(&self) -> Mode {
        match self.state {
            State::Following | State::Parked | State::Waiting => Mode::Listen,
            State::Probing => Mode::Probe,
            State::HandingOver => Mode::Answer,
            State::Announcing | State::Asking => Mode::Announce,
        }
    }

    /// Whether we keep it although another leads, until that one is heard.
    pub(super) fn keeps(&self, around: &Around) -> bool {
        self.failback != Failback::Immediate && self.lists(&around.node) && !around.leaving
    }

    pub(super) fn duty(&self) -> Duty {
        let (round, defence) = (self.round, self.defence);
        Duty { interfaces: Arc::clone(&self.interfaces), mode: self.mode(), round, defence }
    }

    /// Where `other` stands. For one that leaves, or is no candidate any more, every candidate is a better one.
    pub(super) fn rank(&self, around: &Around, other: &str) -> Rank {
        let place = |node: &str| self.order.iter().position(|listed| **listed == *node);
        match (place(other), place(&around.node)) {
            (None, _) => Rank::Unlisted,
            (Some(theirs), Some(ours)) if !around.leaving && (self.leads || theirs > ours) => Rank::Behind,
            (Some(_), _) => Rank::Ahead,
        }
    }

    /// What a decision says.
    pub(super) fn take(&mut self, new: &L2Announcement) {
        self.interfaces = Arc::clone(&new.interfaces);
        self.order = Arc::clone(&new.order);
        self.keepers = Arc::clone(&new.keepers);
        self.leads = new.leads;
        self.failback = new.failback;
    }

    /// Whether this node may go on holding it.
    pub(super) fn may_keep(&self, node: &str) -> bool {
        self.keepers.contains(node)
    }

    pub(super) fn lists(&self, node: &str) -> bool {
        self.order.iter().any(|listed| **listed == *node)
    }

    /// Whether somebody else could have it.
    pub(super) fn has_another(&self, node: &str) -> bool {
        self.order.iter().any(|other| **other != *node)
    }

    /// When our patience with the holder ends. `None`: never.
    pub(super) fn patience(&self) -> Option<Instant> {
        match self.failback {
            Failback::Immediate => Some(self.led_since),
            Failback::After(delay) => self.led_since.checked_add(delay),
            Failback::Never => None,
        }
    }

    pub(super) fn enter(&mut self, book: &mut Book, ip: IpAddr, state: State, deadline: Option<Instant>) {
        self.state = state;
        self.put_off = self.put_off.filter(|_| state == State::Probing);
        book.set_deadline(ip, &mut self.deadline, deadline);
        book.touched.insert(ip);
    }

    /// We answer from now on, and say so.
    pub(super) fn announce(&mut self, book: &mut Book, ip: IpAddr) {
        if self.conflict.take().is_some() {
            book.conflict_over(ip);
        }
        if self.mode() < Mode::Answer {
            book.outputs.push_back(Output::Took(ip));
        }
        self.holder = None;
        self.defended = None;
        self.round = book.round();
        self.enter(book, ip, State::Announcing, None);
    }

    /// The announcement schedule starts anew.
    pub(super) fn speak_up(&mut self, book: &mut Book, ip: IpAddr) {
        self.round = book.round();
        book.touched.insert(ip);
    }

    /// One announcement at once.
    pub(super) fn defend(&mut self, book: &mut Book, ip: IpAddr) {
        self.defence = self.defence.wrapping_add(1);
        book.touched.insert(ip);
    }

    /// Whether one of ours may have it and shall keep it.
    pub(super) fn may_be_held(&self, around: &Around) -> bool {
        self.failback != Failback::Immediate && self.has_another(&around.node)
    }

    /// One of our speakers has it that should not: it shall hear us, but not for ever.
    pub(super) fn contradict(&mut self, book: &mut Book, now: Instant, ip: IpAddr) {
        let lately = self.contradicted.filter(|(since, _)| recent(now, Some(*since), CONTRADICT_INTERVAL));
        let (since, often) = lately.unwrap_or((now, 0));
        if often <= ASKS {
            self.contradicted = Some((since, often + 1));
            if often == 0 {
                // Whoever heard that one shall hear us after it, also if frames are lost: the whole schedule.
                self.speak_up(book, ip);
            } else {
                self.defend(book, ip);
            }
        }
    }

    /// One round where only a stranger could have it, more where one of ours could.
    pub(super) fn start_probing(&mut self, around: &Around, book: &mut Book, now: Instant, ip: IpAddr) {
        self.rounds = if self.may_be_held(around) { CAREFUL } else { 1 };
        self.put_off = None;
        self.probe(around, book, now, ip);
    }

    /// One round of probes.
    pub(super) fn probe(&mut self, around: &Around, book: &mut Book, now: Instant, ip: IpAddr) {
        self.round = book.round();
        let probing = around.settings.probing;
        let lasts = probing.interval.saturating_mul(probing.count);
        self.enter(book, ip, State::Probing, now.checked_add(lasts));
    }

    /// While we probe, one of ours answered that membership misses: whether we wait until it does not. As long as it answers it is
    /// asked again.
    pub(super) fn may_put_off(&mut self, now: Instant) -> bool {
        self.rounds = CAREFUL;
        recent(now, Some(*self.put_off.get_or_insert(now)), REUNION)
    }

    /// While we probe, one of ours turns out to have it.
    pub(super) fn held(&mut self, around: &Around, book: &mut Book, now: Instant, ip: IpAddr, rank: Rank) {
        if self.failback == Failback::Immediate || rank == Rank::Unlisted {
            // We lead: it yields when it hears us.
            self.announce(book, ip);
        } else if self.leads {
            self.wait_or_announce(around, book, now, ip);
        } else {
            // We kept it, were away, and it is the leader's by now.
            self.enter(book, ip, State::Following, None);
        }
    }

    /// One of ours has it, and keeps it until it is gone or our delay is over.
    pub(super) fn wait(&mut self, around: &Around, book: &mut Book, now: Instant, ip: IpAddr) {
        let retry = now.checked_add(around.settings.waiting_retry);
        self.enter(book, ip, State::Waiting, retry.into_iter().chain(self.patience()).min());
    }

    /// A foreign station has it.
    pub(super) fn park(
        &mut self,
        around: &Around,
        book: &mut Book,
        now: Instant,
        (ip, claim): (IpAddr, Claim),
    ) {
        let before = self.conflict.replace(Conflict { claim, last: now });
        if before.is_none_or(|before| before.claim.mac != claim.mac) {
            book.contested.insert(ip);
            book.outputs.push_back(Output::Conflict { ip, claim, in_use: false });
        }
        self.enter(book, ip, State::Parked, now.checked_add(around.settings.parked_retry));
    }

    /// Another leads. Those who leave ask nobody: they are followed by one that does not announce yet.
    pub(super) fn ask(&mut self, book: &mut Book, now: Instant, ip: IpAddr) {
        self.defend(book, ip);
        self.enter(book, ip, State::Asking, now.checked_add(ASK_INTERVAL));
    }

    /// We go on announcing.
    pub(super) fn go_on(&mut self, around: &Around, book: &mut Book, ip: IpAddr) {
        let over = |conflict: Conflict| conflict.last.checked_add(around.settings.conflict_quiet);
        let deadline = self.conflict.and_then(over);
        self.enter(book, ip, State::Announcing, deadline);
    }

    /// The successor is given its time.
    pub(super) fn hand_over(&mut self, around: &Around, book: &mut Book, now: Instant, ip: IpAddr) {
        self.lose_conflict(book, ip);
        // Who leaves and has nobody to wait for answers to its end.
        let waits = !around.leaving || self.has_another(&around.node);
        let longest = now.checked_add(around.settings.longest_handover);
        self.enter(book, ip, State::HandingOver, longest.filter(|_| waits));
    }

    /// We do not answer any more.
    pub(super) fn end(&mut self, book: &mut Book, ip: IpAddr, why: Gave) {
        self.lose_conflict(book, ip);
        if self.mode() >= Mode::Answer {
            book.outputs.push_back(Output::Gave(ip, why));
        }
    }

    /// It is not ours to judge any more.
    fn lose_conflict(&mut self, book: &mut Book, ip: IpAddr) {
        if self.conflict.take().is_some() {
            book.conflict_over(ip);
        }
    }
}

impl Book {
    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// The address of the earliest deadline, if that has passed.
    pub(super) fn due(&self, now: Instant) -> Option<IpAddr> {
        self.deadlines.first().filter(|(at, _)| *at <= now).map(|(_, ip)| *ip)
    }

    pub(super) fn set_deadline(&mut self, ip: IpAddr, slot: &mut Option<Instant>, new: Option<Instant>) {
        if let Some(old) = std::mem::replace(slot, new) {
            self.deadlines.remove(&(old, ip));
        }
        if let Some(new) = new {
            self.deadlines.insert((new, ip));
        }
    }

    /// Everything about an entry that is removed.
    pub(super) fn forget(&mut self, ip: IpAddr, mut entry: Entry, why: Gave) {
        entry.end(self, ip, why);
        self.set_deadline(ip, &mut entry.deadline, None);
        self.touched.insert(ip);
    }

    pub(super) fn conflict_over(&mut self, ip: IpAddr) {
        self.contested.remove(&ip);
        self.outputs.push_back(Output::ConflictOver(ip));
    }

    fn round(&mut self) -> u32 {
        self.rounds = self.rounds.wrapping_add(1);
        self.rounds
    }
}

/// Whether `at` is less than `within` ago.
pub(super) fn recent(now: Instant, at: Option<Instant>, within: Duration) -> bool {
    at.is_some_and(|at| now.saturating_duration_since(at) < within)
}
