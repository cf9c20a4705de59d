//! Addresses of pools that are not given to everybody: the network's own, and those that a reservation keeps.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use patina_crds::config::{Config, ObjectRef, Reservation};
use patina_crds::net::{AddressRange, Family, to_number};

use crate::surroundings::{Surroundings, UsedBy};
use crate::view::ServiceId;

/// Why an address is not given to everybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bar {
    /// The network uses it itself: nobody gets it.
    Network(UsedBy),
    /// A reservation keeps it, for one Service or from everybody.
    Reserved(Arc<Keeper>),
}

/// The reservation that keeps an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keeper {
    /// The object.
    pub reservation: ObjectRef,
    /// Who alone may have the address; `None`: nobody.
    pub service: Option<ServiceId>,
    /// Why, in its author's words; may be empty.
    pub reason: String,
}

impl Keeper {
    pub(super) fn of(reservation: &Reservation) -> Self {
        Self {
            reservation: reservation.source.clone(),
            service: reservation.service.clone(),
            reason: reservation.reason.clone(),
        }
    }
}

impl Bar {
    /// For whom alone the address is.
    pub(super) fn kept_for(&self) -> Option<&ServiceId> {
        match self {
            Self::Network(_) => None,
            Self::Reserved(keeper) => keeper.service.as_ref(),
        }
    }
}

/// The ranges of all pools: first address -> last, and whose it is. Disjoint.
pub(super) type PoolRanges<P> = BTreeMap<(Family, u128), (u128, P)>;

/// Disjoint ranges, each inside one range of a pool. Where several things apply to an address, the network's use comes first
/// (no reservation changes that), and of those the one that says most.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Barred {
    ranges: BTreeMap<(Family, u128), (u128, Bar)>,
}

impl Barred {
    pub(super) fn new<P>(config: &Config, surroundings: &Surroundings, pools: &PoolRanges<P>) -> Self {
        let mut barred = Self::default();
        let mut uses: Vec<_> = surroundings.uses.iter().collect();
        uses.sort_by_key(|in_use| (&in_use.by, in_use.range));
        for in_use in uses {
            let family = in_use.range.family();
            for (part, _) in parts(pools, &in_use.range) {
                let alone = pools.get(&(family, part.0)).is_some_and(|(last, _)| *last == part.0);
                if in_use.by.bars(alone) {
                    barred.insert(family, part, &Bar::Network(in_use.by.clone()));
                }
            }
        }
        for reservation in &config.reservations {
            let bar = Bar::Reserved(Arc::new(Keeper::of(reservation)));
            for range in &reservation.ranges {
                for (part, _) in parts(pools, range) {
                    barred.insert(range.family(), part, &bar);
                }
            }
        }
        barred
    }

    /// What applies to an address, if anything.
    pub(super) fn at(&self, ip: IpAddr) -> Option<&Bar> {
        let key = (Family::of(ip), to_number(ip));
        let ((family, _), (last, bar)) = self.ranges.range(..=key).next_back()?;
        (*family == key.0 && key.1 <= *last).then_some(bar)
    }

    /// The pieces between two addresses of one range of a pool, ascending.
    pub(super) fn within(
        &self,
        family: Family,
        first: u128,
        last: u128,
    ) -> impl Iterator<Item = (u128, u128, &Bar)> {
        // None reaches over the end of a range of a pool, so each that is inside starts inside; but a caller may ask about a
        // part of a range, which a piece from before can reach into.
        let before = self.ranges.range((family, 0)..(family, first)).next_back();
        let before = before.filter(move |(_, (end, _))| *end >= first);
        before
            .into_iter()
            .chain(self.ranges.range((family, first)..=(family, last)))
            .map(move |((_, start), (end, bar))| ((*start).max(first), (*end).min(last), bar))
    }

    /// Only where nothing is yet.
    fn insert(&mut self, family: Family, (first, last): (u128, u128), bar: &Bar) {
        let taken: Vec<(u128, u128)> = self.within(family, first, last).map(|(a, b, _)| (a, b)).collect();
        let mut from = Some(first);
        for (start, end) in taken {
            let Some(at) = from else { return };
            if at < start {
                self.ranges.insert((family, at), (start - 1, bar.clone()));
            }
            from = end.checked_add(1);
        }
        if let Some(at) = from.filter(|at| *at <= last) {
            self.ranges.insert((family, at), (last, bar.clone()));
        }
    }
}

/// The parts of `range` that are in pools, ascending, and whose they are.
pub(super) fn parts<'a, P>(
    pools: &'a PoolRanges<P>,
    range: &AddressRange,
) -> impl Iterator<Item = ((u128, u128), &'a P)> {
    let (family, first, last) = (range.family(), range.first_number(), range.last_number());
    let before = pools.range((family, 0)..(family, first)).next_back();
    before
        .into_iter()
        .chain(pools.range((family, first)..=(family, last)))
        .map(move |((_, start), (end, pool))| (((*start).max(first), (*end).min(last)), pool))
        .filter(|((start, end), _)| start <= end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::surroundings::InUse;

    fn text(bar: &Bar) -> String {
        match bar {
            Bar::Network(by) => by.to_string(),
            Bar::Reserved(keeper) => keeper.reason.clone(),
        }
    }

    #[test]
    fn overlapping_uses_and_reservations_become_disjoint_pieces_of_pools() {
        let pools: PoolRanges<()> = ["10.0.0.0/28", "10.0.0.20-10.0.0.29", "::/0"]
            .into_iter()
            .map(|text| text.parse::<AddressRange>().unwrap())
            .map(|range| ((range.family(), range.first_number()), (range.last_number(), ())))
            .collect();
        let in_use = |range: &str, by| InUse { range: range.parse().unwrap(), by };
        let surroundings = Surroundings {
            uses: vec![
                in_use("10.0.0.4-10.0.0.9", UsedBy::ClusterIps),
                in_use("10.0.0.6/32", UsedBy::Node("n".into())),
                in_use("10.0.0.25-10.0.1.0", UsedBy::Pods("n".into())),
                in_use("192.0.2.0/24", UsedBy::ClusterIps),
                in_use("ff00::/8", UsedBy::ClusterIps),
            ],
        };
        let reservation = Reservation {
            source: ObjectRef { kind: "AddressReservation".into(), namespace: "x".into(), name: "r".into() },
            ranges: vec!["10.0.0.0-10.0.0.22".parse().unwrap(), "::/0".parse().unwrap()],
            service: None,
            reason: "kept".into(),
        };
        let config = Config { reservations: vec![reservation], ..Config::default() };
        let barred = Barred::new(&config, &surroundings, &pools);
        let pieces: Vec<String> = barred
            .ranges
            .iter()
            .map(|((family, first), (last, bar))| {
                let ip = |n: &u128| patina_crds::net::from_number(*family, *n).unwrap();
                format!("{}-{} {}", ip(first), ip(last), text(bar))
            })
            .collect();
        assert_eq!(
            pieces,
            [
                "10.0.0.0-10.0.0.3 kept",
                "10.0.0.4-10.0.0.5 in the range of the cluster IPs",
                "10.0.0.6-10.0.0.6 an address of node n",
                "10.0.0.7-10.0.0.9 in the range of the cluster IPs",
                "10.0.0.10-10.0.0.15 kept",
                "10.0.0.20-10.0.0.22 kept",
                "10.0.0.25-10.0.0.29 in the Pod network of node n",
                "::-feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff kept",
                "ff00::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff in the range of the cluster IPs",
            ]
        );
        assert!(barred.at("10.0.0.16".parse().unwrap()).is_none());
        assert!(barred.at("10.0.0.23".parse().unwrap()).is_none());
        assert_eq!(
            barred.at("10.0.0.9".parse().unwrap()).map(text).unwrap(),
            "in the range of the cluster IPs"
        );
    }
}
