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

/// The addresses (as positions) of one group in one pool and family, indexed by what is still free on them, so that
/// "the lowest address where these ports fit" needs no walk over the group.
#[derive(Clone, Debug, Default)]
pub(super) struct GroupIndex {
    all: BTreeSet<u128>,
    /// For each port used anywhere in the group: the positions where it is free.
    free_of: BTreeMap<Port, BTreeSet<u128>>,
}

impl GroupIndex {
    pub(super) fn add(&mut self, position: u128) {
        if self.all.insert(position) {
            for positions in self.free_of.values_mut() {
                positions.insert(position);
            }
        }
    }

    /// After its last port was vacated. True when the group has no address any more.
    pub(super) fn remove(&mut self, position: u128) -> bool {
        self.all.remove(&position);
        let all = self.all.len();
        self.free_of.retain(|_, positions| {
            positions.remove(&position);
            positions.len() < all
        });
        self.all.is_empty()
    }

    pub(super) fn occupy(&mut self, position: u128, port: Port) {
        self.free_of.entry(port).or_insert_with(|| self.all.clone()).remove(&position);
    }

    pub(super) fn vacate(&mut self, position: u128, port: Port) {
        if let Some(positions) = self.free_of.get_mut(&port) {
            positions.insert(position);
            if positions.len() == self.all.len() {
                self.free_of.remove(&port);
            }
        }
    }

    /// The lowest position where all `ports` are free.
    pub(super) fn first_fit(&self, ports: &BTreeSet<Port>) -> Option<u128> {
        let sets: Vec<&BTreeSet<u128>> = ports.iter().filter_map(|port| self.free_of.get(port)).collect();
        let smallest = sets.iter().min_by_key(|set| set.len()).copied().unwrap_or(&self.all);
        smallest.iter().copied().find(|position| sets.iter().all(|set| set.contains(position)))
    }
}
