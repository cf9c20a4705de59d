//! Whatever happens to a cluster, and in whatever order.

use std::collections::BTreeSet;
use std::net::IpAddr;

use patina_controller_core::view::{FamilyPolicy, ServiceId, ServiceView};
use patina_crds::config::Pool;
use patina_crds::net::Family;
use proptest::prelude::*;

use crate::naive::{Holders, Judge, addresses, may_share};
use crate::service;
use crate::world::{Event, World, event};

fn holders(world: &World) -> Holders {
    let assignments = world.reconciler.allocator().assignments();
    assignments.map(|(id, a)| (id.clone(), (a.addresses.clone(), a.sharing.clone()))).collect()
}

proptest! {
    #![proptest_config(crate::cases(800))]

    #[test]
    fn no_history_gives_an_address_twice_loses_one_or_lets_anybody_wait_in_vain(
        events in proptest::collection::vec(event(), 1..50)
    ) {
        let mut world = World::new();
        for event in &events {
            let before = holders(&world);
            let waited = world.reconciler.waiting();
            let wrote = !world.writes_fail;
            if !world.apply(event) { continue }
            let after = holders(&world);
            nobody_has_what_is_not_his(&world, &before, &after)?;
            if wrote || !matches!(event, Event::Restart) {
                nobody_loses_without_cause(&world, event, &before, &after)?;
            }
            nobody_waits_in_vain(&world, &after)?;
            if matches!(event, Event::Restart) && wrote {
                prop_assert_eq!(&before, &after, "a restart changes nothing");
                prop_assert_eq!(waited, world.reconciler.waiting());
            }
            // Written is what is remembered.
            if !world.writes_fail {
                for (id, view) in world.stored.iter().filter(|(_, view)| view.class.is_none()) {
                    let remembered = after.get(id).map(|(ips, _)| ips.clone()).unwrap_or_default();
                    prop_assert_eq!(&view.held, &remembered, "status of {}", id);
                }
            }
        }
        // The same once more.
        let mut twin = World::new();
        for event in &events {
            twin.apply(event);
        }
        prop_assert_eq!(&world.trace, &twin.trace);
    }
}

fn nobody_has_what_is_not_his(world: &World, before: &Holders, after: &Holders) -> Result<(), TestCaseError> {
    for (a, (ips, sharing)) in after {
        for (b, (theirs, their_sharing)) in after.range(a.clone()..).skip(1) {
            if ips.iter().any(|ip| theirs.contains(ip)) {
                prop_assert!(may_share(sharing, their_sharing), "{} and {} share {:?}", a, b, ips);
            }
        }
    }
    let judge = Judge { world, holders: after };
    for (id, (ips, _)) in after {
        let view = &world.stored[id];
        prop_assert!(view.is_load_balancer && view.class.is_none());
        // Never outside a pool, nor in one for others; all from one; one per family of the Service.
        let from = |pool: &&Pool| {
            judge.permits(pool, view) && ips.iter().all(|ip| addresses(pool).any(|a| a == *ip))
        };
        prop_assert!(world.config.pools.values().any(|pool| from(&pool)), "{} has {:?}", id, ips);
        let families: BTreeSet<Family> = ips.iter().map(|ip| Family::of(*ip)).collect();
        prop_assert_eq!(families.len(), ips.len());
        let clusters: BTreeSet<Family> = view.cluster_families().into_iter().collect();
        match view.family_policy {
            FamilyPolicy::PreferDual => prop_assert!(families.is_subset(&clusters)),
            _ => prop_assert_eq!(families, clusters),
        }
        // What the network uses or a reservation keeps is not given, but left to who had it.
        let had = before.get(id).map(|(had, _)| had.clone()).unwrap_or_default();
        for ip in ips.iter().filter(|ip| !had.contains(ip) && !view.held.contains(ip)) {
            prop_assert!(!judge.barred(*ip, id), "{} got {}", id, ip);
        }
    }
    Ok(())
}

fn nobody_loses_without_cause(
    world: &World,
    event: &Event,
    before: &Holders,
    after: &Holders,
) -> Result<(), TestCaseError> {
    let touched = |id: &ServiceId| match event {
        Event::Create { who, .. }
        | Event::Edit { who, .. }
        | Event::Again { who, .. }
        | Event::Delete { who } => service(*who) == *id,
        _ => false,
    };
    let judge = Judge { world, holders: after };
    for (id, (ips, _)) in before.iter().filter(|(id, _)| !touched(id)) {
        let view = &world.stored[id];
        let still =
            |pool: &Pool| judge.permits(pool, view) && ips.iter().all(|ip| addresses(pool).any(|a| a == *ip));
        // An address or a pool that it asked for in vain until now is a reason to move.
        let granted =
            matches!(event, Event::Config { .. } | Event::Namespace { .. } | Event::Surroundings { .. });
        let content = !granted || view.annotations.is_empty();
        if content && world.config.pools.values().any(still) {
            let now = after.get(id).map(|(now, _)| now.clone()).unwrap_or_default();
            prop_assert!(ips.iter().all(|ip| now.contains(ip)), "{} had {:?} and has {:?}", id, ips, now);
            // Never reshuffled.
            let kept: Vec<IpAddr> = now.iter().filter(|ip| ips.contains(ip)).copied().collect();
            prop_assert_eq!(&kept, ips);
        }
    }
    Ok(())
}

fn nobody_waits_in_vain(world: &World, after: &Holders) -> Result<(), TestCaseError> {
    let judge = Judge { world, holders: after };
    let ours = |view: &&ServiceView| view.is_load_balancer && view.class.is_none();
    for view in world.stored.values().filter(ours) {
        let lacking = match after.get(&view.id) {
            None => judge.could_get(view),
            Some((ips, _)) => judge.could_get_more(view, ips),
        };
        prop_assert_eq!(lacking, None, "{} waits", view.id);
    }
    Ok(())
}
