//! Which counters of one epoch came already (RFC 4303, 3.4.3: the anti-replay window of ESP).

/// How many counters behind the highest are told apart.
pub(super) const WIDTH: u64 = 1024;
const WORDS: usize = 16;

/// The counters `top - 1023 ..= top`, each by a bit at its remainder.
#[derive(Clone, Debug)]
pub(super) struct Window {
    top: u64,
    bits: [u64; WORDS],
}

impl Window {
    /// One that has seen `first` only.
    pub(super) fn new(first: u64) -> Self {
        let mut window = Self { top: first, bits: [0; WORDS] };
        window.set(first, true);
        window
    }

    /// Whether it came before, or is too old to tell.
    pub(super) fn has_seen(&self, counter: u64) -> bool {
        counter <= self.top && (self.top - counter >= WIDTH || self.get(counter))
    }

    /// It came. True when it is the highest so far.
    pub(super) fn mark(&mut self, counter: u64) -> bool {
        let ahead = counter > self.top;
        if ahead {
            let from = self.top.max(counter.saturating_sub(WIDTH));
            (from..counter).for_each(|between| self.set(between + 1, false));
            self.top = counter;
        }
        self.set(counter, true);
        ahead
    }

    fn place(counter: u64) -> (usize, u64) {
        let bit = counter % WIDTH;
        // Less than WORDS.
        (usize::try_from(bit / 64).unwrap_or(0), 1 << (bit % 64))
    }

    fn get(&self, counter: u64) -> bool {
        let (word, mask) = Self::place(counter);
        self.bits.get(word).is_some_and(|bits| bits & mask != 0)
    }

    fn set(&mut self, counter: u64, seen: bool) {
        let (word, mask) = Self::place(counter);
        if let Some(bits) = self.bits.get_mut(word) {
            *bits = if seen { *bits | mask } else { *bits & !mask };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against the set of all counters that came.
        #[test]
        fn each_counter_counts_once_and_those_far_behind_do_not(
            first in 0_u64..5000,
            steps in prop::collection::vec((any::<bool>(), 0_u64..3000), 1..400),
        ) {
            let (mut window, mut seen, mut top) = (Window::new(first), BTreeSet::from([first]), first);
            for (forward, step) in steps {
                let counter = if forward { top + step % 1500 } else { top.saturating_sub(step) };
                let expected = seen.contains(&counter) || (counter < top && top - counter >= WIDTH);
                prop_assert_eq!(window.has_seen(counter), expected, "{} with top {}", counter, top);
                if !expected {
                    prop_assert_eq!(window.mark(counter), counter > top);
                    seen.insert(counter);
                    top = top.max(counter);
                }
            }
        }
    }

    #[test]
    fn the_highest_counter_is_not_too_high() {
        let mut window = Window::new(u64::MAX - 1);
        assert!(window.mark(u64::MAX));
        assert!(window.has_seen(u64::MAX) && window.has_seen(u64::MAX - 1) && !window.has_seen(u64::MAX - 2));
    }
}
