//! `make demo`: the classic tutorial on a lab of three nodes, told as it happens. Every step waits for what it shows,
//! and fails with everything there is to see when it does not come.

mod acts;
mod story;

use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::lab::plan::prefix;
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
    let (id, dir) = (lab.plan().id.clone(), lab.dir().to_path_buf());
    lab.down();
    let left: Vec<_> = fs::read_dir("/run/netns")
        .into_iter()
        .flatten()
        .filter_map(|e| e.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with(&prefix(&id)))
        .collect();
    if !left.is_empty() || dir.exists() {
        bail!("the lab is down, but something is left: {left:?} {}", dir.display());
    }
    story.say("The lab is down: no process, no network namespace and no file of it is left. That was all.");
    Ok(())
}
