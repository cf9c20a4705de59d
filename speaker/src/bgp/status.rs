//! What people see of the sessions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use patina_speaker_core::bgp::peer::{Established, Event, Snapshot, State};
use tokio::sync::watch;

use super::metrics::PeerMetrics;

/// By the name of the peer.
pub type Statuses = BTreeMap<Arc<str>, PeerStatus>;

/// One session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerStatus {
    /// Of the machine.
    pub state: State,
    /// It is in the state that people care for, established or not, since then.
    pub since: Option<SystemTime>,
    /// Why it ended or did not come up.
    pub last_error: Option<String>,
    /// While it is established.
    pub session: Option<Arc<Established>>,
    /// Counts of routes.
    pub routes: Snapshot,
}

/// The writer of one entry.
#[derive(Debug)]
pub(super) struct Publisher {
    name: Arc<str>,
    statuses: watch::Sender<Statuses>,
    last: Snapshot,
}

impl Publisher {
    pub(super) fn new(name: &str, statuses: watch::Sender<Statuses>) -> Self {
        Self { name: Arc::from(name), statuses, last: Snapshot::default() }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn tell(&self, event: &Event) {
        let now = Some(SystemTime::now());
        match event {
            Event::State(state) => self.change(|status| status.state = *state),
            Event::Up(session) => self.change(|status| {
                status.since = now;
                status.session = Some(Arc::new((**session).clone()));
                status.last_error = None;
            }),
            Event::Down(why) => self.change(|status| {
                if status.session.take().is_some() || status.since.is_none() {
                    status.since = now;
                }
                status.last_error = Some(why.to_string());
            }),
            Event::Unsendable(what) => self.change(|status| status.last_error = Some(what.clone())),
            Event::Counted(..) | Event::Tolerated(_) | Event::InitialDone(_) | Event::NoNextHop(_) => {}
        }
    }

    pub(super) fn snapshot(&mut self, metrics: &PeerMetrics, snapshot: Snapshot) {
        if snapshot != self.last {
            metrics.routes(&snapshot);
            self.change(|status| status.routes.clone_from(&snapshot));
            self.last = snapshot;
        }
    }

    pub(super) fn forget(&self) {
        self.statuses.send_if_modified(|all| all.remove(&self.name).is_some());
    }

    fn change(&self, change: impl FnOnce(&mut PeerStatus)) {
        self.statuses.send_modify(|all| change(all.entry(Arc::clone(&self.name)).or_default()));
    }
}
