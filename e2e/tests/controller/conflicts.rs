//! A foreign host uses the address of a Service.

use serde_json::Value;

use crate::stage::{NAMESPACE, Stage, condition};

impl Stage {
    /// What the speaker of node `n1` writes.
    async fn conflict(&self, name: &str, address: &str, in_use: bool) {
        self.apply(&format!(
            "apiVersion: patina.io/v1beta1\nkind: AddressConflict\nmetadata: {{ name: {name}, namespace: {NAMESPACE} }}\n\
             spec:\n  address: {address}\n  node: n1\n  interface: eth0\n  mac: \"02:00:00:00:00:66\"\n  inUse: {in_use}\n  \
             firstSeen: \"2026-01-02T03:04:05Z\"\n  service: {{ namespace: default, name: {name} }}\n"
        ))
        .await;
    }

    async fn over(&self, name: &str) {
        self.plane.kubectl(&["delete", "addressconflict", name, "-n", NAMESPACE]).await.unwrap();
    }
}

#[tokio::test]
async fn an_address_that_was_found_to_be_foreign_before_its_first_use_is_exchanged() {
    let stage = Stage::with_crds().await;
    stage.pool("pool", &["192.0.2.1-192.0.2.9"], "").await;
    let _controller = stage.controller("ctl", &[]);
    stage.service("web", "", "").await;
    stage.has("web", &["192.0.2.1"], "pool").await;
    stage.conflict("web", "192.0.2.1", false).await;
    let web = stage.has("web", &["192.0.2.2"], "pool").await;
    assert_eq!(
        condition(&web, "patina.io/Announced"),
        None,
        "nothing keeps the new one from being announced"
    );
    let lost = stage.event("Service", "web", "ClearAssignment").await.note.unwrap();
    for part in ["192.0.2.1 is in use by another host", "02:00:00:00:00:66", "node n1"] {
        assert!(lost.contains(part), "{lost}");
    }

    // Nobody else gets it either, as long as it is so.
    stage.service("next", "", "").await;
    stage.has("next", &["192.0.2.3"], "pool").await;
    stage.service("eager", "", "loadBalancerIP: 192.0.2.1").await;
    stage.waits("eager", "AddressUsedByNetwork").await;
    stage.over("web").await;
    stage.has("eager", &["192.0.2.1"], "pool").await;
    stage.has("web", &["192.0.2.2"], "pool").await;
}

#[tokio::test]
async fn an_address_in_use_or_asked_for_stays_and_the_condition_says_who_has_it() {
    let stage = Stage::with_crds().await;
    stage.pool("pool", &["192.0.2.1-192.0.2.9"], "").await;
    let mut controller = stage.controller("ctl", &[]);
    stage.service("web", "", "").await;
    stage.has("web", &["192.0.2.1"], "pool").await;
    stage.service("wish", "", "loadBalancerIP: 192.0.2.7").await;
    stage.has("wish", &["192.0.2.7"], "pool").await;
    stage.conflict("web", "192.0.2.1", true).await;
    stage.conflict("wish", "192.0.2.7", false).await;
    for (name, address) in [("web", "192.0.2.1"), ("wish", "192.0.2.7")] {
        says_conflict(&stage, name, address).await;
    }

    // Also a controller that starts anew.
    controller.process.kill();
    let _controller = stage.controller("ctl-2", &[]);
    stage.service("third", "", "").await;
    stage.has("third", &["192.0.2.2"], "pool").await;
    says_conflict(&stage, "web", "192.0.2.1").await;

    stage.over("web").await;
    let web = stage.until("web", "is without the condition", |service| {
        condition(service, "patina.io/Announced").is_none()
    });
    let status = web.await.status.unwrap();
    let ingress = serde_json::to_value(status.load_balancer.unwrap()).unwrap();
    assert_eq!(ingress["ingress"][0]["ip"], Value::from("192.0.2.1"));
}

async fn says_conflict(stage: &Stage, name: &str, address: &str) {
    let service = stage.until(name, "has a condition about the conflict", |service| {
        condition(service, "patina.io/Announced").is_some_and(|c| c.0 == "False" && c.1 == "AddressConflict")
    });
    let service = service.await;
    let said = condition(&service, "patina.io/Announced").unwrap().2;
    for part in [address, "MAC 02:00:00:00:00:66", "node n1"] {
        assert!(said.contains(part), "{said}");
    }
    assert_eq!(crate::stage::ingress(&service), [address]);
    assert_eq!(condition(&service, "patina.io/Allocated").unwrap().0, "True");
}
