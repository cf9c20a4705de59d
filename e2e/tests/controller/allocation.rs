//! Which address a Service gets, from CRs and from the ConfigMap.

use crate::stage::{NAMESPACE, Stage, condition, ingress};

#[tokio::test]
async fn ipv4_ipv6_dual_stack_fixed_addresses_and_pools_by_name() {
    let stage = Stage::with_crds().await;
    stage.pool("default", &["10.20.0.10-10.20.0.30", "fd00:20::10-fd00:20::30"], "").await;
    stage.pool("manual", &["10.21.0.0/24"], "  autoAssign: false").await;
    stage.pool("safe", &["10.22.0.254-10.22.1.2"], "  autoAssign: false\n  avoidBuggyIPs: true").await;
    let controller = stage.controller("ctl", &[]);

    stage.service("v4", "", "").await;
    let v4 = stage.has("v4", &["10.20.0.10"], "default").await;
    let entry = &v4.status.as_ref().unwrap().load_balancer.as_ref().unwrap().ingress.as_ref().unwrap()[0];
    assert_eq!(entry.ip_mode.as_deref(), Some("VIP"));
    let allocated = condition(&v4, "patina.io/Allocated").unwrap();
    assert_eq!((allocated.0.as_str(), allocated.1.as_str()), ("True", "Allocated"));
    assert_eq!(condition(&v4, "patina.io/Announced"), None);
    let event = stage.event("Service", "v4", "IPAllocated").await;
    assert!(event.note.as_ref().unwrap().contains("10.20.0.10"), "{:?}", event.note);
    assert_eq!(event.reporting_controller.as_deref(), Some("metallb-controller"));

    stage.service("v6", "", "ipFamilies: [IPv6]").await;
    stage.has("v6", &["fd00:20::10"], "default").await;
    stage.service("dual", "", "ipFamilyPolicy: RequireDualStack").await;
    stage.has("dual", &["10.20.0.11", "fd00:20::11"], "default").await;
    stage.service("dual6", "", "ipFamilyPolicy: PreferDualStack, ipFamilies: [IPv6, IPv4]").await;
    stage.has("dual6", &["fd00:20::12", "10.20.0.12"], "default").await;

    stage.service("spec", "", "loadBalancerIP: 10.20.0.20").await;
    stage.has("spec", &["10.20.0.20"], "default").await;
    stage.service("new", "annotations: { metallb.io/loadBalancerIPs: 10.20.0.21 }", "").await;
    stage.has("new", &["10.20.0.21"], "default").await;
    stage
        .service(
            "both",
            "annotations: { metallb.io/loadBalancerIPs: 'fd00:20::22, 10.20.0.22' }",
            "ipFamilyPolicy: RequireDualStack",
        )
        .await;
    stage.has("both", &["10.20.0.22", "fd00:20::22"], "default").await;
    stage.service("old", "annotations: { metallb.universe.tf/loadBalancerIPs: 10.20.0.23 }", "").await;
    stage.has("old", &["10.20.0.23"], "default").await;
    let event = stage.event("Service", "old", "deprecatedAnnotation").await;
    assert!(event.note.as_ref().unwrap().contains("metallb.io/loadBalancerIPs"), "{:?}", event.note);

    stage.service("by-name", "annotations: { metallb.io/address-pool: manual }", "").await;
    stage.has("by-name", &["10.21.0.0"], "manual").await;
    stage.service("by-old-name", "annotations: { metallb.universe.tf/address-pool: manual }", "").await;
    stage.has("by-old-name", &["10.21.0.1"], "manual").await;
    let wins = "annotations: { metallb.io/address-pool: '', metallb.universe.tf/address-pool: manual }";
    stage.service("new-wins-even-empty", wins, "").await;
    stage.has("new-wins-even-empty", &["10.20.0.13"], "default").await;
    stage.service("by-address", "", "loadBalancerIP: 10.21.0.9").await;
    stage.has("by-address", &["10.21.0.9"], "manual").await;
    for (name, address) in [("s0", "10.22.0.254"), ("s1", "10.22.1.1"), ("s2", "10.22.1.2")] {
        stage.service(name, "annotations: { metallb.io/address-pool: safe }", "").await;
        stage.has(name, &[address], "safe").await;
    }

    controller.metric_is("metallb_allocator_services_allocated_total{pool=\"default\"} ", 9.0).await;
    controller.metric_is("metallb_allocator_addresses_in_use_total{pool=\"default\"} ", 12.0).await;
    controller.metric_is("metallb_allocator_ipv4_addresses_total{pool=\"safe\"} ", 3.0).await;
    controller.metric_is("metallb_k8s_client_config_loaded_bool ", 1.0).await;
    controller.metric_is("metallb_k8s_client_config_stale_bool ", 0.0).await;
    let status = patina_e2e::wait::until("the pool's status counts", crate::stage::SOON, || async {
        let pool = stage.object("IPAddressPool", "default").await;
        let status = pool["status"].clone();
        let done = status["assignedIPv4"] == 8 && status["assignedIPv6"] == 4;
        Ok(patina_e2e::wait::Seen::when(done, status))
    });
    let status = status.await.unwrap();
    assert_eq!((&status["availableIPv4"], &status["availableIPv6"]), (&13.into(), &29.into()));
}

#[tokio::test]
async fn sharing_and_pinned_pools() {
    let stage = Stage::with_crds().await;
    let pinned = "  serviceAllocation: { priority: 5, namespaceSelectors: [{ matchLabels: { team: red } }] }";
    stage.pool("red", &["10.20.1.0/32"], pinned).await;
    stage.pool("open", &["10.20.2.0/24"], "").await;
    let _controller = stage.controller("ctl", &[]);
    stage.service("before", "", "").await;
    stage.has("before", &["10.20.2.0"], "open").await;
    // A namespace that gets its label while the controller runs.
    stage.plane.kubectl(&["label", "namespace", "default", "team=red"]).await.unwrap();
    stage.service("red", "annotations: { metallb.io/allow-shared-ip: k }", "").await;
    let red = stage.until("red", "has an address", |service| !ingress(service).is_empty()).await;
    if ingress(&red) != ["10.20.1.0"] {
        // The label came after the Service: what is given stays.
        assert_eq!(ingress(&red), ["10.20.2.1"]);
        stage.plane.kubectl(&["delete", "service", "red"]).await.unwrap();
        stage.service("red", "annotations: { metallb.io/allow-shared-ip: k }", "").await;
    }
    stage.has("red", &["10.20.1.0"], "red").await;
    let shared = "annotations: { metallb.io/allow-shared-ip: k, metallb.io/loadBalancerIPs: 10.20.1.0 }";
    stage.service("same-port", shared, "").await;
    let why = stage.waits("same-port", "AddressTaken").await;
    assert!(why.contains("default/red") && why.contains("80/TCP"), "{why}");
    stage.plane.kubectl(&["delete", "service", "same-port"]).await.unwrap();
    let other = crate::stage::load_balancer("shares", shared, "").replace("port: 80", "port: 81");
    stage.apply(&other).await;
    stage.has("shares", &["10.20.1.0"], "red").await;
    // The pinned pool is full: the open one helps out, and an event says so.
    stage.service("more", "", "").await;
    stage
        .until("more", "is served from open", |s| {
            ingress(s).first().is_some_and(|ip| ip.starts_with("10.20.2."))
        })
        .await;
    let event = stage.event("Service", "more", "PinnedPoolsFull").await;
    assert!(event.note.unwrap().contains("red"));
}

/// No CRD is installed: the ConfigMap of old times is all there is.
#[tokio::test]
async fn a_config_map_alone_is_enough() {
    let stage = Stage::bare().await;
    let controller = stage.controller("ctl", &[]);
    stage
        .apply(&format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{ namespace: {NAMESPACE}, name: config }}\ndata:\n  config: |\n    \
             address-pools:\n    - name: default\n      protocol: layer2\n      addresses:\n      - 172.25.7.100-172.25.7.250\n"
        ))
        .await;
    stage.service("web", "", "").await;
    let web = stage.has("web", &["172.25.7.100"], "default").await;
    assert_eq!(condition(&web, "patina.io/Announced"), None, "protocol layer2 announces it");
    let event = stage.event("ConfigMap", "config", "ConfigurationNotice").await;
    assert_eq!(event.type_.as_deref(), Some("Warning"));
    assert!(event.regarding.unwrap().uid.is_some());
    controller.metric_is("metallb_allocator_addresses_total{pool=\"default\"} ", 151.0).await;
}

#[tokio::test]
async fn an_address_that_nothing_announces_says_what_is_missing() {
    let stage = Stage::with_crds().await;
    stage.pool("default", &["10.20.0.10-10.20.0.30"], "").await;
    stage.plane.kubectl(&["delete", "l2advertisement", "all", "-n", NAMESPACE]).await.unwrap();
    let _controller = stage.controller("ctl", &[]);
    stage.service("web", "", "").await;
    let web = stage.has("web", &["10.20.0.10"], "default").await;
    let (status, reason, message) = condition(&web, "patina.io/Announced").unwrap();
    assert_eq!((status.as_str(), reason.as_str()), ("False", "NoAdvertisement"));
    assert!(message.contains("L2Advertisement") && message.contains("default"), "{message}");
    stage.event("Service", "web", "notAdvertised").await;
    stage.pool("default", &["10.20.0.10-10.20.0.30"], "").await;
    stage.until("web", "is announced", |service| condition(service, "patina.io/Announced").is_none()).await;
    stage.has("web", &["10.20.0.10"], "default").await;
}

#[tokio::test]
async fn a_hundred_services_get_a_hundred_addresses() {
    let stage = Stage::with_crds().await;
    stage.pool("default", &["10.20.0.0/25"], "").await;
    let _controller = stage.controller("ctl", &[]);
    let all: String =
        (0..100).map(|n| crate::stage::load_balancer(&format!("s{n}"), "", "") + "---\n").collect();
    stage.apply(&all).await;
    let mut addresses = std::collections::BTreeSet::new();
    for n in 0..100 {
        let service = stage.until(&format!("s{n}"), "has an address", |s| !ingress(s).is_empty()).await;
        addresses.insert(ingress(&service)[0].to_owned());
        let rv = service.metadata.resource_version.clone().unwrap();
        assert!(!rv.is_empty());
    }
    assert_eq!(addresses.len(), 100);
}
