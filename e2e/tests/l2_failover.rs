//! An address changes hands on a LAN of real speakers: deaths, stops, cuts, an API server that is away, strangers. Correctness
//! with generous bounds; how fast it is, `make bench ONLY=l2` measures.

mod l2_failover {
    pub(crate) mod cases;
    mod second_network;
}

use std::process::ExitCode;

use l2_failover::cases;
use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // They want all CPUs for their timing.
    arguments.test_threads = Some(1);
    let trials = cases::ALL
        .iter()
        .map(|&(name, case)| Trial::test(name, move || case().map_err(|error| format!("{error:#}").into())));
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    if conclusion.has_failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
