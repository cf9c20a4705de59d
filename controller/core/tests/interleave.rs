//! Never twice: two controllers (the real [`Reconciler`] and the real [`Writes`]) on a model of the API server, with a
//! Lease, in random interleavings.
//!
//! A controller may be stopped at any point and go on much later, its requests may arrive long after it lost the Lease or
//! died, answers and watch events come late, and users create, edit, delete and put taken addresses into statuses. Every
//! write is checked when it is done. A failure prints its seed; `PATINA_SEED=N` runs that one, `PATINA_RUNS=N` more of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed expectation is a failed test

mod common;
#[path = "interleave/process.rs"]
mod process;
#[path = "interleave/server.rs"]
mod server;
#[path = "interleave/user.rs"]
mod user;
#[path = "interleave/world.rs"]
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use world::{Rules, World};

/// Splitmix64: a seed is a history.
#[derive(Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 to n-1.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn pick<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        all.get(self.below(all.len()))
    }
}

const RUNS: u64 = 2500;
const STEPS: usize = 700;

#[expect(clippy::disallowed_methods, reason = "which histories to run is asked of who runs the test")]
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// Everything that went wrong in one history; `None`: nothing.
fn run(seed: u64, rules: Rules) -> Result<World, (String, Vec<String>)> {
    let mut world = World::new(seed, rules);
    let result = catch_unwind(AssertUnwindSafe(|| {
        for _ in 0..STEPS {
            world.step();
        }
        world.settle();
    }));
    match result {
        Ok(()) => Ok(world),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            Err((text.unwrap_or_default(), world.history()))
        }
    }
}

fn seeds() -> Vec<u64> {
    match number("PATINA_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("PATINA_RUNS").unwrap_or(RUNS)).collect(),
    }
}

fn all_hold(rules: Rules) {
    let (mut late, mut handovers, mut fenced, mut healed) = (0, 0, 0, 0);
    for seed in seeds() {
        match run(seed, rules) {
            Ok(world) => {
                late += world.late_arrivals;
                handovers += world.handovers;
                fenced += world.fenced;
                healed += world.edits_put_right;
            }
            Err((why, history)) => {
                let from = history.len().saturating_sub(60);
                panic!("PATINA_SEED={seed}: {why}\nthe last steps:\n{}", history[from..].join("\n"));
            }
        }
    }
    println!("late patches {late}, handovers {handovers}, fenced {fenced}, edits put right {healed}");
    if number("PATINA_SEED").is_none() {
        assert!(late > 100 && handovers > 100 && fenced > 100, "the histories are too tame");
    }
}

#[test]
fn no_interleaving_of_two_controllers_shows_an_address_twice() {
    all_hold(Rules::default());
}

#[test]
fn nor_do_users_who_write_into_statuses() {
    all_hold(Rules { status_edits: true, ..Rules::default() });
}

/// The model is worth something: it finds the holes that the rules close.
#[test]
fn without_the_fence_a_late_patch_shows_an_address_twice() {
    let rules = Rules { fence: false, ..Rules::default() };
    let found = (0..4000).find_map(|seed| {
        run(seed, rules).err().map(|(why, _)| (seed, why)).filter(|(_, why)| why.contains("twice"))
    });
    let (seed, why) = found.expect("no history found the hole");
    println!("seed {seed}: {why}");
}
