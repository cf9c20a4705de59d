//! What reservations keep for one Service: a line of its own in each pool and family.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use patina_crds::config::Config;
use patina_crds::net::{AddressRange, Family, from_number, to_number};

use super::PoolId;
use super::barred::{Barred, Keeper, PoolRanges, parts};
use super::line::FreeLine;
use super::space::is_buggy;
use crate::view::ServiceId;

/// Everything that is kept for somebody.
#[derive(Clone, Debug, Default)]
pub(super) struct KeptLines {
    of: HashMap<ServiceId, BTreeMap<(PoolId, Family), KeptLine>>,
}

/// The addresses of one pool and family that are kept for one Service.
#[derive(Clone, Debug)]
pub(super) struct KeptLine {
    /// The first reservation that says so.
    pub(super) keeper: Arc<Keeper>,
    /// Parts of ranges of the pool, as reserved; some may be the network's own.
    pub(super) ranges: Vec<AddressRange>,
    /// By number: those that it could get and nobody has.
    free: FreeLine,
}

impl KeptLines {
    pub(super) fn new(config: &Config, barred: &Barred, pools: &PoolRanges<PoolId>) -> Self {
        let mut kept = Self::default();
        for reservation in &config.reservations {
            let Some(service) = &reservation.service else { continue };
            for range in &reservation.ranges {
                let family = range.family();
                for ((first, last), pool) in parts(pools, range) {
                    let (Some(a), Some(b)) = (from_number(family, first), from_number(family, last)) else {
                        continue;
                    };
                    let Ok(part) = AddressRange::new(a, b) else { continue };
                    let line =
                        kept.of.entry(service.clone()).or_default().entry((*pool, family)).or_insert_with(
                            || KeptLine {
                                keeper: Arc::new(Keeper::of(reservation)),
                                ranges: Vec::new(),
                                free: FreeLine::default(),
                            },
                        );
                    line.ranges.push(part);
                    for (start, end, bar) in barred.within(family, first, last) {
                        if bar.kept_for() == Some(service) {
                            line.free.put_range(start, end);
                        }
                    }
                }
            }
        }
        for line in kept.of.values_mut().flat_map(BTreeMap::values_mut) {
            line.ranges.sort_unstable();
        }
        kept
    }

    pub(super) fn line(&self, id: &ServiceId, pool: PoolId, family: Family) -> Option<&KeptLine> {
        self.of.get(id)?.get(&(pool, family))
    }

    pub(super) fn line_mut(&mut self, id: &ServiceId, pool: PoolId, family: Family) -> Option<&mut KeptLine> {
        self.of.get_mut(id)?.get_mut(&(pool, family))
    }

    /// The lines of a Service, by pool.
    pub(super) fn lines(&self, id: &ServiceId) -> impl Iterator<Item = (&(PoolId, Family), &KeptLine)> {
        self.of.get(id).into_iter().flatten()
    }
}

impl KeptLine {
    /// The lowest that nobody has.
    pub(super) fn first_free(&mut self, family: Family, avoid_buggy: bool) -> Option<IpAddr> {
        loop {
            let number = self.free.first()?;
            let ip = from_number(family, number)?;
            if !(avoid_buggy && is_buggy(ip)) {
                return Some(ip);
            }
            // Never to be given from this pool: set aside once, so that no later search meets it again.
            self.free.take(number);
        }
    }

    pub(super) fn contains(&self, ip: IpAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(ip))
    }

    pub(super) fn take(&mut self, ip: IpAddr) {
        self.free.take(to_number(ip));
    }

    pub(super) fn put(&mut self, ip: IpAddr) {
        self.free.put(to_number(ip));
    }
}
