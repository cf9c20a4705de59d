//! ExaBGP: speaks BGP and keeps no table. It writes what comes in as JSON, a line per event, to a file; the table is what these
//! lines make of it. It takes no part in forwarding, and its words are those of the wire.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{At, Cannot, Family, Kind, Neighbor, Route, Router, RouterConfig, Session, State};
use crate::netns::Netns;
use crate::process::{Process, Spec};
use crate::rundir::RunDir;

/// A program would have to ask for it, and the one that listens says nothing.
pub(super) const NO_REFRESH: &str = "asks for no ROUTE-REFRESH by itself";

#[derive(Debug)]
pub(super) struct Exabgp {
    process: Process,
    events: PathBuf,
    neighbors: Vec<IpAddr>,
}

impl Exabgp {
    pub(super) fn start(run: &Arc<RunDir>, name: &str, netns: &Netns, config: &RouterConfig) -> Result<Self> {
        let dir = run.dir(name)?;
        let (file, events, script) = (dir.join("exabgp.conf"), dir.join("events"), dir.join("listen.sh"));
        fs::write(&file, render(config, &script)?)?;
        fs::write(&events, "")?;
        // The shell stays, and with it the standard output that ExaBGP listens to: when it ends, the program has ended for it.
        fs::write(&script, format!("cat >> '{}'\n", events.display()))?;
        // Without it nobody can call.
        let bind = config.neighbors.iter().find_map(|neighbor| neighbor.local).map(|local| local.to_string());
        let spec = Spec::new(name, "exabgp").arg(&file).netns(Some(netns));
        let spec = spec.env("exabgp.daemon.drop", "false").env("exabgp.daemon.user", "root");
        let spec = spec.env("exabgp.log.destination", "stdout").env("exabgp.log.level", "INFO");
        let spec = spec.env("exabgp.api.ack", "false").env("exabgp.api.cli", "false");
        let spec = spec.env("exabgp.tcp.bind", bind.unwrap_or_default());
        let spec = spec.env("exabgp.tcp.port", config.port.to_string());
        let at = |neighbor: &Neighbor| match neighbor.at {
            At::Address(ip) => Some(ip),
            At::Interface(_) => None,
        };
        let neighbors = config.neighbors.iter().filter_map(at).collect();
        Ok(Self { process: spec.spawn(run)?, events, neighbors })
    }

    /// What each neighbour said since the start.
    fn heard(&self) -> Result<BTreeMap<IpAddr, Heard>> {
        let text = fs::read_to_string(&self.events).with_context(|| self.events.display().to_string())?;
        let mut all: BTreeMap<IpAddr, Heard> =
            self.neighbors.iter().map(|ip| (*ip, Heard::default())).collect();
        // The last line may still be in writing.
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        for line in whole {
            let event: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
            let peer = event["neighbor"]["address"]["peer"].as_str().and_then(|ip| ip.parse().ok());
            if let Some(heard) = peer.and_then(|ip: IpAddr| all.get_mut(&ip)) {
                heard.event(&event);
            }
        }
        Ok(all)
    }
}

impl Router for Exabgp {
    fn kind(&self) -> Kind {
        Kind::Exabgp
    }

    fn processes(&mut self) -> Vec<&mut Process> {
        vec![&mut self.process]
    }

    fn routes(&self, family: Family) -> Result<Vec<Route>> {
        let heard = self.heard()?;
        let routes = heard.into_values().flat_map(|heard| heard.routes.into_values());
        let mut routes: Vec<Route> =
            routes.filter(|route| super::family_of(&route.prefix) == family).collect();
        routes.sort();
        Ok(routes)
    }

    fn sessions(&self) -> Result<Vec<Session>> {
        Ok(self.heard()?.into_iter().map(|(ip, heard)| heard.session(ip)).collect())
    }

    fn refresh(&self) -> Result<()> {
        Err(Cannot(Kind::Exabgp, NO_REFRESH).into())
    }

    fn show(&self) -> String {
        let name = self.process.name();
        let events = crate::report::tail(&self.events, 30);
        format!("--- events of {name}\n{events}\n--- log of {name}\n{}\n", self.process.log_tail(30))
    }
}

/// What the events of one neighbour come to.
#[derive(Debug, Default)]
struct Heard {
    state: Option<State>,
    since: Option<Duration>,
    flaps: u64,
    last_error: Option<String>,
    routes: BTreeMap<String, Route>,
}

impl Heard {
    fn event(&mut self, event: &Value) {
        match event["type"].as_str() {
            Some("state") => self.turned(event),
            Some("update") => self.update(&event["neighbor"]["message"]["update"]),
            Some("notification") => self.last_error = Some(event["neighbor"].to_string()),
            _ => {}
        }
    }

    fn turned(&mut self, event: &Value) {
        let state = event["neighbor"]["state"].as_str().and_then(State::named);
        if state != Some(State::Established) && self.state == Some(State::Established) {
            self.flaps += 1;
            self.routes.clear();
        }
        if let Some(reason) = event["neighbor"]["reason"].as_str() {
            self.last_error = Some(reason.to_owned());
        }
        self.state = state;
        self.since = event["time"].as_f64().map(Duration::from_secs_f64);
    }

    fn update(&mut self, update: &Value) {
        let attributes = &update["attribute"];
        let small = |value: &Value| value.as_u64().and_then(|number| u32::try_from(number).ok());
        let list = |name: &str| attributes[name].as_array().cloned().unwrap_or_default();
        let numbers = |value: &Value| {
            let parts = value.as_array().into_iter().flatten().filter_map(Value::as_u64);
            parts.map(|part| part.to_string()).collect::<Vec<_>>().join(":")
        };
        let standard = list("community");
        let large = list("large-community");
        let all =
            standard.iter().map(numbers).chain(large.iter().map(|one| format!("large:{}", numbers(one))));
        let template = Route {
            as_path: list("as-path").iter().filter_map(small).collect(),
            communities: all.collect(),
            local_pref: small(&attributes["local-preference"]),
            med: small(&attributes["med"]),
            ..Route::default()
        };
        let mut announced: BTreeMap<String, Route> = BTreeMap::new();
        for by_hop in update["announce"].as_object().into_iter().flat_map(|families| families.values()) {
            for (hop, prefixes) in by_hop.as_object().into_iter().flatten() {
                let next_hops: Vec<IpAddr> = hop.split([' ', ',']).filter_map(|ip| ip.parse().ok()).collect();
                for prefix in nlri(prefixes) {
                    // The link-local next hop comes as if it were another announcement.
                    let fresh = Route { prefix: prefix.clone(), ..template.clone() };
                    announced.entry(prefix).or_insert(fresh).next_hops.extend(&next_hops);
                }
            }
        }
        self.routes.append(&mut announced);
        for prefixes in update["withdraw"].as_object().into_iter().flat_map(|families| families.values()) {
            for prefix in nlri(prefixes) {
                self.routes.remove(&prefix);
            }
        }
    }

    fn session(self, ip: IpAddr) -> Session {
        let state = self.state.unwrap_or(State::Idle);
        let mut received = BTreeMap::new();
        for route in self.routes.values() {
            *received.entry(super::family_of(&route.prefix)).or_default() += 1;
        }
        let since = self.since.filter(|_| state == State::Established);
        Session {
            neighbor: ip.to_string(),
            state,
            uptime: since.and_then(|since| super::since_1970().checked_sub(since)),
            flaps: self.flaps,
            received,
            bfd_up: None,
            last_error: self.last_error,
        }
    }
}

fn nlri(prefixes: &Value) -> Vec<String> {
    let all = prefixes.as_array().into_iter().flatten();
    all.filter_map(|one| one["nlri"].as_str().map(str::to_owned)).collect()
}

pub(super) fn render(config: &RouterConfig, listener: &Path) -> Result<String, Cannot> {
    let cannot = |what| Err(Cannot(Kind::Exabgp, what));
    for neighbor in &config.neighbors {
        if neighbor.bfd.is_some() {
            return cannot("has no BFD");
        }
        if matches!(neighbor.at, At::Interface(_)) {
            return cannot("has no unnumbered sessions");
        }
        if neighbor.local.is_none() {
            return cannot("must be told its own address of each session");
        }
    }
    let mut text = String::new();
    // A String takes everything that is written to it.
    let _ = write_config(&mut text, config, listener);
    Ok(text)
}

fn write_config(text: &mut String, config: &RouterConfig, listener: &Path) -> std::fmt::Result {
    writeln!(text, "process lab {{\n  run /bin/sh {};\n  encoder json;\n}}", listener.display())?;
    for neighbor in &config.neighbors {
        writeln!(text, "neighbor {} {{\n  router-id {};", neighbor.at, config.router_id)?;
        if let Some(local) = neighbor.local {
            writeln!(text, "  local-address {local};")?;
        }
        writeln!(text, "  local-as {};\n  peer-as {};", config.asn, neighbor.asn)?;
        writeln!(text, "  hold-time {};", neighbor.hold_time)?;
        // "connect" is whom to call; without it, and passive, it waits for the call.
        match neighbor.passive {
            true => writeln!(text, "  passive true;\n  listen {};", config.port)?,
            false => writeln!(text, "  connect {};", neighbor.port)?,
        }
        if let Some(password) = &neighbor.password {
            writeln!(text, "  md5-password \"{password}\";")?;
        }
        match (neighbor.multihop, neighbor.gtsm) {
            (Some(ttl), _) => writeln!(text, "  outgoing-ttl {ttl};")?,
            (None, true) => writeln!(text, "  outgoing-ttl 255;\n  incoming-ttl 255;")?,
            (None, false) => {}
        }
        writeln!(text, "  capability {{ asn4 enable; route-refresh enable;")?;
        if let Some(seconds) = neighbor.graceful_restart {
            writeln!(text, "    graceful-restart {seconds};")?;
        }
        if neighbor.extended_next_hop {
            writeln!(text, "    nexthop enable;")?;
        }
        let families = neighbor.families.iter().map(|family| match family {
            Family::V4 => "ipv4 unicast; ",
            Family::V6 => "ipv6 unicast; ",
        });
        writeln!(text, "  }}\n  family {{ {}}}", families.collect::<String>())?;
        if neighbor.extended_next_hop {
            writeln!(text, "  nexthop {{ ipv4 unicast ipv6; }}")?;
        }
        writeln!(text, "  static {{")?;
        for route in
            config.originates.iter().filter(|r| neighbor.families.contains(&super::family_of(&r.prefix)))
        {
            let (large, standard): (Vec<&String>, Vec<&String>) =
                route.communities.iter().partition(|community| community.starts_with("large:"));
            let standard: String = standard.iter().map(|community| format!("{community} ")).collect();
            let large: String = large
                .iter()
                .map(|community| format!("{} ", community.trim_start_matches("large:")))
                .collect();
            let communities = format!("community [ {standard}] large-community [ {large}]");
            writeln!(text, "    route {} next-hop self {communities};", route.prefix)?;
        }
        let receive = "receive { parsed; update; notification; open; }";
        writeln!(text, "  }}\n  api {{ processes [ lab ]; neighbor-changes; {receive} }}\n}}")?;
    }
    Ok(())
}
