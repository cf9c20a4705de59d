//! The pools of a configuration, with an index by address.

use std::collections::{BTreeMap, btree_map};
use std::net::IpAddr;
use std::ops::Deref;

use super::Pool;
use crate::net::AddressRange;

/// Pools by name: a map that is built once and read often. Whose an address is takes O(log n) for all ranges of all pools.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pools {
    by_name: BTreeMap<String, Pool>,
    /// Every range with the name of its pool, ascending. Ranges of a valid configuration never overlap.
    index: Vec<(AddressRange, String)>,
}

impl Pools {
    /// The pool that contains `ip`. Pools never overlap, so there is at most one.
    #[must_use]
    pub fn of_address(&self, ip: IpAddr) -> Option<&Pool> {
        let wanted = AddressRange::single(ip);
        // The last range that does not begin after `ip`. Ranges order by family, then by first address.
        let key = |range: &AddressRange| (range.family(), range.first_number());
        let after = self.index.partition_point(|(range, _)| key(range) <= key(&wanted));
        let (range, name) = self.index.get(after.checked_sub(1)?)?;
        if range.contains(ip) { self.by_name.get(name) } else { None }
    }
}

impl Deref for Pools {
    type Target = BTreeMap<String, Pool>;

    fn deref(&self) -> &Self::Target {
        &self.by_name
    }
}

impl From<BTreeMap<String, Pool>> for Pools {
    fn from(by_name: BTreeMap<String, Pool>) -> Self {
        let ranges =
            |pool: &Pool| pool.ranges.iter().map(|range| (*range, pool.name.clone())).collect::<Vec<_>>();
        let mut index: Vec<_> = by_name.values().flat_map(ranges).collect();
        index.sort();
        Self { by_name, index }
    }
}

impl FromIterator<(String, Pool)> for Pools {
    fn from_iter<I: IntoIterator<Item = (String, Pool)>>(pools: I) -> Self {
        BTreeMap::from_iter(pools).into()
    }
}

impl<const N: usize> From<[(String, Pool); N]> for Pools {
    fn from(pools: [(String, Pool); N]) -> Self {
        pools.into_iter().collect()
    }
}

impl<'a> IntoIterator for &'a Pools {
    type Item = (&'a String, &'a Pool);
    type IntoIter = btree_map::Iter<'a, String, Pool>;

    fn into_iter(self) -> Self::IntoIter {
        self.by_name.iter()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::{ObjectRef, ServiceAllocation};
    use crate::selector::Labels;

    fn pool(name: &str, ranges: &[&str]) -> Pool {
        Pool {
            name: name.to_owned(),
            source: ObjectRef {
                kind: "IPAddressPool".into(),
                namespace: String::new(),
                name: name.to_owned(),
            },
            labels: Labels::new(),
            ranges: ranges.iter().map(|range| range.parse().unwrap()).collect(),
            auto_assign: true,
            avoid_buggy_ips: false,
            allocation: ServiceAllocation::default(),
        }
    }

    fn pools() -> Pools {
        let all = [
            pool("low", &["0.0.0.0/24", "::/64"]),
            pool("mid", &["192.0.2.128/25", "2001:db8::10-2001:db8::20", "192.0.2.0-192.0.2.9"]),
            pool("high", &["255.255.255.0/24", "ff00::/8", "192.0.2.10/32"]),
        ];
        all.into_iter().map(|pool| (pool.name.clone(), pool)).collect()
    }

    #[test]
    fn an_address_is_found_in_its_pool() {
        for (ip, name) in [
            ("0.0.0.0", Some("low")),
            ("0.0.0.255", Some("low")),
            ("0.0.1.0", None),
            ("192.0.2.9", Some("mid")),
            ("192.0.2.10", Some("high")),
            ("192.0.2.11", None),
            ("192.0.2.127", None),
            ("192.0.2.128", Some("mid")),
            ("255.255.255.255", Some("high")),
            ("::", Some("low")),
            ("0:0:0:1::", None),
            ("2001:db8::20", Some("mid")),
            ("2001:db8::21", None),
            ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Some("high")),
        ] {
            assert_eq!(pools().of_address(ip.parse().unwrap()).map(|pool| pool.name.as_str()), name, "{ip}");
        }
        assert_eq!(Pools::default().of_address("192.0.2.1".parse().unwrap()), None);
    }

    proptest! {
        #[test]
        fn the_index_says_what_a_search_says(bits in any::<u128>(), v4 in any::<bool>(), near in 0u32..2) {
            let pools = pools();
            let ip: IpAddr = match (v4, near) {
                (true, 0) => std::net::Ipv4Addr::from_bits(bits as u32).into(),
                (true, _) => std::net::Ipv4Addr::from_bits(0xc000_0200 | (bits as u32 & 0x1ff)).into(),
                (false, 0) => std::net::Ipv6Addr::from_bits(bits).into(),
                (false, _) => std::net::Ipv6Addr::from_bits((0x2001_0db8 << 96) | (bits & 0x3f)).into(),
            };
            let search = pools.values().find(|pool| pool.contains(ip));
            prop_assert_eq!(pools.of_address(ip), search);
        }
    }
}
