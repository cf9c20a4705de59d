//! Other people's programs: arping, ndisc6, tcpdump.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use patina_e2e::netns::Netns;

/// The MAC that answers an ARP request, by arping.
pub(crate) fn arping(netns: &Netns, ip: &str) -> Option<String> {
    let args = ["-r", "-C", "1", "-c", "3", "-w", "2", "-i", "eth0", ip];
    netns.exec("arping", &args).ok().and_then(|said| said.split_whitespace().next().map(str::to_owned))
}

/// The MAC that answers a neighbour solicitation, by ndisc6.
pub(crate) fn ndisc6(netns: &Netns, ip: &str) -> Option<String> {
    let said = netns.exec("ndisc6", &["-q", "-1", "-r", "2", "-w", "700", ip, "eth0"]).ok()?;
    said.split_whitespace().next().map(str::to_lowercase)
}

/// A running tcpdump; its lines come with the time of the kernel.
pub(crate) struct Capture {
    child: Child,
    lines: Receiver<String>,
}

impl Capture {
    pub(crate) fn start(netns: &Netns, filter: &str) -> Self {
        let mut command = netns.command("tcpdump").unwrap();
        command.args(["-i", "eth0", "-n", "-e", "-l", "-tt", "-Q", "in", "--immediate-mode", filter]);
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("package tcpdump");
        // It listens when it says so.
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        while !said.contains("listening on") {
            assert!(stderr.read_line(&mut said).unwrap() > 0, "tcpdump: {said}");
        }
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Self { child, lines }
    }

    /// The next line: (seconds, text). Waits for it, for ten seconds.
    pub(crate) fn next(&mut self) -> (f64, String) {
        let line = self.lines.recv_timeout(Duration::from_secs(10)).expect("no such frame came");
        let (time, text) = line.split_once(' ').unwrap();
        (time.parse().unwrap(), text.to_owned())
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}
