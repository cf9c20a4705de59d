//! Whether two sets of nodes meet depends on the nodes there are, when they are known.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed expectation is a failed test

use std::collections::BTreeMap;

use patina_crds::config::{self, manifest};

const TEXT: &str = "
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: a, namespace: metallb-system}
spec: {addresses: [192.0.2.0/24]}
---
apiVersion: metallb.io/v1beta1
kind: BGPAdvertisement
metadata: {name: by-rack, namespace: metallb-system}
spec: {localPref: 100, nodeSelectors: [{matchLabels: {rack: a}}]}
---
apiVersion: metallb.io/v1beta1
kind: BGPAdvertisement
metadata: {name: by-zone, namespace: metallb-system}
spec: {localPref: 200, nodeSelectors: [{matchLabels: {zone: b}}]}
---
apiVersion: metallb.io/v1beta2
kind: BGPPeer
metadata: {name: by-rack, namespace: metallb-system}
spec: {myASN: 64500, peerASN: 64501, peerAddress: 10.0.0.1, nodeSelectors: [{matchLabels: {rack: a}}]}
---
apiVersion: metallb.io/v1beta2
kind: BGPPeer
metadata: {name: by-zone, namespace: metallb-system}
spec: {myASN: 64502, peerASN: 64501, peerAddress: 10.0.0.1, nodeSelectors: [{matchLabels: {zone: b}}]}
";

/// The fields that are wrong, with these labels of nodes.
fn wrong(nodes: Option<&[&[(&str, &str)]]>) -> Vec<String> {
    let mut resources = manifest::read(TEXT, &manifest::Options::default()).unwrap().resources;
    let labels =
        |labels: &[(&str, &str)]| labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    resources.nodes = nodes.map(|nodes| {
        nodes
            .iter()
            .enumerate()
            .map(|(i, node)| (format!("node-{i}"), labels(node)))
            .collect::<BTreeMap<_, _>>()
    });
    match config::build(&resources) {
        Ok(_) => Vec::new(),
        Err(errors) => {
            errors.0.iter().map(|error| format!("{} {}", error.object.name, error.field)).collect()
        }
    }
}

#[test]
fn nodes_that_are_not_known_may_have_any_labels() {
    let all = ["by-zone spec.localPref", "by-zone spec.peerAddress", "by-zone spec.myASN"];
    assert_eq!(wrong(None), all);
    assert_eq!(wrong(Some(&[&[("rack", "a")], &[("rack", "a"), ("zone", "b")]])), all);
}

#[test]
fn selectors_are_apart_when_no_node_has_both() {
    assert!(
        wrong(Some(&[&[("rack", "a")], &[("zone", "b")], &[("rack", "b"), ("zone", "b")], &[]])).is_empty()
    );
    assert!(wrong(Some(&[])).is_empty());
}
