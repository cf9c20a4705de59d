//! What the parts share: a LAN of release speakers, a few addresses, a client that asks for them, and how samples become rows.

use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use patina_e2e::lan::{CROWD, Lan, Programs};
use patina_e2e::neighbour::Mac;
use patina_e2e::prober::Prober;
use patina_e2e::prober::timeline::{Heard, How, gap};
use patina_e2e::wait::secs;

use crate::Row;
use crate::cluster::release_binary;
use crate::report::{percentile, say};

/// The client asks for an address that often.
pub(crate) const EVERY: Duration = Duration::from_millis(10);
/// Somebody must have answered alone for so long before anything is done to it.
const SETTLED: Duration = Duration::from_millis(300);
/// A takeover that takes longer than this has not happened.
pub(crate) const PATIENCE: Duration = secs(15);

/// How many runs a part makes that would make `usual`.
pub(crate) fn runs(usual: usize) -> Result<usize> {
    match std::env::var("PATINA_RUNS") {
        Ok(text) => Ok(usual.min(text.parse().with_context(|| format!("PATINA_RUNS={text}"))?)),
        Err(_) => Ok(usual),
    }
}

/// How many Services are many: ten thousand, unless `PATINA_MANY` says less, for who works on a bench.
pub(crate) fn many() -> Result<usize> {
    match std::env::var("PATINA_MANY") {
        Ok(text) => text.parse().with_context(|| format!("PATINA_MANY={text}")),
        Err(_) => Ok(10_000),
    }
}

pub(crate) fn programs() -> Result<Programs> {
    Ok(Programs {
        speaker: release_binary("patina-speaker")?,
        controller: release_binary("patina-controller")?,
    })
}

/// A LAN with a few addresses that a client asks for.
pub(crate) struct Stage {
    pub(crate) lan: Lan,
    pub(crate) vips: Vec<Ipv4Addr>,
    pub(crate) prober: Prober,
}

impl Stage {
    /// `nodes` speakers that know each other, `vips` addresses that are announced.
    pub(crate) async fn new(nodes: usize, vips: usize) -> Result<Stage> {
        Self::with(Lan::start(programs()?).await?, nodes, vips).await
    }

    /// The same where thousands of Services are to come.
    pub(crate) async fn crowded(nodes: usize, vips: usize) -> Result<Stage> {
        Self::with(Lan::start_with(programs()?, &CROWD).await?, nodes, vips).await
    }

    async fn with(mut lan: Lan, nodes: usize, vips: usize) -> Result<Stage> {
        let begun = async {
            lan.grow(nodes).await?;
            lan.services(0..vips).await
        };
        let vips = begun.await.inspect_err(|_| failed(&lan))?;
        let prober = lan.prober(&vips, EVERY)?;
        Ok(Stage { lan, vips, prober })
    }

    /// More nodes, until there are `count`.
    pub(crate) async fn grow(&mut self, count: usize) -> Result<()> {
        const STEP: usize = 10;
        let has = self.lan.nodes().len();
        for next in (has + 1..=count).filter(|n| n % STEP == 0 || *n == count) {
            self.lan.grow(next).await?;
            say(&format!("{next} speakers know each other"));
        }
        Ok(())
    }

    /// One of the addresses: they take turns, so that the nodes do.
    pub(crate) fn vip(&self, run: usize) -> Result<Ipv4Addr> {
        self.vips.get(run % self.vips.len().max(1)).copied().context("no address")
    }

    /// The address of a run. The client asks for no other from now on: each question is a broadcast to every node.
    pub(crate) fn watch(&self, run: usize) -> Result<Ipv4Addr> {
        let vip = self.vip(run)?;
        self.prober.ask_for(&[vip], EVERY);
        self.prober.forget();
        Ok(vip)
    }

    /// Waits until all speakers that run know each other and one node has answered for `vip` alone for a while; which.
    pub(crate) async fn settle(&mut self, vip: Ipv4Addr) -> Result<usize> {
        self.lan.whole(secs(30)).await?;
        let mac = self.prober.sole_owner(vip, SETTLED, PATIENCE)?;
        self.lan.index_of(mac)
    }

    /// The MAC address of a node.
    pub(crate) fn mac(&self, node: usize) -> Result<Mac> {
        Ok(self.lan.nodes().get(node).context("no such node")?.mac)
    }

    /// Waits for the first reply about `vip` by another than `than`, from `since` on: it and the milliseconds until it.
    pub(crate) fn taken(&self, vip: Ipv4Addr, since: SystemTime, than: Mac) -> Result<(Heard, f64)> {
        let wanted = |heard: &Heard| heard.ip == vip && heard.how == How::Reply && heard.mac != than;
        let heard = self
            .prober
            .wait(since, PATIENCE, wanted)
            .with_context(|| format!("nobody took {vip} over from {than:02x?}"))?;
        Ok((heard, ms(gap(since, heard.at))))
    }

    /// Kills the speaker that answers for the address of this run, and says how many milliseconds passed until another
    /// answered. The speaker is not started again.
    pub(crate) async fn kill(&mut self, run: usize) -> Result<(usize, f64)> {
        let vip = self.watch(run)?;
        let victim = self.settle(vip).await?;
        self.prober.forget();
        phase(run).await;
        let mac = self.mac(victim)?;
        let at = self.lan.node_mut(victim)?.kill();
        let (heard, took) = self.taken(vip, at, mac)?;
        if took > 500.0 {
            let successor = self.lan.index_of(heard.mac)?;
            say(&format!("run {run}: {vip} went from node {victim} to {successor} after {took:.0} ms"));
        }
        Ok((victim, took))
    }

    /// [`Stage::kill`] so many times, and each time the speaker is started again.
    pub(crate) async fn kills(&mut self, runs: usize) -> Result<Vec<f64>> {
        let mut samples = Vec::new();
        for run in 0..runs {
            let (victim, took) = self.kill(run).await.with_context(|| format!("run {run}"))?;
            samples.push(took);
            self.lan.start_speaker(victim)?;
        }
        Ok(samples)
    }

    /// Whether the client's port passes broadcasts on. A flood's copies for the client would be work of this machine that no
    /// node has, and would push the answers out of the client's queue.
    pub(crate) fn client_hears_broadcasts(&self, yes: bool) -> Result<()> {
        let flood = if yes { "on" } else { "off" };
        self.lan.net().exec("bridge", &["link", "set", "dev", "client", "bcast_flood", flood]).map(drop)
    }

    /// Keeps the logs and shows their ends when `result` is an error.
    pub(crate) fn told<T>(&self, result: Result<T>) -> Result<T> {
        result.inspect_err(|_| failed(&self.lan))
    }
}

fn failed(lan: &Lan) {
    lan.keep_logs();
    say(&lan.log_tails());
}

/// A different part of every period of the protocols for each run.
pub(crate) async fn phase(run: usize) {
    let part = (run as f64 * 0.618_034).fract();
    tokio::time::sleep(Duration::from_secs_f64(part * 0.2)).await;
}

pub(crate) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// p50, p99 and max of the samples as `<name>_p50_ms<suffix>` and so on.
pub(crate) fn spread(name: &str, suffix: &str, samples: &[f64], what: &str) -> Result<Vec<Row>> {
    if samples.is_empty() {
        bail!("{name}{suffix}: no samples");
    }
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let row = |part: &str, share: f64, what: String| {
        let value = (percentile(&sorted, share) * 10.0).round() / 10.0;
        Row::new(&format!("{name}_{part}_ms{suffix}"), value, "ms", sorted.len(), what)
    };
    let rows = vec![
        row("p50", 0.5, what.to_owned()),
        row("p99", 0.99, "of these runs".to_owned()),
        row("max", 1.0, "the slowest".to_owned()),
    ];
    say(&rows.iter().map(|r| format!("{} {}", r.metric, r.value)).collect::<Vec<_>>().join(", "));
    Ok(rows)
}
