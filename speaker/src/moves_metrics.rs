//! The metrics of addresses that change hands.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use crate::moves::Cause;

/// Counters and gauges of what this node announces. Their labels are the few words of [`Cause::WORDS`].
#[derive(Clone, Debug)]
pub struct MoveMetrics {
    changes: IntCounterVec,
    takeover: Histogram,
    /// Addresses that this node announces now.
    pub announced: IntGauge,
    /// Addresses that a foreign host has or claims, as far as this node leads them.
    pub conflicts: IntGauge,
    /// How often the fence was closed; whether it is, the membership's metrics say.
    pub fences: IntCounter,
}

impl MoveMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// One of the names is taken in `registry`.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let changes = IntCounterVec::new(
            Opts::new(
                "patina_l2_owner_changes_total",
                "Services that this node began to announce, by cause. Each change of the announcer counts once in the \
                 cluster: at the node that has it now",
            ),
            &["cause"],
        )?;
        // Every cause is there from the beginning: a rate over a series that appears with its first event misses that event.
        for word in Cause::WORDS {
            changes.with_label_values(&[word]);
        }
        let takeover = Histogram::with_opts(
            HistogramOpts::new(
                "patina_l2_takeover_seconds",
                "Once per dead speaker that this node replaces: from the last sign of life that this node had of it (or, where \
                 another speaker watched it, from that one's report) to the moment that all its addresses were handed \
                 over to be announced",
            )
            .buckets(vec![0.01, 0.025, 0.05, 0.1, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.75, 1.0, 2.0, 5.0]),
        )?;
        let gauge = |name, help| IntGauge::new(name, help);
        let metrics = Self {
            changes,
            takeover,
            announced: gauge("patina_l2_announced", "Addresses that this node announces")?,
            conflicts: gauge(
                "patina_l2_conflicts",
                "Addresses that this node should announce and that a foreign host uses",
            )?,
            fences: IntCounter::new(
                "patina_l2_fences_total",
                "How often this node stopped answering, because it had stalled or was in a minority",
            )?,
        };
        registry.register(Box::new(metrics.changes.clone()))?;
        registry.register(Box::new(metrics.takeover.clone()))?;
        for gauge in [&metrics.announced, &metrics.conflicts] {
            registry.register(Box::new(gauge.clone()))?;
        }
        registry.register(Box::new(metrics.fences.clone()))?;
        Ok(metrics)
    }

    /// This node began to announce a Service.
    pub fn took(&self, cause: &Cause) {
        self.changes.with_label_values(&[cause.word()]).inc();
    }

    /// What a dead speaker had is announced again, so long after its last sign of life.
    pub fn replaced(&self, after: Duration) {
        self.takeover.observe(after.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_has_a_series_from_the_beginning() {
        let registry = Registry::new();
        let metrics = MoveMetrics::register(&registry).unwrap();
        metrics.took(&Cause::First);
        metrics.replaced(Duration::from_millis(240));
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        for word in Cause::WORDS {
            let count = u8::from(word == "first");
            let line = format!("patina_l2_owner_changes_total{{cause=\"{word}\"}} {count}");
            assert!(text.contains(&line), "{line} in\n{text}");
        }
        assert!(text.contains("patina_l2_takeover_seconds_bucket{le=\"0.25\"} 1"), "{text}");
    }
}
