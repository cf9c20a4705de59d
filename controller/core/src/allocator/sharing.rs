//! When two Services may have the same address.

use std::collections::{BTreeMap, BTreeSet};

use crate::view::{Port, ServiceId, ServiceView, TrafficPolicy};

/// What decides whether a Service may share an address: key, backends and ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sharing {
    /// Whom it shares with; `None` without a (non-empty) sharing key: nobody.
    pub group: Option<Group>,
    /// What it occupies on the address.
    pub ports: BTreeSet<Port>,
}

/// Services of one group may share, as long as their ports differ.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group {
    /// Value of the sharing annotation, never empty.
    pub key: String,
    /// Empty for externalTrafficPolicy Cluster; the pod selector in canonical form for Local: the node that receives
    /// traffic for the address must have pods of all its Services. A Local Service without selector is like Cluster.
    pub backends: String,
}

impl Sharing {
    /// Of a Service with this sharing key (empty: none).
    #[must_use]
    pub fn of(service: &ServiceView, key: &str) -> Self {
        let group = (!key.is_empty()).then(|| Group { key: key.to_owned(), backends: backends(service) });
        Self { group, ports: service.ports.clone() }
    }
}

fn backends(service: &ServiceView) -> String {
    match service.traffic_policy {
        TrafficPolicy::Cluster => String::new(),
        TrafficPolicy::Local => {
            let pairs: Vec<String> = service.selector.iter().map(|(k, v)| format!("{k}={v}")).collect();
            pairs.join(",")
        }
    }
}

/// What keeps a Service off an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Clash {
    /// One of the two has no sharing key, or the keys differ.
    Key,
    /// Same key, but externalTrafficPolicy Local with other backends.
    Backends,
    /// Same group, but this port is taken.
    Port(Port),
}

/// Who is on one address. All owners are of one group; without a group there is one owner.
#[derive(Clone, Debug, Default)]
pub(super) struct Holding {
    pub(super) group: Option<Group>,
    pub(super) owners: BTreeSet<ServiceId>,
    /// Only with a group; a port has one owner.
    pub(super) ports: BTreeMap<Port, ServiceId>,
}

impl Holding {
    /// Who keeps `id` from (also) being here, and why. `None`: it may.
    pub(super) fn clash(&self, id: &ServiceId, sharing: &Sharing) -> Option<(ServiceId, Clash)> {
        let other = self.owners.iter().find(|owner| *owner != id)?.clone();
        let (Some(mine), Some(theirs)) = (&sharing.group, &self.group) else {
            return Some((other, Clash::Key));
        };
        if mine.key != theirs.key {
            return Some((other, Clash::Key));
        }
        if mine.backends != theirs.backends {
            return Some((other, Clash::Backends));
        }
        sharing.ports.iter().find_map(|port| {
            let owner = self.ports.get(port).filter(|owner| *owner != id)?;
            Some((owner.clone(), Clash::Port(*port)))
        })
    }
}
