//! The client that writes bare statuses: what the API server takes when nobody decides anything. A process of its own, as
//! the controller is, with the controller's kind of client, window and patches; of the answers it reads nothing.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt};
use kube::api::{Patch, PatchParams};
use kube::core::Request;
use serde_json::{Value, json};

use patina_crds::keys;
use patina_e2e::process::Spec;
use patina_e2e::wait::{self, Seen, secs};

use super::seen::{self, Lean};
use crate::cluster::{BARE, Cluster, NAMESPACE};

/// The first argument of this program that makes it this client.
pub(crate) const COMMAND: &str = "write-statuses";
/// As many patches under way as the controller has.
const WINDOW: usize = 24;
/// For all 10,000 on a busy machine.
const DEADLINE: Duration = secs(180);

/// A process that gives every Service of the bench a status.
pub(crate) async fn give(cluster: &Cluster) -> Result<()> {
    write(cluster, "give").await
}

/// Takes it from the first `count` again, and waits until nobody has one.
pub(crate) async fn clear(cluster: &Cluster, count: usize) -> Result<()> {
    write(cluster, "clear").await?;
    let (services, _) = seen::list(&cluster.client()).await?;
    let left = services.iter().filter(|service| service.has_address()).count();
    ensure!(
        services.len() == count && left == 0,
        "{left} of {} Services have an address still",
        services.len()
    );
    Ok(())
}

async fn write(cluster: &Cluster, what: &str) -> Result<()> {
    let kubeconfig = cluster.kubeconfig(BARE)?;
    let spec = Spec::new("statuses", std::env::current_exe()?).args([COMMAND, what]).arg(kubeconfig);
    let mut process = cluster.spawn(spec)?;
    let ended = wait::until("the statuses are written", DEADLINE, || {
        let ended = process.exited();
        async move { Ok(ended.map_or_else(|| Seen::Not("running".to_owned()), Seen::Done)) }
    });
    let ended = ended.await?;
    ensure!(ended.success(), "writing statuses: {ended}\n{}", process.log_tail(10));
    Ok(())
}

/// What that process does: `give KUBECONFIG` or `clear KUBECONFIG`.
pub(crate) async fn run(args: &[String]) -> Result<()> {
    let [what, kubeconfig] = args else { anyhow::bail!("usage: bench {COMMAND} give|clear KUBECONFIG") };
    let client = patina_runtime::client::connect(Some(Path::new(kubeconfig))).await?;
    let (services, _) = seen::list(&client).await?;
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let params = PatchParams { field_manager: Some("patina-bench".to_owned()), ..PatchParams::default() };
    let path = Request::new(format!("/api/v1/namespaces/{NAMESPACE}/services"));
    let patches = services.iter().zip(0..).map(|(service, i)| {
        let body = if what == "give" { given(service, i, &now) } else { cleared() };
        let request = path.patch_subresource("status", &service.metadata.name, &params, &Patch::Merge(body));
        let client = client.clone();
        async move { client.request_text(request?).await.map(drop).context("patch a status") }
    });
    futures::stream::iter(patches).buffer_unordered(WINDOW).try_collect::<Vec<()>>().await?;
    Ok(())
}

/// As the controller writes it when a Service gets its first address.
fn given(service: &Lean, i: u32, now: &str) -> Value {
    let ip = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 100, 0, 0)) + i).to_string();
    json!({
        "metadata": {
            "annotations": {keys::IP_ALLOCATED_FROM_POOL: "bench"},
            "resourceVersion": service.metadata.resource_version, "uid": service.metadata.uid,
        },
        "status": {
            "loadBalancer": {"ingress": [{"ip": ip, "ipMode": "VIP"}]},
            "conditions": [{
                "type": keys::CONDITION_ALLOCATED, "status": "True", "reason": "Allocated",
                "message": format!("{ip} from pool bench"), "lastTransitionTime": now,
            }],
        },
    })
}

fn cleared() -> Value {
    json!({
        "metadata": {"annotations": {keys::IP_ALLOCATED_FROM_POOL: null}},
        "status": {"loadBalancer": {"ingress": null}, "conditions": null},
    })
}
