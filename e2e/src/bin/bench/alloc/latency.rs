//! One Service after another: from its creation to its address.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Service;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, ResourceExt};

use super::seen::{self, Watch};
use crate::Row;
use crate::cluster::{self, Cluster};
use crate::report::percentile;

/// Created and dropped before anything is counted: connections, caches and page faults of a first time.
const WARM_UP: usize = 20;
const SAMPLES: usize = 300;
/// Numbers of these Services, beside those that are present.
const FIRST: usize = 90_000;
const DEADLINE: Duration = Duration::from_secs(30);

/// Rows `create_p50_ms` and so on, with `suffix`. Each Service is gone before the next one comes.
pub(crate) async fn measure(cluster: &Cluster, suffix: &str, present: &str) -> Result<Vec<Row>> {
    let client = cluster.client();
    let services: Api<Service> = Api::namespaced(client.clone(), cluster::NAMESPACE);
    let (_, version) = seen::list(&client).await?;
    let mut watch = Watch::start(&client, &version).await?;
    let (mut there, mut given, mut total) = (Vec::new(), Vec::new(), Vec::new());
    for i in 0..WARM_UP + SAMPLES {
        let service = cluster::service(FIRST + i);
        let name = service.name_any();
        let took = tokio::time::timeout(DEADLINE, one(&services, &service, &mut watch)).await;
        let took = took.with_context(|| format!("{name} got no address within {DEADLINE:?}"))??;
        services.delete(&name, &DeleteParams::default()).await?;
        if i >= WARM_UP {
            there.push(milliseconds(took.there));
            given.push(milliseconds(took.given - took.there));
            total.push(milliseconds(took.given));
        }
    }
    for samples in [&mut there, &mut given, &mut total] {
        samples.sort_by(f64::total_cmp);
    }
    let row = |name: &str, samples: &[f64], share: f64, note: &str| {
        Row::new(&format!("{name}{suffix}"), percentile(samples, share), "ms", samples.len(), note)
    };
    let created = format!(
        "the API server has created a Service (its answer or the watch says so, whichever is first) -> a watching client \
         sees its address; {present}"
    );
    let before = "before that: from the request to the created Service, which is the API server's time alone";
    let whole = "both together: from the request to the address";
    Ok(vec![
        row("create_p50_ms", &given, 0.50, &created),
        row("create_p99_ms", &given, 0.99, &created),
        row("create_max_ms", &given, 1.0, "the slowest of them"),
        row("create_request_p50_ms", &there, 0.50, before),
        row("create_request_p99_ms", &there, 0.99, before),
        row("create_total_p50_ms", &total, 0.50, whole),
        row("create_total_p99_ms", &total, 0.99, whole),
    ])
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Moments in the life of a Service, from the request that creates it.
struct Took {
    there: Duration,
    given: Duration,
}

async fn one(services: &Api<Service>, service: &Service, watch: &mut Watch) -> Result<Took> {
    let name = service.name_any();
    let start = Instant::now();
    let answered = async {
        services.create(&PostParams::default(), service).await?;
        anyhow::Ok(start.elapsed())
    };
    let watched = async {
        let mut first = None;
        loop {
            let seen = watch.next().await?;
            if seen.metadata.name == name {
                let first = *first.get_or_insert_with(|| start.elapsed());
                if seen.has_address() {
                    return anyhow::Ok((first, start.elapsed()));
                }
            }
        }
    };
    let (answered, (first, given)) = tokio::try_join!(answered, watched)?;
    Ok(Took { there: answered.min(first), given })
}
