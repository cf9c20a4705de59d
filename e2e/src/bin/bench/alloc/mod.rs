//! From Services to addresses: how fast, beside what the API server can take at all, and what the controller needs for it.
//!
//! * `in_process`: the allocator alone. * `latency`: one Service after another. * `burst`: all at once. * `restart`.
//! * `statuses`: the client that writes bare statuses. * `seen`: who watches, and when what was seen.

mod burst;
mod in_process;
mod latency;
mod restart;
mod seen;
pub(crate) mod statuses;

use anyhow::Result;

use crate::Row;
use crate::cluster::{self, Cluster};
use crate::report::say;

/// As many as a large cluster has. `PATINA_BENCH_SERVICES` makes a rehearsal smaller (the names of the rows stay).
const MANY: usize = 10_000;
const SOME: usize = 1_000;
/// Each round is one start of the controller and one run of the bare client. `PATINA_BENCH_ROUNDS` changes it.
const ROUNDS: usize = 3;

pub(crate) async fn measure() -> Result<Vec<Row>> {
    let many = from_environment("PATINA_BENCH_SERVICES", MANY)?;
    let some = SOME.min(many / 2);
    let rounds = from_environment("PATINA_BENCH_ROUNDS", ROUNDS)?;

    say("the allocator alone");
    let mut rows = in_process::measure()?;
    say("a control plane");
    let cluster = Cluster::start().await?;

    say("an idle controller, then one Service after another");
    let controller = cluster.controller().await?;
    cluster::calm().await;
    let note = "VmRSS, a pool and no Service, 10 s after the start";
    rows.push(Row::new("controller_rss_idle_mb", controller.rss_mb()?, "MB", 1, note));
    rows.extend(latency::measure(&cluster, "", "none other present").await?);
    controller.stop()?;

    say(&format!("{some} Services"));
    cluster.create_services(0..some).await?;
    let (controller, more) = burst::measure(&cluster, some, rounds, "1k").await?;
    rows.extend(more);
    controller.stop()?;
    statuses::clear(&cluster, some).await?;

    say(&format!("{many} Services"));
    cluster.create_services(some..many).await?;
    let (controller, more) = burst::measure(&cluster, many, rounds, "10k").await?;
    rows.extend(more);

    say("one Service after another beside them");
    rows.extend(latency::measure(&cluster, "_10k", "10,000 others present").await?);
    rows.extend(restart::measure(&cluster, controller, many).await?);
    Ok(rows)
}

fn from_environment(name: &str, usual: usize) -> Result<usize> {
    std::env::var(name).map_or(Ok(usual), |value| Ok(value.parse()?))
}
