//! Speakers on a LAN: a real API server, a real controller, and up to 200 nodes that are a namespace with a real speaker in it
//! and nothing else. Lighter than a [`crate::lab::Lab`]: no kubelet restarts what is killed, and no kube-proxy forwards; for
//! what concerns who answers for an address.
//!
//! ```text
//!              br0 172.25.0.1/16   etcd, API server, controller
//!     ┌─────────────┬─────────────┬─────────────┬──────────┐
//!    n01           n02           n50          client     strangers
//!    172.25.1.1    172.25.1.2    172.25.1.50   172.25.0.5  172.25.0.6 ...        Services: 172.25.128.0/17
//!     │             │             │
//!     └─────────────┴─────────────┴─ br2 ── client2        with a second network: Services 172.26.128.0/17
//! ```

mod objects;
mod speaker;
mod wires;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Service;
use kube::api::{DynamicObject, ListParams, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};

pub use objects::{NAMESPACE, SYSTEM};
pub use speaker::{LanNode, cpu_of};
pub use wires::{API, CLIENT, CLIENT_THERE, Cut};

use crate::control_plane::{ControlPlane, Options as PlaneOptions};
use crate::neighbour::Mac;
use crate::netns::Netns;
use crate::prober::Prober;
use crate::process::{Process, Spec};
use crate::rundir::RunDir;
use crate::wait::{self, Seen, secs};

/// Speakers that start at the same time.
const TOGETHER: usize = 5;

/// Flags of an API server that is to have thousands of Services: it gives out cluster IPs as Kubernetes 1.32 did, from a bitmap.
/// Its successor counts all that are in use, twice, for each new Service: ten thousand take a quarter of an hour on two CPUs.
pub const CROWD: [&str; 2] = ["--emulated-version=1.33", "--feature-gates=MultiCIDRServiceAllocator=false"];

/// Our programs.
#[derive(Debug, Clone)]
pub struct Programs {
    /// `patina-speaker`.
    pub speaker: PathBuf,
    /// `patina-controller`.
    pub controller: PathBuf,
}

impl Programs {
    /// Cargo's build beside the running test.
    ///
    /// # Errors
    /// The build failed.
    pub fn debug() -> Result<Self> {
        let path = crate::binaries::path;
        Ok(Self { speaker: path("patina-speaker")?, controller: path("patina-controller")? })
    }
}

/// A running LAN. Dropping it ends everything in it.
#[derive(Debug)]
pub struct Lan {
    // Dropped in this order: what uses the API before the API.
    nodes: Vec<LanNode>,
    controller: Option<Process>,
    /// The control plane: it can be stopped and started.
    pub plane: ControlPlane,
    programs: Programs,
    net: Netns,
    client: Netns,
    /// The client on the second network, if there is one.
    client_there: Option<Netns>,
    strangers: u8,
    /// The mounted Secret.
    key: PathBuf,
    /// The speakers'. Written once: who is starting may be reading it.
    kubeconfig: PathBuf,
    /// Flags that every speaker started from now on gets in addition.
    pub speaker_flags: Vec<String>,
    run: Arc<RunDir>,
}

impl Lan {
    /// API server, pool and controller; no node yet.
    ///
    /// # Errors
    /// Not root, or a part that did not come up: the text has the ends of the logs.
    pub async fn start(programs: Programs) -> Result<Self> {
        Self::start_with(programs, &[]).await
    }

    /// The same with [`CROWD`], say, as flags of the API server.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_with(programs: Programs, apiserver_flags: &[&str]) -> Result<Self> {
        let run = Arc::new(RunDir::create()?);
        let net = wires::bridge(&run)?;
        let client = wires::plug(&run, &net, "client", [0x02, 0x25, 0, 0, 0, 5], CLIENT)?;
        let options = PlaneOptions {
            run: Some(Arc::clone(&run)),
            inside: Some((net.clone(), SocketAddr::from((API, 6443)))),
            // Nothing here needs one: nodes, Pods and endpoints are written below.
            controller_manager: false,
            apiserver_flags: apiserver_flags.iter().map(|flag| (*flag).to_owned()).collect(),
            ..PlaneOptions::default()
        };
        let plane = ControlPlane::start(options).await?;
        plane.apply_crds().await?;
        plane.apply(&objects::base(&json!({}))).await?;
        let kubeconfig = plane.kubeconfig_for_user("lan-speaker", &["system:masters"])?;
        let mut lan = Self {
            nodes: Vec::new(),
            controller: None,
            plane,
            programs,
            net,
            client,
            client_there: None,
            strangers: 0,
            key: secret(&run)?,
            kubeconfig,
            speaker_flags: Vec::new(),
            run,
        };
        lan.start_controller()?;
        Ok(lan)
    }

    /// Gives every node that comes from now on a second cable, and Services addresses on that network. API server and
    /// membership stay on the first.
    ///
    /// # Errors
    /// Not root, or the API server refused the pool.
    pub async fn second_network(&mut self) -> Result<()> {
        self.client_there = Some(wires::second_bridge(&self.run, &self.net)?);
        self.plane.apply(&objects::pool(wires::POOL_THERE).to_string()).await.map(drop)
    }

    fn start_controller(&mut self) -> Result<()> {
        let kubeconfig = self.plane.kubeconfig_for_user("lan-controller", &["system:masters"])?;
        let spec = Spec::new("patina-controller", &self.programs.controller)
            .arg(format!("--kubeconfig={}", kubeconfig.display()))
            .args(["--namespace=metallb-system", "--webhook-mode=disabled", "--port=0"])
            .netns(Some(&self.net));
        self.controller = Some(spec.spawn(&self.run)?);
        Ok(())
    }

    /// More nodes, until there are `count`, each with a speaker, and waits until all know each other.
    ///
    /// # Errors
    /// A speaker did not come up.
    pub async fn grow(&mut self, count: usize) -> Result<()> {
        wires::room_for(count)?;
        let client = self.plane.client();
        while self.nodes.len() < count {
            let before = self.nodes.len();
            // A few at a time: fifty that start at once on two CPUs are not what is measured.
            for number in before + 1..=count.min(before + TOGETHER) {
                let number = u8::try_from(number)?;
                let (name, mac) = (format!("n{number:02}"), [0x02, 0x25, 1, 0, 0, number]);
                let v4 = Ipv4Addr::new(172, 25, 1, number);
                let netns = wires::plug(&self.run, &self.net, &name, mac, v4)?;
                let second = [0x02, 0x26, 1, 0, 0, number];
                if self.client_there.is_some() {
                    let there = Ipv4Addr::new(172, 26, 1, number);
                    wires::plug_second(&self.net, &netns, &name, second, there)?;
                }
                let node = LanNode { name, v4, mac, second, netns, process: None, starts: 0 };
                objects::register(&client, &node).await?;
                self.nodes.push(node);
                self.start_speaker(self.nodes.len() - 1)?;
            }
            for index in before..self.nodes.len() {
                self.ready(index).await?;
            }
        }
        self.whole(secs(120)).await
    }

    /// Starts the speaker of a node.
    ///
    /// # Errors
    /// It runs already, or cannot be started.
    pub fn start_speaker(&mut self, index: usize) -> Result<()> {
        let kubeconfig = &self.kubeconfig;
        let node = self.nodes.get_mut(index).with_context(|| format!("no node {index}"))?;
        if node.process.is_some() {
            bail!("a speaker runs on {}", node.name);
        }
        node.starts += 1;
        let spec = Spec::new(format!("{}.{}", node.pod_name(), node.starts), &self.programs.speaker)
            .arg(format!("--kubeconfig={}", kubeconfig.display()))
            .args([format!("--node-name={}", node.name), format!("--pod-name={}", node.pod_name())])
            .args(["--namespace=metallb-system".to_owned(), format!("--port={}", speaker::METRICS)])
            .arg(format!("--health-probe-port={}", speaker::HEALTH))
            .args(self.speaker_flags.clone())
            // As the manifests have it.
            .env("METALLB_ML_SECRET_KEY_PATH", &self.key)
            .env("METALLB_POD_IPS", node.v4.to_string())
            .netns(Some(&node.netns));
        node.process = Some(spec.spawn(&self.run)?);
        Ok(())
    }

    async fn ready(&mut self, index: usize) -> Result<()> {
        let node = self.nodes.get_mut(index).with_context(|| format!("no node {index}"))?;
        wait::until(&format!("the speaker of {} is ready", node.name), secs(90), || {
            let seen = node.died().map_or(Ok(node.ready()), Err);
            let log = if matches!(seen, Ok(true)) { String::new() } else { node.log_tail(3) };
            async move {
                Ok(match seen {
                    Err(died) => Seen::Done(Err(anyhow::Error::msg(died))),
                    Ok(true) => Seen::Done(Ok(())),
                    Ok(false) => Seen::Not(log),
                })
            }
        })
        .await?
    }

    /// Waits until every speaker that runs is ready and knows all others that run, and no more.
    ///
    /// # Errors
    /// The deadline passed; the text has who does not.
    pub async fn whole(&mut self, deadline: Duration) -> Result<()> {
        let nodes = &mut self.nodes;
        let running: Vec<usize> =
            (0..nodes.len()).filter(|i| nodes.get(*i).is_some_and(LanNode::runs)).collect();
        let wanted = running.len() as f64;
        // Who was not good at the last look, and why.
        let mut left: Vec<(usize, String)> = Vec::new();
        wait::until(&format!("{wanted} speakers know each other"), deadline, || {
            let died = nodes.iter_mut().find_map(LanNode::died);
            let lacks = |i: usize| {
                let node = nodes.get(i)?;
                match members(node) {
                    Ok(n) if n == wanted && node.ready() => None,
                    Ok(n) => Some((i, format!("{}: ready {}, {n} members", node.name, node.ready()))),
                    Err(error) => Some((i, format!("{}: {error:#}", node.name))),
                }
            };
            // These first; then all, in one look: what was seen first may have changed.
            left = left.iter().filter_map(|(i, _)| lacks(*i)).collect();
            if left.is_empty() {
                left = running.iter().filter_map(|i| lacks(*i)).collect();
            }
            let words: Vec<&str> = left.iter().take(4).map(|(_, words)| words.as_str()).collect();
            let seen = match died {
                Some(died) => Seen::Done(Err(anyhow::Error::msg(died))),
                None if left.is_empty() => Seen::Done(Ok(())),
                None => Seen::Not(words.join("; ")),
            };
            async move { Ok(seen) }
        })
        .await?
    }

    /// All nodes.
    #[must_use]
    pub fn nodes(&self) -> &[LanNode] {
        &self.nodes
    }

    /// A node.
    ///
    /// # Errors
    /// There is no such node.
    pub fn node_mut(&mut self, index: usize) -> Result<&mut LanNode> {
        self.nodes.get_mut(index).with_context(|| format!("no node {index}"))
    }

    /// The node whose eth0, or eth1, has this address.
    ///
    /// # Errors
    /// None has.
    pub fn index_of(&self, mac: Mac) -> Result<usize> {
        let found = self.nodes.iter().position(|node| [node.mac, node.second].contains(&mac));
        found.with_context(|| format!("{mac:02x?} is no node's"))
    }

    /// Where the client is.
    #[must_use]
    pub fn client_netns(&self) -> &Netns {
        &self.client
    }

    /// The namespace of the bridge, which sees every frame.
    #[must_use]
    pub fn net(&self) -> &Netns {
        &self.net
    }

    /// A client of the administrator.
    #[must_use]
    pub fn api(&self) -> Client {
        self.plane.client()
    }

    /// A prober in the client's place.
    ///
    /// # Errors
    /// No raw socket.
    pub fn prober(&self, targets: &[Ipv4Addr], every: Duration) -> Result<Prober> {
        Prober::start(&self.client, CLIENT, targets, every)
    }

    /// A prober in the place of the client on the second network.
    ///
    /// # Errors
    /// No raw socket, or no second network.
    pub fn prober_there(&self, targets: &[Ipv4Addr], every: Duration) -> Result<Prober> {
        let client = self.client_there.as_ref().context("there is no second network")?;
        Prober::start(client, CLIENT_THERE, targets, every)
    }

    /// Another host on the wire, which runs nothing. Its address is 172.25.0.(10 + number).
    ///
    /// # Errors
    /// Not root.
    pub fn stranger(&mut self, mac: Option<Mac>) -> Result<Stranger> {
        self.strangers += 1;
        let number = self.strangers;
        let v4 = Ipv4Addr::new(172, 25, 0, 10 + number);
        let mac = mac.unwrap_or([0x02, 0x25, 0xff, 0, 0, number]);
        let netns = wires::plug(&self.run, &self.net, &format!("x{number}"), mac, v4)?;
        Ok(Stranger { netns, v4, mac })
    }

    /// Creates the Services with these numbers and waits until they have addresses; in the order of the numbers.
    ///
    /// # Errors
    /// The controller did not give them.
    pub async fn services(&self, numbers: Range<usize>) -> Result<Vec<Ipv4Addr>> {
        let node = self.nodes.first().context("no node")?;
        objects::services(&self.api(), numbers.clone(), &node.name).await?;
        self.addresses(numbers).await
    }

    /// Waits until the Services with these numbers have addresses; in the order of the numbers.
    ///
    /// # Errors
    /// The controller did not give them.
    pub async fn addresses(&self, numbers: Range<usize>) -> Result<Vec<Ipv4Addr>> {
        let services: Api<Service> = Api::namespaced(self.api(), NAMESPACE);
        let names: BTreeSet<String> = numbers.clone().map(objects::service_name).collect();
        wait::until(&format!("Services {numbers:?} have addresses"), secs(600), || {
            let (services, names) = (&services, &names);
            async move {
                if names.len() > 100 {
                    // To list ten thousand takes a second, of the API server's time too.
                    tokio::time::sleep(secs(2)).await;
                }
                // From the API server's cache: what it lacks, the next look finds.
                let all = services.list(&ListParams::default().match_any()).await?.items;
                let ours = all.iter().filter(|service| names.contains(&service.name_any()));
                let mut found: Vec<(String, Ipv4Addr)> =
                    ours.filter_map(|service| Some((service.name_any(), address(service)?))).collect();
                found.sort();
                Ok(if found.len() == names.len() {
                    Seen::Done(found.into_iter().map(|(_, ip)| ip).collect())
                } else {
                    Seen::Not(format!("{} of {}", found.len(), names.len()))
                })
            }
        })
        .await
    }

    /// Annotations of the only advertisement (failback, say).
    ///
    /// # Errors
    /// The API server refused them.
    pub async fn annotate_advertisement(&self, annotations: Value) -> Result<()> {
        self.plane.apply(&objects::advertisement(&annotations).to_string()).await.map(drop)
    }

    /// Merges `patch` into the Node.
    ///
    /// # Errors
    /// The API server refused it.
    pub async fn patch_node(&self, index: usize, patch: &Value) -> Result<()> {
        let node = self.nodes.get(index).with_context(|| format!("no node {index}"))?;
        let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(self.api());
        nodes.patch(&node.name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// All objects of a kind of group `patina.io`.
    ///
    /// # Errors
    /// The API server refused.
    pub async fn conflicts(&self) -> Result<Vec<DynamicObject>> {
        let kind = GroupVersionKind::gvk("patina.io", "v1beta1", "AddressConflict");
        let resource = ApiResource::from_gvk_with_plural(&kind, "addressconflicts");
        Ok(Api::<DynamicObject>::all_with(self.api(), &resource).list(&Default::default()).await?.items)
    }

    /// Breaks the cable of a node.
    ///
    /// # Errors
    /// No such node.
    pub fn cut(&self, index: usize, how: Cut) -> Result<()> {
        let node = self.nodes.get(index).with_context(|| format!("no node {index}"))?;
        wires::cut(&self.net, &node.name, how)
    }

    /// Makes the cable of a node whole.
    ///
    /// # Errors
    /// No such node.
    pub fn mend(&self, index: usize) -> Result<()> {
        let node = self.nodes.get(index).with_context(|| format!("no node {index}"))?;
        wires::mend(&self.net, &node.name, "br0")
    }

    /// Breaks the second cable of a node.
    ///
    /// # Errors
    /// No such node, or no second network.
    pub fn cut_second(&self, index: usize, how: Cut) -> Result<()> {
        let node = self.nodes.get(index).with_context(|| format!("no node {index}"))?;
        wires::cut(&self.net, &wires::second_port(&node.name), how)
    }

    /// Makes the second cable of a node whole.
    ///
    /// # Errors
    /// No such node, or no second network.
    pub fn mend_second(&self, index: usize) -> Result<()> {
        let node = self.nodes.get(index).with_context(|| format!("no node {index}"))?;
        wires::mend(&self.net, &wires::second_port(&node.name), "br2")
    }

    /// Keeps the logs when the LAN ends.
    pub fn keep_logs(&self) {
        self.run.keep_logs();
    }

    /// A process of the LAN's run, beside the API server.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(&self, spec: Spec) -> Result<Process> {
        spec.spawn(&self.run)
    }

    /// The ends of the logs of controller and speakers.
    #[must_use]
    pub fn log_tails(&self) -> String {
        let controller = self.controller.as_ref().map(|c| c.log_tail(10)).unwrap_or_default();
        let speakers = self.nodes.iter().map(|n| format!("--- {}\n{}\n", n.name, n.log_tail(8)));
        format!("--- controller\n{controller}\n{}", speakers.collect::<String>())
    }
}

/// A host that is nobody's node.
#[derive(Debug, Clone)]
pub struct Stranger {
    /// Its namespace.
    pub netns: Netns,
    /// Its address.
    pub v4: Ipv4Addr,
    /// Its MAC address.
    pub mac: Mac,
}

/// The Secret that the controller makes for the membership, as a kubelet would have mounted it.
fn secret(run: &RunDir) -> Result<PathBuf> {
    let dir = run.dir("memberlist")?;
    let mut random = [0_u8; 64];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut random)?;
    let text: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    std::fs::write(dir.join("secretkey"), text)?;
    Ok(dir)
}

/// How many speakers one knows that live and have decided, itself included.
fn members(node: &LanNode) -> Result<f64> {
    let text = node.metrics()?;
    let of = |state| speaker::sum(&text, "patina_membership_members", state);
    let up = of(r#"state="up""#).context("there is no metric of the membership: is it off?")?;
    Ok(up + of(r#"state="draining""#).unwrap_or_default())
}

fn address(service: &Service) -> Option<Ipv4Addr> {
    let ingress = service.status.as_ref()?.load_balancer.as_ref()?.ingress.as_ref()?;
    ingress.iter().find_map(|entry| entry.ip.as_ref()?.parse().ok())
}
