//! The one task that decides.
//!
//! A controller stands by until the Lease is its own. Then it lists everything anew, adopts every address that is held,
//! and only then gives any. What happens next is a loop: changes in, decisions by the core, wishes to the status writer.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use kube::{Client, ResourceExt};
use patina_controller_core::decide::Policy;
use patina_controller_core::reconcile::Reconciler;
use patina_controller_core::view::ServiceId;
use patina_crds::config::Resources;
use patina_crds::types::IPAddressPoolStatus;
use patina_runtime::config_watch::{Change as ConfigChange, ConfigKeeper, ConfigWatch};
use patina_runtime::events::Events;
use patina_runtime::tasks::Shutdown;
use tokio::sync::{Notify, watch};

use crate::announce::{Said, consequence, reference, say};
use crate::config_state::Verdict;
use crate::leader::{Candidate, Standing};
use crate::metrics::{Metrics, saturated};
use crate::pool_status::PoolStatuses;
use crate::status::{StatusWriter, Written};
use crate::watch::{Change, changes};

/// Changes that are taken in before deciding, when many are there.
const BATCH: usize = 2000;
/// Writes under way get this long to end after SIGTERM; then the Lease is given back.
const DRAIN: Duration = Duration::from_secs(4);

/// What the controller works with.
pub(crate) struct Controller {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    pub(crate) policy: Policy,
    pub(crate) identity: String,
    pub(crate) standing: Standing,
    pub(crate) config_watch: ConfigWatch,
    pub(crate) bell: Arc<Notify>,
    pub(crate) events: Events,
    pub(crate) metrics: Metrics,
    pub(crate) pool_status: watch::Sender<Option<PoolStatuses>>,
    pub(crate) config_state: watch::Sender<Option<Verdict>>,
    pub(crate) shutdown: Shutdown,
}

impl Controller {
    /// Until SIGTERM.
    pub(crate) async fn run(mut self) {
        let mut keeper = ConfigKeeper::new();
        let mut candidate = Candidate::new(
            self.client.clone(),
            &self.namespace,
            self.identity.clone(),
            self.standing.clone(),
        );
        while !self.shutdown.is_requested() {
            if !self.stand_by(&mut candidate, &mut keeper).await {
                return;
            }
            self.metrics.leading.set(1);
            let mut term = Term::new(&self, &mut keeper);
            let mut shutdown = self.shutdown.clone();
            tokio::select! {
                () = candidate.hold() => {}
                () = shutdown.requested() => {}
                () = term.work() => {}
            }
            if self.shutdown.is_requested() {
                // Nothing new is decided; what is on its way may arrive.
                if tokio::time::timeout(DRAIN, term.writer.drain()).await.is_err() {
                    tracing::warn!("status writes did not end within {DRAIN:?}");
                }
            }
            term.end();
            candidate.release().await;
        }
    }

    /// Waits for the Lease and reads the configuration meanwhile. False at SIGTERM.
    async fn stand_by(&mut self, candidate: &mut Candidate, keeper: &mut ConfigKeeper) -> bool {
        let acquire = candidate.acquire();
        tokio::pin!(acquire);
        loop {
            keeper.refresh(&self.config_watch);
            keeper.record(&self.metrics.config);
            tokio::select! {
                () = &mut acquire => return true,
                () = self.bell.notified() => {}
                () = self.shutdown.requested() => return false,
            }
        }
    }
}

/// One term of office: from the moment that the Lease is ours until it is not.
struct Term<'a> {
    around: &'a Controller,
    keeper: &'a mut ConfigKeeper,
    reconciler: Reconciler,
    writer: StatusWriter,
    changes: BoxStream<'static, Change>,
    services_listed: bool,
    namespaces_listed: bool,
    started: bool,
    /// By Service: the event for when its status is written.
    when_written: HashMap<ServiceId, Said>,
    /// Services that were decided about at least once.
    looked_at: BTreeSet<ServiceId>,
    waiting: HashMap<ServiceId, &'static str>,
    waiting_by_reason: BTreeMap<&'static str, i64>,
    /// Gauges and pool statuses may have to change.
    usage_changed: bool,
    /// IPAddressPools and their uids.
    pools: BTreeMap<String, String>,
    pools_shown: BTreeSet<String>,
}

impl<'a> Term<'a> {
    fn new(around: &'a Controller, keeper: &'a mut ConfigKeeper) -> Self {
        Self {
            reconciler: Reconciler::new(around.policy.clone()),
            writer: StatusWriter::new(around.client.clone(), around.standing.clone()),
            changes: changes(&around.client),
            around,
            keeper,
            services_listed: false,
            namespaces_listed: false,
            started: false,
            when_written: HashMap::new(),
            looked_at: BTreeSet::new(),
            waiting: HashMap::new(),
            waiting_by_reason: BTreeMap::new(),
            usage_changed: false,
            pools: BTreeMap::new(),
            pools_shown: BTreeSet::new(),
        }
    }

    async fn work(&mut self) {
        self.show_verdict();
        loop {
            if !self.started {
                self.start();
            }
            self.decide();
            self.show_usage();
            let around = self.around;
            tokio::select! {
                Some(change) = self.changes.next() => self.take_in(change),
                () = around.bell.notified() => self.refresh_config(),
                written = self.writer.next() => self.written(written),
            }
        }
    }

    /// Nothing is given before every Service, every namespace and a configuration were seen.
    fn start(&mut self) {
        if !(self.services_listed && self.namespaces_listed) {
            return;
        }
        if let Some(config) = self.keeper.config() {
            self.reconciler.config_changed(Arc::clone(config));
            self.started = self.reconciler.start();
            let adopted = self.reconciler.allocator().assignments().count();
            tracing::info!(adopted, "every Service was seen; allocating");
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
                self.set_waiting(&id, None);
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
            ConfigChange::Same => self.note_pools(&self.around.config_watch.resources()),
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

    fn show_verdict(&mut self) {
        self.keeper.record(&self.around.metrics.config);
        if !self.around.config_watch.synced() {
            return;
        }
        let resources = self.around.config_watch.resources();
        self.pools = resources.pools.iter().filter_map(|pool| Some((pool.name_any(), pool.uid()?))).collect();
        let verdict = Verdict::of(self.keeper, &resources);
        self.around.config_state.send_replace(Some(verdict));
        self.usage_changed = true;
    }

    fn note_pools(&mut self, resources: &Resources) {
        let pools = resources.pools.iter().filter_map(|pool| Some((pool.name_any(), pool.uid()?))).collect();
        self.usage_changed |= pools != self.pools;
        self.pools = pools;
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
            self.set_waiting(&id, result.waits);
            self.writer.want(&id, result.desired);
        }
    }

    fn set_waiting(&mut self, id: &ServiceId, word: Option<&'static str>) {
        self.usage_changed = true;
        let before = match word {
            Some(word) => self.waiting.insert(id.clone(), word),
            None => self.waiting.remove(id),
        };
        for (word, change) in [(before, -1), (word, 1)] {
            if let Some(word) = word {
                *self.waiting_by_reason.entry(word).or_insert(0) += change;
            }
        }
    }

    fn written(&mut self, written: Written) {
        match written {
            Written::Settled(id) => {
                if let (Some(said), Some(view)) =
                    (self.when_written.remove(&id), self.reconciler.service(&id))
                {
                    say(&self.around.events, &id, &view.uid, &said);
                }
            }
            Written::Attempted(result) => self.around.metrics.writes.with_label_values(&[result]).inc(),
            Written::Failed(id, why) => {
                self.around.metrics.writes.with_label_values(&["failed"]).inc();
                self.around.metrics.config.update_errors.inc();
                tracing::warn!(service = %id, "cannot write the status, trying again: {why}");
            }
        }
    }

    /// Gauges and the pools' own status.
    fn show_usage(&mut self) {
        if !(self.started && std::mem::take(&mut self.usage_changed)) {
            return;
        }
        let allocator = self.reconciler.allocator();
        self.around.metrics.show_pools(allocator, &mut self.pools_shown);
        self.around.metrics.show_waiting(&self.waiting_by_reason);
        let statuses: PoolStatuses = allocator
            .usage()
            .filter_map(|(name, usage)| {
                let uid = self.pools.get(name)?;
                let status = IPAddressPoolStatus {
                    assigned_ipv4: saturated(usage.used_v4),
                    assigned_ipv6: saturated(usage.used_v6),
                    available_ipv4: saturated(usage.total_v4.saturating_sub(usage.used_v4)),
                    available_ipv6: saturated(usage.total_v6.saturating_sub(usage.used_v6)),
                };
                Some(((name.to_owned(), uid.clone()), status))
            })
            .collect();
        self.around.pool_status.send_if_modified(|shown| {
            let changed = shown.as_ref() != Some(&statuses);
            *shown = Some(statuses);
            changed
        });
    }

    fn end(mut self) {
        self.around.pool_status.send_replace(None);
        self.around.config_state.send_replace(None);
        self.around.metrics.clear(&mut self.pools_shown);
    }
}
