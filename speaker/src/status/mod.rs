//! ServiceL2Status: which Services this node announces, for people and for MetalLB's tools. The only writer.
//!
//! Level-triggered: what is wanted comes through a channel, what is written through a watch, and `plan` is the
//! difference. A request that fails is not remembered; the difference is still there at the next look.

mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher::Config as Scope;
use kube::{Api, Client, ResourceExt as _};
use patina_crds::types::ServiceL2Status;
use patina_runtime::tasks::{Shutdown, Tasks};
use patina_runtime::watch::Watched;
use patina_speaker_core::view::ServiceId;
use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

use plan::Action;
pub use plan::Wanted;

/// Requests that are under way at the same time.
const PARALLEL: usize = 4;
/// For one request. The API server answers within milliseconds or is in trouble.
const REQUEST: Duration = Duration::from_secs(10);
/// How long the deletes at the end of the process may take.
const FAREWELL: Duration = Duration::from_millis(700);
/// First and longest pause after a failure.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Up to this many Services are looked up one by one when they are taken over; beyond, one list of all is cheaper.
const FEW: usize = 16;
/// An object that was made but does not show in the watch for this long is taken to be lost.
const UNSEEN: Duration = Duration::from_secs(20);

/// Writes the status objects of this node.
#[derive(Debug)]
pub struct StatusWriter {
    api: Api<ServiceL2Status>,
    node: String,
    wanted: watch::Receiver<Wanted>,
    written: Watched<ServiceL2Status>,
    bell: Arc<Notify>,
    /// Services whose objects of other nodes were removed since we announce them.
    swept: BTreeSet<ServiceId>,
    /// Made by us, not yet seen in the watch.
    unseen: BTreeMap<ServiceId, Instant>,
}

impl StatusWriter {
    /// Starts the task that makes the API server say what `wanted` says.
    pub fn start(
        client: &Client,
        namespace: &str,
        node: &str,
        wanted: watch::Receiver<Wanted>,
        tasks: &mut Tasks,
    ) -> Watched<ServiceL2Status> {
        let api: Api<ServiceL2Status> = Api::namespaced(client.clone(), namespace);
        let bell = Arc::new(Notify::new());
        let scope = Scope::default().labels(&format!("{}={node}", plan::NODE));
        let written = Watched::start(api.clone(), scope, |_| (), Arc::clone(&bell), tasks);
        let writer = Self {
            api,
            node: node.to_owned(),
            wanted,
            written: written.clone(),
            bell,
            swept: BTreeSet::new(),
            unseen: BTreeMap::new(),
        };
        tasks.spawn_finishing("status", writer.run(tasks.shutdown()));
        written
    }

    async fn run(mut self, mut shutdown: Shutdown) {
        let mut pause = PAUSES.0;
        let mut retry: Option<Instant> = None;
        loop {
            let again = async {
                match retry {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.requested() => return self.farewell().await,
                changed = self.wanted.changed() => if changed.is_err() { return self.farewell().await },
                () = self.bell.notified() => {}
                () = again => {}
            }
            if !self.written.synced() || self.written.absent() {
                continue;
            }
            retry = tokio::select! {
                () = shutdown.requested() => return self.farewell().await,
                done = self.reconcile() => match done {
                    Ok(()) => {
                        pause = PAUSES.0;
                        None
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot write ServiceL2Status, will retry");
                        let at = Instant::now() + pause;
                        pause = (pause * 2).min(PAUSES.1);
                        Some(at)
                    }
                },
            };
        }
    }

    /// One look: everything that is missing is asked for once. The first error, when all have been tried.
    async fn reconcile(&mut self) -> Result<(), kube::Error> {
        let wanted = self.wanted.borrow_and_update().clone();
        let written = self.written.state();
        let now = Instant::now();
        self.unseen.retain(|_, since| now.duration_since(*since) < UNSEEN);
        for object in &written {
            if let Some(id) = plan::service_of(object.as_ref()) {
                self.unseen.remove(&id);
            }
        }
        let actions: Vec<Action> = plan::plan(&wanted, &self.node, written.iter().map(Arc::as_ref))
            .into_iter()
            .filter(|action| !matches!(action, Action::Create(id) if self.unseen.contains_key(id)))
            .collect();

        let mut first_error = None;
        let mut results = futures::stream::iter(actions)
            .map(|action| {
                let request = perform(&self.api, &self.node, &wanted, action.clone());
                async move { (action, request.await) }
            })
            .buffer_unordered(PARALLEL);
        let mut made = Vec::new();
        while let Some((action, result)) = results.next().await {
            match (action, result) {
                (Action::Create(id), Ok(())) => made.push(id),
                (_, Ok(())) => {}
                (_, Err(error)) => first_error = first_error.or(Some(error)),
            }
        }
        drop(results);
        self.unseen.extend(made.into_iter().map(|id| (id, now)));
        if let Err(error) = self.sweep(&wanted).await {
            first_error = first_error.or(Some(error));
        }
        first_error.map_or(Ok(()), Err)
    }

    /// Removes what other nodes left behind for the Services that we announce now.
    async fn sweep(&mut self, wanted: &Wanted) -> Result<(), kube::Error> {
        self.swept.retain(|id| wanted.services.contains_key(id));
        let fresh: Vec<ServiceId> =
            wanted.services.keys().filter(|id| !self.swept.contains(*id)).cloned().collect();
        let foreign = format!("{}!={}", plan::NODE, self.node);
        let selectors = match fresh.len() {
            0 => return Ok(()),
            1..=FEW => fresh
                .iter()
                .map(|id| {
                    let (name, namespace) = (plan::SERVICE_NAME, plan::SERVICE_NAMESPACE);
                    format!("{foreign},{name}={},{namespace}={}", id.name, id.namespace)
                })
                .collect(),
            _ => vec![foreign],
        };
        let fresh: BTreeSet<ServiceId> = fresh.into_iter().collect();
        for selector in selectors {
            let found = request(self.api.list_metadata(&ListParams::default().labels(&selector))).await?;
            for object in found {
                if plan::service_of(&object).is_some_and(|id| fresh.contains(&id)) {
                    delete(&self.api, &object.name_any()).await?;
                }
            }
        }
        self.swept.extend(fresh);
        Ok(())
    }

    /// Our objects go when we go, if the API server answers in time; otherwise with our Pod.
    async fn farewell(self) {
        let names: Vec<String> = self.written.state().iter().map(|object| object.name_any()).collect();
        let deletes = futures::stream::iter(names)
            .map(|name| {
                let api = self.api.clone();
                async move {
                    if let Err(error) = delete(&api, &name).await {
                        tracing::debug!(name, %error, "ServiceL2Status left behind");
                    }
                }
            })
            .buffer_unordered(PARALLEL)
            .collect::<()>();
        if timeout(FAREWELL, deletes).await.is_err() {
            tracing::info!(
                "ServiceL2Status left behind: the API server does not answer; they go with the Pod"
            );
        }
    }
}

async fn perform(
    api: &Api<ServiceL2Status>,
    node: &str,
    wanted: &Wanted,
    action: Action,
) -> Result<(), kube::Error> {
    match action {
        Action::Create(id) => {
            let object = plan::object(node, &id, wanted.owner.as_ref());
            let made = request(api.create(&PostParams::default(), &object)).await?;
            set_status(api, node, wanted, &made.name_any(), &id).await
        }
        Action::SetStatus(name, id) => set_status(api, node, wanted, &name, &id).await,
        Action::SetOwner(name) => {
            let owners: Vec<_> = wanted.owner.iter().map(plan::owner_reference).collect();
            let patch = json!({ "metadata": { "ownerReferences": owners } });
            request(api.patch_metadata(&name, &PatchParams::default(), &Patch::Merge(patch))).await.map(drop)
        }
        Action::Delete(name) => delete(api, &name).await,
    }
}

async fn set_status(
    api: &Api<ServiceL2Status>,
    node: &str,
    wanted: &Wanted,
    name: &str,
    id: &ServiceId,
) -> Result<(), kube::Error> {
    let Some(interfaces) = wanted.services.get(id) else { return Ok(()) };
    let mut status = serde_json::to_value(plan::status(node, id, interfaces)).unwrap_or_default();
    // Written even when empty: a merge patch keeps what it does not mention.
    status["interfaces"] = json!(interfaces.iter().map(|name| json!({ "name": name })).collect::<Vec<_>>());
    let patch = Patch::Merge(json!({ "status": status }));
    request(api.patch_status(name, &PatchParams::default(), &patch)).await.map(drop)
}

/// The Services that the objects of this node are about.
#[must_use]
pub fn services(written: &Watched<ServiceL2Status>) -> BTreeSet<ServiceId> {
    written.state().iter().filter_map(|object| plan::service_of(object.as_ref())).collect()
}

/// Gone already is as good as deleted.
async fn delete(api: &Api<ServiceL2Status>, name: &str) -> Result<(), kube::Error> {
    match request(api.delete(name, &DeleteParams::default())).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        other => other.map(drop),
    }
}

/// Bounded in time; without a bound a silent connection would hold up all others.
async fn request<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
    match timeout(REQUEST, request).await {
        Ok(result) => result,
        Err(elapsed) => Err(kube::Error::Service(Box::new(elapsed))),
    }
}
