//! The membership's port under attack: detection must stay in time, and nobody who lives may be taken for dead.

use anyhow::{Context, Result};
use patina_e2e::lan::{LanNode, Stranger};
use patina_e2e::stranger::{Injector, datagram, eavesdrop, forged};
use patina_e2e::wait::secs;

use super::stage::{Stage, runs, spread};
use crate::Row;
use crate::report::say;

const SPEAKERS: usize = 5;
const VIPS: usize = 10;
/// Datagrams that are heard before the attacks.
const HEARD: usize = 2000;

pub(crate) async fn measure(rows: &mut Vec<Row>) -> Result<()> {
    let mut stage = Stage::new(SPEAKERS, VIPS).await?;
    let measured = all(&mut stage, rows).await;
    stage.told(measured)
}

async fn all(stage: &mut Stage, rows: &mut Vec<Row>) -> Result<()> {
    let stranger = stage.lan.stranger(None)?;
    stage.settle(stage.vip(0)?).await?;
    let heard = eavesdrop(stage.lan.net(), secs(5), HEARD)?;
    heard.first().context("no datagram between speakers in 5 s")?;
    let attacks = [
        ("replayed", "their own datagrams again", forge(&heard, &stranger, |_| {})?),
        (
            "truncated",
            "their own datagrams, cut in half",
            forge(&heard, &stranger, |p| p.truncate(p.len() / 2))?,
        ),
        (
            "altered",
            "their own datagrams with a bit changed, as with a wrong key",
            forge(&heard, &stranger, |payload| flip_last(payload))?,
        ),
        ("junk", "random bytes", junk(stage.lan.nodes(), &stranger)?),
    ];
    for (name, what, frames) in attacks {
        let injector = Injector::start(&stranger.netns, frames, None)?;
        let samples = stage.kills(runs(10)?).await.with_context(|| format!("{name} datagrams"))?;
        let rate = injector.rate().round();
        drop(injector);
        say(&format!("{name}: {rate} datagrams per second"));
        let what = format!(
            "a stranger sends {what} as fast as it can ({rate}/s to {SPEAKERS} speakers): kill -9 -> an answer by another"
        );
        rows.extend(spread(&format!("kill_{name}"), "", &samples, &what)?);
    }
    Ok(())
}

fn forge(heard: &[Vec<u8>], stranger: &Stranger, change: impl Fn(&mut Vec<u8>)) -> Result<Vec<Vec<u8>>> {
    heard.iter().map(|frame| forged(frame, stranger.mac, &change)).collect()
}

fn flip_last(payload: &mut [u8]) {
    if let Some(byte) = payload.last_mut() {
        *byte ^= 1;
    }
}

/// Datagrams of many lengths to every speaker.
fn junk(nodes: &[LanNode], stranger: &Stranger) -> Result<Vec<Vec<u8>>> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    let mut frames = Vec::new();
    for i in 0..500 {
        for node in nodes {
            let payload = (0..i * 2).map(|_| byte()).collect();
            frames.push(datagram(stranger.mac, stranger.v4, node.mac, node.v4, payload)?);
        }
    }
    Ok(frames)
}
