//! Who holds which address of which pool.
//!
//! [`Allocator`] is the memory of the controller: an address is in it from the moment it is chosen, whether the Service's
//! status was written yet or not, until the Service gives it up. Each operation costs O(log n) in the number of Services
//! and of addresses in use; the size of a pool does not matter.

mod line;
mod sharing;
mod space;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use patina_crds::config::Config;
use patina_crds::net::{Family, to_number};

use self::sharing::Holding;
pub use self::sharing::{Clash, Group, Sharing};
use self::space::PoolSpace;
pub use self::space::Usage;
pub(crate) use self::space::is_buggy;
use crate::view::ServiceId;

/// What a Service has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// In the order of its status; at most one per family.
    pub addresses: Vec<IpAddr>,
    /// The pool they come from; `None` when a changed configuration has none that contains them all.
    pub pool: Option<String>,
    /// Who else may use them.
    pub sharing: Sharing,
}

/// Why an assignment was refused. The state is as before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// In no pool (or left out by `avoidBuggyIPs`).
    OutsideEveryPool(IpAddr),
    /// Not all in one pool.
    DifferentPools(String, String),
    /// Somebody else has it and cannot share it.
    Taken {
        /// The address.
        address: IpAddr,
        /// One who has it.
        owner: ServiceId,
        /// Why it cannot be shared.
        clash: Clash,
    },
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Allocator {
    pools: BTreeMap<String, PoolSpace>,
    /// First address of a range -> last address, pool. Ranges are disjoint over all pools.
    ranges: BTreeMap<(Family, u128), (u128, String)>,
    /// Names of pools whose IPv4 addresses that end in .0 and .255 are left out.
    avoid_buggy: Vec<String>,
    /// Automatic allocation tries pinned pools first: those that name somebody or have a priority, by priority, then name.
    pinned: Vec<String>,
    /// Then the open ones, by name.
    open: Vec<String>,
    holdings: HashMap<IpAddr, Holding>,
    services: HashMap<ServiceId, Assignment>,
    /// An address became free, or easier to share, since the last [`Allocator::take_freed`].
    freed: bool,
}

impl Allocator {
    /// Takes over the pools of a configuration. Nobody loses an address here: whoever holds one that is in no pool any
    /// more keeps it until it is decided about.
    pub fn configure(&mut self, config: &Config) {
        self.pools = config.pools.iter().map(|(name, pool)| (name.clone(), PoolSpace::new(pool))).collect();
        self.ranges.clear();
        self.avoid_buggy.clear();
        for (name, pool) in &config.pools {
            if pool.avoid_buggy_ips {
                self.avoid_buggy.push(name.clone());
            }
            for range in &pool.ranges {
                let key = (range.family(), range.first_number());
                self.ranges.insert(key, (range.last_number(), name.clone()));
            }
        }
        let automatic = || config.pools.values().filter(|pool| pool.auto_assign);
        let is_pinned = |pool: &&patina_crds::config::Pool| {
            pool.allocation.is_pinned() || pool.allocation.priority.is_some()
        };
        let mut pinned: Vec<_> = automatic().filter(is_pinned).collect();
        // Stable: equal priorities stay in the order of their names.
        pinned.sort_by_key(|pool| pool.allocation.priority.unwrap_or(u32::MAX));
        self.pinned = pinned.into_iter().map(|pool| pool.name.clone()).collect();
        self.open = automatic().filter(|pool| !is_pinned(pool)).map(|pool| pool.name.clone()).collect();

        let placed: Vec<(IpAddr, Option<String>)> =
            self.holdings.keys().map(|ip| (*ip, self.pool_of(*ip).map(str::to_owned))).collect();
        for (ip, name) in placed {
            let space = name.and_then(|name| self.pools.get_mut(&name));
            if let (Some(space), Some(holding)) = (space, self.holdings.get(&ip)) {
                space.segment_mut(Family::of(ip)).restore(ip, holding);
            }
        }
        let pools: Vec<(ServiceId, Option<String>)> = self
            .services
            .iter()
            .map(|(id, assignment)| (id.clone(), self.common_pool(&assignment.addresses).ok()))
            .collect();
        for (id, pool) in pools {
            if let Some(space) = pool.as_ref().and_then(|name| self.pools.get_mut(name)) {
                space.services += 1;
            }
            if let Some(assignment) = self.services.get_mut(&id) {
                assignment.pool = pool;
            }
        }
    }

    /// What `id` has.
    #[must_use]
    pub fn assignment(&self, id: &ServiceId) -> Option<&Assignment> {
        self.services.get(id)
    }

    /// Everybody who has something, in no particular order.
    pub fn assignments(&self) -> impl Iterator<Item = (&ServiceId, &Assignment)> {
        self.services.iter()
    }

    /// How full each pool is.
    pub fn usage(&self) -> impl Iterator<Item = (&str, Usage)> {
        self.pools.iter().map(|(name, space)| (name.as_str(), space.usage()))
    }

    /// The pool that could give `ip`.
    #[must_use]
    pub fn pool_of(&self, ip: IpAddr) -> Option<&str> {
        let key = (Family::of(ip), to_number(ip));
        let ((family, _), (last, name)) = self.ranges.range(..=key).next_back()?;
        let inside = *family == key.0 && key.1 <= *last;
        let left_out = is_buggy(ip) && self.avoid_buggy.contains(name);
        (inside && !left_out).then_some(name.as_str())
    }

    /// What of `addresses` a Service can keep together: those in the pool of the first that is in any.
    #[must_use]
    pub fn keepable(&self, addresses: &[IpAddr]) -> Vec<IpAddr> {
        let pool = addresses.iter().find_map(|ip| self.pool_of(*ip));
        addresses.iter().copied().filter(|ip| pool.is_some() && self.pool_of(*ip) == pool).collect()
    }

    /// Pools that automatic allocation tries first, and those that it tries then.
    #[must_use]
    pub fn automatic_pools(&self) -> (&[String], &[String]) {
        (&self.pinned, &self.open)
    }

    /// Whether the pool has any address of this family, free or not.
    #[must_use]
    pub fn has_family(&self, pool: &str, family: Family) -> bool {
        self.pools.get(pool).is_some_and(|space| space.segment(family).total > 0)
    }

    /// Gives exactly these addresses to `id`, in exchange for what it has.
    ///
    /// # Errors
    /// Nothing changed when they are not all in one pool, or somebody has one and cannot share it.
    pub fn assign(
        &mut self,
        id: &ServiceId,
        addresses: &[IpAddr],
        sharing: &Sharing,
    ) -> Result<String, Refused> {
        let pool = self.common_pool(addresses)?;
        for address in addresses {
            if let Some((owner, clash)) = self.holdings.get(address).and_then(|h| h.clash(id, sharing)) {
                return Err(Refused::Taken { address: *address, owner, clash });
            }
        }
        if let Some(now) = self.services.get(id)
            && now.addresses == addresses
            && now.sharing == *sharing
        {
            return Ok(pool);
        }
        self.detach(id, addresses, sharing);
        self.attach(id, addresses.to_vec(), sharing.clone(), pool.clone());
        Ok(pool)
    }

    /// Gives the lowest free or shareable address of each family out of `pool`, all or none, in addition to `kept`,
    /// in exchange for what `id` has. `None` when the pool cannot.
    pub fn allocate(
        &mut self,
        id: &ServiceId,
        pool: &str,
        kept: &[IpAddr],
        families: &[Family],
        sharing: &Sharing,
    ) -> Option<Vec<IpAddr>> {
        let space = self.pools.get_mut(pool)?;
        let mut addresses = kept.to_vec();
        for family in families {
            addresses.push(space.segment_mut(*family).pick(sharing)?);
        }
        self.assign(id, &addresses, sharing).ok()?;
        Some(addresses)
    }

    /// Takes everything from `id`; what it had.
    pub fn release(&mut self, id: &ServiceId) -> Option<Assignment> {
        self.detach(id, &[], &Sharing::default())
    }

    /// Whether an address became free, or easier to share, since the last [`Allocator::take_freed`].
    #[must_use]
    pub fn has_freed(&self) -> bool {
        self.freed
    }

    /// Whether waiting Services have a reason to be looked at again; true once per change.
    pub fn take_freed(&mut self) -> bool {
        std::mem::take(&mut self.freed)
    }

    fn common_pool(&self, addresses: &[IpAddr]) -> Result<String, Refused> {
        let mut common: Option<&str> = None;
        for address in addresses {
            let pool = self.pool_of(*address).ok_or(Refused::OutsideEveryPool(*address))?;
            match common {
                Some(first) if first != pool => {
                    return Err(Refused::DifferentPools(first.to_owned(), pool.to_owned()));
                }
                _ => common = Some(pool),
            }
        }
        // Callers pass at least one address; none of an empty list is in a pool.
        common.map(str::to_owned).ok_or(Refused::OutsideEveryPool(IpAddr::from([0, 0, 0, 0])))
    }

    /// Removes `id` from its addresses. `next` is what it gets now: giving up what it keeps frees nothing.
    fn detach(&mut self, id: &ServiceId, next: &[IpAddr], sharing: &Sharing) -> Option<Assignment> {
        let old = self.services.remove(id)?;
        self.freed |= old.sharing != *sharing || old.addresses.iter().any(|ip| !next.contains(ip));
        if let Some(space) = old.pool.as_ref().and_then(|name| self.pools.get_mut(name)) {
            space.services -= 1;
        }
        for ip in &old.addresses {
            let Some(holding) = self.holdings.get_mut(ip) else { continue };
            holding.owners.remove(id);
            for port in &old.sharing.ports {
                holding.ports.remove(port);
            }
            let empty = holding.owners.is_empty();
            if empty {
                self.holdings.remove(ip);
            }
            let Some(name) = self.pool_of(*ip).map(str::to_owned) else { continue };
            let Some(space) = self.pools.get_mut(&name) else { continue };
            let segment = space.segment_mut(Family::of(*ip));
            if let Some(group) = &old.sharing.group {
                segment.leave(*ip, group, &old.sharing.ports, empty);
            }
            if empty {
                segment.put(*ip);
            }
        }
        Some(old)
    }

    fn attach(&mut self, id: &ServiceId, addresses: Vec<IpAddr>, sharing: Sharing, pool: String) {
        if let Some(space) = self.pools.get_mut(&pool) {
            space.services += 1;
            for ip in &addresses {
                let holding = self.holdings.entry(*ip).or_default();
                let segment = space.segment_mut(Family::of(*ip));
                if holding.owners.is_empty() {
                    segment.take(*ip);
                }
                holding.owners.insert(id.clone());
                holding.group.clone_from(&sharing.group);
                if let Some(group) = &sharing.group {
                    segment.join(*ip, group, &sharing.ports);
                    for port in &sharing.ports {
                        holding.ports.insert(*port, id.clone());
                    }
                }
            }
        }
        self.services.insert(id.clone(), Assignment { addresses, pool: Some(pool), sharing });
    }
}
