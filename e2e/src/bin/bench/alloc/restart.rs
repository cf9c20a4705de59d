//! A controller that ends and starts again while everybody has an address.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::{DeleteParams, PostParams};

use super::seen::{self, Watch};
use crate::Row;
use crate::audit;
use crate::cluster::{self, CONTROLLER, Cluster, Daemon};
use crate::report::{median, say};

/// Numbers of the Services that are created here.
const FIRST: usize = 95_000;
const RESTARTS: usize = 3;
const DEADLINE: Duration = Duration::from_secs(60);
/// How long a controller that has nothing to do is watched.
const STEADY: Duration = Duration::from_secs(20);

pub(crate) async fn measure(cluster: &Cluster, controller: Daemon, count: usize) -> Result<Vec<Row>> {
    say("nothing to do, then restarts");
    let mut rows = Vec::new();
    let (log, cpu) = (cluster.audit(), controller.cpu_s()?);
    cluster::calm().await;
    let mark = audit::mark(log);
    tokio::time::sleep(STEADY).await;
    let requests = audit::since(log, mark, CONTROLLER)?;
    let steady = audit::writes(&requests);
    let note = format!(
        "writes within 20 s in which nothing happens, without the Lease's; all requests: {}",
        audit::told(&requests)
    );
    rows.push(Row::new("steady_writes_10k", steady.values().sum::<usize>() as f64, "", 1, note));
    let note = "CPU of the controller in 30 s in which nothing happens, in % of a core";
    rows.push(Row::new("steady_cpu_pct_10k", (controller.cpu_s()? - cpu) / 30.0 * 100.0, "%", 1, note));

    controller.stop()?;
    let mark = audit::mark(log);
    let mut controller = cluster.controller().await?;
    cluster::calm().await;
    let writes = audit::writes(&audit::since(log, mark, CONTROLLER)?);
    let own = cluster.metric("patina_controller_status_writes_total")?;
    let note = format!(
        "writes of a controller that starts beside {count} Services with addresses, 10 s after it is ready, without the \
         Lease's, as the API server counts them: {}; by its own metric it wrote {own} statuses",
        audit::told(&writes)
    );
    rows.push(Row::new("restart_writes_10k", writes.values().sum::<usize>() as f64, "", 1, note));
    let note = format!("VmRSS with {count} Services, 10 s after a restart");
    rows.push(Row::new("controller_rss_restart_10k_mb", controller.rss_mb()?, "MB", 1, note));
    let note = "VmHWM of the restarted controller: the list is the most that it ever needs";
    rows.push(Row::new("controller_rss_restart_peak_10k_mb", controller.peak_rss_mb()?, "MB", 1, note));

    let mut took = Vec::new();
    for i in 0..RESTARTS {
        controller.stop()?;
        let (next, seconds) = new_service(cluster, FIRST + i).await?;
        controller = next;
        took.push(seconds);
    }
    rows.push(Row::new(
        "restart_new_service_s_10k",
        median(took.iter().copied()),
        "s",
        took.len(),
        format!(
            "a controller that ended in order is started -> a new Service has its address; each: {took:.2?}"
        ),
    ));
    controller.crash();
    let (controller, seconds) = new_service(cluster, FIRST + RESTARTS).await?;
    rows.push(Row::new(
        "crash_new_service_s_10k",
        seconds,
        "s",
        1,
        "the same after SIGKILL: the Lease of the dead one runs for 15 s more, and until then nobody may write",
    ));
    controller.stop()?;
    Ok(rows)
}

/// Starts a controller beside a Service that is new; seconds from the start until it has an address.
async fn new_service(cluster: &Cluster, number: usize) -> Result<(Daemon, f64)> {
    let client = cluster.client();
    let services: Api<Service> = Api::namespaced(client.clone(), cluster::NAMESPACE);
    let (_, version) = seen::list(&client).await?;
    let mut watch = Watch::start(&client, &version).await?;
    services.create(&PostParams::default(), &cluster::service(number)).await?;
    let start = Instant::now();
    let controller = cluster.start_controller()?;
    let given = tokio::time::timeout(DEADLINE, watch.addresses(1)).await;
    let (_, seen) = given.with_context(|| format!("no address within {DEADLINE:?}"))??;
    services.delete(&cluster::service_name(number), &DeleteParams::default()).await?;
    Ok((controller, (seen - start).as_secs_f64()))
}
