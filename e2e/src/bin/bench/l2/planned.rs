//! Planned handovers (see [`patina_e2e::planned`]): what a client loses meanwhile.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use patina_e2e::lab::{Lab, Options};
use patina_e2e::planned::{Client, EVERY, RATE, Told};

use super::stage::{ms, runs};
use crate::Row;
use crate::cluster::release_binary;
use crate::report::say;

const NODES: u8 = 3;

pub(crate) async fn measure(rows: &mut Vec<Row>) -> Result<()> {
    let speaker = release_binary("patina-speaker")?;
    let programs = speaker.parent().map(Path::to_path_buf);
    let options = Options { nodes: NODES, programs, ..Options::default() };
    let lab = tokio::task::spawn_blocking(move || Lab::up(options, say)).await??;
    let measured = all(&lab, rows).await;
    measured.inspect_err(|_| lab.keep_report())
}

async fn all(lab: &Lab, rows: &mut Vec<Row>) -> Result<()> {
    let client = Client::start(lab).await?;
    let rounds = runs(3)?.max(1);
    let mut rolled = Sum::default();
    for round in 0..rounds {
        say(&format!("rolling restart {round}"));
        rolled.add(&client, client.during(client.roll()).await?)?;
    }
    rolled.rows("rolling", "rolling restart of all speakers (SIGTERM, one after another)", rounds, rows);

    let mut drained = Sum::default();
    for round in 0..rounds {
        say(&format!("drain {round}"));
        drained.add(&client, client.during(client.drain()).await?)?;
    }
    drained.rows(
        "drain",
        "the announcing node is annotated patina.io/drain=true, and released",
        rounds,
        rows,
    );

    let mut evicted = Sum::default();
    for round in 0..rounds {
        say(&format!("eviction {round}"));
        evicted.add(&client, client.during(client.evict()).await?)?;
    }
    evicted.rows("evict", "the announcing node is cordoned and its speaker's Pod deleted", rounds, rows);
    Ok(())
}

/// What the client saw in all rounds of a kind.
#[derive(Default)]
struct Sum {
    sent: usize,
    lost: usize,
    slowest: Duration,
    /// The longest without an answer by ARP, and the time in which two answered.
    silence: Duration,
    two: Duration,
    changes: usize,
}

impl Sum {
    fn add(&mut self, client: &Client<'_>, told: Told) -> Result<()> {
        let Told { began, counted, timeline } = told;
        let now = timeline.asked.last().context("nothing was asked")?.at;
        let changes = timeline.changes(client.vip());
        for change in &changes {
            say(&format!(
                "it went from {:02x?} to {:02x?}, silent for {:.0?}",
                change.from, change.to, change.silence
            ));
        }
        for lost in counted.lost.iter().take(5) {
            say(&format!(
                "lost: sent {:.0?} after the start",
                lost.duration_since(began).unwrap_or_default()
            ));
        }
        let silence = timeline.longest_silence(client.vip(), began + Duration::from_millis(100), now);
        let two = timeline.answered_by_two(client.vip(), began).len();
        self.sent += counted.sent;
        self.lost += counted.lost.len();
        self.slowest = self.slowest.max(counted.slowest);
        self.silence = self.silence.max(silence);
        self.two = self.two.max(EVERY * u32::try_from(two)?);
        self.changes += changes.len();
        Ok(())
    }

    fn rows(&self, name: &str, what: &str, rounds: usize, rows: &mut Vec<Row>) {
        let row = |part: &str, value: f64, unit: &str, n: usize, what: String| {
            Row::new(&format!("{name}_{part}"), value, unit, n, what)
        };
        rows.extend([
            row("lost", self.lost as f64, "requests", self.sent, format!("{what}, {rounds} times, at {RATE} requests/s (UDP echo through the address and kube-proxy; the client forgets the MAC address every 100 ms): unanswered within 0.9 s")),
            row("slowest_ms", ms(self.slowest).round(), "ms", self.sent, "the slowest answer".to_owned()),
            row("silence_ms", ms(self.silence).round(), "ms", rounds, "the longest time in which nobody answered by ARP (asked every 10 ms)".to_owned()),
            row("two_answer_ms", ms(self.two).round(), "ms", rounds, "the longest time in which two answered, in one of them".to_owned()),
            row("changes", self.changes as f64, "", rounds, "how often the address changed hands, all together".to_owned()),
        ]);
    }
}
