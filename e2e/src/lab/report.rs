//! What a person would look at when something is not as it should be: objects, events, logs, neighbour tables, frames.

use std::fmt::Write as _;
use std::process::Command;

use super::node::capture_file;
use super::view::View;
use crate::netns::Netns;

const TAIL: usize = 25;

impl View {
    /// All of it, as text. Parts that cannot be had say why.
    #[must_use]
    pub fn report(&self) -> String {
        let mut out = format!("===== lab {}: what there is to see =====\n", self.plan().id);
        let kubectl = self.kubectl();
        // Before the API server was asked for, there is nothing to ask it.
        let there_is_an_api = self.kubeconfig().is_file();
        for args in [
            "get nodes,pods,services -A -o wide",
            "get endpointslices -A",
            "get ipaddresspools,l2advertisements,configurationstates,servicel2statuses -A",
            "get configmap config -n metallb-system --ignore-not-found -o yaml",
            "get events -A --sort-by=.lastTimestamp",
        ] {
            if !there_is_an_api {
                break;
            }
            let words: Vec<&str> = args.split(' ').collect();
            section(&mut out, &format!("kubectl {args}"), kubectl.run(&words));
        }
        for name in self.plan().nodes.iter().map(|n| n.name.as_str()).chain(["client"]) {
            let netns = Netns::named(format!("{}{name}", self.plan().prefix()));
            section(&mut out, &format!("{name}: ip neigh"), netns.ip(&["neigh"]));
        }
        let net = Netns::named(self.plan().net());
        section(&mut out, "net: bridge ports", net.ip(&["-br", "link"]));
        let mut logs: Vec<_> = std::fs::read_dir(self.dir().join("logs"))
            .into_iter()
            .flatten()
            .filter_map(|e| Some(e.ok()?.path()))
            .filter(|p| p.extension().is_some_and(|e| e == "log"))
            .collect();
        logs.sort();
        for log in logs {
            let name = log.file_name().unwrap_or_default().to_string_lossy().into_owned();
            section(&mut out, &format!("the end of {name}"), Ok(crate::report::tail(&log, TAIL)));
        }
        section(&mut out, "ARP and NDP on the bridge (the end of logs/frames.pcap)", self.neighbour_frames());
        out
    }

    fn neighbour_frames(&self) -> anyhow::Result<String> {
        let file = capture_file(self.dir());
        let output = Command::new("tcpdump")
            .args(["-n", "-e", "-tttt", "-r"])
            .arg(&file)
            .arg("arp or (icmp6 and (ip6[40] == 135 or ip6[40] == 136))")
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let lines: Vec<&str> = text.lines().collect();
        Ok(lines[lines.len().saturating_sub(60)..].join("\n"))
    }
}

fn section(out: &mut String, title: &str, content: anyhow::Result<String>) {
    let text = content.unwrap_or_else(|error| format!("({error:#})"));
    let _ = write!(out, "--- {title}\n{}\n", text.trim_end());
}
