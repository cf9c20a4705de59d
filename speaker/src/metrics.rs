//! The metrics of the speaker: MetalLB's names where MetalLB has one, `patina_` otherwise.
//!
//! What exists once per address is kept as a few numbers and becomes series when somebody asks: as series, ten thousand
//! addresses would be many megabytes of labels.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use patina_speaker_core::view::ServiceId;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

/// Counters of the layer 2 driver. Series of an address exist while it is announced.
#[derive(Clone, Debug)]
pub struct L2Metrics {
    per_ip: PerIp,
    dropped: IntCounterVec,
    /// Frames that came through the kernel filter, whatever became of them: each is a wake-up at most.
    pub frames: IntCounter,
    sent: IntCounterVec,
}

impl L2Metrics {
    /// Registers them.
    ///
    /// # Errors
    /// One of the names is taken in `registry`.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let per_ip = PerIp::new()?;
        registry.register(Box::new(per_ip.clone()))?;
        let dropped = IntCounterVec::new(
            Opts::new("patina_l2_dropped_total", "Frames not answered, and frames not sent, by reason"),
            &["reason"],
        )?;
        registry.register(Box::new(dropped.clone()))?;
        let frames = IntCounter::new("patina_l2_frames_total", "Frames that passed the kernel filter")?;
        registry.register(Box::new(frames.clone()))?;
        let sent = IntCounterVec::new(Opts::new("patina_l2_sent_total", "Frames sent, by kind"), &["kind"])?;
        registry.register(Box::new(sent.clone()))?;
        Ok(Self { per_ip, dropped, frames, sent })
    }

    /// A request for an owned address came in.
    pub fn request(&self, ip: IpAddr) {
        self.per_ip.count(ip, |counts| &mut counts[0]);
    }

    /// It was answered.
    pub fn response(&self, ip: IpAddr) {
        self.per_ip.count(ip, |counts| &mut counts[1]);
    }

    /// An unsolicited announcement went out.
    pub fn gratuitous(&self, ip: IpAddr) {
        self.per_ip.count(ip, |counts| &mut counts[2]);
    }

    /// A frame was not answered, or not sent. The reasons are few and fixed.
    pub fn dropped(&self, reason: &str) {
        self.dropped.with_label_values(&[reason]).inc();
    }

    /// A frame was sent: `answer`, `announcement` or `probe`.
    pub fn sent(&self, kind: &str) {
        self.sent.with_label_values(&[kind]).inc();
    }

    /// The address is not announced any more: its series end.
    pub fn forget(&self, ip: IpAddr) {
        self.per_ip.counts.lock().unwrap_or_else(PoisonError::into_inner).remove(&ip);
    }
}

/// What is counted of each address: requests, responses, unsolicited announcements.
type Counts = [u64; 3];

#[derive(Clone, Debug)]
struct PerIp {
    /// Of the three, in their order.
    descriptions: [Desc; 3],
    counts: Arc<Mutex<BTreeMap<IpAddr, Counts>>>,
}

impl PerIp {
    fn new() -> prometheus::Result<Self> {
        let described = |name: &str, help: &str| {
            let name = format!("metallb_layer2_{name}");
            Desc::new(name, help.to_owned(), vec!["ip".to_owned()], HashMap::new())
        };
        let descriptions = [
            described("requests_received", "Number of layer2 requests received for owned IPs")?,
            described(
                "responses_sent",
                "Number of layer2 responses sent for owned IPs in response to requests",
            )?,
            described("gratuitous_sent", "Number of gratuitous layer2 packets sent for owned IPs")?,
        ];
        Ok(Self { descriptions, counts: Arc::default() })
    }

    fn count(&self, ip: IpAddr, which: fn(&mut Counts) -> &mut u64) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *which(counts.entry(ip).or_default()) += 1;
    }
}

impl Collector for PerIp {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // The copy is quick; whoever answers the wire does not wait for texts that are made of it.
        let counts: Vec<(IpAddr, Counts)> = {
            let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
            counts.iter().map(|(ip, counts)| (*ip, *counts)).collect()
        };
        let series = |index: usize| {
            let counted = counts.iter().filter_map(move |(ip, counts)| {
                // What never happened has no series.
                let count = counts.get(index).copied().filter(|count| *count > 0)?;
                let mut metric = Metric::from_label(vec![label("ip", ip.to_string())]);
                let mut counter = Counter::default();
                counter.set_value(count as f64);
                metric.set_counter(counter);
                Some(metric)
            });
            counted.collect()
        };
        let families = self.descriptions.iter().enumerate();
        families.map(|(index, desc)| family(desc, MetricType::COUNTER, series(index))).collect()
    }
}

/// Services with their addresses.
pub type Held = BTreeSet<(ServiceId, IpAddr)>;

/// Which Services this node announces.
#[derive(Debug)]
pub struct Announced(Pairs);

#[derive(Clone, Debug)]
struct Pairs {
    description: Desc,
    node: String,
    now: Arc<Mutex<Arc<Held>>>,
}

impl Announced {
    /// Registers `metallb_speaker_announced`.
    ///
    /// # Errors
    /// The name is taken in `registry`.
    pub fn register(registry: &Registry, node: &str) -> prometheus::Result<Self> {
        let help = "Services being announced from this node. This is desired state, it does not guarantee that the \
                    routing protocols have converged.";
        let labels = ["service", "protocol", "node", "ip"].map(str::to_owned).to_vec();
        let name = "metallb_speaker_announced".to_owned();
        let description = Desc::new(name, help.to_owned(), labels, HashMap::new())?;
        let pairs = Pairs { description, node: node.to_owned(), now: Arc::default() };
        registry.register(Box::new(pairs.clone()))?;
        Ok(Self(pairs))
    }

    /// Exactly these are announced by layer 2 from now on.
    pub fn set(&mut self, announced: Held) {
        let mut now = self.0.now.lock().unwrap_or_else(PoisonError::into_inner);
        if **now != announced {
            *now = Arc::new(announced);
        }
    }
}

impl Collector for Pairs {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.description]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let now = Arc::clone(&self.now.lock().unwrap_or_else(PoisonError::into_inner));
        let series = now.iter().map(|(service, ip)| {
            // In the order of their names, as everywhere.
            let mut metric = Metric::from_label(vec![
                label("ip", ip.to_string()),
                label("node", self.node.clone()),
                label("protocol", "layer2".to_owned()),
                label("service", service.to_string()),
            ]);
            let mut gauge = Gauge::default();
            gauge.set_value(1.0);
            metric.set_gauge(gauge);
            metric
        });
        vec![family(&self.description, MetricType::GAUGE, series.collect())]
    }
}

fn label(name: &str, value: String) -> LabelPair {
    let mut label = LabelPair::default();
    label.set_name(name.to_owned());
    label.set_value(value);
    label
}

fn family(desc: &Desc, kind: MetricType, series: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(desc.fq_name.clone());
    family.set_help(desc.help.clone());
    family.set_field_type(kind);
    family.set_metric(series);
    family
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(registry: &Registry) -> Vec<String> {
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    #[test]
    fn series_live_as_long_as_the_announcement() {
        let registry = Registry::new();
        let mut announced = Announced::register(&registry, "node-1").unwrap();
        let ip: IpAddr = "192.0.2.1".parse().unwrap();
        announced.set(BTreeSet::from([(ServiceId::new("default", "web"), ip)]));
        assert_eq!(
            series(&registry),
            [
                r#"metallb_speaker_announced{ip="192.0.2.1",node="node-1",protocol="layer2",service="default/web"} 1"#
            ]
        );
        announced.set(BTreeSet::new());
        assert_eq!(series(&registry), [""; 0]);

        let l2 = L2Metrics::register(&registry).unwrap();
        l2.request(ip);
        l2.request(ip);
        l2.response(ip);
        l2.gratuitous(ip);
        l2.dropped("notOwned");
        let text = series(&registry).join("\n");
        for line in [
            r#"metallb_layer2_requests_received{ip="192.0.2.1"} 2"#,
            r#"metallb_layer2_responses_sent{ip="192.0.2.1"} 1"#,
            r#"metallb_layer2_gratuitous_sent{ip="192.0.2.1"} 1"#,
            r#"patina_l2_dropped_total{reason="notOwned"} 1"#,
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        let other: IpAddr = "192.0.2.2".parse().unwrap();
        l2.gratuitous(other);
        let of_other = |line: &String| line.contains("192.0.2.2");
        assert_eq!(series(&registry).into_iter().filter(of_other).count(), 1, "no series of zeros");
        l2.forget(ip);
        assert!(!series(&registry).join("\n").contains("192.0.2.1"));
    }
}
