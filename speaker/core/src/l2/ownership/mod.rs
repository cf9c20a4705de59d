//! Which addresses this node answers for *now*: between the decision (`intent`, who should) and the wire (who does).
//!
//! One machine for all addresses. Per address ([`State`]):
//!
//! ```text
//!              new to us                         nobody answered
//!  (nothing) ───────────────────────> Probing ───────────────────────> Announcing <───── the lead came back ──┐
//!      │  a takeover: no probe           │  ^ └── one of ours holds it ──> ^   │  a better candidate            │
//!      ├─────────────────────────────────┼──┼────  (failback: at once) ────┤   ├────────> Asking ──────────> HandingOver
//!      │                         foreign v  │ every parked_retry           │   │            │ (drain: at once)  │
//!      │                               Parked                              │   │ a better one is heard          │ heard, or
//!      │ failback: never | delay                                           │   v            v                   v too long
//!      └─> Following ── we lead, and the holder lives ──> Waiting ─────────┘  (nothing), or Following
//!          (listens)                             the holder is gone, the delay is over
//! ```
//!
//! **Who is replaced asks.** A node that announces and does not lead any more says three times that it has the address. The new
//! leader may announce it too, if the two could not see each other until now: it contradicts, and the other yields; so after
//! a partition only what is held twice costs frames. One that does not announce yet hears who holds it. Then we answer
//! without announcing until it is heard; or, if failback is not immediate, go on as before.
//!
//! **When is an address probed before it is announced** (RFC 5227 2.1, RFC 4862 5.4)? When no speaker that we know of can have
//! announced it, or when we must find out which one does:
//! - It was not in our last decision (a Service got it, or this node has just become a candidate, or has just started). A foreign
//!   station that has it is then found before we harm it. If one of our own answers, it holds the address, and we take over from
//!   it at once, unless it is one that membership misses: it does not know us either and would not yield, so it is left to answer
//!   until the two know each other, for [`REUNION`] at most.
//! - `failback` is not immediate, and this is our first decision, or who led was not heard: one of ours may hold it, and
//!   only the wire knows. Nobody answering is believed after [`CAREFUL`] rounds, as lost frames must not look like a free address.
//!
//! Not at a takeover: the address was in our last decision and another led it. That one has probed it, or its predecessor has, and
//! the clients wait. A foreign station that took one in the meantime is found as one that contradicts us, and so it is when the
//! address had been parked by a leader that died.
//! All candidates on the segment would meet the same stranger, so a parked address is not passed on to the next.
//!
//! **A stranger while we announce** is defended against once per `defend_interval`, for as long as it takes: RFC 5227 2.4 (c),
//! which is for a device "that needs to have a well-known stable IP address"; a Service's address is one. Giving up (a) or
//! after the second claim (b) would let anybody with an ARP tool switch off the company's front door. The second claim within the
//! interval is reported, as (c) requires; the conflict is over when nothing was heard for [`Settings::conflict_quiet`].

mod decided;
mod heard;
mod state;
mod timeout;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::duty::{Claim, Duties, Mode, Probing};
use super::wire::Mac;
use crate::intent::L2Announcement;
pub use state::State;
use state::{Book, Entry};

/// How many rounds of probes must stay without an answer where one of ours may hold the address: with one frame in
/// twenty lost, one round stays unanswered once in a hundred times, three in a row once in a million.
pub const CAREFUL: u8 = 3;

/// How often, and how fast, one who is not the leader any more says so, before it is given its time to hand over: a frame
/// or two may be lost.
pub const ASKS: u8 = 3;
/// See [`ASKS`].
pub const ASK_INTERVAL: Duration = Duration::from_millis(100);

/// One of our own speakers that announces what it should not is contradicted by a whole schedule of announcements once in
/// this time, and by single ones as often as it asks. Two who disagree about the order for long (their views of the API
/// differ) do not fill the wire.
pub const CONTRADICT_INTERVAL: Duration = Duration::from_secs(3);

/// One that membership takes to be dead answers our probe. So long it is left to answer, until membership knows it again and says
/// who of us shall: a kernel whose link was down asks for the others' hardware addresses once a second.
pub const REUNION: Duration = Duration::from_secs(2);

/// How often membership is told that a node lives.
pub const HINT_INTERVAL: Duration = Duration::from_secs(1);

/// A map into which so much was put one after the other is packed.
const MANY: usize = 500;

/// What can be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Before an address is announced for the first time.
    pub probing: Probing,
    /// How long an address is answered for after the decision went to another node that was not heard to announce it.
    pub longest_handover: Duration,
    /// RFC 5227 1.1 `DEFEND_INTERVAL`: one defence in this time; a second foreign claim within it is a conflict.
    pub defend_interval: Duration,
    /// How often a parked address is probed again.
    pub parked_retry: Duration,
    /// How often, with `failback: never` or a delay, the holder is asked whether it still holds.
    pub waiting_retry: Duration,
    /// A conflict is over when no foreign station named the address for this long.
    pub conflict_quiet: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            probing: Probing::default(),
            longest_handover: Duration::from_secs(3),
            defend_interval: Duration::from_secs(10),
            parked_retry: Duration::from_secs(60),
            waiting_retry: Duration::from_secs(5),
            conflict_quiet: Duration::from_secs(180),
        }
    }
}

/// Something happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// A decision: every address for which this node is a candidate with an interface to announce it on. One that is
    /// missing is given up at once; one whose `order` is without this node is handed over.
    Decided(Arc<BTreeMap<IpAddr, L2Announcement>>),
    /// A station names an address of ours as its own. Not for frames with a MAC of this node: they are nobody's claim.
    Heard(Claim),
    /// The MAC addresses of all speakers, dead ones too, with their nodes; not our own. They are never foreign. Before the first of
    /// these (an empty one will do) nobody is.
    Stations(Arc<BTreeMap<Mac, Arc<str>>>),
    /// Speakers that fell silent and were not heard to leave: all that are missing now.
    Missed(BTreeSet<Arc<str>>),
    /// A partition has healed: whoever contradicts us shall hear us.
    Rejoined,
    /// We stalled, or were fenced, and have been let back in: what we held may be another's. Until this has come and its duties
    /// have been taken, nothing of what the duties say may be sent.
    Woken,
    /// We end: everything is handed over. Nothing new is taken any more.
    Leave,
}

/// What the machine reports beside its duties.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// The node of this name announces an address that we hold, and is not among the candidates that we know: it lives.
    Hint(Arc<str>),
    /// We announce the address from now on.
    Took(IpAddr),
    /// We do not answer for it any more.
    Gave(IpAddr, Gave),
    /// A foreign station has it: we do not announce it; or (`in_use`) we announce it, and it is claimed again and again.
    Conflict {
        /// The address.
        ip: IpAddr,
        /// Who has it, where.
        claim: Claim,
        /// We announce it, and keep defending it.
        in_use: bool,
    },
    /// A foreign station named it and we defended it.
    Defended(Claim),
    /// It is free again, or not ours to judge any more.
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

/// The machine. A heard frame, and a deadline, cost O(log n) in the number of addresses, a decision O(n).
#[derive(Debug)]
pub struct Ownership {
    around: Around,
    /// The last decision.
    decided: Option<Arc<BTreeMap<IpAddr, L2Announcement>>>,
    /// The addresses that there is something to do for: exactly those of the duties.
    entries: BTreeMap<IpAddr, Entry>,
    /// When membership was last told of a node.
    hinted: BTreeMap<Arc<str>, Instant>,
    book: Book,
    duties: Arc<Duties>,
}

/// What is the same for all addresses.
#[derive(Debug)]
struct Around {
    /// Our own name.
    node: Arc<str>,
    settings: Settings,
    stations: Option<Arc<BTreeMap<Mac, Arc<str>>>>,
    /// Speakers that are missing, and did not leave.
    missed: BTreeSet<Arc<str>>,
    leaving: bool,
}

impl Ownership {
    /// One that has nothing yet, on the node of this name.
    #[must_use]
    pub fn new(node: &str, settings: Settings) -> Self {
        Self {
            around: Around {
                node: node.into(),
                settings,
                stations: None,
                missed: BTreeSet::new(),
                leaving: false,
            },
            decided: None,
            entries: BTreeMap::new(),
            hinted: BTreeMap::new(),
            book: Book::default(),
            duties: Arc::default(),
        }
    }

    /// Something happened at `now`.
    pub fn handle(&mut self, now: Instant, input: Input) {
        match input {
            Input::Decided(wanted) => self.decided(now, wanted),
            Input::Heard(claim) => self.heard(now, &claim),
            Input::Stations(stations) => self.stations(now, stations),
            Input::Missed(nodes) => self.around.missed = nodes,
            Input::Rejoined => self.rejoined(now, false),
            Input::Woken => self.rejoined(now, true),
            Input::Leave => self.leave(now),
        }
    }

    /// The deadline has passed. Late and repeated calls do no harm.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(ip) = self.book.due(now) {
            self.timeout(now, ip);
        }
    }

    /// When to call [`Ownership::handle_timeout`] next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.book.next()
    }

    /// The next thing to report; poll until there is none.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.book.outputs.pop_front()
    }

    /// What the wire shall do now. The same `Arc` as before when nothing changed. Ask once per batch of inputs: while
    /// somebody holds the last value a change costs a copy of the map (not of what is in it).
    pub fn duties(&mut self) -> Arc<Duties> {
        let touched = std::mem::take(&mut self.book.touched);
        let many = touched.len() >= MANY;
        for ip in touched {
            let wanted = self.entries.get(&ip).map(Entry::duty);
            if wanted.as_ref() == self.duties.get(&ip) {
                continue;
            }
            let duties = Arc::make_mut(&mut self.duties);
            match wanted {
                Some(duty) => duties.insert(ip, duty),
                None => duties.remove(&ip),
            };
        }
        if many {
            // Nobody else has seen this value yet, unless nothing is different.
            if let Some(duties) = Arc::get_mut(&mut self.duties) {
                pack(duties);
            }
            pack(&mut self.entries);
        }
        Arc::clone(&self.duties)
    }

    /// After [`Input::Leave`]: nothing is left that another candidate has still to take over.
    #[must_use]
    pub fn idle(&self) -> bool {
        let waits = |entry: &Entry| entry.mode() >= Mode::Answer && entry.has_another(&self.around.node);
        !self.entries.values().any(waits)
    }

    /// What this node does for an address, for people; `None`: nothing.
    #[must_use]
    pub fn state(&self, ip: IpAddr) -> Option<State> {
        self.entries.get(&ip).map(|entry| entry.state)
    }

    /// Looks at all of them: after a stall, or a partition, each may have been taken by another. `woken`: it was us who
    /// were away, so that others had every reason to take them.
    fn rejoined(&mut self, now: Instant, woken: bool) {
        let Self { around, entries, book, .. } = self;
        let mut lost = Vec::new();
        for (ip, entry) in entries {
            match entry.state {
                // Another leads, and has had every reason to begin.
                State::HandingOver => lost.extend(woken.then_some(*ip)),
                State::Asking if woken && !entry.keeps(around) => lost.push(*ip),
                // Whoever took it in the meantime keeps it, when failback is not immediate; asking finds it.
                State::Announcing | State::Asking if woken && entry.may_be_held(around) => {
                    entry.end(book, *ip, Gave::Withdrawn);
                    entry.start_probing(around, book, now, *ip);
                }
                State::Announcing => entry.speak_up(book, *ip),
                // What was asked while the fence was closed was not sent.
                State::Probing => entry.probe(around, book, now, *ip),
                _ => {}
            }
        }
        for ip in lost {
            self.give(now, ip, Gave::Withdrawn);
        }
    }

    fn leave(&mut self, now: Instant) {
        self.around.leaving = true;
        let ips: Vec<IpAddr> = self.entries.keys().copied().collect();
        for ip in ips {
            let Some(entry) = self.entries.get_mut(&ip) else { continue };
            match entry.state {
                State::Announcing | State::Asking => entry.hand_over(&self.around, &mut self.book, now, ip),
                State::HandingOver => {}
                _ => self.drop_entry(ip, Gave::Withdrawn),
            }
        }
    }

    /// Nothing is done for an address any more.
    fn drop_entry(&mut self, ip: IpAddr, why: Gave) {
        if let Some(entry) = self.entries.remove(&ip) {
            self.book.forget(ip, entry, why);
        }
    }

    /// We stop answering: another has it, or shall. Whoever must know the holder goes on listening.
    fn give(&mut self, now: Instant, ip: IpAddr, why: Gave) {
        let still = self.decided.as_ref().and_then(|decided| decided.get(&ip));
        let follow = still.is_some_and(|wanted| state::follows(wanted, &self.around.node));
        match self.entries.get_mut(&ip) {
            Some(entry) if follow && !self.around.leaving => {
                if let Gave::Heard(node) = &why {
                    entry.holder = Some((Arc::clone(node), now));
                }
                entry.end(&mut self.book, ip, why);
                entry.enter(&mut self.book, ip, State::Following, None);
            }
            Some(_) => self.drop_entry(ip, why),
            None => {}
        }
    }
}

/// Nodes of a map that was filled in order are half empty; those of one that is made at once are full.
fn pack<K: Ord, V>(map: &mut BTreeMap<K, V>) {
    *map = std::mem::take(map).into_iter().collect();
}
