//! Foreign hosts that have, or claim, an address of ours.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed expectation is a failed test

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use patina_e2e::lan::{Lan, Programs};
use patina_e2e::neighbour::Mac;
use patina_e2e::prober::timeline::{Heard, How};
use patina_e2e::stranger::{Injector, claims};
use patina_e2e::wait::{self, Seen, secs};

const EVERY: Duration = Duration::from_millis(10);

#[tokio::test]
async fn an_address_that_a_foreign_host_uses_is_not_announced_and_the_service_gets_another() {
    let mut lan = lan(2).await;
    let result = used_before(&mut lan).await;
    told(&lan, result);
}

#[tokio::test]
async fn a_foreign_claim_is_defended_once_in_ten_seconds_and_raised_when_it_goes_on() {
    let mut lan = lan(2).await;
    let result = claimed_after(&mut lan).await;
    told(&lan, result);
}

async fn lan(speakers: usize) -> Lan {
    let mut lan = Lan::start(Programs::debug().unwrap()).await.unwrap();
    let grown = lan.grow(speakers).await;
    told(&lan, grown);
    lan
}

/// Panics with what the speakers said.
fn told(lan: &Lan, result: Result<()>) {
    if let Err(error) = result {
        lan.keep_logs();
        panic!("{error:#}\n{}", lan.log_tails());
    }
}

fn ours(lan: &Lan) -> BTreeSet<Mac> {
    lan.nodes().iter().map(|node| node.mac).collect()
}

fn after(ip: Ipv4Addr, n: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(ip) + n)
}

async fn used_before(lan: &mut Lan) -> Result<()> {
    let first = *lan.services(0..1).await?.first().context("no address")?;
    let (used, free) = (after(first, 1), after(first, 2));
    let stranger = lan.stranger(None)?;
    stranger.netns.ip(&["addr", "add", &format!("{used}/32"), "dev", "eth0"])?;
    let prober = lan.prober(&[first, used, free], EVERY)?;
    let began = SystemTime::now();
    lan.services(1..2).await?;
    let ours = ours(lan);
    prober
        .wait(began, secs(20), |h| h.ip == free && ours.contains(&h.mac) && h.how == How::Reply)
        .with_context(|| format!("{used} is in use by {:02x?}, nobody answers for {free}", stranger.mac))?;
    let stolen: Vec<Heard> =
        prober.timeline()?.heard.into_iter().filter(|h| h.ip == used && ours.contains(&h.mac)).collect();
    ensure!(stolen.is_empty(), "our speakers said that they have {used}: {stolen:?}");
    ensure!(!lan.conflicts().await?.is_empty(), "there is no AddressConflict");
    Ok(())
}

async fn claimed_after(lan: &mut Lan) -> Result<()> {
    let vip = *lan.services(0..1).await?.first().context("no address")?;
    let prober = lan.prober(&[vip], EVERY)?;
    let owner = prober.sole_owner(vip, Duration::from_millis(500), secs(15))?;
    let stranger = lan.stranger(None)?;
    // Nothing of the announcement schedule is left by then.
    let burst = |since| {
        let heard = prober.timeline()?.heard;
        Ok::<_, anyhow::Error>(
            heard.iter().filter(|h| h.at >= since && h.mac == owner && h.how == How::Gratuitous).count(),
        )
    };
    wait::until_blocking("the announcements of the takeover are over", secs(20), || {
        let since = SystemTime::now().checked_sub(secs(2)).context("clock")?;
        let recent = burst(since)?;
        let asked_long = prober.timeline()?.asked.first().is_some_and(|a| a.at < since);
        Ok(Seen::when(recent == 0 && asked_long, recent))
    })?;

    let claimed = SystemTime::now();
    let once = Injector::start(&stranger.netns, claims(stranger.mac, vip).into(), Some(1))?;
    wait::until_blocking("a claim was sent", secs(5), || Ok(Seen::when(once.sent() >= 1, once.sent())))?;
    drop(once);
    prober
        .wait(claimed, secs(5), |h| h.mac == owner && h.how == How::Gratuitous)
        .context("the claim was not defended")?;

    // It goes on. The address is a Service's: it is not given up (RFC 5227 2.4 (c)), and somebody is told.
    let insists = SystemTime::now();
    let again = Injector::start(&stranger.netns, claims(stranger.mac, vip).into(), Some(5))?;
    wait::until("an AddressConflict tells of it", secs(20), || async {
        let all = lan.conflicts().await?;
        Ok(Seen::when(!all.is_empty(), all.len()))
    })
    .await?;
    wait::until_blocking("it has insisted for 12 s", secs(15), || {
        let sent = again.sent();
        Ok(Seen::when(sent >= 60, sent))
    })?;
    drop(again);
    // A defence is a request and a reply: two in 12 s are four frames. A machine that is so busy that a speaker stalls adds
    // a schedule of announcements; an answer to each of the 60 claims would be 120 frames.
    let frames = burst(insists)?;
    ensure!(frames <= 40, "{frames} announcements within 12 s of claims");
    let silence = prober.timeline()?.longest_silence(vip, claimed, SystemTime::now());
    ensure!(silence < secs(1), "our clients had no answer for {silence:?}");
    Ok(())
}
