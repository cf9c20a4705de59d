//! Random histories, against a model that is too simple to be wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed expectation is a failed test

mod common;
#[path = "model/history.rs"]
mod history;
#[path = "model/naive.rs"]
mod naive;
#[path = "model/world.rs"]
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use common::{config, pool};
use naive::{Holders, addresses, may_have, naive_pick};
use patina_controller_core::allocator::{Allocator, Group, Sharing};
use patina_controller_core::surroundings::Surroundings;
use patina_controller_core::view::{Port, Protocol, ServiceId};
use patina_crds::config::Config;
use patina_crds::net::Family;
use proptest::prelude::*;

/// As many cases as usual, or as PROPTEST_CASES says (unless that is the 256 that are its default).
fn cases(usual: u32) -> ProptestConfig {
    let set = ProptestConfig::default();
    let cases = if set.cases == 256 { usual } else { set.cases };
    // A failure prints its shortened history, which belongs into a recorded case.
    ProptestConfig { cases, failure_persistence: None, ..set }
}

/// Configurations that overlap, shrink, split, rename and rearrange one another.
fn configs() -> Vec<Config> {
    let mut buggy = pool("a", &["10.0.0.252-10.0.1.3", "fd00::-fd00::3"]);
    buggy.avoid_buggy_ips = true;
    let mut manual = pool("b", &["10.0.1.0/30"]);
    manual.auto_assign = false;
    let mut pinned = pool("c", &["10.0.2.0/31", "fd00::8/127"]);
    pinned.allocation.namespaces = BTreeSet::from(["n1".to_owned()]);
    pinned.allocation.priority = Some(1);
    vec![
        config([pool("a", &["10.0.0.252-10.0.0.255", "fd00::/126"])]),
        config([buggy]),
        config([pool("z", &["10.0.0.254-10.0.1.1", "10.0.0.252/31", "fd00::/127"]), pinned.clone()]),
        config([
            pool("a", &["10.0.0.252/31", "fd00::/127"]),
            pool("split", &["10.0.0.254/31", "fd00::2/127"]),
        ]),
        config([manual, pinned]),
        config([]),
    ]
}

fn sharing(key: u8, ports: u8) -> Sharing {
    let group = (key > 0).then(|| Group { key: format!("k{key}"), backends: String::new() });
    Sharing { group, ports: ports_of(ports) }
}

fn ports_of(bits: u8) -> BTreeSet<Port> {
    (0..3)
        .filter(|bit| bits & (1 << bit) != 0)
        .map(|bit| Port { protocol: Protocol::Tcp, number: 80 + bit })
        .collect()
}

#[derive(Clone, Debug)]
enum Step {
    Allocate { who: u8, pool: u8, dual: bool, v6: bool, key: u8, ports: u8 },
    Assign { who: u8, ip: u8, key: u8, ports: u8 },
    Release { who: u8 },
    Configure { which: u8 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..6u8, 0..4u8, any::<bool>(), any::<bool>(), 0..3u8, 1..8u8)
            .prop_map(|(who, pool, dual, v6, key, ports)| Step::Allocate { who, pool, dual, v6, key, ports }),
        3 => (0..6u8, any::<u8>(), 0..3u8, 1..8u8)
            .prop_map(|(who, ip, key, ports)| Step::Assign { who, ip, key, ports }),
        2 => (0..6u8).prop_map(|who| Step::Release { who }),
        1 => (0..6u8).prop_map(|which| Step::Configure { which }),
    ]
}

fn service(n: u8) -> ServiceId {
    ServiceId::new(format!("n{}", n % 2), format!("s{n}"))
}

proptest! {
    #![proptest_config(cases(600))]

    /// Each operation of the allocator gives what the linear scan gives.
    #[test]
    fn the_allocator_agrees_with_a_linear_scan(steps in proptest::collection::vec(step(), 1..60)) {
        let configs = configs();
        let mut config = &configs[0];
        let mut allocator = Allocator::default();
        allocator.configure(config, &Surroundings::default());
        let mut model = Holders::new();
        for step in steps {
            match step {
                Step::Allocate { who, pool, dual, v6, key, ports } => {
                    let (id, sharing) = (service(who), sharing(key, ports));
                    let pools: Vec<_> = config.pools.values().collect();
                    let Some(pool) = pools.get(usize::from(pool)) else { continue };
                    // As `decide` does: what it had is given up before it gets something new.
                    allocator.release(&id);
                    model.remove(&id);
                    let families = if dual { vec![Family::V4, Family::V6] } else if v6 { vec![Family::V6] } else { vec![Family::V4] };
                    let expected: Option<Vec<IpAddr>> =
                        families.iter().map(|f| naive_pick(&model, pool, &id, *f, &sharing)).collect();
                    let given = allocator.allocate(&id, &pool.name, &[], &families, &sharing);
                    prop_assert_eq!(&given, &expected);
                    if let Some(addresses) = given {
                        model.insert(id, (addresses, sharing));
                    }
                }
                Step::Assign { who, ip, key, ports } => {
                    let (id, sharing) = (service(who), sharing(key, ports));
                    let all: Vec<IpAddr> = config.pools.values().flat_map(addresses).collect();
                    if all.is_empty() { continue }
                    let ip = all[usize::from(ip) % all.len()];
                    let expected = may_have(&model, &id, ip, &sharing);
                    let before = allocator.assignment(&id).cloned();
                    let assigned = allocator.assign(&id, &[ip], &sharing);
                    prop_assert_eq!(assigned.is_ok(), expected, "{} for {}: {:?}", ip, id, assigned);
                    if expected {
                        model.insert(id, (vec![ip], sharing));
                    } else {
                        prop_assert_eq!(allocator.assignment(&id).cloned(), before);
                    }
                }
                Step::Release { who } => {
                    let id = service(who);
                    let had = allocator.release(&id).map(|a| a.addresses);
                    prop_assert_eq!(had, model.remove(&id).map(|(addresses, _)| addresses));
                }
                Step::Configure { which } => {
                    config = &configs[usize::from(which) % configs.len()];
                    allocator.configure(config, &Surroundings::default());
                }
            }
            check_usage(&allocator, config, &model)?;
        }
    }
}

fn check_usage(allocator: &Allocator, config: &Config, model: &Holders) -> Result<(), TestCaseError> {
    let usage: BTreeMap<&str, _> = allocator.usage().collect();
    prop_assert_eq!(usage.len(), config.pools.len());
    for (name, pool) in &config.pools {
        let all: BTreeSet<IpAddr> = addresses(pool).collect();
        let used: BTreeSet<IpAddr> =
            model.values().flat_map(|(ips, _)| ips).copied().filter(|ip| all.contains(ip)).collect();
        let count = |set: &BTreeSet<IpAddr>, family| {
            set.iter().filter(|ip| Family::of(**ip) == family).count() as u128
        };
        let usage = usage[name.as_str()];
        prop_assert_eq!(usage.total_v4, count(&all, Family::V4));
        prop_assert_eq!(usage.total_v6, count(&all, Family::V6));
        prop_assert_eq!(usage.used_v4, count(&used, Family::V4), "pool {}", name);
        prop_assert_eq!(usage.used_v6, count(&used, Family::V6), "pool {}", name);
        let services = model.values().filter(|(ips, _)| ips.iter().all(|ip| all.contains(ip))).count();
        prop_assert_eq!(usage.services, services);
    }
    Ok(())
}
