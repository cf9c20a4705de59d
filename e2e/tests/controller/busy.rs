//! An API server that has too much to do, one that refuses, and how often it is asked.

use std::collections::BTreeMap;

use crate::stage::{Stage, ingress, load_balancer};
use patina_e2e::wait::{self, Seen, secs};

/// Requests that the API server counted, by "verb resource/subresource code".
async fn requests(stage: &Stage) -> BTreeMap<String, u64> {
    let request = http::Request::get("/metrics").body(Vec::new()).unwrap();
    let text = stage.client().request_text(request).await.unwrap();
    let mut counts = BTreeMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("apiserver_request_total{")) {
        let (labels, count) = line.rsplit_once("} ").unwrap();
        let label = |name: &str| {
            let rest = labels.split_once(&format!("{name}=\"")).map_or("", |(_, rest)| rest);
            rest.split_once('"').map_or("", |(value, _)| value)
        };
        let key =
            format!("{} {}/{} {}", label("verb"), label("resource"), label("subresource"), label("code"));
        *counts.entry(key).or_insert(0) += count.parse::<f64>().unwrap() as u64;
    }
    assert!(!counts.is_empty());
    counts
}

fn of(counts: &BTreeMap<String, u64>, prefix: &str) -> u64 {
    counts.iter().filter(|(key, _)| key.starts_with(prefix)).map(|(_, count)| count).sum()
}

#[tokio::test]
async fn one_patch_per_service_and_pool_statuses_once_a_second() {
    let stage = Stage::with_crds().await;
    stage.pool("default", &["10.20.0.0/22"], "").await;
    let controller = stage.controller("ctl", &[]);
    controller.readyz_says("ok").await;
    let began = std::time::Instant::now();
    let count = 150;
    let all: String = (0..count).map(|n| load_balancer(&format!("s{n}"), "", "") + "---\n").collect();
    stage.apply(&all).await;
    let pool_says = |assigned: i64| {
        let stage = &stage;
        async move {
            wait::until("the pool says how full it is", secs(20), || async {
                let pool = stage.object("IPAddressPool", "default").await;
                Ok(Seen::when(pool["status"]["assignedIPv4"] == assigned, pool["status"].clone()))
            })
            .await
            .unwrap()
        }
    };
    pool_says(count).await;
    let seconds = began.elapsed().as_secs();
    let counts = requests(&stage).await;
    assert_eq!(of(&counts, "PATCH services/status "), 150, "{counts:?}");
    let patches = of(&counts, "PATCH ipaddresspools/status ");
    assert!((1..=seconds + 2).contains(&patches), "{patches} in {seconds} s");
    controller.metric_is("patina_controller_allocation_seconds_count ", 150.0).await;
    controller.metric_is("patina_controller_status_writes_in_flight ", 0.0).await;
    controller.metric_is("patina_controller_status_writes_total{result=\"ok\"} ", 150.0).await;

    // A pool that is written without a change of what it is, and Services that change without a difference to us.
    for n in 0..3 {
        let label = format!("n=x{n}");
        stage.plane.kubectl(&["label", "service", "s1", &label, "--overwrite"]).await.unwrap();
    }
    // The next real change is seen after these: what they led to has been written by then.
    stage.service("one-more", "", "").await;
    pool_says(count + 1).await;
    let counts = requests(&stage).await;
    assert_eq!(of(&counts, "PATCH services/status "), 151, "{counts:?}");
    assert_eq!(of(&counts, "PATCH ipaddresspools/status "), patches + 1, "{counts:?}");
}

/// The API server lets two requests that change something through at a time, and answers 429 to the others.
#[tokio::test]
async fn a_server_that_is_too_busy_gets_less_and_nothing_is_lost() {
    let flags = [
        "--enable-priority-and-fairness=false",
        "--max-mutating-requests-inflight=2",
        "--max-requests-inflight=100",
    ];
    let stage = Stage::with_flags(&flags).await;
    stage.plane.apply_crds().await.unwrap();
    stage.pool("default", &["10.20.0.0/24"], "").await;
    let count = 100;
    let all: String = (0..count).map(|n| load_balancer(&format!("s{n}"), "", "") + "---\n").collect();
    stage.apply(&all).await;
    // Administrators are never told to wait, so not as one of them.
    let binding = ["create", "clusterrolebinding", "busy", "--clusterrole=cluster-admin", "--user=busy"];
    stage.plane.kubectl(&binding).await.unwrap();
    let kubeconfig = stage.plane.kubeconfig_for_user("busy", &[]).unwrap();
    let controller = stage.controller_as("ctl", &[], &kubeconfig);
    wait::until("everybody is served", secs(90), || async {
        let all = stage.all().await;
        let served = all.iter().filter(|service| !ingress(service).is_empty()).count();
        Ok(Seen::when(served == count, served))
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", stage.logs()));
    let busy = controller.metric("patina_controller_status_writes_total{result=\"busy\"} ").await.unwrap();
    let window = controller.metric("patina_controller_status_write_window ").await.unwrap();
    println!("{busy} patches were told to wait; the window is {window}");
    assert!(busy >= 1.0, "the server was never too busy, so this shows nothing");
    assert!(window < 24.0, "{window}");
    // Far fewer than would be if each of 24 tried again at once.
    assert!(busy <= 100.0, "{busy}");
    controller.metric_is("patina_controller_leading ", 1.0).await;
    assert!(!stage.logs().contains("could not be renewed"), "{}", stage.logs());
}

/// A policy refuses every status of one namespace: the others do not notice.
#[tokio::test]
async fn a_namespace_whose_statuses_are_refused_holds_up_nobody() {
    let stage = Stage::with_crds().await;
    stage.pool("default", &["10.20.0.0/24"], "").await;
    stage
        .apply(
            "apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingAdmissionPolicy\nmetadata: { name: frozen }\n\
             spec:\n  failurePolicy: Fail\n  matchConstraints:\n    resourceRules:\n    - apiGroups: [\"\"]\n      \
             apiVersions: [v1]\n      operations: [UPDATE]\n      resources: [services/status]\n  validations:\n  \
             - expression: \"object.metadata.namespace != 'frozen'\"\n    message: this namespace is frozen\n---\n\
             apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingAdmissionPolicyBinding\n\
             metadata: { name: frozen }\nspec: { policyName: frozen, validationActions: [Deny] }\n---\n\
             apiVersion: v1\nkind: Namespace\nmetadata: { name: frozen }\n",
        )
        .await;
    let frozen = |n: usize| {
        load_balancer(&format!("f{n}"), "", "").replace("namespace: default", "namespace: frozen") + "---\n"
    };
    let all: String = (0..60).map(frozen).collect();
    stage.apply(&all).await;
    // The policy is in force a moment after it was made.
    let theft = r#"{"status":{"loadBalancer":{"ingress":[{"ip":"10.20.0.200"}]}}}"#;
    wait::until("the policy is in force", secs(20), || async {
        let args =
            ["patch", "service", "f0", "-n", "frozen", "--subresource=status", "--type=merge", "-p", theft];
        let refused = stage.plane.kubectl(&args).await.is_err();
        Ok(Seen::when(refused, ()))
    })
    .await
    .unwrap();
    let controller = stage.controller("ctl", &[]);
    controller.readyz_says("ok").await;
    for n in 0..10 {
        stage.service(&format!("s{n}"), "", "").await;
        stage.until(&format!("s{n}"), "is served", |service| !ingress(service).is_empty()).await;
    }
    let refused =
        controller.metric("patina_controller_status_writes_total{result=\"refused\"} ").await.unwrap();
    assert!(refused >= 60.0, "{refused}");
    // The policy goes, and they are served too.
    stage.plane.kubectl(&["delete", "validatingadmissionpolicybinding", "frozen"]).await.unwrap();
    wait::until("all are served", secs(60), || async {
        let all = stage.all().await;
        let served = all.iter().filter(|service| !ingress(service).is_empty()).count();
        Ok(Seen::when(served == 70, served))
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", stage.logs()));
}
