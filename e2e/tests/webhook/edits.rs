//! What a person's `kubectl apply` is answered.

use kube::api::PostParams;
use serde_json::json;

use crate::stage::{NAMESPACE, Stage};

const GOOD: &str = "
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: a, namespace: metallb-system, labels: {zone: a}}
spec: {addresses: [192.0.2.0/25, 'fd00:1::/64']}
---
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata: {name: a, namespace: metallb-system}
spec: {ipAddressPools: [a]}
---
apiVersion: metallb.io/v1beta1
kind: Community
metadata: {name: a, namespace: metallb-system}
spec: {communities: [{name: ours, value: '64512:1'}]}
---
apiVersion: metallb.io/v1beta1
kind: BGPAdvertisement
metadata: {name: a, namespace: metallb-system}
spec: {ipAddressPools: [a], communities: [ours], aggregationLength: 26}
---
apiVersion: metallb.io/v1beta1
kind: BFDProfile
metadata: {name: fast, namespace: metallb-system}
spec: {receiveInterval: 50}
---
apiVersion: metallb.io/v1beta2
kind: BGPPeer
metadata: {name: a, namespace: metallb-system}
spec: {myASN: 64512, peerASN: 64513, peerAddress: 192.0.2.130, bfdProfile: fast}
---
apiVersion: patina.io/v1beta1
kind: AddressReservation
metadata: {name: gateway, namespace: metallb-system}
spec: {addresses: [192.0.2.1], reason: gateway}
";

/// Kind, apiVersion, spec, and what the answer must say; on top of [`GOOD`].
const BAD: [(&str, &str, &str, &[&str]); 8] = [
    (
        "IPAddressPool",
        "metallb.io/v1beta1",
        "{addresses: [192.0.2.64/26, 192.0.2.128/26, 192.0.2.130-192.0.2.131]}",
        &["192.0.2.64/26", "192.0.2.130-192.0.2.131", "overlaps"],
    ),
    (
        "L2Advertisement",
        "metallb.io/v1beta1",
        "{ipAddressPools: [a, a], nodeSelectors: [{matchExpressions: [{key: x, operator: Is}]}]}",
        &["spec.ipAddressPools[1]", "spec.nodeSelectors[0]"],
    ),
    (
        "BGPAdvertisement",
        "metallb.io/v1beta1",
        "{ipAddressPools: [a], aggregationLength: 8, aggregationLengthV6: 16, communities: ['1:2:3']}",
        &["spec.aggregationLength", "spec.aggregationLengthV6", "spec.communities[0]"],
    ),
    (
        "BGPPeer",
        "metallb.io/v1beta2",
        "{myASN: 64512, peerASN: 64513, peerAddress: nowhere, routerID: 'fd00::1', sourceAddress: here}",
        &["spec.peerAddress", "nowhere", "spec.routerID", "spec.sourceAddress"],
    ),
    (
        "BGPPeer",
        "metallb.io/v1beta1",
        "{myASN: 64512, peerASN: 64513, peerAddress: nowhere, routerID: 'fd00::1'}",
        &["spec.peerAddress", "spec.routerID"],
    ),
    ("BFDProfile", "metallb.io/v1beta1", "{echoMode: true}", &["echo mode", "BGPPeer metallb-system/a"]),
    (
        "Community",
        "metallb.io/v1beta1",
        "{communities: [{name: ours, value: '64512:2'}, {name: x, value: '1:1'}, {name: x, value: '1:2'}]}",
        &["spec.communities[0]", "ours", "spec.communities[2]"],
    ),
    (
        "AddressReservation",
        "patina.io/v1beta1",
        "{addresses: [x, 192.0.2.5-192.0.2.2]}",
        &["spec.addresses[0]", "spec.addresses[1]"],
    ),
];

#[tokio::test]
async fn every_kind_is_checked_and_all_errors_are_told_at_once() {
    let stage = Stage::installed(&["apply"]).await;
    let replica = stage.replica(1, &[]).await;
    stage.asked().await;
    let said = stage.applied(GOOD).await;
    // The pool was there before what announces it.
    assert!(said.stderr.contains("no advertisement covers the pool"), "{said:?}");

    let mut wrong = String::new();
    for (kind, version, spec, words) in BAD {
        // Echo mode is wrong only where IPv6 is advertised to a peer that uses the profile.
        let name = if kind == "BFDProfile" { "fast" } else { "bad" };
        let yaml = format!(
            "apiVersion: {version}\nkind: {kind}\nmetadata: {{name: {name}, namespace: {NAMESPACE}}}\nspec: {spec}\n"
        );
        let said = stage.apply(&yaml).await;
        if said.success {
            wrong += &format!("{kind} was taken\n");
        }
        for word in words.iter().filter(|word| !said.stderr.contains(**word)) {
            wrong += &format!("{kind} {version}: no {word:?} in {}\n", said.stderr);
        }
    }
    assert!(wrong.is_empty(), "{wrong}\n{}", stage.logs());
    stage.applied(GOOD).await;

    let elsewhere = GOOD.replace(NAMESPACE, "default");
    let said = stage.apply(&elsewhere).await;
    assert!(!said.success && said.stdout.is_empty(), "all seven are refused: {said:?}");
    assert_eq!(said.stderr.matches("create it there").count(), 7, "{}", said.stderr);

    let delete = ["delete", "bfdprofile", "fast", "-n", NAMESPACE];
    let said = stage.plane.kubectl_with(&delete, "").await.unwrap();
    assert!(!said.success && said.stderr.contains("used by the BGPPeer a"), "{said:?}");
    stage.kubectl(&["delete", "bgppeer", "a", "-n", NAMESPACE]).await;
    stage.kubectl(&delete).await;

    for kind in ["IPAddressPool", "L2Advertisement", "BGPAdvertisement", "BGPPeer", "BFDProfile", "Community"]
    {
        let line = format!("patina_webhook_requests_total{{kind=\"{kind}\",result=\"allowed\"}}");
        assert!(stage.metric(&replica, &line).await >= 1.0, "{line}");
    }
    let line = "patina_webhook_requests_total{kind=\"IPAddressPool\",result=\"denied\"}";
    assert!(stage.metric(&replica, line).await >= 1.0, "{line}");
    let expiry = stage.metric(&replica, "patina_webhook_certificate_expiry_timestamp_seconds").await;
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
    assert!((364.0..366.0).contains(&((expiry - now) / 86400.0)), "{expiry}");

    // What is removed makes room for what overlaps with it at once.
    for n in 0..10 {
        let name = format!("other-{n}");
        stage.kubectl(&["delete", "ipaddresspools", "--all", "-n", NAMESPACE]).await;
        let pool = format!(
            "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {{name: {name}, namespace: {NAMESPACE}}}\n\
             spec: {{addresses: [192.0.2.0/24]}}\n"
        );
        stage.applied(&pool).await;
        let said = stage.apply(&pool.replace(&name, "twice")).await;
        assert!(!said.success && said.stderr.contains(&name), "{said:?}");
    }
}

#[tokio::test]
async fn a_client_of_the_old_version_loses_nothing_of_the_new_one() {
    let stage = Stage::installed(&["apply"]).await;
    let _replica = stage.replica(1, &[]).await;
    stage.asked().await;
    let spec = json!({
        "myASN": 64512, "dynamicASN": "external", "peerAddress": "192.0.2.1", "vrf": "red", "localASN": 64999,
        "passwordSecret": {"name": "secret"}, "enableGracefulRestart": true, "connectTime": "5s",
        "dualStackAddressFamily": true,
    });
    let new = json!({
        "apiVersion": "metallb.io/v1beta2", "kind": "BGPPeer",
        "metadata": {"name": "p", "namespace": NAMESPACE}, "spec": spec,
    });
    let (old_api, new_api) = (stage.peers("v1beta1"), stage.peers("v1beta2"));
    let created =
        new_api.create(&PostParams::default(), &serde_json::from_value(new).unwrap()).await.unwrap();

    // Read, modify, write, as a tool that knows v1beta1 does.
    let mut old = old_api.get("p").await.unwrap();
    assert_eq!(old.data["spec"].get("vrf"), None);
    old.data["spec"]["holdTime"] = json!("30s");
    old_api.replace("p", &PostParams::default(), &old).await.unwrap();

    let after = new_api.get("p").await.unwrap();
    let mut wanted = created.data["spec"].clone();
    wanted["holdTime"] = json!("30s");
    assert_eq!(after.data["spec"], wanted);
    assert_eq!(after.metadata.annotations, created.metadata.annotations, "nothing of ours is left behind");

    let said = stage.kubectl(&["get", "bgppeers.v1beta1.metallb.io", "-n", NAMESPACE, "-o", "name"]).await;
    assert_eq!(said, "bgppeer.metallb.io/p\n");
}
