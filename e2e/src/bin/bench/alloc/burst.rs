//! All at once: Services that are there before the controller is, and the rate at which they get addresses, beside the
//! rate at which bare statuses go in.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};

use super::seen::{self, Watch};
use super::statuses;
use crate::Row;
use crate::audit::{self, Requests};
use crate::cluster::{self, CONTROLLER, Cluster, Daemon};
use crate::report::{median, say};

/// For all 10,000 on a busy machine.
const DEADLINE: Duration = Duration::from_secs(180);

/// What one start of the controller gave.
struct Start {
    rate: f64,
    seconds: f64,
    cpu: f64,
    rss: f64,
    peak: f64,
    requests: Requests,
}

/// `rounds` times: bare statuses, then the controller, on the same Services. They have addresses of the controller at the
/// end, which is still there.
pub(crate) async fn measure(
    cluster: &Cluster,
    count: usize,
    rounds: usize,
    size: &str,
) -> Result<(Daemon, Vec<Row>)> {
    let (mut bare, mut starts) = (Vec::new(), Vec::new());
    let mut last = None;
    for round in 1..=rounds {
        if let Some(controller) = last.take() {
            Daemon::stop(controller)?;
            statuses::clear(cluster, count).await?;
        }
        let rate = bare_statuses(cluster, count).await?;
        statuses::clear(cluster, count).await?;
        let (controller, start) = allocate(cluster, count).await?;
        say(&format!("round {round} of {rounds}: {:.0}/s by the controller, {rate:.0}/s bare", start.rate));
        bare.push(rate);
        starts.push(start);
        last = Some(controller);
    }
    let controller = last.context("no round")?;
    Ok((controller, rows(count, size, &bare, &starts)))
}

async fn bare_statuses(cluster: &Cluster, count: usize) -> Result<f64> {
    let (_, version) = seen::list(&cluster.client()).await?;
    let mut watch = Watch::start(&cluster.client(), &version).await?;
    let given =
        async { tokio::time::timeout(DEADLINE, watch.addresses(count)).await.context("bare statuses")? };
    let ((first, last), ()) = tokio::try_join!(given, statuses::give(cluster))?;
    Ok(count as f64 / (last - first).as_secs_f64())
}

async fn allocate(cluster: &Cluster, count: usize) -> Result<(Daemon, Start)> {
    let (_, version) = seen::list(&cluster.client()).await?;
    let mut watch = Watch::start(&cluster.client(), &version).await?;
    let mark = audit::mark(cluster.audit());
    let controller = cluster.start_controller()?;
    let given = tokio::time::timeout(DEADLINE, watch.addresses(count)).await;
    let (first, last) = given.with_context(|| format!("not all of {count} Services got an address"))??;
    cluster::calm().await;
    let seconds = (last - first).as_secs_f64();
    let start = Start {
        rate: count as f64 / seconds,
        seconds,
        cpu: controller.cpu_s()?,
        rss: controller.rss_mb()?,
        peak: controller.peak_rss_mb()?,
        requests: audit::since(cluster.audit(), mark, CONTROLLER)?,
    };
    Ok((controller, start))
}

fn rows(count: usize, size: &str, bare: &[f64], starts: &[Start]) -> Vec<Row> {
    let n = starts.len();
    // The rows of 10,000 have the short names.
    let (infix, suffix) = if size == "10k" { ("", "") } else { ("_1k", "_1k") };
    let of = |value: fn(&Start) -> f64| median(starts.iter().map(value));
    let ratios = starts.iter().zip(bare).map(|(start, bare)| start.rate / bare);
    let each: Vec<String> = starts.iter().zip(bare).map(|(s, b)| format!("{:.0}/{b:.0}", s.rate)).collect();
    let mut rows = vec![
        Row::new(
            &format!("alloc{infix}_per_s"),
            of(|start| start.rate),
            "1/s",
            n,
            format!(
                "{count} Services present before the controller starts: first -> last address seen by a watch; median"
            ),
        ),
        Row::new(
            &format!("api_patch{infix}_per_s"),
            median(bare.iter().copied()),
            "1/s",
            n,
            "bare status patches of the same Services by the same kind of client, seen by the same watch; median",
        ),
        Row::new(
            &format!("alloc{infix}_ratio"),
            median(ratios),
            "ratio",
            n,
            format!("median of the rounds' ratios: {}", each.join(", ")),
        ),
        Row::new(
            &format!("alloc_cpu_s_{size}"),
            of(|start| start.cpu),
            "s",
            n,
            "user and system time of the controller from its start to 10 s after the last address; median",
        ),
        Row::new(
            &format!("controller_rss_{size}_mb"),
            of(|start| start.rss),
            "MB",
            n,
            format!("VmRSS with {count} Services, 10 s after the last address; median"),
        ),
        Row::new(
            &format!("controller_rss_peak_{size}_mb"),
            of(|start| start.peak),
            "MB",
            n,
            "VmHWM: the most until then; median",
        ),
    ];
    let Some(last) = starts.last() else { return rows };
    let pool_writes = last.requests.get("patch ipaddresspools/status").copied().unwrap_or(0);
    rows.push(Row::new(
        &format!("pool_status_per_s{suffix}"),
        pool_writes as f64 / (last.seconds + 10.0),
        "1/s",
        pool_writes,
        "writes of the pool's status from the first address to 10 s after the last, last round",
    ));
    for (verb, (number, what)) in by_verb(&last.requests) {
        let note = format!("requests of the controller in the last round: {}", audit::told(&what));
        rows.push(Row::new(&format!("requests_{verb}{suffix}"), number as f64, "", 1, note));
    }
    rows
}

fn by_verb(requests: &Requests) -> BTreeMap<&str, (usize, Requests)> {
    let mut verbs = BTreeMap::<&str, (usize, Requests)>::new();
    for (what, number) in requests {
        let verb = what.split(' ').next().unwrap_or_default();
        let entry = verbs.entry(verb).or_default();
        entry.0 += number;
        entry.1.insert(what.clone(), *number);
    }
    verbs
}
