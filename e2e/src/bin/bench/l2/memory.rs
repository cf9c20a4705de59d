//! What speakers need: memory with no Service, with a thousand and with ten thousand, and CPU while nothing happens.
//!
//! Three speakers that know each other: each knows all Services and announces a third. Then one is left with all.

use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use kube::Api;
use kube::api::ListParams;
use patina_crds::types::ServiceL2Status;
use patina_e2e::lan::{Lan, LanNode, SYSTEM};
use patina_e2e::wait::{self, Seen, secs};

use super::stage::{Stage, many};
use crate::Row;
use crate::cluster::calm;
use crate::report::say;

const SPEAKERS: usize = 3;
const SOME: usize = 1000;
/// How long nothing happens while CPU time is measured: one round of the repeated announcements.
const QUIET: Duration = Duration::from_secs(60);

/// Leaves the LAN with all its Services to whoever has another use for them.
pub(crate) async fn measure(rows: &mut Vec<Row>) -> Result<Stage> {
    let mut stage = Stage::crowded(SPEAKERS, 0).await?;
    let measured = all(&mut stage, rows).await;
    stage.told(measured)?;
    Ok(stage)
}

async fn all(stage: &mut Stage, rows: &mut Vec<Row>) -> Result<()> {
    let lan = &mut stage.lan;
    let many = many()?;
    calm().await;
    let three = "the largest of three speakers that know each other";
    let of = |lan: &Lan, count: usize| -> Result<(f64, String)> {
        let (rss, heap, peak) = (most(lan, "VmRSS")?, most(lan, "RssAnon")?, most(lan, "VmHWM")?);
        let note = format!("VmRSS, {three}; of it anonymous {heap:.1}, the most it ever had {peak:.1}");
        say(&format!("{count} Services: {rss:.1} MB; {note}"));
        Ok((rss, note))
    };
    let (idle, note) = of(lan, 0)?;
    rows.push(Row::new(
        "speaker_rss_idle_mb",
        idle,
        "MB",
        SPEAKERS,
        format!("{note}; a pool and no Service"),
    ));
    rows.push(Row::new(
        "speaker_idle_cpu_pct",
        cpu_pct(lan).await?,
        "%",
        SPEAKERS,
        cpu_note(three, "no Service"),
    ));

    create(lan, 0..SOME).await?;
    announced(lan, SOME).await?;
    let (some, note) = of(lan, SOME)?;
    rows.push(Row::new(
        "speaker_rss_1k_mb",
        some,
        "MB",
        SPEAKERS,
        format!("{note}; 1,000 Services, each announces a third"),
    ));

    create(lan, SOME..many).await?;
    announced(lan, many).await?;
    let (all, note) = of(lan, many)?;
    rows.push(Row::new(
        "speaker_rss_10k_mb",
        all,
        "MB",
        SPEAKERS,
        format!("{note}; {many} Services, each announces a third"),
    ));
    let what = format!("{many} Services, each announces a third again every 60 s");
    rows.push(Row::new(
        "speaker_idle_cpu_pct_10k",
        cpu_pct(lan).await?,
        "%",
        SPEAKERS,
        cpu_note(three, &what),
    ));

    // Two say farewell: the third has all.
    for node in 1..SPEAKERS {
        lan.node_mut(node)?.terminate(secs(5));
    }
    announced(lan, many).await?;
    let (alone, _) = of(lan, many)?;
    rows.push(Row::new(
        "speaker_rss_10k_alone_mb",
        alone,
        "MB",
        1,
        format!("VmRSS of one of them after it took the others' over: it announces all {many}"),
    ));
    stage.vips = stage.lan.addresses(0..many).await?;
    Ok(())
}

async fn create(lan: &Lan, numbers: Range<usize>) -> Result<()> {
    let began = Instant::now();
    lan.services(numbers.clone()).await?;
    say(&format!("Services {numbers:?} have addresses after {:.0} s", began.elapsed().as_secs_f64()));
    Ok(())
}

async fn announced(lan: &Lan, count: usize) -> Result<()> {
    let began = Instant::now();
    shown(lan, count).await?;
    say(&format!("{count} announced and shown after {:.0} s", began.elapsed().as_secs_f64()));
    calm().await;
    Ok(())
}

/// Waits until as many addresses are announced, and as many status objects are there.
pub(crate) async fn shown(lan: &Lan, count: usize) -> Result<()> {
    let statuses: Api<ServiceL2Status> = Api::namespaced(lan.api(), SYSTEM);
    wait::until("all Services are announced, and shown", secs(600), || {
        let sum =
            running(lan).map(|node| node.metric("patina_l2_announced", "")).sum::<Result<Option<f64>>>();
        let statuses = statuses.clone();
        async move {
            let here = sum?.unwrap_or_default();
            // The first page says how many more there are.
            let page = statuses.list_metadata(&ListParams::default().limit(1)).await?;
            let shown = page.items.len() as i64 + page.metadata.remaining_item_count.unwrap_or_default();
            tokio::time::sleep(secs(1)).await;
            Ok(Seen::when(
                here == count as f64 && shown == count as i64,
                format!("{here} announced, {shown} shown"),
            ))
        }
    })
    .await
    .map(drop)
}

fn running(lan: &Lan) -> impl Iterator<Item = &LanNode> {
    lan.nodes().iter().filter(|node| node.runs())
}

/// The largest value of a line of `/proc/PID/status` among the speakers, in MB (10^6 bytes).
fn most(lan: &Lan, field: &str) -> Result<f64> {
    let values = running(lan).map(|node| node.memory(field)).collect::<Result<Vec<u64>>>()?;
    Ok(values.into_iter().max().context("no speaker runs")? as f64 / 1e6)
}

/// Percent of one core that the busiest of the speakers uses while nothing happens.
async fn cpu_pct(lan: &Lan) -> Result<f64> {
    let times = || running(lan).map(LanNode::cpu).collect::<Result<Vec<Duration>>>();
    let (before, began) = (times()?, Instant::now());
    tokio::time::sleep(QUIET).await;
    let (after, took) = (times()?, began.elapsed());
    let used = after.iter().zip(&before).map(|(after, before)| after.saturating_sub(*before));
    Ok(used.max().context("no speaker runs")?.as_secs_f64() / took.as_secs_f64() * 100.0)
}

fn cpu_note(three: &str, what: &str) -> String {
    format!("of one core over {} s in which nothing happens, {three}; {what}", QUIET.as_secs())
}
