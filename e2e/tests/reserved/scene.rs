//! A stage with nodes, and a controller with the rights of the chart.

use patina_e2e::ports::Port;
use patina_e2e::process::{Process, Spec};
use patina_e2e::wait::{self, Seen};
use patina_e2e::{binaries, paths};
use serde_json::Value;

use crate::stage::{NAMESPACE, SOON, Stage};

/// A running controller, and the ports that are its own.
pub(crate) struct Running {
    pub(crate) process: Process,
    _ports: [Port; 2],
}

pub(crate) struct Scene {
    pub(crate) stage: Stage,
}

impl Scene {
    /// The controller's ServiceAccount has the rights that the chart renders, but for what `without` finds in a rule.
    pub(crate) async fn new(without: &[&str]) -> Self {
        let stage = Stage::with_crds().await;
        stage.apply(&rights(without)).await;
        Self { stage }
    }

    pub(crate) async fn controller(&self, name: &str) -> Running {
        let ports = [Port::reserve().unwrap(), Port::reserve().unwrap()];
        let kubeconfig = self.stage.plane.kubeconfig_for(NAMESPACE, "patina-controller").await.unwrap();
        let process = Spec::new(name, binaries::path("patina-controller").unwrap())
            .arg(format!("--port={}", ports[0].number()))
            .arg(format!("--health-probe-port={}", ports[1].number()))
            .args(["--namespace", NAMESPACE, "--webhook-mode=disabled"])
            .args(["--log-level=debug", "--log-format=text"])
            .env("KUBECONFIG", kubeconfig)
            .env("METALLB_POD_NAME", name)
            .spawn(self.stage.plane.run())
            .unwrap();
        Running { process, _ports: ports }
    }

    /// A node as kubelet and controller-manager leave it.
    pub(crate) async fn node(&self, name: &str, addresses: &[&str], pod_cidrs: &[&str]) {
        let cidrs = pod_cidrs.iter().map(|cidr| format!("\"{cidr}\"")).collect::<Vec<_>>().join(", ");
        let spec = match pod_cidrs.first() {
            Some(first) => format!("{{podCIDR: \"{first}\", podCIDRs: [{cidrs}]}}"),
            None => "{}".to_owned(),
        };
        self.stage
            .apply(&format!("apiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\nspec: {spec}\n"))
            .await;
        let entry = |ip: &&str| format!(r#"{{"type":"InternalIP","address":"{ip}"}}"#);
        let list = addresses.iter().map(entry).collect::<Vec<_>>().join(",");
        let patch = format!(r#"{{"status":{{"addresses":[{list}]}}}}"#);
        self.kubectl(&["patch", "node", name, "--subresource=status", "--type=merge", "-p", &patch]).await;
    }

    /// What the speaker of a node tells of its networks.
    pub(crate) async fn told(&self, node: &str, networks: &str) {
        self.stage
            .apply(&format!(
                "apiVersion: metallb.io/v1beta1\nkind: ConfigurationState\nmetadata:\n  name: speaker-{node}\n  \
                 namespace: {NAMESPACE}\n  labels: {{metallb.io/component-type: speaker, metallb.io/node-name: {node}}}\n  \
                 annotations:\n    patina.io/networks: '{networks}'\n"
            ))
            .await;
    }

    pub(crate) async fn kubectl(&self, args: &[&str]) -> String {
        self.stage.plane.kubectl(args).await.unwrap()
    }

    /// Notes of the events with this reason about an object, oldest first.
    pub(crate) async fn notes(&self, kind: &str, name: &str, reason: &str) -> Vec<String> {
        let selector = format!("reason={reason}");
        let args = ["get", "events.events.k8s.io", "-A", "--field-selector", &selector, "-o", "json"];
        let list: Value = serde_json::from_str(&self.kubectl(&args).await).unwrap();
        let about = |event: &&Value| event["regarding"]["kind"] == kind && event["regarding"]["name"] == name;
        let mut notes: Vec<(String, String)> = list["items"]
            .as_array()
            .unwrap()
            .iter()
            .filter(about)
            .map(|event| (event["eventTime"].to_string(), event["note"].as_str().unwrap().to_owned()))
            .collect();
        notes.sort();
        notes.into_iter().map(|(_, note)| note).collect()
    }

    /// Waits until the last such event says all of `parts`.
    pub(crate) async fn said(&self, kind: &str, name: &str, reason: &str, parts: &[&str]) -> String {
        let seen = wait::until(&format!("an event {reason} about {name} says {parts:?}"), SOON, || async {
            let notes = self.notes(kind, name, reason).await;
            let last = notes.last().filter(|note| parts.iter().all(|part| note.contains(part))).cloned();
            Ok(last.map_or_else(|| Seen::Not(format!("{notes:?}")), Seen::Done))
        })
        .await;
        seen.unwrap_or_else(|error| panic!("{error:#}\n{}", self.stage.logs()))
    }

    /// Waits until the status of a pool is this: assigned and available IPv4 addresses.
    pub(crate) async fn pool_is(&self, pool: &str, assigned: i64, available: i64) {
        let seen = wait::until(&format!("pool {pool} is {assigned}/{available}"), SOON, || async {
            let status = self.stage.object("IPAddressPool", pool).await["status"].clone();
            let now = (status["assignedIPv4"].as_i64(), status["availableIPv4"].as_i64());
            Ok(Seen::when(now == (Some(assigned), Some(available)), now))
        })
        .await;
        seen.map(drop).unwrap_or_else(|error| panic!("{error:#}\n{}", self.stage.logs()));
    }
}

/// The controller's ServiceAccount and rights, as the chart renders them; rules that say one of `without` are left out.
fn rights(without: &[&str]) -> String {
    let golden = paths::workspace().join("charts/patina/tests/golden/default.yaml");
    let text = std::fs::read_to_string(golden).unwrap();
    let kinds = ["ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"];
    let wanted = |document: &&str| {
        document.lines().any(|line| line.strip_prefix("kind: ").is_some_and(|kind| kinds.contains(&kind)))
            && document.contains("controller")
    };
    let mut documents: Vec<String> = text.split("\n---\n").filter(wanted).map(str::to_owned).collect();
    assert!(documents.len() >= 5, "the golden has lost its rights");
    for document in documents.iter_mut().filter(|document| document.contains("\nrules:\n")) {
        let (head, rules) = document.split_once("\nrules:\n").unwrap();
        let kept = format!("\n{rules}").split("\n  - ").skip(1).map(str::to_owned).collect::<Vec<_>>();
        let kept: Vec<_> =
            kept.into_iter().filter(|rule| !without.iter().any(|word| rule.contains(word))).collect();
        *document = format!("{head}\nrules:\n  - {}", kept.join("\n  - "));
    }
    documents.join("\n---\n") + "\n"
}
