//! What the metrics tell of Services: who waits and why, and how long the others took.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use patina_controller_core::view::ServiceId;

use crate::metrics::Metrics;

pub(super) struct Tally {
    metrics: Metrics,
    /// Services that need an address, and since when that is known.
    since: HashMap<ServiceId, Instant>,
    waiting: HashMap<ServiceId, &'static str>,
    by_reason: BTreeMap<&'static str, i64>,
}

impl Tally {
    pub(super) fn new(metrics: Metrics) -> Self {
        Self { metrics, since: HashMap::new(), waiting: HashMap::new(), by_reason: BTreeMap::new() }
    }

    /// A Service without an address was seen. Who waits for a reason does not count: the reason does.
    pub(super) fn needs_an_address(&mut self, id: &ServiceId, now: Instant) {
        if !self.waiting.contains_key(id) && !self.since.contains_key(id) {
            self.since.insert(id.clone(), now);
        }
    }

    /// It waits for this reason, or gets (or has) something when it is `ours`.
    pub(super) fn decided(&mut self, id: &ServiceId, waits: Option<&'static str>, ours: bool) {
        let before = match waits {
            Some(word) => self.waiting.insert(id.clone(), word),
            None => self.waiting.remove(id),
        };
        if waits.is_some() || !ours {
            self.since.remove(id);
        }
        if before == waits {
            return;
        }
        if let Some(word) = waits {
            self.metrics.failures.with_label_values(&[word]).inc();
        }
        for (word, change) in [(before, -1), (waits, 1)] {
            if let Some(word) = word {
                *self.by_reason.entry(word).or_insert(0) += change;
            }
        }
    }

    /// Its status shows what it should.
    pub(super) fn settled(&mut self, id: &ServiceId, now: Instant) {
        if let Some(since) = self.since.remove(id) {
            self.metrics.allocation_seconds.observe(now.duration_since(since).as_secs_f64());
        }
    }

    pub(super) fn gone(&mut self, id: &ServiceId) {
        self.decided(id, None, false);
    }

    pub(super) fn show_waiting(&self) {
        self.metrics.show_waiting(&self.by_reason);
    }

    /// Patches under way, and how many there may be.
    pub(super) fn show_writes(&self, (under_way, window): (usize, usize)) {
        let gauge = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.metrics.writes_in_flight.set(gauge(under_way));
        self.metrics.write_window.set(gauge(window));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus::Registry;

    use super::*;

    #[test]
    fn a_service_is_timed_from_its_first_sight_to_its_written_status() {
        let metrics = Metrics::register(&Registry::new()).unwrap();
        let (mut tally, now) = (Tally::new(metrics.clone()), Instant::now());
        let (a, b) = (ServiceId::new("n", "a"), ServiceId::new("n", "b"));
        let count = || metrics.allocation_seconds.get_sample_count();
        tally.needs_an_address(&a, now);
        tally.decided(&a, None, true);
        // Seen again (somebody set a label): it waits since the first time.
        tally.needs_an_address(&a, now + Duration::from_secs(1));
        tally.settled(&a, now + Duration::from_secs(2));
        tally.settled(&a, now + Duration::from_secs(3));
        assert_eq!(count(), 1);
        assert!((metrics.allocation_seconds.get_sample_sum() - 2.0).abs() < 1e-9);

        // Who waits for a reason is counted by the reason, once until it is another one.
        let failures = |word: &str| metrics.failures.with_label_values(&[word]).get();
        tally.needs_an_address(&b, now);
        for word in ["PoolExhausted", "PoolExhausted", "UnknownPool", "PoolExhausted"] {
            tally.decided(&b, Some(word), true);
            tally.needs_an_address(&b, now);
        }
        tally.settled(&b, now);
        assert_eq!((failures("PoolExhausted"), failures("UnknownPool"), count()), (2, 1, 1));
        let waiting = || {
            tally.show_waiting();
            metrics.waiting_for("PoolExhausted")
        };
        assert_eq!(waiting(), 1);
        tally.gone(&b);
        tally.show_waiting();
        assert_eq!(metrics.waiting_for("PoolExhausted"), 0);
    }
}
