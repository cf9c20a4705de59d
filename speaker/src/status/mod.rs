//! ServiceL2Status and ServiceBGPStatus: which Services this node announces, for people and for MetalLB's tools. The only writer.
//!
//! Level-triggered: what is wanted comes through a channel, what is written through a watch, and `plan` is the
//! difference. A request that fails is not remembered; the difference is still there at the next look.

mod kind;
mod plan;
mod row;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher::Config as Scope;
use kube::{Api, Client, ResourceExt as _};
use patina_runtime::tasks::{Shutdown, Tasks};
use patina_runtime::watch::Watched;
use patina_speaker_core::view::ServiceId;
use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

pub use kind::{Bgp, Kind, L2, ShownL2};
use plan::Action;
pub use plan::Wanted;
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
/// Between two looks for what others left behind. Each costs the API server a walk over all objects, however few it finds: a
/// thousand Services that come one after another must not cost a thousand of them.
const SWEEPS: Duration = Duration::from_secs(3);
/// Objects per answer of such a list: all of ten thousand would be many times what the rest of us needs.
const PAGE: u32 = 250;
/// An object that was made but does not show in the watch for this long is taken to be lost.
const UNSEEN: Duration = Duration::from_secs(20);

/// Writes the status objects of this node.
#[derive(Debug)]
pub struct StatusWriter<K: Kind> {
    api: Api<K::Object>,
    node: String,
    wanted: watch::Receiver<Wanted<K>>,
    written: Written<K>,
    bell: Arc<Notify>,
    /// Rings once, when what was written before is known, or cannot be.
    recalled: Option<Arc<Notify>>,
    /// Services whose objects of other nodes were removed since we announce them.
    swept: BTreeSet<ServiceId>,
    /// Not before this.
    next_sweep: Instant,
    /// Made by us, not yet seen in the watch.
    unseen: BTreeMap<ServiceId, Instant>,
    churn: Churn,
}

impl<K: Kind> StatusWriter<K> {
    /// Starts the task that makes the API server say what `wanted` says.
    pub fn start(
        client: &Client,
        namespace: &str,
        node: &str,
        wanted: watch::Receiver<Wanted<K>>,
        churn: Churn,
        recalled: Option<Arc<Notify>>,
        tasks: &mut Tasks,
    ) -> Written<K> {
        let api: Api<K::Object> = Api::namespaced(client.clone(), namespace);
        let bell = Arc::new(Notify::new());
        let scope = Scope::default().labels(&format!("{}={node}", plan::NODE));
        let mut words = Words::default();
        let row = move |object: K::Object| StatusRow::of(&object, &mut words);
        let written = Watched::start_as(api.clone(), scope, row, Arc::clone(&bell), tasks);
        let writer = Self {
            api,
            node: node.to_owned(),
            wanted,
            written: written.clone(),
            bell,
            recalled,
            swept: BTreeSet::new(),
            next_sweep: Instant::now(),
            unseen: BTreeMap::new(),
            churn,
        };
        tasks.spawn_finishing(K::NAME, writer.run(tasks.shutdown()));
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
                        self.unswept().then_some(self.next_sweep)
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot write {}, will retry", K::NAME);
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
                    let result = perform::<K>(api, node, &wanted, &action).await;
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
        self.swept.retain(|id| wanted.services.contains_key(id));
        if Instant::now() >= self.next_sweep {
            if let Err(error) = self.sweep(&wanted).await {
                first_error = first_error.or(Some(error));
            }
            self.next_sweep = Instant::now() + SWEEPS;
        }
        first_error.map_or(Ok(()), Err)
    }

    /// Whether there are Services that [`Self::sweep`] has not seen.
    fn unswept(&self) -> bool {
        self.wanted.borrow().services.keys().any(|id| !self.swept.contains(id))
    }

    /// Removes what other nodes left behind for the Services that we announce now.
    async fn sweep(&mut self, wanted: &Wanted<K>) -> Result<(), kube::Error> {
        if !K::ALONE {
            return Ok(());
        }
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
                        tracing::debug!(name, %error, "{} left behind", K::NAME);
                    }
                }
            })
            .buffer_unordered(PARALLEL)
            .collect::<()>();
        if timeout(FAREWELL, deletes).await.is_err() {
            tracing::info!("{} left behind: the API server does not answer; they go with the Pod", K::NAME);
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

async fn perform<K: Kind>(
    api: &Api<K::Object>,
    node: &str,
    wanted: &Wanted<K>,
    action: &Action,
) -> Result<Done, kube::Error> {
    match action {
        Action::Create(id) => {
            let Some(shown) = wanted.services.get(id) else { return Ok(Done::Other) };
            let object = plan::object::<K>(node, id, shown, wanted.owner.as_ref());
            let made = request(api.create(&PostParams::default(), &object)).await?;
            set_status::<K>(api, node, wanted, &made.name_any(), id).await?;
            return Ok(Done::Made);
        }
        Action::SetStatus(name, id) => set_status::<K>(api, node, wanted, name, id).await?,
        Action::SetMeta(name, id) => set_meta::<K>(api, wanted, name, id).await?,
        Action::Delete(name) => delete(api, name).await?,
    }
    Ok(Done::Other)
}

async fn set_status<K: Kind>(
    api: &Api<K::Object>,
    node: &str,
    wanted: &Wanted<K>,
    name: &str,
    id: &ServiceId,
) -> Result<(), kube::Error> {
    let Some(shown) = wanted.services.get(id) else { return Ok(()) };
    let status = plan::status::<K>(node, id, shown);
    let patch = Patch::Merge(json!({ "status": status }));
    request(api.patch_status(name, &PatchParams::default(), &patch)).await.map(drop)
}

async fn set_meta<K: Kind>(
    api: &Api<K::Object>,
    wanted: &Wanted<K>,
    name: &str,
    id: &ServiceId,
) -> Result<(), kube::Error> {
    let Some(shown) = wanted.services.get(id) else { return Ok(()) };
    // An annotation that is null is removed by a merge patch.
    let told: BTreeMap<_, _> = K::annotations(shown).into_iter().collect();
    let mut metadata = json!({ "annotations": told });
    if let Some(owner) = &wanted.owner {
        metadata["ownerReferences"] = json!([plan::owner_reference(owner)]);
    }
    let patch = Patch::Merge(json!({ "metadata": metadata }));
    request(api.patch_metadata(name, &PatchParams::default(), &patch)).await.map(drop)
}

/// The Services that the objects of this node are about.
#[must_use]
pub fn services<K: Kind>(written: &Written<K>) -> BTreeSet<ServiceId> {
    written.read(|rows| rows.iter().filter_map(|row| row.service().cloned()).collect())
}

/// Gone already is as good as deleted.
async fn delete<O>(api: &Api<O>, name: &str) -> Result<(), kube::Error>
where
    O: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
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
