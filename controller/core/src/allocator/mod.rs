//! Who holds which address of which pool.
//!
//! [`Allocator`] is the memory of the controller: an address is in it from the moment it is chosen, whether the Service's
//! status was written yet or not, until the Service gives it up. Each operation costs O(log n) in the number of Services
//! and of addresses in use; the size of a pool does not matter.

mod barred;
mod group;
mod kept;
mod line;
mod sharing;
mod space;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use patina_crds::config::{Config, ServiceAllocation};
use patina_crds::net::{Family, to_number};

pub use self::barred::{Bar, Keeper};
use self::barred::{Barred, PoolRanges};
use self::kept::KeptLines;
use self::sharing::Holding;
pub use self::sharing::{Clash, Group, Sharing};
use self::space::PoolSpace;
pub use self::space::Usage;
pub(crate) use self::space::is_buggy;
use crate::surroundings::Surroundings;
use crate::view::ServiceId;

/// A pool, as long as the configuration is the same: pools are numbered by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PoolId(u32);

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

/// Something that a waiting Service could have waited for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Freed {
    /// The pool has one more address of the family for everybody.
    Open(PoolId, Family),
    /// Somewhere there is more room for this group.
    Group(Group),
    /// Somebody left this address, or uses less of it.
    Address(IpAddr),
    /// One of the addresses that are kept for this Service is easier to get.
    Kept(ServiceId),
}

/// Why a Service cannot have what is kept for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KeptTrouble {
    /// Somebody has it.
    Held(ServiceId),
    /// The network uses it.
    Network(crate::surroundings::UsedBy),
    /// The pool leaves it out.
    Buggy,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Allocator {
    /// By name.
    pools: Vec<PoolSpace>,
    by_name: HashMap<String, PoolId>,
    /// First address of a range -> last address, pool. Ranges are disjoint over all pools.
    ranges: PoolRanges<PoolId>,
    barred: Barred,
    kept: KeptLines,
    /// Automatic allocation tries pinned pools first: those that name somebody or have a priority, by priority, then name.
    pinned: Vec<PoolId>,
    /// Then the open ones, by name.
    open: Vec<PoolId>,
    /// Those with autoAssign: false, by name.
    manual: Vec<PoolId>,
    holdings: BTreeMap<IpAddr, Holding>,
    services: HashMap<ServiceId, Assignment>,
    /// Since the last [`Allocator::take_freed`].
    freed: BTreeSet<Freed>,
}

impl Allocator {
    /// Takes over the pools and reservations of a configuration, and what the network uses itself. Nobody loses an address
    /// here: whoever holds one that is in no pool any more keeps it until it is decided about.
    pub fn configure(&mut self, config: &Config, surroundings: &Surroundings) {
        self.ranges = pool_ranges(config);
        self.barred = Barred::new(config, surroundings, &self.ranges);
        self.kept = KeptLines::new(config, &self.barred, &self.ranges);
        self.pools = config.pools.values().map(|pool| PoolSpace::new(pool, &self.barred)).collect();
        self.by_name = config.pools.keys().zip(0..).map(|(name, n)| (name.clone(), PoolId(n))).collect();
        // What was freed is told in numbers of the pools of before; and everybody is looked at again.
        self.freed.clear();
        self.order_pools(config);

        let placed: Vec<(IpAddr, PoolId)> =
            self.holdings.keys().filter_map(|ip| Some((*ip, self.place(*ip)?))).collect();
        for (ip, pool) in placed {
            let bar = self.barred.at(ip);
            if let Some(line) =
                bar.and_then(Bar::kept_for).and_then(|id| self.kept.line_mut(id, pool, Family::of(ip)))
            {
                line.take(ip);
            }
            if let (Some(space), Some(holding)) = (get_mut(&mut self.pools, pool), self.holdings.get(&ip)) {
                space.segment_mut(Family::of(ip)).restore(ip, holding, bar.is_some());
            }
        }
        let pools: Vec<(ServiceId, Option<PoolId>)> = self
            .services
            .iter()
            .map(|(id, assignment)| (id.clone(), self.common_pool(&assignment.addresses).ok()))
            .collect();
        for (id, pool) in pools {
            let space = pool.and_then(|pool| get_mut(&mut self.pools, pool));
            let name = space.map(|space| {
                space.services += 1;
                space.name.clone()
            });
            if let Some(assignment) = self.services.get_mut(&id) {
                assignment.pool = name;
            }
        }
    }

    /// As [`Allocator::configure`] with the configuration in force, if other addresses of pools are the network's now. False,
    /// and nothing happens, if not.
    pub fn surround(&mut self, config: &Config, surroundings: &Surroundings) -> bool {
        let changed = Barred::new(config, surroundings, &self.ranges) != self.barred;
        if changed {
            self.configure(config, surroundings);
        }
        changed
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

    /// How full each pool is, by name.
    pub fn usage(&self) -> impl Iterator<Item = (&str, Usage)> {
        self.pools.iter().map(|space| (space.name.as_str(), space.usage()))
    }

    /// The pool whose address `ip` is, unless the pool leaves it out (avoidBuggyIPs).
    #[must_use]
    pub fn pool_of(&self, ip: IpAddr) -> Option<&str> {
        self.place(ip).map(|pool| self.name(pool))
    }

    /// The pool whose range `ip` is in, whether the pool leaves it out or not.
    #[must_use]
    pub fn pool_around(&self, ip: IpAddr) -> Option<&str> {
        self.around(ip).map(|pool| self.name(pool))
    }

    /// Why `id` may not have `ip`, whoever has it now. `None`: it may, as far as network and reservations are concerned.
    #[must_use]
    pub fn bar(&self, ip: IpAddr, id: &ServiceId) -> Option<&Bar> {
        self.barred.at(ip).filter(|bar| bar.kept_for() != Some(id))
    }

    /// What of `addresses` a Service can keep together: those in the pool of the first that is in any.
    #[must_use]
    pub fn keepable(&self, addresses: &[IpAddr]) -> Vec<IpAddr> {
        let pool = addresses.iter().find_map(|ip| self.place(*ip));
        addresses.iter().copied().filter(|ip| pool.is_some() && self.place(*ip) == pool).collect()
    }

    /// Gives exactly these addresses to `id`, in exchange for what it has. Whether they are barred is the caller's question:
    /// who has such an address already keeps it.
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
        let name = self.name(pool).to_owned();
        if let Some(now) = self.services.get(id)
            && now.addresses == addresses
            && now.sharing == *sharing
        {
            return Ok(name);
        }
        self.detach(id, addresses, sharing);
        self.attach(id, addresses.to_vec(), sharing.clone(), pool);
        Ok(name)
    }

    /// Gives one address of each family out of `pool`, all or none, in addition to `kept`, in exchange for what `id` has:
    /// where the pool has addresses that are kept for `id`, the lowest of them, else the lowest that `id` can share with its
    /// group, else the lowest free one, as long as `leave` are left. `None` when the pool cannot.
    pub(crate) fn allocate_in(
        &mut self,
        id: &ServiceId,
        pool: PoolId,
        kept: &[IpAddr],
        families: &[Family],
        sharing: &Sharing,
        leave: u128,
    ) -> Option<Vec<IpAddr>> {
        let mut addresses = kept.to_vec();
        for family in families {
            let picked = if self.kept.line(id, pool, *family).is_some() {
                self.pick_kept(id, pool, *family, sharing)
            } else {
                get_mut(&mut self.pools, pool)?.segment_mut(*family).pick(sharing, leave)
            };
            addresses.push(picked?);
        }
        self.assign(id, &addresses, sharing).ok()?;
        Some(addresses)
    }

    /// [`Allocator`] for whoever knows pools by name: an address of each family out of `pool`, to the last.
    pub fn allocate(
        &mut self,
        id: &ServiceId,
        pool: &str,
        kept: &[IpAddr],
        families: &[Family],
        sharing: &Sharing,
    ) -> Option<Vec<IpAddr>> {
        self.allocate_in(id, self.id_of(pool)?, kept, families, sharing, 0)
    }

    /// Takes everything from `id`; what it had.
    pub fn release(&mut self, id: &ServiceId) -> Option<Assignment> {
        self.detach(id, &[], &Sharing::default())
    }

    fn order_pools(&mut self, config: &Config) {
        let (mut pinned, mut open, mut manual) = (Vec::new(), Vec::new(), Vec::new());
        for (pool, n) in config.pools.values().zip(0..) {
            let rank = pool.allocation.priority.unwrap_or(u32::MAX);
            match (pool.auto_assign, pool.allocation.is_pinned() || pool.allocation.priority.is_some()) {
                (false, _) => manual.push(PoolId(n)),
                // Equal priorities stay in the order of their names.
                (true, true) => pinned.push((rank, PoolId(n))),
                (true, false) => open.push(PoolId(n)),
            }
        }
        pinned.sort_unstable();
        self.pinned = pinned.into_iter().map(|(_, pool)| pool).collect();
        (self.open, self.manual) = (open, manual);
    }

    fn pick_kept(
        &mut self,
        id: &ServiceId,
        pool: PoolId,
        family: Family,
        sharing: &Sharing,
    ) -> Option<IpAddr> {
        let avoid_buggy = get(&self.pools, pool)?.avoid_buggy;
        let line = self.kept.line_mut(id, pool, family)?;
        let free = line.first_free(family, avoid_buggy);
        // Whoever had one before the reservation still has it; it may be one to share with.
        let shared = sharing.group.as_ref().and_then(|_| {
            let held = line
                .ranges
                .iter()
                .flat_map(|range| self.holdings.range(range.first()..=range.last()).map(|(ip, h)| (*ip, h)));
            let allowed = |ip: &IpAddr| self.barred.at(*ip).and_then(Bar::kept_for) == Some(id);
            held.filter(|(ip, _)| allowed(ip)).find(|(_, h)| h.clash(id, sharing).is_none()).map(|(ip, _)| ip)
        });
        match (free, shared) {
            (Some(free), Some(shared)) => Some(free.min(shared)),
            (free, shared) => free.or(shared),
        }
    }

    fn common_pool(&self, addresses: &[IpAddr]) -> Result<PoolId, Refused> {
        let mut common: Option<PoolId> = None;
        for address in addresses {
            let pool = self.place(*address).ok_or(Refused::OutsideEveryPool(*address))?;
            match common {
                Some(first) if first != pool => {
                    let names = (self.name(first).to_owned(), self.name(pool).to_owned());
                    return Err(Refused::DifferentPools(names.0, names.1));
                }
                _ => common = Some(pool),
            }
        }
        // Callers pass at least one address; none of an empty list is in a pool.
        common.ok_or(Refused::OutsideEveryPool(IpAddr::from([0, 0, 0, 0])))
    }

    /// The pool that `ip` could be given from.
    fn place(&self, ip: IpAddr) -> Option<PoolId> {
        let pool = self.around(ip)?;
        let left_out = is_buggy(ip) && get(&self.pools, pool).is_some_and(|space| space.avoid_buggy);
        (!left_out).then_some(pool)
    }

    fn around(&self, ip: IpAddr) -> Option<PoolId> {
        let key = (Family::of(ip), to_number(ip));
        let ((family, _), (last, pool)) = self.ranges.range(..=key).next_back()?;
        (*family == key.0 && key.1 <= *last).then_some(*pool)
    }

    /// Removes `id` from its addresses. `next` is what it gets now: giving up what it keeps frees nothing.
    fn detach(&mut self, id: &ServiceId, next: &[IpAddr], sharing: &Sharing) -> Option<Assignment> {
        let old = self.services.remove(id)?;
        let pool = old.pool.as_ref().and_then(|name| self.id_of(name));
        if let Some(space) = pool.and_then(|pool| get_mut(&mut self.pools, pool)) {
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
            let keeps = next.contains(ip);
            if keeps && old.sharing == *sharing {
                // It comes back with the next breath.
            } else {
                self.freed.insert(Freed::Address(*ip));
                self.freed.extend(old.sharing.group.clone().map(Freed::Group));
            }
            let Some(pool) = self.place(*ip) else { continue };
            let family = Family::of(*ip);
            let bar = self.barred.at(*ip);
            let kept_for = bar.and_then(Bar::kept_for);
            self.freed.extend(kept_for.cloned().map(Freed::Kept));
            if empty && let Some(line) = kept_for.and_then(|id| self.kept.line_mut(id, pool, family)) {
                line.put(*ip);
            }
            let Some(segment) = get_mut(&mut self.pools, pool).map(|space| space.segment_mut(family)) else {
                continue;
            };
            if let Some(group) = old.sharing.group.as_ref().filter(|_| bar.is_none()) {
                segment.leave(*ip, group, &old.sharing.ports, empty);
            }
            if empty {
                segment.put(*ip, bar.is_some());
                if bar.is_none() && !keeps {
                    self.freed.insert(Freed::Open(pool, family));
                }
            }
        }
        Some(old)
    }

    fn attach(&mut self, id: &ServiceId, addresses: Vec<IpAddr>, sharing: Sharing, pool: PoolId) {
        let Some(space) = get_mut(&mut self.pools, pool) else { return };
        space.services += 1;
        for ip in &addresses {
            let bar = self.barred.at(*ip);
            let holding = self.holdings.entry(*ip).or_default();
            let segment = space.segment_mut(Family::of(*ip));
            if holding.owners.is_empty() {
                segment.take(*ip, bar.is_some());
                // An address of the group where there was none.
                self.freed.extend(sharing.group.clone().map(Freed::Group));
            }
            if let Some(line) =
                bar.and_then(Bar::kept_for).and_then(|id| self.kept.line_mut(id, pool, Family::of(*ip)))
            {
                line.take(*ip);
            }
            holding.owners.insert(id.clone());
            holding.group.clone_from(&sharing.group);
            if let Some(group) = &sharing.group {
                if bar.is_none() {
                    segment.join(*ip, group, &sharing.ports);
                }
                for port in &sharing.ports {
                    holding.ports.insert(*port, id.clone());
                }
            }
        }
        let pool = Some(space.name.clone());
        self.services.insert(id.clone(), Assignment { addresses, pool, sharing });
    }
}

/// What the decisions ask about pools.
impl Allocator {
    /// Pools that automatic allocation tries first, those that it tries then, and those that it never tries.
    pub(crate) fn pool_order(&self) -> (&[PoolId], &[PoolId], &[PoolId]) {
        (&self.pinned, &self.open, &self.manual)
    }

    pub(crate) fn id_of(&self, pool: &str) -> Option<PoolId> {
        self.by_name.get(pool).copied()
    }

    pub(crate) fn name(&self, pool: PoolId) -> &str {
        get(&self.pools, pool).map_or("", |space| &space.name)
    }

    pub(crate) fn allocation(&self, pool: PoolId) -> Option<&ServiceAllocation> {
        get(&self.pools, pool).map(|space| &space.allocation)
    }

    /// Whether the pool has any address of this family, free or not.
    pub(crate) fn has_family(&self, pool: PoolId, family: Family) -> bool {
        get(&self.pools, pool).is_some_and(|space| space.segment(family).size > 0)
    }

    /// How many addresses of this family nobody has and not everybody could get.
    pub(crate) fn kept_back(&self, pool: PoolId, family: Family) -> u128 {
        get(&self.pools, pool).map_or(0, |space| space.segment(family).kept_back())
    }

    /// How many addresses of this family everybody could get.
    pub(crate) fn available(&self, pool: PoolId, family: Family) -> u128 {
        get(&self.pools, pool).map_or(0, |space| space.segment(family).available())
    }

    /// Pools and families of which addresses are kept for `id`, the lowest of them, and by which reservation.
    pub(crate) fn kept_for(
        &self,
        id: &ServiceId,
    ) -> impl Iterator<Item = (PoolId, Family, IpAddr, &Arc<Keeper>)> {
        self.kept.lines(id).filter_map(|((pool, family), line)| {
            Some((*pool, *family, line.ranges.first()?.first(), &line.keeper))
        })
    }

    /// Whether `ip` is one of those that are kept for `id`, even if it cannot get it.
    pub(crate) fn is_kept_for(&self, id: &ServiceId, ip: IpAddr) -> bool {
        let line = self.around(ip).and_then(|pool| self.kept.line(id, pool, Family::of(ip)));
        line.is_some_and(|line| line.contains(ip))
    }

    /// After [`Allocator::allocate_in`] refused: which address that is kept for `id` it could not have, and why.
    pub(crate) fn kept_trouble(
        &self,
        id: &ServiceId,
        pool: PoolId,
        family: Family,
    ) -> Option<(IpAddr, KeptTrouble)> {
        let line = self.kept.line(id, pool, family)?;
        let mut held = line.ranges.iter().flat_map(|range| self.holdings.range(range.first()..=range.last()));
        let others = held.find_map(|(ip, h)| Some((*ip, h.owners.iter().find(|owner| *owner != id)?)));
        if let Some((ip, owner)) = others {
            return Some((ip, KeptTrouble::Held(owner.clone())));
        }
        let first = line.ranges.first()?.first();
        let used = line.ranges.iter().find_map(|range| match self.barred.at(range.first())? {
            Bar::Network(by) => Some((range.first(), KeptTrouble::Network(by.clone()))),
            Bar::Reserved(_) => None,
        });
        Some(used.unwrap_or((first, KeptTrouble::Buggy)))
    }

    /// Whether something changed since the last [`Allocator::take_freed`] that somebody could have waited for.
    pub(crate) fn has_freed(&self) -> bool {
        !self.freed.is_empty()
    }

    /// What, once.
    pub(crate) fn take_freed(&mut self) -> BTreeSet<Freed> {
        std::mem::take(&mut self.freed)
    }

    /// As if `pool` had one more of each family: whoever was kept from its last address may look again.
    pub(crate) fn reopen(&mut self, pool: PoolId) {
        self.freed.extend([Freed::Open(pool, Family::V4), Freed::Open(pool, Family::V6)]);
    }
}

fn pool_ranges(config: &Config) -> PoolRanges<PoolId> {
    let of_pool = |(pool, n): (&patina_crds::config::Pool, u32)| -> Vec<_> {
        pool.ranges
            .iter()
            .map(|range| ((range.family(), range.first_number()), (range.last_number(), PoolId(n))))
            .collect()
    };
    config.pools.values().zip(0..).flat_map(of_pool).collect()
}

fn get(pools: &[PoolSpace], pool: PoolId) -> Option<&PoolSpace> {
    pools.get(pool.0 as usize)
}

fn get_mut(pools: &mut [PoolSpace], pool: PoolId) -> Option<&mut PoolSpace> {
    pools.get_mut(pool.0 as usize)
}
