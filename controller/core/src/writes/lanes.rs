//! Whose turn it is: first come, first served, with a lane of its own for what fails.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Instant;

use crate::view::ServiceId;

#[derive(Debug, Default)]
pub(super) struct Lanes {
    fast: VecDeque<ServiceId>,
    slow: VecDeque<ServiceId>,
    queued: HashSet<ServiceId>,
    /// Namespaces in which the last patch failed: what fails there (a webhook, a policy) mostly fails for all.
    suspects: HashSet<String>,
    due: BTreeSet<(Instant, ServiceId)>,
    scheduled: HashMap<ServiceId, Instant>,
}

impl Lanes {
    /// Once in the queue is enough. What waits for its time goes on waiting.
    pub(super) fn push(&mut self, id: &ServiceId) {
        if !self.scheduled.contains_key(id) && self.queued.insert(id.clone()) {
            self.fast.push_back(id.clone());
        }
    }

    pub(super) fn push_first(&mut self, id: &ServiceId) {
        if !self.scheduled.contains_key(id) && self.queued.insert(id.clone()) {
            self.fast.push_front(id.clone());
        }
    }

    /// The next one, and whether it is of those that fail; of these only if `slow_too`.
    pub(super) fn pop(
        &mut self,
        failures: impl Fn(&ServiceId) -> u32,
        slow_too: bool,
    ) -> Option<(ServiceId, bool)> {
        while let Some(id) = self.fast.pop_front() {
            if failures(&id) == 0 && !self.suspects.contains(&id.namespace) {
                self.queued.remove(&id);
                return Some((id, false));
            }
            self.slow.push_back(id);
        }
        let id = if slow_too { self.slow.pop_front() } else { None }?;
        self.queued.remove(&id);
        Some((id, true))
    }

    pub(super) fn suspect(&mut self, namespace: &str) {
        if !self.suspects.contains(namespace) {
            self.suspects.insert(namespace.to_owned());
        }
    }

    pub(super) fn trust(&mut self, namespace: &str) {
        if self.suspects.remove(namespace) {
            self.fast.append(&mut self.slow);
        }
    }

    pub(super) fn schedule(&mut self, id: &ServiceId, at: Instant) {
        self.unschedule(id);
        self.due.insert((at, id.clone()));
        self.scheduled.insert(id.clone(), at);
    }

    pub(super) fn unschedule(&mut self, id: &ServiceId) {
        if let Some(at) = self.scheduled.remove(id) {
            self.due.remove(&(at, id.clone()));
        }
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Whose time has come.
    pub(super) fn due(&mut self, now: Instant) -> Vec<ServiceId> {
        let mut due = Vec::new();
        while self.due.first().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, id)) = self.due.pop_first() {
                self.scheduled.remove(&id);
                due.push(id);
            }
        }
        due
    }
}
