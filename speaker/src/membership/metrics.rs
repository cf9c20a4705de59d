//! What can be counted of the membership. All labels are of few fixed values, but the ids of the keys: there are four at most.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use patina_speaker_core::membership::State;
use patina_speaker_core::membership::envelope::{KeyId, Refused};
use patina_speaker_core::membership::{Down, Event};
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    core::Collector,
};

/// A datagram that was meant for another start; it is no error of the sender, and not believed.
const OTHER_START: &str = "otherStart";

/// Clones share everything.
#[derive(Clone, Debug)]
pub struct MembershipMetrics {
    enabled: IntGauge,
    members: IntGaugeVec,
    datagrams: IntCounterVec,
    refused: IntCounterVec,
    send_failed: IntCounter,
    fenced: IntGauge,
    further: IntGaugeVec,
    isolated: IntGauge,
    downs: IntCounterVec,
    round_trip: Histogram,
    key: IntGaugeVec,
    /// The labels of `key` that are there.
    keys: Arc<Mutex<BTreeSet<[String; 2]>>>,
}

impl MembershipMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// One of the names is taken in `registry`.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let metrics = Self {
            enabled: add(
                registry,
                IntGauge::new(
                    "patina_membership_enabled",
                    "1 when the speakers watch each other, 0 when the API server says who is alive",
                )?,
            )?,
            members: add(
                registry,
                IntGaugeVec::new(
                    Opts::new("patina_membership_members", "Speakers, this one included, by state"),
                    &["state"],
                )?,
            )?,
            datagrams: add(
                registry,
                IntCounterVec::new(
                    Opts::new("patina_membership_datagrams_total", "Datagrams received and sent"),
                    &["direction"],
                )?,
            )?,
            refused: add(
                registry,
                IntCounterVec::new(
                    Opts::new(
                        "patina_membership_refused_total",
                        "Datagrams received and not believed, by reason",
                    ),
                    &["reason"],
                )?,
            )?,
            send_failed: add(
                registry,
                IntCounter::new(
                    "patina_membership_send_failed_total",
                    "Datagrams that the system did not send",
                )?,
            )?,
            fenced: add(
                registry,
                IntGauge::new(
                    "patina_membership_fenced",
                    "1 while this speaker answers nothing, because it stalled or is in a minority",
                )?,
            )?,
            further: add(
                registry,
                IntGaugeVec::new(
                    Opts::new(
                        "patina_membership_further_addresses",
                        "Addresses on other networks of this node where the speakers ask each other: listening, or not to be had",
                    ),
                    &["state"],
                )?,
            )?,
            isolated: add(
                registry,
                IntGauge::new(
                    "patina_membership_isolated_interfaces",
                    "Interfaces of this node that have a link and on whose networks no other speaker answers",
                )?,
            )?,
            downs: add(
                registry,
                IntCounterVec::new(
                    Opts::new("patina_membership_down_total", "Speakers that went down, by cause"),
                    &["cause"],
                )?,
            )?,
            round_trip: add(
                registry,
                Histogram::with_opts(
                    HistogramOpts::new(
                        "patina_membership_probe_rtt_seconds",
                        "From a question to another speaker until its answer",
                    )
                    .buckets(vec![
                        0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
                    ]),
                )?,
            )?,
            key: add(
                registry,
                IntGaugeVec::new(
                    Opts::new(
                        "patina_membership_key",
                        "Keys by id; the newest is what this speaker writes with, the others open",
                    ),
                    &["id", "use"],
                )?,
            )?,
            keys: Arc::default(),
        };
        // Series that exist from the start: a rate of what was never counted would be unknown, not 0.
        for refused in Refused::ALL {
            metrics.refused.with_label_values(&[refused.reason()]);
        }
        metrics.refused.with_label_values(&[OTHER_START]);
        for cause in ["silent", "reported", "left"] {
            metrics.downs.with_label_values(&[cause]);
        }
        for direction in ["in", "out"] {
            metrics.datagrams.with_label_values(&[direction]);
        }
        Ok(metrics)
    }

    pub(super) fn enabled(&self, enabled: bool) {
        self.enabled.set(enabled.into());
    }

    pub(super) fn received(&self) {
        self.datagrams.with_label_values(&["in"]).inc();
    }

    pub(super) fn sent(&self, worked: bool) {
        if worked {
            self.datagrams.with_label_values(&["out"]).inc();
        } else {
            self.send_failed.inc();
        }
    }

    pub(super) fn refused(&self, refused: Refused) {
        self.refused.with_label_values(&[refused.reason()]).inc();
    }

    pub(super) fn other_start(&self) {
        self.refused.with_label_values(&[OTHER_START]).inc();
    }

    pub(super) fn event(&self, event: &Event) {
        if let Event::Answered { after } = event {
            self.round_trip.observe(after.as_secs_f64());
        }
        if let Event::Down { cause, .. } = event {
            let cause = match cause {
                Down::Silent(_) => "silent",
                Down::Reported { .. } => "reported",
                Down::Left => "left",
            };
            self.downs.with_label_values(&[cause]).inc();
        }
    }

    pub(super) fn state(&self, state: &State) {
        let count = |states: [bool; 2]| {
            let members = state.members.values().filter(|m| [m.starting, m.draining] == states).count();
            i64::try_from(members).unwrap_or(i64::MAX)
        };
        let set = |name: &str, count: i64| self.members.with_label_values(&[name]).set(count);
        set("up", count([false, false]));
        set("starting", count([true, false]));
        set("draining", count([false, true]) + count([true, true]));
        set("down", i64::try_from(state.down.len()).unwrap_or(i64::MAX));
        self.fenced.set(state.fenced.into());
    }

    pub(super) fn further(&self, listening: usize, failed: usize) {
        for (state, count) in [("listening", listening), ("failed", failed)] {
            self.further.with_label_values(&[state]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    pub(super) fn isolated(&self, interfaces: usize) {
        self.isolated.set(i64::try_from(interfaces).unwrap_or(i64::MAX));
    }

    pub(super) fn keys(&self, newest: Option<KeyId>, all: impl Iterator<Item = KeyId>) {
        let labels =
            |id: KeyId| [id.to_string(), if Some(id) == newest { "newest" } else { "opens" }.to_owned()];
        let now: BTreeSet<[String; 2]> = all.map(labels).collect();
        let mut shown = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        for [id, use_] in shown.difference(&now) {
            let _was_there = self.key.remove_label_values(&[id, use_]);
        }
        for [id, use_] in &now {
            self.key.with_label_values(&[id, use_]).set(1);
        }
        *shown = now;
    }
}

fn add<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> prometheus::Result<C> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}
