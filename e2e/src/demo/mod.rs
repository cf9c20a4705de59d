//! `make demo`: the classic tutorial on a lab of three nodes, told as it happens. Every step waits for what it shows,
//! and fails with everything there is to see when it does not come.

mod acts;
mod story;

use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::lab::plan::prefix;
use crate::lab::{Lab, Options};
use crate::{paths, tracing_to_stderr};
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
    if let Err(error) = acts::all(story, &lab) {
        keep_report(story, &lab)?;
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

/// Everything there is to see, on the terminal and in a file beside the logs and the frame capture.
fn keep_report(story: &Story, lab: &Lab) -> Result<()> {
    lab.keep_logs();
    let dir = paths::kept_logs().join(&lab.plan().id);
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    let report = lab.report();
    println!("{report}");
    let file = dir.join("report.txt");
    fs::write(&file, report).with_context(|| format!("write {}", file.display()))?;
    story.say(&format!(
        "The report above, the logs and the frame capture (frames.pcap) are kept in {}",
        dir.display()
    ));
    Ok(())
}
