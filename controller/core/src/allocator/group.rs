//! Where the Services of one sharing group are, and where one more would fit in.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::line::FreeLine;
use crate::view::Port;

/// The addresses (as positions) of one group in one pool and family, so that "the lowest address where these ports fit" needs
/// no walk over the group.
///
/// For each port there is a line of the positions where it is free. A position that is no address of the group belongs, on
/// each line, to the address before it: a run of addresses on which a port is taken is one gap, and one step over it.
#[derive(Clone, Debug, Default)]
pub(super) struct GroupIndex {
    /// Address -> ports used on it.
    members: BTreeMap<u128, BTreeSet<Port>>,
    /// Only ports that are used somewhere.
    lines: HashMap<Port, FreeLine>,
}

impl GroupIndex {
    /// The position is an address of the group.
    pub(super) fn add(&mut self, position: u128) {
        if self.members.contains_key(&position) {
            return;
        }
        let last = self.reach(position);
        if let Some((_, ports)) = self.members.range(..position).next_back() {
            for port in ports {
                if let Some(line) = self.lines.get_mut(port) {
                    line.put_range(position, last);
                }
            }
        }
        self.members.insert(position, BTreeSet::new());
    }

    /// After its last port was vacated. True when the group has no address any more.
    pub(super) fn remove(&mut self, position: u128) -> bool {
        let last = self.reach(position);
        if self.members.remove(&position).is_some()
            && let Some((_, ports)) = self.members.range(..position).next_back()
        {
            for port in ports {
                if let Some(line) = self.lines.get_mut(port) {
                    line.take_range(position, last);
                }
            }
        }
        self.members.is_empty()
    }

    /// A port is used on an address of the group.
    pub(super) fn occupy(&mut self, position: u128, port: Port) {
        let last = self.reach(position);
        if self.members.get_mut(&position).is_some_and(|ports| ports.insert(port)) {
            let line = self.lines.entry(port).or_insert_with(|| FreeLine::up_to(u128::MAX));
            line.take_range(position, last);
        }
    }

    /// A port is not used any more.
    pub(super) fn vacate(&mut self, position: u128, port: Port) {
        let last = self.reach(position);
        if self.members.get_mut(&position).is_some_and(|ports| ports.remove(&port))
            && let Some(line) = self.lines.get_mut(&port)
        {
            line.put_range(position, last);
            if *line == FreeLine::up_to(u128::MAX) {
                self.lines.remove(&port);
            }
        }
    }

    /// The lowest address where all `ports` are free.
    pub(super) fn first_fit(&self, ports: &BTreeSet<Port>) -> Option<u128> {
        let mut from = 0;
        loop {
            let member = *self.members.range(from..).next()?.0;
            let mut next = member;
            for line in ports.iter().filter_map(|port| self.lines.get(port)) {
                next = next.max(line.first_from(member)?);
            }
            if next == member {
                return Some(member);
            }
            from = next;
        }
    }

    /// The last position that belongs to the address at `position`: the one before the next address.
    fn reach(&self, position: u128) -> u128 {
        let next = position.checked_add(1).and_then(|from| self.members.range(from..).next());
        next.map_or(u128::MAX, |(next, _)| next - 1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::view::Protocol;

    fn port(number: u16) -> Port {
        Port { protocol: Protocol::Tcp, number }
    }

    proptest! {
        #[test]
        fn finds_what_a_walk_finds(operations in proptest::collection::vec((0u128..12, 0u16..5, any::<bool>()), 0..120)) {
            let mut index = GroupIndex::default();
            let mut model: BTreeMap<u128, BTreeSet<Port>> = BTreeMap::new();
            for (position, number, occupy) in operations {
                if occupy {
                    index.add(position);
                    index.occupy(position, port(number));
                    model.entry(position).or_default().insert(port(number));
                } else if let Some(ports) = model.get_mut(&position) {
                    index.vacate(position, port(number));
                    ports.remove(&port(number));
                    if ports.is_empty() {
                        model.remove(&position);
                        prop_assert_eq!(index.remove(position), model.is_empty());
                    }
                }
                for bits in 0..32u16 {
                    let wanted: BTreeSet<Port> = (0..5).filter(|n| bits & (1 << n) != 0).map(port).collect();
                    let walked = model.iter().find(|(_, used)| used.is_disjoint(&wanted)).map(|(at, _)| *at);
                    prop_assert_eq!(index.first_fit(&wanted), walked, "{:?} in {:?}", wanted, model);
                }
                let used: BTreeSet<Port> = model.values().flatten().copied().collect();
                prop_assert_eq!(index.lines.len(), used.len(), "a line for each port in use, and none else");
            }
        }
    }
}
