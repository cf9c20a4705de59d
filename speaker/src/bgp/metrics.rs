//! What can be counted of BGP, under MetalLB's names. The labels are the configured peers.

use patina_speaker_core::bgp::peer::{Direction, Event, MessageType, Snapshot};
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::desired::Neighbour;

const LABELS: [&str; 2] = ["peer", "vrf"];

/// Clones share everything.
#[derive(Clone, Debug)]
pub struct BgpMetrics {
    session_up: IntGaugeVec,
    announced: IntGaugeVec,
    pending: IntGaugeVec,
    received: IntGaugeVec,
    counters: Vec<(Direction, Option<MessageType>, IntCounterVec)>,
    tolerated: IntCounterVec,
    session_downs: IntCounterVec,
}

/// Those of one peer.
#[derive(Debug)]
pub(super) struct PeerMetrics {
    all: BgpMetrics,
    labels: [String; 2],
    session_up: IntGauge,
    announced: IntGauge,
    pending: IntGauge,
    received: IntGauge,
    counters: Vec<(Direction, Option<MessageType>, IntCounter)>,
    tolerated: IntCounter,
    session_downs: IntCounter,
}

/// Name, direction, message type (`None`: all), help.
const COUNTERS: [(&str, Direction, Option<MessageType>, &str); 11] = [
    ("metallb_bgp_opens_sent", Direction::Out, Some(MessageType::Open), "OPEN messages sent"),
    ("metallb_bgp_opens_received", Direction::In, Some(MessageType::Open), "OPEN messages received"),
    (
        "metallb_bgp_notifications_sent",
        Direction::Out,
        Some(MessageType::Notification),
        "NOTIFICATION messages sent",
    ),
    (
        "metallb_bgp_notifications_received",
        Direction::In,
        Some(MessageType::Notification),
        "NOTIFICATION messages received",
    ),
    ("metallb_bgp_updates_total", Direction::Out, Some(MessageType::Update), "UPDATE messages sent"),
    (
        "metallb_bgp_updates_total_received",
        Direction::In,
        Some(MessageType::Update),
        "UPDATE messages received",
    ),
    ("metallb_bgp_keepalives_sent", Direction::Out, Some(MessageType::Keepalive), "KEEPALIVE messages sent"),
    (
        "metallb_bgp_keepalives_received",
        Direction::In,
        Some(MessageType::Keepalive),
        "KEEPALIVE messages received",
    ),
    (
        "metallb_bgp_route_refresh_sent",
        Direction::Out,
        Some(MessageType::RouteRefresh),
        "ROUTE-REFRESH messages sent",
    ),
    ("metallb_bgp_total_sent", Direction::Out, None, "BGP messages sent"),
    ("metallb_bgp_total_received", Direction::In, None, "BGP messages received"),
];

impl BgpMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// One of the names is taken in `registry`.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let gauge = |name: &str, help: &str| {
            let gauge = IntGaugeVec::new(Opts::new(name, help), &LABELS)?;
            registry.register(Box::new(gauge.clone()))?;
            prometheus::Result::Ok(gauge)
        };
        let counter = |name: &str, help: &str| {
            let counter = IntCounterVec::new(Opts::new(name, help), &LABELS)?;
            registry.register(Box::new(counter.clone()))?;
            prometheus::Result::Ok(counter)
        };
        let counters = COUNTERS
            .into_iter()
            .map(|(name, direction, kind, help)| Ok((direction, kind, counter(name, help)?)))
            .collect::<prometheus::Result<_>>()?;
        Ok(Self {
            session_up: gauge("metallb_bgp_session_up", "BGP session state (1 is established)")?,
            announced: gauge("metallb_bgp_announced_prefixes_total", "Prefixes that the peer has of us")?,
            pending: gauge(
                "metallb_bgp_pending_prefixes_total",
                "Prefixes that are still to be sent or withdrawn",
            )?,
            received: gauge(
                "metallb_bgp_received_prefixes_total",
                "Prefixes that the peer announces to us; none is used",
            )?,
            counters,
            tolerated: counter(
                "patina_bgp_tolerated_errors_total",
                "Malformed attributes that were survived (RFC 7606)",
            )?,
            session_downs: counter("patina_bgp_session_downs_total", "Established sessions that ended")?,
        })
    }

    pub(super) fn of(&self, neighbour: &Neighbour) -> PeerMetrics {
        let peer = match &neighbour.remote {
            super::Remote::Ip(ip) => std::net::SocketAddr::new(*ip, neighbour.port).to_string(),
            super::Remote::Interface(name) => name.clone(),
        };
        let labels = [peer, neighbour.vrf.clone().unwrap_or_default()];
        let values = [labels[0].as_str(), labels[1].as_str()];
        let one = |(direction, kind, counter): &(_, _, IntCounterVec)| {
            (*direction, *kind, counter.with_label_values(&values))
        };
        PeerMetrics {
            session_up: self.session_up.with_label_values(&values),
            announced: self.announced.with_label_values(&values),
            pending: self.pending.with_label_values(&values),
            received: self.received.with_label_values(&values),
            counters: self.counters.iter().map(one).collect(),
            tolerated: self.tolerated.with_label_values(&values),
            session_downs: self.session_downs.with_label_values(&values),
            all: self.clone(),
            labels,
        }
    }
}

impl PeerMetrics {
    pub(super) fn count(&self, event: &Event) {
        match event {
            Event::Counted(direction, kind) => {
                let counts = |(of, what, _): &&(Direction, Option<MessageType>, IntCounter)| {
                    of == direction && what.is_none_or(|what| what == *kind)
                };
                self.counters.iter().filter(counts).for_each(|(_, _, counter)| counter.inc());
            }
            Event::Up(_) => self.session_up.set(1),
            Event::Down(_) => {
                if self.session_up.get() == 1 {
                    self.session_downs.inc();
                }
                self.session_up.set(0);
            }
            Event::Tolerated(_) => self.tolerated.inc(),
            Event::State(_) | Event::InitialDone(_) | Event::NoNextHop(_) | Event::Unsendable(_) => {}
        }
    }

    pub(super) fn routes(&self, snapshot: &Snapshot) {
        let sum = |counts: &std::collections::BTreeMap<_, usize>| -> usize { counts.values().sum() };
        self.announced.set(number(sum(&snapshot.sent)));
        self.pending.set(number(snapshot.pending));
        self.received.set(number(sum(&snapshot.received)));
    }
}

impl Drop for PeerMetrics {
    /// A peer that is not configured any more has no metrics.
    fn drop(&mut self) {
        let values = self.labels.each_ref().map(String::as_str);
        let all = &self.all;
        for gauge in [&all.session_up, &all.announced, &all.pending, &all.received] {
            let _was_there = gauge.remove_label_values(&values);
        }
        let counters = all.counters.iter().map(|(_, _, counter)| counter);
        for counter in counters.chain([&all.tolerated, &all.session_downs]) {
            let _was_there = counter.remove_label_values(&values);
        }
    }
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
