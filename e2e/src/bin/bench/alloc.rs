//! From the creation of a Service to the address in its status, and what the controller needs for it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Service;
use kube::api::{PostParams, WatchEvent, WatchParams};
use kube::{Api, ResourceExt};

use crate::Row;
use crate::cluster::{self, Cluster, has_address};
use crate::report::percentile;

/// Created and dropped before anything is counted: connections, caches and page faults of a first time.
const WARM_UP: usize = 10;
const SAMPLES: usize = 100;
const MANY: usize = 1000;
const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) async fn measure() -> Result<Vec<Row>> {
    let cluster = Cluster::start(None).await?;
    let controller = cluster.controller().await?;
    cluster::calm().await;
    let idle = controller.rss_mb()?;

    let mut samples = create_one_after_another(&cluster).await?;
    samples.sort_by(f64::total_cmp);
    let note = "Service created -> address in its status, as a watching client sees it; one after another";

    let created = samples.len() + WARM_UP;
    let start = Instant::now();
    cluster.create_services(created..MANY).await?;
    cluster.all_have_addresses(MANY).await?;
    let took = start.elapsed().as_secs_f64();
    cluster::calm().await;
    let loaded = controller.rss_mb()?;
    let batch = MANY - created;
    Ok(vec![
        Row::new("create_p50_ms", percentile(&samples, 0.50), "ms", samples.len(), note),
        Row::new("create_p99_ms", percentile(&samples, 0.99), "ms", samples.len(), note),
        Row::new("create_max_ms", percentile(&samples, 1.0), "ms", samples.len(), "the slowest of them"),
        Row::new(
            "burst_per_s",
            batch as f64 / took,
            "1/s",
            batch,
            "the rest of 1,000 created by 16 clients at once: first creation -> last address, creations included",
        ),
        Row::new(
            "controller_rss_idle_mb",
            idle,
            "MB",
            1,
            "VmRSS, a pool and no Service, 10 s after the start",
        ),
        Row::new("controller_rss_1k_mb", loaded, "MB", 1, "VmRSS, 1,000 Services with addresses, 10 s later"),
        Row::new("controller_cpu_1k_s", controller.cpu_s()?, "s", 1, "user and system time up to then"),
    ])
}

/// Milliseconds for each of [`SAMPLES`] Services.
async fn create_one_after_another(cluster: &Cluster) -> Result<Vec<f64>> {
    let services: Api<Service> = Api::namespaced(cluster.client(), cluster::NAMESPACE);
    let version = services.list(&Default::default()).await?.metadata.resource_version.unwrap_or_default();
    let params = WatchParams::default().timeout(290);
    let mut watch = services.watch(&params, &version).await?.boxed();
    let mut samples = Vec::new();
    for i in 0..WARM_UP + SAMPLES {
        let service = cluster::service(i);
        let name = service.name_any();
        let start = Instant::now();
        services.create(&PostParams::default(), &service).await?;
        let given = async {
            while let Some(event) = watch.try_next().await? {
                if let WatchEvent::Modified(seen) | WatchEvent::Added(seen) = event
                    && seen.name_any() == name
                    && has_address(&seen)
                {
                    return anyhow::Ok(start.elapsed());
                }
            }
            anyhow::bail!("the watch ended")
        };
        let took = tokio::time::timeout(DEADLINE, given)
            .await
            .with_context(|| format!("{name} got no address within {DEADLINE:?}"))??;
        if i >= WARM_UP {
            samples.push(took.as_secs_f64() * 1000.0);
        }
    }
    Ok(samples)
}
