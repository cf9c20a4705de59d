//! Bad input leaves the last good state in force and tells where and what.

use crate::stage::{NAMESPACE, Stage, condition, ingress};

/// What is wrong, the object, and words that the message must have.
const BAD_POOLS: &[(&str, &str, &[&str])] = &[
    ("unparsable", "addresses: [ten-dot-something]", &["ten-dot-something", "spec.addresses[0]"]),
    ("backwards", "addresses: [10.30.0.9-10.30.0.1]", &["backwards", "spec.addresses[0]"]),
    ("mixed", "addresses: ['10.30.0.9-fd00::1']", &["IPv4", "IPv6", "spec.addresses[0]"]),
    ("overlap", "addresses: [10.20.0.5-10.20.0.50]", &["overlap", "good"]),
    ("bare", "addresses: [10.30.0.1]", &["10.30.0.1/32"]),
];

#[tokio::test]
async fn a_bad_pool_changes_nothing_and_is_named() {
    let stage = Stage::with_crds().await;
    stage.pool("good", &["10.20.0.1-10.20.0.9"], "").await;
    let controller = stage.controller("ctl", &[]);
    stage.service("web", "", "").await;
    stage.has("web", &["10.20.0.1"], "good").await;
    stage.configuration_is("Valid").await;
    for (n, (name, spec, words)) in BAD_POOLS.iter().enumerate() {
        let manifest = format!(
            "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {{ name: {name}, namespace: {NAMESPACE} }}\nspec: {{ {spec} }}\n"
        );
        let said = stage.plane.kubectl_with(&["apply", "-f", "-"], &manifest).await.unwrap();
        if !said.success {
            // The CRD's own rules caught it at the door, and say where.
            assert!(said.stderr.contains("spec.addresses"), "{name}: {}", said.stderr);
            continue;
        }
        let status = stage.configuration_is("Invalid").await;
        let summary = status["errorSummary"].as_str().unwrap().to_owned();
        for word in *words {
            assert!(summary.contains(word), "{name}: {word:?} is not in {summary:?}");
        }
        assert!(summary.contains(&format!("IPAddressPool {NAMESPACE}/")), "{summary}");
        assert_eq!(status["conditions"][0]["type"], "poolReconcilerValid");
        assert_eq!(status["conditions"][0]["status"], "False");
        stage.event("IPAddressPool", name, "ConfigurationError").await;
        controller.metric_is("metallb_k8s_client_config_stale_bool ", 1.0).await;
        // The last good configuration serves on.
        let service = format!("during-{n}");
        stage.service(&service, "", "").await;
        stage.until(&service, "is served", |s| !ingress(s).is_empty()).await;
        stage.has("web", &["10.20.0.1"], "good").await;
        stage.plane.kubectl(&["delete", "ipaddresspool", name, "-n", NAMESPACE]).await.unwrap();
        stage.configuration_is("Valid").await;
        controller.metric_is("metallb_k8s_client_config_stale_bool ", 0.0).await;
    }
}

#[tokio::test]
async fn an_unknown_key_of_the_config_map_is_named() {
    let stage = Stage::with_crds().await;
    let map = |pool: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{ namespace: {NAMESPACE}, name: config }}\ndata:\n  config: |\n    \
             address-pools:\n    - name: default\n      protocol: layer2\n      {pool}\n"
        )
    };
    stage.apply(&map("addresses: [10.20.0.1-10.20.0.9]")).await;
    let _controller = stage.controller("ctl", &[]);
    stage.service("web", "", "").await;
    stage.has("web", &["10.20.0.1"], "default").await;
    stage.apply(&map("adresses: [10.20.0.1-10.20.0.9]")).await;
    let summary = stage.configuration_is("Invalid").await["errorSummary"].to_string();
    assert!(summary.contains("adresses") && summary.contains("ConfigMap"), "{summary}");
    let event = stage.event("ConfigMap", "config", "ConfigurationError").await;
    assert!(event.note.as_ref().unwrap().contains("last good"), "{:?}", event.note);
    stage.service("later", "", "").await;
    stage.has("later", &["10.20.0.2"], "default").await;
    stage.has("web", &["10.20.0.1"], "default").await;
}

#[tokio::test]
async fn a_bad_configuration_at_the_start_touches_nothing() {
    let stage = Stage::with_crds().await;
    stage.pool("good", &["10.20.0.1-10.20.0.9"], "").await;
    let mut controller = stage.controller("ctl", &[]);
    stage.service("web", "", "").await;
    stage.has("web", &["10.20.0.1"], "good").await;
    controller.process.kill();
    let before = stage.get("web").await.unwrap();
    let bad = format!(
        "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {{ name: bad, namespace: {NAMESPACE} }}\nspec: {{ addresses: [10.20.0.5-10.20.0.50] }}\n"
    );
    stage.apply(&bad).await;
    let controller = stage.controller("ctl", &[]);
    stage.configuration_is("Invalid").await;
    controller.metric_is("metallb_k8s_client_config_loaded_bool ", 0.0).await;
    stage.service("new", "", "").await;
    assert_eq!(stage.get("web").await.unwrap(), before);
    stage.plane.kubectl(&["delete", "ipaddresspool", "bad", "-n", NAMESPACE]).await.unwrap();
    stage.has("new", &["10.20.0.2"], "good").await;
    assert_eq!(stage.get("web").await.unwrap(), before);
}

#[tokio::test]
async fn impossible_requests_say_what_would_be_possible() {
    let stage = Stage::with_crds().await;
    stage.pool("good", &["10.20.0.1-10.20.0.9"], "").await;
    let _controller = stage.controller("ctl", &[]);
    let cases: [(&str, &str, &str, &str, &[&str]); 5] = [
        (
            "outside",
            "",
            "loadBalancerIP: 10.99.0.1",
            "AddressOutsideEveryPool",
            &["10.99.0.1", "good", "10.20.0.1-10.20.0.9"],
        ),
        (
            "twice",
            "annotations: { metallb.io/loadBalancerIPs: 10.20.0.3 }",
            "loadBalancerIP: 10.20.0.3",
            "AddressRequestedTwice",
            &["spec.loadBalancerIP", "metallb.io/loadBalancerIPs"],
        ),
        ("unknown", "annotations: { metallb.io/address-pool: bad }", "", "UnknownPool", &["bad", "good"]),
        (
            "family",
            "annotations: { metallb.io/loadBalancerIPs: 'fd00::1' }",
            "",
            "AddressFamilyMismatch",
            &["IPv6", "IPv4"],
        ),
        ("no-v6", "", "ipFamilies: [IPv6]", "NoPoolOfFamily", &["IPv6", "good"]),
    ];
    for (name, meta, spec, reason, words) in cases {
        stage.service(name, meta, spec).await;
        let why = stage.waits(name, reason).await;
        for word in words {
            assert!(why.contains(word), "{name}: {word:?} is not in {why:?}");
        }
        let event = stage.event("Service", name, "AllocationFailed").await;
        assert_eq!(event.type_.as_deref(), Some("Warning"));
    }
    // The same on a Service that holds an address: it keeps it.
    stage.service("web", "", "").await;
    stage.has("web", &["10.20.0.1"], "good").await;
    stage.service("web", "annotations: { metallb.io/loadBalancerIPs: 10.99.0.1 }", "").await;
    stage.event("Service", "web", "LoadBalancerFailed").await;
    let web = stage
        .until("web", "says why", |service| {
            condition(service, "patina.io/Allocated").is_some_and(|c| c.1 == "AddressOutsideEveryPool")
        })
        .await;
    assert_eq!(ingress(&web), ["10.20.0.1"]);
    assert_eq!(condition(&web, "patina.io/Allocated").unwrap().0, "True");
}
