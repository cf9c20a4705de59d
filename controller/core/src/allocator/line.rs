//! Free positions on a line, as disjoint intervals.

use std::collections::BTreeMap;

/// A set of positions, kept as maximal inclusive intervals. Each operation costs O(log n) in their number, those on ranges
/// also one step for each interval that they swallow.
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

    /// The lowest free position that is not below `position`.
    pub(super) fn first_from(&self, position: u128) -> Option<u128> {
        let around = self.intervals.range(..=position).next_back();
        if around.is_some_and(|(_, last)| position <= *last) {
            return Some(position);
        }
        self.intervals.range(position..).next().map(|(first, _)| *first)
    }

    /// Removes a position.
    pub(super) fn take(&mut self, position: u128) {
        self.take_range(position, position);
    }

    /// Adds a position; nothing happens when it is free already.
    pub(super) fn put(&mut self, position: u128) {
        self.put_range(position, position);
    }

    /// Removes all of `first..=last`.
    pub(super) fn take_range(&mut self, first: u128, last: u128) {
        if let Some((&start, &end)) = self.intervals.range(..first).next_back()
            && end >= first
        {
            // `start` is below `first`, so `first` is above zero.
            self.intervals.insert(start, first - 1);
            if let Some(after) = last.checked_add(1)
                && after <= end
            {
                self.intervals.insert(after, end);
                return;
            }
        }
        while let Some((&start, &end)) = self.intervals.range(first..=last).next() {
            self.intervals.remove(&start);
            if let Some(after) = last.checked_add(1)
                && after <= end
            {
                self.intervals.insert(after, end);
            }
        }
    }

    /// Adds all of `first..=last`.
    pub(super) fn put_range(&mut self, first: u128, last: u128) {
        let (mut start, mut end) = (first, last);
        if let Some((&before, &its_last)) = self.intervals.range(..=first).next_back()
            && its_last.checked_add(1).is_none_or(|next| next >= first)
        {
            start = before;
            end = end.max(its_last);
        }
        while let Some((&next, &its_last)) = self.intervals.range(start..=end.saturating_add(1)).next() {
            self.intervals.remove(&next);
            end = end.max(its_last);
        }
        self.intervals.insert(start, end);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_like_a_set(operations in proptest::collection::vec((any::<bool>(), 0u128..40, 0u128..6), 0..200)) {
            let mut line = FreeLine::up_to(45);
            let mut model: BTreeSet<u128> = (0..=45).collect();
            for (take, first, more) in operations {
                let last = first + more;
                if take {
                    line.take_range(first, last);
                    model.retain(|position| !(first..=last).contains(position));
                } else {
                    line.put_range(first, last);
                    model.extend(first..=last);
                }
                prop_assert_eq!(line.first(), model.first().copied());
                for from in 0..50 {
                    prop_assert_eq!(line.first_from(from), model.range(from..).next().copied());
                }
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
        line.take(u128::MAX);
        assert_eq!(line.first_from(u128::MAX), None);
        line.put(u128::MAX);
        assert_eq!(line.first_from(u128::MAX), Some(u128::MAX));
        line.take(0);
        assert_eq!(line.first(), Some(1));
        line.put(0);
        assert_eq!(line, FreeLine::up_to(u128::MAX));
        line.take_range(0, u128::MAX);
        assert_eq!(line.first(), None);
        line.put_range(5, u128::MAX);
        line.put_range(0, 4);
        assert_eq!(line, FreeLine::up_to(u128::MAX));
    }
}
