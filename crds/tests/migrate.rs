//! The ConfigMap as resources: the same configuration, written so that kubectl reads what was meant.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed expectation is a failed test
#![allow(clippy::disallowed_methods)] // reads the cases

mod same;

use std::fs;
use std::path::Path;

use patina_crds::config::manifest::{self, Options};
use patina_crds::config::migrate::{Migrated, find, migrate};
use patina_crds::config::{self, Config, ConfigError, LegacyConfigMap, Resources};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use same::assert_same;

fn config_map(data: &str) -> LegacyConfigMap {
    let (namespace, name) = ("metallb-system".to_owned(), "config".to_owned());
    LegacyConfigMap { namespace, name, data: Some(data.to_owned()) }
}

fn build(resources: &Resources) -> Result<Config, config::ConfigErrors> {
    config::build(resources).map(|loaded| loaded.config)
}

/// Migrates, reads what was written as `kubectl patina check` would, and compares. `None`: the ConfigMap is refused.
fn migrated(source: &LegacyConfigMap) -> Option<Migrated> {
    let legacy = Resources {
        namespace: source.namespace.clone(),
        legacy: Some(source.clone()),
        ..Resources::default()
    };
    let old = build(&legacy).ok();
    let migrated = match migrate(source) {
        Ok(migrated) => migrated,
        Err(errors) => {
            // What the resources have no room for, and rules that are younger than the ConfigMap.
            let of_today =
                |error: &ConfigError| error.message.contains("may be (") || error.object.kind != "ConfigMap";
            assert!(old.is_none() || errors.0.iter().all(of_today), "{errors}");
            return None;
        }
    };
    let yaml = migrated.to_yaml().unwrap();
    let read = manifest::read(&yaml, &Options { namespace: source.namespace.clone(), ..Options::default() })
        .unwrap_or_else(|errors| panic!("{errors}\n{yaml}"));
    assert_eq!(read.notes, [""; 0], "{yaml}");
    let new = build(&read.resources).unwrap_or_else(|errors| panic!("{errors}\n{yaml}"));
    assert_same(&old.expect("what is migrated was valid"), &new);
    Some(migrated)
}

fn yaml(data: &str) -> String {
    migrated(&config_map(data)).expect("it is valid").to_yaml().unwrap()
}

#[test]
fn every_recorded_config_map_means_the_same_afterwards() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/config");
    let (mut valid, mut refused) = (0, 0);
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let Ok(Some(source)) = find(&text, &Options::default()) else { continue };
        if migrated(&source).is_some() { valid += 1 } else { refused += 1 }
    }
    assert!(valid >= 12 && refused >= 15, "{valid} valid and {refused} refused: where are the others?");
}

#[test]
fn a_tutorial_becomes_what_the_tutorials_of_today_say() {
    let data =
        "address-pools:\n- name: default\n  protocol: layer2\n  addresses: [172.25.7.100-172.25.7.250]\n";
    let expected = "---\napiVersion: metallb.io/v1beta1\nkind: L2Advertisement\nmetadata:\n  name: l2advertisement1\n  \
                    namespace: metallb-system\nspec:\n  ipAddressPools:\n  - default\n---\napiVersion: \
                    metallb.io/v1beta1\nkind: IPAddressPool\nmetadata:\n  name: default\n  namespace: \
                    metallb-system\nspec:\n  addresses:\n  - 172.25.7.100-172.25.7.250\n";
    assert_eq!(yaml(data), expected);
}

/// kubectl applies one object after the other, and the daemons look in between.
#[test]
fn the_resources_take_over_one_by_one() {
    let data = "bgp-communities: {edge: '64500:1'}\nbfd-profiles: [{name: fast}]\naddress-pools:\n\
                - {name: a, protocol: layer2, addresses: [192.0.2.0/28]}\n\
                - {name: b, protocol: bgp, addresses: [192.0.2.16/28], bgp-advertisements: [{localpref: 9, communities: [edge]}]}\n\
                peers: [{my-asn: 1, peer-asn: 2, peer-address: 192.0.2.1, bfd-profile: fast}]\n";
    let source = config_map(data);
    let objects = migrated(&source).unwrap().objects().unwrap();
    assert_eq!(objects.len(), 7);
    for count in 0..=objects.len() {
        let text: String = objects[..count].iter().map(|object| format!("---\n{object}\n")).collect();
        let applied = manifest::read(&text, &Options::default()).unwrap().resources;
        let both = Resources { legacy: Some(source.clone()), ..applied };
        let loaded = config::build(&both).unwrap_or_else(|errors| panic!("after {count} objects: {errors}"));
        let config = &loaded.config;
        assert_eq!((config.pools.len(), config.peers.len()), (2, 1), "after {count} objects");
        let announced = |pool: &str| {
            config.l2_advertisements.iter().any(|ad| ad.pools.contains(pool))
                || config.bgp_advertisements.iter().any(|ad| ad.pools.contains(pool))
        };
        assert!(announced("a") && announced("b"), "after {count} objects");
    }
}

#[test]
fn timers_that_were_not_written_stay_absent() {
    let peer =
        |timers: &str| yaml(&format!("peers: [{{my-asn: 1, peer-asn: 2, peer-address: 192.0.2.1{timers}}}]"));
    assert!(!peer("").contains("Time"), "{}", peer(""));
    assert!(peer(", hold-time: 30s").contains("holdTime: 30s"));
    assert!(!peer(", hold-time: 30s").contains("keepaliveTime"));
    // A BGPPeer would derive a hold time of 30s.
    let both = peer(", keepalive-time: 10s");
    assert!(both.contains("keepaliveTime: 10s") && both.contains("holdTime: 90s"), "{both}");
}

#[test]
fn names_become_names_of_resources_and_references_follow() {
    let data = "address-pools:\n\
                - {name: My Pool, protocol: layer2, addresses: [192.0.2.0/28]}\n\
                - {name: my-pool, protocol: bgp, addresses: [192.0.2.16/28]}\n\
                - {name: MY_POOL, protocol: bgp, addresses: [192.0.2.32/28]}\n\
                - {name: '***', protocol: bgp, addresses: [192.0.2.48/28]}\n\
                bfd-profiles: [{name: Fast_1, receive-interval: 50}]\n\
                peers: [{my-asn: 1, peer-asn: 2, peer-address: 192.0.2.1, bfd-profile: Fast_1}]\n";
    let migrated = migrated(&config_map(data)).unwrap();
    let names: Vec<_> =
        migrated.resources.pools.iter().map(|pool| pool.metadata.name.clone().unwrap()).collect();
    assert_eq!(names, ["my-pool-2", "my-pool", "my-pool-3", "pool"]);
    assert_eq!(migrated.resources.l2_advertisements[0].spec.ip_address_pools, ["my-pool-2"]);
    let of_bgp: Vec<_> = migrated
        .resources
        .bgp_advertisements
        .iter()
        .flat_map(|ad| ad.spec.ip_address_pools.clone())
        .collect();
    assert_eq!(of_bgp, ["my-pool", "my-pool-3", "pool"]);
    assert_eq!(migrated.resources.peers[0].spec.bfd_profile.as_deref(), Some("fast-1"));
    assert_eq!(migrated.notes.len(), 4, "one for each new name: {:?}", migrated.notes);
    assert!(migrated.notes[0].contains("\"my-pool\" is another"), "{:?}", migrated.notes);
}

#[test]
fn what_yaml_1_1_would_misread_is_quoted() {
    let words =
        ["no", "Y", "off", "~", "null", "0123", "1e3", "0x10", "1_000", "12:30", "2001-01-01", "=", ".5"];
    for word in words {
        let data =
            format!("peers: [{{my-asn: 1, peer-asn: 2, peer-address: 192.0.2.1, password: '{word}'}}]");
        let text = yaml(&data);
        let line = text.lines().find(|line| line.contains("password:")).unwrap();
        let value = line.trim().strip_prefix("password: ").unwrap();
        assert!(value == format!("'{word}'") || value == format!("\"{word}\""), "{line}");
    }
    let data = "peers:\n- {my-asn: 1, peer-asn: 2, peer-address: 192.0.2.1, node-selectors: [{match-labels: {'y': 'on'}}]}\n\
                bgp-communities: {'no': '64500:10'}\n";
    let text = yaml(data);
    assert!(text.contains("'y': 'on'") || text.contains("\"y\": \"on\""), "{text}");
    assert!(!text.contains(": no\n"), "{text}");
    // Base 60 for a reader of YAML 1.1.
    assert!(text.contains("'64500:10'") || text.contains("\"64500:10\""), "{text}");
}

#[test]
fn what_the_resources_have_no_room_for_is_an_error() {
    let data = "peers: [{my-asn: 1, peer-asn: 2, peer-address: 192.0.2.1, peer-port: 20000}]\n\
                address-pools:\n\
                - {name: a, protocol: bgp, addresses: [192.0.2.0/28], bgp-advertisements: [{localpref: 3000000000}]}\n";
    let errors = migrate(&config_map(data)).unwrap_err();
    let fields: Vec<_> = errors.0.iter().map(|error| error.field.as_str()).collect();
    assert_eq!(fields, ["address-pools[0].bgp-advertisements[0].localpref", "peers[0].peer-port"]);
    assert!(errors.0[1].message.contains("20000") && errors.0[1].message.contains("16384"), "{errors}");
}

#[test]
fn a_config_map_is_found_in_manifests_and_bare() {
    let find = |text: &str| find(text, &Options::default());
    let data = |text: &str| find(text).unwrap().unwrap().data.unwrap();
    assert_eq!(data("address-pools: []\n"), "address-pools: []\n");
    let object = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: config}\ndata: {config: 'peers: []'}\n";
    assert_eq!(data(object), "peers: []");
    let list = format!("apiVersion: v1\nkind: List\nitems:\n- {}", object.replace('\n', "\n  "));
    assert_eq!(data(&list), "peers: []");
    assert_eq!(
        data(&format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: x}}\n---\n{object}")),
        "peers: []"
    );
    assert_eq!(find(""), Ok(None));
    assert_eq!(find("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: other}\n"), Ok(None));
    assert!(find("a: [\n").is_err());
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z]{1,3}", "[A-C_ .*-]{1,4}", "[a-z]\\.[a-z]", Just("no".to_owned())]
}

/// A valid ConfigMap, or nearly.
fn data() -> impl Strategy<Value = String> {
    let advertisement = (24..=32u8, 0..3u32, prop::collection::vec("(64500:[1-3]|edge|no)", 0..3)).prop_map(
        |(length, preference, communities)| {
            format!(
                "{{aggregation-length: {length}, localpref: {preference}, communities: [{}]}}",
                communities.iter().map(|text| format!("'{text}'")).collect::<Vec<_>>().join(", ")
            )
        },
    );
    let pool = (name(), any::<[bool; 3]>(), prop::collection::vec(advertisement, 0..2));
    let peer = (any::<[bool; 5]>(), 0..4usize, "[ -~]{0,12}");
    let profiles = prop::collection::vec((name(), 0..3i64), 0..4);
    (prop::collection::vec(pool, 0..6), prop::collection::vec(peer, 0..12), profiles).prop_map(
        |(pools, peers, profiles)| {
            let mut out = "bgp-communities: {edge: '64500:1', 'no': '65535:666'}\naddress-pools:\n".to_owned();
            for (i, (name, [bgp, auto, buggy], ads)) in pools.iter().enumerate() {
                let (protocol, ads) =
                    if *bgp { ("bgp", format!("[{}]", ads.join(", "))) } else { ("layer2", String::new()) };
                out += &format!(
                    "- name: '{name}'\n  protocol: {protocol}\n  addresses: [192.0.{i}.0/24, ' 2001:db8:{i}::1 - 2001:db8:{i}::9 ']\n  \
                     auto-assign: {auto}\n  avoid-buggy-ips: {buggy}\n  bgp-advertisements: {ads}\n"
                );
            }
            out += "bfd-profiles:\n";
            for (name, n) in &profiles {
                out += &format!("- {{name: '{name}', receive-interval: {}, echo-mode: false}}\n", n * 100);
            }
            out += "peers:\n";
            for (i, ([hold, keepalive, secret, nodes, multihop], profile, password)) in peers.iter().enumerate() {
                out += &format!("- my-asn: 64500\n  peer-asn: 64501\n  peer-address: 198.51.100.{i}\n  ebgp-multihop: {multihop}\n");
                if *hold {
                    out += "  hold-time: 1m30s\n";
                }
                if *keepalive {
                    out += "  keepalive-time: 10s\n";
                }
                if *secret {
                    out += &format!("  password: '{}'\n", password.replace('\'', "''"));
                }
                if *nodes {
                    out += "  node-selectors:\n  - match-labels: {rack: 'no'}\n    match-expressions: [{key: a, operator: Exists}]\n";
                }
                if let Some((name, _)) = profiles.get(*profile) {
                    out += &format!("  bfd-profile: '{name}'\n");
                }
            }
            out
        },
    )
}

proptest! {
    #[test]
    fn any_config_map_means_the_same_afterwards(data in data()) {
        let _ = migrated(&config_map(&data));
    }
}

/// The generator above must not degenerate into ConfigMaps that are all refused.
#[test]
fn generated_config_maps_are_mostly_valid() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let valid = (0..100)
        .filter(|_| {
            let data = data().new_tree(&mut runner).unwrap().current();
            migrated(&config_map(&data)).is_some()
        })
        .count();
    assert!(valid >= 30, "only {valid} of 100");
}
