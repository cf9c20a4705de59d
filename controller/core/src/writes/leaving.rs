//! Addresses that one Service gives up and that another may be waiting to show.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use crate::view::ServiceId;

#[derive(Debug, Default)]
pub(super) struct Leaving {
    /// Addresses that a Service shows, or may come to show, and should not.
    by_service: HashMap<ServiceId, Vec<IpAddr>>,
    by_address: BTreeMap<IpAddr, BTreeSet<ServiceId>>,
    waiting: HashMap<IpAddr, BTreeSet<ServiceId>>,
}

impl Leaving {
    /// What `id` gives up now. Returns who may go on.
    pub(super) fn set(&mut self, id: &ServiceId, addresses: Vec<IpAddr>) -> Vec<ServiceId> {
        if addresses.is_empty() && !self.by_service.contains_key(id) {
            return Vec::new();
        }
        let before = self.by_service.remove(id).unwrap_or_default();
        for ip in &addresses {
            self.by_address.entry(*ip).or_default().insert(id.clone());
        }
        let mut free = Vec::new();
        for ip in before.iter().filter(|ip| !addresses.contains(ip)) {
            if let Some(services) = self.by_address.get_mut(ip) {
                services.remove(id);
                if services.is_empty() {
                    self.by_address.remove(ip);
                }
            }
            free.extend(self.waiting.remove(ip).into_iter().flatten());
        }
        if !addresses.is_empty() {
            self.by_service.insert(id.clone(), addresses);
        }
        free
    }

    /// The first of `addresses` that somebody else still has to give up.
    pub(super) fn blocks(&self, id: &ServiceId, addresses: &[IpAddr]) -> Option<IpAddr> {
        let others = |ip: &IpAddr| {
            self.by_address.get(ip).is_some_and(|services| services.iter().any(|other| other != id))
        };
        addresses.iter().copied().find(others)
    }

    /// `id` is to be named by [`Leaving::set`] when `ip` is given up.
    pub(super) fn wait(&mut self, ip: IpAddr, id: &ServiceId) {
        self.waiting.entry(ip).or_default().insert(id.clone());
    }
}
