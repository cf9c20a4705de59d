//! `kubectl patina why`, `l2` and `drain` against a real API server, asked the way a person does: through kubectl, which finds the plugin.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed expectation is a failed test

use std::process::Output;

use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::{Patch, PatchParams};
use patina_e2e::binaries;
use patina_e2e::control_plane::{ControlPlane, Options};
use patina_e2e::tools::Tool;
use serde_json::{Value, json};

struct Case {
    plane: ControlPlane,
}

impl Case {
    async fn start() -> Self {
        let options = Options { controller_manager: false, ..Options::default() };
        let plane = ControlPlane::start(options).await.unwrap();
        plane.apply_crds().await.unwrap();
        plane.apply(CLUSTER).await.unwrap();
        Self { plane }
    }

    /// `kubectl patina ARGS`.
    async fn patina(&self, args: &[&str]) -> Output {
        let plugin = binaries::path("kubectl-patina").unwrap();
        let path = format!("{}:{}", plugin.parent().unwrap().display(), std::env::var("PATH").unwrap());
        tokio::process::Command::new(Tool::Kubectl.path().unwrap())
            .arg("patina")
            .args(args)
            .env("PATH", path)
            .env("KUBECONFIG", self.plane.admin_kubeconfig())
            .output()
            .await
            .unwrap()
    }

    async fn why(&self, name: &str) -> (Option<i32>, String) {
        let output = self.patina(&["why", name, "-n", "shop"]).await;
        let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        (output.status.code(), text)
    }

    async fn set_status(&self, name: &str, status: Value) {
        let services: Api<Service> = Api::namespaced(self.plane.client(), "shop");
        let patch = Patch::Merge(json!({"status": status}));
        services.patch_status(name, &PatchParams::default(), &patch).await.unwrap();
    }
}

#[tokio::test]
async fn why_follows_a_service_from_nothing_to_announced() {
    let case = Case::start().await;
    let (code, text) = case.why("absent").await;
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("there is no Service shop/absent"), "{text}");

    let (code, text) = case.why("internal").await;
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("It is of type ClusterIP"), "{text}");

    let (code, text) = case.why("web").await;
    assert_eq!(code, Some(1), "{text}");
    for part in ["no controller has said anything", "There is no controller Pod in namespace metallb-system"]
    {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }

    case.set_status("web", json!({"loadBalancer": {"ingress": [{"ip": "172.25.7.100"}]}})).await;
    let (code, text) = case.why("web").await;
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("No speaker announces it"), "{text}");

    case.plane.apply(L2_STATUS).await.unwrap();
    let name = "l2-of-web";
    let status = json!({"status": {
        "node": "node-2", "serviceName": "web", "serviceNamespace": "shop", "interfaces": [{"name": "eth0"}],
    }});
    let patch = [
        "patch",
        "servicel2status",
        name,
        "-n",
        "metallb-system",
        "--subresource=status",
        "--type=merge",
        "-p",
    ];
    case.plane.kubectl(&[&patch[..], &[&status.to_string()]].concat()).await.unwrap();
    let (code, text) = case.why("web").await;
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("node-2 announces it by layer 2, on eth0."), "{text}");

    let output = case.patina(&["why", "svc/web", "-n", "shop", "-o", "json"]).await;
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&value["works"], &value["announcers"][0]["node"]), (&json!(true), &json!("node-2")));
}

#[tokio::test]
async fn why_shows_events_and_a_refused_configuration() {
    let case = Case::start().await;
    let uid = case
        .plane
        .kubectl(&["get", "service", "web", "-n", "shop", "-o", "jsonpath={.metadata.uid}"])
        .await
        .unwrap();
    case.plane.apply(&EVENT.replace("UID", uid.trim())).await.unwrap();
    case.plane.apply(OVERLAPPING).await.unwrap();
    let (code, text) = case.why("web").await;
    assert_eq!(code, Some(1), "{text}");
    for part in
        ["AllocationFailed", "metallb-controller", "configuration is refused", "metallb-system/overlapping"]
    {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[tokio::test]
async fn l2_lists_announcers_and_drain_waits_until_they_have_moved() {
    let case = Case::start().await;
    case.plane.apply(NODES).await.unwrap();
    case.set_status("web", json!({"loadBalancer": {"ingress": [{"ip": "172.25.7.100"}]}})).await;
    let output = case.patina(&["l2"]).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("nobody announces it: noEndpoints"), "{text}");

    case.plane.apply(L2_STATUS).await.unwrap();
    let status = json!({"status": {
        "node": "node-2", "serviceName": "web", "serviceNamespace": "shop", "interfaces": [{"name": "eth0"}],
    }});
    let patch = ["patch", "servicel2status", "l2-of-web", "-n", "metallb-system", "--subresource=status"];
    let merge = ["--type=merge", "-p", &status.to_string()];
    case.plane.kubectl(&[&patch[..], &merge[..]].concat()).await.unwrap();
    let output = case.patina(&["l2", "shop/web", "-o", "json"]).await;
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{value:#}");
    assert_eq!(value["items"][0]["announcers"][0]["node"], "node-2", "{value:#}");

    // Nobody takes it over here: the time runs out, and the annotation is there.
    let output = case.patina(&["drain", "node-2", "--timeout", "1"]).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("1 Service is still announced from it: shop/web"), "{text}");
    let annotation = r"jsonpath={.metadata.annotations.patina\.io/drain}";
    let read = ["get", "node", "node-2", "-o", annotation];
    assert_eq!(case.plane.kubectl(&read).await.unwrap().trim(), "true");

    let gone = ["delete", "servicel2status", "l2-of-web", "-n", "metallb-system"];
    case.plane.kubectl(&gone).await.unwrap();
    let output = case.patina(&["drain", "node-2"]).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");

    assert_eq!(case.patina(&["drain", "node-2", "--undo"]).await.status.code(), Some(0));
    assert_eq!(case.plane.kubectl(&read).await.unwrap().trim(), "");
    let output = case.patina(&["drain", "absent"]).await;
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(String::from_utf8(output.stderr).unwrap().contains("there is no node absent"));
}

const NODES: &str = r#"
apiVersion: v1
kind: Node
metadata: {name: node-1}
---
apiVersion: v1
kind: Node
metadata: {name: node-2}
"#;

const CLUSTER: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: metallb-system}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Service
metadata: {namespace: shop, name: web}
spec: {type: LoadBalancer, allocateLoadBalancerNodePorts: false, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {namespace: shop, name: internal}
spec: {ports: [{port: 80}]}
---
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {namespace: metallb-system, name: default}
spec: {addresses: [172.25.7.100-172.25.7.250]}
---
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata: {namespace: metallb-system, name: all}
"#;

const L2_STATUS: &str = r#"
apiVersion: metallb.io/v1beta1
kind: ServiceL2Status
metadata: {namespace: metallb-system, name: l2-of-web}
spec: {}
"#;

/// No rule of a CRD can see it, and no webhook runs here.
const OVERLAPPING: &str = r#"
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {namespace: metallb-system, name: overlapping}
spec: {addresses: [172.25.7.250-172.25.8.1]}
"#;

const EVENT: &str = r#"
apiVersion: v1
kind: Event
metadata: {namespace: shop, name: web.1}
involvedObject: {apiVersion: v1, kind: Service, namespace: shop, name: web, uid: UID}
type: Warning
reason: AllocationFailed
message: no available IPs
source: {component: metallb-controller}
firstTimestamp: "2026-01-01T10:00:00Z"
lastTimestamp: "2026-01-01T10:00:00Z"
"#;
