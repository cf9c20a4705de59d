//! A hundred thousand ARP requests per second for addresses that are nobody's: what they cost a speaker, and our clients.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Result;
use patina_e2e::prober::timeline::{Timeline, gap};
use patina_e2e::stranger::{Injector, requests};

use super::stage::{EVERY, Stage, ms};
use crate::Row;
use crate::report::percentile;

const RATE: u32 = 100_000;
const TIME: Duration = Duration::from_secs(10);
/// Not in the pool, and nobody's.
const FIRST: Ipv4Addr = Ipv4Addr::new(172, 25, 64, 0);

pub(crate) async fn measure(rows: &mut Vec<Row>) -> Result<()> {
    let mut stage = Stage::new(1, 10).await?;
    stage.settle(stage.vip(0)?).await?;
    let measured = flood(&mut stage, "", "10 addresses", rows).await;
    stage.told(measured)
}

/// CPU of a speaker and delay of its answers with and without the flood. There is one speaker: the flood's copies for
/// others would be work of this machine that no node has.
pub(crate) async fn flood(stage: &mut Stage, suffix: &str, vips: &str, rows: &mut Vec<Row>) -> Result<()> {
    let stranger = stage.lan.stranger(None)?;
    stage.client_hears_broadcasts(false)?;
    stage.prober.ask_for(stage.vips.get(..10).unwrap_or_default(), EVERY);
    let quiet = watch(stage).await?;
    let injector =
        Injector::start(&stranger.netns, requests(stranger.mac, stranger.v4, FIRST, 16_000), Some(RATE))?;
    // The first second is the kernel's: queues and caches.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let loud = watch(stage).await?;
    let rate = injector.rate().round();
    drop(injector);
    stage.client_hears_broadcasts(true)?;
    let row = |name: &str, value: f64, unit: &str, n: usize, what: &str| {
        Row::new(&format!("{name}{suffix}"), value, unit, n, what)
    };
    rows.extend([
        row(
            "foreign_arp_per_s",
            rate,
            "1/s",
            1,
            &format!("broadcast ARP requests for addresses of nobody; a speaker with {vips}"),
        ),
        row(
            "foreign_arp_cpu_pct",
            loud.cpu_pct,
            "%",
            1,
            "CPU of the speaker, in % of a core, during 10 s of it",
        ),
        row("foreign_arp_quiet_cpu_pct", quiet.cpu_pct, "%", 1, "the same without it"),
        row(
            "foreign_arp_delay_p50_us",
            loud.p50_us,
            "us",
            loud.n,
            "from a question of the client to the answer at its interface, during it",
        ),
        row("foreign_arp_delay_p99_us", loud.p99_us, "us", loud.n, "of these"),
        row("foreign_arp_quiet_delay_p99_us", quiet.p99_us, "us", quiet.n, "the same without it"),
        row(
            "foreign_arp_unanswered",
            loud.unanswered as f64,
            "",
            loud.n,
            "questions of the client without an answer, during it",
        ),
    ]);
    Ok(())
}

struct Watched {
    cpu_pct: f64,
    p50_us: f64,
    p99_us: f64,
    unanswered: usize,
    n: usize,
}

async fn watch(stage: &Stage) -> Result<Watched> {
    let cpu = || stage.lan.nodes().iter().filter(|n| n.runs()).map(|n| n.cpu()).collect::<Result<Vec<_>>>();
    stage.prober.forget();
    let before = cpu()?;
    tokio::time::sleep(TIME).await;
    let after = cpu()?;
    tokio::time::sleep(Duration::from_millis(200)).await; // the last answers
    let spent = before.iter().zip(&after).map(|(b, a)| a.saturating_sub(*b)).max().unwrap_or_default();
    let (mut delays, unanswered) = delays(&stage.prober.timeline()?);
    delays.sort_by(f64::total_cmp);
    Ok(Watched {
        cpu_pct: spent.as_secs_f64() / TIME.as_secs_f64() * 100.0,
        p50_us: percentile(&delays, 0.5).round(),
        p99_us: percentile(&delays, 0.99).round(),
        unanswered,
        n: delays.len(),
    })
}

/// Microseconds from each question to the first answer about the same address before the next question, and how many had none.
fn delays(timeline: &Timeline) -> (Vec<f64>, usize) {
    let (mut delays, mut unanswered) = (Vec::new(), 0);
    let last = timeline.asked.last().map(|asked| asked.at);
    for (i, asked) in timeline.asked.iter().enumerate() {
        if last.is_none_or(|last| gap(asked.at, last) < Duration::from_millis(300)) {
            continue; // the answer may be on its way
        }
        let next =
            timeline.asked.get(i + 1..).unwrap_or_default().iter().find(|n| n.ip == asked.ip).map(|n| n.at);
        let from = timeline.heard.partition_point(|h| h.at < asked.at);
        let answers = timeline.heard.get(from..).unwrap_or_default().iter();
        let answer = answers.take_while(|h| next.is_none_or(|next| h.at < next)).find(|h| h.ip == asked.ip);
        match answer {
            Some(answer) => delays.push(ms(gap(asked.at, answer.at)) * 1000.0),
            None => unanswered += 1,
        }
    }
    (delays, unanswered)
}
