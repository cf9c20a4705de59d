//! The decision task: snapshot -> intent -> what is to change on the wire, in the status objects and in the events.
//!
//! It decides nothing itself. Nothing is announced before everything has been seen once (all watches listed, a
//! configuration loaded); after that, what is known stays in force while the API server is away or the configuration
//! is bad.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use patina_crds::types::ServiceL2Status;
use patina_runtime::config_state::Report;
use patina_runtime::config_watch::{Change, ConfigKeeper, ConfigWatch};
use patina_runtime::events::{EventType, Events, Published};
use patina_runtime::metrics::ConfigMetrics;
use patina_runtime::tasks::Shutdown;
use patina_runtime::watch::Watched;
use patina_speaker_core::intent::{Intent, intent};
use patina_speaker_core::l2::duty::{Claim, Duty, Mode};
use patina_speaker_core::view::{InterfaceView, Options, ServiceId, Snapshot};
use tokio::sync::{Notify, mpsc, watch};

use crate::config_state;
use crate::deadline::until;
use crate::handover::{self, Handover};
use crate::interfaces::Interfaces;
use crate::l2::{Desired, Heard};
use crate::metrics::Announced;
use crate::moves::Moves;
use crate::routes::Gateways;
use crate::settings::Settings;
use crate::status::{self, Wanted};
use crate::watch::{Cluster, replace};

/// After a decision that took t, the next one waits this many times t: whatever the cluster does, deciding takes at
/// most a fifth of a core, and changes that come together are decided together.
const REST: u32 = 4;
/// The longest such rest.
const LONGEST_REST: Duration = Duration::from_millis(500);

/// Everything that the decision task reads and writes.
#[derive(Debug)]
pub struct Speaker {
    /// Flags.
    pub settings: Settings,
    /// Rings when any of the next four changed.
    pub bell: Arc<Notify>,
    /// Services, endpoints, nodes, members.
    pub cluster: Cluster,
    /// Pools and advertisements.
    pub config: ConfigWatch,
    /// This node's interfaces.
    pub interfaces: Interfaces,
    /// The routers it sends to.
    pub gateways: Gateways,
    /// What the driver shall do.
    pub desired: watch::Sender<Desired>,
    /// What the driver heard.
    pub heard: mpsc::Receiver<Heard>,
    /// What the status objects shall say.
    pub wanted: watch::Sender<Wanted>,
    /// What they say.
    pub written: Watched<ServiceL2Status>,
    /// What our ConfigurationState shall say.
    pub config_state: watch::Sender<Option<Report>>,
    /// Where events go.
    pub events: Events,
    /// Gauges of the configuration.
    pub config_metrics: ConfigMetrics,
    /// Gauge of the announced Services.
    pub announced: Announced,
}

/// What the last decision left.
#[derive(Debug, Default)]
struct State {
    keeper: ConfigKeeper,
    options: Options,
    interfaces: Vec<InterfaceView>,
    intent: Intent,
    decided: bool,
    handover: Handover,
    moves: Moves,
}

impl Speaker {
    /// Decides whenever something changed, until the shutdown; then hands over.
    pub async fn run(mut self, mut shutdown: Shutdown) {
        let mut state = State { options: self.settings.options(), ..State::default() };
        loop {
            let mut ring = false;
            tokio::select! {
                () = shutdown.requested() => break,
                () = self.bell.notified() => ring = true,
                Some(heard) = self.heard.recv() => state.hear(heard),
                () = until(state.handover.deadline()) => {}
            }
            let began = Instant::now();
            if !(ring && self.look(&mut state)) {
                self.send(&mut state);
                continue;
            }
            tokio::select! {
                () = shutdown.requested() => break,
                () = tokio::time::sleep((began.elapsed() * REST).min(LONGEST_REST)) => {}
            }
        }
        self.hand_over(state).await;
    }

    /// Looks at everything; decides if anything is different. True when it decided.
    fn look(&mut self, state: &mut State) -> bool {
        let mut changed = self.cluster.refresh();
        let configuration = state.keeper.refresh(&self.config);
        if configuration == Change::Refused {
            self.config_metrics.update_errors.inc();
        }
        changed |= configuration != Change::Same;
        changed |= replace(&mut state.interfaces, self.interfaces.list());
        state.keeper.record(&self.config_metrics);
        let gateways = self.gateways.list();
        let report = config_state::report(&state.keeper, &self.config, &state.interfaces, &gateways);
        self.config_state.send_if_modified(|shown| shown.replace(report) != *shown);
        // What was written before is good to know, but no reason to stay silent.
        let recalled = self.written.synced() || self.written.last_error().is_some();
        let complete = self.cluster.synced() && self.config.synced() && recalled;
        let Some(config) = state.keeper.config().cloned().filter(|_| complete) else { return false };
        if state.decided && !changed {
            self.publish(state); // our Pod may have become known
            return false;
        }

        let views = self.cluster.views();
        let snapshot = Snapshot {
            node: &self.settings.node_name,
            config: &config,
            services: &views.services,
            nodes: &views.nodes,
            members: &views.members,
            interfaces: &state.interfaces,
            options: &state.options,
        };
        let intent = intent(&snapshot);
        self.config_metrics.updates.inc();
        let first = !std::mem::replace(&mut state.decided, true);
        if first || intent != state.intent {
            log(&state.intent, &intent);
            let known: BTreeSet<ServiceId> =
                if first { status::services(&self.written) } else { BTreeSet::new() };
            let taken = state.moves.look(&snapshot, &intent, |id| known.contains(id));
            state.handover.decide(Instant::now(), &intent);
            for taken in taken {
                let node = &self.settings.node_name;
                let message =
                    format!("announcing from node {node:?} with protocol \"layer2\": {}", taken.cause);
                self.say(&taken.service, EventType::Normal, "nodeAssigned", &message);
            }
            self.complain(&intent);
            state.intent = intent;
        }
        self.send(state);
        self.publish(state);
        true
    }

    /// Tells the driver, if there is something new.
    fn send(&self, state: &mut State) {
        if !state.decided {
            return;
        }
        let quiet = state.handover.quiet();
        let duties = state.handover.addresses(Instant::now()).into_iter().map(|(ip, announcement)| {
            let mode = if quiet.contains(&ip) { Mode::Answer } else { Mode::Announce };
            (ip, Duty { interfaces: announcement.interfaces, mode, round: 0, defence: 0 })
        });
        let desired =
            Desired { interfaces: Arc::new(state.interfaces.clone()), duties: Arc::new(duties.collect()) };
        self.desired.send_if_modified(|current| {
            let different = *current != desired;
            if different {
                *current = desired;
            }
            different
        });
    }

    /// Tells the status writer and the metrics.
    fn publish(&mut self, state: &State) {
        let mine = || state.intent.verdicts.iter().filter(|(_, verdict)| verdict.mine);
        let services = mine().map(|(id, verdict)| {
            (id.clone(), if verdict.all_interfaces { BTreeSet::new() } else { verdict.interfaces.clone() })
        });
        let common = &self.settings.common;
        let wanted = Wanted {
            services: services.collect(),
            owner: self.cluster.pod(&common.namespace, &common.pod_name),
        };
        self.wanted.send_if_modified(|current| {
            let different = *current != wanted;
            if different {
                *current = wanted;
            }
            different
        });
        let announced = state
            .intent
            .l2
            .iter()
            .filter(|(_, announcement)| announcement.leads)
            .flat_map(|(ip, announcement)| announcement.services.iter().map(|id| (id.clone(), *ip)))
            .collect();
        self.announced.set(announced);
    }

    /// This node leads and cannot: nobody else will say so.
    fn complain(&self, intent: &Intent) {
        for (id, verdict) in &intent.verdicts {
            for (ip, why) in &verdict.failed {
                self.say(id, EventType::Warning, "announceFailed", &format!("cannot announce {ip}: {why}"));
            }
        }
    }

    fn say(&self, id: &ServiceId, kind: EventType, reason: &str, message: &str) {
        let Some(service) = self.cluster.service_reference(id) else { return };
        if self.events.publish(&service, kind, reason, message) != Published::Same {
            tracing::info!(service = %id, event = reason, "{message}");
        }
    }

    /// Answers on until a successor has announced every address, or for [`handover::LONGEST`]. When nobody else could
    /// lead, there is nobody to wait for.
    async fn hand_over(mut self, mut state: State) {
        let node = self.settings.node_name.clone();
        let mut waiting: BTreeSet<_> = state
            .intent
            .verdicts
            .values()
            .filter(|verdict| verdict.mine && verdict.candidates.iter().any(|other| *other.node != *node))
            .flat_map(|verdict| verdict.addresses.iter().copied())
            .collect();
        tracing::info!(addresses = waiting.len(), "leaving; answering until a successor has announced");
        self.desired.send_modify(|desired| {
            let duties = Arc::make_mut(&mut desired.duties);
            duties.values_mut().for_each(|duty| duty.mode = Mode::Answer);
        });
        let deadline = Instant::now() + handover::LONGEST;
        while !waiting.is_empty() {
            tokio::select! {
                Some(Heard::Claim(Claim { ip, .. })) = self.heard.recv() => {
                    waiting.remove(&ip);
                    state.handover.heard(ip);
                }
                () = until(Some(deadline)) => break,
            }
        }
        self.desired.send_replace(Desired::default());
        tracing::info!(unheard = waiting.len(), "no longer answering");
    }
}

impl State {
    fn hear(&mut self, heard: Heard) {
        let Heard::Claim(Claim { ip, .. }) = heard;
        self.handover.heard(ip);
    }
}

/// What changed, for people.
fn log(before: &Intent, after: &Intent) {
    for (id, verdict) in &after.verdicts {
        let old = before.verdicts.get(id);
        if let Some(why_not) = &verdict.why_not
            && old.is_none_or(|old| old.why_not.as_ref() != Some(why_not))
        {
            match old.is_some_and(|old| old.mine) {
                true => tracing::info!(service = %id, reason = why_not.reason(), "withdrawing: {why_not}"),
                false => {
                    tracing::debug!(service = %id, reason = why_not.reason(), "not announcing: {why_not}")
                }
            }
        }
    }
    for (id, _) in before.verdicts.iter().filter(|(id, old)| old.mine && !after.verdicts.contains_key(*id)) {
        tracing::info!(service = %id, reason = "serviceDeleted", "withdrawing: the Service is gone");
    }
}
