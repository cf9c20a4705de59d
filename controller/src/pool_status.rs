//! `status` of the IPAddressPools: written only on change and at most once per second, by the leader.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use patina_crds::types::{IPAddressPool, IPAddressPoolStatus};
use patina_runtime::tasks::Tasks;
use serde_json::json;
use tokio::sync::watch;

use crate::leader::Standing;

const PACE: Duration = Duration::from_secs(1);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What each IPAddressPool (by name and uid) should show.
pub(crate) type PoolStatuses = BTreeMap<(String, String), IPAddressPoolStatus>;

/// Starts the task; send it what should be shown, or `None` when this controller does not lead.
pub(crate) fn start(
    client: Client,
    namespace: &str,
    standing: Standing,
    tasks: &mut Tasks,
) -> watch::Sender<Option<PoolStatuses>> {
    let (sender, receiver) = watch::channel(None);
    let api = Api::namespaced(client, namespace);
    tasks.spawn("pool status", write_all(api, standing, receiver));
    sender
}

async fn write_all(
    api: Api<IPAddressPool>,
    standing: Standing,
    mut wanted: watch::Receiver<Option<PoolStatuses>>,
) {
    let mut shown: Option<PoolStatuses> = None;
    let mut pause = PACE;
    let mut failed = false;
    loop {
        if !failed && wanted.changed().await.is_err() {
            // The sender lives as long as the process.
            return std::future::pending().await;
        }
        let target = wanted.borrow_and_update().clone();
        let Some(target) = target.filter(|_| standing.leads()) else {
            // Another leader may write: look again before writing the next time.
            (shown, failed) = (None, false);
            continue;
        };
        let result = timed(bring_about(&api, &mut shown, target)).await;
        failed = result.is_err();
        if let Err(error) = result {
            tracing::warn!("cannot write the status of an IPAddressPool, trying again: {error}");
            pause = (pause * 2).min(LONGEST_PAUSE);
        } else {
            pause = PACE;
        }
        tokio::time::sleep(pause).await;
    }
}

async fn bring_about(
    api: &Api<IPAddressPool>,
    shown: &mut Option<PoolStatuses>,
    target: PoolStatuses,
) -> Result<(), String> {
    let shown = match shown {
        Some(shown) => shown,
        None => shown.insert(read(api).await.map_err(|error| error.to_string())?),
    };
    for (key, status) in &target {
        if shown.get(key) == Some(status) {
            continue;
        }
        // The uid makes a pool that was deleted and created again a conflict instead of a wrong number.
        let body = Patch::Merge(json!({ "metadata": { "uid": key.1 }, "status": status }));
        match api.patch_status(&key.0, &PatchParams::default(), &body).await {
            Ok(_) => {
                shown.insert(key.clone(), status.clone());
            }
            // Gone or another by now: the next configuration says so.
            Err(kube::Error::Api(status)) if [404, 409, 422].contains(&status.code) => {
                tracing::debug!(pool = key.0, "not written: {}", status.message);
            }
            Err(error) => return Err(format!("{}: {error}", key.0)),
        }
    }
    shown.retain(|key, _| target.contains_key(key));
    Ok(())
}

async fn read(api: &Api<IPAddressPool>) -> kube::Result<PoolStatuses> {
    let pools = api.list(&ListParams::default()).await?;
    let status = |pool: IPAddressPool| {
        let key = (pool.name_any(), pool.uid().unwrap_or_default());
        pool.status.map(|status| (key, status))
    };
    Ok(pools.items.into_iter().filter_map(status).collect())
}

async fn timed(work: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    match tokio::time::timeout(REQUEST_TIMEOUT, work).await {
        Ok(result) => result,
        Err(_) => Err(format!("not finished within {REQUEST_TIMEOUT:?}")),
    }
}
