//! A node comes back to a segment where others have taken over: what it may say, and when. The client asks all the time.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use patina_crds::config::Failback;
use patina_speaker_core::l2::duty::Mode;

use super::oracle::Record;
use super::windows::{CAREFUL, DARK_AFTER_DEATH, DETECTION, HANDED_OVER, HEARING, MENDED, START};
use super::world::{Said, World};

/// The client asks for each address that often.
const EVERY: Duration = Duration::from_millis(10);
/// How long it watches who answers.
const WATCH: Duration = Duration::from_millis(2500);

/// The announcer's cable is cut, with carrier or without, and mended; no frame is lost. Two answer for [`MENDED`] at most; a
/// node that saw the cut, as a handover, for [`HANDED_OVER`].
pub(crate) fn mended(seed: u64) -> Record {
    let mut world = begin(seed, None);
    for round in 0..4 {
        let (_, n) = announcer(&mut world);
        let carrier = world.random.percent(40);
        world.say(|| format!("--- node-{n} is cut off, carrier {carrier}"));
        world.lossy = false;
        world.oracle.happens("cut", world.now + DETECTION + HEARING, world.now + DARK_AFTER_DEATH + CAREFUL);
        world.set_link(n, carrier, false);
        let pause = world.random.millis(600, 3000);
        world.advance(pause);
        world.say(|| format!("--- node-{n} is mended"));
        world.oracle.happens("mended", world.now + MENDED, world.now + DETECTION);
        world.set_link(n, true, true);
        let said = watch(&mut world);
        let most = if carrier { MENDED } else { HANDED_OVER };
        if let Some((ip, two)) = longest_with_two(&said).filter(|(_, two)| *two > most) {
            world.fail(&format!("round {round}, carrier {carrier}: two answer for {ip} for {two:?}"));
        }
        world.settle(&format!("round {round}"));
    }
    std::mem::take(&mut world.oracle.record)
}

/// The announcer stalls, and wakes when another has its addresses. With failback `never` it says nothing of them any more; with
/// immediate failback it announces before it answers.
pub(crate) fn woken(seed: u64) -> Record {
    let failback = if seed.is_multiple_of(4) { Failback::Immediate } else { Failback::Never };
    let mut world = begin(seed, Some(failback));
    for round in 0..4 {
        let (_, n) = announcer(&mut world);
        let duration = world.random.millis(700, 1800);
        world.say(|| format!("--- node-{n} stops for {duration:?}"));
        world.oracle.happens("stop", world.now + DETECTION + HEARING, world.now + DARK_AFTER_DEATH + CAREFUL);
        world.stop(n, duration);
        world.advance(duration - Duration::from_micros(1));
        let ips: Vec<IpAddr> =
            world.api.ips().into_iter().filter(|ip| held_by_another(&world, n, *ip)).collect();
        world.claims.clear();
        for said in watch(&mut world).iter().filter(|said| said.node == n && ips.contains(&said.ip)) {
            let first = world.claims.is_empty();
            if failback == Failback::Never {
                world.fail(&format!("round {round}: node-{n} has woken, and says: {said:?}"));
            } else if first && said.answer {
                world.fail(&format!(
                    "round {round}: node-{n} has woken, and answers before it announces: {said:?}"
                ));
            }
            world.claims.push(*said);
        }
        world.settle(&format!("round {round}"));
    }
    std::mem::take(&mut world.oracle.record)
}

/// A cluster that works, with one interface for all on each node.
fn begin(seed: u64, failback: Option<Failback>) -> World {
    let mut world = World::new(seed, true);
    world.one_nic = true;
    if let Some(failback) = failback {
        world.api.failback(failback);
    }
    for n in 0..world.nodes.len() {
        world.oracle.happens("all start", world.now + START, world.now + START);
        world.start(n);
    }
    world.settle("at the start");
    world
}

/// One of the addresses, and who has it, at some phase of everything that is periodic.
fn announcer(world: &mut World) -> (IpAddr, usize) {
    let phase = world.random.millis(0, 1000);
    world.advance(phase);
    let ips: Vec<IpAddr> = world.api.ips().into_iter().collect();
    let ip = ips[world.random.below(ips.len())];
    let has = |n: &usize| world.nodes[*n].able(world.now) && world.nodes[*n].mode(ip) == Some(Mode::Announce);
    let Some(n) = (0..world.nodes.len()).find(has) else { world.fail("nobody has it") };
    (ip, n)
}

fn held_by_another(world: &World, n: usize, ip: IpAddr) -> bool {
    let others = world.nodes.iter().filter(|node| node.index != n && node.able(world.now));
    others.into_iter().any(|node| node.mode(ip) == Some(Mode::Announce))
}

/// Asks for everything all the time. What the speakers said.
fn watch(world: &mut World) -> Vec<Said> {
    world.claims.clear();
    let end = world.now + WATCH;
    while world.now < end {
        for ip in world.api.ips() {
            world.ask(ip);
        }
        world.advance(EVERY);
    }
    std::mem::take(&mut world.claims)
}

/// For how long two answered for one address: from the first question that two answered to the last one.
fn longest_with_two(said: &[Said]) -> Option<(IpAddr, Duration)> {
    let mut answered: BTreeMap<IpAddr, BTreeMap<usize, Instant>> = BTreeMap::new();
    let mut two: BTreeMap<IpAddr, (Instant, Instant)> = BTreeMap::new();
    for said in said.iter().filter(|said| said.answer) {
        let by = answered.entry(said.ip).or_default();
        by.insert(said.node, said.at);
        if by.values().filter(|at| said.at - **at < EVERY / 2).count() > 1 {
            two.entry(said.ip).or_insert((said.at, said.at)).1 = said.at;
        }
    }
    two.into_iter().map(|(ip, (first, last))| (ip, last - first)).max_by_key(|(_, two)| *two)
}
