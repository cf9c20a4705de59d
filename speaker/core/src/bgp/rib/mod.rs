//! What one peer should have of us, what it has, and the UPDATEs between the two (Adj-RIB-Out, RFC 4271 section 3.2).
//!
//! ```text
//!   goal:  192.0.2.1/32  192.0.2.2/32  192.0.2.3/32   ...       a Table, shared with other peers
//!   marks: Sent          Missing       Changed        ...       a byte for each
//!                                         └─ changed: what the peer has meanwhile
//!   gone:  192.0.2.9/32                                         what the peer has, and should not
//! ```
//!
//! A peer that has what it should have costs a byte for each route; what it has is the table that was wanted. UPDATEs are
//! worked out when they are asked for: what changes twice before that goes once, and what changes back does not go at all.
//!
//! Order, within a family and IPv4 before IPv6: announcements, then withdrawals, then (once) End-of-RIB. Where an aggregate
//! takes the place of its parts, or the other way round, the traffic always has a route. End-of-RIB of a family without a route
//! waits for nothing.

mod plan;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Arc;

use patina_crds::net::Family;

use super::message::{Attributes, Update};
use crate::intent::routes::Prefix;
use plan::{Draft, Plan, Step};
use table::{Pair, family, same, walk};
pub use table::{Table, Tables, Wanted, table};

/// How a session dresses a route of a family. The answers of one session change only with [`AdjRibOut::redress`].
pub trait Dress {
    /// The attributes of this route on this session; `None`: it has no next hop for it, and the route stays home.
    fn dress(&self, family: Family, wanted: &Wanted) -> Option<Attributes>;

    /// How many octets of NLRI (RFC 4271 section 4.3: a length octet and the prefix's own) fit one message of this family beside
    /// these attributes; `None`: in a message of withdrawals.
    fn room(&self, family: Family, attributes: Option<&Attributes>) -> usize;
}

/// The state of one peer.
#[derive(Debug, Default)]
pub struct AdjRibOut {
    /// `None`: nobody has said yet.
    goal: Option<Table>,
    session: Option<Session>,
}

/// What the peer has, as its difference from the goal.
#[derive(Debug)]
struct Session {
    families: BTreeSet<Family>,
    /// One for each route of the goal, in its order.
    marks: Vec<Mark>,
    /// What the peer has of the routes marked [`Mark::Changed`].
    changed: BTreeMap<Prefix, Arc<Wanted>>,
    /// What the peer has and the goal has not; `None`: in a form that would have to be sent again.
    gone: BTreeMap<Prefix, Option<Arc<Wanted>>>,
    sent: Count,
    pending: Count,
    /// Families whose End-of-RIB is due after their first routes.
    initial: BTreeSet<Family>,
    refreshing: BTreeSet<Family>,
    /// The UPDATEs of what is pending; `None`: to be worked out.
    plan: Option<Plan>,
}

/// Where a route of the goal stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    /// The peer has it.
    Sent,
    /// The peer has nothing, and gets it.
    Missing,
    /// The peer has something of it, and gets it in any case.
    Again,
    /// The peer has what [`Session::changed`] says, and gets it.
    Changed,
    /// The peer has nothing and gets nothing: no next hop, or no family of the session's.
    Home,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    v4: usize,
    v6: usize,
}

impl AdjRibOut {
    /// From now on the peer should have this. Equal tables cost a comparison and send nothing. Before the first call nothing is
    /// known, and no End-of-RIB goes out.
    pub fn want(&mut self, table: Table) {
        let goal = self.goal.replace(table.clone()).unwrap_or_default();
        if let Some(session) = &mut self.session
            && goal != table
        {
            session.want(&goal, &table);
        }
    }

    /// A session of these families came up: the peer has nothing of us.
    pub fn session_up(&mut self, families: &BTreeSet<Family>) {
        let mut session = Session {
            families: families.clone(),
            marks: Vec::new(),
            changed: BTreeMap::new(),
            gone: BTreeMap::new(),
            sent: Count::default(),
            pending: Count::default(),
            initial: families.clone(),
            refreshing: BTreeSet::new(),
            plan: None,
        };
        if let Some(goal) = &self.goal {
            session.want(&Table::default(), goal);
        }
        self.session = Some(session);
    }

    /// It is gone, and with it all that the peer had.
    pub fn session_down(&mut self) {
        self.session = None;
    }

    /// The peer wants the family's routes again (RFC 2918). When they have gone, [`AdjRibOut::poll_refreshed`] says so.
    pub fn refresh(&mut self, family: Family) {
        if let Some(session) = &mut self.session
            && session.families.contains(&family)
        {
            session.again(self.goal.as_ref(), |other| other == family);
            session.refreshing.insert(family);
        }
    }

    /// [`Dress`] answers otherwise from now on: what the peer has goes out again.
    pub fn redress(&mut self) {
        if let Some(session) = &mut self.session {
            session.again(self.goal.as_ref(), |_| true);
            session.ask_at_home(self.goal.as_ref());
        }
    }

    /// The next UPDATE to send: fits one message; `None`: the peer has what it should have.
    pub fn next(&mut self, dress: &dyn Dress) -> Option<Update> {
        let goal = self.goal.as_ref()?;
        self.session.as_mut()?.next(goal, dress)
    }

    /// A family whose refresh is complete: the place of EoRR (RFC 7313 section 4). Ask after each [`AdjRibOut::next`].
    pub fn poll_refreshed(&mut self) -> Option<Family> {
        let session = self.session.as_mut().filter(|_| self.goal.is_some())?;
        let done = session.refreshing.iter().copied().find(|family| session.pending.of(*family) == 0)?;
        session.refreshing.remove(&done);
        Some(done)
    }

    /// Routes that the peer has of us, by family; families of the session only.
    #[must_use]
    pub fn sent(&self) -> BTreeMap<Family, usize> {
        let session = self.session.iter();
        session.flat_map(|s| s.families.iter().map(|family| (*family, s.sent.of(*family)))).collect()
    }

    /// Prefixes that are to be sent or taken back; without a session all that is wanted.
    #[must_use]
    pub fn pending(&self) -> usize {
        match &self.session {
            Some(session) => session.pending.v4 + session.pending.v6,
            None => self.goal.as_ref().map_or(0, Table::len),
        }
    }

    /// Routes that are wanted and stay home: the session does not carry their family, or has no next hop for it.
    #[must_use]
    pub fn withheld(&self) -> usize {
        let marks = self.session.iter().flat_map(|session| &session.marks);
        marks.filter(|mark| **mark == Mark::Home).count()
    }
}

impl Session {
    /// The goal was `old` and is `new`.
    fn want(&mut self, old: &Table, new: &Table) {
        let mut marks = mem::take(&mut self.marks).into_iter();
        let mut next = Vec::with_capacity(new.len());
        for step in walk(old, new) {
            match step {
                Pair::Left(prefix, had) => self.leave(prefix, had, marks.next()),
                Pair::Right(prefix, wanted) => next.push(self.enter(prefix, wanted)),
                Pair::Both(prefix, had, wanted) => {
                    let mark = marks.next().unwrap_or(Mark::Missing);
                    next.push(if same(had, wanted) { mark } else { self.turn(prefix, had, wanted, mark) });
                }
            }
        }
        self.marks = next;
        self.plan = None;
    }

    /// A prefix that was in the goal is not any more.
    fn leave(&mut self, prefix: Prefix, had: &Arc<Wanted>, mark: Option<Mark>) {
        match mark {
            Some(Mark::Sent) => {
                self.gone.insert(prefix, Some(Arc::clone(had)));
                self.pending.more(prefix);
            }
            Some(Mark::Again) => {
                self.gone.insert(prefix, None);
            }
            Some(Mark::Changed) => {
                let has = self.changed.remove(&prefix);
                self.gone.insert(prefix, has);
            }
            // It was never sent, so there is nothing to take back.
            Some(Mark::Missing) => self.pending.less(prefix),
            Some(Mark::Home) | None => {}
        }
    }

    /// A prefix that was not in the goal is.
    fn enter(&mut self, prefix: Prefix, wanted: &Arc<Wanted>) -> Mark {
        if !self.families.contains(&family(&prefix)) {
            return Mark::Home;
        }
        match self.gone.remove(&prefix) {
            Some(Some(has)) if same(&has, wanted) => {
                self.pending.less(prefix);
                Mark::Sent
            }
            Some(Some(has)) => {
                self.changed.insert(prefix, has);
                Mark::Changed
            }
            Some(None) => Mark::Again,
            None => {
                self.pending.more(prefix);
                Mark::Missing
            }
        }
    }

    /// What goes with a prefix of the goal is something else.
    fn turn(&mut self, prefix: Prefix, had: &Arc<Wanted>, wanted: &Arc<Wanted>, mark: Mark) -> Mark {
        match mark {
            Mark::Sent => {
                self.changed.insert(prefix, Arc::clone(had));
                self.pending.more(prefix);
                Mark::Changed
            }
            Mark::Changed if self.changed.get(&prefix).is_some_and(|has| same(has, wanted)) => {
                self.changed.remove(&prefix);
                self.pending.less(prefix);
                Mark::Sent
            }
            Mark::Home if self.families.contains(&family(&prefix)) => {
                self.pending.more(prefix);
                Mark::Missing
            }
            Mark::Missing | Mark::Again | Mark::Changed | Mark::Home => mark,
        }
    }

    /// Whatever the peer has of these families goes out again.
    fn again(&mut self, goal: Option<&Table>, of: impl Fn(Family) -> bool) {
        for (mark, (prefix, _)) in self.marks.iter_mut().zip(goal.iter().flat_map(|goal| goal.iter())) {
            if !of(family(prefix)) {
                continue;
            }
            match mark {
                Mark::Sent => self.pending.more(*prefix),
                Mark::Changed => drop(self.changed.remove(prefix)),
                Mark::Missing | Mark::Again | Mark::Home => continue,
            }
            *mark = Mark::Again;
        }
        for (prefix, has) in &mut self.gone {
            if of(family(prefix)) {
                *has = None;
            }
        }
        self.plan = None;
    }

    /// What had no next hop may have one now.
    fn ask_at_home(&mut self, goal: Option<&Table>) {
        for (mark, (prefix, _)) in self.marks.iter_mut().zip(goal.iter().flat_map(|goal| goal.iter())) {
            if *mark == Mark::Home && self.families.contains(&family(prefix)) {
                *mark = Mark::Missing;
                self.pending.more(*prefix);
            }
        }
    }

    fn next(&mut self, goal: &Table, dress: &dyn Dress) -> Option<Update> {
        if self.pending.v4 + self.pending.v6 > 0 && self.plan.is_none() {
            self.plan = Some(self.work_out(goal, dress));
        }
        // RFC 4724 section 2: End-of-RIB marks "the completion of the initial routing update".
        let done = self.initial.iter().copied().find(|family| self.pending.of(*family) == 0);
        if let Some(family) = done {
            self.initial.remove(&family);
            return Some(Update::EndOfRib(family));
        }
        match self.plan.as_mut()?.next(goal, dress) {
            Some(Step::Reach { attributes, routes }) => {
                let prefixes = routes.iter().filter_map(|index| self.went(*index, goal)).collect();
                Some(Update::Reach { attributes, prefixes })
            }
            Some(Step::Withdraw(prefixes)) => {
                prefixes.iter().for_each(|prefix| self.taken_back(*prefix, goal));
                Some(Update::Withdraw(prefixes))
            }
            None => {
                self.plan = None;
                None
            }
        }
    }

    /// Groups what is pending by what it will be sent as. What has no next hop stays home, or is taken back.
    fn work_out(&mut self, goal: &Table, dress: &dyn Dress) -> Plan {
        let mut draft = Draft::new(dress);
        for (index, ((prefix, wanted), mark)) in goal.iter().zip(&mut self.marks).enumerate() {
            match *mark {
                Mark::Sent | Mark::Home => {}
                Mark::Missing => {
                    if !draft.reach(*prefix, wanted, index) {
                        *mark = Mark::Home;
                        self.pending.less(*prefix);
                    }
                }
                Mark::Again | Mark::Changed => {
                    if !draft.reach(*prefix, wanted, index) {
                        draft.withdraw(*prefix);
                    }
                }
            }
        }
        self.gone.keys().for_each(|prefix| draft.withdraw(*prefix));
        draft.finish()
    }

    /// This route of the goal goes out.
    fn went(&mut self, index: usize, goal: &Table) -> Option<Prefix> {
        let (prefix, _) = goal.as_slice().get(index)?;
        let mark = self.marks.get_mut(index)?;
        match mark {
            Mark::Missing => self.sent.more(*prefix),
            Mark::Changed => drop(self.changed.remove(prefix)),
            Mark::Sent | Mark::Again | Mark::Home => {}
        }
        *mark = Mark::Sent;
        self.pending.less(*prefix);
        Some(*prefix)
    }

    /// The peer loses it.
    fn taken_back(&mut self, prefix: Prefix, goal: &Table) {
        if self.gone.remove(&prefix).is_none() {
            // It is in the goal, but has no next hop any more.
            self.changed.remove(&prefix);
            if let Some(mark) = goal.position(&prefix).and_then(|index| self.marks.get_mut(index)) {
                *mark = Mark::Home;
            }
        }
        self.sent.less(prefix);
        self.pending.less(prefix);
    }
}

impl Count {
    fn of(self, family: Family) -> usize {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }

    fn more(&mut self, prefix: Prefix) {
        *self.at(prefix) += 1;
    }

    fn less(&mut self, prefix: Prefix) {
        let count = self.at(prefix);
        *count = count.saturating_sub(1);
    }

    fn at(&mut self, prefix: Prefix) -> &mut usize {
        match family(&prefix) {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }
}
