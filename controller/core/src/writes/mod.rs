//! What to write next into which Service: the machine behind the one task that writes.
//!
//! What a Service should show ([`Desired`]) and what it shows ([`Observed`]) come in; each difference goes out as one
//! conditional patch. The rules, in one place:
//! * A patch holds only for the version of the Service that was decided about; a Service has one under way at a time.
//! * No address is shown twice, not even for a moment: a patch that shows a new address waits until everybody who gives it
//!   up has done so on the API server, patches whose end is not known included.
//! * Nothing is added in silence: an address is added only to a Service that shows none, or that carries the mark
//!   ([`CHANGING`]). So a new leader sees which Services a late patch of its predecessor could give something to, and
//!   writes these first ([`Input::Fence`]): the late patch then meets another version.
//! * What fails is tried again later, in a lane of its own, and holds up nobody else. A server that is too busy (429) gets
//!   less, one that is not there gets one request at a time.

mod fence;
mod lanes;
mod leaving;
mod shown;
#[cfg(test)]
mod tests;
mod window;

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use self::fence::Fence;
use self::lanes::Lanes;
use self::leaving::Leaving;
pub use self::shown::{
    CHANGING, Change, Condition, Desired, Ingress, LEADER_CHANGED, Observed, SeenCondition,
};
use self::window::Window;
use crate::view::ServiceId;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// After a conflict the watch brings what is newer; if it does not, try again anyway.
const AFTER_CONFLICT: Duration = Duration::from_secs(1);

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// A Service was seen. Older than what is known (a watch may lag behind our own write) changes nothing.
    Seen(ServiceId, Observed),
    /// A Service is gone.
    Gone(ServiceId),
    /// What a Service should show from now on; `None`: whatever it does (not ours).
    Want(ServiceId, Option<Desired>),
    /// Before anything else: make sure that no patch of an earlier leader can still give something to one of these.
    Fence {
        /// Different for each leader.
        term: String,
        /// All that [`Observed::may_gain`], as they were seen after the Lease was taken.
        services: Vec<ServiceId>,
        /// What is not done then is left.
        until: Instant,
    },
    /// A patch came to an end. It need not be known what came of it.
    Ended {
        /// Of [`Patch::attempt`].
        attempt: u64,
        /// Of [`Patch::id`].
        id: ServiceId,
        /// What came of it.
        end: End,
    },
}

/// What came of a patch.
#[derive(Debug)]
pub enum End {
    /// Written; this is the Service now.
    Done(Box<Observed>),
    /// 409: it has another version.
    Conflict,
    /// 404.
    Gone,
    /// The server answered no for good (403, 422 …); said with its words.
    Refused(String),
    /// 429, or 503 with a time: the server is too busy.
    Busy(Option<Duration>),
    /// It may have been written or not: 5xx, no answer in time.
    Failed(String),
    /// There was no connection.
    Unreachable(String),
}

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this; its end is an [`Input::Ended`].
    Patch(Patch),
    /// A Service shows what it should.
    Settled(ServiceId),
    /// Somebody else wrote addresses into a Service of ours, which will be taken out again.
    Edited {
        /// Which Service.
        id: ServiceId,
        /// The addresses that it should not show.
        addresses: Vec<IpAddr>,
    },
    /// The fence stands; Services that could not be written are left out of it.
    Fenced {
        /// Those.
        left: Vec<ServiceId>,
    },
}

/// A conditional patch of a Service's status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// Counts up.
    pub attempt: u64,
    /// Which Service.
    pub id: ServiceId,
    /// Only if it still has this uid …
    pub uid: String,
    /// … and this version.
    pub resource_version: String,
    /// What to write.
    pub change: Change,
}

/// See the module.
#[derive(Debug)]
pub struct Writes {
    entries: HashMap<ServiceId, Entry>,
    window: Window,
    lanes: Lanes,
    leaving: Leaving,
    fence: Option<Fence>,
    attempts: u64,
    outputs: VecDeque<Output>,
}

#[derive(Debug, Default)]
struct Entry {
    observed: Observed,
    desired: Option<Desired>,
    under_way: Option<Box<UnderWay>>,
    /// The last patch ended in silence: it may still come to be, as long as the version is this.
    doubt: Option<Box<UnderWay>>,
    failures: u32,
}

#[derive(Debug)]
struct UnderWay {
    attempt: u64,
    version: String,
    /// In the lane for what fails.
    slow: bool,
    /// What the Service shows if it is written.
    addresses: Vec<IpAddr>,
}

impl Writes {
    /// With at most `window` patches under way at a time.
    #[must_use]
    pub fn new(window: usize) -> Self {
        Self {
            entries: HashMap::new(),
            window: Window::new(window),
            lanes: Lanes::default(),
            leaving: Leaving::default(),
            fence: None,
            attempts: 0,
            outputs: VecDeque::new(),
        }
    }

    /// Something happened.
    pub fn handle(&mut self, now: Instant, input: Input) {
        match input {
            Input::Seen(id, observed) => self.seen(&id, observed),
            Input::Gone(id) => self.gone(&id),
            Input::Want(id, desired) => self.want(&id, desired),
            Input::Fence { term, services, until } => self.raise_fence(now, term, services, until),
            Input::Ended { attempt, id, end } => self.ended(now, attempt, &id, end),
        }
    }

    /// The deadline has passed. Too early or twice is harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.window.resume(now);
        for id in self.lanes.due(now) {
            self.enqueue(&id);
        }
        if self.fence.as_ref().is_some_and(|fence| fence.until <= now) {
            self.lower_fence();
        }
    }

    /// The one next deadline.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let fence = self.fence.as_ref().map(|fence| fence.until);
        [self.window.paused_until, self.lanes.next_due(), fence].into_iter().flatten().min()
    }

    /// What to do next. What is returned must be done.
    pub fn poll_output(&mut self) -> Option<Output> {
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        while self.window.open() {
            let entries = &self.entries;
            let failures = |id: &ServiceId| entries.get(id).map_or(0, |entry| entry.failures);
            let (id, slow) = self.lanes.pop(failures, self.window.open_for_slow())?;
            if let Some(output) = self.start(&id, slow) {
                return Some(output);
            }
        }
        None
    }

    /// Whether a Service shows `desired` already.
    #[must_use]
    pub fn shows(&self, id: &ServiceId, desired: &Desired) -> bool {
        self.entries.get(id).is_some_and(|entry| desired.change(&entry.observed).is_none())
    }

    /// Services of [`Observed::may_gain`] among those that `is_ours` says, for [`Input::Fence`].
    pub fn may_gain(&self, is_ours: impl Fn(&ServiceId) -> bool) -> Vec<ServiceId> {
        let may = self.entries.iter().filter(|(id, entry)| entry.observed.may_gain() && is_ours(id));
        may.map(|(id, _)| id.clone()).collect()
    }

    /// Whether nothing is under way, and nothing that ended in silence may still be written.
    #[must_use]
    pub fn is_certain(&self) -> bool {
        self.entries.values().all(|entry| entry.patches().next().is_none())
    }

    /// Patches under way, and how many there may be.
    #[must_use]
    pub fn window(&self) -> (usize, usize) {
        (self.window.under_way(), self.window.size())
    }

    fn seen(&mut self, id: &ServiceId, observed: Observed) {
        if let Some(entry) = self.entries.get(id)
            && entry.observed.uid != observed.uid
            && !entry.observed.uid.is_empty()
        {
            // Deleted and created again under its name: another Service.
            self.gone(id);
        }
        let entry = self.entries.entry(id.clone()).or_default();
        if observed.is_older_than(&entry.observed) {
            return;
        }
        let changed = entry.observed.resource_version != observed.resource_version;
        if let Some(desired) = entry.desired.as_ref().filter(|_| changed) {
            let ours = |ip: &IpAddr| {
                desired.addresses.contains(ip)
                    || entry.observed.shows(*ip)
                    || entry.patches().any(|patch| patch.addresses.contains(ip))
            };
            let addresses: Vec<IpAddr> = observed.addresses().filter(|ip| !ours(ip)).collect();
            if !addresses.is_empty() {
                self.outputs.push_back(Output::Edited { id: id.clone(), addresses });
            }
        }
        entry.observe(observed);
        self.shown(id);
        if changed {
            self.lanes.unschedule(id);
            self.enqueue(id);
        }
    }

    fn gone(&mut self, id: &ServiceId) {
        if let Some(entry) = self.entries.remove(id)
            && let Some(patch) = entry.under_way
        {
            self.window.ended(patch.slow);
        }
        self.lanes.unschedule(id);
        self.settle_fence(id, None);
        let free = self.leaving.set(id, Vec::new());
        self.enqueue_all(free);
    }

    fn want(&mut self, id: &ServiceId, desired: Option<Desired>) {
        let entry = self.entries.entry(id.clone()).or_default();
        if entry.desired != desired {
            entry.desired = desired;
            entry.failures = 0;
            self.lanes.unschedule(id);
            self.shown(id);
        }
        self.enqueue(id);
    }

    fn start(&mut self, id: &ServiceId, slow: bool) -> Option<Output> {
        let entry = self.entries.get(id).filter(|entry| entry.under_way.is_none())?;
        let (change, addresses) = if let Some(fence) = &self.fence {
            (fence.change(id, &entry.observed, self.attempts)?, Vec::new())
        } else {
            let desired = entry.desired.as_ref()?;
            let step = desired.step(&entry.observed);
            if step.adds
                && let Some(ip) = self.leaving.blocks(id, &desired.addresses)
            {
                self.leaving.wait(ip, id);
                return None;
            }
            let target = step.desired.as_ref().unwrap_or(desired);
            let Some(change) = target.change(&entry.observed) else {
                return Some(Output::Settled(id.clone()));
            };
            (change, target.addresses.clone())
        };
        let (uid, version) = (entry.observed.uid.clone(), entry.observed.resource_version.clone());
        let attempt = self.attempts;
        self.attempts += 1;
        self.window.began(slow);
        let under_way = UnderWay { attempt, version: version.clone(), slow, addresses };
        if let Some(entry) = self.entries.get_mut(id) {
            entry.under_way = Some(Box::new(under_way));
        }
        Some(Output::Patch(Patch { attempt, id: id.clone(), uid, resource_version: version, change }))
    }

    fn ended(&mut self, now: Instant, attempt: u64, id: &ServiceId, end: End) {
        match &end {
            End::Busy(after) => self.window.too_much(now, attempt, self.attempts, *after),
            End::Unreachable(_) => self.window.unreachable(now, attempt, self.attempts),
            _ => self.window.answered(),
        }
        let Some(entry) = self.entries.get_mut(id) else { return };
        // Of a Service that was deleted and created again in the meantime: no longer counted.
        let Some(patch) = entry.under_way.take_if(|patch| patch.attempt == attempt) else { return };
        self.window.ended(patch.slow);
        match end {
            End::Done(new) => {
                self.lanes.trust(&id.namespace);
                let now_is = &entry.observed.resource_version;
                let by_others = *now_is != patch.version && *now_is != new.resource_version;
                if new.uid == entry.observed.uid && !new.is_older_than(&entry.observed) {
                    entry.observe(*new);
                }
                self.shown(id);
                self.after_success(now, id, by_others);
            }
            End::Conflict => {
                // If the watch brought something newer meanwhile, it is worth another look at once.
                let newer = entry.observed.resource_version != patch.version;
                self.shown(id);
                if newer { self.enqueue(id) } else { self.lanes.schedule(id, now + AFTER_CONFLICT) }
            }
            // The watch says what became of it.
            End::Gone => {
                self.shown(id);
                self.settle_fence(id, None);
            }
            End::Refused(_) => {
                self.shown(id);
                // Who is refused now was refused then.
                self.settle_fence(id, None);
                self.fail(now, id);
            }
            End::Failed(_) => {
                entry.doubted(patch);
                self.lanes.suspect(&id.namespace);
                self.shown(id);
                self.fail(now, id);
            }
            // Not even sent, or sent back unread: nothing about this Service.
            End::Busy(_) => {
                self.shown(id);
                self.enqueue(id);
            }
            End::Unreachable(_) => {
                entry.doubted(patch);
                self.shown(id);
                self.enqueue(id);
            }
        }
    }

    /// The patch was taken: either that was all, or it was the first of two, or the server shows something else than
    /// what it took (somebody changes what we write), which must not become a loop.
    fn after_success(&mut self, now: Instant, id: &ServiceId, changed_by_others: bool) {
        self.settle_fence_if_newer(id);
        if self.fence.is_some() {
            // The text was there already, so that it has no new version. The next one has another number.
            return self.enqueue(id);
        }
        let Some(entry) = self.entries.get_mut(id) else { return };
        let Some(desired) = &entry.desired else { return };
        if desired.change(&entry.observed).is_none() {
            entry.failures = 0;
            self.outputs.push_back(Output::Settled(id.clone()));
        } else if entry.observed.ours.iter().any(|seen| seen.reason == CHANGING) || changed_by_others {
            entry.failures = 0;
            self.enqueue_first(id);
        } else {
            self.fail(now, id);
        }
    }

    fn fail(&mut self, now: Instant, id: &ServiceId) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        let pause = FIRST_PAUSE.saturating_mul(1 << entry.failures.min(9)).min(LONGEST_PAUSE);
        entry.failures += 1;
        self.lanes.schedule(id, now + pause);
    }

    /// What a Service shows, may come to show or should show has changed.
    fn shown(&mut self, id: &ServiceId) {
        let Some(entry) = self.entries.get(id) else { return };
        let free = self.leaving.set(id, entry.gives_up());
        self.enqueue_all(free);
        self.settle_fence_if_newer(id);
    }

    fn enqueue(&mut self, id: &ServiceId) {
        if self.is_of_interest(id) {
            self.lanes.push(id);
        }
    }

    fn enqueue_first(&mut self, id: &ServiceId) {
        if self.is_of_interest(id) {
            self.lanes.push_first(id);
        }
    }

    fn enqueue_all(&mut self, ids: Vec<ServiceId>) {
        for id in ids {
            self.enqueue(&id);
        }
    }

    fn is_of_interest(&self, id: &ServiceId) -> bool {
        let Some(entry) = self.entries.get(id).filter(|entry| entry.under_way.is_none()) else {
            return false;
        };
        match &self.fence {
            Some(fence) => fence.waits_for(id),
            None => entry.desired.is_some(),
        }
    }
}

impl Entry {
    fn observe(&mut self, observed: Observed) {
        self.observed = observed;
        let version = &self.observed.resource_version;
        // Another version: what was sent for the one before can no longer be written.
        self.doubt.take_if(|patch| patch.version != *version);
    }

    /// Nobody knows what came of `patch`.
    fn doubted(&mut self, mut patch: Box<UnderWay>) {
        if patch.version != self.observed.resource_version {
            return;
        }
        if let Some(before) = self.doubt.take() {
            patch.addresses.extend(before.addresses);
        }
        self.doubt = Some(patch);
    }

    /// Patches that may still be written.
    fn patches(&self) -> impl Iterator<Item = &UnderWay> {
        self.under_way.iter().chain(&self.doubt).map(|patch| &**patch)
    }

    /// Addresses that it shows or may come to show, and should not.
    fn gives_up(&self) -> Vec<IpAddr> {
        let coming = self.patches().flat_map(|patch| patch.addresses.iter().copied());
        let Some(desired) = &self.desired else { return coming.collect() };
        let all = self.observed.addresses().chain(coming);
        all.filter(|ip| !desired.addresses.contains(ip)).collect()
    }
}
