//! Free positions on a line, as disjoint intervals.

use std::collections::BTreeMap;

/// A set of positions, kept as maximal inclusive intervals. Each operation costs O(log n) in their number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FreeLine {
    /// First position of an interval -> its last.
    intervals: BTreeMap<u128, u128>,
}

impl FreeLine {
    /// All of `0..=last`.
    pub(super) fn up_to(last: u128) -> Self {
        Self { intervals: BTreeMap::from([(0, last)]) }
    }

    /// The lowest free position.
    pub(super) fn first(&self) -> Option<u128> {
        self.intervals.keys().next().copied()
    }

    /// Removes a position; false when it was not free.
    pub(super) fn take(&mut self, position: u128) -> bool {
        let Some((&first, &last)) = self.intervals.range(..=position).next_back() else { return false };
        if position > last {
            return false;
        }
        if first == position {
            self.intervals.remove(&first);
        } else {
            self.intervals.insert(first, position - 1);
        }
        if position < last {
            self.intervals.insert(position + 1, last);
        }
        true
    }

    /// Adds a position; nothing happens when it is free already.
    pub(super) fn put(&mut self, position: u128) {
        let before = self.intervals.range(..=position).next_back().map(|(first, last)| (*first, *last));
        if before.is_some_and(|(_, last)| position <= last) {
            return;
        }
        let mut first = position;
        let mut last = position;
        if let Some((start, end)) = before
            && end.checked_add(1) == Some(position)
        {
            first = start;
        }
        if let Some(next) = position.checked_add(1)
            && let Some(end) = self.intervals.remove(&next)
        {
            last = end;
        }
        self.intervals.insert(first, last);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_like_a_set(operations in proptest::collection::vec((any::<bool>(), 0u128..40), 0..200)) {
            let mut line = FreeLine::up_to(39);
            let mut model: BTreeSet<u128> = (0..40).collect();
            for (take, position) in operations {
                if take {
                    prop_assert_eq!(line.take(position), model.remove(&position));
                } else {
                    line.put(position);
                    model.insert(position);
                }
                prop_assert_eq!(line.first(), model.first().copied());
                let flat: Vec<u128> = line.intervals.iter().flat_map(|(a, b)| *a..=*b).collect();
                prop_assert_eq!(flat, model.iter().copied().collect::<Vec<_>>());
                // Maximal: no two intervals touch.
                let ends: Vec<_> = line.intervals.iter().collect();
                prop_assert!(ends.windows(2).all(|pair| pair[0].1 + 1 < *pair[1].0));
            }
        }
    }

    #[test]
    fn the_ends_of_the_number_line_are_positions_like_any_other() {
        let mut line = FreeLine::up_to(u128::MAX);
        assert!(line.take(u128::MAX));
        assert!(!line.take(u128::MAX));
        line.put(u128::MAX);
        assert!(line.take(0));
        assert_eq!(line.first(), Some(1));
        line.put(0);
        assert_eq!(line, FreeLine::up_to(u128::MAX));
    }
}
