//! AddressConflict: what a foreign host took, for the controller and for people. One object per node and address, and this
//! task is the only writer of its node's.
//!
//! Level-triggered, as `status` is: what is seen comes through a channel, what is written through a watch, and `plan` is the
//! difference. Which conflicts there are is `sightings`' business.

mod plan;
mod sightings;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::runtime::watcher::Config as Scope;
use kube::{Api, Client};
use patina_crds::types::AddressConflict;
use patina_runtime::tasks::{Shutdown, Tasks};
use patina_runtime::watch::Watched;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

use plan::Action;
pub use plan::Wanted;
pub use sightings::{Seen, Sightings};

/// Of server-side apply.
const MANAGER: &str = "patina-speaker";
/// Requests that are under way at the same time.
const PARALLEL: usize = 4;
/// For one request.
const REQUEST: Duration = Duration::from_secs(10);
/// First and longest pause after a failure.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// What our predecessor on this node wrote stays for so long: we shall have looked ourselves by then.
const INHERITED: Duration = Duration::from_secs(60);

/// Writes the conflicts that this node sees.
#[derive(Debug)]
pub struct ConflictWriter {
    api: Api<AddressConflict>,
    node: String,
    wanted: watch::Receiver<Wanted>,
    written: Watched<AddressConflict>,
    bell: Arc<Notify>,
    began: Instant,
}

impl ConflictWriter {
    /// Starts the task that makes the API server say what `wanted` says.
    pub fn start(
        client: &Client,
        namespace: &str,
        node: &str,
        wanted: watch::Receiver<Wanted>,
        tasks: &mut Tasks,
    ) {
        let api: Api<AddressConflict> = Api::namespaced(client.clone(), namespace);
        let bell = Arc::new(Notify::new());
        let scope = Scope::default().labels(&format!("{}={node}", plan::NODE));
        let written = Watched::start(api.clone(), scope, |_| (), Arc::clone(&bell), tasks);
        let writer = Self { api, node: node.to_owned(), wanted, written, bell, began: Instant::now() };
        tasks.spawn("conflicts", writer.run(tasks.shutdown()));
    }

    /// Nothing is cleared away at the end: the objects go with our Pod, and the conflict does not end with us.
    async fn run(mut self, mut shutdown: Shutdown) {
        let mut pause = PAUSES.0;
        let mut retry = Some(self.began + INHERITED);
        loop {
            let again = async {
                match retry {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.requested() => return std::future::pending().await,
                changed = self.wanted.changed() => if changed.is_err() { return std::future::pending().await },
                () = self.bell.notified() => {}
                () = again => {}
            }
            if !self.written.synced() || self.written.absent() {
                continue;
            }
            let inherited = self.began + INHERITED;
            retry = match self.reconcile().await {
                Ok(()) => {
                    pause = PAUSES.0;
                    Some(inherited).filter(|at| *at > Instant::now())
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot write AddressConflict, will retry");
                    let at = Instant::now() + pause;
                    pause = (pause * 2).min(PAUSES.1);
                    Some(at)
                }
            };
        }
    }

    /// One look: everything that is missing is asked for once. The first error, when all have been tried.
    async fn reconcile(&mut self) -> Result<(), kube::Error> {
        let wanted = self.wanted.borrow_and_update().clone();
        let written = self.written.state();
        let inherits = self.began.elapsed() < INHERITED;
        let actions = plan::plan(&wanted, &self.node, inherits, written.iter().map(Arc::as_ref));
        let api = &self.api;
        let results = futures::stream::iter(actions).map(|action| perform(api, action));
        let results: Vec<_> = results.buffer_unordered(PARALLEL).collect().await;
        results.into_iter().collect()
    }
}

async fn perform(api: &Api<AddressConflict>, action: Action) -> Result<(), kube::Error> {
    let done = async {
        match action {
            Action::Apply(object) => {
                let name = object.metadata.name.clone().unwrap_or_default();
                let by = PatchParams::apply(MANAGER).force();
                api.patch(&name, &by, &Patch::Apply(&*object)).await.map(drop)
            }
            Action::Delete(name) => match api.delete(&name, &DeleteParams::default()).await {
                // Gone already is as good as deleted.
                Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
                other => other.map(drop),
            },
        }
    };
    match timeout(REQUEST, done).await {
        Ok(result) => result,
        Err(elapsed) => Err(kube::Error::Service(Box::new(elapsed))),
    }
}
