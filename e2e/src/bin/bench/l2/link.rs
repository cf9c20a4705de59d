//! The announcer's cable is cut and mended, and the network is split and healed.

use std::time::SystemTime;

use anyhow::Result;
use patina_e2e::lan::Cut;
use patina_e2e::prober::timeline::gap;

use super::stage::{EVERY, Stage, ms, phase, runs, spread};
use crate::Row;
use crate::report::say;

const SPEAKERS: usize = 10;
const VIPS: usize = 10;

pub(crate) async fn measure(rows: &mut Vec<Row>) -> Result<()> {
    let mut stage = Stage::new(SPEAKERS, VIPS).await?;
    let measured = all(&mut stage, rows).await;
    stage.told(measured)
}

async fn all(stage: &mut Stage, rows: &mut Vec<Row>) -> Result<()> {
    let (mut cut, mut healed) = (Vec::new(), Vec::new());
    for (how, name, what) in [
        (Cut::Carrier, "link_carrier", "its carrier goes"),
        (Cut::Silent, "link_silent", "its carrier stays, no frame passes"),
    ] {
        let mut samples = Vec::new();
        for run in 0..runs(25)? {
            let (took, two) = alone(stage, run, how).await?;
            samples.push(took);
            healed.push(two);
        }
        let what =
            format!("{SPEAKERS} speakers: the announcer's cable is cut, {what} -> an answer by another");
        rows.extend(spread(name, "", &samples, &what)?);
        cut.extend(samples);
    }
    rows.extend(spread("link", "", &cut, "both kinds of cut together")?);
    let what = "the cable is mended: how long two answered (questions with two answers x 10 ms)";
    rows.extend(spread("heal_two_answer", "", &healed, what)?);
    rows.push(worst("heal_two_answer_ms", &healed, "the longest of these"));

    let (mut split, mut healed) = (Vec::new(), Vec::new());
    for run in 0..runs(10)? {
        let (took, two) = half(stage, run).await?;
        split.push(took);
        healed.push(two);
    }
    rows.extend(spread(
        "partition",
        "",
        &split,
        "the network splits in halves, the announcer is in the other one",
    )?);
    rows.push(worst(
        "heal_partition_two_answer_ms",
        &healed,
        "the halves are joined again: how long two answered, the longest",
    ));
    Ok(())
}

fn worst(name: &str, samples: &[f64], what: &str) -> Row {
    Row::new(name, samples.iter().copied().fold(0.0, f64::max), "ms", samples.len(), what)
}

/// One node loses its cable and gets it back: until another answered, and how long two did afterwards.
async fn alone(stage: &mut Stage, run: usize, how: Cut) -> Result<(f64, f64)> {
    let vip = stage.watch(run)?;
    let victim = stage.settle(vip).await?;
    stage.prober.forget();
    phase(run).await;
    cut_and_heal(stage, vip, victim, &[victim], how).await
}

/// The announcer and enough others for half of them go to another switch, and come back.
async fn half(stage: &mut Stage, run: usize) -> Result<(f64, f64)> {
    let vip = stage.watch(run)?;
    let victim = stage.settle(vip).await?;
    let gone: Vec<usize> = (0..SPEAKERS / 2).map(|i| (victim + i) % SPEAKERS).collect();
    stage.prober.forget();
    phase(run).await;
    cut_and_heal(stage, vip, victim, &gone, Cut::Moved).await
}

async fn cut_and_heal(
    stage: &mut Stage,
    vip: std::net::Ipv4Addr,
    victim: usize,
    gone: &[usize],
    how: Cut,
) -> Result<(f64, f64)> {
    let mac = stage.mac(victim)?;
    let at = SystemTime::now();
    for node in gone {
        stage.lan.cut(*node, how)?;
    }
    let (_, took) = stage.taken(vip, at, mac)?;
    // Long enough for both sides to have given each other up.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let mended = SystemTime::now();
    for node in gone {
        stage.lan.mend(*node)?;
    }
    stage.settle(vip).await?;
    // A second answer may come late: nothing ends the watch but time.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let two = stage.prober.timeline()?.answered_by_two(vip, mended);
    if let (Some(first), Some(last)) = (two.first(), two.last()) {
        let (first, last) = (ms(gap(mended, *first)), ms(gap(mended, *last)));
        say(&format!(
            "{how:?}: {} questions with two answers, {first:.0} to {last:.0} ms after it was mended",
            two.len()
        ));
    }
    Ok((took, two.len() as f64 * ms(EVERY)))
}
