//! A large configuration is no special case.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed expectation is a failed test

use std::net::Ipv4Addr;

use patina_crds::config::{self, Resources};
use patina_crds::types;

const POOLS: u32 = 1000;

fn pools() -> Vec<types::IPAddressPool> {
    (0..POOLS)
        .map(|i| {
            let first = Ipv4Addr::from_bits(0x0a00_0000 + i * 256);
            let addresses = vec![format!("{first}/25"), format!("2001:db8:{i:x}::/64")];
            types::IPAddressPool::new(
                &format!("pool-{i}"),
                types::IPAddressPoolSpec { addresses, ..Default::default() },
            )
        })
        .collect()
}

fn advertisement(i: u32, spec: types::BGPAdvertisementSpec) -> types::BGPAdvertisement {
    types::BGPAdvertisement::new(&format!("ad-{i}"), spec)
}

#[test]
fn a_thousand_pools_each_with_its_advertisement() {
    let own = |i| {
        let ip_address_pools = vec![format!("pool-{i}")];
        let (local_pref, aggregation_length) = (Some(i64::from(i)), Some(25));
        advertisement(
            i,
            types::BGPAdvertisementSpec {
                ip_address_pools,
                local_pref,
                aggregation_length,
                ..Default::default()
            },
        )
    };
    let bgp_advertisements = (0..POOLS).map(own).collect();
    let resources = Resources { pools: pools(), bgp_advertisements, ..Resources::default() };
    let config = config::build(&resources).unwrap().config;
    assert_eq!((config.pools.len(), config.bgp_advertisements.len()), (1000, 1000));
    for i in 0..POOLS {
        let inside = Ipv4Addr::from_bits(0x0a00_0000 + i * 256 + 127);
        let outside = Ipv4Addr::from_bits(0x0a00_0000 + i * 256 + 128);
        assert_eq!(config.pool_of(inside.into()).map(|pool| pool.name.clone()), Some(format!("pool-{i}")));
        assert_eq!(config.pool_of(outside.into()), None);
    }
}

#[test]
fn advertisements_that_all_cover_a_thousand_pools() {
    let bgp_advertisements =
        (0..200).map(|i| advertisement(i, types::BGPAdvertisementSpec::default())).collect();
    let resources = Resources { pools: pools(), bgp_advertisements, ..Resources::default() };
    let config = config::build(&resources).unwrap().config;
    assert!(config.bgp_advertisements.iter().all(|ad| ad.pools.len() == 1000));
}

#[test]
fn of_a_thousand_contradictions_each_is_said_once() {
    let spec = |i| types::BGPAdvertisementSpec { local_pref: Some(i64::from(i)), ..Default::default() };
    let bgp_advertisements = (0..POOLS).map(|i| advertisement(i, spec(i))).collect();
    let resources = Resources {
        pools: pools().into_iter().take(10).collect(),
        bgp_advertisements,
        ..Resources::default()
    };
    assert_eq!(config::build(&resources).unwrap_err().0.len(), 999);
}
