//! After a leader that did not say goodbye: no patch of its may still give an address to anybody.
//!
//! A patch that is still on its way holds for a version from before the Lease changed hands. So a Service is safe as soon as
//! it is seen with any other version than the one that was listed after that; where nobody else writes it, we do.

use std::collections::HashMap;
use std::time::Instant;

use super::shown::{Change, Observed, fence};
use super::{Output, Writes};
use crate::view::ServiceId;

#[derive(Debug)]
pub(super) struct Fence {
    term: String,
    /// With the version in which they were listed.
    pending: HashMap<ServiceId, String>,
    pub(super) until: Instant,
}

impl Fence {
    pub(super) fn waits_for(&self, id: &ServiceId) -> bool {
        self.pending.contains_key(id)
    }

    /// `None`: it stands already. `attempt` keeps the text from being what it was, which would change no version.
    pub(super) fn change(&self, id: &ServiceId, observed: &Observed, attempt: u64) -> Option<Change> {
        let text = format!("a controller took over ({}, write {attempt}) and decides next", self.term);
        self.waits_for(id).then(|| fence(observed, text))
    }
}

impl Writes {
    pub(super) fn raise_fence(
        &mut self,
        now: Instant,
        term: String,
        services: Vec<ServiceId>,
        until: Instant,
    ) {
        let version = |id: ServiceId| {
            let version = self.entries.get(&id)?.observed.resource_version.clone();
            Some((id, version))
        };
        let pending: HashMap<_, _> = services.into_iter().filter_map(version).collect();
        let ids: Vec<ServiceId> = pending.keys().cloned().collect();
        self.fence = Some(Fence { term, pending, until: until.max(now) });
        self.enqueue_all(ids);
        self.lower_fence_if_done();
    }

    /// Seen in another version than the one that was listed.
    pub(super) fn settle_fence_if_newer(&mut self, id: &ServiceId) {
        let version = self.entries.get(id).map(|entry| entry.observed.resource_version.clone());
        if let Some(version) = version.filter(|_| self.fence.is_some()) {
            self.settle_fence(id, Some(&version));
        }
    }

    /// Nothing late can be written into it any more; `version` unless that is certain.
    pub(super) fn settle_fence(&mut self, id: &ServiceId, version: Option<&str>) {
        let Some(fence) = &mut self.fence else { return };
        let listed = fence.pending.get(id).map(String::as_str);
        if listed.is_some() && (version.is_none() || version != listed) {
            fence.pending.remove(id);
            self.lower_fence_if_done();
        }
    }

    pub(super) fn lower_fence(&mut self) {
        let Some(fence) = self.fence.take() else { return };
        let mut left: Vec<ServiceId> = fence.pending.into_keys().collect();
        left.sort();
        self.outputs.push_back(Output::Fenced { left });
        let wanted: Vec<ServiceId> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.desired.is_some())
            .map(|(id, _)| id.clone())
            .collect();
        self.enqueue_all(wanted);
    }

    fn lower_fence_if_done(&mut self) {
        if self.fence.as_ref().is_some_and(|fence| fence.pending.is_empty()) {
            self.lower_fence();
        }
    }
}
