//! Node objects and their heartbeats.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;

use crate::lab::plan::NodePlan;

/// Between two renewals of a node's Lease. A real kubelet takes 10 s; here a dead node is to be noticed while
/// somebody watches (see `NODE_GRACE` in the lab).
const RENEW: Duration = Duration::from_millis(400);
/// As Go names it.
const ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
/// Who writes.
const MANAGER: &str = "lab-kubelet";

/// Creates the Node with its addresses and pod ranges.
///
/// # Errors
/// The API refuses it.
pub(super) async fn register(client: &Client, plan: &NodePlan) -> Result<()> {
    let labels = BTreeMap::from([
        ("kubernetes.io/hostname", plan.name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", ARCHITECTURE),
    ]);
    let cidrs = plan.pod_cidrs();
    let node = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": plan.name, "labels": labels},
        "spec": {"podCIDR": cidrs[0], "podCIDRs": cidrs},
    });
    let nodes = Api::<Node>::all(client.clone());
    let params = PatchParams::apply(MANAGER).force();
    nodes
        .patch(&plan.name, &params, &Patch::Apply(node))
        .await
        .with_context(|| format!("register {}", plan.name))?;
    report_ready(client, plan).await
}

/// Reports and renews until it is aborted.
pub(super) async fn heartbeat(client: Client, plan: NodePlan) {
    let nodes = Api::<Node>::all(client.clone());
    let mut beats = tokio::time::interval(RENEW);
    beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        beats.tick().await;
        if let Err(error) = renew(&client, &plan).await {
            tracing::warn!("heartbeat of {}: {error:#}", plan.name);
        }
        // The node-lifecycle controller takes Ready away from a node that was silent; only its kubelet gives it back.
        let lost = match nodes.get_opt(&plan.name).await {
            Ok(node) => node.is_some_and(|n| !is_ready(&n)),
            Err(_) => false,
        };
        if lost && let Err(error) = report_ready(&client, &plan).await {
            tracing::warn!("status of {}: {error:#}", plan.name);
        }
    }
}

/// Whether the Node's condition Ready is True.
#[must_use]
pub(crate) fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
}

async fn renew(client: &Client, plan: &NodePlan) -> Result<()> {
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": plan.name},
        "spec": {"holderIdentity": plan.name, "leaseDurationSeconds": 2, "renewTime": micro_now()},
    });
    let leases =
        Api::<k8s_openapi::api::coordination::v1::Lease>::namespaced(client.clone(), "kube-node-lease");
    leases.patch(&plan.name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(lease)).await?;
    Ok(())
}

async fn report_ready(client: &Client, plan: &NodePlan) -> Result<()> {
    let now = super::status::now();
    let condition = |kind: &str, status: &str, reason: &str| {
        json!({"type": kind, "status": status, "reason": reason, "message": "written by the lab's kubelet",
               "lastHeartbeatTime": now, "lastTransitionTime": now})
    };
    let resources = json!({"cpu": "4", "memory": "8Gi", "pods": "250"});
    let status = json!({"status": {
        "addresses": [
            {"type": "InternalIP", "address": plan.v4},
            {"type": "InternalIP", "address": plan.v6},
            {"type": "Hostname", "address": plan.name},
        ],
        "capacity": resources, "allocatable": resources,
        "conditions": [
            condition("MemoryPressure", "False", "KubeletHasSufficientMemory"),
            condition("DiskPressure", "False", "KubeletHasNoDiskPressure"),
            condition("PIDPressure", "False", "KubeletHasSufficientPID"),
            condition("Ready", "True", "KubeletReady"),
        ],
        "nodeInfo": {
            "architecture": ARCHITECTURE, "bootID": plan.name, "containerRuntimeVersion": "lab://processes",
            "kernelVersion": "", "kubeProxyVersion": "", "kubeletVersion": "v1.36.3", "machineID": plan.name,
            "operatingSystem": "linux", "osImage": "network namespace", "systemUUID": plan.name,
        },
    }});
    let nodes = Api::<Node>::all(client.clone());
    // Whole lists: a strategic merge of addresses has their type as key, and a node has two of one type.
    nodes.patch_status(&plan.name, &PatchParams::default(), &Patch::Merge(status)).await?;
    Ok(())
}

/// RFC 3339 with microseconds, as Leases have it.
fn micro_now() -> String {
    format!("{:.6}", jiff::Timestamp::now())
}
