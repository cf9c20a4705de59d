//! Whatever is written, the answer is a configuration or errors, and every error says where.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed expectation is a failed test

use patina_crds::config::{self, LegacyConfigMap, Resources};
use patina_crds::types;
use proptest::prelude::*;

/// Values that mean something somewhere, so that random text gets past the first check.
fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        "[0-9]{1,3}\\.[0-9]{1,3}\\.[0-9]{1,3}\\.[0-9]{1,3}/[0-9]{1,3}",
        "10\\.0\\.[0-9]\\.[0-9]{1,2}-10\\.0\\.[0-9]\\.[0-9]{1,2}",
        "2001:db8:[0-9a-f]{0,4}::/[0-9]{1,3}",
        "(large:)?[0-9]{0,11}:[0-9]{0,6}(:[0-9]{1,3})?",
        "-?[0-9.]{1,6}(ns|us|ms|s|m|h)?",
        "(layer2|bgp|a|b|config|internal|external)",
        "(?s).{0,20}",
    ]
}

/// Lines of a ConfigMap's configuration, well indented or not.
fn legacy_text() -> impl Strategy<Value = String> {
    const KEYS: &str = "address-pools|name|protocol|addresses|auto-assign|avoid-buggy-ips|bgp-advertisements|\
        aggregation-length|aggregation-length-v6|localpref|communities|peers|my-asn|peer-asn|peer-address|\
        source-address|peer-port|hold-time|keepalive-time|router-id|node-selectors|match-labels|\
        match-expressions|key|operator|values|password|bfd-profile|ebgp-multihop|bgp-communities|bfd-profiles|\
        receive-interval|echo-mode|<<|x";
    let line = ("( {0,8}|    - |  - |- )", KEYS, prop_oneof![value(), Just(String::new())])
        .prop_map(|(indent, key, value)| format!("{indent}{key}: {value}\n"));
    prop::collection::vec(line, 0..20).prop_map(|lines| lines.concat())
}

fn texts() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(value(), 0..6)
}

fn check(resources: &Resources) {
    match config::build(resources) {
        Ok(loaded) => {
            let _ = loaded.config.to_string();
            let mut ranges: Vec<_> = loaded.config.pools.values().flat_map(|pool| &pool.ranges).collect();
            ranges.sort();
            for pair in ranges.windows(2) {
                assert!(!pair[0].overlaps(pair[1]), "{} and {} overlap", pair[0], pair[1]);
            }
        }
        Err(errors) => {
            assert!(!errors.0.is_empty());
            for error in &errors.0 {
                assert!(!error.field.is_empty() && !error.message.is_empty(), "{error:?}");
            }
        }
    }
}

proptest! {
    #[test]
    fn any_config_map(data in prop_oneof![legacy_text(), "(?s).{0,100}".prop_map(String::from)]) {
        let (namespace, name) = ("metallb-system".to_owned(), "config".to_owned());
        check(&Resources {
            legacy: Some(LegacyConfigMap { namespace, name, data: Some(data) }),
            ..Resources::default()
        });
    }

    #[test]
    fn any_resources(
        pools in prop::collection::vec(texts(), 0..4),
        communities in texts(),
        values in prop::collection::vec(value(), 8),
        numbers in prop::collection::vec(any::<i64>(), 6),
        flag in any::<bool>(),
    ) {
        let mut resources = Resources::default();
        for (i, addresses) in pools.into_iter().enumerate() {
            let spec = types::IPAddressPoolSpec { addresses, ..Default::default() };
            resources.pools.push(types::IPAddressPool::new(&format!("pool{i}"), spec));
        }
        let advertisement = types::BGPAdvertisementSpec {
            communities,
            aggregation_length: Some(numbers[0] % 40),
            aggregation_length_v6: Some(numbers[1] % 140),
            local_pref: Some(numbers[2]),
            ..Default::default()
        };
        resources.bgp_advertisements.push(types::BGPAdvertisement::new("ad", advertisement));
        let text = |i: usize| Some(values[i].clone());
        let peer = types::BGPPeerSpec {
            my_asn: numbers[3],
            peer_asn: flag.then_some(numbers[4]),
            dynamic_asn: text(0),
            peer_address: text(1),
            source_address: text(2),
            peer_port: Some(numbers[5] % 70_000),
            hold_time: text(3),
            keepalive_time: text(4),
            connect_time: text(5),
            router_id: text(6),
            bfd_profile: text(7),
            ..Default::default()
        };
        resources.peers.push(types::BGPPeer::new("peer", peer));
        check(&resources);
    }
}
