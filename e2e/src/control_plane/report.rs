//! What a person would look at when a test against a bare API server has failed (a lab has its own report).

use std::process::{Command, Stdio};

use super::ControlPlane;
use crate::tools::Tool;

/// Looked at in this order; a kind that is not installed says so in one line.
const LOOKS: [&str; 4] = [
    "get services,endpointslices,pods,nodes -A -o wide",
    "get ipaddresspools.metallb.io,l2advertisements.metallb.io,bgpadvertisements.metallb.io,configurationstates.metallb.io -A",
    "get leases -A",
    "get events -A --sort-by=.lastTimestamp",
];

impl ControlPlane {
    /// Objects, events and the ends of the logs, as text. Blocking: it is for the moment of failure.
    pub fn report(&self) -> String {
        let mut text = format!("===== control plane {}: what there is to see =====\n", self.run.id());
        for look in LOOKS {
            text += &format!("--- kubectl {look}\n{}\n", self.look(look).trim_end());
        }
        for log in self.run.logs() {
            let name = log.file_name().unwrap_or_default().to_string_lossy().into_owned();
            text += &format!("--- the end of {name}\n{}\n", crate::report::tail(&log, 25));
        }
        text
    }

    fn look(&self, args: &str) -> String {
        let kubectl = match Tool::Kubectl.path() {
            Ok(path) => path,
            Err(e) => return format!("({e:#})"),
        };
        let output = Command::new(kubectl)
            .args(args.split(' '))
            .arg("--request-timeout=3s")
            .env("KUBECONFIG", self.admin_kubeconfig())
            .env("KUBECACHEDIR", self.run.path().join("kubectl-cache"))
            .env("KUBERC", "off")
            .stdin(Stdio::null())
            .output();
        match output {
            Ok(output) => {
                format!(
                    "{}{}",
                    String::from_utf8_lossy(&output.stdout),
                    String::from_utf8_lossy(&output.stderr)
                )
            }
            Err(e) => format!("({e})"),
        }
    }
}

impl Drop for ControlPlane {
    /// A failed test shows what it left. The fields, dropped after this, end the processes.
    fn drop(&mut self) {
        // A run of somebody else's is theirs to report on.
        if std::thread::panicking() && self.options.run.is_none() {
            eprintln!("{}", self.report());
        }
    }
}
