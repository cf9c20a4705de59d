//! What the API server knows of Services, endpoints, nodes and speaker Pods, in the core's words. Kubernetes objects
//! come no further than this directory, and are dropped as they arrive: the watches keep [`rows`] of a few words.

mod merge;
mod rows;
pub mod words;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, ObjectReference, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::watcher::Config as Scope;
use kube::{Api, Client};
use patina_crds::keys;
use patina_runtime::http::Health;
use patina_runtime::tasks::Tasks;
use patina_runtime::watch::{Row, Watchable, Watched};
use patina_speaker_core::view::{Member, Members, NodeView, ServiceId, ServiceView};
use tokio::sync::{Notify, watch};

use crate::members;
use crate::memory::Churn;
use crate::settings::Settings;
use rows::{NodeRow, PodRow, ServiceRow, SliceRow};
use words::Words;

/// The watches and what was last made of them.
#[derive(Debug)]
pub struct Cluster {
    services: Watched<Service, ServiceRow>,
    slices: Watched<EndpointSlice, SliceRow>,
    nodes: Watched<Node, NodeRow>,
    /// `None`: `--ml-labels` is empty, and every known node is taken to run a speaker.
    pods: Option<Watched<Pod, PodRow>>,
    /// Name of this node.
    node: String,
    peers: watch::Sender<Option<BTreeSet<IpAddr>>>,
    seen: Generations,
    views: Views,
    /// Of endpoints that come from several slices.
    words: Words,
    churn: Churn,
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
        let bell = || Arc::clone(bell);
        let churn = Churn::default();
        tasks.spawn("memory", churn.clone().give_back());
        let (mut words, mut more) = (Words::default(), Words::default());
        let service = move |service: Service| ServiceRow::of(&service, &mut words);
        let slice = move |slice: EndpointSlice| SliceRow::of(&slice, &mut more);
        Self {
            services: Watched::start_as(all, balancers, service, bell(), tasks),
            slices: Watched::start_as(Api::all(client.clone()), slices, slice, bell(), tasks),
            nodes: Watched::start_as(
                Api::all(client.clone()),
                Scope::default(),
                |node: Node| NodeRow::of(&node),
                bell(),
                tasks,
            ),
            pods: (!settings.ml_labels.is_empty())
                .then(|| Watched::start_as(pods, speakers, |pod: Pod| PodRow::of(&pod), bell(), tasks)),
            node: settings.node_name.clone(),
            peers: watch::Sender::default(),
            seen: Generations::default(),
            views: Views::default(),
            words: Words::default(),
            churn,
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
        if (now.services, now.slices) != (self.seen.services, self.seen.slices) {
            let views = self
                .services
                .read(|services| self.slices.read(|slices| merge::views(services, slices, &mut self.words)));
            self.churn.add(self.views.services.len().abs_diff(views.len()));
            changed |= replace(&mut self.views.services, views);
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

    /// Whoever works through much counts it here.
    #[must_use]
    pub fn churn(&self) -> &Churn {
        &self.churn
    }

    /// Addresses of the speakers on other nodes, as of the last [`Cluster::refresh`]: where the membership may find
    /// somebody. Empty with `--ml-labels=`.
    #[must_use]
    pub fn peers(&self) -> BTreeSet<IpAddr> {
        self.peers.borrow().clone().unwrap_or_default()
    }

    /// The same for another task: wakes when the set is another one.
    #[must_use]
    pub fn follow_peers(&self) -> watch::Receiver<Option<BTreeSet<IpAddr>>> {
        self.peers.subscribe()
    }

    /// The Pod of this name, if it is known.
    #[must_use]
    pub fn pod(&self, namespace: &str, name: &str) -> Option<PodIdentity> {
        let PodRow(pod) = self.pods.as_ref()?.get(namespace, name)?;
        Some(PodIdentity { name: name.to_owned(), uid: pod.uid.clone()? })
    }

    /// The reference that events about this Service carry.
    #[must_use]
    pub fn service_reference(&self, id: &ServiceId) -> Option<ObjectReference> {
        let service = self.services.get(&id.namespace, &id.name)?;
        Some(ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Service".to_owned()),
            namespace: Some(id.namespace.clone()),
            name: Some(id.name.clone()),
            uid: Some(service.uid.to_string()),
            ..ObjectReference::default()
        })
    }

    fn node_views(&self) -> Vec<NodeView> {
        self.nodes.read(|nodes| nodes.iter().map(|NodeRow(node)| NodeView::clone(node)).collect())
    }

    fn find_peers(&self) {
        let Some(pods) = &self.pods else { return };
        let found = pods.read(|pods| members::peers(pods.iter().map(|PodRow(pod)| &**pod), &self.node));
        if pods.synced() {
            self.peers.send_if_modified(|known| replace(known, Some(found)));
        }
    }

    fn members(&self) -> Members {
        match &self.pods {
            Some(pods) => live(pods.read(|pods| members::members(pods.iter().map(|PodRow(pod)| &**pod)))),
            None => live(self.views.nodes.iter().map(|node| node.name.clone())),
        }
    }
}

/// Speakers of which nothing is known but that they live.
fn live(names: impl IntoIterator<Item = String>) -> Members {
    names.into_iter().map(|name| (name, Member::default())).collect()
}

fn ready_when_synced<K: Watchable, V: Row>(health: &Health, part: &str, watched: &Watched<K, V>) {
    let watched = watched.clone();
    health.add(part, move || watched.readiness());
}

/// True when the new value is another one.
pub(crate) fn replace<T: PartialEq>(old: &mut T, new: T) -> bool {
    let different = *old != new;
    *old = new;
    different
}
