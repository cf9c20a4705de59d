//! The API server, as far as it matters: objects with versions, conditional patches, a log of events that each watch reads
//! at its own pace, and one Lease.

use std::collections::BTreeMap;

use patina_controller_core::view::{ServiceId, ServiceView};
use patina_controller_core::writes::{Ingress, Observed, Patch};
use patina_crds::keys;

#[derive(Clone, Debug)]
pub(crate) struct Object {
    pub(crate) view: ServiceView,
    pub(crate) observed: Observed,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Done(Box<Observed>),
    Conflict,
    Gone,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Lease {
    pub(crate) holder: Option<usize>,
    pub(crate) renewed: u64,
    pub(crate) transitions: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Server {
    pub(crate) objects: BTreeMap<ServiceId, Object>,
    /// Every change: the object, or that it is gone.
    pub(crate) log: Vec<(ServiceId, Option<Object>)>,
    /// `None`: deleted or never there.
    pub(crate) lease: Option<Lease>,
    version: u64,
}

impl Server {
    pub(crate) fn next_version(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    /// Writes an object with a new version.
    pub(crate) fn put(&mut self, mut object: Object) {
        object.observed.resource_version = self.next_version().to_string();
        object.view.held = object.observed.addresses().collect();
        object.view.marked = object.observed.pool.is_some() || !object.observed.ours.is_empty();
        let id = object.view.id.clone();
        self.log.push((id.clone(), Some(object.clone())));
        self.objects.insert(id, object);
    }

    pub(crate) fn delete(&mut self, id: &ServiceId) {
        if self.objects.remove(id).is_some() {
            self.next_version();
            self.log.push((id.clone(), None));
        }
    }

    pub(crate) fn patch(&mut self, patch: &Patch) -> Answer {
        let Some(stored) = self.objects.get(&patch.id) else { return Answer::Gone };
        let observed = &stored.observed;
        if observed.uid != patch.uid || observed.resource_version != patch.resource_version {
            return Answer::Conflict;
        }
        let mut new = stored.clone();
        let shown = &mut new.observed;
        if let Some(addresses) = &patch.change.addresses {
            shown.ingress = addresses.iter().map(|ip| Ingress { ip: Some(*ip), as_we_write: true }).collect();
        }
        if let Some(pool) = &patch.change.pool {
            shown.pool.clone_from(pool);
        }
        if let Some(conditions) = &patch.change.conditions {
            (shown.ours, shown.foreign) =
                conditions.iter().cloned().partition(|c| c.type_ == keys::CONDITION_ALLOCATED);
        }
        // What changes nothing has no new version.
        if new.observed != stored.observed {
            self.put(new);
        }
        Answer::Done(Box::new(self.objects[&patch.id].observed.clone()))
    }
}
