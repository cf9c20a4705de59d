//! Ten minutes in which eight busy processes per CPU want all of the machine: nobody that answers may lose an address.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use patina_e2e::neighbour::Mac;
use patina_e2e::prober::timeline::Change;
use patina_e2e::process::{Process, Spec};
use patina_e2e::wait::secs;

use super::stage::Stage;
use crate::Row;
use crate::report::say;

const SPEAKERS: usize = 10;
const VIPS: usize = 10;
const HOGS_PER_CPU: usize = 8;
/// A speaker that has left no question unanswered for so long must not lose its address.
const ANSWERS_WITHIN: Duration = Duration::from_millis(200);

pub(crate) async fn measure(rows: &mut Vec<Row>) -> Result<()> {
    let mut stage = Stage::new(SPEAKERS, VIPS).await?;
    let measured = all(&mut stage, rows).await;
    stage.told(measured)
}

/// `PATINA_BUSY_S`; ten minutes.
fn time() -> Result<Duration> {
    match std::env::var("PATINA_BUSY_S") {
        Ok(text) => Ok(secs(text.parse().with_context(|| format!("PATINA_BUSY_S={text}"))?)),
        Err(_) => Ok(secs(600)),
    }
}

async fn all(stage: &mut Stage, rows: &mut Vec<Row>) -> Result<()> {
    let mut owners: BTreeMap<Ipv4Addr, Mac> = BTreeMap::new();
    for vip in stage.vips.clone() {
        let node = stage.settle(vip).await?;
        owners.insert(vip, stage.mac(node)?);
    }
    let time = time()?;
    let hogs = hogs(stage)?;
    say(&format!("{} busy processes for {time:.0?}", hogs.len()));
    let mut changes = Vec::new();
    let mut questions = 0;
    let mut answers = 0;
    let began = Instant::now();
    stage.prober.forget();
    while began.elapsed() < time {
        // In pieces: ten minutes of questions are 600,000. What overlaps a cut is looked at in the last piece only.
        tokio::time::sleep(secs(30).min(time.saturating_sub(began.elapsed()).max(secs(1)))).await;
        let timeline = stage.prober.timeline()?;
        stage.prober.forget();
        questions += timeline.asked.len();
        answers += timeline.heard.len();
        let new: Vec<Change> = stage.vips.iter().flat_map(|vip| timeline.changes(*vip)).collect();
        for change in &new {
            say(&format!(
                "{} went from {:02x?} to {:02x?}; the old one was silent for {:.0?}",
                change.ip, change.from, change.to, change.silence
            ));
        }
        changes.extend(new);
    }
    drop(hogs);
    // Back to whom the address belongs by the order of candidates: a handover, not a takeover.
    let home = |change: &&Change| owners.get(&change.ip) == Some(&change.to);
    let takeovers: Vec<&Change> = changes.iter().filter(|change| !home(change)).collect();
    let wrong = takeovers.iter().filter(|change| change.silence < ANSWERS_WITHIN).count();
    rows.extend([
        Row::new("false_takeovers", wrong as f64, "", questions, format!("{time:.0?} of {HOGS_PER_CPU} busy processes per CPU beside {SPEAKERS} speakers with {VIPS} addresses: takeovers from one that left no question of the 2 s before unanswered for 200 ms")),
        Row::new("busy_takeovers", takeovers.len() as f64, "", questions, "all takeovers in that time: the others were from speakers that had stalled"),
        Row::new("busy_answered_pct", answers as f64 / questions.max(1) as f64 * 100.0, "%", questions, "answers per question of the client in that time (more than 100 % when two answered)"),
    ]);
    Ok(())
}

fn hogs(stage: &Stage) -> Result<Vec<Process>> {
    let cpus = std::thread::available_parallelism()?.get();
    (0..cpus * HOGS_PER_CPU)
        .map(|i| stage.lan.spawn(Spec::new(format!("hog-{i}"), "sh").args(["-c", "while :; do :; done"])))
        .collect()
}
