//! How the demo talks: sentences with the time since its beginning, and what commands print.

use std::time::{Duration, Instant};

/// The teller.
#[derive(Debug, Clone)]
pub(super) struct Story {
    began: Instant,
}

impl Story {
    pub(super) fn begin() -> Self {
        Self { began: Instant::now() }
    }

    /// A sentence.
    pub(super) fn say(&self, sentence: &str) {
        println!("[{:5.1} s] {sentence}", self.began.elapsed().as_secs_f64());
    }

    /// The beginning of a part.
    pub(super) fn part(&self, title: &str) {
        println!();
        self.say(&format!("== {title}"));
    }

    /// A command and what it printed.
    pub(super) fn show(&self, command: &str, output: &str) {
        println!("          $ {command}");
        for line in output.trim_end().lines() {
            println!("          {line}");
        }
    }
}

/// `0.213 s`.
pub(super) fn seconds(time: Duration) -> String {
    format!("{:.3} s", time.as_secs_f64())
}
