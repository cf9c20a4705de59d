//! Random histories, against a model that is too simple to be wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed expectation is a failed test

mod common;
#[path = "model/naive.rs"]
mod naive;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use common::{config, pool};
use naive::{Holders, addresses, may_have, may_share, naive_pick};
use patina_controller_core::allocator::{Allocator, Group, Sharing};
use patina_controller_core::decide::{Decision, Policy};
use patina_controller_core::reconcile::Reconciler;
use patina_controller_core::surroundings::Surroundings;
use patina_controller_core::view::{FamilyPolicy, Port, Protocol, ServiceId, ServiceView};
use patina_crds::config::Config;
use patina_crds::net::Family;
use proptest::prelude::*;

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
    #![proptest_config(ProptestConfig::with_cases(600))]

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

/// What happens to a cluster.
#[derive(Clone, Debug)]
enum Event {
    Create {
        who: u8,
        shape: Shape,
    },
    Edit {
        who: u8,
        shape: Shape,
    },
    Delete {
        who: u8,
    },
    Config {
        which: u8,
    },
    /// The next status writes fail until the next event of this kind.
    Writes {
        work: bool,
    },
    Restart,
}

#[derive(Clone, Debug)]
struct Shape {
    families: u8,
    policy: u8,
    key: u8,
    ports: u8,
    ip: Option<u8>,
    pool: Option<u8>,
    load_balancer: bool,
}

fn shape() -> impl Strategy<Value = Shape> {
    (
        0..3u8,
        0..3u8,
        0..3u8,
        1..8u8,
        proptest::option::weighted(0.2, 0..12u8),
        proptest::option::weighted(0.2, 0..5u8),
        proptest::bool::weighted(0.9),
    )
        .prop_map(|(families, policy, key, ports, ip, pool, load_balancer)| Shape {
            families,
            policy,
            key,
            ports,
            ip,
            pool,
            load_balancer,
        })
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0..8u8, shape()).prop_map(|(who, shape)| Event::Create { who, shape }),
        3 => (0..8u8, shape()).prop_map(|(who, shape)| Event::Edit { who, shape }),
        3 => (0..8u8).prop_map(|who| Event::Delete { who }),
        2 => (0..6u8).prop_map(|which| Event::Config { which }),
        1 => any::<bool>().prop_map(|work| Event::Writes { work }),
        2 => Just(Event::Restart),
    ]
}

fn view(who: u8, shape: &Shape, created: i64) -> ServiceView {
    let v4: IpAddr = "10.96.0.9".parse().unwrap();
    let v6: IpAddr = "fd00:96::9".parse().unwrap();
    let cluster_ips = match shape.families {
        0 => vec![v4],
        1 => vec![v6],
        _ => vec![v4, v6],
    };
    let family_policy = match (shape.policy, cluster_ips.len()) {
        (_, 2) if shape.policy == 0 => FamilyPolicy::PreferDual,
        (0, _) => FamilyPolicy::Single,
        (1, _) => FamilyPolicy::PreferDual,
        _ => FamilyPolicy::RequireDual,
    };
    let mut view = ServiceView::plain(service(who), created);
    view.families = cluster_ips.iter().map(|ip| Family::of(*ip)).collect();
    view.cluster_ips = cluster_ips;
    view.family_policy = family_policy;
    view.ports = ports_of(shape.ports);
    view.is_load_balancer = shape.load_balancer;
    let mut annotate = |name: &str, value: String| {
        view.annotations.insert(format!("metallb.io/{name}"), value);
    };
    if shape.key > 0 {
        annotate("allow-shared-ip", format!("k{}", shape.key));
    }
    if let Some(ip) = shape.ip {
        annotate("loadBalancerIPs", format!("10.0.0.{}", 250 + (ip % 6)));
    }
    if let Some(pool) = shape.pool {
        annotate("address-pool", ["a", "b", "c", "z", "split"][usize::from(pool % 5)].to_owned());
    }
    view
}

/// A cluster whose API server is a map: views with the status that was last written into them.
#[derive(Default)]
struct World {
    stored: BTreeMap<ServiceId, ServiceView>,
    wanted: BTreeMap<ServiceId, Vec<IpAddr>>,
    writes_fail: bool,
    clock: i64,
}

impl World {
    /// Decides and writes, as the shell does: the newest wish of each Service is written, later if not now.
    fn settle(&mut self, reconciler: &mut Reconciler) {
        loop {
            for (id, outcome) in reconciler.reconcile() {
                match outcome.decision {
                    Decision::Assign { addresses, .. } | Decision::Keep { addresses, .. } => {
                        self.wanted.insert(id, addresses);
                    }
                    Decision::Wait(_) | Decision::Release => {
                        self.wanted.insert(id, Vec::new());
                    }
                    Decision::Ignore(_) => {
                        self.wanted.remove(&id);
                    }
                }
            }
            let mut written = false;
            for (id, addresses) in self.wanted.iter().filter(|_| !self.writes_fail) {
                let Some(stored) = self.stored.get_mut(id) else { continue };
                if stored.held != *addresses {
                    stored.held.clone_from(addresses);
                    stored.marked = !addresses.is_empty();
                    reconciler.service_changed(stored.clone());
                    written = true;
                }
            }
            if !written {
                return;
            }
        }
    }

    fn restart(&self, config: &Config) -> Reconciler {
        let mut reconciler = Reconciler::new(Policy::default());
        for view in self.stored.values() {
            reconciler.service_changed(view.clone());
        }
        reconciler.config_changed(Arc::new(config.clone()));
        assert!(reconciler.start());
        reconciler
    }
}

fn holders(reconciler: &Reconciler) -> Holders {
    reconciler
        .allocator()
        .assignments()
        .map(|(id, a)| (id.clone(), (a.addresses.clone(), a.sharing.clone())))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(800))]

    #[test]
    fn no_history_gives_an_address_twice_loses_one_or_leaves_a_pool(events in proptest::collection::vec(event(), 1..50)) {
        let configs = configs();
        let mut config = &configs[0];
        let mut world = World::default();
        let mut reconciler = world.restart(config);
        for event in events {
            let before = holders(&reconciler);
            let mut touched: Option<ServiceId> = None;
            let mut reconfigured = false;
            world.clock += 1;
            match event {
                Event::Create { who, shape } => {
                    let id = service(who);
                    if world.stored.contains_key(&id) { continue }
                    let view = view(who, &shape, world.clock);
                    world.stored.insert(id.clone(), view.clone());
                    reconciler.service_changed(view);
                    touched = Some(id);
                }
                Event::Edit { who, shape } => {
                    let id = service(who);
                    let Some(old) = world.stored.get(&id) else { continue };
                    let edited = ServiceView { held: old.held.clone(), marked: old.marked, ..view(who, &shape, old.created) };
                    world.stored.insert(id.clone(), edited.clone());
                    reconciler.service_changed(edited);
                    touched = Some(id);
                }
                Event::Delete { who } => {
                    let id = service(who);
                    if world.stored.remove(&id).is_none() { continue }
                    world.wanted.remove(&id);
                    reconciler.service_deleted(&id);
                    touched = Some(id);
                }
                Event::Config { which } => {
                    config = &configs[usize::from(which) % configs.len()];
                    reconciler.config_changed(Arc::new(config.clone()));
                    reconfigured = true;
                }
                Event::Writes { work } => {
                    world.writes_fail = !work;
                }
                Event::Restart => {
                    // Only what was written survives a process; here everything was.
                    if world.writes_fail { continue }
                    reconciler = world.restart(config);
                }
            }
            world.settle(&mut reconciler);
            let after = holders(&reconciler);

            // Never twice.
            for (a, (ips, sharing)) in &after {
                for (b, (theirs, their_sharing)) in after.range(a.clone()..).skip(1) {
                    if ips.iter().any(|ip| theirs.contains(ip)) {
                        prop_assert!(may_share(sharing, their_sharing), "{} and {} share {:?}", a, b, ips);
                    }
                }
            }
            for (id, (ips, _)) in &after {
                let view = &world.stored[id];
                prop_assert!(view.is_load_balancer);
                // Never outside a pool; all from one; one per family of the Service.
                prop_assert!(config.pools.values().any(|p| ips.iter().all(|ip| addresses(p).any(|a| a == *ip))), "{} has {:?}", id, ips);
                let families: BTreeSet<Family> = ips.iter().map(|ip| Family::of(*ip)).collect();
                prop_assert_eq!(families.len(), ips.len());
                let clusters: BTreeSet<Family> = view.cluster_families().into_iter().collect();
                match view.family_policy {
                    FamilyPolicy::PreferDual => prop_assert!(families.is_subset(&clusters)),
                    _ => prop_assert_eq!(families, clusters),
                }
            }
            // Never lost: with the same configuration only the touched Service may have changed what it has.
            if !reconfigured {
                for (id, (ips, _)) in &before {
                    if touched.as_ref() != Some(id) {
                        let now = after.get(id).map(|(now, _)| now.clone()).unwrap_or_default();
                        prop_assert!(ips.iter().all(|ip| now.contains(ip)), "{} had {:?} and has {:?}", id, ips, now);
                    }
                }
            }
            // Nobody waits beside an address that it could have.
            for view in world.stored.values().filter(|view| view.is_load_balancer && !after.contains_key(&view.id)) {
                let plain = view.annotations.keys().all(|key| key.ends_with("allow-shared-ip"));
                if plain && view.family_policy != FamilyPolicy::RequireDual {
                    let sharing = Sharing::of(view, view.annotations.get("metallb.io/allow-shared-ip").map_or("", String::as_str));
                    for pool in config.pools.values().filter(|p| p.auto_assign && p.allocation.permits(&view.id.namespace, &BTreeMap::new(), &view.labels)) {
                        for family in view.cluster_families() {
                            prop_assert_eq!(naive_pick(&after, pool, &view.id, family, &sharing), None, "{} waits", view.id);
                        }
                    }
                }
            }
            // Written is what is remembered.
            if !world.writes_fail {
                for (id, view) in &world.stored {
                    let remembered = after.get(id).map(|(ips, _)| ips.clone()).unwrap_or_default();
                    prop_assert_eq!(&view.held, &remembered, "status of {}", id);
                }
            }
        }
    }
}
