//! `kubectl patina why` on recorded clusters: tests/why/NAME.yaml is what the cluster holds, NAME.txt what is printed.
//! A new case needs no Rust: write the YAML, run with UPDATE_GOLDEN=1, read the text.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed expectation is a failed test

use std::path::Path;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::jiff::Timestamp;
use kubectl_patina::why::{Facts, explain, json, text};
use patina_crds::config::{self, Resources};
use serde::de::DeserializeOwned;
use serde_json::Value;

#[test]
fn recorded_clusters_are_explained_as_recorded() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/why");
    let mut cases: Vec<_> = std::fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    cases.sort();
    assert!(cases.len() >= 8, "the cases are gone: {cases:?}");
    let mut wrong = String::new();
    for case in cases {
        let said = say(&std::fs::read_to_string(&case).unwrap());
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
    let cluster = include_str!("why/announced.yaml");
    let facts = facts(cluster);
    let value = json(&explain(&facts), &facts);
    assert_eq!(value["works"], true);
    assert_eq!(value["addresses"][0]["ip"], "172.25.7.100");
    assert_eq!(value["announcers"][0]["node"], "node-2");
    assert_eq!(value["events"][1]["reason"], "nodeAssigned");
    assert!(value["findings"].as_array().unwrap().iter().all(|finding| finding["ok"] == true));
}

#[test]
fn what_may_not_be_read_is_said() {
    let mut facts = facts(include_str!("why/no_advertisement.yaml"));
    facts.l2 = Err("servicel2statuses is forbidden".to_owned());
    facts.config = Err("ipaddresspools is forbidden".to_owned());
    facts.pods = Err("pods is forbidden".to_owned());
    let explanation = explain(&facts);
    assert!(!explanation.works);
    let said = text(&explanation, &facts, now());
    for kind in ["servicel2statuses", "ipaddresspools", "pods"] {
        assert!(said.contains(&format!("{kind} is forbidden")), "{said}");
    }
}

fn say(cluster: &str) -> String {
    let facts = facts(cluster);
    let explanation = explain(&facts);
    format!("{}\nexit {}\n", text(&explanation, &facts, now()), u8::from(!explanation.works))
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
        ..Resources::default()
    };
    let mut services: Vec<Service> = all(&objects, "Service");
    assert_eq!(services.len(), 1, "a case is about one Service");
    Facts {
        service: services.remove(0),
        events: Ok(all(&objects, "Event")),
        endpoints: Ok(all(&objects, "EndpointSlice")),
        l2: Ok(all(&objects, "ServiceL2Status")),
        bgp: Ok(all(&objects, "ServiceBGPStatus")),
        config: Ok(config::build(&resources).map(|loaded| loaded.config)),
        pods: Ok(all(&objects, "Pod")),
        system_namespace: "metallb-system".to_owned(),
    }
}

fn all<K: DeserializeOwned>(objects: &[Value], kind: &str) -> Vec<K> {
    let ours = objects.iter().filter(|object| object["kind"] == kind);
    ours.map(|object| serde_json::from_value(object.clone()).unwrap()).collect()
}
