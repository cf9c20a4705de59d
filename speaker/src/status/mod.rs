//! ServiceL2Status: which Services this node announces, for people and for MetalLB's tools. The only writer.
//!
//! Level-triggered: what is wanted comes through a channel, what is written through a watch, and `plan` is the
//! difference. A request that fails is not remembered; the difference is still there at the next look.

mod plan;
mod row;

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
pub use plan::{Shown, Wanted};
pub use row::{StatusRow, Written};

use crate::memory::Churn;
use crate::watch::words::Words;

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
/// Objects per answer of such a list: all of ten thousand would be many times what the rest of us needs.
const PAGE: u32 = 250;
/// An object that was made but does not show in the watch for this long is taken to be lost.
const UNSEEN: Duration = Duration::from_secs(20);

/// Writes the status objects of this node.
#[derive(Debug)]
pub struct StatusWriter {
    api: Api<ServiceL2Status>,
    node: String,
    wanted: watch::Receiver<Wanted>,
    written: Written,
    bell: Arc<Notify>,
    /// Rings once, when what was written before is known, or cannot be.
    recalled: Option<Arc<Notify>>,
    /// Services whose objects of other nodes were removed since we announce them.
    swept: BTreeSet<ServiceId>,
    /// Made by us, not yet seen in the watch.
    unseen: BTreeMap<ServiceId, Instant>,
    churn: Churn,
}

impl StatusWriter {
    /// Starts the task that makes the API server say what `wanted` says.
    pub fn start(
        client: &Client,
        namespace: &str,
        node: &str,
        wanted: watch::Receiver<Wanted>,
        churn: Churn,
        recalled: Arc<Notify>,
        tasks: &mut Tasks,
    ) -> Written {
        let api: Api<ServiceL2Status> = Api::namespaced(client.clone(), namespace);
        let bell = Arc::new(Notify::new());
        let scope = Scope::default().labels(&format!("{}={node}", plan::NODE));
        let mut words = Words::default();
        let row = move |object: ServiceL2Status| StatusRow::of(&object, &mut words);
        let written = Watched::start_as(api.clone(), scope, row, Arc::clone(&bell), tasks);
        let writer = Self {
            api,
            node: node.to_owned(),
            wanted,
            written: written.clone(),
            bell,
            recalled: Some(recalled),
            swept: BTreeSet::new(),
            unseen: BTreeMap::new(),
            churn,
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
            if self.written.synced() || self.written.last_error().is_some() {
                // Whoever waits for it to decide may hear of nothing else.
                self.recalled.take().inspect(|waiting| waiting.notify_one());
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
        let now = Instant::now();
        self.unseen.retain(|_, since| now.duration_since(*since) < UNSEEN);
        let mut actions = self.written.read(|written| {
            for id in written.iter().filter_map(StatusRow::service) {
                self.unseen.remove(id);
            }
            plan::plan(&wanted, written)
        });
        actions.retain(|action| !matches!(action, Action::Create(id) if self.unseen.contains_key(id)));

        let mut first_error = None;
        let mut results = futures::stream::iter(actions)
            .map(|action| {
                // As it is wanted when its turn comes: a takeover of thousands takes a while, and may be over before.
                let wanted = self.wanted.borrow().clone();
                let (api, node) = (&self.api, &self.node);
                async move {
                    let result = perform(api, node, &wanted, &action).await;
                    (action, result)
                }
            })
            .buffer_unordered(PARALLEL);
        let mut made = Vec::new();
        while let Some((action, result)) = results.next().await {
            // Requests, their answers, and what the watch tells of them.
            self.churn.add(1);
            match (action, result) {
                (Action::Create(id), Ok(Done::Made)) => made.push(id),
                (_, Ok(_)) => {}
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
            let mut page = ListParams::default().labels(&selector).limit(PAGE);
            loop {
                let found = request(self.api.list_metadata(&page)).await?;
                let next = found.metadata.continue_.filter(|token| !token.is_empty());
                for object in found.items {
                    if plan::service_of(&object).is_some_and(|id| fresh.contains(&id)) {
                        delete(&self.api, &object.name_any()).await?;
                    }
                }
                let Some(token) = next else { break };
                page = page.continue_token(&token);
            }
        }
        self.swept.extend(fresh);
        Ok(())
    }

    /// Our objects go when we go, if the API server answers in time; otherwise with our Pod.
    async fn farewell(self) {
        let names =
            self.written.read(|rows| rows.iter().map(|row| row.name().to_owned()).collect::<Vec<_>>());
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

/// What became of an action.
enum Done {
    /// There is a new object.
    Made,
    /// Anything else.
    Other,
}

async fn perform(
    api: &Api<ServiceL2Status>,
    node: &str,
    wanted: &Wanted,
    action: &Action,
) -> Result<Done, kube::Error> {
    match action {
        Action::Create(id) => {
            let Some(shown) = wanted.services.get(id) else { return Ok(Done::Other) };
            let object = plan::object(node, id, shown, wanted.owner.as_ref());
            let made = request(api.create(&PostParams::default(), &object)).await?;
            set_status(api, node, wanted, &made.name_any(), id).await?;
            return Ok(Done::Made);
        }
        Action::SetStatus(name, id) => set_status(api, node, wanted, name, id).await?,
        Action::SetMeta(name, id) => set_meta(api, wanted, name, id).await?,
        Action::Delete(name) => delete(api, name).await?,
    }
    Ok(Done::Other)
}

async fn set_status(
    api: &Api<ServiceL2Status>,
    node: &str,
    wanted: &Wanted,
    name: &str,
    id: &ServiceId,
) -> Result<(), kube::Error> {
    let Some(Shown { interfaces, .. }) = wanted.services.get(id) else { return Ok(()) };
    let mut status = serde_json::to_value(plan::status(node, id, interfaces)).unwrap_or_default();
    // Written even when empty: a merge patch keeps what it does not mention.
    status["interfaces"] = json!(interfaces.iter().map(|name| json!({ "name": name })).collect::<Vec<_>>());
    let patch = Patch::Merge(json!({ "status": status }));
    request(api.patch_status(name, &PatchParams::default(), &patch)).await.map(drop)
}

async fn set_meta(
    api: &Api<ServiceL2Status>,
    wanted: &Wanted,
    name: &str,
    id: &ServiceId,
) -> Result<(), kube::Error> {
    let Some(shown) = wanted.services.get(id) else { return Ok(()) };
    // An annotation that is null is removed by a merge patch.
    let told: BTreeMap<_, _> = plan::annotations(shown).into();
    let mut metadata = json!({ "annotations": told });
    if let Some(owner) = &wanted.owner {
        metadata["ownerReferences"] = json!([plan::owner_reference(owner)]);
    }
    let patch = Patch::Merge(json!({ "metadata": metadata }));
    request(api.patch_metadata(name, &PatchParams::default(), &patch)).await.map(drop)
}

/// The Services that the objects of this node are about.
#[must_use]
pub fn services(written: &Written) -> BTreeSet<ServiceId> {
    written.read(|rows| rows.iter().filter_map(|row| row.service().cloned()).collect())
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
