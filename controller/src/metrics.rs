//! MetalLB's metrics of the controller, and ours beside them.

use std::collections::{BTreeMap, BTreeSet};

use patina_controller_core::allocator::{Allocator, Usage};
use patina_controller_core::reason::Reason;
use patina_runtime::metrics::ConfigMetrics;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

const ALLOCATOR: &str = "metallb_allocator";

#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    pub(crate) config: ConfigMetrics,
    pools: PoolGauges,
    /// Labelled by what came of it: ok, conflict (it changed meanwhile, looked at again), gone, failed (tried again).
    pub(crate) writes: IntCounterVec,
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
        for result in ["ok", "conflict", "gone", "failed"] {
            writes.with_label_values(&[result]).reset();
        }
        registry.register(Box::new(writes.clone()))?;
        let leading = IntGauge::new("patina_controller_leading", "1 while this controller holds the Lease")?;
        registry.register(Box::new(leading.clone()))?;
        let releases = IntCounter::new(
            "patina_controller_addresses_lost_total",
            "Times a Service had to give up its addresses while it existed",
        )?;
        registry.register(Box::new(releases.clone()))?;
        Ok(Self { config: ConfigMetrics::register(registry)?, pools, writes, leading, releases, waiting })
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

    /// What a standby knows: nothing about addresses.
    pub(crate) fn clear(&self, shown: &mut BTreeSet<String>) {
        for pool in std::mem::take(shown) {
            self.pools.remove(&pool);
        }
        self.show_waiting(&BTreeMap::new());
        self.leading.set(0);
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
