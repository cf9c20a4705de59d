//! What a speaker needs: memory idle and with 1,000 Services that it announces.

use anyhow::Result;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::Row;
use crate::cluster::{self, Cluster, SYSTEM, object};

const MANY: usize = 1000;
const NODE: &str = "bench-node";

pub(crate) async fn measure() -> Result<Vec<Row>> {
    let cluster = Cluster::with_node().await?;
    register_node(&cluster).await?;
    let _controller = cluster.controller().await?;
    let speaker = cluster.speaker(NODE).await?;
    cluster::calm().await;
    let idle = speaker.rss_mb()?;

    cluster.create_services(0..MANY).await?;
    give_endpoints(&cluster).await?;
    cluster.all_have_addresses(MANY).await?;
    cluster.all_announced(MANY).await?;
    cluster::calm().await;
    let loaded = speaker.rss_mb()?;
    Ok(vec![
        Row::new("speaker_rss_idle_mb", idle, "MB", 1, "VmRSS, a pool and no Service, 10 s after the start"),
        Row::new(
            "speaker_rss_1k_mb",
            loaded,
            "MB",
            1,
            "VmRSS, 1,000 Services announced by this node, 10 s later",
        ),
        Row::new("speaker_cpu_1k_s", speaker.cpu_s()?, "s", 1, "user and system time up to then"),
    ])
}

/// A node with a live speaker, as the API shows one.
async fn register_node(cluster: &Cluster) -> Result<()> {
    let node: Node = object(json!({"metadata": {"name": NODE, "labels": {"kubernetes.io/hostname": NODE}}}))?;
    Api::all(cluster.client()).create(&PostParams::default(), &node).await?;
    let pods: Api<Pod> = Api::namespaced(cluster.client(), SYSTEM);
    let pod: Pod = object(json!({
        "metadata": {"name": "speaker-bench", "labels": {
            "app.kubernetes.io/name": "patina", "app.kubernetes.io/component": "speaker",
        }},
        "spec": {
            "nodeName": NODE, "hostNetwork": true, "serviceAccountName": "default",
            "containers": [{"name": "speaker", "image": "patina"}],
        },
    }))?;
    pods.create(&PostParams::default(), &pod).await?;
    let status = json!({"status": {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "True"}],
        "podIP": "172.25.7.11", "podIPs": [{"ip": "172.25.7.11"}],
    }});
    cluster.patch_status(&pods, "speaker-bench", &status).await
}

/// One ready endpoint on the node for every Service.
async fn give_endpoints(cluster: &Cluster) -> Result<()> {
    let slices: Api<EndpointSlice> = Api::namespaced(cluster.client(), cluster::NAMESPACE);
    cluster::each(0..MANY, |i| {
        let slices = slices.clone();
        async move {
            let slice: EndpointSlice = object(endpoint_slice(i))?;
            slices.create(&PostParams::default(), &slice).await?;
            Ok(())
        }
    })
    .await
}

fn endpoint_slice(i: usize) -> Value {
    let service = cluster::service_name(i);
    json!({
        "metadata": {"name": format!("{service}-1"), "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "ports": [{"port": 80, "protocol": "TCP"}],
        "endpoints": [{"addresses": ["10.244.1.2"], "nodeName": NODE, "conditions": {"ready": true}}],
    })
}
