//! GoBGP: gobgpd with a TOML file; asked, and told what to originate, through its client gobgp, in JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{At, Cannot, Family, Kind, Neighbor, Route, Router, RouterConfig, Session, State, told};
use crate::netns::Netns;
use crate::process::{Process, Spec};
use crate::rundir::RunDir;
use crate::wait::{self, Seen};

/// `softresetin` was tried: nothing left for the peer.
pub(super) const NO_REFRESH: &str = "3.10 begins a soft reset with the routes that it keeps, and asks nobody";

#[derive(Debug)]
pub(super) struct Gobgp {
    process: Process,
    netns: Netns,
}

impl Gobgp {
    pub(super) fn start(run: &Arc<RunDir>, name: &str, netns: &Netns, config: &RouterConfig) -> Result<Self> {
        let file = run.dir(name)?.join("gobgpd.toml");
        fs::write(&file, render(config)?)?;
        // The namespace's own loopback: nobody else can ask it.
        let spec = Spec::new(name, "gobgpd").arg("-f").arg(&file).args(["--api-hosts", "127.0.0.1:50051"]);
        let gobgp = Self { process: spec.netns(Some(netns)).spawn(run)?, netns: netns.clone() };
        let answers = || Ok(Seen::when(gobgp.ask(&["global"]).is_ok(), gobgp.process.log_tail(10)));
        wait::until_blocking("gobgpd answers", wait::secs(20), answers)?;
        for route in &config.originates {
            gobgp.originate(&route.prefix, &route.communities)?;
        }
        Ok(gobgp)
    }

    fn originate(&self, prefix: &str, communities: &[String]) -> Result<()> {
        let mut words =
            vec!["global", "rib", "add", prefix, "-a", word(super::family_of(prefix)), "origin", "igp"];
        let (large, standard): (Vec<&str>, Vec<&str>) =
            communities.iter().map(String::as_str).partition(|community| community.starts_with("large:"));
        let large: Vec<&str> = large.iter().map(|community| community.trim_start_matches("large:")).collect();
        let (large, standard) = (large.join(","), standard.join(","));
        for (name, value) in [("community", &standard), ("large-community", &large)] {
            if !value.is_empty() {
                words.extend([name, value]);
            }
        }
        self.ask(&words).map(drop)
    }

    fn ask(&self, words: &[&str]) -> Result<String> {
        self.netns.exec("gobgp", words)
    }

    fn json(&self, words: &[&str]) -> Result<Value> {
        let text = self.ask(&[&["-j"], words].concat())?;
        serde_json::from_str(&text).with_context(|| format!("gobgp {}: {text}", words.join(" ")))
    }
}

impl Router for Gobgp {
    fn kind(&self) -> Kind {
        Kind::Gobgp
    }

    fn processes(&mut self) -> Vec<&mut Process> {
        vec![&mut self.process]
    }

    fn routes(&self, family: Family) -> Result<Vec<Route>> {
        let table = self.json(&["global", "rib", "-a", word(family)])?;
        let mut routes = Vec::new();
        for (prefix, paths) in table.as_object().into_iter().flatten() {
            let received = |path: &&Value| path["neighbor-ip"].is_string();
            let paths = paths.as_array().into_iter().flatten().filter(received);
            routes.extend(paths.map(|path| route(prefix, path)));
        }
        routes.sort();
        Ok(routes)
    }

    fn sessions(&self) -> Result<Vec<Session>> {
        let neighbors = self.json(&["neighbor"])?;
        let log = fs::read_to_string(self.process.log()).unwrap_or_default();
        Ok(neighbors.as_array().into_iter().flatten().map(|neighbor| session(neighbor, &log)).collect())
    }

    fn refresh(&self) -> Result<()> {
        Err(Cannot(Kind::Gobgp, NO_REFRESH).into())
    }

    fn show(&self) -> String {
        let questions: [&[&str]; 4] =
            [&["neighbor"], &["-j", "neighbor"], &["global", "rib"], &["global", "rib", "-a", "ipv6"]];
        let asked =
            questions.map(|words| format!("--- gobgp {}\n{}\n", words.join(" "), told(self.ask(words))));
        asked.concat() + &format!("--- log of {}\n{}\n", self.process.name(), self.process.log_tail(30))
    }
}

fn word(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

/// Attributes come by their type codes.
fn route(prefix: &str, path: &Value) -> Route {
    let mut route = Route { prefix: prefix.to_owned(), ..Route::default() };
    let small = |value: &Value| value.as_u64().and_then(|number| u32::try_from(number).ok());
    let address = |value: &Value| value.as_str().and_then(|text| text.parse::<IpAddr>().ok());
    for attribute in path["attrs"].as_array().into_iter().flatten() {
        let list = |name: &str| attribute[name].as_array().cloned().unwrap_or_default();
        match attribute["type"].as_u64() {
            Some(2) => {
                let segments = list("as_paths");
                let numbers = segments.iter().flat_map(|part| part["asns"].as_array().into_iter().flatten());
                route.as_path = numbers.filter_map(small).collect();
            }
            Some(3 | 14) => route.next_hops.extend(address(&attribute["nexthop"])),
            Some(4) => route.med = small(&attribute["metric"]),
            Some(5) => route.local_pref = small(&attribute["value"]),
            Some(8) => {
                let pair = |number: u32| format!("{}:{}", number >> 16, number & 0xffff);
                route.communities.extend(list("communities").iter().filter_map(small).map(pair));
            }
            Some(32) => route.communities.extend(list("value").iter().map(|large| {
                let part = |name: &str| large[name].as_u64().unwrap_or_default();
                format!("large:{}:{}:{}", part("ASN"), part("LocalData1"), part("LocalData2"))
            })),
            _ => {}
        }
    }
    route
}

fn session(neighbor: &Value, log: &str) -> Session {
    let state = match neighbor["state"]["session_state"].as_u64() {
        Some(2) => State::Connect,
        Some(3) => State::Active,
        Some(4) => State::OpenSent,
        Some(5) => State::OpenConfirm,
        Some(6) => State::Established,
        _ => State::Idle,
    };
    let up =
        neighbor["timers"]["state"]["uptime"]["seconds"].as_u64().filter(|_| state == State::Established);
    let mut received = BTreeMap::new();
    for family in neighbor["afi_safis"].as_array().into_iter().flatten() {
        let of = match family["state"]["family"]["afi"].as_u64() {
            Some(1) => Family::V4,
            Some(2) => Family::V6,
            _ => continue,
        };
        let count = family["state"]["received"].as_u64().unwrap_or_default();
        received.insert(of, usize::try_from(count).unwrap_or(usize::MAX));
    }
    let name = neighbor["state"]["neighbor_address"].as_str().unwrap_or_default();
    let key = format!("\"Key\":\"{name}\"");
    let downs = log.lines().filter(|line| line.contains(&key) && line.contains("\"Peer Down\""));
    Session {
        neighbor: name.to_owned(),
        state,
        uptime: up.and_then(|seconds| super::since_1970().checked_sub(Duration::from_secs(seconds))),
        flaps: downs.count() as u64,
        received,
        bfd_up: None,
        last_error: None,
    }
}

pub(super) fn render(config: &RouterConfig) -> Result<String, Cannot> {
    if config.neighbors.iter().any(|neighbor| neighbor.bfd.is_some()) {
        return Err(Cannot(Kind::Gobgp, "3.10 has no BFD"));
    }
    if config.neighbors.iter().any(|neighbor| matches!(neighbor.at, At::Interface(_))) {
        return Err(Cannot(
            Kind::Gobgp,
            "sends no router advertisements, by which an unnumbered router is found",
        ));
    }
    let mut text = String::new();
    // A String takes everything that is written to it.
    let _ = write_config(&mut text, config);
    Ok(text)
}

fn write_config(text: &mut String, config: &RouterConfig) -> std::fmt::Result {
    writeln!(text, "[global.config]\nas = {}\nrouter-id = \"{}\"", config.asn, config.router_id)?;
    writeln!(text, "port = {}\n[global.use-multiple-paths.config]\nenabled = true", config.port)?;
    config.neighbors.iter().try_for_each(|neighbor| write_neighbor(text, neighbor))
}

fn write_neighbor(text: &mut String, neighbor: &Neighbor) -> std::fmt::Result {
    writeln!(text, "[[neighbors]]\n[neighbors.config]\npeer-as = {}", neighbor.asn)?;
    writeln!(text, "neighbor-address = \"{}\"", neighbor.at)?;
    if let Some(password) = &neighbor.password {
        writeln!(text, "auth-password = \"{password}\"")?;
    }
    writeln!(text, "[neighbors.timers.config]\nconnect-retry = 1\nhold-time = {}", neighbor.hold_time)?;
    writeln!(text, "keepalive-interval = {}", neighbor.hold_time / 3)?;
    writeln!(text, "[neighbors.transport.config]\npassive-mode = {}", neighbor.passive)?;
    writeln!(text, "remote-port = {}", neighbor.port)?;
    if let Some(local) = neighbor.local {
        writeln!(text, "local-address = \"{local}\"")?;
    }
    if let Some(ttl) = neighbor.multihop {
        writeln!(text, "[neighbors.ebgp-multihop.config]\nenabled = true\nmultihop-ttl = {ttl}")?;
    }
    if neighbor.gtsm {
        writeln!(text, "[neighbors.ttl-security.config]\nenabled = true\nttl-min = 255")?;
    }
    if let Some(seconds) = neighbor.graceful_restart {
        writeln!(text, "[neighbors.graceful-restart.config]\nenabled = true\nrestart-time = {seconds}")?;
    }
    for family in &neighbor.families {
        let name = format!("{}-unicast", word(*family));
        writeln!(text, "[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"{name}\"")?;
        if neighbor.graceful_restart.is_some() {
            writeln!(text, "[neighbors.afi-safis.mp-graceful-restart.config]\nenabled = true")?;
        }
    }
    Ok(())
}
