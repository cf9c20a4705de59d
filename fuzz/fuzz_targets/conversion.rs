//! BGPPeer between its versions: what one version's schema admits comes back unchanged from the other, decodes there, and no
//! JSON at all is too odd to be answered. The first byte chooses the version, the rest is the spec as JSON (or YAML).
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::{Corpus, fuzz_target};
use patina_crds::convert::convert;
use patina_crds::types::schema::admit;
use patina_crds::types::{self, v1beta1};
use patina_crds::yaml;
use serde_json::{Value, json};

const VERSIONS: [&str; 2] = ["metallb.io/v1beta1", "metallb.io/v1beta2"];

/// The schemas of `spec`, in the order of [`VERSIONS`].
static SCHEMAS: LazyLock<[Value; 2]> = LazyLock::new(|| {
    let crds = types::crds().expect("the types are JSON");
    let peers = crds.into_iter().find(|crd| crd.kind == "BGPPeer").expect("BGPPeer is one of them");
    VERSIONS.map(|version| {
        let versions = peers.object["spec"]["versions"].as_array().expect("a list of versions");
        let found = versions.iter().find(|v| version.ends_with(v["name"].as_str().unwrap_or("none")));
        found.expect("the version")["schema"]["openAPIV3Schema"]["properties"]["spec"].clone()
    })
});

fuzz_target!(|data: &[u8]| -> Corpus {
    let Some((choice, Ok(text))) = data.split_first().map(|(n, rest)| (n, std::str::from_utf8(rest))) else {
        return Corpus::Reject;
    };
    let here = usize::from(*choice) % 2;
    let (own, other) = (VERSIONS[here], VERSIONS[1 - here]);
    if let Ok(value) = serde_json::from_str::<Value>(text) {
        let object = json!({"apiVersion": own, "kind": "BGPPeer", "metadata": value, "spec": value});
        let _ = convert(&object, other);
        let _ = convert(&value, other);
    }
    for node in yaml::documents(text).into_iter().flatten() {
        let Ok(mut spec) = admit(&SCHEMAS[here], &node, "spec") else { continue };
        let Some(fields) = spec.as_object_mut() else { continue };
        // A CEL rule of the schema, which `admit` does not run: a conversion does not give back what no object can have.
        let seconds = |text: &str| {
            text.strip_suffix('s').is_some_and(|n| (1..=65_535).contains(&n.parse().unwrap_or(0)))
        };
        if !fields.get("connectTime").and_then(Value::as_str).is_none_or(seconds) {
            fields.remove("connectTime");
        }
        let object = json!({
            "apiVersion": own, "kind": "BGPPeer",
            "metadata": {"name": "x", "annotations": {"a": "b"}}, "spec": spec,
        });
        let there = convert(&object, other).expect("what the schema admits can be converted");
        let decodes = if here == 1 {
            serde_json::from_value::<v1beta1::BGPPeer>(there.clone()).map(drop)
        } else {
            serde_json::from_value::<types::BGPPeer>(there.clone()).map(drop)
        };
        decodes.unwrap_or_else(|error| panic!("{object} became {there}, which does not decode: {error}"));
        let back = convert(&there, own).expect("what was converted can be converted");
        assert_eq!(back, object, "by way of {there}");
    }
    Corpus::Keep
});
