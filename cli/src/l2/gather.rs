//! Asks the cluster. What may not be read is noted and does not spoil the rest.

use anyhow::{Result, bail};
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use kube::{Api, Client};
use patina_crds::config::{self, Config, ConfigErrors};
use patina_crds::keys;
use patina_crds::types::{AddressConflict, ServiceL2Status};
use patina_runtime::{client, config_watch};

use super::Filter;
use crate::args::L2;
use crate::cluster::{connect, list, list_everywhere};

/// What the cluster says. `Err` holds why something could not be asked.
#[derive(Clone, Debug)]
pub struct Facts {
    /// All of them: those that share an address elect together.
    pub services: Vec<Service>,
    /// Of all Services.
    pub endpoints: Result<Vec<EndpointSlice>, String>,
    /// Where announcers could be.
    pub nodes: Result<Vec<Node>, String>,
    /// Our Pods.
    pub pods: Result<Vec<Pod>, String>,
    /// Who announces.
    pub l2: Result<Vec<ServiceL2Status>, String>,
    /// What foreign hosts use.
    pub conflicts: Result<Vec<AddressConflict>, String>,
    /// The configuration as it is now, or everything that is wrong with it.
    pub config: Result<Result<Config, ConfigErrors>, String>,
}

/// Everything about the announcements of the cluster, and which of them `args` ask for.
///
/// # Errors
/// No cluster, or one that does not show its Services, or none of the name.
pub async fn gather(args: &L2) -> Result<(Facts, Filter)> {
    let (client, context_namespace) = connect(&args.cluster).await?;
    let filter = Filter::of(args.service.as_deref(), args.cluster.namespace.as_deref(), &context_namespace)?;
    let services = match Api::<Service>::all(client.clone()).list(&ListParams::default()).await {
        Ok(services) => services.items,
        Err(error) => bail!("cannot ask the API server for Services: {}", client::brief(&error)),
    };
    if let Some((namespace, name)) = filter.one()
        && !services.iter().any(|service| filter.takes(service))
    {
        bail!("there is no Service {namespace}/{name}; another namespace is given with -n");
    }
    Ok((facts(&client, &args.cluster.system_namespace, services).await, filter))
}

async fn facts(client: &Client, system: &str, services: Vec<Service>) -> Facts {
    let everything = ListParams::default();
    Facts {
        services,
        endpoints: list_everywhere(client).await,
        nodes: list_everywhere(client).await,
        pods: list(client, system, &everything).await,
        l2: list(client, system, &everything).await,
        conflicts: list(client, system, &everything).await,
        config: config_watch::read_once(client, system, keys::LEGACY_CONFIG)
            .await
            .map(|resources| config::build(&resources).map(|loaded| loaded.config))
            .map_err(|error| client::brief(&error)),
    }
}
