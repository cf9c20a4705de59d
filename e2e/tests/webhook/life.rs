//! Installing, applying again, replacing, removing.

use patina_e2e::wait::{self, Seen, secs};

use crate::stage::{BAD_POOL, NAMESPACE, PEERS, SHELL, Stage, Stream, manifests};

const OVERLAPPING: &str = "
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: a, namespace: metallb-system}
spec: {addresses: [192.0.2.0/24]}
---
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: b, namespace: metallb-system}
spec: {addresses: [192.0.2.64/26]}
";

#[tokio::test]
async fn a_webhook_that_comes_up_last_stands_in_nobodys_way_before_and_checks_afterwards() {
    let stage = Stage::installed(&["apply", "--server-side"]).await;
    assert_eq!(stage.get(SHELL, "{.webhooks}").await, "");
    stage.applied(OVERLAPPING).await;
    let replica = stage.start(1, &[]).await;
    stage.ready(&replica).await;
    // It is served, but its Service leads nowhere yet.
    wait::holds("nobody is told of it", secs(3), || async {
        let hooks = stage.get(SHELL, "{.webhooks}").await;
        let said = stage.apply_dry(BAD_POOL).await;
        Ok(if hooks.is_empty() && said.success {
            Seen::Done(())
        } else {
            Seen::Not(format!("{hooks} {said:?}"))
        })
    })
    .await
    .unwrap();
    stage.endpoint(&replica, true).await;
    stage.asked().await;

    // What was taken before may be used, and mended.
    stage.kubectl(&["label", "ipaddresspool", "a", "-n", NAMESPACE, "zone=a"]).await;
    let other = OVERLAPPING
        .split("---")
        .next()
        .unwrap()
        .replace("name: a", "name: c")
        .replace("192.0.2.0/24", "198.51.100.0/24");
    stage.applied(&other).await;
    let worse = stage.apply(&OVERLAPPING.replace("192.0.2.64/26", "192.0.2.64/26, 192.0.2.64/27")).await;
    assert!(!worse.success && worse.stderr.contains("192.0.2.64/27"), "{worse:?}");
    stage.applied(&OVERLAPPING.replace("192.0.2.64/26", "192.0.3.64/26")).await;
}

#[tokio::test]
async fn applying_the_manifests_again_shows_no_difference_and_takes_nothing_away() {
    for apply in [&["apply", "--server-side"][..], &["apply"]] {
        let stage = Stage::installed(apply).await;
        let _replica = stage.replica(1, &[]).await;
        stage.asked().await;
        let fields = [
            (SHELL, "{.webhooks}"),
            (PEERS, "{.spec.conversion}"),
            ("secret/metallb-webhook-cert", "{.data}"),
        ];
        let mut before = Vec::new();
        for (object, path) in fields {
            before.push((object, path, stage.get(object, path).await));
        }
        stage.install(apply).await;
        for file in manifests() {
            let diff = [&["diff"], apply.get(1..).unwrap(), &["-f", &file]].concat();
            let said = stage.plane.kubectl_with(&diff, "").await.unwrap();
            assert!(said.success && said.stdout.is_empty(), "{apply:?}: {said:?}");
        }
        for (object, path, value) in before {
            assert!(!value.is_empty(), "{object} {path}");
            assert_eq!(stage.get(object, path).await, value, "{apply:?} {object}");
        }
    }
}

#[tokio::test]
async fn what_is_overwritten_is_mended_and_what_is_somebody_elses_is_left_alone() {
    let stage = Stage::installed(&["apply"]).await;
    let mut replica = stage.replica(1, &[]).await;
    stage.asked().await;
    stage.kubectl(&["patch", SHELL, "--type=merge", "--patch={\"webhooks\": null}"]).await;
    let none = "--patch={\"spec\": {\"conversion\": {\"strategy\": \"None\", \"webhook\": null}}}";
    stage.kubectl(&["patch", PEERS, "--type=merge", none]).await;
    stage.asked().await;
    stage.kubectl(&["delete", SHELL]).await;
    assert!(stage.apply_dry(BAD_POOL).await.success);
    stage.install(&["apply"]).await;
    stage.asked().await;

    // MetalLB in another namespace takes the names over.
    let theirs = stage
        .get(SHELL, "{.webhooks[0]}")
        .await
        .replace("\"namespace\":\"metallb-system\"", "\"namespace\":\"other\"");
    let patch = format!("--patch={{\"webhooks\": [{theirs}]}}");
    stage.kubectl(&["patch", SHELL, "--type=merge", &patch]).await;
    wait::until("it is said", secs(20), || async {
        let log = replica.process.log_tail(60);
        Ok(Seen::when(log.contains("calls other/metallb-webhook-service, not us"), log))
    })
    .await
    .unwrap();
    assert_eq!(stage.get(SHELL, "{.webhooks[*].clientConfig.service.namespace}").await, "other");
    assert!(replica.process.exited().is_none());
}

#[tokio::test]
async fn a_replica_that_ends_takes_no_request_with_it_and_disabled_takes_everything_back() {
    let stage = Stage::installed(&["apply"]).await;
    let mut first = stage.replica(1, &[]).await;
    let second = stage.replica(2, &[]).await;
    stage.asked().await;
    let stream = Stream::start(&stage).await;
    stream.goes_on(50).await;
    // As a pod that is deleted: SIGTERM, and its endpoint goes a moment later.
    first.process.signal(nix::sys::signal::Signal::SIGTERM).unwrap();
    stream.goes_on(20).await;
    stage.endpoint(&first, false).await;
    stream.goes_on(20).await;
    wait::until("it has ended", secs(15), || {
        let ended = first.process.exited();
        async move { Ok(Seen::when(ended.is_some(), ended)) }
    })
    .await
    .unwrap();
    stream.goes_on(50).await;
    let (done, failures) = stream.end().await;
    assert!(failures.is_empty(), "{} of {done} failed: {failures:#?}\n{}", failures.len(), stage.logs());

    // With nobody left a change is refused, and says which webhook did not answer.
    stage.endpoint(&second, false).await;
    drop(second);
    let said = stage.apply_dry(BAD_POOL).await;
    assert!(!said.success && said.stderr.contains("ipaddresspoolvalidationwebhook.metallb.io"), "{said:?}");

    let _off = stage.start(1, &["--webhook-mode=disabled"]).await;
    stage.until("nobody is called", SHELL, "{.webhooks}", str::is_empty).await;
    stage
        .until("nothing is converted", PEERS, "{.spec.conversion}", |now| now == "{\"strategy\":\"None\"}")
        .await;
    assert!(stage.apply_dry(BAD_POOL).await.success);
}

/// Peers that an old MetalLB stored as v1beta1 cannot be listed as v1beta2 without a conversion; who cannot list them is not
/// ready, and who is not ready is not asked to convert.
#[tokio::test]
async fn peers_in_the_old_version_do_not_lock_out_those_who_would_convert_them() {
    let mut stage = Stage::installed(&["apply"]).await;
    let mut first = stage.replica(1, &[]).await;
    stage.asked().await;
    for storage in ["v1beta1", "v1beta2"] {
        let versions = stage.get(PEERS, "{.spec.versions[*].name}").await;
        let flips: Vec<String> = versions
            .split_whitespace()
            .enumerate()
            .map(|(i, name)| {
                let on = name == storage;
                format!("{{\"op\": \"replace\", \"path\": \"/spec/versions/{i}/storage\", \"value\": {on}}}")
            })
            .collect();
        stage.kubectl(&["patch", PEERS, "--type=json", &format!("--patch=[{}]", flips.join(", "))]).await;
        if storage == "v1beta1" {
            let old = "apiVersion: metallb.io/v1beta1\nkind: BGPPeer\nmetadata: {name: old, namespace: metallb-system}\n\
                       spec: {myASN: 64512, peerASN: 64513, peerAddress: 192.0.2.1}\n";
            stage.applied(old).await;
        }
    }
    stage.endpoint(&first, false).await;
    first.process.kill();
    // Its memory has the peer converted.
    stage.plane.stop_apiserver();
    stage.plane.start_apiserver().await.unwrap();
    let listed = stage.plane.kubectl_with(&["get", "bgppeers", "-n", NAMESPACE], "").await.unwrap();
    assert!(
        !listed.success && listed.stderr.contains("conversion webhook"),
        "it is stored in the old version: {listed:?}"
    );

    let second = stage.replica(1, &[]).await;
    stage.asked().await;
    stage.kubectl(&["get", "bgppeer", "old", "-n", NAMESPACE]).await;
    drop(second);
}
