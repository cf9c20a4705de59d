//! The Secret with the key of the speakers' membership.

use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use patina_e2e::wait::{self, Seen};
use serde_json::json;

use crate::stage::{NAMESPACE, SOON, Stage};

const NAME: &str = "memberlist";
const FLAGS: [&str; 2] = ["--ml-secret-name=memberlist", "--deployment=controller"];

fn api(stage: &Stage) -> Api<Secret> {
    Api::namespaced(stage.client(), NAMESPACE)
}

fn key(secret: &Secret) -> Vec<u8> {
    secret.data.as_ref().and_then(|data| data.get("secretkey")).map(|key| key.0.clone()).unwrap_or_default()
}

/// Waits until the Secret has a key that is not `before`.
async fn filled(stage: &Stage, before: &[u8]) -> Secret {
    let secret = wait::until("the Secret has a new key", SOON, || async {
        let secret = api(stage).get_opt(NAME).await?;
        Ok(match secret {
            Some(secret) if !key(&secret).is_empty() && key(&secret) != before => Seen::Done(secret),
            other => Seen::Not(format!("{:?}", other.map(|secret| secret.metadata))),
        })
    });
    secret.await.unwrap_or_else(|error| panic!("{error:#}\n{}", stage.logs()))
}

#[tokio::test]
async fn the_leader_makes_the_key_that_is_missing_and_changes_none_that_is_there() {
    let stage = Stage::with_crds().await;
    stage
        .apply(&format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{ name: controller, namespace: {NAMESPACE} }}\n\
             spec:\n  replicas: 0\n  selector: {{ matchLabels: {{ a: b }} }}\n  template:\n    metadata: {{ labels: {{ a: b }} }}\n    \
             spec: {{ containers: [{{ name: c, image: patina }}] }}\n"
        ))
        .await;
    let first = stage.controller("ctl-1", &FLAGS);
    let second = stage.controller("ctl-2", &FLAGS);
    first.readyz_says("ok").await;
    second.readyz_says("ok").await;

    // Missing: made, with an owner.
    let made = filled(&stage, b"").await;
    assert_eq!(key(&made).len(), 44, "32 bytes in base64");
    let owners = made.owner_references();
    assert_eq!(
        (owners.len(), owners[0].kind.as_str(), owners[0].name.as_str()),
        (1, "Deployment", "controller")
    );

    // Deleted: made again, with another key.
    api(&stage).delete(NAME, &DeleteParams::default()).await.unwrap();
    let again = filled(&stage, &key(&made)).await;
    assert_ne!(again.uid(), made.uid());

    // Emptied, as by `kubectl patch`: filled in, and the rest of it stays.
    let emptied =
        json!({ "data": { "secretkey": null }, "stringData": { "secretkey-previous": "0123456789abcdef" } });
    api(&stage).patch(NAME, &PatchParams::default(), &Patch::Merge(emptied)).await.unwrap();
    let full = filled(&stage, &key(&again)).await;
    assert_eq!(full.uid(), again.uid());
    assert_eq!(full.data.as_ref().unwrap()["secretkey-previous"].0, b"0123456789abcdef");

    // Ours: left alone. A Service that is served afterwards shows that the controller was at work meanwhile.
    let own = json!({ "data": null, "stringData": { "secretkey": "a key that somebody chose" } });
    let written = api(&stage).patch(NAME, &PatchParams::default(), &Patch::Merge(own)).await.unwrap();
    stage.pool("default", &["10.20.0.0/24"], "").await;
    stage.service("web", "", "").await;
    stage.has("web", &["10.20.0.0"], "default").await;
    let now = api(&stage).get(NAME).await.unwrap();
    assert_eq!(key(&now), b"a key that somebody chose");
    assert_eq!(now.resource_version(), written.resource_version());
    let logs = stage.logs();
    assert!(!logs.contains(&String::from_utf8(key(&full)).unwrap()), "a key is in the log");
}
