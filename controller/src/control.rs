//! The one task that decides.
//!
//! A controller stands by until the Lease is its own. Then it lists everything anew, makes sure that nothing of an earlier
//! leader can still be written, adopts every address that is held, and only then gives any ([`term`]).

mod show;
mod tally;
mod term;

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use patina_controller_core::decide::Policy;
use patina_runtime::config_watch::{ConfigKeeper, ConfigWatch};
use patina_runtime::events::Events;
use patina_runtime::tasks::Shutdown;
use tokio::sync::{Notify, watch};

use self::term::{Over, Term};
use crate::config_state::Verdict;
use crate::leader::{Before, Candidate, Pace, Standing, Takeover};
use crate::metrics::Metrics;
use crate::pool_status::PoolStatuses;
use crate::surroundings_watch::SurroundingsWatch;

/// Writes under way get this long to end after SIGTERM; then the Lease is given back.
const DRAIN: Duration = Duration::from_secs(4);

/// What the controller works with.
pub(crate) struct Controller {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    pub(crate) policy: Policy,
    pub(crate) identity: String,
    pub(crate) pace: Pace,
    pub(crate) standing: Standing,
    pub(crate) config_watch: ConfigWatch,
    pub(crate) surroundings: SurroundingsWatch,
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
            self.pace,
        );
        while !self.shutdown.is_requested() {
            let Some(takeover) = self.stand_by(&mut candidate, &mut keeper).await else { return };
            if self.lead(takeover, &mut candidate, &mut keeper).await {
                candidate.release().await;
            }
        }
    }

    /// As long as the Lease is ours. True when nothing is under way any more that the next leader should know of.
    async fn lead(
        &self,
        mut takeover: Takeover,
        candidate: &mut Candidate,
        keeper: &mut ConfigKeeper,
    ) -> bool {
        let mut shutdown = self.shutdown.clone();
        loop {
            self.metrics.leading.set(1);
            let mut term = Term::new(self, keeper, &takeover);
            let over = tokio::select! {
                () = candidate.hold() => None,
                () = shutdown.requested() => None,
                over = term.work() => Some(over),
            };
            if self.shutdown.is_requested() {
                // Nothing new is decided; what is on its way may arrive.
                if tokio::time::timeout(DRAIN, term.drain()).await.is_err() {
                    tracing::warn!("status writes did not end within {DRAIN:?}; the Lease is left to expire");
                }
            }
            let finished = term.end();
            let Some(Over::LeaseWasDeleted) = over else { return finished };
            let why = "the Lease was deleted, and Services say that a controller worked here before: waiting until that \
                       one must have noticed";
            tracing::warn!("{why}");
            self.standing.waits_for(Some(why.to_owned()));
            tokio::select! {
                () = candidate.hold() => return true,
                () = shutdown.requested() => return true,
                () = tokio::time::sleep(self.pace.duration) => takeover.before = Before::Unfinished,
            }
        }
    }

    /// Waits for the Lease and reads the configuration meanwhile. `None` at SIGTERM.
    async fn stand_by(&mut self, candidate: &mut Candidate, keeper: &mut ConfigKeeper) -> Option<Takeover> {
        let acquire = candidate.acquire();
        tokio::pin!(acquire);
        loop {
            keeper.refresh(&self.config_watch);
            keeper.record(&self.metrics.config);
            tokio::select! {
                takeover = &mut acquire => return Some(takeover),
                () = self.bell.notified() => {}
                () = self.shutdown.requested() => return None,
            }
        }
    }
}
