//! `kubectl patina l2` on recorded clusters: tests/l2/NAME.yaml is what the cluster holds, NAME.txt what is printed.
//! A new case needs no Rust: write the YAML, run with UPDATE_GOLDEN=1, read the text.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed expectation is a failed test

use std::path::Path;

use k8s_openapi::jiff::Timestamp;
use kubectl_patina::l2::{Facts, Filter, json, list, text};
use patina_crds::config::{self, Resources};
use patina_speaker_core::view::Options;
use serde::de::DeserializeOwned;
use serde_json::Value;

#[test]
fn recorded_clusters_are_listed_as_recorded() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/l2");
    let mut cases: Vec<_> = std::fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    cases.sort();
    assert!(cases.len() >= 4, "the cases are gone: {cases:?}");
    let mut wrong = String::new();
    for case in cases {
        let said = say(&facts(&std::fs::read_to_string(&case).unwrap()), &Filter::default());
        let golden = case.with_extension("txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&golden, &said).unwrap();
        }
        let expected = std::fs::read_to_string(&golden).unwrap_or_default();
        if said != expected {
            wrong.push_str(&format!("=== {}\n--- expected\n{expected}--- found\n{said}", case.display()));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn json_has_what_the_text_says() {
    let facts = facts(include_str!("l2/announced.yaml"));
    let filter = Filter::of(Some("shop/web"), None, "default").unwrap();
    let value = json(&list(&facts, &filter, &Options::default()));
    assert_eq!(value["items"].as_array().unwrap().len(), 1, "{value:#}");
    let item = &value["items"][0];
    assert_eq!(item["address"], "192.0.2.1");
    assert_eq!(item["announcers"][0]["node"], "node-c");
    assert_eq!(item["announcers"][0]["since"], "2026-01-01T12:55:00Z");
    assert_eq!(item["announcers"][0]["from"], "node-e");
    let candidates: Vec<&str> =
        item["candidates"].as_array().unwrap().iter().map(|c| c["node"].as_str().unwrap()).collect();
    assert_eq!(candidates, ["node-c", "node-a", "node-b"], "in the order that the speakers compute");
    assert_eq!(value["warnings"].as_array().unwrap().len(), 0);
}

#[test]
fn what_may_not_be_read_is_said_and_is_not_well() {
    let mut facts = facts(include_str!("l2/announced.yaml"));
    facts.l2 = Err("servicel2statuses is forbidden".to_owned());
    facts.pods = Err("pods is forbidden".to_owned());
    let listing = list(&facts, &Filter::default(), &Options::default());
    assert!(!listing.is_well());
    let said = text(&listing, now());
    for kind in ["servicel2statuses", "pods"] {
        assert!(said.contains(&format!("{kind} is forbidden")), "{said}");
    }
    assert!(!said.contains("nobody announces"), "what cannot be seen is not missing: {said}");
}

fn say(facts: &Facts, filter: &Filter) -> String {
    let listing = list(facts, filter, &Options::default());
    format!("{}\nexit {}\n", text(&listing, now()), u8::from(!listing.is_well()))
}

fn now() -> Timestamp {
    "2026-01-01T13:00:00Z".parse().unwrap()
}

fn facts(cluster: &str) -> Facts {
    let objects: Vec<Value> = serde_saphyr::from_multiple(cluster).unwrap();
    let resources = Resources {
        namespace: "metallb-system".to_owned(),
        pools: all(&objects, "IPAddressPool"),
        l2_advertisements: all(&objects, "L2Advertisement"),
        bgp_advertisements: all(&objects, "BGPAdvertisement"),
        ..Resources::default()
    };
    Facts {
        services: all(&objects, "Service"),
        endpoints: Ok(all(&objects, "EndpointSlice")),
        nodes: Ok(all(&objects, "Node")),
        pods: Ok(all(&objects, "Pod")),
        l2: Ok(all(&objects, "ServiceL2Status")),
        conflicts: Ok(all(&objects, "AddressConflict")),
        config: Ok(config::build(&resources).map(|loaded| loaded.config)),
    }
}

fn all<K: DeserializeOwned>(objects: &[Value], kind: &str) -> Vec<K> {
    let ours = objects.iter().filter(|object| object["kind"] == kind);
    ours.map(|object| serde_json::from_value(object.clone()).unwrap()).collect()
}
