//! Metrics of the webhook.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::{Histogram, HistogramOpts, IntCounterVec, IntGauge, Opts, Registry};

use super::admission::KINDS;

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Allowed,
    Denied,
    Converted,
    /// It could not be read, or not be converted.
    Failed,
}

impl Outcome {
    const ALL: [Self; 4] = [Self::Allowed, Self::Denied, Self::Converted, Self::Failed];

    fn word(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Converted => "converted",
            Self::Failed => "failed",
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    requests: IntCounterVec,
    seconds: Histogram,
    expiry: IntGauge,
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let requests = IntCounterVec::new(
            Opts::new("patina_webhook_requests_total", "Requests of the API server, by kind and result"),
            &["kind", "result"],
        )?;
        for (kind, _) in KINDS {
            for outcome in Outcome::ALL.iter().filter(|o| **o != Outcome::Converted || kind == "BGPPeer") {
                requests.with_label_values(&[kind, outcome.word()]).reset();
            }
        }
        registry.register(Box::new(requests.clone()))?;
        let buckets = vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];
        let seconds = Histogram::with_opts(
            HistogramOpts::new(
                "patina_webhook_request_seconds",
                "Time from a request's last byte to its answer",
            )
            .buckets(buckets),
        )?;
        registry.register(Box::new(seconds.clone()))?;
        let expiry = IntGauge::new(
            "patina_webhook_certificate_expiry_timestamp_seconds",
            "When the certificate that is served ends, in seconds since 1970; 0 when none is served",
        )?;
        registry.register(Box::new(expiry.clone()))?;
        Ok(Self { requests, seconds, expiry })
    }

    pub(crate) fn answered(&self, kind: &str, outcome: Outcome, took: Duration) {
        self.requests.with_label_values(&[kind, outcome.word()]).inc();
        self.seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn expires(&self, at: Option<SystemTime>) {
        let seconds = at.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).map_or(0, |since| since.as_secs());
        self.expiry.set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }
}
