//! The decision task: snapshot -> intent -> ownership -> what is to be done on the wire; and what people see of it.
//!
//! ```text
//!  API server ──(rests)──┐
//!  membership ───────────┼──> look ──> intent ──> ownership ──> duties ──> layer2 driver
//!  links ────────────────┘                          ^  │
//!  layer2 driver ── what it heard ──────────────────┘  └──> show: status, events, metrics, conflicts
//!
//!  the same snapshot ──> routes ──> tables of the peers ──> bgp driver; BFD sessions ──> bfd driver
//! ```
//!
//! It decides nothing itself. Nothing is announced before everything has been seen once (all watches listed, a
//! configuration loaded, the membership's first round through); after that, what is known stays in force while the API
//! server is away or the configuration is bad.
//!
//! On a thread of its own. A change that only the API server tells waits for the rest after the last one; what the
//! membership, a link or the wire tells does not.

mod export;
mod leave;
mod members;
mod show;
mod state;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use patina_runtime::config_state::Report;
use patina_runtime::config_watch::{Change, ConfigWatch};
use patina_runtime::events::Events;
use patina_runtime::metrics::ConfigMetrics;
use patina_runtime::tasks::Shutdown;
use patina_speaker_core::intent::intent_with;
use patina_speaker_core::l2::ownership::{self, Ownership};
use patina_speaker_core::view::{InterfaceView, Snapshot};
use tokio::sync::{Notify, mpsc, watch};

use crate::bfd;
use crate::bgp;
use crate::conflicts;
use crate::deadline::until;
use crate::fence::Fence;
use crate::interfaces::Interfaces;
use crate::l2::{Desired, Heard};
use crate::membership::Members;
use crate::metrics::Announced;
use crate::moves_metrics::MoveMetrics;
use crate::routes::Gateways;
use crate::settings::Settings;
use crate::status::{Bgp, L2, Wanted, Written};
use crate::watch::{Cluster, replace};
use crate::{config_state, status};
use state::State;

/// After a decision that took t, the next one that only the API server asks for waits this many times t: whatever the
/// cluster does, deciding takes at most a fifth of a core, and changes that come together are decided together.
const REST: u32 = 4;
/// The longest such rest.
const LONGEST_REST: Duration = Duration::from_millis(500);
/// Of what was heard on the wire, so much is taken in before anything else gets its turn.
const BATCH: usize = 256;

/// Everything that the decision task reads and writes.
#[derive(Debug)]
pub struct Speaker {
    /// Flags.
    pub settings: Settings,
    /// Rings when the API server's objects changed.
    pub bell: Arc<Notify>,
    /// Rings when the node's interfaces or routes changed.
    pub links: Arc<Notify>,
    /// Services, endpoints, nodes, and, without a membership, members.
    pub cluster: Cluster,
    /// Pools and advertisements.
    pub config: ConfigWatch,
    /// This node's interfaces.
    pub interfaces: Interfaces,
    /// The routers it sends to.
    pub gateways: Gateways,
    /// The other speakers; `None`: the API server says who is there.
    pub members: Option<Members>,
    /// Whether they let us answer.
    pub fence: Fence,
    /// What the driver shall do.
    pub desired: watch::Sender<Desired>,
    /// What the driver heard.
    pub heard: mpsc::Receiver<Heard>,
    /// What the status objects shall say.
    pub wanted: watch::Sender<Wanted<L2>>,
    /// What they say.
    pub written: Written<L2>,
    /// With whom to speak BGP, and what they should have.
    pub bgp: watch::Sender<bgp::Desired>,
    /// The BFD sessions that there should be.
    pub bfd: watch::Sender<bfd::Desired>,
    /// What the status objects of BGP shall say.
    pub wanted_bgp: watch::Sender<Wanted<Bgp>>,
    /// What the AddressConflicts shall say.
    pub conflicts: watch::Sender<conflicts::Wanted>,
    /// What our ConfigurationState shall say.
    pub config_state: watch::Sender<Option<Report>>,
    /// Where events go.
    pub events: Events,
    /// Gauges of the configuration.
    pub config_metrics: ConfigMetrics,
    /// Gauge of the announced Services.
    pub announced: Announced,
    /// What changes hands.
    pub metrics: MoveMetrics,
}

/// What woke the task.
enum Rung {
    Api,
    Links,
    Members,
    Heard(Heard),
    Deadline,
}

impl Speaker {
    /// Decides whenever something changed, until the shutdown; then hands over.
    pub async fn run(mut self, mut shutdown: Shutdown) {
        let mut state = State::new(&self.settings, self.interfaces.list());
        self.say(&state);
        self.follow(&mut state);
        loop {
            let rung = tokio::select! {
                () = shutdown.requested() => break,
                rung = self.rung(&state) => rung,
            };
            match rung {
                Rung::Api => {
                    state.rest = None;
                    let began = Instant::now();
                    if self.read(&mut state) && self.decide(&mut state) {
                        state.rest = Some(Instant::now() + (began.elapsed() * REST).min(LONGEST_REST));
                    }
                }
                Rung::Members => {
                    if self.follow(&mut state) || !state.decided {
                        self.decide(&mut state);
                    }
                }
                Rung::Links => {
                    if replace(&mut state.interfaces, self.interfaces.list()) {
                        self.say(&state);
                        self.decide(&mut state);
                    }
                    self.report(&state);
                }
                Rung::Heard(heard) => self.hear(&mut state, heard),
                Rung::Deadline => {}
            }
            self.act(&mut state);
        }
        self.leave(state).await;
    }

    /// Waits for the next. Nothing is lost when the wait is given up.
    async fn rung(&mut self, state: &State) -> Rung {
        let resting = state.rest.is_some_and(|until| until > Instant::now());
        tokio::select! {
            () = members::changed(&mut self.members) => Rung::Members,
            Some(heard) = self.heard.recv() => Rung::Heard(heard),
            () = self.links.notified() => Rung::Links,
            () = self.fence.opened() => Rung::Deadline,
            () = self.bell.notified(), if !resting => Rung::Api,
            () = until(state.rest), if resting => Rung::Deadline,
            () = until(state.deadline()) => Rung::Deadline,
        }
    }

    fn hear(&mut self, state: &mut State, first: Heard) {
        let now = Instant::now();
        let mut next = Some(first);
        for _ in 0..BATCH {
            let Some(heard) = next.take().or_else(|| self.heard.try_recv().ok()) else { return };
            state.hear(now, heard);
        }
    }

    /// Reads what the API server says. True when a decision could come out differently.
    fn read(&mut self, state: &mut State) -> bool {
        let mut changed = self.cluster.refresh();
        let configuration = state.keeper.refresh(&self.config);
        if configuration == Change::Refused {
            self.config_metrics.update_errors.inc();
        }
        changed |= configuration != Change::Same;
        state.keeper.record(&self.config_metrics);
        changed |= self.members.is_none() && self.follow(state);
        self.report(state);
        state.stale = true; // our Pod may have become known
        changed || !state.decided
    }

    fn report(&self, state: &State) {
        let gateways = self.gateways.list();
        let report = config_state::report(&state.keeper, &self.config, &state.interfaces, &gateways);
        self.config_state.send_if_modified(|shown| shown.replace(report) != *shown);
    }

    /// Whether everything has been seen once. What was written before is good to know, but no reason to stay silent.
    fn complete(&self) -> bool {
        let recalled = self.written.synced() || self.written.last_error().is_some();
        let joined = self.members.as_ref().is_none_or(|members| members.state.borrow().joined);
        self.cluster.synced() && self.config.synced() && recalled && joined
    }

    /// Decides, and has it done before anything is said about it. False: nothing may be decided yet.
    fn decide(&mut self, state: &mut State) -> bool {
        let Some(config) = state.keeper.config().cloned().filter(|_| self.complete()) else { return false };
        let began = Instant::now();
        let first = !std::mem::replace(&mut state.decided, true);
        if first {
            // We are a candidate from now on: for ourselves, and for the others.
            self.say(state);
            self.follow(state);
            state.known = status::services(&self.written);
        }
        let views = self.cluster.views();
        let snapshot = Snapshot {
            node: &self.settings.node_name,
            config: &config,
            services: &views.services,
            nodes: &views.nodes,
            members: &state.members,
            interfaces: &state.interfaces,
            options: &state.options,
        };
        let intent = intent_with(&mut state.cache, &snapshot);
        self.config_metrics.updates.inc();
        if !first && intent == state.intent {
            state.deaths.clear();
            state.stale |= self.export(&mut state.exported, &snapshot);
            return true;
        }
        // It was made anew, whatever is different; the one before goes.
        self.cluster.churn().add(intent.verdicts.len());
        let decided = Instant::now();
        state.ownership.handle(decided, ownership::Input::Decided(Arc::clone(&intent.l2)));
        send(&self.desired, &mut state.ownership, &state.interfaces, state.opening);
        let sent = Instant::now();

        let nobody = BTreeMap::new();
        let down = self.members.as_ref().map(|members| Arc::clone(&members.state.borrow().down));
        let replaced =
            state.moves.decided(&snapshot, down.as_deref().unwrap_or(&nobody), &state.intent, &intent);
        // Routers can wait until the local network is served.
        self.export(&mut state.exported, &snapshot);
        for (node, last_sign) in std::mem::take(&mut state.deaths) {
            if replaced.contains(&*node) {
                let after = sent.duration_since(last_sign);
                self.metrics.replaced(after);
                tracing::info!(node, after_ms = after.as_millis(), "its addresses are announced from here");
            }
        }
        show::log(&state.intent, &intent);
        self.complain(&intent);
        state.intent = intent;
        state.sightings.decided(sent, &state.intent);
        state.stale = true;
        tracing::debug!(
            decide_us = decided.duration_since(began).as_micros(),
            send_us = sent.duration_since(decided).as_micros(),
            tell_us = sent.elapsed().as_micros(),
            addresses = state.intent.l2.len(),
            "decided"
        );
        true
    }

    /// Lets the machines' deadlines pass, has done what they want, and tells it to people when that is due.
    fn act(&mut self, state: &mut State) {
        let now = Instant::now();
        let opening = self.fence.openings();
        if std::mem::replace(&mut state.opening, opening) != opening {
            // Also when nobody saw that it was closed: it may have been for a moment only.
            state.ownership.handle(now, ownership::Input::Woken);
        }
        if state.ownership.poll_timeout().is_some_and(|at| at <= now) {
            state.ownership.handle_timeout(now);
        }
        state.sightings.expire(now);
        send(&self.desired, &mut state.ownership, &state.interfaces, state.opening);
        self.show(state, now);
    }
}

/// Tells the driver, if there is something new.
fn send(
    desired: &watch::Sender<Desired>,
    ownership: &mut Ownership,
    interfaces: &Vec<InterfaceView>,
    opening: u64,
) {
    let duties = ownership.duties();
    let known = desired.borrow().clone();
    let same = *known.interfaces == *interfaces;
    if !(same && Arc::ptr_eq(&known.duties, &duties) && known.opening == opening) {
        let interfaces = if same { known.interfaces } else { Arc::new(interfaces.clone()) };
        desired.send_replace(Desired { interfaces, duties, opening });
    }
}
