//! Services that are not ours: untouched to the last byte.

use crate::stage::{SOON, Stage, ingress, load_balancer};
use k8s_openapi::api::core::v1::Service;
use kube::{Api, ResourceExt};
use patina_e2e::wait;

/// name, and the rest of the object
const OTHERS: &[(&str, &str)] = &[
    ("cluster-ip", "spec: { selector: { app: web }, ports: [{ port: 80 }] }"),
    ("node-port", "spec: { type: NodePort, selector: { app: web }, ports: [{ port: 80 }] }"),
    ("headless", "spec: { clusterIP: None, selector: { app: web }, ports: [{ port: 80 }] }"),
    ("external-name", "spec: { type: ExternalName, externalName: example.com }"),
    ("selector-less", "spec: { ports: [{ port: 80 }] }"),
    ("external-ips", "spec: { selector: { app: web }, ports: [{ port: 80 }], externalIPs: [10.20.0.200] }"),
    ("with-annotations", "spec: { type: NodePort, selector: { app: web }, ports: [{ port: 80 }] }"),
    (
        "other-class",
        "spec: { type: LoadBalancer, loadBalancerClass: example.com/other, selector: { app: web }, ports: [{ port: 80 }] }",
    ),
];

fn manifest(name: &str, rest: &str) -> String {
    let annotations = if name.ends_with("with-annotations") {
        "annotations: { metallb.io/address-pool: default, metallb.universe.tf/loadBalancerIPs: 10.20.0.7 }"
    } else {
        ""
    };
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{ name: {name}, namespace: default, {annotations} }}\n{rest}\n---\n"
    )
}

/// One test per kind of Service, all against one control plane: each is named in the failure.
#[tokio::test]
async fn every_service_that_is_not_a_load_balancer_of_ours_is_left_alone() {
    let stage = Stage::with_crds().await;
    stage.pool("default", &["10.20.0.0/24"], "").await;
    let before_start = OTHERS.iter().map(|(name, rest)| manifest(name, rest)).collect::<String>();
    stage.apply(&before_start).await;
    let services: Api<Service> = Api::namespaced(stage.client(), "default");
    let mut before = Vec::new();
    for (name, _) in OTHERS {
        before.push(services.get(name).await.unwrap());
    }
    let _controller = stage.controller("ctl", &[]);
    // Those that are there when it starts, and those that come afterwards.
    stage.service("first", "", "").await;
    stage.has("first", &["10.20.0.0"], "default").await;
    for (name, rest) in OTHERS {
        stage.apply(&manifest(&format!("late-{name}"), rest)).await;
    }
    for (name, _) in OTHERS {
        before.push(services.get(&format!("late-{name}")).await.unwrap());
    }
    // A Service served after all of them: the controller has seen them.
    stage.service("last", "", "").await;
    stage.has("last", &["10.20.0.1"], "default").await;
    for old in before {
        let now = services.get(&old.name_any()).await.unwrap();
        assert_eq!(
            serde_json::to_string(&old).unwrap(),
            serde_json::to_string(&now).unwrap(),
            "Service {} was touched",
            old.name_any()
        );
        assert!(ingress(&now).is_empty());
    }
}

#[tokio::test]
async fn a_load_balancer_without_selector_is_served() {
    let stage = Stage::with_crds().await;
    stage.pool("default", &["10.20.0.10/32"], "").await;
    let _controller = stage.controller("ctl", &[]);
    let manifest = load_balancer("manual", "", "").replace("selector: { app: web }, ", "");
    assert!(!manifest.contains("selector"));
    stage.apply(&manifest).await;
    stage.has("manual", &["10.20.0.10"], "default").await;
}

#[tokio::test]
async fn with_a_class_only_services_of_that_class_are_served() {
    let stage = Stage::with_crds().await;
    stage.pool("default", &["10.20.0.0/24"], "").await;
    stage.service("plain", "", "").await;
    stage.service("other", "", "loadBalancerClass: example.com/other").await;
    stage.service("ours", "", "loadBalancerClass: example.com/patina").await;
    let plain = stage.get("plain").await.unwrap();
    let _controller = stage.controller("ctl", &["--lb-class=example.com/patina"]);
    stage.has("ours", &["10.20.0.0"], "default").await;
    wait::holds("the others are left alone", SOON / 10, || async {
        assert_eq!(stage.get("plain").await?, plain);
        assert!(ingress(&stage.get("other").await?).is_empty());
        Ok(wait::Seen::Done(()))
    })
    .await
    .unwrap();
}
