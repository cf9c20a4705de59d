//! What the integration tests share: a pool and a configuration in one line.

use std::collections::BTreeMap;

use patina_crds::config::{Config, ObjectRef, Pool, ServiceAllocation};

pub(crate) fn pool(name: &str, ranges: &[&str]) -> Pool {
    Pool {
        name: name.to_owned(),
        source: ObjectRef { kind: "IPAddressPool".into(), namespace: "test".into(), name: name.to_owned() },
        labels: BTreeMap::new(),
        ranges: ranges.iter().map(|range| range.parse().unwrap()).collect(),
        auto_assign: true,
        avoid_buggy_ips: false,
        allocation: ServiceAllocation::default(),
    }
}

pub(crate) fn config(pools: impl IntoIterator<Item = Pool>) -> Config {
    Config { pools: pools.into_iter().map(|pool| (pool.name.clone(), pool)).collect(), ..Config::default() }
}
