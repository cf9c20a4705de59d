//! BGPPeer between its versions: what one cannot say is not lost, and what a client writes is what counts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed expectation is a failed test

use patina_crds::convert::{ConvertError, KEPT_V1BETA1, KEPT_V1BETA2, convert};
use patina_crds::types;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};

const OLD: &str = "metallb.io/v1beta1";
const NEW: &str = "metallb.io/v1beta2";

fn peer(api_version: &str, spec: Value) -> Value {
    let metadata = json!({
        "name": "tor", "namespace": "metallb-system", "uid": "7", "resourceVersion": "12", "generation": 3,
        "labels": {"a": "b"}, "finalizers": ["x/y"],
        "managedFields": [{"manager": "kubectl", "apiVersion": "metallb.io/v1beta2", "fieldsV1": {"f:spec": {"f:vrf": {}}}}],
    });
    json!({"apiVersion": api_version, "kind": "BGPPeer", "metadata": metadata, "spec": spec, "status": {}})
}

fn up(object: &Value) -> Value {
    convert(object, NEW).unwrap()
}

fn down(object: &Value) -> Value {
    convert(object, OLD).unwrap()
}

fn annotation<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object["metadata"]["annotations"].get(name).and_then(Value::as_str)
}

fn unnumbered() -> Value {
    peer(
        NEW,
        json!({
            "myASN": 64500, "dynamicASN": "external", "interface": "eth1", "peerPort": 179, "vrf": "red", "connectTime": "10s",
            "localASN": 64999, "enableGracefulRestart": true, "disableMP": false, "dualStackAddressFamily": true,
            "passwordSecret": {"name": "s", "namespace": "metallb-system"},
        }),
    )
}

#[test]
fn what_v1beta1_cannot_say_travels_in_one_annotation() {
    let old = down(&unnumbered());
    assert_eq!(old["apiVersion"], OLD);
    // A client of v1beta1 can write back what it reads: everything that its schema requires is there.
    assert_eq!(old["spec"], json!({"myASN": 64500, "peerASN": 0, "peerAddress": "", "peerPort": 179}));
    serde_json::from_value::<types::v1beta1::BGPPeer>(old.clone()).unwrap();
    let kept = "{\"connectTime\":\"10s\",\"dualStackAddressFamily\":true,\"dynamicASN\":\"external\",\
        \"enableGracefulRestart\":true,\"interface\":\"eth1\",\"localASN\":64999,\"password\":null,\
        \"passwordSecret\":{\"name\":\"s\",\"namespace\":\"metallb-system\"},\"peerASN\":null,\"peerAddress\":null,\"vrf\":\"red\"}";
    assert_eq!(annotation(&old, KEPT_V1BETA2), Some(kept));
    assert_eq!(up(&old), unnumbered());
}

#[test]
fn a_peer_that_v1beta1_can_say_has_no_annotation() {
    let spec =
        json!({"myASN": 1, "peerASN": 2, "peerAddress": "192.0.2.1", "peerPort": 179, "holdTime": "9s"});
    let old = peer(OLD, spec.clone());
    let new = up(&old);
    assert_eq!(new["metadata"], old["metadata"]);
    let mut expected = spec;
    // The API server's defaults, as it would fill them in.
    expected["disableMP"] = json!(false);
    expected["dualStackAddressFamily"] = json!(false);
    assert_eq!(new["spec"], expected);
    assert_eq!(down(&new), old);
}

#[test]
fn absent_timers_stay_absent_and_written_ones_stay_as_written() {
    let new = up(&peer(OLD, json!({"myASN": 1, "peerASN": 2, "peerAddress": "192.0.2.1"})));
    assert!(new["spec"].get("holdTime").is_none() && new["spec"].get("keepaliveTime").is_none());
    let new = up(&peer(OLD, json!({"myASN": 1, "peerASN": 2, "peerAddress": "192.0.2.1", "holdTime": "0s"})));
    assert_eq!(new["spec"]["holdTime"], "0s");
}

#[test]
fn port_zero_is_the_default_and_comes_back_as_zero() {
    let old = peer(OLD, json!({"myASN": 1, "peerASN": 2, "peerAddress": "192.0.2.1", "peerPort": 0}));
    let new = up(&old);
    assert_eq!(new["spec"]["peerPort"], 179, "v1beta2 allows 1 to 16384");
    assert_eq!(annotation(&new, KEPT_V1BETA1), Some("{\"peerPort\":0}"));
    assert_eq!(down(&new), old);
    // A client of v1beta2 that chooses a port is obeyed.
    let mut edited = new;
    edited["spec"]["peerPort"] = json!(1790);
    assert_eq!(down(&edited)["spec"]["peerPort"], 1790);
    assert_eq!(up(&down(&edited))["spec"]["peerPort"], 1790);
}

#[test]
fn the_edit_of_the_old_client_wins() {
    for (field, value, gone) in [
        ("peerASN", json!(64501), "dynamicASN"),
        ("peerAddress", json!("192.0.2.1"), "interface"),
        ("password", json!("hunter2"), "passwordSecret"),
    ] {
        let mut old = down(&unnumbered());
        old["spec"][field] = value.clone();
        old["spec"]["holdTime"] = json!("30s");
        let mut expected = unnumbered();
        expected["spec"][field] = value;
        expected["spec"]["holdTime"] = json!("30s");
        expected["spec"].as_object_mut().unwrap().remove(gone);
        assert_eq!(up(&old), expected, "{field}");
    }
    // Removing the placeholder is no edit, and neither is removing what never was.
    let mut old = down(&unnumbered());
    old["spec"].as_object_mut().unwrap().remove("peerASN");
    old["spec"]["password"] = json!("");
    let new = up(&old);
    assert_eq!(
        (&new["spec"]["dynamicASN"], &new["spec"]["passwordSecret"]["name"]),
        (&json!("external"), &json!("s"))
    );
}

#[test]
fn removing_the_annotation_removes_what_is_in_it() {
    let mut old = down(&unnumbered());
    old["metadata"].as_object_mut().unwrap().remove("annotations");
    let new = up(&old);
    assert!(new["spec"].get("vrf").is_none() && new["spec"].get("passwordSecret").is_none());
    assert_eq!(new["spec"]["myASN"], 64500);
}

#[test]
fn nonsense_in_the_annotation_costs_the_nonsense_only() {
    let plain = peer(OLD, json!({"myASN": 1, "peerASN": 2, "peerAddress": "192.0.2.1"}));
    for text in ["", "x", "[1]", "null", "7", "{\"vrf\":", "{\"vrf\":{}}"] {
        let mut old = plain.clone();
        old["metadata"]["annotations"] = json!({KEPT_V1BETA2: text, "other": "stays"});
        let new = up(&old);
        assert_eq!(new["metadata"]["annotations"], json!({"other": "stays"}), "{text:?}");
        assert_eq!(new["spec"], up(&plain)["spec"], "{text:?}");
    }
    let kept = json!({
        "vrf": 5, "interface": ["eth0"], "localASN": -1, "connectTime": "soon", "dynamicASN": "any", "disableMP": "no",
        "passwordSecret": "s", "enableGracefulRestart": null, "myASN": 9, "holdTime": "1s", "dualStackAddressFamily": true,
    });
    let mut old = plain.clone();
    old["metadata"]["annotations"] = json!({KEPT_V1BETA2: kept.to_string()});
    let mut expected = up(&plain);
    expected["spec"]["dualStackAddressFamily"] = json!(true);
    let mut new = up(&old);
    // What was nonsense is absent; the API server fills in its default.
    new["spec"].as_object_mut().unwrap().entry("disableMP").or_insert(json!(false));
    assert_eq!(new, expected);
    // An annotation that is no text at all.
    let mut old = plain.clone();
    old["metadata"]["annotations"] = json!({KEPT_V1BETA2: {"vrf": "red"}});
    assert_eq!(up(&old), up(&plain));
}

#[test]
fn a_left_over_annotation_means_nothing_on_v1beta2() {
    let mut new = peer(
        NEW,
        json!({"myASN": 1, "peerASN": 2, "peerAddress": "192.0.2.1", "disableMP": false, "dualStackAddressFamily": false}),
    );
    let clean = new.clone();
    new["metadata"]["annotations"] = json!({KEPT_V1BETA2: "{\"vrf\":\"red\"}"});
    assert_eq!(up(&down(&new)), clean);
}

#[test]
fn what_is_no_peer_or_no_version_is_an_error() {
    let good = peer(NEW, json!({"myASN": 1}));
    assert_eq!(convert(&good, NEW).unwrap(), good);
    let with = |key: &str, value: Value| {
        let mut object = good.clone();
        object[key] = value;
        object
    };
    let errors = [
        convert(&with("kind", json!("BFDProfile")), OLD).unwrap_err(),
        convert(&with("apiVersion", json!("metallb.io/v1")), OLD).unwrap_err(),
        convert(&with("apiVersion", json!("v1beta1")), OLD).unwrap_err(),
        convert(&good, "metallb.io/v1").unwrap_err(),
        convert(&with("metadata", Value::Null), OLD).unwrap_err(),
        convert(&with("spec", json!("red")), OLD).unwrap_err(),
        convert(&json!([1]), OLD).unwrap_err(),
    ];
    let texts: Vec<String> = errors.iter().map(ConvertError::to_string).collect();
    assert_eq!(
        texts,
        [
            "kind: found \"BFDProfile\"; only a BGPPeer of metallb.io has two versions",
            "apiVersion: found \"metallb.io/v1\"; allowed are metallb.io/v1beta1 and metallb.io/v1beta2",
            "apiVersion: found \"v1beta1\"; allowed are metallb.io/v1beta1 and metallb.io/v1beta2",
            "desiredAPIVersion: found \"metallb.io/v1\"; allowed are metallb.io/v1beta1 and metallb.io/v1beta2",
            "metadata: found nothing; allowed is a map",
            "spec: found \"red\"; allowed is a map",
            "kind: found nothing; only a BGPPeer of metallb.io has two versions",
        ]
    );
}

#[test]
fn a_peer_without_a_spec_is_only_renamed() {
    let mut bare = peer(NEW, Value::Null);
    bare.as_object_mut().unwrap().remove("spec");
    let mut expected = bare.clone();
    expected["apiVersion"] = json!(OLD);
    assert_eq!(down(&bare), expected);
    assert_eq!(up(&expected), bare);
}

/// Maybe a field with one of these values; sometimes with a value that only a careless author writes.
fn field(name: &'static str, values: Vec<Value>) -> impl Strategy<Value = Option<(String, Value)>> {
    prop::option::weighted(0.6, select(values).prop_map(move |value| (name.to_owned(), value)))
}

fn common() -> Vec<BoxedStrategy<Option<(String, Value)>>> {
    let selectors = json!([
        {"matchLabels": {"rack": "a"}}, {"matchExpressions": [{"key": "gpu", "operator": "Exists"}]}, {},
    ]);
    let texts = |values: &[&str]| values.iter().map(|v| json!(v)).collect::<Vec<_>>();
    vec![
        field("myASN", vec![json!(64500), json!(4_294_967_295u32), json!(0)]).boxed(),
        field("peerASN", vec![json!(64501), json!(0)]).boxed(),
        field("peerAddress", texts(&["192.0.2.1", "2001:db8::1", "", "tor"])).boxed(),
        field("sourceAddress", texts(&["192.0.2.2", ""])).boxed(),
        field("holdTime", texts(&["0s", "90s", ""])).boxed(),
        field("keepaliveTime", texts(&["0s", "30s"])).boxed(),
        field("routerID", texts(&["192.0.2.2"])).boxed(),
        field("nodeSelectors", vec![selectors, json!([])]).boxed(),
        field("password", texts(&["hunter2", ""])).boxed(),
        field("bfdProfile", texts(&["fast", ""])).boxed(),
        field("ebgpMultiHop", vec![json!(true), json!(false)]).boxed(),
    ]
}

fn v1beta2_spec() -> impl Strategy<Value = Value> {
    let texts = |values: &[&str]| values.iter().map(|v| json!(v)).collect::<Vec<_>>();
    let booleans = || vec![json!(true), json!(false)];
    let mut fields = common();
    fields.extend([
        field("peerPort", vec![json!(179), json!(1790)]).boxed(),
        field("dynamicASN", texts(&["internal", "external"])).boxed(),
        field("localASN", vec![json!(1), json!(4_294_967_295u32)]).boxed(),
        field("interface", texts(&["eth0", ""])).boxed(),
        field("connectTime", texts(&["1s", "1m0s"])).boxed(),
        field(
            "passwordSecret",
            vec![json!({"name": "s"}), json!({"name": "s", "namespace": "n"}), json!({})],
        )
        .boxed(),
        field("enableGracefulRestart", booleans()).boxed(),
        field("vrf", texts(&["red", ""])).boxed(),
        field("disableMP", booleans()).boxed(),
        field("dualStackAddressFamily", booleans()).boxed(),
        // A field of a version to come, which a CRD may have before this program knows it.
        field("colour", vec![json!("red"), json!({"a": [1]})]).boxed(),
    ]);
    fields.prop_map(|fields| Value::Object(fields.into_iter().flatten().collect::<Map<_, _>>()))
}

fn v1beta1_spec() -> impl Strategy<Value = Value> {
    let mut fields = common();
    fields.push(field("peerPort", vec![json!(0), json!(179), json!(16384)]).boxed());
    fields.prop_map(|fields| Value::Object(fields.into_iter().flatten().collect::<Map<_, _>>()))
}

fn annotations() -> impl Strategy<Value = Option<Value>> {
    prop::option::of(Just(json!({"kubectl.kubernetes.io/last-applied-configuration": "{}", "a": ""})))
}

fn annotated(api_version: &str, spec: Value, annotations: Option<Value>) -> Value {
    let mut object = peer(api_version, spec);
    if let Some(annotations) = annotations {
        object["metadata"]["annotations"] = annotations;
    }
    object
}

proptest! {
    #[test]
    fn down_and_up_again_is_the_same_peer(spec in v1beta2_spec(), others in annotations()) {
        let new = annotated(NEW, spec, others);
        let old = down(&new);
        let text = old["metadata"]["annotations"].to_string();
        prop_assert!(!text.contains("hunter2"), "{}", text);
        prop_assert_eq!(up(&old), new);
    }

    #[test]
    fn up_and_down_again_is_the_same_peer(spec in v1beta1_spec(), others in annotations()) {
        let old = annotated(OLD, spec, others);
        let new = up(&old);
        let mut expected = old;
        // v1beta1 requires these; the API server never stores an object without them.
        for (key, placeholder) in [("peerASN", json!(0)), ("peerAddress", json!(""))] {
            expected["spec"].as_object_mut().unwrap().entry(key).or_insert(placeholder);
        }
        let mut back = down(&new);
        if let Some(annotations) = back["metadata"].get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove(KEPT_V1BETA2);
            if annotations.is_empty() {
                back["metadata"].as_object_mut().unwrap().remove("annotations");
            }
        }
        prop_assert_eq!(back, expected);
    }

    #[test]
    fn an_edit_of_a_common_field_survives_and_costs_no_other(spec in v1beta2_spec(), hold in "[1-9][0-9]?s") {
        let new = annotated(NEW, spec, None);
        let mut old = down(&new);
        old["spec"]["holdTime"] = json!(hold);
        let mut expected = new;
        expected["spec"]["holdTime"] = json!(hold);
        prop_assert_eq!(up(&old), expected);
    }

    #[test]
    fn any_annotation_is_taken_without_a_panic(text in "(?s)[{}\\[\\]\":,a-zA-Z0-9 ]{0,60}", spec in v1beta1_spec()) {
        let mut old = peer(OLD, spec.clone());
        old["metadata"]["annotations"] = json!({KEPT_V1BETA2: text});
        let new = up(&old);
        for (key, value) in spec.as_object().unwrap().iter().filter(|(key, _)| *key != "peerPort") {
            prop_assert_eq!(&new["spec"][key], value);
        }
    }
}
