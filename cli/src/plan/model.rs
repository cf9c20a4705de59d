//! The plan as a value: what `-o json` prints (docs/reference/plan-json.md), and what only people are told.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use patina_controller_core::allocator::Usage;
use patina_crds::config::ConfigError;
use patina_crds::service::ServiceId;
use serde::Serialize;

use super::allocate::Allocated;
use super::announce::Announced;
use super::input::PlannedService;

/// What each Service gets.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Plan {
    /// By namespace and name.
    pub services: Vec<ServicePlan>,
    /// Everything that is wrong in the files.
    pub errors: Vec<Problem>,
    /// For people: how full each pool is.
    #[serde(skip)]
    pub usage: BTreeMap<String, Usage>,
    /// For people: what they should know.
    #[serde(skip)]
    pub notes: Vec<String>,
    /// For people: the names of all nodes.
    #[serde(skip)]
    pub nodes: Vec<String>,
    /// For people: the names of all peers.
    #[serde(skip)]
    pub peers: Vec<String>,
}

/// What one Service gets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ServicePlan {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// In the order of the status.
    pub addresses: Vec<IpAddr>,
    /// Where they come from.
    pub pool: Option<String>,
    /// "Word: sentence": why it has no address.
    pub reason: Option<String>,
    /// Who announces it by ARP and NDP.
    pub layer2: Layer2,
    /// The routes, by peer, node and prefix.
    pub bgp: Vec<Route>,
    /// For people: what else is to be said of it.
    #[serde(skip)]
    pub notices: Vec<String>,
    /// For people: why no route goes out, where one could be expected.
    #[serde(skip)]
    pub no_routes: Vec<String>,
}

/// Who announces a Service at layer 2.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Layer2 {
    /// The node.
    pub announcer: Option<String>,
    /// All nodes that could, in the order in which they take over; the announcer is the first.
    pub candidates: Vec<String>,
    /// "word: sentence": why nobody announces it.
    pub reason: Option<String>,
    /// For people: why this node.
    #[serde(skip)]
    pub choice: String,
}

/// A route that a peer gets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    /// Name of the BGPPeer.
    pub peer: String,
    /// The node that tells it.
    pub node: String,
    /// As `192.0.2.0/24`.
    pub prefix: String,
    /// As they are written in an advertisement, sorted.
    pub communities: Vec<String>,
    /// As configured.
    pub local_pref: Option<u32>,
}

/// Something wrong in the files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Of the object; empty when not even that is known.
    pub kind: String,
    /// Of the object; empty for kinds that have none.
    pub namespace: String,
    /// Of the object.
    pub name: String,
    /// Path of the field; empty for the object as a whole.
    pub field: String,
    /// What was found and what is allowed.
    pub message: String,
    /// For people: the file.
    #[serde(skip)]
    pub file: Option<String>,
}

impl Problem {
    /// An error of the configuration as a whole.
    pub(super) fn of_config(error: ConfigError) -> Self {
        let ConfigError { object, field, message, .. } = error;
        Self { kind: object.kind, namespace: object.namespace, name: object.name, field, message, file: None }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{file}: ")?;
        }
        if !self.kind.is_empty() {
            let slash = if self.namespace.is_empty() { "" } else { "/" };
            write!(f, "{} {}{slash}{}: ", self.kind, self.namespace, self.name)?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

/// Puts together what the parts found, Service by Service.
pub(super) fn join(
    services: Vec<PlannedService>,
    mut allocated: BTreeMap<ServiceId, Allocated>,
    mut announced: BTreeMap<ServiceId, Announced>,
) -> Vec<ServicePlan> {
    let mut plans: Vec<ServicePlan> = services
        .into_iter()
        .map(|service| {
            let allocated = allocated.remove(&service.id).unwrap_or_default();
            let announced = announced.remove(&service.id).unwrap_or_default();
            ServicePlan {
                namespace: service.id.namespace.clone(),
                name: service.id.name.clone(),
                addresses: allocated.addresses,
                pool: allocated.pool,
                reason: allocated.reason,
                layer2: announced.layer2,
                bgp: announced.routes,
                notices: [service.notices, allocated.notices].concat(),
                no_routes: announced.no_routes,
            }
        })
        .collect();
    plans.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    plans
}
