//! FRR: zebra, bgpd and, where it is wanted, bfdd, each as a process; asked and told through vtysh.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::unistd::{User, chown};
use serde_json::Value;

use super::{At, Cannot, Family, Kind, Neighbor, Route, Router, RouterConfig, Session, State, ask, told};
use crate::netns::Netns;
use crate::process::{Process, Spec};
use crate::rundir::RunDir;
use crate::wait::{self, Seen};

/// Prefixes that one vtysh is asked for in detail.
const AT_ONCE: usize = 200;

#[derive(Debug)]
pub(super) struct Frr {
    /// Of zebra first, of bgpd last.
    daemons: Vec<Process>,
    /// Where the daemons' sockets are.
    dir: PathBuf,
}

impl Frr {
    pub(super) fn start(run: &Arc<RunDir>, name: &str, netns: &Netns, config: &RouterConfig) -> Result<Self> {
        let text = render(config)?;
        let dir = run.dir(name)?;
        // The daemons give up root, and refuse to run as anybody else.
        let user = User::from_name("frr")?.context("there is no user frr: the package frr makes it")?;
        chown(&dir, Some(user.uid), Some(user.gid)).with_context(|| format!("chown {}", dir.display()))?;
        let (all, nothing) = (dir.join("frr.conf"), dir.join("empty.conf"));
        fs::write(&all, text)?;
        fs::write(&nothing, "")?;
        let mut frr = Self { daemons: Vec::new(), dir };
        let bfd = config.neighbors.iter().any(|neighbor| neighbor.bfd.is_some());
        for daemon in ["zebra", "bfdd", "bgpd"] {
            if daemon != "bfdd" || bfd {
                let process = frr.spec(name, daemon, &nothing, config.port).netns(Some(netns)).spawn(run)?;
                frr.daemons.push(process);
                frr.wait_for(daemon)?;
            }
        }
        // Each daemon would stumble over the others' lines; vtysh knows whose they are.
        let said = ask(frr.vtysh().arg("-f").arg(&all))?;
        if said.contains('%') {
            bail!("FRR refuses its configuration: {said}");
        }
        Ok(frr)
    }

    fn spec(&self, name: &str, daemon: &str, config: &Path, port: u16) -> Spec {
        let spec = Spec::new(format!("{name}-{daemon}"), Path::new("/usr/lib/frr").join(daemon));
        let spec = spec.arg("-f").arg(config).arg("-i").arg(self.dir.join(format!("{daemon}.pid")));
        let spec = spec.arg("-z").arg(self.dir.join("zserv.api")).arg("--vty_socket").arg(&self.dir);
        let spec = spec.args(["-P", "0", "--log", "stdout"]);
        match daemon {
            "bfdd" => spec.arg("--bfdctl").arg(self.dir.join("bfdd.sock")),
            "bgpd" => spec.arg("-p").arg(port.to_string()),
            _ => spec,
        }
    }

    fn wait_for(&self, daemon: &str) -> Result<()> {
        let answers = || {
            let said = self.vtysh().args(["-d", daemon, "-c", "show version"]).output()?;
            Ok(Seen::when(said.status.success(), said))
        };
        let waited = wait::until_blocking(&format!("{daemon} answers"), wait::secs(20), answers);
        waited.map(drop).with_context(|| self.logs())
    }

    fn vtysh(&self) -> Command {
        let mut command = Command::new("vtysh");
        command.arg("--vty_socket").arg(&self.dir);
        command
    }

    fn tell(&self, commands: &[String]) -> Result<String> {
        ask(self.vtysh().args(commands.iter().flat_map(|command| ["-c", command])))
    }

    fn json(&self, command: &str) -> Result<Value> {
        let text = self.tell(&[command.to_owned()])?;
        serde_json::from_str(&text).with_context(|| format!("{command}: {text}"))
    }

    fn logs(&self) -> String {
        let tail = |process: &Process| format!("--- log of {}\n{}\n", process.name(), process.log_tail(30));
        self.daemons.iter().map(tail).collect()
    }
}

impl Router for Frr {
    fn kind(&self) -> Kind {
        Kind::Frr
    }

    fn processes(&mut self) -> Vec<&mut Process> {
        // bgpd first: it says goodbye to its peers while zebra still knows the way.
        self.daemons.iter_mut().rev().collect()
    }

    fn routes(&self, family: Family) -> Result<Vec<Route>> {
        let family = word(family);
        let table = self.json(&format!("show bgp {family} unicast json"))?;
        let Some(prefixes) = table["routes"].as_object() else { return Ok(Vec::new()) };
        let commands: Vec<String> =
            prefixes.keys().map(|prefix| format!("show bgp {family} unicast {prefix} json")).collect();
        let mut routes = Vec::new();
        for some in commands.chunks(AT_ONCE) {
            let text = self.tell(some)?;
            for answer in serde_json::Deserializer::from_str(&text).into_iter::<Value>() {
                paths(&answer.with_context(|| text.clone())?, &mut routes);
            }
        }
        routes.sort();
        Ok(routes)
    }

    fn sessions(&self) -> Result<Vec<Session>> {
        let neighbors = self.json("show bgp neighbors json")?;
        let all = neighbors.as_object().into_iter().flatten();
        Ok(all.filter_map(|(name, neighbor)| session(name, neighbor)).collect())
    }

    fn refresh(&self) -> Result<()> {
        self.tell(&["clear bgp * in".to_owned()]).map(drop)
    }

    fn show(&self) -> String {
        let questions =
            ["show bgp summary", "show bgp neighbors", "show bfd peers", "show bgp ipv4", "show bgp ipv6"];
        let asked = questions
            .map(|question| format!("--- FRR: {question}\n{}\n", told(self.tell(&[question.to_owned()]))));
        asked.concat() + &self.logs()
    }
}

impl Drop for Frr {
    fn drop(&mut self) {
        // What FRR keeps for the case that a daemon crashes, named by its process.
        for process in &self.daemons {
            let daemon = process.name().rsplit('-').next().unwrap_or_default();
            let _gone_already = fs::remove_dir_all(format!("/var/tmp/frr/{daemon}.{}", process.pid()));
        }
    }
}

fn word(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

/// Paths of one prefix; those of the router's own have no peer's address.
fn paths(answer: &Value, routes: &mut Vec<Route>) {
    let Some(prefix) = answer["prefix"].as_str() else { return };
    for path in answer["paths"].as_array().into_iter().flatten() {
        if path["peer"]["peerId"].as_str().is_none_or(|peer| peer == "0.0.0.0") || path["sourced"] == true {
            continue;
        }
        let hops = path["nexthops"].as_array().into_iter().flatten();
        let sequences = path["aspath"]["segments"].as_array().into_iter().flatten();
        let numbers = sequences.flat_map(|segment| segment["list"].as_array().into_iter().flatten());
        let listed = |name: &str| {
            let list = path[name]["list"].as_array().into_iter().flatten();
            list.filter_map(|one| one.as_str().map(str::to_owned)).collect::<Vec<_>>()
        };
        let large = listed("largeCommunity").into_iter().map(|community| format!("large:{community}"));
        routes.push(Route {
            prefix: prefix.to_owned(),
            next_hops: hops.filter_map(|hop| hop["ip"].as_str()?.parse().ok()).collect(),
            as_path: numbers.filter_map(number).collect(),
            communities: listed("community").into_iter().map(|name| numeric(&name)).chain(large).collect(),
            local_pref: number(&path["locPrf"]),
            med: number(&path["med"]).or_else(|| number(&path["metric"])),
        });
    }
}

/// FRR names the well-known communities.
fn numeric(community: &str) -> String {
    match community {
        "gracefulShutdown" => "65535:0",
        "llgrStale" => "65535:6",
        "noLlgr" => "65535:7",
        "blackhole" => "65535:666",
        "noExport" => "65535:65281",
        "noAdvertise" => "65535:65282",
        "localAs" => "65535:65283",
        other => other,
    }
    .to_owned()
}

fn number(value: &Value) -> Option<u32> {
    u32::try_from(value.as_u64()?).ok()
}

fn session(name: &str, neighbor: &Value) -> Option<Session> {
    let state = State::named(neighbor["bgpState"].as_str()?)?;
    let mut received = BTreeMap::new();
    for (key, family) in [("ipv4Unicast", Family::V4), ("ipv6Unicast", Family::V6)] {
        let count = neighbor["addressFamilyInfo"][key]["acceptedPrefixCounter"].as_u64();
        received.extend(count.and_then(|count| Some((family, usize::try_from(count).ok()?))));
    }
    let up = neighbor["bgpTimerUpMsec"].as_u64().filter(|_| state == State::Established);
    Some(Session {
        neighbor: name.to_owned(),
        state,
        uptime: up.map(Duration::from_millis),
        flaps: neighbor["connectionsDropped"].as_u64().unwrap_or_default(),
        received,
        bfd_up: neighbor["peerBfdInfo"]["status"].as_str().map(|status| status == "Up"),
        last_error: neighbor["lastNotificationReason"]
            .as_str()
            .or_else(|| neighbor["lastResetDueTo"].as_str())
            .map(str::to_owned),
    })
}

pub(super) fn render(config: &RouterConfig) -> Result<String, Cannot> {
    let mut text = String::new();
    // A String takes everything that is written to it.
    let _ = write_config(&mut text, config);
    Ok(text)
}

fn write_config(text: &mut String, config: &RouterConfig) -> std::fmt::Result {
    for (index, neighbor) in config.neighbors.iter().enumerate() {
        if let Some(bfd) = &neighbor.bfd {
            writeln!(text, "bfd\n profile n{index}\n  detect-multiplier {}", bfd.multiplier)?;
            writeln!(text, "  transmit-interval {}\n  receive-interval {}\n exit\nexit", bfd.tx, bfd.rx)?;
        }
        if let At::Interface(name) = &neighbor.at {
            writeln!(text, "interface {name}\n no ipv6 nd suppress-ra\n ipv6 nd ra-interval 1\nexit")?;
        }
    }
    writeln!(text, "router bgp {}\n bgp router-id {}", config.asn, config.router_id)?;
    // Routes are taken and given without a policy, and a network of its own needs no route.
    writeln!(
        text,
        " no bgp ebgp-requires-policy\n no bgp network import-check\n no bgp default ipv4-unicast"
    )?;
    // Several neighbours of different AS numbers make one route with several next hops.
    writeln!(text, " bgp bestpath as-path multipath-relax")?;
    if let Some(seconds) = config.neighbors.iter().find_map(|neighbor| neighbor.graceful_restart) {
        writeln!(text, " bgp graceful-restart\n bgp graceful-restart restart-time {seconds}")?;
        writeln!(text, " bgp graceful-restart preserve-fw-state")?;
    }
    for (index, neighbor) in config.neighbors.iter().enumerate() {
        write_neighbor(text, index, neighbor, config.asn)?;
    }
    for family in [Family::V4, Family::V6] {
        writeln!(text, " address-family {} unicast", word(family))?;
        for neighbor in config.neighbors.iter().filter(|neighbor| neighbor.families.contains(&family)) {
            writeln!(text, "  neighbor {} activate", neighbor.at)?;
        }
        for originated in config.originates.iter().filter(|route| super::family_of(&route.prefix) == family) {
            writeln!(text, "  network {}", originated.prefix)?;
        }
        writeln!(text, " exit-address-family")?;
    }
    config
        .neighbors
        .iter()
        .try_for_each(|neighbor| writeln!(text, " no neighbor {} shutdown", neighbor.at))?;
    writeln!(text, "exit")
}

fn write_neighbor(text: &mut String, index: usize, neighbor: &Neighbor, own: u32) -> std::fmt::Result {
    let at = &neighbor.at;
    match at {
        At::Address(_) => writeln!(text, " neighbor {at} remote-as {}", neighbor.asn)?,
        At::Interface(_) => writeln!(text, " neighbor {at} interface remote-as {}", neighbor.asn)?,
    }
    let mut say = |what: String| writeln!(text, " neighbor {at} {what}");
    // Each line takes effect at once, and some of them end a session that is there already.
    say("shutdown".to_owned())?;
    say(format!("timers {} {}", neighbor.hold_time / 3, neighbor.hold_time))?;
    say("timers connect 1".to_owned())?;
    say("advertisement-interval 0".to_owned())?;
    if let Some(local) = neighbor.local {
        say(format!("update-source {local}"))?;
    }
    if neighbor.port != 179 {
        say(format!("port {}", neighbor.port))?;
    }
    if let Some(password) = &neighbor.password {
        say(format!("password {password}"))?;
    }
    if let Some(ttl) = neighbor.multihop.filter(|_| neighbor.asn != own) {
        say(format!("ebgp-multihop {ttl}"))?;
    }
    if neighbor.gtsm {
        say("ttl-security hops 1".to_owned())?;
    }
    if neighbor.bfd.is_some() {
        say("bfd".to_owned())?;
        say(format!("bfd profile n{index}"))?;
    }
    if neighbor.passive {
        say("passive".to_owned())?;
    }
    if neighbor.extended_next_hop {
        say("capability extended-nexthop".to_owned())?;
    }
    Ok(())
}
