//! The machine that a number belongs to.

use std::fs;
use std::process::Command;

use serde::{Deserialize, Serialize};

/// What a reader needs to compare numbers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// Model name of the first CPU.
    pub(crate) cpu: String,
    /// How many this process may use.
    pub(crate) cpus: usize,
    /// Memory in GB.
    pub(crate) memory_gb: f64,
    /// Kernel release.
    pub(crate) kernel: String,
    /// One-minute load average when the bench ended.
    pub(crate) load: String,
    /// Commit of the working tree, `-dirty` when it has changes.
    pub(crate) commit: String,
}

impl Machine {
    /// Whether the other is the same, whatever its load and its working tree.
    pub(crate) fn is(&self, other: &Machine) -> bool {
        let hardware = |m: &Machine| (m.cpu.clone(), m.cpus, m.memory_gb.to_bits(), m.kernel.clone());
        hardware(self) == hardware(other)
    }
}

/// This machine.
pub(crate) fn describe() -> Machine {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, key: &str| {
        let line = text.lines().find(|line| line.starts_with(key));
        line.and_then(|line| line.split_once(':')).map_or("unknown", |(_, value)| value.trim()).to_owned()
    };
    let memory_kb = field(&read("/proc/meminfo"), "MemTotal");
    let memory_kb: f64 = memory_kb.split(' ').next().and_then(|kb| kb.parse().ok()).unwrap_or(0.0);
    Machine {
        cpu: field(&read("/proc/cpuinfo"), "model name"),
        cpus: std::thread::available_parallelism().map_or(0, usize::from),
        memory_gb: (memory_kb / 1024.0 / 1024.0 * 10.0).round() / 10.0,
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        load: read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
        commit: commit().unwrap_or_else(|| "unknown".to_owned()),
    }
}

fn commit() -> Option<String> {
    let output = Command::new("git").args(["describe", "--always", "--dirty"]).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
