//! What the network uses itself: skipped, refused by name, kept by who has it.

use crate::scene::Scene;
use crate::stage::{condition, ingress};

const GATEWAY: &str = r#"{"addresses":["10.30.0.1/28"],"gateways":["10.30.0.2"]}"#;

#[tokio::test]
async fn what_the_network_uses_is_skipped_and_refused_by_name() {
    let scene = Scene::new(&[]).await;
    let stage = &scene.stage;
    scene.node("a", &["10.30.0.1", "a.example"], &["10.40.0.0/29", "fd00:40::/64"]).await;
    scene.node("b", &["10.30.0.3", "fd00:30::3"], &[]).await;
    scene.told("a", GATEWAY).await;
    // A node that does not exist, and words that mean nothing.
    scene.told("ghost", r#"{"gateways":["10.30.0.4"]}"#).await;
    scene.told("b", r#"{"gateways":["10.30.0.900", "fe80::1", ""], "addresses": ["x/y"]}"#).await;
    // A range that is no CIDR, a CIDR around the pods' CIDR, a range into the cluster IPs (10.96.0.0/16), and IPv6.
    stage.pool("range", &["10.30.0.1-10.30.0.16", "fd00:30::3-fd00:30::4"], "").await;
    stage.pool("pods", &["10.40.0.0/28"], "  autoAssign: false").await;
    stage.pool("cluster", &["10.95.255.254-10.96.0.5"], "  autoAssign: false").await;
    let _controller = scene.controller("ctl").await;

    // .1 and .3 are nodes, .2 is the gateway.
    stage.service("one", "", "").await;
    stage.has("one", &["10.30.0.4"], "range").await;
    stage.service("six", "", "ipFamilies: [IPv6]").await;
    stage.has("six", &["fd00:30::4"], "range").await;
    let from = |pool: &str| format!("annotations: {{ metallb.io/address-pool: {pool} }}");
    stage.service("pods", &from("pods"), "").await;
    stage.has("pods", &["10.40.0.8"], "pods").await;
    for (name, address) in [("cluster-1", "10.95.255.254"), ("cluster-2", "10.95.255.255")] {
        stage.service(name, &from("cluster"), "").await;
        stage.has(name, &[address], "cluster").await;
    }
    stage.service("cluster-3", &from("cluster"), "").await;
    let why = stage.waits("cluster-3", "PoolExhausted").await;
    assert!(why.contains("used by the network: 6"), "{why}");

    for (name, address, what) in [
        ("node", "10.30.0.3", "an address of node b"),
        ("gateway", "10.30.0.2", "the gateway of node a"),
        ("network", "10.30.0.15", "the broadcast address of a subnet of node a"),
        ("pod", "10.40.0.5", "in the Pod network of node a"),
        ("cluster-ip", "10.96.0.4", "in the range of the cluster IPs"),
    ] {
        stage.service(name, "", &format!("loadBalancerIP: {address}")).await;
        let why = stage.waits(name, "AddressUsedByNetwork").await;
        assert!(why.contains(&format!("{address} is {what}")), "{name}: {why}");
        scene.said("Service", name, "AllocationFailed", &[address, what]).await;
    }

    // Whoever owns the pool hears of it, once, and its status counts what can be given.
    let said = ["10.30.0.1 is an address of node a", "10.30.0.2 is the gateway of node a", "10.30.0.3 is"];
    scene.said("IPAddressPool", "range", "AddressesUsedByNetwork", &said).await;
    scene.said("IPAddressPool", "pods", "AddressesUsedByNetwork", &["10.40.0.0/29 is in the Pod"]).await;
    scene.said("IPAddressPool", "cluster", "AddressesUsedByNetwork", &["10.96.0.0-10.96.0.5 is in"]).await;
    scene.pool_is("pods", 1, 7).await;
    scene.pool_is("cluster", 2, 0).await;
    // 16, less two nodes, gateway and broadcast address, less the one that is given.
    scene.pool_is("range", 1, 11).await;
    stage.configuration_is("Valid").await;
}

#[tokio::test]
async fn who_holds_an_address_that_the_network_takes_keeps_it() {
    let scene = Scene::new(&[]).await;
    let stage = &scene.stage;
    stage.pool("pool", &["10.30.0.1-10.30.0.9"], "").await;
    let mut controller = scene.controller("ctl").await;
    stage.service("web", "", "").await;
    stage.has("web", &["10.30.0.1"], "pool").await;

    // A node joins and has it.
    scene.node("late", &["10.30.0.1", "10.30.0.2"], &[]).await;
    let words = ["10.30.0.1 is an address of node late", "keeps it"];
    scene.said("Service", "web", "AddressUsedByNetwork", &words).await;
    scene.said("IPAddressPool", "pool", "AddressesUsedByNetwork", &["10.30.0.2 is an address"]).await;
    let web = stage.has("web", &["10.30.0.1"], "pool").await;
    assert_eq!(condition(&web, "patina.io/Allocated").unwrap().0, "True");
    stage.service("second", "", "").await;
    stage.has("second", &["10.30.0.3"], "pool").await;

    // Also over a restart.
    controller.process.kill();
    let _controller = scene.controller("ctl").await;
    stage.service("third", "", "").await;
    stage.has("third", &["10.30.0.4"], "pool").await;
    stage.has("web", &["10.30.0.1"], "pool").await;

    // Once it lets go, it does not come back to it.
    scene.kubectl(&["delete", "service", "web"]).await;
    stage.service("web", "", "").await;
    stage.has("web", &["10.30.0.5"], "pool").await;

    // Who asked for it in vain gets it when the node goes.
    stage.service("patient", "", "loadBalancerIP: 10.30.0.1").await;
    stage.waits("patient", "AddressUsedByNetwork").await;
    scene.kubectl(&["delete", "node", "late"]).await;
    stage.has("patient", &["10.30.0.1"], "pool").await;
}

#[tokio::test]
async fn what_a_speaker_told_holds_while_the_speaker_is_replaced() {
    let scene = Scene::new(&[]).await;
    let stage = &scene.stage;
    scene.node("a", &[], &[]).await;
    scene.told("a", GATEWAY).await;
    stage.pool("pool", &["10.30.0.2-10.30.0.9"], "").await;
    let _controller = scene.controller("ctl").await;
    stage.service("one", "", "").await;
    stage.has("one", &["10.30.0.3"], "pool").await;
    // Its Pod goes, and its object with it.
    scene.kubectl(&["delete", "configurationstate", "speaker-a", "-n", crate::stage::NAMESPACE]).await;
    scene.node("b", &["10.30.0.4"], &[]).await;
    scene
        .said("IPAddressPool", "pool", "AddressesUsedByNetwork", &["10.30.0.4", "10.30.0.2 is the gateway"])
        .await;
    stage.service("two", "", "").await;
    stage.has("two", &["10.30.0.5"], "pool").await;
    // The node goes: nobody sends to that gateway any more.
    scene.kubectl(&["delete", "node", "a"]).await;
    stage.service("three", "", "loadBalancerIP: 10.30.0.2").await;
    stage.has("three", &["10.30.0.2"], "pool").await;
}

#[tokio::test]
async fn a_controller_that_may_not_see_the_nodes_works_and_says_so() {
    let scene = Scene::new(&["nodes", "servicecidrs"]).await;
    let stage = &scene.stage;
    scene.node("a", &["10.30.0.1"], &[]).await;
    stage.pool("pool", &["10.30.0.1-10.30.0.9"], "").await;
    let controller = scene.controller("ctl").await;
    stage.service("web", "", "").await;
    let web = stage.until("web", "has an address", |service| !ingress(service).is_empty()).await;
    assert_eq!(ingress(&web), ["10.30.0.1"]);
    let log = controller.process.log_tail(200);
    assert!(log.contains("may not list Node, ServiceCIDR"), "{log}");
}
