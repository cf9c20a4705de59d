//! How often the API server is asked anew. Whoever reaches the port may send reviews, and each would cost nine lists.

use std::time::{Duration, Instant};

/// Questions that may be asked at once: more than a person applies in one go.
const BURST: u32 = 60;
/// One more after so long.
const REFILL: Duration = Duration::from_millis(100);

/// A token bucket.
#[derive(Debug)]
pub(super) struct Budget {
    left: u32,
    filled: Instant,
}

impl Budget {
    /// A full one.
    pub(super) fn new(now: Instant) -> Self {
        Self { left: BURST, filled: now }
    }

    /// Takes one; false when there is none left.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let ticks = now.saturating_duration_since(self.filled).as_millis() / REFILL.as_millis();
        let more = u32::try_from(ticks).unwrap_or(u32::MAX);
        self.left = self.left.saturating_add(more).min(BURST);
        // What is full gathers nothing; otherwise the rest of a tick counts for the next.
        self.filled = if self.left == BURST { now } else { self.filled + REFILL * more };
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_gets_its_burst_and_then_ten_a_second() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        let granted = (0..10_000).filter(|_| budget.take(start)).count();
        assert_eq!(granted, 60);
        let granted = (0..10_000).filter(|i| budget.take(start + Duration::from_micros(100 * i))).count();
        assert_eq!(granted, 9, "in the second after the burst");
        let later = start + Duration::from_secs(3600);
        assert_eq!((0..10_000).filter(|_| budget.take(later)).count(), 60, "full again, and no fuller");
    }
}
