//! The addresses of one pool: what is free, what is used, where a group could be joined.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use patina_crds::config::{Pool, ServiceAllocation};
use patina_crds::net::{AddressRange, Family, from_number, to_number};

use super::barred::Barred;
use super::group::GroupIndex;
use super::line::FreeLine;
use super::sharing::{Group, Holding, Sharing};
use crate::view::Port;

/// How full a pool is, per family, in addresses; saturating.
///
/// An address counts in the totals when anybody could get it, or somebody has it: one that `avoidBuggyIPs` leaves out, that
/// the network uses itself or that a reservation keeps counts only while a Service has it. So total minus used is what is
/// left for everybody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Usable IPv4 addresses.
    pub total_v4: u128,
    /// Usable IPv6 addresses.
    pub total_v6: u128,
    /// IPv4 addresses that at least one Service has.
    pub used_v4: u128,
    /// IPv6 addresses that at least one Service has.
    pub used_v6: u128,
    /// Services that have addresses of this pool.
    pub services: usize,
}

/// IPv4 addresses that end in .0 or .255: some old equipment drops them (smurf protection).
pub(crate) fn is_buggy(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(ip) if matches!(ip.octets(), [_, _, _, 0 | 255]))
}

#[derive(Clone, Debug)]
pub(super) struct PoolSpace {
    pub(super) name: String,
    /// Whom it serves.
    pub(super) allocation: ServiceAllocation,
    pub(super) avoid_buggy: bool,
    v4: Segment,
    v6: Segment,
    pub(super) services: usize,
}

impl PoolSpace {
    pub(super) fn new(pool: &Pool, barred: &Barred) -> Self {
        Self {
            name: pool.name.clone(),
            allocation: pool.allocation.clone(),
            avoid_buggy: pool.avoid_buggy_ips,
            v4: Segment::new(pool, Family::V4, barred),
            v6: Segment::new(pool, Family::V6, barred),
            services: 0,
        }
    }

    pub(super) fn segment(&self, family: Family) -> &Segment {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    pub(super) fn segment_mut(&mut self, family: Family) -> &mut Segment {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }

    pub(super) fn usage(&self) -> Usage {
        Usage {
            total_v4: self.v4.total,
            total_v6: self.v6.total,
            used_v4: self.v4.used,
            used_v6: self.v6.used,
            services: self.services,
        }
    }
}

/// The addresses of one family, laid out on a line: range after range as declared, so that "lowest address in declared
/// order" is "lowest position", over however many ranges.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    family: Family,
    avoid_buggy: bool,
    /// In declared order: position of the first address, and the range.
    laid_out: Vec<(u128, AddressRange)>,
    /// Indices into `laid_out`, ascending by address.
    by_address: Vec<usize>,
    /// Not those that are barred.
    free: FreeLine,
    groups: HashMap<Group, GroupIndex>,
    /// Addresses that are not left out by `avoid_buggy`; saturating.
    pub(super) size: u128,
    /// As [`Usage`] counts.
    total: u128,
    used: u128,
}

impl Segment {
    fn new(pool: &Pool, family: Family, barred: &Barred) -> Self {
        let mut laid_out = Vec::new();
        let mut next = Some(0u128);
        let mut end = None;
        let (mut size, mut kept_back) = (0u128, 0u128);
        let mut gaps = Vec::new();
        let avoid_buggy = pool.avoid_buggy_ips && family == Family::V4;
        let count = |first: u128, last: u128| {
            let buggy = if avoid_buggy { buggy_in(first, last) } else { 0 };
            (last - first).saturating_add(1) - buggy
        };
        for range in pool.ranges.iter().filter(|range| range.family() == family) {
            // Ranges are disjoint, so only one that fills the whole family can run out of positions.
            let Some(start) = next else { break };
            laid_out.push((start, *range));
            let (first, last) = (range.first_number(), range.last_number());
            let position = |number: u128| start + (number - first);
            end = Some(position(last));
            next = position(last).checked_add(1);
            size = size.saturating_add(count(first, last));
            for (a, b, _) in barred.within(family, first, last) {
                gaps.push((position(a), position(b)));
                kept_back = kept_back.saturating_add(count(a, b));
            }
        }
        let mut by_address: Vec<usize> = (0..laid_out.len()).collect();
        by_address.sort_by_key(|index| laid_out.get(*index).map(|(_, range)| range.first_number()));
        let mut free = end.map_or_else(FreeLine::default, FreeLine::up_to);
        for (first, last) in gaps {
            free.take_range(first, last);
        }
        let total = size.saturating_sub(kept_back);
        Self { family, avoid_buggy, laid_out, by_address, free, groups: HashMap::new(), size, total, used: 0 }
    }

    /// How many anybody could still get.
    pub(super) fn available(&self) -> u128 {
        self.total.saturating_sub(self.used)
    }

    /// How many are neither used nor to be had.
    pub(super) fn kept_back(&self) -> u128 {
        self.size.saturating_sub(self.total)
    }

    /// The lowest address where `sharing` fits in beside its group, else the lowest free one, as long as `leave` are left.
    pub(super) fn pick(&mut self, sharing: &Sharing, leave: u128) -> Option<IpAddr> {
        let group = sharing.group.as_ref().and_then(|group| self.groups.get(group));
        let position = match group.and_then(|index| index.first_fit(&sharing.ports)) {
            Some(position) => position,
            None if self.available() > leave => self.first_free()?,
            None => return None,
        };
        self.address(position)
    }

    /// An address got its first owner. `barred`: it is not one of those that everybody could get.
    pub(super) fn take(&mut self, ip: IpAddr, barred: bool) {
        if let Some(position) = self.position(ip) {
            self.used += 1;
            if barred {
                self.total = self.total.saturating_add(1);
            } else {
                self.free.take(position);
            }
        }
    }

    /// An address lost its last owner.
    pub(super) fn put(&mut self, ip: IpAddr, barred: bool) {
        if let Some(position) = self.position(ip) {
            self.used -= 1;
            if barred {
                self.total -= 1;
            } else {
                self.free.put(position);
            }
        }
    }

    /// The address belongs to a group, and these ports are used on it. Not for barred addresses: nobody joins them unasked.
    pub(super) fn join(&mut self, ip: IpAddr, group: &Group, ports: &BTreeSet<Port>) {
        let Some(position) = self.position(ip) else { return };
        let index = self.groups.entry(group.clone()).or_default();
        index.add(position);
        for port in ports {
            index.occupy(position, *port);
        }
    }

    /// These ports are free again on the address; `empty`: and it has no owner any more.
    pub(super) fn leave(&mut self, ip: IpAddr, group: &Group, ports: &BTreeSet<Port>, empty: bool) {
        let Some(position) = self.position(ip) else { return };
        let Some(index) = self.groups.get_mut(group) else { return };
        for port in ports {
            index.vacate(position, *port);
        }
        if empty && index.remove(position) {
            self.groups.remove(group);
        }
    }

    /// Everything about an address at once; when the configuration changed.
    pub(super) fn restore(&mut self, ip: IpAddr, holding: &Holding, barred: bool) {
        self.take(ip, barred);
        if let Some(group) = holding.group.as_ref().filter(|_| !barred) {
            self.join(ip, group, &holding.ports.keys().copied().collect());
        }
    }

    fn first_free(&mut self) -> Option<u128> {
        loop {
            let position = self.free.first()?;
            let ip = self.address(position)?;
            if !(self.avoid_buggy && is_buggy(ip)) {
                return Some(position);
            }
            // Never to be given from this pool: set aside once, so that no later search meets it again.
            self.free.take(position);
        }
    }

    fn address(&self, position: u128) -> Option<IpAddr> {
        let after = self.laid_out.partition_point(|(start, _)| *start <= position);
        let (start, range) = self.laid_out.get(after.checked_sub(1)?)?;
        from_number(self.family, range.first_number() + (position - start))
    }

    /// `None` when the address may not be given from this pool.
    fn position(&self, ip: IpAddr) -> Option<u128> {
        if self.avoid_buggy && is_buggy(ip) {
            return None;
        }
        let number = to_number(ip);
        let first_of = |index: &usize| self.laid_out.get(*index).map(|(_, range)| range.first_number());
        let after = self.by_address.partition_point(|index| first_of(index).is_some_and(|n| n <= number));
        let index = self.by_address.get(after.checked_sub(1)?)?;
        let (start, range) = self.laid_out.get(*index)?;
        range.contains(ip).then(|| start + (number - range.first_number()))
    }
}

/// How many IPv4 addresses of these numbers end in .0 or .255.
fn buggy_in(first: u128, last: u128) -> u128 {
    let below = |n: u128| n.div_ceil(256) + n / 256; // in 0..n: multiples of 256, and those before one
    below(last + 1) - below(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_end_in_0_or_255_are_counted() {
        for (text, expected) in [
            ("10.0.0.0/24", 2),
            ("10.0.0.0/30", 1),
            ("10.0.0.1-10.0.0.254", 0),
            ("10.0.0.255-10.0.1.0", 2),
            ("10.0.0.0/8", 131_072),
            ("0.0.0.0/0", 1 << 25),
        ] {
            let range: AddressRange = text.parse().unwrap();
            assert_eq!(buggy_in(range.first_number(), range.last_number()), expected, "{text}");
        }
    }
}
