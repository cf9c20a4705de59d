//! One node of a LAN: a namespace, and a real speaker process in it or none.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use crate::neighbour::Mac;
use crate::netns::Netns;
use crate::process::Process;

pub(super) const METRICS: u16 = 7472;
pub(super) const HEALTH: u16 = 17472;

/// A node and its speaker.
#[derive(Debug)]
pub struct LanNode {
    /// `n01`: the Node object's name and the bridge's port.
    pub name: String,
    /// Its address.
    pub v4: Ipv4Addr,
    /// The MAC address of its eth0.
    pub mac: Mac,
    /// That of its eth1, if the LAN has a second network.
    pub second: Mac,
    pub(super) netns: Netns,
    pub(super) process: Option<Process>,
    /// How often a speaker was started: each start has a log of its own.
    pub(super) starts: u32,
}

impl LanNode {
    /// Its network namespace.
    #[must_use]
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// The name of the speaker's Pod.
    #[must_use]
    pub fn pod_name(&self) -> String {
        format!("speaker-{}", self.name)
    }

    /// Whether a speaker was started and not ended by us.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.process.is_some()
    }

    /// SIGKILL. Returns when: just before the signal.
    pub fn kill(&mut self) -> SystemTime {
        let before = SystemTime::now();
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
        before
    }

    /// SIGTERM, and the end. False when it had to be killed after `patience`.
    pub fn terminate(&mut self, patience: Duration) -> bool {
        self.process.take().is_none_or(|mut process| process.terminate(patience))
    }

    /// SIGSTOP. Returns when: just before the signal.
    ///
    /// # Errors
    /// It does not run.
    pub fn stop(&mut self) -> Result<SystemTime> {
        self.signal(Signal::SIGSTOP)
    }

    /// SIGCONT. Returns when: just before the signal.
    ///
    /// # Errors
    /// It does not run.
    pub fn wake(&mut self) -> Result<SystemTime> {
        self.signal(Signal::SIGCONT)
    }

    fn signal(&mut self, signal: Signal) -> Result<SystemTime> {
        let process = self.process.as_mut().with_context(|| format!("no speaker on {}", self.name))?;
        let before = SystemTime::now();
        process.signal(signal)?;
        Ok(before)
    }

    /// How it ended, if it did so by itself.
    pub fn died(&mut self) -> Option<String> {
        let process = self.process.as_mut()?;
        let status = process.exited()?;
        Some(format!("the speaker of {} ended by itself: {status}\n{}", self.name, process.log_tail(20)))
    }

    /// CPU time of the process so far, user and system.
    ///
    /// # Errors
    /// It does not run.
    pub fn cpu(&self) -> Result<Duration> {
        let process = self.process.as_ref().with_context(|| format!("no speaker on {}", self.name))?;
        cpu_of(process.pid())
    }

    /// A line of `/proc/PID/status` that is told in kB (`VmRSS`, `RssAnon`), in bytes.
    ///
    /// # Errors
    /// It does not run, or there is no such line.
    pub fn memory(&self, field: &str) -> Result<u64> {
        let process = self.process.as_ref().with_context(|| format!("no speaker on {}", self.name))?;
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid()))?;
        let value = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let kb = value.and_then(|value| value.trim().strip_suffix(" kB")).context("no such line")?;
        Ok(kb.parse::<u64>()? * 1024)
    }

    /// The end of its log.
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        self.process.as_ref().map(|process| process.log_tail(lines)).unwrap_or_default()
    }

    /// `/metrics`.
    ///
    /// # Errors
    /// It does not serve.
    pub fn metrics(&self) -> Result<String> {
        self.get(METRICS, "/metrics")
    }

    /// The sum of a metric over the series whose labels contain `label`; `None`: there is no such series.
    ///
    /// # Errors
    /// It does not serve metrics.
    pub fn metric(&self, name: &str, label: &str) -> Result<Option<f64>> {
        Ok(sum(&self.metrics()?, name, label))
    }

    /// Whether it says that it is ready.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.get(HEALTH, "/readyz").is_ok()
    }

    fn get(&self, port: u16, path: &str) -> Result<String> {
        self.netns.run(|| get(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), path))?
    }
}

/// CPU time of a process so far, user and system.
///
/// # Errors
/// There is no such process.
pub fn cpu_of(pid: i32) -> Result<Duration> {
    // schedstat counts in nanoseconds and per thread; stat counts in hundredths of a second, which is coarse.
    let mut total = 0_u64;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
        total += text.split_whitespace().next().context("empty schedstat")?.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(total))
}

fn get(at: SocketAddr, path: &str) -> Result<String> {
    const PATIENCE: Duration = Duration::from_secs(2);
    let mut stream = TcpStream::connect_timeout(&at, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").context("not HTTP")?;
    if !head.starts_with("HTTP/1.1 200") {
        bail!("{path}: {}: {}", head.lines().next().unwrap_or_default(), body.trim());
    }
    Ok(body.to_owned())
}

pub(super) fn sum(text: &str, name: &str, label: &str) -> Option<f64> {
    let of_name = |line: &&str| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']) && rest.contains(label))
    };
    let values: Vec<f64> =
        text.lines().filter(of_name).filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::sum;

    #[test]
    fn a_metric_is_summed_over_the_series_with_the_label() {
        let text = "# HELP m x\nm{state=\"alive\",a=\"b\"} 2\nm{state=\"dead\"} 1\nm_more 7\nplain 3\n";
        assert_eq!(sum(text, "m", "alive"), Some(2.0));
        assert_eq!(sum(text, "m", ""), Some(3.0));
        assert_eq!(sum(text, "plain", ""), Some(3.0));
        assert_eq!(sum(text, "absent", ""), None);
    }
}
