//! What the API server holds of a LAN: nodes and Pods as their kubelets would have written them, Services and endpoints.

use std::ops::Range;

use anyhow::Result;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::LanNode;
use super::wires::POOL;

/// Where Patina is.
pub const SYSTEM: &str = "metallb-system";
/// Where the Services are.
pub const NAMESPACE: &str = "default";
/// Requests that are under way at the same time.
const CLIENTS: usize = 32;

/// Namespace, account, pool and advertisement, with these annotations of the advertisement.
pub(super) fn base(annotations: &Value) -> String {
    let objects = [
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM}}),
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": SYSTEM}}),
        pool(POOL),
        advertisement(annotations),
    ];
    objects.map(|object| object.to_string()).join("\n---\n")
}

pub(super) fn pool(addresses: &str) -> Value {
    json!({
        "apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool",
        "metadata": {"namespace": SYSTEM, "name": "lan"}, "spec": {"addresses": [addresses]},
    })
}

pub(super) fn advertisement(annotations: &Value) -> Value {
    json!({
        "apiVersion": "metallb.io/v1beta1", "kind": "L2Advertisement",
        "metadata": {"namespace": SYSTEM, "name": "lan", "annotations": annotations}, "spec": {},
    })
}

/// The Node and the speaker's Pod, which is Ready and stays so whatever becomes of its process: no kubelet looks.
pub(super) async fn register(client: &Client, node: &LanNode) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let object =
        read(json!({"metadata": {"name": node.name, "labels": {"kubernetes.io/hostname": node.name}}}))?;
    nodes.create(&PostParams::default(), &object).await?;
    let address = node.v4.to_string();
    let status = json!({"status": {
        "addresses": [{"type": "InternalIP", "address": address}],
        "conditions": [{"type": "Ready", "status": "True"}],
    }});
    nodes.patch_status(&node.name, &PatchParams::default(), &Patch::Merge(status)).await?;

    let pods: Api<Pod> = Api::namespaced(client.clone(), SYSTEM);
    let name = node.pod_name();
    let pod = json!({
        "metadata": {"name": name, "labels": {
            "app.kubernetes.io/name": "patina", "app.kubernetes.io/component": "speaker",
        }},
        "spec": {
            "nodeName": node.name, "hostNetwork": true, "automountServiceAccountToken": false,
            "tolerations": [{"operator": "Exists"}],
            "containers": [{"name": "speaker", "image": "patina"}],
        },
    });
    pods.create(&PostParams::default(), &read(pod)?).await?;
    let status = json!({"status": {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "True"}],
        "hostIP": address, "podIP": address, "podIPs": [{"ip": address}],
    }});
    pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await?;
    Ok(())
}

/// Services with one ready endpoint each, on `node`, many at a time.
pub(super) async fn services(client: &Client, numbers: Range<usize>, node: &str) -> Result<()> {
    let services: Api<Service> = Api::namespaced(client.clone(), NAMESPACE);
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), NAMESPACE);
    futures::stream::iter(numbers)
        .map(|i| {
            let (services, slices) = (services.clone(), slices.clone());
            async move {
                slices.create(&PostParams::default(), &read(slice(i, node))?).await?;
                services.create(&PostParams::default(), &read(service(i))?).await?;
                anyhow::Ok(())
            }
        })
        .buffer_unordered(CLIENTS)
        .try_collect::<Vec<()>>()
        .await?;
    Ok(())
}

pub(super) fn service_name(i: usize) -> String {
    format!("lan-{i:05}")
}

fn service(i: usize) -> Value {
    json!({
        "metadata": {"name": service_name(i)},
        "spec": {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": [{"port": 80}]},
    })
}

fn slice(i: usize, node: &str) -> Value {
    let service = service_name(i);
    json!({
        "metadata": {"name": format!("{service}-1"), "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "ports": [{"port": 80, "protocol": "TCP"}],
        "endpoints": [{"addresses": ["10.244.1.2"], "nodeName": node, "conditions": {"ready": true}}],
    })
}

fn read<K: DeserializeOwned>(value: Value) -> Result<K> {
    Ok(serde_json::from_value(value)?)
}
