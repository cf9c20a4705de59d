//! A speaker's ConfigurationState: what it thinks of the configuration, and what it tells of its node's networks.

use patina_e2e::binaries;
use patina_e2e::process::Spec;
use patina_e2e::wait::Seen;
use serde_json::{Value, json};

use crate::world::{NAMESPACE, VIP, World};

impl World {
    async fn state_of(&self, node: &str) -> Option<Value> {
        let name = format!("speaker-{node}");
        let args = ["get", "configurationstates", "-n", NAMESPACE, "-o", "json"];
        let list: Value = serde_json::from_str(&self.kubectl(&args).await).unwrap();
        list["items"].as_array().unwrap().iter().find(|state| state["metadata"]["name"] == name).cloned()
    }

    /// Waits until the ConfigurationState of a node's speaker is as it should be.
    async fn until_state(&self, node: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        self.until(&format!("the ConfigurationState of {node} {what}"), || async {
            Ok(match self.state_of(node).await {
                Some(state) if holds(&state) => Seen::Done(state),
                other => Seen::Not(format!("{other:?}")),
            })
        })
        .await
    }
}

fn networks(state: &Value) -> Value {
    let text = state["metadata"]["annotations"]["patina.io/networks"].as_str().unwrap_or("null");
    serde_json::from_str(text).unwrap()
}

#[tokio::test]
async fn each_speaker_says_what_it_thinks_of_the_configuration() {
    let mut world = World::new().await;
    let valid = |state: &Value| state["status"]["result"] == "Valid";
    for node in ["a", "b"] {
        let state = world.until_state(node, "is valid", valid).await;
        let meta = &state["metadata"];
        assert_eq!(
            meta["labels"],
            json!({ "metallb.io/component-type": "speaker", "metallb.io/node-name": node })
        );
        assert_eq!(meta["ownerReferences"][0]["kind"], "Pod");
        assert_eq!(meta["ownerReferences"][0]["name"], format!("speaker-{node}"));
        assert_eq!(state["status"]["conditions"][0]["type"], "configReconcilerValid");
        assert_eq!(state["status"]["conditions"][0]["reason"], "Reconciled");
    }

    // What is refused is named, and taken back.
    let bad = format!(
        "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {{name: bad, namespace: {NAMESPACE}}}\n\
         spec: {{addresses: [172.25.7.101-172.25.7.102]}}\n"
    );
    world.apply(&bad).await;
    let state = world.until_state("a", "is invalid", |state| state["status"]["result"] == "Invalid").await;
    let summary = state["status"]["errorSummary"].as_str().unwrap();
    assert!(summary.contains("bad") && summary.contains("spec.addresses[0]"), "{summary}");
    assert_eq!(state["status"]["conditions"][0]["status"], "False");
    assert_eq!(state["status"]["conditions"][0]["reason"], "ConfigurationError");
    world.kubectl(&["delete", "ipaddresspool", "bad", "-n", NAMESPACE]).await;
    let state = world.until_state("a", "is valid again", valid).await;
    assert!(state["status"].get("errorSummary").is_none(), "{state}");

    // Somebody deletes it: it comes back.
    let uid = |state: &Value| state["metadata"]["uid"].clone();
    let before = uid(&state);
    world.kubectl(&["delete", "configurationstate", "speaker-a", "-n", NAMESPACE]).await;
    let state = world.until_state("a", "is there again", |state| valid(state) && uid(state) != before).await;

    // A new speaker of that node finds nothing to write.
    world.speakers.remove("a");
    world.start_speaker("a").await;
    world.service("", &[VIP], "a:ready").await;
    world.leader(VIP).await;
    let after = world.state_of("a").await.unwrap();
    assert_eq!(after["metadata"]["resourceVersion"], state["metadata"]["resourceVersion"]);
}

#[tokio::test]
async fn a_configuration_that_cannot_be_read_is_unknown() {
    let world = World::new().await;
    let valid = |state: &Value| state["status"]["result"] == "Valid";
    world.until_state("a", "is valid", valid).await;
    let mut world = world;
    world.speakers.remove("a");
    // The role loses the right to read pools.
    let patch = r#"[{"op": "remove", "path": "/rules/0"}]"#;
    world.kubectl(&["patch", "role", "patina-speaker", "-n", NAMESPACE, "--type=json", "-p", patch]).await;
    let speaker = world.spawn_speaker("a").await;
    world.speakers.insert("a", speaker);
    let unknown = |state: &Value| state["status"]["result"] == "Unknown";
    let state = world.until_state("a", "is unknown", unknown).await;
    let condition = &state["status"]["conditions"][0];
    assert_eq!((&condition["status"], &condition["reason"]), (&json!("Unknown"), &json!("UnknownError")));
    let message = condition["message"].as_str().unwrap();
    assert!(message.contains("IPAddressPool") && message.contains("forbidden"), "{message}");
}

#[tokio::test]
async fn the_gateways_of_a_node_are_told_and_the_controller_skips_them() {
    let world = World::new().await;
    let own = json!(["172.25.7.11/24", "fd00:25:7::b/64"]);
    world
        .until_state("a", "tells its addresses", |state| {
            networks(state) == json!({ "addresses": own, "gateways": [] })
        })
        .await;
    let gateways = |expected: Value| move |state: &Value| networks(state)["gateways"] == expected;
    let a = &world.nodes["a"];
    // In the pool: .100 is the first of it.
    a.ip(&["route", "add", "default", "via", "172.25.7.101"]).unwrap();
    world.until_state("a", "tells the gateway", gateways(json!(["172.25.7.101"]))).await;
    a.ip(&["-6", "route", "add", "default", "via", "fd00:25:7::101"]).unwrap();
    let both = json!(["172.25.7.101", "fd00:25:7::101"]);
    world.until_state("a", "tells that of IPv6 too", gateways(both)).await;
    // Other tables, several next hops, and what is no gateway.
    a.ip(&["route", "add", "default", "via", "172.25.7.102", "table", "100"]).unwrap();
    let hops = ["nexthop", "via", "172.25.7.101", "nexthop", "via", "172.25.7.103"];
    a.ip(&[&["route", "replace", "default"], hops.as_slice()].concat()).unwrap();
    a.ip(&["route", "add", "198.51.100.0/24", "via", "172.25.7.104"]).unwrap();
    let all = json!(["172.25.7.101", "172.25.7.102", "172.25.7.103", "fd00:25:7::101"]);
    world.until_state("a", "tells all gateways", gateways(all)).await;

    let kubeconfig = world.plane.inside_kubeconfig_for(NAMESPACE, "patina-controller").await.unwrap();
    let _controller = Spec::new("controller", binaries::path("patina-controller").unwrap())
        .args(["--namespace", NAMESPACE, "--log-format=text", "--log-level=debug", "--webhook-mode=disabled"])
        .env("KUBECONFIG", kubeconfig)
        .env("METALLB_POD_NAME", "controller")
        .netns(Some(&world.lan))
        .spawn(world.plane.run())
        .unwrap();
    world.apply(SERVICES).await;
    for (name, expected) in [("one", "172.25.7.100 fd00:25:7::100"), ("two", "172.25.7.104 fd00:25:7::102")] {
        world
            .until(&format!("Service {name} has {expected}"), || async {
                let path = "jsonpath={.status.loadBalancer.ingress[*].ip}";
                let said = world.kubectl(&["get", "service", name, "-o", path]).await;
                Ok(Seen::when(said == expected, said))
            })
            .await;
    }

    // The gateway goes: its address is one like any other.
    a.ip(&["route", "replace", "default", "via", "172.25.7.101"]).unwrap();
    let left = json!(["172.25.7.101", "172.25.7.102", "fd00:25:7::101"]);
    world.until_state("a", "tells what is left", gateways(left)).await;
    let named =
        r#"{"metadata": {"annotations": {"metallb.io/loadBalancerIPs": "172.25.7.103,fd00:25:7::103"}}}"#;
    world.kubectl(&["patch", "service", "two", "-p", named]).await;
    world
        .until("Service two has the address of the gateway that went", || async {
            let path = "jsonpath={.status.loadBalancer.ingress[*].ip}";
            let said = world.kubectl(&["get", "service", "two", "-o", path]).await;
            Ok(Seen::when(said == "172.25.7.103 fd00:25:7::103", said))
        })
        .await;
}

const SERVICES: &str = "
apiVersion: v1
kind: Service
metadata: {name: one, namespace: default}
spec: {type: LoadBalancer, ipFamilyPolicy: RequireDualStack, allocateLoadBalancerNodePorts: false, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: two, namespace: default}
spec: {type: LoadBalancer, ipFamilyPolicy: RequireDualStack, allocateLoadBalancerNodePorts: false, ports: [{port: 80}]}
";
