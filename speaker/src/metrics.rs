//! The metrics of the speaker: MetalLB's names where MetalLB has one, `patina_` otherwise.

use std::collections::BTreeSet;
use std::net::IpAddr;

use patina_speaker_core::view::ServiceId;
use prometheus::{IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry};

/// Counters of the layer 2 driver. Series of an address exist while it is announced.
#[derive(Clone, Debug)]
pub struct L2Metrics {
    requests: IntCounterVec,
    responses: IntCounterVec,
    gratuitous: IntCounterVec,
    dropped: IntCounterVec,
    /// Frames that came through the kernel filter, whatever became of them: each is a wake-up at most.
    pub frames: IntCounter,
}

impl L2Metrics {
    /// Registers them.
    ///
    /// # Errors
    /// One of the names is taken in `registry`.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let per_ip = |name: &str, help: &str| {
            let counter = IntCounterVec::new(Opts::new(format!("metallb_layer2_{name}"), help), &["ip"])?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let dropped = IntCounterVec::new(
            Opts::new("patina_l2_dropped_total", "Frames not answered, and frames not sent, by reason"),
            &["reason"],
        )?;
        registry.register(Box::new(dropped.clone()))?;
        let frames = IntCounter::new("patina_l2_frames_total", "Frames that passed the kernel filter")?;
        registry.register(Box::new(frames.clone()))?;
        Ok(Self {
            requests: per_ip("requests_received", "Number of layer2 requests received for owned IPs")?,
            responses: per_ip(
                "responses_sent",
                "Number of layer2 responses sent for owned IPs in response to requests",
            )?,
            gratuitous: per_ip("gratuitous_sent", "Number of gratuitous layer2 packets sent for owned IPs")?,
            dropped,
            frames,
        })
    }

    /// A request for an owned address came in.
    pub fn request(&self, ip: IpAddr) {
        self.requests.with_label_values(&[&ip.to_string()]).inc();
    }

    /// It was answered.
    pub fn response(&self, ip: IpAddr) {
        self.responses.with_label_values(&[&ip.to_string()]).inc();
    }

    /// An unsolicited announcement went out.
    pub fn gratuitous(&self, ip: IpAddr) {
        self.gratuitous.with_label_values(&[&ip.to_string()]).inc();
    }

    /// A frame was not answered, or not sent. The reasons are few and fixed.
    pub fn dropped(&self, reason: &str) {
        self.dropped.with_label_values(&[reason]).inc();
    }

    /// The address is not announced any more: its series end.
    pub fn forget(&self, ip: IpAddr) {
        let ip = ip.to_string();
        for counter in [&self.requests, &self.responses, &self.gratuitous] {
            let _never_counted = counter.remove_label_values(&[&ip]);
        }
    }
}

/// Which Services this node announces.
#[derive(Debug)]
pub struct Announced {
    gauge: IntGaugeVec,
    node: String,
    now: BTreeSet<(ServiceId, IpAddr)>,
}

impl Announced {
    /// Registers `metallb_speaker_announced`.
    ///
    /// # Errors
    /// The name is taken in `registry`.
    pub fn register(registry: &Registry, node: &str) -> prometheus::Result<Self> {
        let gauge = IntGaugeVec::new(
            Opts::new(
                "metallb_speaker_announced",
                "Services being announced from this node. This is desired state, it does not guarantee that the \
                 routing protocols have converged.",
            ),
            &["service", "protocol", "node", "ip"],
        )?;
        registry.register(Box::new(gauge.clone()))?;
        Ok(Self { gauge, node: node.to_owned(), now: BTreeSet::new() })
    }

    /// Exactly these are announced by layer 2 from now on.
    pub fn set(&mut self, announced: BTreeSet<(ServiceId, IpAddr)>) {
        for (service, ip) in self.now.difference(&announced) {
            let _gone_already =
                self.gauge.remove_label_values(&self.labels(service, *ip).each_ref().map(String::as_str));
        }
        for (service, ip) in announced.difference(&self.now) {
            self.gauge.with_label_values(&self.labels(service, *ip).each_ref().map(String::as_str)).set(1);
        }
        self.now = announced;
    }

    fn labels(&self, service: &ServiceId, ip: IpAddr) -> [String; 4] {
        [service.to_string(), "layer2".to_owned(), self.node.clone(), ip.to_string()]
    }
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
        l2.response(ip);
        l2.gratuitous(ip);
        l2.dropped("notOwned");
        let text = series(&registry).join("\n");
        for line in [
            r#"metallb_layer2_requests_received{ip="192.0.2.1"} 1"#,
            r#"metallb_layer2_responses_sent{ip="192.0.2.1"} 1"#,
            r#"metallb_layer2_gratuitous_sent{ip="192.0.2.1"} 1"#,
            r#"patina_l2_dropped_total{reason="notOwned"} 1"#,
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        l2.forget(ip);
        assert!(!series(&registry).join("\n").contains("192.0.2.1"));
    }
}
