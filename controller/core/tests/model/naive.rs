//! A judge of who may have which address that is too simple to be wrong, and too slow to be used.

use std::collections::BTreeMap;
use std::net::IpAddr;

use patina_controller_core::allocator::Sharing;
use patina_controller_core::view::ServiceId;
use patina_crds::config::Pool;
use patina_crds::net::{Family, from_number};

pub(crate) fn buggy(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(ip) if ip.octets()[3] == 0 || ip.octets()[3] == 255)
}

/// The addresses that a pool may give, one by one, in declared order. Only for small pools.
pub(crate) fn addresses(pool: &Pool) -> impl Iterator<Item = IpAddr> + '_ {
    pool.ranges
        .iter()
        .flat_map(|range| {
            (range.first_number()..=range.last_number()).map(|n| from_number(range.family(), n).unwrap())
        })
        .filter(|ip| !(pool.avoid_buggy_ips && buggy(*ip)))
}

/// api.md 3.2, literally.
pub(crate) fn may_share(a: &Sharing, b: &Sharing) -> bool {
    a.group.is_some() && a.group == b.group && a.ports.is_disjoint(&b.ports)
}

/// Everybody and what they have.
pub(crate) type Holders = BTreeMap<ServiceId, (Vec<IpAddr>, Sharing)>;

pub(crate) fn may_have(holders: &Holders, id: &ServiceId, ip: IpAddr, sharing: &Sharing) -> bool {
    holders
        .iter()
        .filter(|(other, (addresses, _))| *other != id && addresses.contains(&ip))
        .all(|(_, (_, theirs))| may_share(sharing, theirs))
}

/// The linear scan that the allocator must agree with: join the own group before taking what is free.
pub(crate) fn naive_pick(
    holders: &Holders,
    pool: &Pool,
    id: &ServiceId,
    family: Family,
    sharing: &Sharing,
) -> Option<IpAddr> {
    let mut fitting =
        addresses(pool).filter(|ip| Family::of(*ip) == family && may_have(holders, id, *ip, sharing));
    let joins = |ip: &IpAddr| holders.iter().any(|(other, (ips, _))| other != id && ips.contains(ip));
    let (joined, free): (Vec<IpAddr>, Vec<IpAddr>) = fitting.by_ref().partition(joins);
    joined.first().or(free.first()).copied()
}
