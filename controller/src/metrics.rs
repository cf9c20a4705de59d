//! MetalLB's metrics of the controller, and ours beside them.

use std::collections::{BTreeMap, BTreeSet};

use patina_controller_core::allocator::{Allocator, Usage};
use patina_controller_core::reason::Reason;
use patina_runtime::metrics::ConfigMetrics;
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

const ALLOCATOR: &str = "metallb_allocator";
/// What can come of a patch: ok; conflict: it changed meanwhile, looked at again; gone: deleted meanwhile; busy: 429, later
/// and less; refused: 4xx; failed: 5xx or no answer; unreachable: no connection. All but the first three are tried again.
const WRITE_RESULTS: [&str; 7] = ["ok", "conflict", "gone", "busy", "refused", "failed", "unreachable"];
/// From well under a round trip to the API server, up to what people complain about.
const BUCKETS: [f64; 14] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0];

#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    pub(crate) config: ConfigMetrics,
    pools: PoolGauges,
    /// Labelled by what came of it: see [`WRITE_RESULTS`].
    pub(crate) writes: IntCounterVec,
    pub(crate) writes_in_flight: IntGauge,
    pub(crate) write_window: IntGauge,
    /// Services written after a takeover so that late writes of the leader before do no harm.
    pub(crate) fenced: IntCounter,
    pub(crate) allocation_seconds: Histogram,
    /// By the word of the reason.
    pub(crate) failures: IntCounterVec,
    pub(crate) leading: IntGauge,
    pub(crate) releases: IntCounter,
    waiting: IntGaugeVec,
}

#[derive(Clone, Debug)]
struct PoolGauges {
    total: IntGaugeVec,
    used: IntGaugeVec,
    total_v4: IntGaugeVec,
    used_v4: IntGaugeVec,
    total_v6: IntGaugeVec,
    used_v6: IntGaugeVec,
    services: IntGaugeVec,
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let gauges = |name: String, help: &str, label: &str| -> prometheus::Result<IntGaugeVec> {
            let gauges = IntGaugeVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(gauges.clone()))?;
            Ok(gauges)
        };
        let pool = |name: &str, help: &str| gauges(format!("{ALLOCATOR}_{name}"), help, "pool");
        let pools = PoolGauges {
            total: pool("addresses_total", "Number of usable addresses, per pool")?,
            used: pool("addresses_in_use_total", "Number of addresses in use, per pool")?,
            total_v4: pool("ipv4_addresses_total", "Number of usable IPv4 addresses, per pool")?,
            used_v4: pool("ipv4_addresses_in_use_total", "Number of IPv4 addresses in use, per pool")?,
            total_v6: pool("ipv6_addresses_total", "Number of usable IPv6 addresses, per pool")?,
            used_v6: pool("ipv6_addresses_in_use_total", "Number of IPv6 addresses in use, per pool")?,
            services: pool("services_allocated_total", "Number of Services with addresses, per pool")?,
        };
        let waiting = gauges(
            "patina_controller_services_waiting".to_owned(),
            "Services of type LoadBalancer without an address, by reason",
            "reason",
        )?;
        for word in Reason::WORDS {
            waiting.with_label_values(&[word]).set(0);
        }
        let writes = IntCounterVec::new(
            Opts::new("patina_controller_status_writes_total", "Patches of Service statuses, by result"),
            &["result"],
        )?;
        for result in WRITE_RESULTS {
            writes.with_label_values(&[result]).reset();
        }
        registry.register(Box::new(writes.clone()))?;
        let failures = IntCounterVec::new(
            Opts::new(
                "patina_controller_allocation_failures_total",
                "Times a Service was told to wait for an address, by reason; once until the reason is another one",
            ),
            &["reason"],
        )?;
        for word in Reason::WORDS {
            failures.with_label_values(&[word]).reset();
        }
        registry.register(Box::new(failures.clone()))?;
        let allocation_seconds = Histogram::with_opts(
            HistogramOpts::new(
                "patina_controller_allocation_seconds",
                "From the moment that a Service without an address was seen to the acknowledged write of its status;                  without Services that were told to wait",
            )
            .buckets(BUCKETS.to_vec()),
        )?;
        registry.register(Box::new(allocation_seconds.clone()))?;
        let gauge = |name: &str, help: &str| -> prometheus::Result<IntGauge> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let counter = |name: &str, help: &str| -> prometheus::Result<IntCounter> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        Ok(Self {
            config: ConfigMetrics::register(registry)?,
            pools,
            writes,
            writes_in_flight: gauge(
                "patina_controller_status_writes_in_flight",
                "Patches of Service statuses under way",
            )?,
            write_window: gauge(
                "patina_controller_status_write_window",
                "Patches of Service statuses that may be under way; smaller while the API server says that it is busy",
            )?,
            fenced: counter(
                "patina_controller_services_fenced_total",
                "Services without an address that were written first because the leader before had not finished",
            )?,
            allocation_seconds,
            failures,
            leading: gauge("patina_controller_leading", "1 while this controller holds the Lease")?,
            releases: counter(
                "patina_controller_addresses_lost_total",
                "Times a Service had to give up its addresses while it existed",
            )?,
            waiting,
        })
    }

    /// Shows how full the pools are; pools that are gone disappear.
    pub(crate) fn show_pools(&self, allocator: &Allocator, shown: &mut BTreeSet<String>) {
        let mut now = BTreeSet::new();
        for (name, usage) in allocator.usage() {
            self.pools.set(name, &usage);
            now.insert(name.to_owned());
        }
        for gone in shown.difference(&now) {
            self.pools.remove(gone);
        }
        *shown = now;
    }

    pub(crate) fn show_waiting(&self, by_reason: &BTreeMap<&'static str, i64>) {
        for word in Reason::WORDS {
            self.waiting.with_label_values(&[word]).set(by_reason.get(word).copied().unwrap_or(0));
        }
    }

    #[cfg(test)]
    pub(crate) fn waiting_for(&self, word: &str) -> i64 {
        self.waiting.with_label_values(&[word]).get()
    }

    /// What a standby knows: nothing about addresses.
    pub(crate) fn clear(&self, shown: &mut BTreeSet<String>) {
        for pool in std::mem::take(shown) {
            self.pools.remove(&pool);
        }
        self.show_waiting(&BTreeMap::new());
        self.leading.set(0);
        self.writes_in_flight.set(0);
    }
}

impl PoolGauges {
    fn all(&self) -> [&IntGaugeVec; 7] {
        [
            &self.total,
            &self.used,
            &self.total_v4,
            &self.used_v4,
            &self.total_v6,
            &self.used_v6,
            &self.services,
        ]
    }

    fn set(&self, pool: &str, usage: &Usage) {
        let values = [
            usage.total_v4.saturating_add(usage.total_v6),
            usage.used_v4.saturating_add(usage.used_v6),
            usage.total_v4,
            usage.used_v4,
            usage.total_v6,
            usage.used_v6,
            usage.services as u128,
        ];
        for (gauge, value) in self.all().into_iter().zip(values) {
            gauge.with_label_values(&[pool]).set(saturated(value));
        }
    }

    fn remove(&self, pool: &str) {
        for gauge in self.all() {
            // An error says that there was none.
            let _ = gauge.remove_label_values(&[pool]);
        }
    }
}

/// As MetalLB counts: what does not fit an int64 is the largest.
pub(crate) fn saturated(n: u128) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use patina_controller_core::surroundings::Surroundings;
    use patina_controller_core::view::ServiceId;
    use patina_crds::config::{Resources, build};
    use patina_crds::types::IPAddressPool;

    use super::*;

    /// Metrics of api.md 4.4 for the controller, and ours: each has a value as soon as there is something to tell, and
    /// none is registered for nothing.
    #[test]
    fn every_metric_is_set() {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        let mut pool = IPAddressPool::new("a", Default::default());
        pool.spec.addresses = vec!["192.0.2.0/30".to_owned(), "2001:db8::/127".to_owned()];
        let loaded = build(&Resources { pools: vec![pool], ..Resources::default() }).unwrap();
        let mut allocator = Allocator::default();
        allocator.configure(&loaded.config, &Surroundings::default());
        let sharing = patina_controller_core::allocator::Sharing::default();
        let taken = ["192.0.2.1".parse().unwrap()];
        allocator.assign(&ServiceId::new("n", "s"), &taken, &sharing).unwrap();
        metrics.show_pools(&allocator, &mut BTreeSet::new());

        let families = registry.gather();
        let value = |name: &str| {
            let family =
                families.iter().find(|family| family.name() == name).unwrap_or_else(|| panic!("{name}"));
            family.get_metric()[0].get_gauge().get_value()
        };
        for (name, expected) in [
            ("metallb_allocator_addresses_total", 6.0),
            ("metallb_allocator_addresses_in_use_total", 1.0),
            ("metallb_allocator_ipv4_addresses_total", 4.0),
            ("metallb_allocator_ipv4_addresses_in_use_total", 1.0),
            ("metallb_allocator_ipv6_addresses_total", 2.0),
            ("metallb_allocator_ipv6_addresses_in_use_total", 0.0),
            ("metallb_allocator_services_allocated_total", 1.0),
        ] {
            assert!((value(name) - expected).abs() < 0.1, "{name} is {}", value(name));
        }
        let labels = |name: &str| families.iter().find(|f| f.name() == name).unwrap().get_metric().len();
        assert_eq!(labels("patina_controller_allocation_failures_total"), Reason::WORDS.len());
        assert_eq!(labels("patina_controller_services_waiting"), Reason::WORDS.len());
        assert_eq!(labels("patina_controller_status_writes_total"), WRITE_RESULTS.len());
        assert!(families.iter().all(|family| !family.get_metric().is_empty()));
    }
}
