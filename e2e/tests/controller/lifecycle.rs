//! What happens to an address while its Service lives, changes and goes.

use crate::stage::{Stage, annotation, condition, ingress, load_balancer, versions};
use k8s_openapi::api::core::v1::Service;
use patina_e2e::wait::{self, Seen, secs};

#[tokio::test]
async fn addresses_are_released_and_given_again_in_the_order_of_age() {
    let stage = Stage::with_crds().await;
    stage.pool("default", &["10.20.0.1-10.20.0.2"], "").await;
    let _controller = stage.controller("ctl", &[]);
    for name in ["a", "b"] {
        stage.service(name, "", "").await;
    }
    stage.has("a", &["10.20.0.1"], "default").await;
    stage.has("b", &["10.20.0.2"], "default").await;
    // Of one age to the second, the name decides.
    stage.service("c-older", "", "").await;
    let why = stage.waits("c-older", "PoolExhausted").await;
    assert!(why.contains("default"), "{why}");
    stage.event("Service", "c-older", "AllocationFailed").await;
    stage.service("d-younger", "", "").await;
    stage.waits("d-younger", "PoolExhausted").await;

    stage.plane.kubectl(&["delete", "service", "a"]).await.unwrap();
    stage.has("c-older", &["10.20.0.1"], "default").await;
    stage.waits("d-younger", "PoolExhausted").await;

    // No longer a LoadBalancer: its address is free, and nothing of ours is left on it.
    stage.plane.kubectl(&["patch", "service", "b", "-p", r#"{"spec":{"type":"ClusterIP"}}"#]).await.unwrap();
    stage.has("d-younger", &["10.20.0.2"], "default").await;
    stage
        .until("b", "shows nothing of ours", |service| {
            ingress(service).is_empty()
                && annotation(service, "metallb.io/ip-allocated-from-pool").is_none()
                && condition(service, "patina.io/Allocated").is_none()
        })
        .await;
    // And back: it waits its turn.
    stage
        .plane
        .kubectl(&["patch", "service", "b", "-p", r#"{"spec":{"type":"LoadBalancer"}}"#])
        .await
        .unwrap();
    stage.waits("b", "PoolExhausted").await;
}

#[tokio::test]
async fn a_restart_writes_nothing_and_serves_at_once() {
    let stage = Stage::with_crds().await;
    stage.pool("default", &["10.20.0.0/22"], "").await;
    let mut controller = stage.controller("ctl", &[]);
    let all: String = (0..200)
        .map(|n| {
            let meta =
                if n % 10 == 0 { "annotations: { metallb.universe.tf/allow-shared-ip: x }" } else { "" };
            let spec = if n % 7 == 0 { "ipFamilies: [IPv6]" } else { "" };
            load_balancer(&format!("s{n}"), meta, spec) + "---\n"
        })
        .collect();
    stage.apply(&all).await;
    let settled = |service: &Service| condition(service, "patina.io/Allocated").is_some();
    for n in 0..200 {
        stage.until(&format!("s{n}"), "is settled", settled).await;
    }
    let before = stage.all().await;
    assert!(before.iter().filter(|service| !ingress(service).is_empty()).count() > 150);
    for crash in [false, true] {
        if crash {
            controller.process.kill();
        } else {
            assert!(controller.process.terminate(secs(10)), "{}", stage.logs());
        }
        drop(controller);
        controller = stage.controller("ctl", &[]);
        let name = format!("new-{crash}");
        stage.service(&name, "", "").await;
        stage.until(&name, "has an address", |service| !ingress(service).is_empty()).await;
        let now = versions(&stage.all().await);
        // After a crash, who waits is written once so that nothing late can reach him (decisions/0012).
        let all = before.iter().filter(|service| !crash || !ingress(service).is_empty()).cloned();
        for (name, version) in versions(&all.collect::<Vec<_>>()) {
            assert_eq!(now[&name], version, "{name} was written by a restart\n{}", stage.logs());
        }
    }
}

#[tokio::test]
async fn pools_that_change_take_only_what_they_no_longer_have() {
    let stage = Stage::with_crds().await;
    stage.pool("first", &["10.20.0.1-10.20.0.4"], "").await;
    let _controller = stage.controller("ctl", &[]);
    for (n, name) in ["a", "b", "c"].into_iter().enumerate() {
        stage.service(name, "", "").await;
        stage.has(name, &[&format!("10.20.0.{}", n + 1)], "first").await;
    }
    // Shrunk at the front: a moves, the others stay.
    stage.pool("first", &["10.20.0.2-10.20.0.4"], "").await;
    stage.has("a", &["10.20.0.4"], "first").await;
    stage.event("Service", "a", "ClearAssignment").await;
    stage.has("b", &["10.20.0.2"], "first").await;
}

#[tokio::test]
async fn a_pool_that_is_renamed_and_split_keeps_every_address() {
    let stage = Stage::with_crds().await;
    let map = |pools: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{ namespace: metallb-system, name: config }}\ndata:\n  config: |\n    \
             address-pools: [{pools}]\n"
        )
    };
    stage.apply(&map("{ name: one, protocol: layer2, addresses: [10.20.0.1-10.20.0.4] }")).await;
    let _controller = stage.controller("ctl", &[]);
    let all = [("a", "10.20.0.1", "two"), ("b", "10.20.0.2", "two"), ("c", "10.20.0.3", "three")];
    for (name, address, _) in all {
        stage.service(name, "", "").await;
        stage.has(name, &[address], "one").await;
    }
    let split = "{ name: two, protocol: layer2, addresses: [10.20.0.1-10.20.0.2] }, \
                 { name: three, protocol: layer2, addresses: [10.20.0.3-10.20.0.4] }";
    stage.apply(&map(split)).await;
    for (name, address, pool) in all {
        stage.has(name, &[address], pool).await;
    }
}

/// Somebody writes into the status: what was given stays given.
#[tokio::test]
async fn a_status_edited_by_hand_is_put_right_and_nobody_loses_an_address() {
    let stage = Stage::with_crds().await;
    stage.pool("default", &["10.20.0.1-10.20.0.9"], "").await;
    let _controller = stage.controller("ctl", &[]);
    for (name, address) in [("a", "10.20.0.1"), ("b", "10.20.0.2")] {
        stage.service(name, "", "").await;
        stage.has(name, &[address], "default").await;
    }
    let theft = r#"{"status":{"loadBalancer":{"ingress":[{"ip":"10.20.0.1"}]}}}"#;
    let args = ["patch", "service", "b", "--subresource=status", "--type=merge", "-p", theft];
    stage.plane.kubectl(&args).await.unwrap();
    stage.has("b", &["10.20.0.2"], "default").await;
    stage.has("a", &["10.20.0.1"], "default").await;
    let event = stage.event("Service", "b", "StatusEdited").await;
    assert!(
        event.note.as_ref().unwrap().contains("10.20.0.1, which Service default/a has"),
        "{:?}",
        event.note
    );
}

/// While no controller ran, two Services came to show one address: the older keeps it.
#[tokio::test]
async fn a_duplicate_from_outside_is_healed() {
    let stage = Stage::with_crds().await;
    stage.pool("default", &["10.20.0.1-10.20.0.9"], "").await;
    stage.service("older", "", "").await;
    let created = |service: &Service| service.metadata.creation_timestamp.clone().unwrap().0;
    let older = created(&stage.get("older").await.unwrap());
    wait::until("another second began", secs(5), || async {
        stage.service("a-younger", "", "").await;
        if created(&stage.get("a-younger").await?) > older {
            return Ok(Seen::Done(()));
        }
        stage.plane.kubectl(&["delete", "service", "a-younger"]).await?;
        Ok(Seen::Not("of one age".to_owned()))
    })
    .await
    .unwrap();
    for name in ["older", "a-younger"] {
        let status = r#"{"status":{"loadBalancer":{"ingress":[{"ip":"10.20.0.5"}]}}}"#;
        let args = ["patch", "service", name, "--subresource=status", "--type=merge", "-p", status];
        stage.plane.kubectl(&args).await.unwrap();
    }
    let _controller = stage.controller("ctl", &[]);
    stage.has("older", &["10.20.0.5"], "default").await;
    stage.has("a-younger", &["10.20.0.1"], "default").await;
    let event = stage.event("Service", "a-younger", "ClearAssignment").await;
    assert!(event.note.as_ref().unwrap().contains("default/older"), "{:?}", event.note);
}

#[tokio::test]
async fn nothing_is_written_while_the_api_server_is_down_and_everything_afterwards() {
    let mut stage = Stage::with_crds().await;
    stage.pool("default", &["10.20.0.0/24"], "").await;
    let controller = stage.controller("ctl", &[]);
    stage.service("a", "", "").await;
    stage.has("a", &["10.20.0.0"], "default").await;
    stage.plane.stop_apiserver();
    stage.plane.start_apiserver().await.unwrap();
    stage.service("b", "", "").await;
    let name = "b has an address after the API server came back";
    wait::until(name, secs(60), || async {
        let service = stage.get("b").await?;
        Ok(Seen::when(ingress(&service) == ["10.20.0.1"], format!("{:?}", service.status)))
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", stage.logs()));
    stage.has("a", &["10.20.0.0"], "default").await;
    drop(controller);
}
