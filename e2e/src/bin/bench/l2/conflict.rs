//! Foreign hosts that have, or say that they have, an address of ours.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use patina_e2e::neighbour::Mac;
use patina_e2e::prober::timeline::{Heard, How, gap};
use patina_e2e::stranger::{Injector, claims, requests};
use patina_e2e::wait::{self, Seen, secs};

use super::stage::{EVERY, Stage, ms};
use crate::Row;

const SPEAKERS: usize = 3;
const VIPS: usize = 3;

pub(crate) async fn measure(rows: &mut Vec<Row>) -> Result<()> {
    let mut stage = Stage::new(SPEAKERS, VIPS).await?;
    let measured = all(&mut stage, rows).await;
    stage.told(measured)
}

async fn all(stage: &mut Stage, rows: &mut Vec<Row>) -> Result<()> {
    before(stage, rows).await?;
    storm(stage, rows).await?;
    twin(stage, rows).await?;
    after(stage, rows).await
}

/// The pool's next addresses are in use by a host that answers ARP: a new Service must get another.
async fn before(stage: &mut Stage, rows: &mut Vec<Row>) -> Result<()> {
    let stranger = stage.lan.stranger(None)?;
    let highest = stage.vips.iter().max().copied().context("no address")?;
    let used: Vec<Ipv4Addr> = (1..=3).map(|i| Ipv4Addr::from(u32::from(highest) + i)).collect();
    for ip in &used {
        stranger.netns.ip(&["addr", "add", &format!("{ip}/32"), "dev", "eth0"])?;
    }
    let all: Vec<Ipv4Addr> = (1..=9).map(|i| Ipv4Addr::from(u32::from(highest) + i)).collect();
    stage.prober.ask_for(&all, EVERY * 3);
    stage.prober.forget();
    let began = SystemTime::now();
    stage.lan.services(VIPS..VIPS + 1).await?;
    let ours: BTreeSet<Mac> = stage.lan.nodes().iter().map(|n| n.mac).collect();
    let heard = stage.prober.wait(began, secs(30), |h| ours.contains(&h.mac) && h.how == How::Reply)?;
    // Its announcements go on for a second: by then the others would be announced too, if they were.
    let (second, ip, mac) = (heard.at + Duration::from_millis(900), heard.ip, heard.mac);
    let announced = |h: &Heard| h.ip == ip && h.mac == mac && h.how == How::Gratuitous;
    stage.prober.wait(second, secs(10), announced).context("the announcements of a new address")?;
    let by_us = |h: &&Heard| ours.contains(&h.mac) && used.contains(&h.ip);
    let stolen = stage.prober.timeline()?.heard.iter().filter(by_us).count();
    let conflicts = stage.lan.conflicts().await.map_or(0, |all| all.len());
    rows.extend([
        Row::new("conflict_before_frames", stolen as f64, "frames", 1, "the pool's next three addresses answer from a foreign host: answers and announcements of ours for them"),
        Row::new("conflict_before_ms", ms(gap(began, heard.at)).round(), "ms", 1, "from a new Service to an answer on an address that is free, the three given up"),
        Row::new("conflict_objects", conflicts as f64, "", 1, "AddressConflicts that exist then"),
    ]);
    Ok(())
}

/// Gratuitous ARP for addresses that are nobody's, and requests by a host that repeats them.
async fn storm(stage: &mut Stage, rows: &mut Vec<Row>) -> Result<()> {
    let stranger = stage.lan.stranger(None)?;
    let vip = stage.vip(0)?;
    stage.prober.ask_for(&[vip], EVERY);
    stage.settle(vip).await?;
    let frames: Vec<Vec<u8>> = (0..4096_u32)
        .flat_map(|i| claims(stranger.mac, Ipv4Addr::from(u32::from(Ipv4Addr::new(172, 25, 64, 0)) + i)))
        .collect();
    stage.client_hears_broadcasts(false)?;
    let injector = Injector::start(&stranger.netns, frames, Some(20_000))?;
    stage.prober.forget();
    let (before, from) = (cpu(stage)?, SystemTime::now());
    tokio::time::sleep(secs(5)).await;
    let (after, now) = (cpu(stage)?, SystemTime::now());
    let rate = injector.rate().round();
    drop(injector);
    stage.client_hears_broadcasts(true)?;
    let silence = stage.prober.timeline()?.longest_silence(vip, from, now);
    let spent = before.iter().zip(&after).map(|(b, a)| a.saturating_sub(*b)).max().unwrap_or_default();
    rows.extend([
        Row::new("storm_cpu_pct", spent.as_secs_f64() / 5.0 * 100.0, "%", 1, format!("{rate} gratuitous ARP frames per second for foreign addresses: CPU of the busiest speaker")),
        Row::new("storm_silence_ms", ms(silence).round(), "ms", 1, "the longest time in which an address of ours went unanswered meanwhile (it is asked for every 10 ms)"),
    ]);
    Ok(())
}

/// Another host has the announcer's MAC address, and uses it.
async fn twin(stage: &mut Stage, rows: &mut Vec<Row>) -> Result<()> {
    let vip = stage.vip(1)?;
    stage.prober.ask_for(&[vip], EVERY);
    let owner = stage.settle(vip).await?;
    let mac = stage.mac(owner)?;
    let twin = stage.lan.stranger(Some(mac))?;
    stage.prober.forget();
    let injector =
        Injector::start(&twin.netns, requests(mac, twin.v4, Ipv4Addr::new(172, 25, 64, 0), 100), Some(100))?;
    tokio::time::sleep(secs(5)).await;
    drop(injector);
    let now = SystemTime::now();
    let timeline = stage.prober.timeline()?;
    let silence = timeline.longest_silence(vip, now.checked_sub(secs(5)).context("clock")?, now);
    let changes = timeline.changes(vip).len();
    let until = wait::secs(60);
    twin.netns.ip(&["link", "set", "eth0", "down"])?;
    let began = SystemTime::now();
    stage.lan.whole(until).await?;
    rows.extend([
        Row::new("twin_silence_ms", ms(silence).round(), "ms", 1, "another host has the announcer's MAC address and sends 100 frames a second, 5 s: the longest time in which the address went unanswered"),
        Row::new("twin_changes", changes as f64, "", 1, "how often the address changed hands meanwhile (the switch sends what is meant for the announcer elsewhere)"),
        Row::new("twin_whole_ms", ms(gap(began, SystemTime::now())).round(), "ms", 1, "the other host goes: until all speakers know each other"),
    ]);
    Ok(())
}

/// A foreign host claims an address that is announced: once, and later again and again.
async fn after(stage: &mut Stage, rows: &mut Vec<Row>) -> Result<()> {
    let stranger = stage.lan.stranger(None)?;
    let vip = stage.vip(2)?;
    stage.prober.ask_for(&[vip], EVERY);
    let owner = stage.settle(vip).await?;
    let mac = stage.mac(owner)?;
    // The slow refresh is a minute: what is announced within five seconds of the claim is the defence.
    stage.prober.forget();
    let began = SystemTime::now();
    let once = Injector::start(&stranger.netns, claims(stranger.mac, vip).into(), Some(1))?;
    wait::until_blocking("one claim was sent", secs(5), || Ok(Seen::when(once.sent() >= 1, once.sent())))?;
    drop(once);
    let defence =
        stage.prober.wait(began, secs(5), |h| h.ip == vip && h.mac == mac && h.how == How::Gratuitous)?;
    let over = began + secs(1);
    stage.prober.wait(over, secs(5), |h| h.ip == vip && h.mac == mac && h.how == How::Reply)?;
    let heard = stage.prober.timeline()?.heard;
    let its = heard.iter().filter(|h| h.ip == vip && h.mac == mac && h.how == How::Gratuitous);
    let announcements = its.filter(|h| h.at >= began && h.at < over).count();
    rows.extend([
        Row::new(
            "conflict_defence_ms",
            ms(gap(began, defence.at)),
            "ms",
            1,
            "a foreign host announces an address of ours once: until it is defended",
        ),
        Row::new(
            "conflict_defence_frames",
            announcements as f64,
            "frames",
            1,
            "announcements within a second of that claim (a defence is one request and one reply)",
        ),
    ]);

    // It goes on. The address is a Service's: it is not given up (RFC 5227 2.4 (c)), and somebody is told.
    let claimed = SystemTime::now();
    let again = Injector::start(&stranger.netns, claims(stranger.mac, vip).into(), Some(5))?;
    let raised = wait::until("an AddressConflict tells of it", secs(20), || async {
        let all = stage.lan.conflicts().await?;
        let told = all.iter().any(|conflict| {
            serde_json::to_string(conflict).is_ok_and(|text| text.contains(&vip.to_string()))
        });
        Ok(Seen::when(told, all.len()))
    })
    .await;
    let took = ms(gap(claimed, SystemTime::now()));
    tokio::time::sleep(LONG.saturating_sub(claimed.elapsed().unwrap_or_default())).await;
    drop(again);
    raised?;
    let timeline = stage.prober.timeline()?;
    let its = timeline.heard.iter().filter(|h| h.how == How::Gratuitous && h.mac == mac && h.at >= claimed);
    let mut defences: Vec<SystemTime> = Vec::new();
    for heard in its {
        // A defence is a request and a reply at once.
        if defences.last().is_none_or(|last| gap(*last, heard.at) > Duration::from_millis(50)) {
            defences.push(heard.at);
        }
    }
    let silence = timeline.longest_silence(vip, claimed, claimed + LONG);
    rows.extend([
        Row::new("conflict_raised_ms", took.round(), "ms", 1, "the foreign host goes on claiming it, five times a second: until an AddressConflict tells of it"),
        Row::new("conflict_defences", defences.len() as f64, "", 1, format!("how often it was defended in {LONG:.0?} of that (at most once in 10 s, after the first one above)")),
        Row::new("conflict_silence_ms", ms(silence).round(), "ms", 1, "the longest time in which our owner left the client without an answer meanwhile"),
    ]);
    Ok(())
}

/// How long a foreign host insists.
const LONG: Duration = secs(25);

fn cpu(stage: &Stage) -> Result<Vec<Duration>> {
    stage.lan.nodes().iter().map(|node| node.cpu()).collect()
}
