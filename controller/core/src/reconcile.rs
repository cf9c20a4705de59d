//! All Services, in the right order.
//!
//! The rules of order, in one place:
//! * Nothing is given before every Service that already holds an address was adopted ([`Reconciler::start`]).
//! * Older Services come first, everywhere.
//! * A changed Service costs one decision; a changed configuration costs all; a freed address costs one for each need that it
//!   could fulfil, and one for each Service that it is given to ([`crate::waiting`]).

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use patina_crds::config::Config;
use patina_crds::net::Family;
use patina_crds::selector::Labels;

use crate::allocator::{Allocator, Refused, Sharing};
use crate::decide::{Decision, Outcome, Policy, Rules, decide};
use crate::request::Wishes;
use crate::surroundings::Surroundings;
use crate::view::{ServiceId, ServiceView};
use crate::waiting::{Queue, Turn, turn};

/// The state of allocation, and what has to be looked at.
#[derive(Debug, Default)]
pub struct Reconciler {
    policy: Policy,
    config: Option<Arc<Config>>,
    surroundings: Arc<Surroundings>,
    started: bool,
    namespaces: HashMap<String, Labels>,
    services: HashMap<ServiceId, ServiceView>,
    /// Services that were decided about: from then on memory is the truth about what they have, and a status that says
    /// otherwise is late or was edited.
    decided: HashSet<ServiceId>,
    allocator: Allocator,
    dirty: BTreeSet<Turn>,
    /// Services without an address.
    waiting: BTreeSet<Turn>,
    /// Services with less than they need that a freed address could help.
    queue: Queue,
    /// Services by namespace.
    by_namespace: HashMap<String, BTreeSet<Turn>>,
}

impl Reconciler {
    /// Empty; nothing is decided before [`Reconciler::start`].
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self { policy, ..Self::default() }
    }

    /// A Service appeared or changed. Equal views cost nothing.
    pub fn service_changed(&mut self, view: ServiceView) {
        if let Some(old) = self.services.get(&view.id) {
            if *old == view {
                return;
            }
            if old.uid != view.uid {
                // Deleted and created again under its name: another Service.
                let id = view.id.clone();
                self.service_deleted(&id);
            }
        }
        let turn = turn(&view);
        self.by_namespace.entry(view.id.namespace.clone()).or_default().insert(turn.clone());
        self.dirty.insert(turn);
        self.services.insert(view.id.clone(), view);
    }

    /// A Service is gone; its addresses are free.
    pub fn service_deleted(&mut self, id: &ServiceId) {
        if let Some(view) = self.services.remove(id) {
            self.dirty.remove(&turn(&view));
            self.waiting.remove(&turn(&view));
            if let Some(turns) = self.by_namespace.get_mut(&id.namespace) {
                turns.remove(&turn(&view));
                if turns.is_empty() {
                    self.by_namespace.remove(&id.namespace);
                }
            }
            self.decided.remove(id);
            self.allocator.release(id);
            self.queue.remove(id, &mut self.allocator, &mut self.dirty);
        }
    }

    /// Another configuration is in force.
    pub fn config_changed(&mut self, config: Arc<Config>) {
        if self.config.as_ref().is_some_and(|old| *old == config) {
            return;
        }
        self.allocator.configure(&config, &self.surroundings);
        self.config = Some(config);
        self.all_dirty();
    }

    /// The network uses other addresses itself. As long as none of them is in a pool, this costs a look at each of them.
    pub fn surroundings_changed(&mut self, surroundings: Arc<Surroundings>) {
        if self.surroundings == surroundings {
            return;
        }
        if let Some(config) = &self.config
            && self.allocator.surround(config, &surroundings)
        {
            self.all_dirty();
        }
        self.surroundings = surroundings;
    }

    /// A namespace appeared, changed its labels, or (without labels) is gone.
    pub fn namespace_changed(&mut self, name: &str, labels: Labels) {
        let known = self.namespaces.get(name);
        if known == Some(&labels) || (known.is_none() && labels.is_empty()) {
            return;
        }
        self.namespaces.insert(name.to_owned(), labels);
        self.dirty.extend(self.by_namespace.get(name).into_iter().flatten().cloned());
    }

    /// All Services and namespaces were seen and a configuration is there: adopts every address that is held, oldest
    /// Service first, and only then lets anything be given. False (and nothing happens) without a configuration.
    pub fn start(&mut self) -> bool {
        if self.config.is_none() {
            return false;
        }
        if !self.started {
            let order: BTreeSet<Turn> =
                self.services.values().filter(|view| !view.held.is_empty()).map(turn).collect();
            for (_, id) in order {
                self.adopt(&id);
            }
            self.started = true;
            self.all_dirty();
        }
        true
    }

    /// Decides about everything that changed, and then about who waits if something became free. In the order of
    /// decisions; a Service may appear again when it was decided about again.
    pub fn reconcile(&mut self) -> Vec<(ServiceId, Outcome)> {
        let mut outcomes = Vec::new();
        let Some(config) = self.config.clone().filter(|_| self.started) else { return outcomes };
        loop {
            // Whoever waits comes before a younger Service that needs an address, so who waits has to be among them.
            if self.allocator.has_freed() {
                for freed in self.allocator.take_freed() {
                    self.queue.wake(&freed, &mut self.dirty);
                }
            }
            let Some((_, id)) = self.dirty.pop_first() else { return outcomes };
            if let Some(outcome) = self.decide_one(&id, &config) {
                outcomes.push((id, outcome));
            }
        }
    }

    /// The configuration in force.
    #[must_use]
    pub fn config(&self) -> Option<&Arc<Config>> {
        self.config.as_ref()
    }

    /// A Service as last seen.
    #[must_use]
    pub fn service(&self, id: &ServiceId) -> Option<&ServiceView> {
        self.services.get(id)
    }

    /// Who holds what.
    #[must_use]
    pub fn allocator(&self) -> &Allocator {
        &self.allocator
    }

    /// How many Services wait for an address.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    fn all_dirty(&mut self) {
        // Everybody looks again, and pools have other numbers now.
        self.queue.clear();
        self.dirty = self.services.values().map(turn).collect();
    }

    fn decide_one(&mut self, id: &ServiceId, config: &Config) -> Option<Outcome> {
        let held = self.services.get(id).is_some_and(|view| !view.held.is_empty());
        let first = self.decided.insert(id.clone());
        let forgotten = held && self.allocator.assignment(id).is_none();
        if forgotten && first {
            self.adopt(id);
        }
        let view = self.services.get(id)?;
        let without = (forgotten && !first).then(|| ServiceView { held: Vec::new(), ..view.clone() });
        let nothing = Labels::new();
        let labels = self.namespaces.get(&id.namespace).unwrap_or(&nothing);
        let rules = Rules { config, namespace_labels: labels, policy: &self.policy, queue: &self.queue };
        let (outcome, want) = decide(without.as_ref().unwrap_or(view), rules, &mut self.allocator);
        let turn = turn(view);
        self.queue.put(&turn, want, &mut self.allocator, &mut self.dirty);
        if matches!(outcome.decision, Decision::Wait(_)) {
            self.waiting.insert(turn);
        } else {
            self.waiting.remove(&turn);
        }
        Some(outcome)
    }

    /// Takes what the status says into memory. Where two Services turn out to have one address that they cannot share,
    /// the older keeps it, and the younger is decided about anew.
    fn adopt(&mut self, id: &ServiceId) {
        let Some(view) = self.services.get(id) else { return };
        if !view.is_load_balancer || view.class != self.policy.class {
            return;
        }
        let addresses = self.allocator.keepable(&one_per_family(view));
        let sharing = Sharing::of(view, &Wishes::read(view).shared_key);
        while let Err(Refused::Taken { owner, .. }) = self.allocator.assign(id, &addresses, &sharing) {
            match self.services.get(&owner) {
                Some(other) if turn(other) < turn(view) => return,
                Some(other) => {
                    self.dirty.insert(turn(other));
                }
                None => {}
            }
            self.allocator.release(&owner);
            // What its status says is looked at once more, so that it hears why it lost the address.
            self.decided.remove(&owner);
        }
    }
}

/// As [`decide`] keeps them: the first of each family that the Service has.
fn one_per_family(view: &ServiceView) -> Vec<IpAddr> {
    let mut families = view.cluster_families();
    let mut take = |ip: &IpAddr| {
        let wanted = families.iter().position(|family| *family == Family::of(*ip));
        wanted.map(|index| families.swap_remove(index)).is_some()
    };
    view.held.iter().copied().filter(|ip| take(ip)).collect()
}
