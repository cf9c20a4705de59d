//! When two configurations mean the same: one from the ConfigMap, one from the resources that it was migrated into. The fuzz
//! target `migrate` holds the same (fuzz/fuzz_targets/migrate.rs).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::time::Duration;

use patina_crds::config::{BfdProfile, Config, ObjectRef, Peer, Pool};

/// Asserts that `new` is `old` up to the names of pools, profiles and advertisements, the places where things were written,
/// and the order of lists that are in the order of names.
pub(crate) fn assert_same(old: &Config, new: &Config) {
    let nowhere = || ObjectRef { kind: String::new(), namespace: String::new(), name: String::new() };

    // Pools never overlap, so their addresses say which is which.
    let mut names = BTreeMap::new();
    assert_eq!(old.pools.len(), new.pools.len(), "pools");
    for pool in old.pools.values() {
        let first = pool.ranges[0].first();
        let twin = new.pool_of(first).unwrap_or_else(|| panic!("{first} is in no pool any more"));
        let plain = |pool: &Pool| Pool { name: String::new(), source: nowhere(), ..pool.clone() };
        assert_eq!(plain(pool), plain(twin));
        names.insert(pool.name.clone(), twin.name.clone());
    }
    assert_eq!(names.values().collect::<BTreeSet<_>>().len(), names.len(), "two pools became one");
    let pools = |pools: &BTreeSet<String>| pools.iter().map(|name| names[name].clone()).collect();

    let l2 = |config: &Config, rename: bool| {
        config
            .l2_advertisements
            .iter()
            .cloned()
            .map(|mut ad| {
                ad.source = nowhere();
                ad.pools = if rename { pools(&ad.pools) } else { ad.pools };
                ad
            })
            .collect()
    };
    assert_same_set(l2(old, true), l2(new, false));
    let bgp = |config: &Config, rename: bool| {
        config
            .bgp_advertisements
            .iter()
            .cloned()
            .map(|mut ad| {
                ad.source = nowhere();
                ad.pools = if rename { pools(&ad.pools) } else { ad.pools };
                ad
            })
            .collect()
    };
    assert_same_set(bgp(old, true), bgp(new, false));

    let profile =
        |config: &Config, name: &str| BfdProfile { source: nowhere(), ..config.bfd_profiles[name].clone() };
    let profiles = |config: &Config| config.bfd_profiles.keys().map(|name| profile(config, name)).collect();
    assert_same_set(profiles(old), profiles(new));

    assert_eq!(old.peers.len(), new.peers.len(), "peers");
    for peer in &old.peers {
        let twin = new
            .peers
            .iter()
            .find(|twin| twin.name == peer.name)
            .unwrap_or_else(|| panic!("no {}", peer.name));
        let of = |config, peer: &Peer| peer.bfd_profile.as_ref().map(|name| profile(config, name));
        assert_eq!(of(old, peer), of(new, twin), "the BFD profile of {}", peer.name);
        let mut plain = Peer { source: nowhere(), bfd_profile: None, ..twin.clone() };
        // The ConfigMap's default stays absent.
        if (plain.hold_time, plain.keepalive_time) == (None, None)
            && (peer.hold_time, peer.keepalive_time)
                == (Some(Duration::from_secs(90)), Some(Duration::from_secs(30)))
        {
            (plain.hold_time, plain.keepalive_time) = (peer.hold_time, peer.keepalive_time);
        }
        assert!(
            plain == Peer { source: nowhere(), bfd_profile: None, ..peer.clone() },
            "{peer:?} became {twin:?}"
        );
    }
    assert_eq!(old.reservations.len() + new.reservations.len(), 0, "a ConfigMap has none");
}

fn assert_same_set<T: Debug>(old: Vec<T>, new: Vec<T>) {
    let texts = |list: &[T]| {
        let mut texts: Vec<String> = list.iter().map(|entry| format!("{entry:?}")).collect();
        texts.sort();
        texts
    };
    assert_eq!(texts(&old), texts(&new));
}
