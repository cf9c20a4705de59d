//! What the API server knows of Services, endpoints, nodes and speaker Pods, in the core's words. Kubernetes objects
//! come no further than this directory.

pub mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::watcher::Config as Scope;
use kube::{Api, Client};
use patina_crds::keys;
use patina_runtime::http::Health;
use patina_runtime::tasks::Tasks;
use patina_runtime::watch::{Watchable, Watched};
use patina_speaker_core::view::{EndpointView, Member, Members, NodeView, ServiceId, ServiceView};
use tokio::sync::{Notify, watch};

use crate::convert;
use crate::members;
use crate::settings::Settings;

/// The watches and what was last made of them.
#[derive(Debug)]
pub struct Cluster {
    services: Watched<Service>,
    slices: Watched<EndpointSlice>,
    nodes: Watched<Node>,
    /// `None`: `--ml-labels` is empty, and every known node is taken to run a speaker.
    pods: Option<Watched<Pod>>,
    /// Name of this node.
    node: String,
    peers: watch::Sender<BTreeSet<IpAddr>>,
    seen: Generations,
    views: Views,
    endpoints: BTreeMap<ServiceId, Vec<EndpointView>>,
}

/// What decisions are made from.
#[derive(Debug, Default, PartialEq)]
pub struct Views {
    /// LoadBalancer Services, in the order of their ids.
    pub services: Vec<ServiceView>,
    /// In the order of their names.
    pub nodes: Vec<NodeView>,
    /// Names of nodes with a live speaker.
    pub members: Members,
}

/// A speaker Pod, as an owner of status objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodIdentity {
    /// Name.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Generations {
    services: u64,
    slices: u64,
    nodes: u64,
    pods: u64,
}

impl Cluster {
    /// Starts the watches; `bell` rings when anything changes.
    pub fn start(client: &Client, settings: &Settings, bell: &Arc<Notify>, tasks: &mut Tasks) -> Self {
        // The API server leaves out all Services of other types; one that changes its type shows as deleted.
        let balancers = Scope::default().fields("spec.type=LoadBalancer");
        let slices = Scope::default().labels(keys::SERVICE_NAME);
        let speakers = Scope::default().labels(&settings.ml_labels);
        let all = Api::all(client.clone());
        let pods = Api::namespaced(client.clone(), &settings.common.namespace);
        Self {
            services: Watched::start(all, balancers, convert::prune_service, Arc::clone(bell), tasks),
            slices: Watched::start(
                Api::all(client.clone()),
                slices,
                convert::prune_slice,
                Arc::clone(bell),
                tasks,
            ),
            nodes: Watched::start(
                Api::all(client.clone()),
                Scope::default(),
                convert::prune_node,
                Arc::clone(bell),
                tasks,
            ),
            pods: (!settings.ml_labels.is_empty())
                .then(|| Watched::start(pods, speakers, convert::prune_pod, Arc::clone(bell), tasks)),
            node: settings.node_name.clone(),
            peers: watch::Sender::default(),
            seen: Generations::default(),
            views: Views::default(),
            endpoints: BTreeMap::new(),
        }
    }

    /// Whether the first list of every kind is complete: before that, nothing may be concluded from absence.
    #[must_use]
    pub fn synced(&self) -> bool {
        self.services.synced()
            && self.slices.synced()
            && self.nodes.synced()
            && self.pods.as_ref().is_none_or(Watched::synced)
    }

    /// Makes the process unready until the first lists are complete.
    pub fn add_to(&self, health: &Health) {
        ready_when_synced(health, "services", &self.services);
        ready_when_synced(health, "endpointslices", &self.slices);
        ready_when_synced(health, "nodes", &self.nodes);
        if let Some(pods) = &self.pods {
            ready_when_synced(health, "pods", pods);
        }
    }

    /// Brings the views up to date. True when they are different from before: most reports of kubelets are not.
    pub fn refresh(&mut self) -> bool {
        let now = Generations {
            services: self.services.generation(),
            slices: self.slices.generation(),
            nodes: self.nodes.generation(),
            pods: self.pods.as_ref().map_or(0, Watched::generation),
        };
        let mut changed = false;
        let mut services_changed = now.services != self.seen.services;
        if now.slices != self.seen.slices {
            let slices = self.slices.state();
            let endpoints = convert::endpoints(slices.iter().map(Arc::as_ref));
            services_changed |= replace(&mut self.endpoints, endpoints);
        }
        if services_changed {
            let services = self.service_views();
            changed |= replace(&mut self.views.services, services);
        }
        if now.nodes != self.seen.nodes {
            let nodes = self.node_views();
            changed |= replace(&mut self.views.nodes, nodes);
        }
        if now.pods != self.seen.pods || self.pods.is_none() {
            let members = self.members();
            changed |= replace(&mut self.views.members, members);
            self.find_peers();
        }
        self.seen = now;
        changed
    }

    /// As of the last [`Cluster::refresh`].
    #[must_use]
    pub fn views(&self) -> &Views {
        &self.views
    }

    /// Addresses of the speakers on other nodes, as of the last [`Cluster::refresh`]: where the membership may find
    /// somebody. Empty with `--ml-labels=`.
    #[must_use]
    pub fn peers(&self) -> BTreeSet<IpAddr> {
        self.peers.borrow().clone()
    }

    /// The same for another task: wakes when the set is another one.
    #[must_use]
    pub fn follow_peers(&self) -> watch::Receiver<BTreeSet<IpAddr>> {
        self.peers.subscribe()
    }

    /// The Pod of this name, if it is known.
    #[must_use]
    pub fn pod(&self, namespace: &str, name: &str) -> Option<PodIdentity> {
        let pod = self.pods.as_ref()?.get(namespace, name)?;
        Some(PodIdentity { name: name.to_owned(), uid: pod.metadata.uid.clone()? })
    }

    /// The reference that events about this Service carry.
    #[must_use]
    pub fn service_reference(&self, id: &ServiceId) -> Option<k8s_openapi::api::core::v1::ObjectReference> {
        use kube::Resource as _;
        Some(self.services.get(&id.namespace, &id.name)?.object_ref(&()))
    }

    fn service_views(&self) -> Vec<ServiceView> {
        let mut views: Vec<_> = self
            .services
            .state()
            .iter()
            .map(|service| {
                let endpoints =
                    self.endpoints.get(&convert::service_id(service)).cloned().unwrap_or_default();
                convert::service(service, endpoints)
            })
            .collect();
        views.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        views
    }

    fn node_views(&self) -> Vec<NodeView> {
        let mut views: Vec<_> = self.nodes.state().iter().map(|node| convert::node(node)).collect();
        views.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        views
    }

    fn find_peers(&self) {
        let Some(pods) = &self.pods else { return };
        let found = members::peers(pods.state().iter().map(Arc::as_ref), &self.node);
        self.peers.send_if_modified(|known| replace(known, found));
    }

    fn members(&self) -> Members {
        match &self.pods {
            Some(pods) => live(members::members(pods.state().iter().map(Arc::as_ref))),
            None => live(self.views.nodes.iter().map(|node| node.name.clone())),
        }
    }
}

/// Speakers of which nothing is known but that they live.
fn live(names: impl IntoIterator<Item = String>) -> Members {
    names.into_iter().map(|name| (name, Member::default())).collect()
}

fn ready_when_synced<K: Watchable>(health: &Health, part: &str, watched: &Watched<K>) {
    let watched = watched.clone();
    health.add(part, move || watched.readiness());
}

/// True when the new value is another one.
pub(crate) fn replace<T: PartialEq>(old: &mut T, new: T) -> bool {
    let different = *old != new;
    *old = new;
    different
}
