//! Ten thousand addresses on three speakers: one of them dies with its third.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use patina_e2e::lan::Cut;
use patina_e2e::neighbour::Mac;
use patina_e2e::prober::timeline::{Heard, How, gap};
use patina_e2e::wait::{self, Seen, secs};

use super::stage::{PATIENCE, Stage, many, ms, phase, runs};
use super::{foreign, memory};
use crate::Row;
use crate::report::{median, percentile, say};

const SPEAKERS: usize = 3;
/// Every address of the victim is asked for that often: 3,300 of them are 16,500 questions per second.
const EVERY: Duration = Duration::from_millis(200);

/// On the LAN that part memory left, when it ran.
pub(crate) async fn measure(left: Option<Stage>, rows: &mut Vec<Row>) -> Result<()> {
    let mut stage = match left {
        Some(mut stage) => {
            let started = start_all(&mut stage);
            stage.told(started)?;
            stage
        }
        None => {
            let began = Instant::now();
            let vips = many()?;
            let stage = Stage::crowded(SPEAKERS, vips).await?;
            say(&format!("{vips} Services have addresses after {:.0} s", began.elapsed().as_secs_f64()));
            stage
        }
    };
    let measured = all(&mut stage, rows).await;
    stage.told(measured)
}

fn start_all(stage: &mut Stage) -> Result<()> {
    for node in 0..SPEAKERS {
        if !stage.lan.node_mut(node)?.runs() {
            stage.lan.start_speaker(node)?;
        }
    }
    Ok(())
}

async fn all(stage: &mut Stage, rows: &mut Vec<Row>) -> Result<()> {
    let (mut firsts, mut middles, mut lasts, mut answers) = (vec![], vec![], vec![], vec![]);
    for run in 0..runs(5)? {
        let owners = settled(stage).await?;
        let victim = run % SPEAKERS;
        let mac = stage.mac(victim)?;
        let its: Vec<Ipv4Addr> = owners.iter().filter(|(_, m)| **m == mac).map(|(ip, _)| *ip).collect();
        stage.prober.ask_for(&its, EVERY);
        tokio::time::sleep(EVERY * 2).await;
        phase(run).await;
        stage.prober.forget();
        let at = stage.lan.node_mut(victim)?.kill();
        let (claimed, answered) = taken(stage, &its, mac, at).await.with_context(|| format!("run {run}"))?;
        let last = *claimed.last().context("nothing was the victim's")?;
        say(&format!(
            "{} addresses of node {victim}: the last has another node after {last:.0} ms",
            its.len()
        ));
        firsts.push(claimed.first().copied().unwrap_or_default());
        middles.push(percentile(&claimed, 0.5));
        lasts.push(last);
        answers.push(*answered.last().context("nothing was answered")?);
        stage.lan.start_speaker(victim)?;
    }
    let worst = |samples: &[f64]| samples.iter().copied().fold(0.0, f64::max).round();
    let row = |name: &str, value: f64, what: &str| Row::new(name, value, "ms", lasts.len(), what);
    let vips = stage.vips.len();
    rows.extend([
        row("kill_first_ms_10k", median(firsts.clone()).round(), &format!("{vips} addresses on 3 speakers, kill -9: until the first address of the dead one is announced or answered by another; median")),
        row("kill_middle_ms_10k", median(middles.clone()).round(), "until half of its third is; median"),
        row("kill_last_ms_10k", worst(&lasts), &format!("until the last of its third is; the slowest run of {:.0?}", lasts)),
        row("kill_last_answer_ms_10k", worst(&answers), "until each was asked for and answered by another (each is asked for every 200 ms); the slowest run"),
    ]);
    // One is left, with all of them.
    for node in 1..SPEAKERS {
        stage.lan.node_mut(node)?.terminate(secs(5));
        stage.lan.cut(node, Cut::Carrier)?;
    }
    settled(stage).await?;
    foreign::flood(stage, "_10k", &format!("{vips} addresses"), rows).await
}

/// Waits until every address is answered by exactly one node, and says by which.
async fn settled(stage: &mut Stage) -> Result<BTreeMap<Ipv4Addr, Mac>> {
    stage.lan.whole(secs(60)).await?;
    // What is still being written for the last run takes the CPUs that this one needs.
    memory::shown(&stage.lan, stage.vips.len()).await?;
    let sweep = secs(2);
    stage.prober.ask_for(&stage.vips, sweep);
    wait::until_blocking("every address is answered by one node", secs(120), || {
        stage.prober.forget();
        std::thread::sleep(sweep + Duration::from_millis(300));
        let mut owners: BTreeMap<Ipv4Addr, BTreeSet<Mac>> = BTreeMap::new();
        for heard in stage.prober.timeline()?.heard {
            owners.entry(heard.ip).or_default().insert(heard.mac);
        }
        let single = owners.values().filter(|macs| macs.len() == 1).count();
        Ok(if single == stage.vips.len() && owners.len() == single {
            Seen::Done(
                owners.into_iter().filter_map(|(ip, macs)| Some((ip, macs.into_iter().next()?))).collect(),
            )
        } else {
            Seen::Not(format!("{single} of {}, {} by several", stage.vips.len(), owners.len() - single))
        })
    })
}

/// Milliseconds until each address was announced or answered by another, and until it was answered; both sorted.
async fn taken(
    stage: &Stage,
    its: &[Ipv4Addr],
    than: Mac,
    since: SystemTime,
) -> Result<(Vec<f64>, Vec<f64>)> {
    let look = || {
        let timeline = stage.prober.timeline()?;
        let by_other = timeline.heard.into_iter().filter(|h| h.mac != than && h.at >= since);
        let by_other: Vec<Heard> = by_other.collect();
        let times = |replies_only: bool| {
            let mut first = BTreeMap::new();
            for heard in by_other.iter().filter(|h| !replies_only || h.how == How::Reply) {
                first.entry(heard.ip).or_insert_with(|| ms(gap(since, heard.at)));
            }
            first.retain(|ip, _| its.binary_search(ip).is_ok());
            let mut times: Vec<f64> = first.into_values().collect();
            times.sort_by(f64::total_cmp);
            times
        };
        anyhow::Ok((times(false), times(true)))
    };
    wait::until("every address of the victim is answered by another", PATIENCE, || async {
        tokio::time::sleep(Duration::from_millis(300)).await; // the times are the kernel's
        let (claimed, answered) = look()?;
        let seen = format!("{} claimed, {} answered of {}", claimed.len(), answered.len(), its.len());
        let done = answered.len() == its.len();
        Ok(if done { Seen::Done((claimed, answered)) } else { Seen::Not(seen) })
    })
    .await
}
