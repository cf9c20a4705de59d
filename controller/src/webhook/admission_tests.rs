//! One row per edit.

use serde_json::json;

use super::*;

const NAMESPACE: &str = "metallb-system";

/// What is stored: YAML documents.
fn stored(yaml: &str) -> Resources {
    let options = Options { namespace: NAMESPACE.to_owned(), ..Options::default() };
    let mut resources = manifest::read(yaml, &options).unwrap().resources;
    resources.namespace = NAMESPACE.to_owned();
    resources
}

fn request(operation: &str, namespace: &str, object: Value) -> AdmissionRequest<DynamicObject> {
    let version = object["apiVersion"].as_str().unwrap().to_owned();
    let (group, version) = version.split_once('/').unwrap();
    let object_or_old = if operation == "DELETE" { "oldObject" } else { "object" };
    serde_json::from_value(json!({
        "uid": "u", "operation": operation, "namespace": namespace, "name": object["metadata"]["name"],
        "kind": {"group": group, "version": version, "kind": object["kind"]},
        "resource": {"group": group, "version": version, "resource": "any"},
        "userInfo": {}, object_or_old: object,
    }))
    .unwrap()
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    let version = match kind {
        "AddressReservation" => "patina.io/v1beta1",
        "BGPPeer" => "metallb.io/v1beta2",
        _ => "metallb.io/v1beta1",
    };
    json!({"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec})
}

/// The answer as the API server gets it.
fn answer(operation: &str, object: Value, resources: &Resources) -> Value {
    let request = request(operation, NAMESPACE, object);
    serde_json::to_value(response(&request, judge(&request, resources))).unwrap()
}

fn fields(answer: &Value) -> Vec<&str> {
    assert_eq!(answer["allowed"], false, "{answer}");
    let causes = answer["status"]["details"]["causes"].as_array().unwrap();
    causes.iter().map(|cause| cause["field"].as_str().unwrap()).collect()
}

fn allowed(answer: &Value) {
    assert_eq!(answer["allowed"], true, "{answer}");
}

const POOLS: &str = "
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: a}
spec: {addresses: [192.0.2.0/25]}
---
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata: {name: l2}
";

#[test]
fn all_errors_of_an_object_are_told_at_once_each_with_its_field() {
    let spec = json!({"addresses": ["192.0.2.9-192.0.2.1", "nonsense", "192.0.2.64/26"]});
    let answer = answer("CREATE", object("IPAddressPool", "b", spec), &stored(POOLS));
    assert_eq!(fields(&answer), ["spec.addresses[0]", "spec.addresses[1]", "spec.addresses[2]"]);
    assert_eq!((&answer["status"]["code"], &answer["status"]["reason"]), (&json!(422), &json!("Invalid")));
    let message = answer["status"]["message"].as_str().unwrap();
    assert!(
        message.starts_with("3 errors: spec.addresses[0]: ") && message.contains("nonsense"),
        "{message}"
    );
}

#[test]
fn every_kind_is_judged() {
    let none = stored("");
    for (kind, spec, field) in [
        ("AddressReservation", json!({"addresses": ["x"]}), "spec.addresses[0]"),
        ("BFDProfile", json!({"receiveInterval": 1}), "spec.receiveInterval"),
        ("BGPAdvertisement", json!({"aggregationLength": 33}), "spec.aggregationLength"),
        ("BGPPeer", json!({"myASN": 1, "peerASN": 2, "peerAddress": "nowhere"}), "spec.peerAddress"),
        ("Community", json!({"communities": [{"name": "a", "value": "1"}]}), "spec.communities[0].value"),
        ("IPAddressPool", json!({"addresses": ["192.0.2.1"]}), "spec.addresses[0]"),
        ("L2Advertisement", json!({"ipAddressPools": ["a", "a"]}), "spec.ipAddressPools[1]"),
    ] {
        let answer = answer("CREATE", object(kind, "x", spec), &none);
        assert!(fields(&answer).iter().any(|found| found.starts_with(field)), "{kind}: {answer}");
    }
}

#[test]
fn a_peer_of_the_old_version_is_the_same_peer() {
    let spec = json!({"myASN": 1, "peerASN": 2, "peerAddress": "nowhere"});
    let mut old = object("BGPPeer", "p", spec);
    old["apiVersion"] = json!("metallb.io/v1beta1");
    assert_eq!(fields(&answer("CREATE", old.clone(), &stored(""))), ["spec.peerAddress"]);
    old["spec"]["peerAddress"] = json!("192.0.2.1");
    allowed(&answer("CREATE", old, &stored("")));
}

#[test]
fn what_was_wrong_before_stands_in_nobodys_way() {
    let mut broken = stored(POOLS);
    broken.pools[0].spec.addresses = vec!["one".into(), "two".into(), "192.0.2.0/25".into()];
    let other = object("IPAddressPool", "b", json!({"addresses": ["198.51.100.0/24"]}));
    allowed(&answer("CREATE", other, &broken));
    for mended in [json!(["one", "192.0.2.0/25"]), json!(["two", "192.0.2.0/25"]), json!(["192.0.2.0/25"])] {
        allowed(&answer("UPDATE", object("IPAddressPool", "a", json!({"addresses": mended})), &broken));
    }
    let worse = object("IPAddressPool", "a", json!({"addresses": ["one", "two", "three", "192.0.2.0/25"]}));
    assert_eq!(fields(&answer("UPDATE", worse, &broken)), ["spec.addresses[2]"], "only the new one");
}

#[test]
fn an_error_in_another_object_names_that_object() {
    let pools = POOLS.replace("name: a", "name: z");
    let answer = answer(
        "CREATE",
        object("IPAddressPool", "b", json!({"addresses": ["192.0.2.0/24"]})),
        &stored(&pools),
    );
    let message = answer["status"]["message"].as_str().unwrap();
    assert_eq!(answer["allowed"], false);
    assert!(message.contains('z'), "{message}");
}

#[test]
fn an_object_of_another_namespace_is_refused_when_it_is_made_and_never_again() {
    let pool = object("IPAddressPool", "b", json!({"addresses": ["x"]}));
    for (operation, taken) in [("CREATE", false), ("UPDATE", true), ("DELETE", true)] {
        let request = request(operation, "default", pool.clone());
        let answer = serde_json::to_value(response(&request, judge(&request, &stored(POOLS)))).unwrap();
        assert_eq!(answer["allowed"], taken, "{operation}");
        if !taken {
            assert_eq!(fields(&answer), ["metadata.namespace"]);
            assert!(answer["status"]["message"].as_str().unwrap().contains("create it there"), "{answer}");
        }
    }
}

#[test]
fn what_comes_later_may_come_later() {
    let peer = json!({"myASN": 1, "peerASN": 2, "peerAddress": "192.0.2.1", "bfdProfile": "fast"});
    allowed(&answer("CREATE", object("BGPPeer", "p", peer), &stored("")));
    let ad = json!({"communities": ["no-export-yet"]});
    allowed(&answer("CREATE", object("BGPAdvertisement", "ad", ad), &stored("")));
}

#[test]
fn a_profile_in_use_stays() {
    let mut resources = stored("");
    for name in ["p", "q"] {
        let peer = json!({"myASN": 1, "peerASN": 2, "peerAddress": "192.0.2.1", "bfdProfile": "fast"});
        resources.peers.push(serde_json::from_value(object("BGPPeer", name, peer)).unwrap());
    }
    let refused = answer("DELETE", object("BFDProfile", "fast", json!({})), &resources);
    assert_eq!(fields(&refused), ["metadata.name"]);
    assert!(refused["status"]["message"].as_str().unwrap().contains("BGPPeers p, q"), "{refused}");
    allowed(&answer("DELETE", object("BFDProfile", "slow", json!({})), &resources));
}

#[test]
fn what_the_object_leaves_open_is_a_warning() {
    let pool = object("IPAddressPool", "b", json!({"addresses": ["198.51.100.0/24"]}));
    let answer = answer("CREATE", pool, &stored(&POOLS.replace("kind: L2Advertisement", "kind: Community")));
    allowed(&answer);
    let warnings = answer["warnings"].as_array().unwrap();
    assert!(warnings[0].as_str().unwrap().contains("no advertisement covers the pool"), "{answer}");
    assert_eq!(warnings.len(), 1, "not what was so before: {answer}");
}

#[test]
fn an_object_that_does_not_decode_is_refused_by_its_field() {
    for (spec, field) in [
        (json!({"addresses": "192.0.2.0/24"}), "spec.addresses"),
        (json!({"addresses": [{}]}), "spec.addresses[0]"),
    ] {
        assert_eq!(fields(&answer("CREATE", object("IPAddressPool", "b", spec), &stored(""))), [field]);
    }
    let strange = answer("CREATE", object("ServiceL2Status", "b", json!({})), &stored(""));
    assert_eq!(fields(&strange), ["kind"]);
}
