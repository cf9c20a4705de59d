//! What can be counted of BFD, under MetalLB's names. The labels are the configured peers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use patina_speaker_core::bfd::{Dropped, State};
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::desired::Key;

const LABELS: [&str; 2] = ["peer", "vrf"];
/// A packet of somebody with whom there is no session.
const STRANGER: &str = "stranger";

/// Clones share everything.
#[derive(Clone, Debug)]
pub struct BfdMetrics {
    session_up: IntGaugeVec,
    counters: [IntCounterVec; 7],
    dropped: IntCounterVec,
    /// Two sessions with one peer share what is counted.
    peers: Arc<Mutex<BTreeMap<[String; 2], Weak<PeerMetrics>>>>,
}

/// Name and help, in the order of [`Count`].
const COUNTERS: [(&str, &str); 7] = [
    ("metallb_bfd_control_packet_input", "BFD control packets received"),
    ("metallb_bfd_control_packet_output", "BFD control packets sent"),
    ("metallb_bfd_echo_packet_input", "BFD echo packets of ours that came back"),
    ("metallb_bfd_echo_packet_output", "BFD echo packets sent"),
    ("metallb_bfd_session_up_events", "BFD sessions that came up"),
    ("metallb_bfd_session_down_events", "BFD sessions that went down"),
    ("patina_bfd_send_failed_total", "BFD packets that the system did not send"),
];

/// What is counted of a peer.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)] // COUNTERS says it
pub(super) enum Count {
    ControlIn,
    ControlOut,
    EchoIn,
    EchoOut,
    Up,
    Down,
    SendFailed,
}

/// Those of one peer.
#[derive(Debug)]
pub(super) struct PeerMetrics {
    session_up: IntGauge,
    counters: [IntCounter; 7],
    labels: [String; 2],
    all: BfdMetrics,
}

impl BfdMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// One of the names is taken in `registry`.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let session_up = IntGaugeVec::new(
            Opts::new("metallb_bfd_session_up", "BFD session state (1 is up, 0 is down)"),
            &LABELS,
        )?;
        let counter = |(name, help): (&str, &str)| IntCounterVec::new(Opts::new(name, help), &LABELS);
        let [a, b, c, d, e, f, g] = COUNTERS.map(counter);
        let dropped = IntCounterVec::new(
            Opts::new("patina_bfd_dropped_total", "BFD packets received that did not count, by reason"),
            &["reason"],
        )?;
        let metrics =
            Self { session_up, counters: [a?, b?, c?, d?, e?, f?, g?], dropped, peers: Arc::default() };
        registry.register(Box::new(metrics.session_up.clone()))?;
        registry.register(Box::new(metrics.dropped.clone()))?;
        for counter in &metrics.counters {
            registry.register(Box::new(counter.clone()))?;
        }
        // Series that exist from the start: a rate of what was never counted would be unknown, not 0.
        for reason in Dropped::ALL.map(Dropped::reason).into_iter().chain([STRANGER]) {
            metrics.dropped.with_label_values(&[reason]);
        }
        Ok(metrics)
    }

    pub(super) fn of(&self, key: &Key) -> Arc<PeerMetrics> {
        let labels = [key.peer.to_string(), key.vrf.clone().unwrap_or_default()];
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = peers.get(&labels).and_then(Weak::upgrade) {
            return there;
        }
        let values = labels.each_ref().map(String::as_str);
        let metrics = Arc::new(PeerMetrics {
            session_up: self.session_up.with_label_values(&values),
            counters: self.counters.each_ref().map(|counter| counter.with_label_values(&values)),
            labels: labels.clone(),
            all: self.clone(),
        });
        peers.insert(labels, Arc::downgrade(&metrics));
        metrics
    }

    pub(super) fn dropped(&self, why: Dropped) {
        self.dropped.with_label_values(&[why.reason()]).inc();
    }

    pub(super) fn stranger(&self) {
        self.dropped.with_label_values(&[STRANGER]).inc();
    }
}

impl PeerMetrics {
    pub(super) fn count(&self, what: Count) {
        if let Some(counter) = self.counters.get(what as usize) {
            counter.inc();
        }
    }

    pub(super) fn state(&self, from: State, to: State) {
        self.session_up.set((to == State::Up).into());
        if to == State::Up {
            self.count(Count::Up);
        } else if from == State::Up {
            self.count(Count::Down);
        }
    }
}

impl Drop for PeerMetrics {
    /// A peer that is not configured any more has no metrics.
    fn drop(&mut self) {
        let mut peers = self.all.peers.lock().unwrap_or_else(PoisonError::into_inner);
        // Another one may have taken its place.
        if peers.get(&self.labels).is_none_or(|there| there.strong_count() == 0) {
            peers.remove(&self.labels);
            let values = self.labels.each_ref().map(String::as_str);
            let _was_there = self.all.session_up.remove_label_values(&values);
            for counter in &self.all.counters {
                let _was_there = counter.remove_label_values(&values);
            }
        }
    }
}
