//! BIRD 2: one process, told by its configuration, asked through birdc, whose answers are text.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};

use super::{At, Cannot, Family, Kind, Neighbor, Route, Router, RouterConfig, Session, State, ask, told};
use crate::netns::Netns;
use crate::process::{Process, Spec};
use crate::rundir::RunDir;

#[derive(Debug)]
pub(super) struct Bird {
    process: Process,
    control: PathBuf,
}

impl Bird {
    pub(super) fn start(run: &Arc<RunDir>, name: &str, netns: &Netns, config: &RouterConfig) -> Result<Self> {
        let dir = run.dir(name)?;
        let (file, control) = (dir.join("bird.conf"), dir.join("bird.ctl"));
        fs::write(&file, render(config)?)?;
        let checked = Command::new("bird").arg("-p").arg("-c").arg(&file).output()?;
        if !checked.status.success() {
            bail!("BIRD refuses its configuration: {}", String::from_utf8_lossy(&checked.stderr));
        }
        let spec = Spec::new(name, "bird").arg("-f").arg("-c").arg(&file).arg("-s").arg(&control);
        let process = spec.arg("-P").arg(dir.join("bird.pid")).netns(Some(netns)).spawn(run)?;
        Ok(Self { process, control })
    }

    fn birdc(&self, words: &[&str]) -> Result<String> {
        ask(Command::new("birdc").arg("-s").arg(&self.control).args(words))
    }
}

impl Router for Bird {
    fn kind(&self) -> Kind {
        Kind::Bird
    }

    fn processes(&mut self) -> Vec<&mut Process> {
        vec![&mut self.process]
    }

    fn routes(&self, family: Family) -> Result<Vec<Route>> {
        let table = match family {
            Family::V4 => "master4",
            Family::V6 => "master6",
        };
        let mut routes = routes(&self.birdc(&["show", "route", "table", table, "all"])?);
        routes.sort();
        Ok(routes)
    }

    fn sessions(&self) -> Result<Vec<Session>> {
        let bfd = self.birdc(&["show", "bfd", "sessions"]).unwrap_or_default(); // an error: it has no such protocol
        let log = fs::read_to_string(self.process.log()).unwrap_or_default();
        Ok(sessions(&self.birdc(&["show", "protocols", "all"])?, &bfd, &log))
    }

    fn refresh(&self) -> Result<()> {
        self.birdc(&["reload", "in", "\"n*\""]).map(drop)
    }

    fn show(&self) -> String {
        let questions = [["show", "protocols", "all"], ["show", "bfd", "sessions"], ["show", "route", "all"]];
        let asked =
            questions.map(|words| format!("--- BIRD: {}\n{}\n", words.join(" "), told(self.birdc(&words))));
        asked.concat() + &format!("--- log of {}\n{}\n", self.process.name(), self.process.log_tail(30))
    }
}

/// `show route all`: a line per path that begins with the prefix, or with blanks where it is that of the line before; then a line
/// per attribute, behind a tab.
fn routes(text: &str) -> Vec<Route> {
    let mut routes: Vec<Route> = Vec::new();
    let mut current: Option<Route> = None;
    let mut prefix = String::new();
    let mut by_bgp = false;
    for line in text.lines().chain(["end"]) {
        if let Some(attribute) = line.strip_prefix('\t') {
            by_bgp |= attribute.starts_with("Type: BGP");
            if let (Some(route), Some((name, value))) = (&mut current, attribute.split_once(": ")) {
                attribute_of(route, name, value);
            }
            continue;
        }
        routes.extend(current.take().filter(|_| by_bgp));
        by_bgp = false;
        if !line.contains('[') {
            continue; // the name of a table, or the end
        }
        if let Some(word) = line.split_whitespace().next().filter(|_| !line.starts_with(' ')) {
            word.clone_into(&mut prefix);
        }
        current = Some(Route { prefix: prefix.clone(), ..Route::default() });
    }
    routes
}

fn attribute_of(route: &mut Route, name: &str, value: &str) {
    match name {
        "BGP.next_hop" => {
            route.next_hops = value.split_whitespace().filter_map(|ip| ip.parse().ok()).collect()
        }
        "BGP.as_path" => {
            route.as_path = value.split_whitespace().filter_map(|asn| asn.parse().ok()).collect()
        }
        "BGP.local_pref" => route.local_pref = value.trim().parse().ok(),
        "BGP.med" => route.med = value.trim().parse().ok(),
        "BGP.community" => route.communities.extend(tuples(value)),
        "BGP.large_community" => {
            route.communities.extend(tuples(value).into_iter().map(|community| format!("large:{community}")));
        }
        _ => {}
    }
}

/// `(64500,1) (64500,2)` and `(64500, 1, 2)`.
fn tuples(text: &str) -> BTreeSet<String> {
    let tuple = |part: &str| part.trim().trim_start_matches('(').replace(", ", ":").replace(',', ":");
    text.split(')').map(tuple).filter(|part| !part.is_empty()).collect()
}

fn sessions(protocols: &str, bfd: &str, log: &str) -> Vec<Session> {
    let mut sessions: Vec<Session> = Vec::new();
    let (mut name, mut channel) = (String::new(), None);
    for line in protocols.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if !line.starts_with(' ') {
            // `n0  BGP  ---  up  1795298536  Established`: seconds since 1970, as the configuration asks for
            name = words
                .first()
                .filter(|_| words.get(1) == Some(&"BGP"))
                .map_or_else(String::new, |w| (*w).into());
            channel = None;
            if !name.is_empty() {
                let up = words.get(3) == Some(&"up");
                let since =
                    words.get(4).filter(|_| up).and_then(|word| word.parse().ok()).map(Duration::from_secs);
                let flaps = log.matches(&format!("{name}: BGP session closed")).count() as u64;
                sessions.push(Session {
                    neighbor: String::new(),
                    state: State::Idle,
                    uptime: since.and_then(|since| super::since_1970().checked_sub(since)),
                    flaps,
                    received: BTreeMap::new(),
                    bfd_up: None,
                    last_error: None,
                });
            }
            continue;
        }
        let Some(session) = sessions.last_mut().filter(|_| !name.is_empty()) else { continue };
        match words.as_slice() {
            ["BGP", "state:", state, ..] => session.state = State::named(state).unwrap_or(State::Idle),
            ["Neighbor", "address:", address] => (*address).clone_into(&mut session.neighbor),
            ["Neighbor", "range:", range] => (*range).clone_into(&mut session.neighbor),
            ["Last", "error:", error @ ..] => session.last_error = Some(error.join(" ")),
            ["Channel", "ipv4"] => channel = Some(Family::V4),
            ["Channel", "ipv6"] => channel = Some(Family::V6),
            ["Routes:", count, "imported,", ..] => {
                session.received.extend(channel.and_then(|family| Some((family, count.parse().ok()?))));
            }
            _ => {}
        }
    }
    for session in &mut sessions {
        // `172.27.0.1   eth0   Up   22:01:42.757   0.050   0.150`
        let own = session.neighbor.split('%').next().unwrap_or_default();
        let row = bfd.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        session.bfd_up =
            row.into_iter().find(|row| row.first() == Some(&own)).map(|row| row.get(2) == Some(&"Up"));
    }
    sessions
}

pub(super) fn render(config: &RouterConfig) -> Result<String, Cannot> {
    let mut text = String::new();
    if config.originates.iter().any(|route| !route.communities.is_empty()) {
        return Err(Cannot(Kind::Bird, "is not told here how to originate communities"));
    }
    // A String takes everything that is written to it.
    let _ = write_config(&mut text, config);
    Ok(text)
}

fn write_config(text: &mut String, config: &RouterConfig) -> std::fmt::Result {
    writeln!(text, "log stderr all;\ntimeformat protocol \"%s\";\nrouter id {};", config.router_id)?;
    writeln!(text, "protocol device {{ scan time 1; }}")?;
    for (family, name) in [("ipv4", '.'), ("ipv6", ':')] {
        writeln!(text, "protocol static own_{family} {{\n  {family};")?;
        for route in config.originates.iter().filter(|route| route.prefix.contains(name)) {
            writeln!(text, "  route {} unreachable;", route.prefix)?;
        }
        writeln!(text, "}}")?;
    }
    if let Some(bfd) = config.neighbors.iter().find_map(|neighbor| neighbor.bfd) {
        let timers = format!(
            "min tx interval {} ms; min rx interval {} ms; multiplier {};",
            bfd.tx, bfd.rx, bfd.multiplier
        );
        writeln!(text, "protocol bfd {{\n  interface \"*\" {{ {timers} }};\n  multihop {{ {timers} }};\n}}")?;
    }
    for (index, neighbor) in config.neighbors.iter().enumerate() {
        if let At::Interface(name) = &neighbor.at {
            // Who waits for a router on the link knows it by its advertisements.
            let timers = "min ra interval 3; max ra interval 4; min delay 1;";
            writeln!(text, "protocol radv {{ interface \"{name}\" {{ {timers} default lifetime 0; }}; }}")?;
        }
        writeln!(text, "protocol bgp n{index} {{")?;
        write_neighbor(text, neighbor, config)?;
        writeln!(text, "}}")?;
    }
    Ok(())
}

fn write_neighbor(text: &mut String, neighbor: &Neighbor, config: &RouterConfig) -> std::fmt::Result {
    // An address of the wires is none of a session between link-local ones.
    let local = neighbor.local.filter(|_| !matches!(neighbor.at, At::Interface(_)));
    let local = local.map_or_else(String::new, |ip| format!("{ip} "));
    let port = if config.port == 179 { String::new() } else { format!("port {} ", config.port) };
    writeln!(text, "  debug {{ states, events }};\n  local {local}{port}as {};", config.asn)?;
    match &neighbor.at {
        At::Address(ip) => writeln!(text, "  neighbor {ip} port {} as {};", neighbor.port, neighbor.asn)?,
        // Whoever has a link-local address there; such a session BIRD only accepts.
        At::Interface(name) => {
            writeln!(text, "  neighbor range fe80::/10 as {};\n  interface \"{name}\";", neighbor.asn)?;
        }
    }
    match neighbor.multihop {
        Some(ttl) => writeln!(text, "  multihop {ttl};")?,
        None => writeln!(text, "  direct;")?,
    }
    if let Some(password) = &neighbor.password {
        writeln!(text, "  password \"{password}\";")?;
    }
    if neighbor.gtsm {
        writeln!(text, "  ttl security on;")?;
    }
    if neighbor.bfd.is_some() {
        writeln!(text, "  bfd on;")?;
    }
    if neighbor.passive {
        writeln!(text, "  passive on;")?;
    }
    writeln!(text, "  hold time {}; keepalive time {};", neighbor.hold_time, neighbor.hold_time / 3)?;
    writeln!(text, "  connect delay time 1; connect retry time 1; error wait time 1, 2;")?;
    if let Some(seconds) = neighbor.graceful_restart {
        writeln!(text, "  graceful restart on; graceful restart time {seconds};")?;
    }
    for family in &neighbor.families {
        let (name, extended) = match family {
            Family::V4 if neighbor.extended_next_hop => ("ipv4", " extended next hop on;"),
            Family::V4 => ("ipv4", ""),
            Family::V6 => ("ipv6", ""),
        };
        writeln!(text, "  {name} {{ import all; export where source = RTS_STATIC;{extended} }};")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_birdc_is_understood() {
        let text = "BIRD 2.0.12 ready.\nTable master4:\n\
            198.51.100.1/32      unicast [n0 22:02:17.890] * (100) [AS65001i]\n\tvia 10.9.0.1 on eth0\n\tType: BGP univ\n\
            \tBGP.origin: IGP\n\tBGP.as_path: 65001 4200000000\n\tBGP.next_hop: 10.9.0.1\n\tBGP.med: 0\n\
            \tBGP.local_pref: 100\n\tBGP.community: (65004,1) (65535,0)\n\tBGP.large_community: (65004, 1, 2) (1, 2, 3)\n\
            \x20                    unicast [n1 22:02:18.890] (100) [AS65002i]\n\tType: BGP univ\n\tBGP.next_hop: fd09::2 fe80::2\n\
            198.51.100.9/32      unreachable [own_ipv4 22:02:17.890] * (200)\n\tType: static univ\n";
        let found = routes(text);
        assert_eq!(found.len(), 2, "not the static one: {found:?}");
        assert_eq!(found[0].as_path, [65001, 4_200_000_000]);
        assert_eq!((found[0].local_pref, found[0].med), (Some(100), Some(0)));
        let communities = ["65004:1", "65535:0", "large:1:2:3", "large:65004:1:2"];
        assert_eq!(found[0].communities.iter().map(String::as_str).collect::<Vec<_>>(), communities);
        assert_eq!(found[1].prefix, "198.51.100.1/32");
        assert_eq!(
            found[1].next_hops,
            ["fd09::2", "fe80::2"].map(|ip| ip.parse::<std::net::IpAddr>().unwrap())
        );
    }
}
