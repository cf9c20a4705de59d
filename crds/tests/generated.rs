//! crds/yaml is what the types say, and the types read back what their schemas admit.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed expectation is a failed test
#![allow(clippy::disallowed_methods)] // reads the generated files

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use patina_crds::types::{self, crds};
use serde_json::{Value, json};

fn walk(value: &Value, path: &str, visit: &mut dyn FnMut(&str, &Value)) {
    visit(path, value);
    match value {
        Value::Object(map) => map.iter().for_each(|(key, v)| walk(v, &format!("{path}/{key}"), visit)),
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(i, v)| walk(v, &format!("{path}/{i}"), visit))
        }
        _ => {}
    }
}

#[test]
fn the_files_are_what_the_types_say() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("yaml");
    let crds = crds().unwrap();
    assert_eq!(crds.len(), 11, "eleven kinds");
    let expected: BTreeSet<String> = crds.iter().map(types::Crd::file_name).collect();
    let found: BTreeSet<String> =
        fs::read_dir(&directory).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(found, expected, "run `make gen`");
    for crd in crds {
        let text = fs::read_to_string(directory.join(crd.file_name())).unwrap();
        assert!(text == crd.to_yaml().unwrap(), "{} is stale; run `make gen`", crd.file_name());
        // Another YAML reader than the writer sees the same object.
        let read: Value = serde_yaml::from_str(&text).unwrap();
        assert_eq!(read, crd.object, "{}", crd.file_name());
    }
}

#[test]
fn schemas_have_nothing_that_derive_adds() {
    for crd in crds().unwrap() {
        walk(&crd.object, &crd.kind, &mut |path, value| {
            let Some(map) = value.as_object() else {
                assert!(!value.is_f64(), "{path} is a float");
                return;
            };
            assert!(!map.get("nullable").is_some_and(Value::is_boolean), "{path} is nullable");
            assert!(!map.get("title").is_some_and(Value::is_string), "{path} has a title");
            if let Some(format) = map.get("format").and_then(Value::as_str) {
                assert!(["int32", "int64", "date-time"].contains(&format), "{path} has format {format}");
            }
        });
    }
}

#[test]
fn every_field_is_described() {
    for crd in crds().unwrap() {
        for version in crd.object.pointer("/spec/versions").unwrap().as_array().unwrap() {
            for part in ["spec", "status"] {
                let schema = version.pointer(&format!("/schema/openAPIV3Schema/properties/{part}"));
                // Nobody writes a status into ours; every kind of MetalLB has one.
                let Some(schema) = schema.filter(|_| crd.group == types::GROUP || part == "spec") else {
                    let ours = ["AddressConflict", "AddressReservation"].contains(&crd.kind.as_str());
                    assert!(ours && part == "status", "{} {part}", crd.kind);
                    continue;
                };
                let path = format!("{} {} {part}", crd.kind, version["name"]);
                assert!(schema["description"].is_string(), "{path}");
                walk(schema, &path, &mut |path, value| {
                    for (name, field) in
                        value.get("properties").and_then(Value::as_object).into_iter().flatten()
                    {
                        assert!(field["description"].is_string(), "{path}/{name} has no description");
                    }
                });
            }
        }
    }
}

#[test]
fn only_what_is_nothing_without_addresses_must_have_a_spec() {
    for crd in crds().unwrap() {
        let schema = crd.object.pointer("/spec/versions/0/schema/openAPIV3Schema").unwrap();
        let required = schema.get("required").is_some();
        let expected = ["IPAddressPool", "AddressReservation"].contains(&crd.kind.as_str());
        assert_eq!(required, expected, "{}", crd.kind);
    }
}

/// The example of MetalLB's own documentation has no spec, and an object that does not decode blinds the watch.
#[test]
fn objects_without_spec_decode_with_defaults() {
    let object =
        |kind: &str| json!({"apiVersion": "metallb.io/v1beta1", "kind": kind, "metadata": {"name": "x"}});
    let l2: types::L2Advertisement = serde_json::from_value(object("L2Advertisement")).unwrap();
    assert_eq!(l2.spec, types::L2AdvertisementSpec::default());
    let bgp: types::BGPAdvertisement = serde_json::from_value(object("BGPAdvertisement")).unwrap();
    assert_eq!(bgp.spec.aggregation_length, Some(32));
    let pool: types::IPAddressPool = serde_json::from_value(object("IPAddressPool")).unwrap();
    assert!(pool.spec.auto_assign && pool.spec.addresses.is_empty());
    serde_json::from_value::<types::BGPPeer>(object("BGPPeer")).unwrap();
    serde_json::from_value::<types::v1beta1::BGPPeer>(object("BGPPeer")).unwrap();
    serde_json::from_value::<types::BFDProfile>(object("BFDProfile")).unwrap();
    serde_json::from_value::<types::Community>(object("Community")).unwrap();
    serde_json::from_value::<types::ServiceL2Status>(object("ServiceL2Status")).unwrap();
    serde_json::from_value::<types::AddressConflict>(object("AddressConflict")).unwrap();
    serde_json::from_value::<types::ServiceBGPStatus>(object("ServiceBGPStatus")).unwrap();
    serde_json::from_value::<types::ConfigurationState>(object("ConfigurationState")).unwrap();
}

#[test]
fn objects_round_trip() {
    let text = json!({
        "apiVersion": "metallb.io/v1beta2", "kind": "BGPPeer", "metadata": {"name": "x"},
        "spec": {
            "myASN": 64500, "peerASN": 64501, "peerAddress": "192.0.2.1", "peerPort": 179, "holdTime": "90s",
            "passwordSecret": {"name": "s"}, "nodeSelectors": [{"matchLabels": {"rack": "a"}}],
            "disableMP": false, "dualStackAddressFamily": true, "ebgpMultiHop": true,
        },
    });
    let peer: types::BGPPeer = serde_json::from_value(text.clone()).unwrap();
    assert_eq!(serde_json::to_value(&peer).unwrap(), text);
}
