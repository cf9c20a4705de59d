//! Watches what tells of the network's own addresses: nodes, ServiceCIDRs, and what the speakers say of their nodes'
//! networks and of foreign hosts. A task of its own, so that the reports of a thousand kubelets wake nobody who decides: only another answer does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, NodeSpec, NodeStatus};
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt};
use patina_controller::conflicts::conflicts;
use patina_controller::surroundings::{networks, surroundings};
use patina_controller_core::surroundings::Surroundings;
use patina_crds::keys;
use patina_crds::networks::Networks;
use patina_crds::types::{AddressConflict, ConfigurationState};
use patina_runtime::tasks::Tasks;
use patina_runtime::watch::{Watchable, Watched};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// After a look, the next one waits so long: changes that come together are looked at together.
const REST: Duration = Duration::from_millis(500);
/// What the API server forbids for so long is done without: a role may be on its way.
const PATIENCE: Duration = Duration::from_secs(5);

/// The network's own addresses as they are known now. Clones share everything.
#[derive(Clone, Debug)]
pub(crate) struct SurroundingsWatch {
    found: watch::Receiver<Option<Arc<Surroundings>>>,
    sources: Sources,
}

#[derive(Clone, Debug)]
struct Sources {
    nodes: Watched<Node>,
    service_cidrs: Watched<ServiceCIDR>,
    states: Watched<ConfigurationState>,
    conflicts: Watched<AddressConflict>,
}

impl SurroundingsWatch {
    /// Starts the watches.
    pub(crate) fn start(client: &Client, namespace: &str, tasks: &mut Tasks) -> Self {
        let bell = Arc::new(Notify::new());
        let speakers = watcher::Config::default().labels(&format!("{}=speaker", keys::COMPONENT_TYPE));
        let states = Api::namespaced(client.clone(), namespace);
        let conflicts = Api::namespaced(client.clone(), namespace);
        let (nodes, cidrs) = (Api::all(client.clone()), Api::all(client.clone()));
        let sources = Sources {
            nodes: Watched::start(nodes, watcher::Config::default(), prune_node, Arc::clone(&bell), tasks),
            service_cidrs: Watched::start(
                cidrs,
                watcher::Config::default(),
                |cidr: &mut ServiceCIDR| cidr.status = None,
                Arc::clone(&bell),
                tasks,
            ),
            states: Watched::start(
                states,
                speakers,
                |state: &mut ConfigurationState| state.status = None,
                Arc::clone(&bell),
                tasks,
            ),
            conflicts: Watched::start(
                conflicts,
                watcher::Config::default(),
                |_: &mut AddressConflict| (),
                Arc::clone(&bell),
                tasks,
            ),
        };
        let (sender, found) = watch::channel(None);
        tasks.spawn("surroundings", look(sources.clone(), bell, sender));
        Self { found, sources }
    }

    /// `None` until every source was listed, or is known to be absent or forbidden: until then, nothing may be given.
    pub(crate) fn current(&mut self) -> Option<Arc<Surroundings>> {
        self.found.borrow_and_update().clone()
    }

    /// As [`SurroundingsWatch::current`], but [`SurroundingsWatch::changed`] will still say so.
    pub(crate) fn peek(&self) -> Option<Arc<Surroundings>> {
        self.found.borrow().clone()
    }

    /// Waits for another answer than the one that [`SurroundingsWatch::current`] gave.
    pub(crate) async fn changed(&mut self) {
        if self.found.changed().await.is_err() {
            // The sender lives as long as the process.
            std::future::pending().await
        }
    }

    /// For [`patina_runtime::http::Health`].
    ///
    /// # Errors
    /// What is waited for, and why.
    pub(crate) fn readiness(&self) -> Result<(), String> {
        if self.found.borrow().is_some() { Ok(()) } else { Err(self.sources.missing().join("; ")) }
    }
}

/// Looks whenever something changed, once everything is there that is to be had.
async fn look(sources: Sources, bell: Arc<Notify>, found: watch::Sender<Option<Arc<Surroundings>>>) {
    // What a node's speaker said last: it holds while the speaker is being replaced and its object is gone.
    let mut known: BTreeMap<String, Networks> = BTreeMap::new();
    let mut forbidden_since: Option<Instant> = None;
    let mut warned = false;
    loop {
        let patience = forbidden_since.filter(|_| !warned).map(|since| since + PATIENCE);
        tokio::select! {
            () = bell.notified() => {}
            () = at(patience) => {}
        }
        if found.borrow().is_none() {
            match sources.forbidden() {
                None => continue,
                Some(kinds) if kinds.is_empty() => {}
                Some(kinds) => {
                    let since = *forbidden_since.get_or_insert_with(Instant::now);
                    if since.elapsed() < PATIENCE {
                        continue;
                    }
                    warned = true;
                    tracing::warn!(
                        "may not list {}; the addresses that they tell of are given away like any other of a pool",
                        kinds.join(", ")
                    );
                }
            }
        }
        let now = Arc::new(sources.look(&mut known));
        found.send_if_modified(|before| {
            let changed = before.as_ref() != Some(&now);
            *before = Some(now);
            changed
        });
        tokio::time::sleep(REST).await;
    }
}

impl Sources {
    fn look(&self, known: &mut BTreeMap<String, Networks>) -> Surroundings {
        let (nodes, cidrs) = (self.nodes.state(), self.service_cidrs.state());
        known.extend(self.states.state().iter().filter_map(|state| networks(state)));
        let names: std::collections::BTreeSet<String> = nodes.iter().map(|node| node.name_any()).collect();
        known.retain(|node, _| names.contains(node));
        let mut found = surroundings(nodes.iter().map(Arc::as_ref), cidrs.iter().map(Arc::as_ref), known);
        found.uses.extend(conflicts(self.conflicts.state().iter().map(Arc::as_ref)));
        found
    }

    /// `None`: something is still on its way. Else the kinds that will not come.
    fn forbidden(&self) -> Option<Vec<String>> {
        let parts = self.parts();
        let settled = parts.iter().all(|part| part.missing.is_none() || part.forbidden);
        settled
            .then(|| parts.into_iter().filter(|part| part.missing.is_some()).map(|part| part.kind).collect())
    }

    fn missing(&self) -> Vec<String> {
        let text = |part: Part| Some(format!("{}: {}", part.kind, part.missing?));
        self.parts().into_iter().filter_map(text).collect()
    }

    fn parts(&self) -> [Part; 4] {
        let (nodes, cidrs) = (Part::of(&self.nodes), Part::of(&self.service_cidrs));
        [nodes, cidrs, Part::of(&self.states), Part::of(&self.conflicts)]
    }
}

struct Part {
    kind: String,
    /// Why it is not there.
    missing: Option<String>,
    forbidden: bool,
}

impl Part {
    fn of<K: Watchable>(watched: &Watched<K>) -> Self {
        Self {
            kind: K::kind(&()).into_owned(),
            missing: watched.readiness().err(),
            forbidden: watched.refused(),
        }
    }
}

/// Keeps of a node what [`surroundings`] reads.
fn prune_node(node: &mut Node) {
    node.metadata.annotations = None;
    node.metadata.labels = None;
    node.metadata.owner_references = None;
    node.spec = node.spec.take().map(|spec| NodeSpec {
        pod_cidr: spec.pod_cidr,
        pod_cidrs: spec.pod_cidrs,
        ..NodeSpec::default()
    });
    node.status =
        node.status.take().map(|status| NodeStatus { addresses: status.addresses, ..NodeStatus::default() });
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
