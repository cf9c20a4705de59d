//! What happens, chosen by the seed.

use std::time::Duration;

use patina_crds::config::Failback;

use super::api;
use super::oracle::Record;
use super::windows::{CAREFUL, DARK_AFTER_DEATH, DETECTION, HEARING, ISOLATED, LAG, NEW_ADDRESS, START};
use super::world::{World, some_failback};

/// A few episodes of things that happen, each followed by quiet.
pub(crate) fn run(seed: u64, real: bool) -> Record {
    let mut world = World::new(seed, real);
    for n in 0..world.nodes.len() {
        world.oracle.happens("all start", world.now + START, world.now + START);
        world.start(n);
        let pause = world.random.millis(0, 300);
        world.advance(pause);
    }
    world.settle("at the start");
    for episode in 0..4 {
        let things = if world.random.percent(50) { 1 } else { 1 + world.random.below(4) };
        for _ in 0..things {
            thing(&mut world);
            let pause = if world.random.percent(60) {
                world.random.millis(0, 600)
            } else {
                world.random.millis(600, 4000)
            };
            world.advance(pause);
        }
        mend(&mut world);
        world.settle(&format!("episode {episode}"));
    }
    std::mem::take(&mut world.oracle.record)
}

/// One thing.
fn thing(world: &mut World) {
    let now = world.now;
    let n = world.random.below(world.nodes.len());
    let alive = world.nodes[n].running() && !world.nodes[n].leaving;
    let known = now + DETECTION;
    let patient = world.api.config.l2_advertisements[0].failback != Failback::Immediate;
    let dead = now + DARK_AFTER_DEATH + if patient { CAREFUL } else { Duration::ZERO };
    match world.random.below(14) {
        0..=2 if alive => {
            world.say(|| format!("--- node-{n} crashes"));
            world.oracle.happens("crash", known + HEARING, dead);
            world.kill(n);
        }
        0..=4 if world.nodes[n].process == super::node::Process::Dead => {
            world.say(|| format!("--- node-{n} starts"));
            // Where another lives, nothing is dark.
            let others = world.nodes.iter().any(|node| node.decided && node.running());
            world.oracle.happens("start", now + START, if others { now } else { now + START });
            world.start(n);
        }
        3 if alive => {
            let duration = if world.random.percent(30) {
                world.random.millis(20, 200)
            } else {
                world.random.millis(200, 3000)
            };
            world.say(|| format!("--- node-{n} stops for {duration:?}"));
            world.oracle.happens("stop", known + HEARING, dead);
            world.stop(n, duration);
        }
        4 | 5 if alive => {
            world.say(|| format!("--- node-{n} drains"));
            world.oracle.happens("drain", known + HEARING, now);
            world.leave(n);
        }
        6 if alive => {
            world.say(|| format!("--- node-{n} loses carrier"));
            world.oracle.happens("carrier lost", known + HEARING, dead);
            world.set_link(n, false, true);
        }
        7 if alive => {
            world.say(|| format!("--- node-{n} is cut off, with carrier"));
            let dark = if world.one_nic { dead } else { dead.max(now + ISOLATED) };
            world.oracle.happens("cut off", known + HEARING, dark);
            world.set_link(n, true, false);
        }
        8 | 9 => {
            let (wire, net) = match world.random.below(3) {
                0 => (true, true),
                1 => (false, true),
                // With one interface the wire is membership's, too.
                _ if world.one_nic => (true, true),
                _ => (true, false),
            };
            let parts: Vec<u8> = world.nodes.iter().map(|_| 0).collect();
            let parts: Vec<u8> = parts.iter().map(|_| u8::from(world.random.percent(50))).collect();
            world.say(|| format!("--- partition {parts:?} wire {wire} membership {net}"));
            let what = if !wire {
                "membership in two"
            } else if net {
                "all in two"
            } else {
                "wire in two"
            };
            world.oracle.happens(what, known + HEARING, dead);
            if wire {
                world.wire.clone_from(&parts);
            }
            if net {
                world.net = parts;
            }
            world.moved();
        }
        10 => mend(world),
        11 => {
            let node = world.random.percent(70).then(|| world.nodes[n].name.clone());
            world.say(|| format!("--- preferred: {node:?}"));
            world.oracle.happens("preference", now + LAG + HEARING, now);
            world.api.prefer(node.as_deref());
            world.publish(LAG);
        }
        12 => {
            let failback = some_failback(&mut world.random);
            world.say(|| format!("--- {failback:?}"));
            world.oracle.happens("failback policy", now + LAG + HEARING, now);
            world.api.failback(failback);
            world.publish(LAG);
        }
        _ => {
            let more = world.api.services.len() < 3 || world.random.percent(50);
            world.say(|| format!("--- a Service {}", if more { "more" } else { "less" }));
            world.oracle.happens("a Service", now + NEW_ADDRESS + HEARING, now + NEW_ADDRESS);
            let services = &mut world.api.services;
            if more {
                services.push(api::service(services.len()));
            } else {
                services.pop();
            }
            world.publish(LAG);
        }
    }
}

/// Everything that is cut is whole again, and processes that were stopped run.
fn mend(world: &mut World) {
    let cut = world.nodes.iter().any(|node| !node.carrier || !node.link);
    if !cut && world.wire.iter().chain(&world.net).all(|part| *part == 0) {
        return;
    }
    world.say(|| "--- all is mended".to_owned());
    let now = world.now;
    world.oracle.happens("mended", now + DETECTION + HEARING, now + DETECTION);
    for n in 0..world.nodes.len() {
        if !world.nodes[n].carrier || !world.nodes[n].link {
            world.set_link(n, true, true);
        }
    }
    world.wire.fill(0);
    world.net.fill(0);
    world.moved();
    let pause: Duration = world.random.millis(0, 50);
    world.advance(pause);
}
