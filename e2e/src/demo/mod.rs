//! `make demo`: the classic tutorial on a lab of three nodes, told as it happens. Every step waits for what it shows,
//! and fails with everything there is to see when it does not come.

mod acts;
mod story;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::lab::view::{View, is_alive};
use crate::lab::{Lab, Options};
use crate::tracing_to_stderr;
use story::Story;

/// Between two questions while a takeover is measured.
pub(crate) const PROBE_EVERY: Duration = Duration::from_millis(10);

/// Plays it to the end.
///
/// # Errors
/// The report could not be written. Anything else that is not as it should be is told and makes the exit code.
pub fn play() -> Result<ExitCode> {
    tracing_to_stderr();
    let story = Story::begin();
    match told(&story) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            story.say(&format!("THE DEMO FAILED: {error:#}"));
            Ok(ExitCode::FAILURE)
        }
    }
}

fn told(story: &Story) -> Result<()> {
    story.say("A lab of three nodes: real etcd, API server, controller-manager, kube-proxy, and Patina from its chart.");
    let steps = story.clone();
    let lab = Lab::up(Options::default(), move |line| steps.say(&format!("  {line}")))?;
    lab.end_on_signal()?;
    if let Err(error) = acts::all(story, &lab) {
        lab.keep_report();
        return Err(error);
    }
    let (view, processes) = (View::clone(&lab), lab.processes());
    lab.down();
    let alive: Vec<i32> = processes.iter().copied().filter(|pid| is_alive(*pid)).collect();
    let namespaces = view.namespaces();
    if !alive.is_empty() || !namespaces.is_empty() || view.dir().exists() {
        bail!(
            "the lab is down, but something is left: processes {alive:?}, {namespaces:?}, {}",
            view.dir().display()
        );
    }
    story.say(&format!(
        "The lab is down. Of its {} processes, network namespaces and files none is left.",
        processes.len()
    ));
    Ok(())
}
