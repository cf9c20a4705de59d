//! A line on the terminal of somebody who waits.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// Nobody needs to hear of what takes less.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often a line may change.
const RHYTHM: Duration = Duration::from_millis(200);

/// Says on standard error what is going on, once it takes long, if that is a terminal.
#[derive(Debug)]
pub(super) struct Progress {
    /// `None`: nobody looks.
    started: Option<Instant>,
    shown: Option<Instant>,
}

impl Progress {
    pub(super) fn on_terminal() -> Self {
        let started = io::stderr().is_terminal().then(Instant::now);
        Self { started, shown: None }
    }

    pub(super) fn silent() -> Self {
        Self { started: None, shown: None }
    }

    /// This is being done now.
    pub(super) fn at(&mut self, what: &str) {
        let Some(started) = self.started else { return };
        let now = Instant::now();
        let due = self.shown.map_or(started + PATIENCE, |shown| shown + RHYTHM);
        if now >= due {
            self.shown = Some(now);
            // A terminal that cannot be written to is no reason not to plan.
            let _ = write!(io::stderr(), "\r\x1b[K{what} ...");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown.is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
