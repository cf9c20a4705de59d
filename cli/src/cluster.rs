//! A client for the cluster that the arguments name, and lists of what is there.

use std::fmt::Debug;
use std::path::Path;

use anyhow::Result;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource};
use patina_runtime::client;
use serde::de::DeserializeOwned;

use crate::args::Cluster;

/// A client, and the namespace that is meant when none is named.
///
/// # Errors
/// No kubeconfig, or none that can be used.
pub(crate) async fn connect(cluster: &Cluster) -> Result<(Client, String)> {
    let path: Option<&Path> = cluster.kubeconfig.as_deref();
    let mut config = client::config(path, cluster.context.as_deref()).await?;
    // Somebody waits for one answer: an API server that is busy (429, 503) is asked again.
    config.default_retry = true;
    let namespace = cluster.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
    Ok((Client::try_from(config)?, namespace))
}

/// Those of a namespace. A kind that the API server does not know has no objects.
pub(crate) async fn list<K>(client: &Client, namespace: &str, params: &ListParams) -> Result<Vec<K>, String>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    items(Api::<K>::namespaced(client.clone(), namespace).list(params).await)
}

/// Those of all namespaces, or of the cluster.
pub(crate) async fn list_everywhere<K>(client: &Client) -> Result<Vec<K>, String>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    items(Api::<K>::all(client.clone()).list(&ListParams::default()).await)
}

fn items<K: Clone>(answer: kube::Result<kube::core::ObjectList<K>>) -> Result<Vec<K>, String> {
    match answer {
        Ok(list) => Ok(list.items),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
        Err(error) => Err(client::brief(&error)),
    }
}

/// Whether a Pod is Ready and not on its way out.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    pod.metadata.deletion_timestamp.is_none()
        && conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// Whether a Pod is the named component: the chart's label, or that of MetalLB's manifests.
pub(crate) fn is_component(pod: &Pod, component: &str) -> bool {
    let labels = pod.metadata.labels.as_ref();
    ["app.kubernetes.io/component", "component"]
        .iter()
        .any(|key| labels.and_then(|labels| labels.get(*key)).is_some_and(|value| value == component))
}
