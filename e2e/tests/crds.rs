//! The CustomResourceDefinitions on a real API server: served, explained, refusing what they should, and read by our
//! own reader of files as the API server reads them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed expectation is a failed test

#[path = "crds/rules.rs"]
mod rules;

use std::fs;

use kube::Api;
use kube::api::ListParams;
use patina_crds::config::{self, manifest};
use patina_crds::types;
use patina_e2e::control_plane::{ControlPlane, Options, Said};
use patina_e2e::paths;

const NAMESPACE: &str = "metallb-system";

/// An API server with the eleven kinds and MetalLB's namespace.
async fn plane() -> ControlPlane {
    let options = Options { controller_manager: false, ..Options::default() };
    let plane = ControlPlane::start(options).await.unwrap();
    plane.apply_crds().await.unwrap();
    plane.kubectl(&["create", "namespace", NAMESPACE]).await.unwrap();
    plane
}

async fn apply(plane: &ControlPlane, yaml: &str) -> Said {
    plane.kubectl_with(&["apply", "-f", "-"], yaml).await.unwrap()
}

/// A resource in one line each of name and spec.
fn resource(version: &str, kind: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: metallb.io/{version}\nkind: {kind}\nmetadata: {{name: {name}, namespace: {NAMESPACE}}}\nspec: {spec}\n"
    )
}

/// Kind, a nested field of it, and a word of its explanation.
const EXPLAINED: [(&str, &str, &str); 11] = [
    ("addressconflict", "spec.mac", "MAC"),
    ("addressreservation", "spec.service.name", "Service"),
    ("ipaddresspool", "spec.serviceAllocation.namespaceSelectors.matchExpressions.operator", "NotIn"),
    ("l2advertisement", "spec.preferredNodeSelectors.weight", "1 to 100"),
    ("bgpadvertisement", "spec.aggregationLengthV6", "IPv6"),
    ("bgppeer", "spec.passwordSecret.name", "Secret"),
    ("bfdprofile", "spec.detectMultiplier", "lost"),
    ("community", "spec.communities.value", "large:64500:1:2"),
    ("servicel2status", "status.interfaces.name", "name"),
    ("servicebgpstatus", "status.peers", "BGPPeers"),
    ("configurationstate", "status.conditions.reason", "word"),
];

#[tokio::test]
async fn every_kind_is_established_explained_and_decodes_without_a_spec() {
    let plane = plane().await;
    let columns = "-o=jsonpath={range .items[*]}{.metadata.name}{range .status.conditions[*]} {.type}={.status}{end}{\"\\n\"}{end}";
    let crds = plane.kubectl(&["get", "crds", columns]).await.unwrap();
    assert_eq!(crds.lines().count(), EXPLAINED.len(), "{crds}");
    for line in crds.lines() {
        assert!(line.contains("Established=True") && !line.contains("NonStructuralSchema"), "{line}");
    }
    for (kind, field, word) in EXPLAINED {
        let whole = plane.kubectl(&["explain", kind]).await.unwrap();
        let group = if kind.starts_with("address") { types::OUR_GROUP } else { types::GROUP };
        assert!(whole.contains(&format!("GROUP:      {group}\n")) && whole.contains("spec"), "{whole}");
        let nested = plane.kubectl(&["explain", &format!("{kind}.{field}")]).await.unwrap();
        assert!(nested.contains(word), "{kind}.{field}: {nested}");
    }
    // An object that does not decode would blind the whole watch; MetalLB's own example has no spec.
    for kind in ["L2Advertisement", "BGPAdvertisement", "BFDProfile", "Community", "BGPPeer"] {
        let version = if kind == "BGPPeer" { "v1beta2" } else { "v1beta1" };
        let yaml = format!(
            "apiVersion: metallb.io/{version}\nkind: {kind}\nmetadata: {{name: bare, namespace: {NAMESPACE}}}\n"
        );
        plane.apply(&yaml).await.unwrap();
    }
    let client = plane.client();
    let all = ListParams::default();
    let l2 = Api::<types::L2Advertisement>::namespaced(client.clone(), NAMESPACE).list(&all).await.unwrap();
    assert_eq!(l2.items[0].spec, types::L2AdvertisementSpec::default());
    let bgp = Api::<types::BGPAdvertisement>::namespaced(client.clone(), NAMESPACE).list(&all).await.unwrap();
    assert_eq!(bgp.items[0].spec, types::BGPAdvertisementSpec::default());
    Api::<types::BFDProfile>::namespaced(client.clone(), NAMESPACE).list(&all).await.unwrap();
    Api::<types::Community>::namespaced(client.clone(), NAMESPACE).list(&all).await.unwrap();
    Api::<types::BGPPeer>::namespaced(client.clone(), NAMESPACE).list(&all).await.unwrap();
    Api::<types::v1beta1::BGPPeer>::namespaced(client, NAMESPACE).list(&all).await.unwrap();
}

/// Version, kind, spec, and a part of the refusal.
const REFUSED: [(&str, &str, &str, &str); 28] = [
    ("v1beta1", "IPAddressPool", "{}", "spec.addresses: Required value"),
    ("v1beta1", "IPAddressPool", "{addresses: []}", "spec.addresses"),
    (
        "v1beta1",
        "IPAddressPool",
        "{addresses: [10.0.0.0/24], autoassign: false}",
        "unknown field \"spec.autoassign\"",
    ),
    ("v1beta1", "IPAddressPool", "{addresses: [10.0.0.0/24], autoAssign: 'no'}", "must be of type boolean"),
    (
        "v1beta1",
        "L2Advertisement",
        "{preferredNodeSelectors: [{weight: 0, preference: {}}]}",
        "greater than or equal to 1",
    ),
    (
        "v1beta1",
        "L2Advertisement",
        "{preferredNodeSelectors: [{weight: 101, preference: {}}]}",
        "less than or equal to 100",
    ),
    ("v1beta1", "L2Advertisement", "{preferredNodeSelectors: [{weight: 1}]}", "preference: Required value"),
    ("v1beta1", "BGPAdvertisement", "{aggregationLength: 0}", "greater than or equal to 1"),
    (
        "v1beta1",
        "BGPAdvertisement",
        "{aggregationLength: 24, serviceSelectors: [{}]}",
        "only allowed with aggregationLength 32",
    ),
    (
        "v1beta1",
        "BGPAdvertisement",
        "{aggregationLengthV6: 64, serviceSelectors: [{}]}",
        "aggregationLengthV6 128",
    ),
    ("v1beta1", "BFDProfile", "{receiveInterval: 9}", "greater than or equal to 10"),
    ("v1beta1", "BFDProfile", "{echoInterval: 60001}", "less than or equal to 60000"),
    ("v1beta1", "BFDProfile", "{detectMultiplier: 1}", "greater than or equal to 2"),
    ("v1beta1", "BFDProfile", "{minimumTtl: 255}", "less than or equal to 254"),
    ("v1beta2", "BGPPeer", "{peerASN: 1, peerAddress: 10.0.0.1}", "spec.myASN: Required value"),
    ("v1beta2", "BGPPeer", "{myASN: 0, peerASN: 1, peerAddress: 10.0.0.1}", "myASN must be 1 to 4294967295"),
    (
        "v1beta2",
        "BGPPeer",
        "{myASN: 1, peerASN: 4294967296, peerAddress: 10.0.0.1}",
        "less than or equal to 4294967295",
    ),
    ("v1beta2", "BGPPeer", "{myASN: 1, peerAddress: 10.0.0.1}", "exactly one of peerASN"),
    (
        "v1beta2",
        "BGPPeer",
        "{myASN: 1, peerASN: 2, dynamicASN: external, peerAddress: 10.0.0.1}",
        "exactly one of peerASN",
    ),
    (
        "v1beta2",
        "BGPPeer",
        "{myASN: 1, dynamicASN: any, peerAddress: 10.0.0.1}",
        "supported values: \"internal\", \"external\"",
    ),
    ("v1beta2", "BGPPeer", "{myASN: 1, peerASN: 2}", "exactly one of peerAddress and interface"),
    (
        "v1beta2",
        "BGPPeer",
        "{myASN: 1, peerASN: 2, peerAddress: 10.0.0.1, peerPort: 16385}",
        "less than or equal to 16384",
    ),
    (
        "v1beta2",
        "BGPPeer",
        "{myASN: 1, peerASN: 2, peerAddress: 10.0.0.1, holdTime: 2s}",
        "holdTime must be 0s, or 3s",
    ),
    (
        "v1beta2",
        "BGPPeer",
        "{myASN: 1, peerASN: 2, peerAddress: 10.0.0.1, holdTime: 9s, keepaliveTime: 10s}",
        "must not be longer",
    ),
    (
        "v1beta2",
        "BGPPeer",
        "{myASN: 1, peerASN: 2, peerAddress: 10.0.0.1, connectTime: 500ms}",
        "between 1 second and 65535",
    ),
    (
        "v1beta2",
        "BGPPeer",
        "{myASN: 1, peerASN: 2, peerAddress: 10.0.0.1, connectTime: 1500ms}",
        "whole seconds",
    ),
    (
        "v1beta2",
        "BGPPeer",
        "{myASN: 1, peerASN: 2, peerAddress: 10.0.0.1, password: a, passwordSecret: {name: b}}",
        "at most one of password",
    ),
    ("v1beta1", "BGPPeer", "{myASN: 1}", "spec.peerAddress: Required value"),
];

#[tokio::test]
async fn the_schemas_and_rules_refuse() {
    let plane = plane().await;
    for (version, kind, spec, part) in REFUSED {
        let said = apply(&plane, &resource(version, kind, "x", spec)).await;
        assert!(!said.success && said.stderr.contains(part), "{kind} {spec}: expected {part:?} in {said:?}");
    }
    // What must not change, changes not.
    let peer = |restart: bool| {
        let spec =
            format!("{{myASN: 1, peerASN: 2, peerAddress: 10.0.0.1, enableGracefulRestart: {restart}}}");
        resource("v1beta2", "BGPPeer", "fixed", &spec)
    };
    plane.apply(&peer(true)).await.unwrap();
    let said = apply(&plane, &peer(false)).await;
    assert!(!said.success && said.stderr.contains("cannot be changed after creation"), "{said:?}");
    for (kind, plural) in
        [("ServiceL2Status", "servicel2statuses"), ("ServiceBGPStatus", "servicebgpstatuses")]
    {
        plane.apply(&resource("v1beta1", kind, "s", "{}")).await.unwrap();
        let node = |name: &str| format!("{{\"status\": {{\"node\": \"{name}\", \"serviceName\": \"web\"}}}}");
        let patch = |patch: String| {
            let plane = &plane;
            async move {
                let args = [
                    "patch",
                    plural,
                    "s",
                    "-n",
                    NAMESPACE,
                    "--subresource=status",
                    "--type=merge",
                    "-p",
                    &patch,
                ];
                plane.kubectl_with(&args, "").await.unwrap()
            }
        };
        let said = patch(node("node-1")).await;
        assert!(said.success, "{said:?}");
        let said = patch(node("node-2")).await;
        assert!(!said.success && said.stderr.contains("Value is immutable"), "{kind}: {said:?}");
    }
}

#[tokio::test]
async fn columns_and_both_versions_of_a_peer() {
    let plane = plane().await;
    let old = resource(
        "v1beta1",
        "BGPPeer",
        "old",
        "{myASN: 64500, peerASN: 64501, peerAddress: 10.0.0.1, ebgpMultiHop: true}",
    );
    let said = apply(&plane, &old).await;
    assert!(said.success && said.stderr.contains("v1beta1 BGPPeer is deprecated"), "{said:?}");
    let new = resource(
        "v1beta2",
        "BGPPeer",
        "new",
        "{myASN: 64500, peerASN: 64502, peerAddress: 10.0.0.2, vrf: red}",
    );
    plane.apply(&new).await.unwrap();
    // Each is read in the other version.
    let peers: Api<types::BGPPeer> = Api::namespaced(plane.client(), NAMESPACE);
    let peer = peers.get("old").await.unwrap();
    assert_eq!((peer.spec.peer_asn, peer.spec.peer_port), (Some(64501), Some(179)));
    let peers: Api<types::v1beta1::BGPPeer> = Api::namespaced(plane.client(), NAMESPACE);
    assert_eq!(peers.get("new").await.unwrap().spec.peer_asn, 64502);
    let stored =
        plane.kubectl(&["get", "crd", "bgppeers.metallb.io", "-o=jsonpath={.status.storedVersions}"]).await;
    assert_eq!(stored.unwrap(), "[\"v1beta2\"]");

    let spec = "{addresses: [10.0.0.0/24], avoidBuggyIPs: true}";
    plane.apply(&resource("v1beta1", "IPAddressPool", "p", spec)).await.unwrap();
    let spec = "{ipAddressPools: [p], interfaces: [eth0], nodeSelectors: [{matchLabels: {a: b}}]}";
    plane.apply(&resource("v1beta1", "L2Advertisement", "l2", spec)).await.unwrap();
    let spec = "{ipAddressPools: [p], peers: [new], nodeSelectors: [{matchLabels: {a: b}}]}";
    plane.apply(&resource("v1beta1", "BGPAdvertisement", "b", spec)).await.unwrap();
    let spec = "{passiveMode: true, transmitInterval: 100, receiveInterval: 200, detectMultiplier: 5}";
    plane.apply(&resource("v1beta1", "BFDProfile", "f", spec)).await.unwrap();
    for (kind, wide, columns) in [
        ("ipaddresspools", false, "NAME AUTO ASSIGN AVOID BUGGY IPS ADDRESSES p true true [\"10.0.0.0/24\"]"),
        (
            "l2advertisements",
            false,
            "NAME IPADDRESSPOOLS IPADDRESSPOOL SELECTORS INTERFACES l2 [\"p\"] [\"eth0\"]",
        ),
        (
            "l2advertisements",
            true,
            "NAME IPADDRESSPOOLS IPADDRESSPOOL SELECTORS INTERFACES NODE SELECTORS l2 [\"p\"] [\"eth0\"] \
             [{\"matchLabels\":{\"a\":\"b\"}}]",
        ),
        ("bgpadvertisements", false, "NAME IPADDRESSPOOLS IPADDRESSPOOL SELECTORS PEERS b [\"p\"] [\"new\"]"),
        (
            "bfdprofiles",
            false,
            "NAME PASSIVE MODE TRANSMIT INTERVAL RECEIVE INTERVAL MULTIPLIER f true 100 200 5",
        ),
        (
            "bgppeers",
            false,
            "NAME ADDRESS ASN BFD PROFILE MULTI HOPS new 10.0.0.2 64502 old 10.0.0.1 64501 true",
        ),
    ] {
        let mut args = vec!["get", kind, "-n", NAMESPACE];
        args.extend(wide.then_some("-o=wide"));
        let table = plane.kubectl(&args).await.unwrap();
        assert_eq!(table.split_whitespace().collect::<Vec<_>>().join(" "), columns);
    }
}

/// Where a reader of files ought to say more: of a doubled key kubectl takes the last without a word.
const STRICTER: [&str; 1] = ["manifest-doubled-key"];

/// The recorded cases of patina-crds, one by one through `kubectl apply --dry-run=server`: what our reader of files refuses,
/// the API server refuses; what makes a configuration, it accepts.
#[tokio::test]
async fn our_reader_of_files_agrees_with_the_api_server() {
    let plane = plane().await;
    let directory = paths::crds_yaml().parent().unwrap().join("tests/golden/config");
    let mut cases: Vec<_> = fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
        .collect();
    cases.sort();
    assert!(cases.len() >= 60, "{} cases in {}", cases.len(), directory.display());
    let mut differ = Vec::new();
    for path in &cases {
        let text = fs::read_to_string(path).unwrap();
        let said = plane.kubectl_with(&["apply", "--dry-run=server", "-f", "-"], &text).await.unwrap();
        let taken = said.success || said.stderr.contains("no objects passed to apply");
        let name = path.file_stem().unwrap().to_str().unwrap();
        if STRICTER.contains(&name) {
            assert!(
                taken && manifest::read(&text, &manifest::Options::default()).is_err(),
                "{name}: {said:?}"
            );
            continue;
        }
        let agreed = match manifest::read(&text, &manifest::Options::default()) {
            Err(_) => !taken,
            Ok(read) if config::build(&read.resources).is_ok() => taken,
            // Overlaps, references: nothing that one object by itself could be refused for.
            Ok(_) => true,
        };
        if !agreed {
            differ.push(format!("{}: the API server says {said:?}", path.display()));
        }
    }
    assert!(differ.is_empty(), "{} of {} differ:\n{}", differ.len(), cases.len(), differ.join("\n"));
}
