//! All machines together: speakers (membership, `intent`, ownership, announcer, responder) on a segment with a client, under a
//! virtual clock. Frames and datagrams are lost and late, API news come late; speakers crash, start, stop and wake, drain;
//! links fail with and without carrier; the wire, membership or both are cut in two. In every run
//! - at most one speaker announces an address on a wire, outside the windows of `windows.rs`;
//! - no address is dark that has a candidate, outside of them; a drain leaves it dark at no moment;
//! - a number of events causes a bounded number of moves;
//! - when the network is whole and quiet, exactly one speaker answers, and the client knows that one.
//!
//! Everything random comes from the seed that a failure names. `PATINA_SEEDS=FROM..TO cargo test -p patina-speaker-core --test whole`
//! runs others; `PATINA_TRACE=1` with one seed prints what happens.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed expectation is a failed test
#![allow(clippy::disallowed_methods)] // the runner, unlike the core, has an environment, threads and an origin of its clock

mod api;
mod ideal;
mod node;
mod oracle;
mod random;
mod returns;
mod scenario;
mod windows;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use scenario::run;

#[test]
fn with_an_ideal_membership_of_any_delays() {
    seeds(1..=100, |seed| run(seed, false));
}

#[test]
fn with_the_membership_that_speakers_have() {
    seeds(1..=60, |seed| run(seed, true));
}

#[test]
fn one_answers_soon_after_a_cable_was_mended() {
    seeds(1..=30, returns::mended);
}

#[test]
fn a_woken_speaker_says_nothing_of_what_another_has_and_keeps() {
    seeds(1..=30, returns::woken);
}

/// Runs every seed, on two threads; fails with the seeds that failed.
fn seeds(default: std::ops::RangeInclusive<u64>, run: impl Fn(u64) -> oracle::Record + Sync) {
    let wanted = std::env::var("PATINA_SEEDS").ok();
    let seeds: Vec<u64> = match wanted.as_deref().map(|text| text.split_once("..").unwrap_or((text, text))) {
        Some((from, to)) => (from.parse().unwrap()..=to.parse().unwrap()).collect(),
        None => default.collect(),
    };
    let half = |odd: u64| {
        let mut failed = Vec::new();
        let mut record = oracle::Record::default();
        for seed in seeds.iter().filter(|seed| **seed % 2 == odd) {
            match catch_unwind(AssertUnwindSafe(|| run(*seed))) {
                Ok(one) => record.add(&one),
                Err(_) => failed.push(*seed),
            }
        }
        (failed, record)
    };
    let ((mut failed, mut record), (others, theirs)) = std::thread::scope(|scope| {
        let other = scope.spawn(|| half(1));
        (half(0), other.join().unwrap())
    });
    failed.extend(others);
    record.add(&theirs);
    println!("{} seeds\n{record}", seeds.len());
    assert!(failed.is_empty(), "failed seeds: {failed:?} (PATINA_SEEDS=N PATINA_TRACE=1 repeats one)");
}
