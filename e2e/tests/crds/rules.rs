//! Each CEL rule of the CRDs, by an object that it lets pass and one that it refuses; and what becomes of objects that are
//! older than a rule.

use std::collections::BTreeSet;
use std::time::Duration;

use patina_crds::types::{self, crds};
use patina_e2e::control_plane::{ControlPlane, Options};
use patina_e2e::wait::{self, Seen};
use serde_json::Value;

use super::{NAMESPACE, apply, plane};

/// Kind (BGPPeer is v1beta2, OldPeer its v1beta1), a spec that passes, one that does not, and a part of why not.
const RULES: &[(&str, &str, &str, &str)] = &[
    // MetalLB's parsers take host bits, spaces, zeros before the length, IPv4 in IPv6 clothes.
    (
        "IPAddressPool",
        "{addresses: [192.0.2.77/24]}",
        "{addresses: [192.0.2.1]}",
        "one address is 192.0.2.1/32",
    ),
    ("IPAddressPool", "{addresses: ['2001:DB8:0::1/064']}", "{addresses: ['2001:db8::1']}", "must be a CIDR"),
    ("IPAddressPool", "{addresses: [' 192.0.2.0/024 ']}", "{addresses: [192.0.2.0/33]}", "must be a CIDR"),
    (
        "IPAddressPool",
        "{addresses: ['::ffff:192.0.2.0/120']}",
        "{addresses: [a, 192.0.2.0/24]}",
        "spec.addresses[0]",
    ),
    ("IPAddressPool", "{addresses: [0.0.0.0/0, '::/0']}", "{addresses: ['']}", "must be a CIDR"),
    (
        "IPAddressPool",
        "{addresses: ['192.0.2.10 - 192.0.2.10']}",
        "{addresses: [router-192.0.2.9]}",
        "the first of a range",
    ),
    (
        "IPAddressPool",
        "{addresses: ['2001:db8::1-2001:db8::ff']}",
        "{addresses: [192.0.2.10-20]}",
        "the last of a range",
    ),
    (
        "IPAddressPool",
        "{addresses: ['::ffff:192.0.2.1-192.0.2.9']}",
        "{addresses: ['192.0.2.1-2001:db8::1']}",
        "of one family",
    ),
    (
        "IPAddressPool",
        "{addresses: [9.255.255.255-10.0.0.0]}",
        "{addresses: [10.0.0.0-9.255.255.255]}",
        "must not be after",
    ),
    (
        "IPAddressPool",
        "{addresses: [192.0.2.9-192.0.2.10]}",
        "{addresses: [192.0.2.10-192.0.2.9]}",
        "must not be after",
    ),
    // Their first two are strings of digits that compare otherwise than as numbers.
    ("AddressReservation", "{addresses: [192.0.2.1]}", "{addresses: [gateway]}", "must be an address"),
    (
        "AddressReservation",
        "{addresses: ['2001:db8::1', 192.0.2.0/30]}",
        "{addresses: [192.0.2.256]}",
        "must be an address",
    ),
    (
        "AddressReservation",
        "{addresses: [192.0.2.9-192.0.2.10]}",
        "{addresses: [192.0.2.10-192.0.2.9]}",
        "must not be after",
    ),
    (
        "AddressReservation",
        "{addresses: ['2001:db8::1-2001:db8::2']}",
        "{addresses: [gw-192.0.2.9]}",
        "the first of a range",
    ),
    (
        "AddressReservation",
        "{addresses: [192.0.2.1, 192.0.2.3]}",
        "{addresses: [192.0.2.9-gw]}",
        "the last of a range",
    ),
    (
        "AddressReservation",
        "{addresses: [192.0.2.7/32]}",
        "{addresses: ['192.0.2.1-2001:db8::1']}",
        "of one family",
    ),
    (
        "AddressReservation",
        "{addresses: [192.0.2.1, 192.0.2.2]}",
        "{addresses: [192.0.2.1, 192.0.2.1]}",
        "stands twice",
    ),
    (
        "AddressReservation",
        "{addresses: [192.0.2.1], service: {namespace: shop, name: web}}",
        "{addresses: [192.0.2.1], service: {namespace: shop, name: ''}}",
        "namespace and name must both be set",
    ),
    (
        "AddressReservation",
        "{addresses: [192.0.2.1], reason: gateway}",
        "{addresses: []}",
        "should have at least 1 items",
    ),
    (
        "Community",
        "{communities: [{name: a, value: '65535:0'}]}",
        "{communities: [{name: a, value: '1'}]}",
        "must be a community",
    ),
    (
        "Community",
        "{communities: [{name: a, value: 'large:4294967295:0:1'}]}",
        "{communities: [{name: a, value: 'large:1:2'}]}",
        "must be a community",
    ),
    (
        "Community",
        "{communities: [{name: a, value: '00064500:1'}]}",
        "{communities: [{name: a, value: '65536:0'}]}",
        "must be 0 to 65535",
    ),
    ("Community", "{communities: []}", "{communities: [{name: a, value: '0:65536'}]}", "must be 0 to 65535"),
    (
        "BGPAdvertisement",
        "{aggregationLength: 32}",
        "{aggregationLength: 33}",
        "aggregationLength must be 1 to 32",
    ),
    (
        "BGPAdvertisement",
        "{aggregationLengthV6: 128}",
        "{aggregationLengthV6: 129}",
        "aggregationLengthV6 must be 1 to 128",
    ),
    (
        "BGPAdvertisement",
        "{aggregationLengthV6: 1}",
        "{aggregationLengthV6: -1}",
        "aggregationLengthV6 must be 1 to 128",
    ),
    ("BGPAdvertisement", "{localPref: 0}", "{localPref: -1}", "localPref must be 0 or more"),
    (
        "BGPAdvertisement",
        "{aggregationLength: 32, aggregationLengthV6: 128, serviceSelectors: [{}]}",
        "{aggregationLength: 24, serviceSelectors: [{}]}",
        "only allowed with aggregationLength 32",
    ),
    // An alias may have any name, also one that looks like a value.
    (
        "BGPAdvertisement",
        "{communities: ['no:such:community', '70000:1']}",
        "{aggregationLength: 0}",
        "aggregationLength",
    ),
    (
        "BGPPeer",
        "{myASN: 1, peerASN: 2, peerAddress: 10.0.0.1}",
        "{myASN: 0, peerASN: 2, peerAddress: 10.0.0.1}",
        "myASN must be 1",
    ),
    (
        "BGPPeer",
        "{myASN: 1, peerASN: 0, dynamicASN: internal, peerAddress: 10.0.0.1}",
        "{myASN: 1, peerASN: 2, dynamicASN: internal, peerAddress: 10.0.0.1}",
        "exactly one of peerASN",
    ),
    (
        "BGPPeer",
        "{myASN: 1, peerASN: 2, peerAddress: '', interface: eth0}",
        "{myASN: 1, peerASN: 2, peerAddress: 10.0.0.1, interface: eth0}",
        "exactly one of peerAddress",
    ),
    (
        "BGPPeer",
        "{myASN: 1, peerASN: 2, peerAddress: 10.0.0.1, password: '', passwordSecret: {name: b}}",
        "{myASN: 1, peerASN: 2, peerAddress: 10.0.0.1, password: a, passwordSecret: {name: b}}",
        "at most one of password",
    ),
    (
        "BGPPeer",
        "{myASN: 1, peerASN: 2, peerAddress: 10.0.0.1, ebgpMultiHop: true}",
        "{myASN: 1, peerASN: 1, peerAddress: 10.0.0.1, ebgpMultiHop: true}",
        "peerASN equals myASN",
    ),
    (
        "BGPPeer",
        "{myASN: 1, peerASN: 2, peerAddress: 10.0.0.1, holdTime: 3s, keepaliveTime: 3s}",
        "{myASN: 1, peerASN: 2, peerAddress: 10.0.0.1, holdTime: 3s, keepaliveTime: 4s}",
        "must not be longer",
    ),
    (
        "BGPPeer",
        "{myASN: 1, peerASN: 2, peerAddress: 10.0.0.1, holdTime: 0s}",
        "{myASN: 1, peerASN: 2, peerAddress: 10.0.0.1, holdTime: 2s}",
        "holdTime must be 0s",
    ),
    (
        "BGPPeer",
        "{myASN: 1, peerASN: 2, peerAddress: 10.0.0.1, keepaliveTime: 1s}",
        "{myASN: 1, peerASN: 2, peerAddress: 10.0.0.1, keepaliveTime: 900ms}",
        "keepaliveTime without holdTime",
    ),
    (
        "BGPPeer",
        "{myASN: 1, peerASN: 2, peerAddress: 10.0.0.1, holdTime: 1m30s, keepaliveTime: 0s}",
        "{myASN: 1, peerASN: 2, peerAddress: 10.0.0.1, holdTime: 1m30s, keepaliveTime: -1s}",
        "must not be negative",
    ),
    (
        "BGPPeer",
        "{myASN: 1, peerASN: 2, peerAddress: 10.0.0.1, connectTime: 1s}",
        "{myASN: 1, peerASN: 2, peerAddress: 10.0.0.1, connectTime: 0s}",
        "between 1 second",
    ),
    (
        "BGPPeer",
        "{myASN: 1, peerASN: 2, peerAddress: 10.0.0.1, connectTime: 65535s}",
        "{myASN: 1, peerASN: 2, peerAddress: 10.0.0.1, connectTime: 1500ms}",
        "whole seconds",
    ),
    (
        "BGPPeer",
        "{myASN: 1, peerASN: 2, peerAddress: 'FE80::1'}",
        "{myASN: 1, peerASN: 2, peerAddress: tor}",
        "peerAddress must be an IP",
    ),
    (
        "BGPPeer",
        "{myASN: 1, peerASN: 2, peerAddress: '::ffff:10.0.0.1', sourceAddress: ''}",
        "{myASN: 1, peerASN: 2, peerAddress: 10.0.0.1, sourceAddress: 10.0.0.0/24}",
        "sourceAddress must be an IP",
    ),
    (
        "BGPPeer",
        "{myASN: 1, peerASN: 2, peerAddress: 10.0.0.1, routerID: 10.1.1.1}",
        "{myASN: 1, peerASN: 2, peerAddress: 10.0.0.1, routerID: '2001:db8::1'}",
        "routerID must be written as an IPv4",
    ),
    (
        "OldPeer",
        "{myASN: 1, peerASN: 2, peerAddress: 10.0.0.1}",
        "{myASN: 0, peerASN: 2, peerAddress: 10.0.0.1}",
        "myASN must be 1",
    ),
    // What the conversion writes for a peer that v1beta1 cannot say.
    (
        "OldPeer",
        "{myASN: 1, peerASN: 0, peerAddress: '', peerPort: 0}",
        "{myASN: 1, peerASN: 2, peerAddress: tor}",
        "peerAddress must be an IP",
    ),
    (
        "OldPeer",
        "{myASN: 1, peerASN: 2, peerAddress: 10.0.0.1, ebgpMultiHop: true}",
        "{myASN: 1, peerASN: 1, peerAddress: 10.0.0.1, ebgpMultiHop: true}",
        "peerASN equals myASN",
    ),
    // Go's clients of v1beta1 write both timers as 0s when nobody gave them.
    (
        "OldPeer",
        "{myASN: 1, peerASN: 2, peerAddress: 10.0.0.1, holdTime: 0s, keepaliveTime: 30s}",
        "{myASN: 1, peerASN: 2, peerAddress: 10.0.0.1, holdTime: 9s, keepaliveTime: 30s}",
        "must not be longer",
    ),
    (
        "OldPeer",
        "{myASN: 1, peerASN: 2, peerAddress: 10.0.0.1, holdTime: 90s}",
        "{myASN: 1, peerASN: 2, peerAddress: 10.0.0.1, holdTime: 2s}",
        "holdTime must be 0s",
    ),
    (
        "OldPeer",
        "{myASN: 1, peerASN: 2, peerAddress: 10.0.0.1, keepaliveTime: 30s}",
        "{myASN: 1, peerASN: 2, peerAddress: 10.0.0.1, keepaliveTime: 20h}",
        "keepaliveTime without holdTime",
    ),
    (
        "OldPeer",
        "{myASN: 1, peerASN: 2, peerAddress: 10.0.0.1, holdTime: 0s, keepaliveTime: 0s}",
        "{myASN: 1, peerASN: 2, peerAddress: 10.0.0.1, holdTime: 9s, keepaliveTime: -3s}",
        "must not be negative",
    ),
    (
        "OldPeer",
        "{myASN: 1, peerASN: 2, peerAddress: 10.0.0.1, sourceAddress: '2001:db8::1'}",
        "{myASN: 1, peerASN: 2, peerAddress: 10.0.0.1, sourceAddress: eth0}",
        "sourceAddress must be an IP",
    ),
    (
        "OldPeer",
        "{myASN: 1, peerASN: 2, peerAddress: 10.0.0.1, routerID: ''}",
        "{myASN: 1, peerASN: 2, peerAddress: 10.0.0.1, routerID: '7'}",
        "routerID must be written as an IPv4",
    ),
];

fn object(kind: &str, name: &str, spec: &str) -> String {
    let (group, version, kind) = match kind {
        "OldPeer" => (types::GROUP, "v1beta1", "BGPPeer"),
        "BGPPeer" => (types::GROUP, "v1beta2", "BGPPeer"),
        "AddressReservation" => (types::OUR_GROUP, "v1beta1", kind),
        _ => (types::GROUP, "v1beta1", kind),
    };
    format!(
        "apiVersion: {group}/{version}\nkind: {kind}\nmetadata: {{name: {name}, namespace: {NAMESPACE}}}\nspec: {spec}\n---\n"
    )
}

#[tokio::test]
async fn each_rule_has_an_object_that_passes_and_one_that_does_not() {
    let plane = plane().await;
    let all = |pick: fn(&(&str, &'static str, &'static str, &str)) -> &'static str| -> String {
        RULES.iter().enumerate().map(|(i, rule)| object(rule.0, &format!("rule-{i}"), pick(rule))).collect()
    };
    let args = ["apply", "--dry-run=server", "-f", "-"];
    let said = plane.kubectl_with(&args, &all(|rule| rule.1)).await.unwrap();
    assert!(said.success, "{}", said.stderr);
    let said = plane.kubectl_with(&args, &all(|rule| rule.2)).await.unwrap();
    for (i, (kind, _, spec, part)) in RULES.iter().enumerate() {
        let refusal = said.stderr.lines().find(|line| line.contains(&format!("\"rule-{i}\" is invalid")));
        assert!(
            refusal.is_some_and(|line| line.contains(part)),
            "{kind} {spec}: expected {part:?} in {refusal:?}"
        );
    }
    // No rule without a case. What may not be changed is tested beside this.
    let mut messages = BTreeSet::new();
    for crd in crds().unwrap() {
        collect_messages(&crd.object, &mut messages);
    }
    messages.retain(|message| !message.contains("immutable") && !message.contains("cannot be changed"));
    assert!(messages.len() >= 25, "{messages:?}");
    let silent: Vec<_> = messages.iter().filter(|message| !said.stderr.contains(*message)).collect();
    assert!(silent.is_empty(), "no case for {silent:#?}");
}

fn collect_messages(value: &Value, out: &mut BTreeSet<String>) {
    if let Some(rules) = value.get("x-kubernetes-validations").and_then(Value::as_array) {
        out.extend(rules.iter().map(|rule| rule["message"].as_str().unwrap().to_owned()));
    }
    match value {
        Value::Object(map) => map.values().for_each(|value| collect_messages(value, out)),
        Value::Array(list) => list.iter().for_each(|value| collect_messages(value, out)),
        _ => {}
    }
}

#[tokio::test]
async fn lists_and_texts_are_bounded_far_above_what_people_write() {
    let plane = plane().await;
    let pool = |entries: usize| {
        let list: Vec<String> = (0..entries).map(|i| format!("10.{}.{}.0/29", i / 256, i % 256)).collect();
        object("IPAddressPool", "large", &format!("{{addresses: [{}]}}", list.join(", ")))
    };
    let create = ["create", "-f", "-"];
    let said = plane.kubectl_with(&create, &pool(10_000)).await.unwrap();
    assert!(said.success, "{}", said.stderr);
    let said = plane.kubectl_with(&create, &pool(10_001)).await.unwrap();
    assert!(!said.success && said.stderr.contains("must have at most 10000 items"), "{}", said.stderr);
}

/// The CRDs as they would be without the rules, as MetalLB's are.
fn without_rules(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for name in ["x-kubernetes-validations", "maxItems", "maxLength"] {
                map.remove(name);
            }
            map.values_mut().for_each(without_rules);
        }
        Value::Array(list) => list.iter_mut().for_each(without_rules),
        _ => {}
    }
}

#[tokio::test]
async fn objects_that_are_older_than_a_rule_can_still_be_edited() {
    let plane =
        ControlPlane::start(Options { controller_manager: false, ..Options::default() }).await.unwrap();
    let lenient = crds().unwrap().into_iter().map(|mut crd| {
        without_rules(&mut crd.object);
        crd.to_yaml().unwrap()
    });
    let lenient = lenient.collect::<Vec<_>>().join("---\n");
    let args = ["apply", "--server-side", "-f", "-"];
    let said = plane.kubectl_with(&args, &lenient).await.unwrap();
    assert!(said.success, "{}", said.stderr);
    let names: Vec<String> =
        crds().unwrap().iter().map(|crd| format!("crd/{}.{}", crd.plural, crd.group)).collect();
    let mut args = vec!["wait", "--for=condition=Established", "--timeout=30s"];
    args.extend(names.iter().map(String::as_str));
    plane.kubectl(&args).await.unwrap();
    plane.kubectl(&["create", "namespace", NAMESPACE]).await.unwrap();
    let bad = || {
        RULES
            .iter()
            .enumerate()
            .filter(|(_, rule)| !["{addresses: []}", "{aggregationLength: 0}"].contains(&rule.2))
    };
    let objects: String = bad().map(|(i, rule)| object(rule.0, &format!("rule-{i}"), rule.2)).collect();
    plane.apply(&objects).await.unwrap();

    plane.apply_crds().await.unwrap();
    let fresh = object("IPAddressPool", "fresh", "{addresses: [192.0.2.1]}");
    wait::until("the rules are in force", Duration::from_secs(30), || async {
        let said = plane.kubectl_with(&["create", "--dry-run=server", "-f", "-"], &fresh).await?;
        Ok(Seen::when(!said.success, said.stdout))
    })
    .await
    .unwrap();

    // A label, or a field beside the wrong one: nobody who touches neither is refused for an old mistake.
    let kinds = "ipaddresspools,addressreservations,communities,bgpadvertisements,bgppeers";
    let labelled = plane.kubectl(&["label", kinds, "--all", "-n", NAMESPACE, "edited=yes"]).await.unwrap();
    assert_eq!(labelled.lines().count(), bad().count(), "{labelled}");
    let patch = async |kind: &str, name: &str, spec: &str| {
        let patch = format!("{{\"spec\": {spec}}}");
        let args = ["patch", kind, name, "-n", NAMESPACE, "--type=merge", "-p", &patch];
        plane.kubectl_with(&args, "").await.unwrap()
    };
    let pool = format!("rule-{}", RULES.iter().position(|rule| rule.0 == "IPAddressPool").unwrap());
    let said = patch("ipaddresspool", &pool, "{\"autoAssign\": false}").await;
    assert!(said.success, "{}", said.stderr);
    // Whoever touches the list is asked for the new entry only.
    let said = patch("ipaddresspool", &pool, "{\"addresses\": [\"192.0.2.2\"]}").await;
    assert!(!said.success && said.stderr.contains("must be a CIDR"), "{}", said.stderr);
    let said = patch("ipaddresspool", &pool, "{\"addresses\": [\"192.0.2.2/32\"]}").await;
    assert!(said.success, "{}", said.stderr);
    let router = format!("rule-{}", RULES.iter().position(|rule| rule.2.contains("routerID")).unwrap());
    let said = patch("bgppeer", &router, "{\"sourceAddress\": \"10.0.0.9\"}").await;
    assert!(said.success, "{}", said.stderr);
    let said = apply(
        &plane,
        &object("BGPPeer", &router, "{myASN: 1, peerASN: 2, peerAddress: 10.0.0.1, routerID: x}"),
    )
    .await;
    assert!(!said.success && said.stderr.contains("routerID must be written"), "{}", said.stderr);
}
