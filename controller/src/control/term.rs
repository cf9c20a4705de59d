//! One term of office: from the moment that the Lease is ours until it is not.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use patina_controller_core::decide::Decision;
use patina_controller_core::reconcile::Reconciler;
use patina_controller_core::view::ServiceId;
use patina_runtime::config_watch::{Change as ConfigChange, ConfigKeeper};

use super::Controller;
use super::tally::Tally;
use crate::announce::{Said, consequence, edited, reference, say};
use crate::leader::{Before, Takeover};
use crate::status::{StatusWriter, Written};
use crate::surroundings_watch::SurroundingsWatch;
use crate::watch::{Change, changes};

/// Changes that are taken in before deciding, when many are there.
const BATCH: usize = 2000;
/// A Service that cannot be fenced for so long is not waited for.
const FENCE: Duration = Duration::from_secs(30);

pub(super) struct Term<'a> {
    pub(super) around: &'a Controller,
    pub(super) keeper: &'a mut ConfigKeeper,
    pub(super) reconciler: Reconciler,
    writer: StatusWriter,
    changes: BoxStream<'static, Change>,
    pub(super) surroundings: SurroundingsWatch,
    services_listed: bool,
    namespaces_listed: bool,
    takeover: Takeover,
    fence: Stage,
    pub(super) started: bool,
    /// Somebody of ours wrote conditions before: this is not the first controller ever.
    marked: bool,
    /// By Service: the event for when its status is written.
    when_written: HashMap<ServiceId, Said>,
    /// Services that were decided about at least once.
    looked_at: BTreeSet<ServiceId>,
    pub(super) tally: Tally,
    /// Gauges and pool statuses may have to change.
    pub(super) usage_changed: bool,
    /// IPAddressPools and their uids.
    pub(super) pools: BTreeMap<String, String>,
    pub(super) pools_shown: BTreeSet<String>,
}

/// Why a term ends while the Lease is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// It did not exist when we took it, and yet we are not the first.
    LeaseWasDeleted,
}

/// Of the fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    NotYet,
    /// So many Services are being written.
    Raised(usize),
    Stands,
}

impl<'a> Term<'a> {
    pub(super) fn new(around: &'a Controller, keeper: &'a mut ConfigKeeper, takeover: &Takeover) -> Self {
        Self {
            reconciler: Reconciler::new(around.policy.clone()),
            writer: StatusWriter::new(around.client.clone(), around.standing.clone()),
            changes: changes(&around.client),
            surroundings: around.surroundings.clone(),
            tally: Tally::new(around.metrics.clone()),
            around,
            keeper,
            services_listed: false,
            namespaces_listed: false,
            takeover: takeover.clone(),
            fence: Stage::NotYet,
            started: false,
            marked: false,
            when_written: HashMap::new(),
            looked_at: BTreeSet::new(),
            usage_changed: false,
            pools: BTreeMap::new(),
            pools_shown: BTreeSet::new(),
        }
    }

    pub(super) async fn work(&mut self) -> Over {
        self.show_verdict();
        loop {
            if !self.started {
                if let Some(over) = self.start() {
                    return over;
                }
                self.around.standing.waits_for(self.waits_for());
            }
            self.decide();
            self.show_usage();
            self.tally.show_writes(self.writer.window());
            let around = self.around;
            tokio::select! {
                Some(change) = self.changes.next() => self.take_in(change),
                () = around.bell.notified() => self.refresh_config(),
                () = self.surroundings.changed() => self.look_around(),
                written = self.writer.next() => self.written(written),
            }
        }
    }

    /// Lets what is under way end.
    pub(super) async fn drain(&mut self) {
        self.writer.drain().await;
    }

    /// True when nothing is under way. What is, is given up.
    pub(super) fn end(mut self) -> bool {
        self.around.pool_status.send_replace(None);
        self.around.config_state.send_replace(None);
        self.around.standing.waits_for(None);
        self.around.metrics.clear(&mut self.pools_shown);
        self.writer.is_drained()
    }

    /// Nothing is given before every Service, every namespace, the network's own addresses and a configuration were
    /// seen, and what the leader before may have sent can do no harm.
    fn start(&mut self) -> Option<Over> {
        if !(self.services_listed && self.namespaces_listed) {
            return None;
        }
        if self.fence == Stage::NotYet {
            match self.takeover.before {
                Before::Absent if self.marked => return Some(Over::LeaseWasDeleted),
                Before::Absent | Before::Released => self.fence = Stage::Stands,
                Before::Unfinished => self.raise_fence(),
            }
        }
        let surroundings = self.surroundings.current()?;
        if let Some(config) = self.keeper.config().filter(|_| self.fence == Stage::Stands) {
            self.reconciler.surroundings_changed(surroundings);
            self.reconciler.config_changed(Arc::clone(config));
            self.started = self.reconciler.start();
            let adopted = self.reconciler.allocator().assignments().count();
            tracing::info!(adopted, "every Service was seen; allocating");
        }
        None
    }

    /// Docs: decisions/0012.
    fn raise_fence(&mut self) {
        let (reconciler, class) = (&self.reconciler, &self.around.policy.class);
        let count = self.writer.fence(&self.takeover.term, FENCE, |id| {
            reconciler.service(id).is_some_and(|view| view.is_load_balancer && view.class == *class)
        });
        self.fence = Stage::Raised(count);
        self.around.metrics.fenced.inc_by(count as u64);
        if count > 0 {
            tracing::info!(
                services = count,
                "the leader before did not finish; making its late writes harmless"
            );
        }
    }

    /// For readiness: what is missing. A configuration that is refused is not: the webhook of this process, which
    /// Kubernetes asks only while it is ready, is needed to put it right.
    fn waits_for(&self) -> Option<String> {
        let listed = [(self.services_listed, "Services"), (self.namespaces_listed, "Namespaces")];
        let missing: Vec<&str> = listed.into_iter().filter(|(done, _)| !done).map(|(_, kind)| kind).collect();
        if !missing.is_empty() {
            return Some(format!("the first list is not complete: {}", missing.join(", ")));
        }
        match self.fence {
            Stage::Raised(count) => {
                Some(format!("making late writes of the leader before harmless ({count} Services)"))
            }
            Stage::NotYet | Stage::Stands => None,
        }
    }

    fn take_in(&mut self, first: Change) {
        let mut next = Some(first);
        for _ in 0..BATCH {
            let Some(change) = next.take() else { return };
            self.apply(change);
            next = self.changes.next().now_or_never().flatten();
        }
        if let Some(change) = next {
            self.apply(change);
        }
    }

    fn apply(&mut self, change: Change) {
        self.around.metrics.config.updates.inc();
        match change {
            Change::Service(seen) => {
                let (view, observed) = *seen;
                self.marked |= !observed.ours.is_empty();
                if view.is_load_balancer && view.class == self.around.policy.class && view.held.is_empty() {
                    self.tally.needs_an_address(&view.id, Instant::now());
                }
                self.writer.observe(&view.id, observed);
                self.reconciler.service_changed(view);
            }
            Change::ServiceGone(id) => {
                if let Some(view) = self.reconciler.service(&id) {
                    self.around.events.forget(&reference(&id, &view.uid));
                }
                self.reconciler.service_deleted(&id);
                self.writer.forget(&id);
                self.when_written.remove(&id);
                self.looked_at.remove(&id);
                self.tally.gone(&id);
                self.usage_changed = true;
            }
            Change::ServicesListed => self.services_listed = true,
            Change::Namespace(name, labels) => self.reconciler.namespace_changed(&name, labels),
            Change::NamespacesListed => self.namespaces_listed = true,
            Change::Failed(why) => tracing::warn!("cannot watch, what is known stays: {why}"),
        }
    }

    fn refresh_config(&mut self) {
        match self.keeper.refresh(&self.around.config_watch) {
            // The same configuration, but perhaps of other objects: a pool that was deleted and created again.
            ConfigChange::Same if self.around.config_watch.synced() => self.note_pools(),
            // Why not may be another reason now.
            ConfigChange::Same => self.show_verdict(),
            ConfigChange::Loaded => {
                if let Some(config) = self.keeper.config().filter(|_| self.started) {
                    self.reconciler.config_changed(Arc::clone(config));
                }
                self.show_verdict();
            }
            ConfigChange::Refused => {
                self.around.metrics.config.update_errors.inc();
                self.show_verdict();
            }
        }
    }

    fn look_around(&mut self) {
        if let Some(surroundings) = self.surroundings.current().filter(|_| self.started) {
            self.reconciler.surroundings_changed(surroundings);
        }
        self.show_verdict();
    }

    fn decide(&mut self) {
        let outcomes = self.reconciler.reconcile();
        if outcomes.is_empty() {
            return;
        }
        let Some(config) = self.reconciler.config().cloned() else { return };
        for (id, outcome) in outcomes {
            let Some(view) = self.reconciler.service(&id) else { continue };
            let result = consequence(view, &outcome, &config);
            let first_look = self.looked_at.insert(id.clone());
            // Each write of ours comes back as a change that changes nothing: not worth a look at every pool.
            self.usage_changed |= first_look || !matches!(outcome.decision, Decision::Keep { .. });
            // After a restart, what the status says already was said already.
            let nothing_new =
                first_look && result.desired.as_ref().is_some_and(|desired| self.writer.shows(&id, desired));
            if !nothing_new {
                for said in &result.events {
                    say(&self.around.events, &id, &view.uid, said);
                }
            }
            if outcome.lost.is_some() {
                self.around.metrics.releases.inc();
            }
            match result.when_written {
                Some(said) => self.when_written.insert(id.clone(), said),
                None if result.waits.is_some() => self.when_written.remove(&id),
                None => None,
            };
            self.tally.decided(&id, result.waits, result.desired.is_some());
            self.writer.want(&id, result.desired);
        }
    }

    fn written(&mut self, written: Written) {
        let metrics = &self.around.metrics;
        match written {
            Written::Settled(id) => {
                self.tally.settled(&id, Instant::now());
                if let (Some(said), Some(view)) =
                    (self.when_written.remove(&id), self.reconciler.service(&id))
                {
                    say(&self.around.events, &id, &view.uid, &said);
                }
            }
            Written::Attempted(result) => metrics.writes.with_label_values(&[result]).inc(),
            Written::Failed(id, result, why) => {
                metrics.writes.with_label_values(&[result]).inc();
                metrics.config.update_errors.inc();
                tracing::warn!(service = %id, "cannot write the status, trying again: {why}");
            }
            Written::Edited(id, addresses) => {
                let allocator = self.reconciler.allocator();
                if let Some(view) = self.reconciler.service(&id) {
                    say(&self.around.events, &id, &view.uid, &edited(&id, &addresses, allocator));
                }
            }
            Written::Fenced(left) => {
                self.fence = Stage::Stands;
                if !left.is_empty() {
                    let names: Vec<String> = left.iter().take(10).map(ToString::to_string).collect();
                    tracing::warn!(
                        services = left.len(),
                        "allocating although these could not be written within {FENCE:?}; a late write of the leader \
                         before could still reach them: {}",
                        names.join(", ")
                    );
                }
            }
        }
    }
}
