//! The announcer is stopped (SIGSTOP) and, a second later, woken (SIGCONT).

use std::time::Duration;

use anyhow::Result;
use patina_e2e::prober::timeline::{Heard, How, gap};
use serde_json::json;

use super::stage::{Stage, ms, phase, runs, spread};
use crate::Row;

const SPEAKERS: usize = 10;
const VIPS: usize = 10;
/// From SIGSTOP to SIGCONT.
const ASLEEP: Duration = Duration::from_secs(1);
/// How long the woken one is watched.
const WATCH: Duration = Duration::from_secs(2);

pub(crate) async fn measure(rows: &mut Vec<Row>) -> Result<()> {
    let mut stage = Stage::new(SPEAKERS, VIPS).await?;
    let measured = all(&mut stage, rows).await;
    stage.told(measured)
}

async fn all(stage: &mut Stage, rows: &mut Vec<Row>) -> Result<()> {
    // Whoever took over keeps it: every frame of the woken one about the address is one too many.
    stage.lan.annotate_advertisement(json!({"patina.io/failback": "never"})).await?;
    let mut samples = Vec::new();
    let mut woken = 0;
    let never = runs(50)?;
    for run in 0..never {
        let slept = sleep(stage, run).await?;
        samples.push(slept.took);
        woken += slept.frames;
    }
    let what = format!("{SPEAKERS} speakers: SIGSTOP of the one that answers -> the first answer by another");
    rows.extend(spread("stop", "", &samples, &what)?);
    rows.push(Row::new(
        "stop_woken_answers",
        woken as f64,
        "frames",
        never,
        "SIGCONT after 1 s, failback never: answers and announcements of the woken speaker within 2 s, all runs together",
    ));

    stage.lan.annotate_advertisement(json!({"patina.io/failback": "immediate"})).await?;
    let (mut early, mut first, immediate) = (0, Vec::new(), runs(20)?);
    for run in 0..immediate {
        let slept = sleep(stage, run).await?;
        early += slept.unannounced;
        first.extend(slept.first);
    }
    if !first.is_empty() {
        let what = "the same with failback immediate: from SIGCONT to the first frame of the woken speaker about the address";
        rows.extend(spread("stop_woken_first_frame", "", &first, what)?);
    }
    rows.push(Row::new(
        "stop_woken_early_answers",
        early as f64,
        "frames",
        immediate,
        "failback immediate: answers of the woken speaker before it announces the address again, all runs together",
    ));
    Ok(())
}

struct Slept {
    /// Milliseconds until another answered.
    took: f64,
    /// Frames of the woken one about the address.
    frames: usize,
    /// Its answers before its first announcement.
    unannounced: usize,
    /// Milliseconds from SIGCONT to the first of its frames.
    first: Option<f64>,
}

async fn sleep(stage: &mut Stage, run: usize) -> Result<Slept> {
    let vip = stage.watch(run)?;
    let victim = stage.settle(vip).await?;
    stage.prober.forget();
    phase(run).await;
    let mac = stage.mac(victim)?;
    let at = stage.lan.node_mut(victim)?.stop()?;
    let taken = stage.taken(vip, at, mac);
    // Woken in any case: a stopped process would hang the end of this program.
    tokio::time::sleep(ASLEEP.saturating_sub(at.elapsed().unwrap_or_default())).await;
    let woken = stage.lan.node_mut(victim)?.wake()?;
    let (_, took) = taken?;
    tokio::time::sleep(WATCH).await;
    let heard = stage.prober.timeline()?.heard;
    let its: Vec<&Heard> = heard.iter().filter(|h| h.ip == vip && h.mac == mac && h.at >= woken).collect();
    Ok(Slept {
        took,
        frames: its.len(),
        unannounced: its.iter().take_while(|h| h.how == How::Reply).count(),
        first: its.first().map(|h| ms(gap(woken, h.at))),
    })
}
