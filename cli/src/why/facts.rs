//! Everything that the answer depends on, as plain objects of the API.

use k8s_openapi::api::core::v1::{Event, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use patina_crds::config::{Config, ConfigErrors};
use patina_crds::types::{ServiceBGPStatus, ServiceL2Status};

/// What the cluster says. `Err` holds why something could not be asked.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The Service in question.
    pub service: Service,
    /// Its events, in any order.
    pub events: Result<Vec<Event>, String>,
    /// Its endpoints.
    pub endpoints: Result<Vec<EndpointSlice>, String>,
    /// Who announces it by layer 2.
    pub l2: Result<Vec<ServiceL2Status>, String>,
    /// Who announces it by BGP.
    pub bgp: Result<Vec<ServiceBGPStatus>, String>,
    /// The configuration as it is now, or everything that is wrong with it.
    pub config: Result<Result<Config, ConfigErrors>, String>,
    /// Our Pods.
    pub pods: Result<Vec<Pod>, String>,
    /// The namespace of Patina.
    pub system_namespace: String,
}
