//! Asks the cluster. What may not be read is noted and does not spoil the rest.

use anyhow::{Result, bail};
use k8s_openapi::api::core::v1::{Event, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use patina_crds::types::{ServiceBGPStatus, ServiceL2Status};
use patina_crds::{config, keys};
use patina_runtime::{client, config_watch};

use super::Facts;
use crate::args::Why;
use crate::cluster::{connect, list};

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
