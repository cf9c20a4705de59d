//! Asks the cluster. What may not be read is noted and does not spoil the rest.

use std::path::Path;

use anyhow::{Result, bail};
use k8s_openapi::api::core::v1::{Event, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use patina_crds::types::{ServiceBGPStatus, ServiceL2Status};
use patina_crds::{config, keys};
use patina_runtime::{client, config_watch};
use serde::de::DeserializeOwned;

use super::Facts;
use crate::args::{Cluster, Why};

/// Everything about the Service that `args` name.
///
/// # Errors
/// No cluster, or no such Service.
pub async fn gather(args: &Why) -> Result<Facts> {
    let (client, namespace) = connect(&args.cluster).await?;
    let name = args.service.trim_start_matches("service/").trim_start_matches("svc/");
    let services: Api<Service> = Api::namespaced(client.clone(), &namespace);
    let service = match services.get_opt(name).await {
        Ok(Some(service)) => service,
        Ok(None) => bail!("there is no Service {namespace}/{name}; another namespace is given with -n"),
        Err(error) => bail!("cannot ask the API server: {}", client::brief(&error)),
    };
    let system = args.cluster.system_namespace.clone();
    let uid = service.uid().unwrap_or_default();
    let about = ListParams::default().fields(&format!("involvedObject.uid={uid}"));
    let slices = ListParams::default().labels(&format!("{}={name}", keys::SERVICE_NAME));
    let everything = ListParams::default();
    Ok(Facts {
        events: list::<Event>(&client, &namespace, &about).await,
        endpoints: list::<EndpointSlice>(&client, &namespace, &slices).await,
        l2: list::<ServiceL2Status>(&client, &system, &everything).await,
        bgp: list::<ServiceBGPStatus>(&client, &system, &everything).await,
        config: config_watch::read_once(&client, &system, keys::LEGACY_CONFIG)
            .await
            .map(|resources| config::build(&resources).map(|loaded| loaded.config))
            .map_err(|error| client::brief(&error)),
        pods: list::<Pod>(&client, &system, &everything).await,
        system_namespace: system,
        service,
    })
}

async fn connect(cluster: &Cluster) -> Result<(Client, String)> {
    let path: Option<&Path> = cluster.kubeconfig.as_deref();
    let mut config = client::config(path, cluster.context.as_deref()).await?;
    // Somebody waits for one answer: an API server that is busy (429, 503) is asked again.
    config.default_retry = true;
    let namespace = cluster.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
    Ok((Client::try_from(config)?, namespace))
}

/// A kind that the API server does not know has no objects.
async fn list<K>(client: &Client, namespace: &str, params: &ListParams) -> Result<Vec<K>, String>
where
    K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned,
{
    match Api::<K>::namespaced(client.clone(), namespace).list(params).await {
        Ok(list) => Ok(list.items),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
        Err(error) => Err(client::brief(&error)),
    }
}
