//! A kubelet, reduced to what a LoadBalancer can tell from a real one: it registers nodes and keeps their Leases,
//! binds pods (there is no scheduler in the lab), runs them as processes in namespaces, asks their probes and writes
//! their status. One task set of the lab plays it for all nodes.
//!
//! What it leaves out: images (see [`container`]), cgroups and resource limits, init containers, exec probes, log
//! and exec endpoints.

mod bind;
pub mod container;
mod env;
mod network;
mod nodes;
mod probe;
mod sandbox;
mod status;
mod volumes;
mod worker;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use anyhow::Result;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_local};

use crate::lab::plan::{NodePlan, Plan};
use crate::rundir::RunDir;
use network::Hosts;
pub(crate) use nodes::is_ready;
pub(crate) use worker::API_PORT;

/// Addresses that the downward API may ask for.
#[derive(Debug, Clone, Default)]
pub struct PodAddresses {
    /// `status.podIPs`.
    pub pod: Vec<IpAddr>,
    /// `status.hostIPs`.
    pub host: Vec<IpAddr>,
}

/// What the kubelet needs of the lab.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Names and addresses.
    pub plan: Plan,
    /// Owner of processes, namespaces and logs.
    pub run: Arc<RunDir>,
    /// Programs by the name that a container's `command` has for them (`/patina-speaker`).
    pub programs: BTreeMap<String, PathBuf>,
    /// The `lab` program, which plays every other image.
    pub stand_in: PathBuf,
}

/// The kubelets of all nodes. Lives on one thread ([`tokio::task::LocalSet`]).
#[derive(Debug)]
pub struct Kubelet {
    shared: Rc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

struct Shared {
    client: Client,
    setup: Setup,
    nodes: RefCell<BTreeMap<String, Node>>,
    /// What the API last said, by uid.
    pods: RefCell<BTreeMap<String, Arc<Pod>>>,
    workers: RefCell<BTreeMap<String, Worker>>,
    /// Counts changes of ConfigMaps and Secrets.
    mounted: watch::Sender<u64>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("setup", &self.setup).finish_non_exhaustive()
    }
}

struct Node {
    plan: NodePlan,
    hosts: Rc<RefCell<Hosts>>,
    /// Its heartbeat; `None` while it is off.
    heartbeat: Option<JoinHandle<()>>,
}

/// A pod that runs.
struct Worker {
    node: String,
    pod: watch::Sender<Arc<Pod>>,
    task: JoinHandle<()>,
}

impl Kubelet {
    /// Registers the plan's nodes and begins to run pods.
    ///
    /// # Errors
    /// The API refuses the nodes.
    pub async fn start(client: Client, setup: Setup) -> Result<Self> {
        let nodes = setup.plan.nodes.iter().map(|plan| {
            let node = Node { plan: plan.clone(), hosts: Rc::default(), heartbeat: None };
            (plan.name.clone(), node)
        });
        let shared = Rc::new(Shared {
            client,
            nodes: RefCell::new(nodes.collect()),
            setup,
            pods: RefCell::default(),
            workers: RefCell::default(),
            mounted: watch::Sender::new(0),
        });
        for plan in &shared.setup.plan.nodes {
            nodes::register(&shared.client, plan).await?;
        }
        let tasks = vec![
            spawn_local(watch_pods(Rc::clone(&shared))),
            spawn_local(watch_mounted(shared.client.clone(), shared.mounted.clone())),
        ];
        let kubelet = Self { tasks, shared };
        for plan in &kubelet.shared.setup.plan.nodes {
            kubelet.shared.begin_heartbeat(&plan.name);
        }
        Ok(kubelet)
    }

    /// The node is off: nothing of it runs or reports any more. Its pods' processes get SIGKILL, and the API is
    /// told nothing.
    pub fn power_off(&self, node: &str) {
        let mut nodes = self.shared.nodes.borrow_mut();
        if let Some(heartbeat) = nodes.get_mut(node).and_then(|n| n.heartbeat.take()) {
            heartbeat.abort();
        }
        // A worker that is dropped kills its processes (process::Process).
        self.shared.workers.borrow_mut().retain(|_, worker| {
            let stays = worker.node != node;
            if !stays {
                worker.task.abort();
            }
            stays
        });
    }

    /// The node is on again: it reports, and its pods start anew.
    pub fn power_on(&self, node: &str) {
        self.shared.begin_heartbeat(node);
        let pods: Vec<Arc<Pod>> = self.shared.pods.borrow().values().cloned().collect();
        for pod in pods {
            self.shared.consider(&pod);
        }
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        for (_, node) in self.shared.nodes.borrow_mut().iter_mut() {
            if let Some(heartbeat) = node.heartbeat.take() {
                heartbeat.abort();
            }
        }
        for (_, worker) in std::mem::take(&mut *self.shared.workers.borrow_mut()) {
            worker.task.abort();
        }
    }
}

impl Shared {
    fn begin_heartbeat(self: &Rc<Self>, name: &str) {
        let mut nodes = self.nodes.borrow_mut();
        if let Some(node) = nodes.get_mut(name)
            && node.heartbeat.is_none()
        {
            node.heartbeat = Some(spawn_local(nodes::heartbeat(self.client.clone(), node.plan.clone())));
        }
    }

    fn is_on(&self, node: &str) -> bool {
        self.nodes.borrow().get(node).is_some_and(|n| n.heartbeat.is_some())
    }

    /// One pod as the API has it now: told to its worker, or given one, or bound.
    fn consider(self: &Rc<Self>, pod: &Arc<Pod>) {
        let Some(uid) = pod.uid() else { return };
        self.pods.borrow_mut().insert(uid.clone(), Arc::clone(pod));
        let Some(node) = pod.spec.as_ref().and_then(|s| s.node_name.clone()) else {
            self.bind(pod);
            return;
        };
        if let Some(worker) = self.workers.borrow().get(&uid) {
            worker.pod.send_replace(Arc::clone(pod));
            return;
        }
        let ended = pod.status.as_ref().and_then(|s| s.phase.as_deref());
        if !self.is_on(&node) || matches!(ended, Some("Succeeded" | "Failed")) {
            return;
        }
        let (tell, told) = watch::channel(Arc::clone(pod));
        let shared = Rc::clone(self);
        let key = uid.clone();
        let task = spawn_local(async move {
            worker::run(Rc::clone(&shared), told).await;
            shared.workers.borrow_mut().remove(&key);
        });
        self.workers.borrow_mut().insert(uid, Worker { node, pod: tell, task });
    }

    fn forget(&self, pod: &Pod) {
        let Some(uid) = pod.uid() else { return };
        self.pods.borrow_mut().remove(&uid);
        // Its object is gone, so nobody waits for its processes to end in order.
        if let Some(worker) = self.workers.borrow_mut().remove(&uid) {
            worker.task.abort();
        }
    }

    fn bind(self: &Rc<Self>, pod: &Arc<Pod>) {
        let alive: Vec<String> = self
            .nodes
            .borrow()
            .iter()
            .filter(|(_, n)| n.heartbeat.is_some())
            .map(|(name, _)| name.clone())
            .collect();
        let Some(node) = bind::choose(pod, &alive, &self.pods.borrow()) else { return };
        // Counted as placed at once: the next pod of the same owner must see it.
        let mut placed = Pod::clone(pod);
        placed.spec.get_or_insert_default().node_name = Some(node.clone());
        if let Some(uid) = pod.uid() {
            self.pods.borrow_mut().insert(uid, Arc::new(placed));
        }
        let (client, pod) = (self.client.clone(), Arc::clone(pod));
        spawn_local(async move {
            if let Err(error) = bind::bind(&client, &pod, &node).await {
                tracing::warn!("bind {} to {node}: {error:#}", pod.name_any());
            }
        });
    }
}

/// Tells that what pods mount may have changed.
async fn watch_mounted(client: Client, mounted: watch::Sender<u64>) {
    let maps = watcher(Api::<PartialObjectMeta<ConfigMap>>::all(client.clone()), watcher::Config::default());
    let secrets = watcher(Api::<PartialObjectMeta<Secret>>::all(client), watcher::Config::default());
    let (maps, secrets) = (maps.default_backoff().map(drop), secrets.default_backoff().map(drop));
    let mut changes = pin!(futures::stream::select(maps, secrets));
    while changes.next().await.is_some() {
        mounted.send_modify(|count| *count += 1);
    }
}

async fn watch_pods(shared: Rc<Shared>) {
    let pods = Api::<Pod>::all(shared.client.clone());
    let mut events = pin!(watcher(pods, watcher::Config::default()).default_backoff());
    // Pods that were known before a new list and are not in it: they went while the watch was down.
    let mut unlisted: BTreeMap<String, Arc<Pod>> = BTreeMap::new();
    while let Some(event) = events.next().await {
        match &event {
            Ok(watcher::Event::Init) => unlisted = shared.pods.borrow().clone(),
            Ok(watcher::Event::InitApply(pod)) => drop(pod.uid().and_then(|uid| unlisted.remove(&uid))),
            Ok(watcher::Event::InitDone) => {
                std::mem::take(&mut unlisted).values().for_each(|pod| shared.forget(pod))
            }
            _ => {}
        }
        match event {
            Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) => {
                shared.consider(&Arc::new(pod))
            }
            Ok(watcher::Event::Delete(pod)) => shared.forget(&pod),
            Ok(watcher::Event::Init | watcher::Event::InitDone) => {}
            Err(error) => tracing::warn!("watch pods: {error}"),
        }
    }
}
