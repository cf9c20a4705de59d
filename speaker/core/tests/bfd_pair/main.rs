//! Two BFD sessions against each other under a virtual clock: sentences, each over several seeds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a failed expectation is a failed test
#![allow(clippy::disallowed_methods)] // the runner, unlike the core, has an environment and an origin of its clock

mod echo;
mod polls;
mod strangers;
mod world;

use std::time::Duration;

use patina_speaker_core::bfd::{Diagnostic, Input, Settings, State};
use world::{A, B, MS, Random, Wire, World, settings};

fn each_seed(what: &str, case: impl Fn(u64)) {
    let more = std::env::var("PATINA_SEEDS").ok().and_then(|count| count.parse().ok());
    for seed in 0..more.unwrap_or(50) {
        if let Err(panic) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| case(seed))) {
            eprintln!("{what}: failed with seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

/// Any that a profile can have, without echo.
fn any_settings(random: &mut Random) -> Settings {
    Settings {
        transmit_interval: MS(10 + random.below(600)),
        receive_interval: MS(10 + random.below(600)),
        detect_multiplier: 2 + random.below(4) as u8,
        ..settings()
    }
}

#[test]
fn two_that_begin_at_once_are_up_after_three_packets() {
    each_seed("up", |seed| {
        let mut world = World::new(seed, [settings(), settings()]);
        assert!(world.run_until(MS(5), World::both_up), "{:?}", world.states());
        for node in &world.nodes {
            let states: Vec<State> = node.changes.iter().map(|change| change.to).collect();
            assert!(states == [State::Init, State::Up] || states == [State::Up], "{states:?}");
            assert!(node.changes.iter().all(|change| change.diagnostic == Diagnostic::None));
        }
        world.run(MS(60_000));
        assert_eq!([world.downs(A), world.downs(B)], [0, 0]);
    });
}

#[test]
fn over_a_bad_wire_they_come_up_within_seconds() {
    each_seed("bad wire", |seed| {
        let mut world = World::new(seed, [settings(), settings()]);
        world.wires(Wire { delay: MS(5), more: MS(5), loss: 300, row: 2, ..Wire::GOOD });
        assert!(world.run_until(MS(10_000), World::both_up), "{:?}", world.states());
    });
}

#[test]
fn a_silent_peer_is_down_at_the_computed_time_and_never_earlier() {
    each_seed("detection", |seed| {
        let mut random = Random::new(seed + 1000);
        let both = [any_settings(&mut random), any_settings(&mut random)];
        let mut world = World::up(seed, both.clone());
        world.run(Duration::from_micros(random.below(2_000_000)));
        world.nodes[B].wire.cut = true;
        // B's multiplier, and the larger of what A can receive and B would like to send (section 6.8.4).
        let interval = both[A].receive_interval.max(both[B].transmit_interval);
        let computed = interval * u32::from(both[B].detect_multiplier);
        assert_eq!(world.nodes[A].machine.view().detection_time, Some(computed));
        assert!(world.run_until(computed * 2, |world| world.downs(A) > 0));
        let down = *world.nodes[A].changes.last().unwrap();
        assert_eq!(down.diagnostic, Diagnostic::ControlDetectionTimeExpired);
        assert_eq!(down.at - world.nodes[A].heard.unwrap(), computed, "at {:?}", world.since(down.at));
        // A tells B at once, and both start anew when the wire is whole.
        assert!(world.run_until(MS(1), |world| world.downs(B) > 0));
        assert_eq!(world.nodes[B].changes.last().unwrap().diagnostic, Diagnostic::NeighborSignaledDown);
        world.nodes[B].wire.cut = false;
        assert!(world.run_until(MS(5000), World::both_up), "{:?}", world.states());
    });
}

#[test]
fn two_packets_lost_in_a_row_never_bring_a_session_with_multiplier_3_down() {
    each_seed("two lost", |seed| {
        let mut world = World::up(seed, [settings(), settings()]);
        world.wires(Wire { loss: 700, row: 2, ..Wire::GOOD });
        world.run(MS(60_000));
        assert_eq!([world.downs(A), world.downs(B)], [0, 0]);
        // And it is the row that counts.
        world.wires(Wire { loss: 1000, row: 4, ..Wire::GOOD });
        world.run(MS(5000));
        assert!(world.downs(A) > 0 && world.downs(B) > 0);
    });
}

#[test]
fn a_wire_that_delays_unevenly_brings_nothing_down() {
    each_seed("jitter", |seed| {
        let mut world = World::up(seed, [settings(), settings()]);
        world.wires(Wire { delay: MS(3), more: MS(40), ..Wire::GOOD });
        world.run(MS(60_000));
        assert_eq!([world.downs(A), world.downs(B)], [0, 0]);
    });
}

#[test]
fn packets_go_out_at_75_to_100_percent_of_the_larger_interval_and_90_with_multiplier_1() {
    for (multiplier, most) in [(3, 100), (1, 90)] {
        each_seed("jitter of ours", |seed| {
            let ours = Settings { detect_multiplier: multiplier, ..settings() };
            let theirs = Settings { receive_interval: MS(80), ..settings() };
            let mut world = World::up(seed, [ours, theirs]);
            world.nodes[A].sent.clear();
            world.run(MS(20_000));
            let sent = &world.nodes[A].sent;
            let gaps: Vec<Duration> = sent.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
            let (least, longest) = (*gaps.iter().min().unwrap(), *gaps.iter().max().unwrap());
            assert!(least >= MS(60) && longest <= MS(80) * most / 100, "{least:?} to {longest:?}");
            assert!(
                longest - least > MS(80) * (most - 75) / 100 / 2,
                "it is jitter: {least:?} to {longest:?}"
            );
        });
    }
}

#[test]
fn a_stall_of_ours_is_no_failure_of_the_peers() {
    each_seed("stall", |seed| {
        // The peer sends every 20 ms and is patient; we are not.
        let ours = Settings { receive_interval: MS(20), ..settings() };
        let theirs = Settings { transmit_interval: MS(20), receive_interval: MS(2000), ..settings() };
        let mut world = World::up(seed, [ours, theirs]);
        for _ in 0..10 {
            world.stall(A, MS(1500));
            world.run(MS(4000));
        }
        assert_eq!([world.downs(A), world.downs(B)], [0, 0]);
        // A peer that died while we stalled is found by what is in the socket: not later than if we had been awake.
        world.stall(A, MS(1000));
        world.run(MS(500));
        world.nodes[B].wire.cut = true;
        world.run(MS(500));
        assert_eq!(world.downs(A), 1);
        assert_eq!(
            world.nodes[A].changes.last().unwrap().diagnostic,
            Diagnostic::ControlDetectionTimeExpired
        );
    });
}

#[test]
fn admin_down_is_told_and_is_no_failure() {
    each_seed("admin down", |seed| {
        let mut world = World::up(seed, [settings(), settings()]);
        world.input(A, Input::AdminDown(true));
        assert!(world.run_until(MS(1), |world| world.downs(B) > 0));
        let told = *world.nodes[B].changes.last().unwrap();
        assert_eq!((told.diagnostic, told.remote), (Diagnostic::NeighborSignaledDown, State::AdminDown));
        assert_eq!(world.nodes[A].changes.last().unwrap().diagnostic, Diagnostic::AdministrativelyDown);
        // "for at least a Detection Time": the first one may be lost.
        let since = world.now;
        let until = world.nodes[A].machine.known_down().unwrap();
        assert_eq!(until - world.nodes[A].changes.last().unwrap().at, MS(3000));
        world.nodes[A].sent.clear();
        world.run(until - since);
        assert!(world.nodes[A].sent.len() >= 3, "{}", world.nodes[A].sent.len());
        assert!(world.nodes[A].sent.iter().all(|(_, packet)| packet.state == State::AdminDown));
        assert_eq!(world.states(), [State::AdminDown, State::Down]);
        world.input(A, Input::AdminDown(false));
        assert!(world.run_until(MS(3000), World::both_up), "{:?}", world.states());
    });
}

#[test]
fn a_passive_one_waits_for_the_other_and_two_of_them_wait_for_ever() {
    let passive = || Settings { passive: true, ..settings() };
    each_seed("passive", |seed| {
        let mut world = World::new(seed, [passive(), settings()]);
        assert!(world.nodes[A].sent.is_empty());
        assert!(world.run_until(MS(3000), World::both_up), "{:?}", world.states());
        // One that is not heard any more is not spoken to.
        world.nodes[B].wire.cut = true;
        world.run(MS(10_000));
        world.nodes[A].sent.clear();
        world.run(MS(60_000));
        assert!(world.nodes[A].sent.is_empty());
        world.nodes[B].wire.cut = false;
        assert!(world.run_until(MS(3000), World::both_up), "{:?}", world.states());

        let mut world = World::new(seed, [passive(), passive()]);
        world.run(MS(60_000));
        assert!(world.nodes.iter().all(|node| node.sent.is_empty()) && world.under_way_is_empty());
    });
}

#[test]
fn whatever_happens_they_are_up_again_afterwards() {
    each_seed("anything", |seed| {
        let mut random = Random::new(seed + 7);
        let mut world = World::new(seed, [any_settings(&mut random), any_settings(&mut random)]);
        for _ in 0..100 {
            let who = random.below(2) as usize;
            match random.below(7) {
                0 => {
                    let echo_mode = random.below(2) == 0;
                    let settings = Settings { echo_mode, ..any_settings(&mut random) };
                    world.input(who, Input::Configure(Box::new(settings)));
                }
                1 => world.input(who, Input::AdminDown(random.below(2) == 0)),
                2 => world.stall(who, MS(random.below(3000))),
                3 => world.nodes[who].wire.cut ^= true,
                4 => {
                    let (delay, more) = (MS(random.below(50)), MS(random.below(50)));
                    let loss = random.below(500);
                    world.nodes[who].wire = Wire { delay, more, loss, ..Wire::GOOD };
                }
                _ => world.run(MS(random.below(3000))),
            }
        }
        world.wires(Wire::GOOD);
        world.input(A, Input::AdminDown(false));
        world.input(B, Input::AdminDown(false));
        // Stalls end, and what was under way arrives.
        world.run(MS(5000));
        assert!(world.run_until(MS(20_000), World::both_up), "{:?}", world.states());
        let downs = [world.downs(A), world.downs(B)];
        world.run(MS(30_000));
        assert_eq!([world.downs(A), world.downs(B)], downs);
    });
}
