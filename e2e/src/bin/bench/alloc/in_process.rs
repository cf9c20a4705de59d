//! The allocator alone: no API server, only decisions.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use nix::time::{ClockId, clock_gettime};
use patina_controller_core::decide::{Decision, Policy};
use patina_controller_core::reconcile::Reconciler;
use patina_controller_core::view::{ServiceId, ServiceView};
use patina_crds::config::{self, Resources};
use patina_crds::types::IPAddressPool;
use serde_json::json;

use crate::Row;
use crate::cluster::object;

const SERVICES: usize = 10_000;
/// Of 64 addresses each, so the first 156 are full at the end and every decision has to get past the full ones.
const SMALL_POOLS: usize = 200;

pub(crate) fn measure() -> Result<Vec<Row>> {
    let small = (0..SMALL_POOLS).map(|i| format!("10.20.{}.{}/26", i / 4, i % 4 * 64)).collect();
    let v6 = |family: &str| if family == "IPv6" { "fd00:96::1" } else { "10.96.0.1" };
    let kinds: [(&str, &str, Vec<String>, &str); 3] = [
        ("allocator_10k_16_cpu_s", "IPv4", vec!["10.20.0.0/16".to_owned()], "a /16"),
        ("allocator_10k_64_cpu_s", "IPv6", vec!["fd00:20::/64".to_owned()], "an IPv6 /64"),
        ("allocator_10k_200_pools_cpu_s", "IPv4", small, "200 pools of 64 addresses"),
    ];
    let mut rows = Vec::new();
    for (metric, family, pools, what) in kinds {
        let took = decide_all(&pools, v6(family))?;
        let note = format!("CPU time to decide about 10,000 new Services in one process, from {what}");
        rows.push(Row::new(metric, took.as_secs_f64(), "s", 1, note));
    }
    let worst = rows.iter().map(|row| row.value).fold(0.0, f64::max);
    rows.insert(0, Row::new("allocator_10k_cpu_s", worst, "s", rows.len(), "the slowest of the next three"));
    Ok(rows)
}

fn decide_all(ranges: &[String], cluster_ip: &str) -> Result<Duration> {
    let pool = |(i, range): (usize, &String)| {
        object::<IPAddressPool>(json!({
            "metadata": {"namespace": "metallb-system", "name": format!("pool-{i:03}")}, "spec": {"addresses": [range]},
        }))
    };
    let pools = ranges.iter().enumerate().map(pool).collect::<Result<_>>()?;
    let resources = Resources { namespace: "metallb-system".to_owned(), pools, ..Resources::default() };
    let loaded = config::build(&resources).map_err(|errors| anyhow::anyhow!("{errors}"))?;
    let mut services = Vec::new();
    for i in 0..SERVICES {
        let id = ServiceId::new("default", crate::cluster::service_name(i));
        let created = i64::try_from(i / 100)?;
        services
            .push(ServiceView { cluster_ips: vec![cluster_ip.parse()?], ..ServiceView::plain(id, created) });
    }

    let before = cpu_time()?;
    let mut reconciler = Reconciler::new(Policy::default());
    reconciler.config_changed(Arc::new(loaded.config));
    for service in services {
        reconciler.service_changed(service);
    }
    ensure!(reconciler.start(), "the reconciler has no configuration");
    let outcomes = reconciler.reconcile();
    let took = cpu_time()? - before;
    let given =
        outcomes.iter().filter(|(_, outcome)| matches!(outcome.decision, Decision::Assign { .. })).count();
    ensure!(given == SERVICES, "{given} of {SERVICES} Services got an address");
    Ok(took)
}

/// Of this process, whose only busy thread this is.
fn cpu_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?.into())
}
