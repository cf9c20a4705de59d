//! Our BGP with every router, feature by feature: prints the table of what works with whom. `PATINA_MATRIX=GTSM,BIRD` tries the
//! rows and routers whose names have one of these words, and leaves the rest out.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::cast_possible_truncation)] // a failed expectation is a failed test

#[path = "bgp_interop/trials.rs"]
mod trials;
#[path = "bgp_interop/us.rs"]
mod us;

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Instant;

use patina_e2e::routers::{Feature, Kind, Matrix, Over};

/// Routers mostly wait.
const TOGETHER: usize = 4;

#[test]
fn our_bgp_and_every_router_understand_each_other() {
    let words = std::env::var("PATINA_MATRIX").unwrap_or_default();
    let words: Vec<&str> = words.split(',').filter(|word| !word.is_empty()).collect();
    let meant = |feature: &Feature, kind: Kind| {
        let kind = kind.to_string();
        let kinds: Vec<&&str> =
            words.iter().filter(|word| Kind::ALL.iter().any(|k| k.to_string() == ***word)).collect();
        let names: Vec<&&str> = words.iter().filter(|word| !kinds.contains(word)).collect();
        (kinds.is_empty() || kinds.iter().any(|word| **word == kind))
            && (names.is_empty() || names.iter().any(|word| feature.name.contains(**word)))
    };
    let mut matrix = Matrix::default();
    let due: VecDeque<(&'static Feature, Over, Kind)> =
        matrix.due().into_iter().filter(|(feature, _, kind)| meant(feature, *kind)).collect();
    let tried = due.len();
    let (due, done) = (Mutex::new(due), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..TOGETHER {
            scope.spawn(|| {
                loop {
                    let next = due.lock().unwrap().pop_front();
                    let Some((feature, over, kind)) = next else { return };
                    let Some(trial) = trials::of(feature.name) else { continue };
                    let started = Instant::now();
                    let result = trials::Trial::new(feature, over, kind).and_then(|setting| trial(&setting));
                    let word = if result.is_ok() { "works" } else { "FAILS" };
                    eprintln!("{:6.1?} {word}: {}, {over}, {kind}", started.elapsed(), feature.name);
                    if let Err(error) = &result {
                        eprintln!("{error:#}");
                    }
                    done.lock().unwrap().push((feature, over, kind, result));
                }
            });
        }
    });
    for (feature, over, kind, result) in done.into_inner().unwrap() {
        let result =
            result.map_err(|error| anyhow::anyhow!("{}, {over}: {}", feature.name, error.root_cause()));
        matrix.tried(feature.name, over, kind, result);
    }
    println!("{matrix}");
    assert!(words.is_empty() || tried > 0, "no row or router is called so: {words:?}");
    assert!(matrix.is_good() || !words.is_empty(), "not everything was tried and works:\n{matrix}");
}
