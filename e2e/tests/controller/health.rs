//! What `/readyz` and the metrics say.

use crate::stage::{Stage, ingress};

#[tokio::test]
async fn readyz_names_what_is_missing() {
    let stage = Stage::with_crds().await;
    // A user without any right.
    let kubeconfig = stage.plane.kubeconfig_for_user("nobody", &[]).unwrap();
    let controller = stage.controller_as("ctl", &["--lease-duration=6"], &kubeconfig);
    let said = controller.readyz_says("leadership: cannot take the Lease patina-controller").await;
    assert!(said.contains("forbidden") && said.contains("configuration: IPAddressPool"), "{said}");
    // The Lease, but no Services: it leads, and cannot work.
    let lease = ["create", "clusterrole", "lease", "--verb=*", "--resource=leases.coordination.k8s.io"];
    stage.plane.kubectl(&lease).await.unwrap();
    stage
        .plane
        .kubectl(&["create", "clusterrolebinding", "lease", "--clusterrole=lease", "--user=nobody"])
        .await
        .unwrap();
    let said = controller.readyz_says("leadership: leads, and is not at work yet").await;
    assert!(said.contains("Services") && said.contains("Namespaces"), "{said}");
    let all = ["create", "clusterrolebinding", "all", "--clusterrole=cluster-admin", "--user=nobody"];
    stage.plane.kubectl(&all).await.unwrap();
    let said = controller.readyz_says("ok").await;
    assert_eq!(said, "ok");
    // Who stands by is ready too.
    let second = stage.controller("ctl-2", &["--lease-duration=6"]);
    assert_eq!(second.readyz_says("ok").await, "ok");
}

#[tokio::test]
async fn a_leader_that_cannot_renew_says_so_and_is_ready_again_when_it_can() {
    let mut stage = Stage::with_crds().await;
    let controller = stage.controller("ctl", &["--lease-duration=6"]);
    controller.readyz_says("ok").await;
    stage.plane.stop_apiserver();
    controller.readyz_says("cannot renew the Lease patina-controller").await;
    controller.metric_is("patina_controller_leading ", 0.0).await;
    controller.readyz_says("cannot take the Lease patina-controller").await;
    stage.plane.start_apiserver().await.unwrap();
    assert_eq!(controller.readyz_says("ok").await, "ok");
    controller.metric_is("patina_controller_leading ", 1.0).await;
}

#[tokio::test]
async fn every_failure_is_counted_by_its_reason_and_every_allocation_is_timed() {
    let stage = Stage::with_crds().await;
    stage.pool("default", &["10.20.0.1-10.20.0.2"], "").await;
    let controller = stage.controller("ctl", &[]);
    // Preset, so that an alert on an increase works from the first one on.
    let failures = "patina_controller_allocation_failures_total";
    controller.metric_is(&format!("{failures}{{reason=\"UnknownPool\"}} "), 0.0).await;
    for name in ["a", "b"] {
        stage.service(name, "", "").await;
        stage.until(name, "is served", |service| !ingress(service).is_empty()).await;
    }
    stage.service("c", "", "").await;
    stage.waits("c", "PoolExhausted").await;
    stage.service("d", "annotations: { metallb.io/address-pool: nowhere }", "").await;
    stage.waits("d", "UnknownPool").await;
    for reason in ["PoolExhausted", "UnknownPool"] {
        controller.metric_is(&format!("{failures}{{reason=\"{reason}\"}} "), 1.0).await;
        controller
            .metric_is(&format!("patina_controller_services_waiting{{reason=\"{reason}\"}} "), 1.0)
            .await;
    }
    controller.metric_is("patina_controller_allocation_seconds_count ", 2.0).await;
    let sum = controller.metric("patina_controller_allocation_seconds_sum ").await.unwrap();
    assert!(sum > 0.0 && sum < 10.0, "{sum}");
    controller.metric_is("metallb_allocator_services_allocated_total{pool=\"default\"} ", 2.0).await;
    controller.metric_is("metallb_allocator_addresses_in_use_total{pool=\"default\"} ", 2.0).await;
    controller.metric_is("metallb_k8s_client_config_loaded_bool ", 1.0).await;
    // Who waited and is served later was never in the time.
    stage.plane.kubectl(&["delete", "service", "a"]).await.unwrap();
    stage.has("c", &["10.20.0.1"], "default").await;
    controller.metric_is("patina_controller_services_waiting{reason=\"PoolExhausted\"} ", 0.0).await;
    controller.metric_is("patina_controller_allocation_seconds_count ", 2.0).await;
}
