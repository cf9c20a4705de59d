//! A judge of who may have which address that is too simple to be wrong, and too slow to be used.

use std::collections::BTreeMap;
use std::net::IpAddr;

use patina_controller_core::allocator::Sharing;
use patina_controller_core::view::{FamilyPolicy, ServiceId, ServiceView};
use patina_crds::config::{Pool, Reservation};
use patina_crds::net::{Family, from_number};

use crate::world::World;

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

/// Who could have what, by looking at everything.
pub(crate) struct Judge<'a> {
    pub(crate) world: &'a World,
    pub(crate) holders: &'a Holders,
}

impl Judge<'_> {
    pub(crate) fn permits(&self, pool: &Pool, view: &ServiceView) -> bool {
        pool.allocation.permits(&view.id.namespace, &self.world.labels(&view.id.namespace), &view.labels)
    }

    /// Whether `id` would not be given `ip`, if it had not got it.
    pub(crate) fn barred(&self, ip: IpAddr, id: &ServiceId) -> bool {
        self.is_used(ip) || self.keeper(ip).is_some_and(|service| service != Some(id))
    }

    fn is_used(&self, ip: IpAddr) -> bool {
        self.world.surroundings.uses.iter().any(|in_use| in_use.range.contains(ip))
    }

    fn keeper(&self, ip: IpAddr) -> Option<Option<&ServiceId>> {
        let keeps = |r: &&Reservation| r.ranges.iter().any(|range| range.contains(ip));
        self.world.config.reservations.iter().find(keeps).map(|reservation| reservation.service.as_ref())
    }

    /// Something is reserved for the Service in this pool and family.
    fn reserves(&self, pool: &Pool, family: Family, id: &ServiceId) -> bool {
        let mine = self.world.config.reservations.iter().filter(|r| r.service.as_ref() == Some(id));
        mine.flat_map(|r| &r.ranges)
            .any(|range| range.family() == family && pool.ranges.iter().any(|other| other.overlaps(range)))
    }

    fn sharing(view: &ServiceView) -> Sharing {
        Sharing::of(view, view.annotations.get("metallb.io/allow-shared-ip").map_or("", String::as_str))
    }

    /// `None`: no pool is right for what it asks.
    fn pools(&self, view: &ServiceView) -> Option<Vec<&Pool>> {
        let pools = &self.world.config.pools;
        if let Some(name) = view.annotations.get("metallb.io/address-pool") {
            return Some(vec![pools.get(name).filter(|pool| self.permits(pool, view))?]);
        }
        let families = view.cluster_families();
        let reserved: Vec<&Pool> =
            pools.values().filter(|p| families.iter().any(|f| self.reserves(p, *f, &view.id))).collect();
        if !reserved.is_empty() {
            return Some(reserved.into_iter().filter(|pool| self.permits(pool, view)).collect());
        }
        Some(pools.values().filter(|pool| pool.auto_assign && self.permits(pool, view)).collect())
    }

    fn request(view: &ServiceView) -> Option<IpAddr> {
        view.annotations.get("metallb.io/loadBalancerIPs").map(|text| text.parse().unwrap())
    }

    /// The pool of which an older Service that needs both families waits for both.
    fn is_set_aside(&self, pool: &Pool, view: &ServiceView) -> bool {
        self.world.stored.values().any(|other| {
            let waits = other.is_load_balancer
                && other.class.is_none()
                && !self.holders.contains_key(&other.id)
                && other.family_policy != FamilyPolicy::PreferDual
                && other.cluster_families().len() == 2
                && Self::request(other).is_none();
            let both = |p: &&&Pool| {
                [Family::V4, Family::V6].iter().all(|f| addresses(p).any(|ip| Family::of(ip) == *f))
            };
            let older = (other.created, &other.id) < (view.created, &view.id);
            // The order of pools, as the configurations of the test have it: by priority, then pinned, then name.
            let mut pools = self.pools(other).unwrap_or_default();
            pools.sort_by_key(|p| {
                (!p.auto_assign, p.allocation.priority.unwrap_or(u32::MAX), !p.allocation.is_pinned())
            });
            let door = pools.iter().find(both).map(|p| &p.name);
            waits && older && door == Some(&pool.name)
        })
    }

    /// An address of this family that the Service could be given out of the pool.
    fn option(&self, pool: &Pool, family: Family, view: &ServiceView) -> Option<IpAddr> {
        let (id, sharing) = (&view.id, Self::sharing(view));
        let reserved = self.reserves(pool, family, id);
        let is_held = |ip: &IpAddr| self.holders.values().any(|(ips, _)| ips.contains(ip));
        let fits = |ip: &IpAddr| {
            Family::of(*ip) == family
                && !self.barred(*ip, id)
                && (!reserved || self.keeper(*ip) == Some(Some(id)))
                && may_have(self.holders, id, *ip, &sharing)
        };
        let fitting: Vec<IpAddr> = addresses(pool).filter(fits).collect();
        let joined = fitting.iter().find(|ip| is_held(ip));
        let free: Vec<&IpAddr> = fitting.iter().filter(|ip| !is_held(ip)).collect();
        let leave = usize::from(!reserved && self.is_set_aside(pool, view));
        joined.or(free.get(leave).copied()).copied()
    }

    /// An address that a Service without any could have.
    pub(crate) fn could_get(&self, view: &ServiceView) -> Option<IpAddr> {
        let families = view.cluster_families();
        if view.family_policy == FamilyPolicy::RequireDual && families.len() < 2 {
            return None;
        }
        if let Some(ip) = Self::request(view) {
            let pool = self.world.config.pools.values().find(|pool| addresses(pool).any(|a| a == ip))?;
            let named = view.annotations.get("metallb.io/address-pool");
            let right = families == [Family::of(ip)]
                && self.permits(pool, view)
                && named.is_none_or(|name| *name == pool.name)
                && !self.barred(ip, &view.id)
                && may_have(self.holders, &view.id, ip, &Self::sharing(view));
            return right.then_some(ip);
        }
        self.pools(view)?.into_iter().find_map(|pool| {
            let must = families.iter().any(|f| self.reserves(pool, *f, &view.id));
            let given: Vec<Option<IpAddr>> = families.iter().map(|f| self.option(pool, *f, view)).collect();
            if view.family_policy == FamilyPolicy::PreferDual {
                let counts = |f: &Family| !must || self.reserves(pool, *f, &view.id);
                families.iter().zip(&given).find_map(|(f, ip)| ip.filter(|_| counts(f)))
            } else {
                given.iter().all(Option::is_some).then(|| given.first().copied().flatten()).flatten()
            }
        })
    }

    /// The second address of one that prefers two.
    pub(crate) fn could_get_more(&self, view: &ServiceView, ips: &[IpAddr]) -> Option<IpAddr> {
        if view.family_policy != FamilyPolicy::PreferDual || Self::request(view).is_some() {
            return None;
        }
        if let Some(name) = view.annotations.get("metallb.io/address-pool") {
            let pool = self.world.config.pools.get(name).filter(|pool| self.permits(pool, view))?;
            let families = view.cluster_families();
            families.iter().find(|f| pool.ranges.iter().any(|range| range.family() == **f))?;
        }
        let pool = self.world.config.pools.values().find(|pool| addresses(pool).any(|a| a == ips[0]))?;
        let missing = |f: &Family| !ips.iter().any(|ip| Family::of(*ip) == *f);
        view.cluster_families().into_iter().filter(missing).find_map(|f| self.option(pool, f, view))
    }
}
