//! A bridge with the API server on it, and two nodes `a` and `b` with a speaker each. Nobody else writes: no controller,
//! no kubelet.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Result;
use patina_e2e::control_plane::{ControlPlane, Options};
use patina_e2e::netns::Netns;
use patina_e2e::process::{Process, Spec};
use patina_e2e::rundir::RunDir;
use patina_e2e::wait::{self, Seen, secs};
use patina_e2e::{binaries, paths};
use serde_json::Value;

pub(crate) const NAMESPACE: &str = "metallb-system";
pub(crate) const VIP: &str = "172.25.7.100";
pub(crate) const VIP6: &str = "fd00:25:7::100";
const API: &str = "172.25.7.1:6443";

pub(crate) struct World {
    pub(crate) plane: ControlPlane,
    pub(crate) lan: Netns,
    pub(crate) nodes: BTreeMap<&'static str, Netns>,
    pub(crate) speakers: BTreeMap<&'static str, Process>,
    run: Arc<RunDir>,
}

impl World {
    /// Two nodes with ready speakers, a pool and an advertisement for it, and no Service.
    pub(crate) async fn new() -> Self {
        let run = Arc::new(RunDir::create().unwrap());
        let lan = Netns::create(&run, "lan").expect("network namespaces need root and the package iproute2");
        lan.ip(&["link", "add", "br0", "type", "bridge"]).unwrap();
        address(&lan, "br0", 1);
        let mut nodes = BTreeMap::new();
        for (node, host) in [("a", 11), ("b", 12)] {
            let netns = Netns::create(&run, node).unwrap();
            let port = format!("port-{node}");
            lan.ip(&["link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", netns.name()])
                .unwrap();
            lan.ip(&["link", "set", &port, "master", "br0", "up"]).unwrap();
            address(&netns, "eth0", host);
            nodes.insert(node, netns);
        }
        let options = Options {
            run: Some(Arc::clone(&run)),
            inside: Some((lan.clone(), API.parse().unwrap())),
            controller_manager: false,
            ..Options::default()
        };
        let plane = ControlPlane::start(options).await.unwrap();
        plane.apply_crds().await.unwrap();
        let mut world = Self { plane, lan, nodes, speakers: BTreeMap::new(), run };
        world.apply(&format!("{}---\n{CLUSTER}", rights())).await;
        for node in ["a", "b"] {
            world.set_ready(node, true).await;
            world.start_speaker(node).await;
        }
        world
    }

    /// Starts the speaker of a node with the rights that the chart gives it, and waits until it is ready.
    pub(crate) async fn start_speaker(&mut self, node: &'static str) {
        let process = self.spawn_speaker(node).await;
        self.speakers.insert(node, process);
        let netns = self.nodes[node].clone();
        self.until(&format!("the speaker of {node} is ready"), || async {
            let said = netns.exec("curl", &["-sf", "http://127.0.0.1:17472/readyz"])?;
            Ok(Seen::when(said == "ok\n", said))
        })
        .await;
    }

    /// Starts it, and waits for nothing.
    pub(crate) async fn spawn_speaker(&self, node: &'static str) -> Process {
        let kubeconfig = self.plane.inside_kubeconfig_for(NAMESPACE, "patina-speaker").await.unwrap();
        // Root with one capability, as the chart's securityContext has it.
        Spec::new(format!("speaker-{node}"), "setpriv")
            .args(["--bounding-set=-all,+net_raw", "--inh-caps=-all", "--no-new-privs"])
            .arg(binaries::path("patina-speaker").unwrap())
            .env("KUBECONFIG", kubeconfig)
            .env("METALLB_NODE_NAME", node)
            .env("METALLB_POD_NAME", format!("speaker-{node}"))
            .args(["--namespace", NAMESPACE, "--log-format=text", "--log-level=debug"])
            .netns(Some(&self.nodes[node]))
            .spawn(&self.run)
            .unwrap()
    }

    /// Waits for a condition; what the speakers said when it does not come.
    pub(crate) async fn until<T, F, Fut>(&self, what: &str, look: F) -> T
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<Seen<T>>>,
    {
        match wait::until(what, secs(15), look).await {
            Ok(value) => value,
            Err(error) => {
                let logs: String = self
                    .speakers
                    .iter()
                    .map(|(node, p)| format!("--- speaker of {node}\n{}\n", p.log_tail(30)))
                    .collect();
                panic!("{error:#}\n{logs}");
            }
        }
    }

    pub(crate) async fn apply(&self, yaml: &str) {
        self.plane.apply(yaml).await.unwrap();
    }

    pub(crate) async fn kubectl(&self, args: &[&str]) -> String {
        self.plane.kubectl(args).await.unwrap()
    }

    /// Writes a status, as its owner would.
    pub(crate) async fn set_status(&self, what: &[&str], patch: &str) {
        let patch = ["patch", "--subresource=status", "--type=merge", "-p", patch];
        self.kubectl(&[&patch, what].concat()).await;
    }

    /// What the kubelet says of the speaker's Pod.
    pub(crate) async fn set_ready(&self, node: &str, ready: bool) {
        let status = if ready { "True" } else { "False" };
        let patch = format!(
            r#"{{"status":{{"phase":"Running","conditions":[{{"type":"Ready","status":"{status}"}}]}}}}"#
        );
        self.set_status(&["-n", NAMESPACE, "pod", &format!("speaker-{node}")], &patch).await;
    }

    /// Service `web` of type LoadBalancer with these addresses; endpoints as given (see [`World::endpoints`]).
    pub(crate) async fn service(&self, extra: &str, addresses: &[&str], endpoints: &str) {
        self.apply(&format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: default}}\n\
             spec:\n  type: LoadBalancer\n  ipFamilyPolicy: PreferDualStack\n  ports: [{{port: 80}}]\n{extra}\n"
        ))
        .await;
        let ips: Vec<_> = addresses.iter().map(|ip| format!(r#"{{"ip":"{ip}"}}"#)).collect();
        let patch = format!(r#"{{"status":{{"loadBalancer":{{"ingress":[{}]}}}}}}"#, ips.join(","));
        self.set_status(&["service", "web"], &patch).await;
        self.endpoints(endpoints).await;
    }

    /// The EndpointSlice of `web`: words like `a:ready`, `b:serving`, `b:gone`.
    pub(crate) async fn endpoints(&self, endpoints: &str) {
        let mut yaml = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
             metadata: {name: web-1, namespace: default, labels: {kubernetes.io/service-name: web}}\n\
             ports: [{port: 8080}]\nendpoints:\n"
            .to_owned();
        for (i, endpoint) in endpoints.split_whitespace().enumerate() {
            let (node, state) = endpoint.split_once(':').unwrap();
            let (ready, serving) = (state == "ready", state != "gone");
            yaml += &format!(
                "- {{addresses: [10.244.1.{i}], nodeName: {node}, conditions: {{ready: {ready}, serving: {serving}}}}}\n"
            );
        }
        self.apply(&yaml).await;
    }

    /// Who answers for an address: asked once.
    pub(crate) fn who(&self, ip: &str) -> Option<&'static str> {
        let args = match ip.contains(':') {
            false => ("arping", vec!["-r", "-C", "1", "-c", "1", "-w", "1", "-i", "br0", ip]),
            true => ("ndisc6", vec!["-q", "-1", "-r", "1", "-w", "700", ip, "br0"]),
        };
        let said = self.lan.exec(args.0, &args.1).ok()?.to_lowercase();
        let mac = said.split_whitespace().next()?.to_owned();
        let of = |netns: &Netns| netns.ip(&["-o", "link", "show", "eth0"]).unwrap().contains(&mac);
        self.nodes.iter().find(|(_, netns)| of(netns)).map(|(node, _)| *node)
    }

    /// Waits until this node, or nobody, answers, and nobody else does.
    pub(crate) async fn until_answered_by(&self, ip: &str, node: Option<&'static str>) {
        self.until(&format!("{node:?} answers for {ip}"), || async {
            let who = self.who(ip);
            Ok(Seen::when(who == node, who))
        })
        .await;
    }

    /// Waits until somebody answers.
    pub(crate) async fn leader(&self, ip: &str) -> &'static str {
        self.until(&format!("somebody answers for {ip}"), || async {
            Ok(self.who(ip).map_or_else(|| Seen::Not("nobody".to_owned()), Seen::Done))
        })
        .await
    }

    /// The ServiceL2Status objects as (node, interfaces).
    pub(crate) async fn statuses(&self) -> Vec<Value> {
        let list = self.kubectl(&["get", "servicel2statuses", "-n", NAMESPACE, "-o", "json"]).await;
        let mut list: Value = serde_json::from_str(&list).unwrap();
        list["items"].take().as_array().unwrap().clone()
    }

    /// Waits until there is exactly one status object, of this node, complete; or none.
    pub(crate) async fn until_status_of(&self, node: Option<&str>) -> Option<Value> {
        self.until(&format!("the ServiceL2Status is that of {node:?}"), || async {
            let all = self.statuses().await;
            let nodes: Vec<_> = all.iter().map(|object| object["status"]["node"].as_str()).collect();
            let expected: Vec<_> = node.iter().map(|node| Some(*node)).collect();
            Ok(if nodes == expected {
                Seen::Done(all.first().cloned())
            } else {
                Seen::Not(format!("{all:?}"))
            })
        })
        .await
    }

    /// Notes of the events about Service `web` with this reason, oldest first.
    pub(crate) async fn events(&self, reason: &str) -> Vec<String> {
        let selector = format!("reason={reason}");
        let list =
            self.kubectl(&["get", "events.events.k8s.io", "--field-selector", &selector, "-o", "json"]).await;
        let list: Value = serde_json::from_str(&list).unwrap();
        let mut events: Vec<_> = list["items"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|event| event["regarding"]["name"] == "web")
            .map(|event| {
                (event["eventTime"].to_string(), event["note"].as_str().unwrap_or_default().to_owned())
            })
            .collect();
        events.sort();
        events.into_iter().map(|(_, note)| note).collect()
    }

    pub(crate) async fn until_event(&self, reason: &str, part: &str) {
        self.until(&format!("an event {reason} says {part:?}"), || async {
            let events = self.events(reason).await;
            Ok(Seen::when(events.last().is_some_and(|note| note.contains(part)), events))
        })
        .await;
    }

    /// The metrics page of a speaker.
    pub(crate) fn metrics(&self, node: &str) -> String {
        self.nodes[node].exec("curl", &["-sf", "http://127.0.0.1:7472/metrics"]).unwrap()
    }
}

fn address(netns: &Netns, device: &str, host: u8) {
    netns.ip(&["address", "add", &format!("172.25.7.{host}/24"), "dev", device]).unwrap();
    netns.ip(&["address", "add", &format!("fd00:25:7::{host:x}/64"), "dev", device, "nodad"]).unwrap();
    netns.ip(&["link", "set", device, "up"]).unwrap();
}

/// The speaker's ServiceAccount and rights, as the chart renders them.
fn rights() -> String {
    let golden = paths::workspace().join("charts/patina/tests/golden/default.yaml");
    let text = std::fs::read_to_string(golden).unwrap();
    let kinds = ["ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"];
    let wanted = |document: &&str| {
        document.lines().any(|line| line.strip_prefix("kind: ").is_some_and(|kind| kinds.contains(&kind)))
    };
    let documents: Vec<_> = text.split("\n---\n").filter(wanted).collect();
    assert!(documents.len() >= 5, "the golden has lost its rights");
    format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NAMESPACE}}}\n---\n{}\n",
        documents.join("\n---\n")
    )
}

const CLUSTER: &str = "
apiVersion: v1
kind: Node
metadata: {name: a, labels: {rack: left}}
---
apiVersion: v1
kind: Node
metadata: {name: b, labels: {rack: right}}
---
apiVersion: v1
kind: Pod
metadata: {name: speaker-a, namespace: metallb-system, labels: {app.kubernetes.io/component: speaker}}
spec: {nodeName: a, serviceAccountName: patina-speaker, automountServiceAccountToken: false, containers: [{name: speaker, image: patina}]}
---
apiVersion: v1
kind: Pod
metadata: {name: speaker-b, namespace: metallb-system, labels: {app.kubernetes.io/component: speaker}}
spec: {nodeName: b, serviceAccountName: patina-speaker, automountServiceAccountToken: false, containers: [{name: speaker, image: patina}]}
---
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: pool, namespace: metallb-system}
spec: {addresses: [172.25.7.100-172.25.7.250, 'fd00:25:7::100-fd00:25:7::1ff']}
---
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata: {name: all, namespace: metallb-system}
spec: {}
";
