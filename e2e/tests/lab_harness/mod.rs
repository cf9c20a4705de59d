//! One lab for all tests of a file: brought up before the first, taken down after the last, and asked for everything
//! there is to see when one fails. The tests run one after another, in the order of the list.

use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use anyhow::Result;
use libtest_mimic::{Arguments, Trial};
use patina_e2e::lab::{Lab, Options};

/// A test: a sentence, and what makes it true.
pub(crate) type Case = (&'static str, fn(&Lab) -> Result<()>);

/// Runs the file's `cases` on a lab that `prepare` made ready.
pub(crate) fn run(options: Options, prepare: fn(&Lab) -> Result<()>, cases: &[Case]) -> ExitCode {
    let mut arguments = Arguments::from_args();
    // They change the same cluster.
    arguments.test_threads = Some(1);
    let lab: Arc<OnceLock<Result<Lab, String>>> = Arc::default();
    let trials = cases.iter().map(|&(name, case)| {
        let (lab, options) = (Arc::clone(&lab), options.clone());
        Trial::test(name, move || {
            let up = lab.get_or_init(|| bring_up(options, prepare).map_err(|error| format!("{error:#}")));
            let lab = up.as_ref().map_err(|error| format!("there is no lab to test in: {error}"))?;
            case(lab).map_err(|error| {
                lab.keep_report();
                format!("{error:#}").into()
            })
        })
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    drop(lab); // before the exit, which drops nothing
    if conclusion.has_failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn bring_up(options: Options, prepare: fn(&Lab) -> Result<()>) -> Result<Lab> {
    let lab = Lab::up(options, |line| eprintln!("{line}"))?;
    lab.end_on_signal()?;
    prepare(&lab).inspect_err(|_| lab.keep_report())?;
    Ok(lab)
}

/// Waits for `work` on a runtime of its own.
pub(crate) fn wait_for<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}
