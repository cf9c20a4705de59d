//! Real routers from Debian's packages, each in a network namespace of its own: FRR, BIRD 2, GoBGP and ExaBGP behind one trait.
//!
//! ```text
//!  RouterConfig ── render ──> configuration of the daemon, or Cannot(what it lacks)
//!                                │ start
//!                                v
//!      a daemon in its namespace ── its own JSON or text ──> Route, Session
//! ```
//!
//! What a daemon cannot do is a value with a reason, so that a table of features says so.

mod bird;
mod exabgp;
mod frr;
mod gobgp;
mod matrix;
mod wires;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
pub use patina_crds::net::Family;

use crate::netns::Netns;
use crate::rundir::RunDir;
use crate::wait::{self, Seen};

pub use matrix::{Cell, FEATURES, Feature, Matrix, Over, PASSWORD, THEM, US};
pub use wires::{Port, Wires};

/// What a router is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouterConfig {
    /// Its AS number.
    pub asn: u32,
    /// Its BGP Identifier.
    pub router_id: Ipv4Addr,
    /// Where it listens.
    pub port: u16,
    /// Whom it speaks with.
    pub neighbors: Vec<Neighbor>,
    /// What it tells all of them.
    pub originates: Vec<Originated>,
}

impl RouterConfig {
    /// Without neighbours and routes.
    pub fn new(asn: u32, router_id: Ipv4Addr) -> Self {
        Self { asn, router_id, port: 179, neighbors: Vec::new(), originates: Vec::new() }
    }

    /// With one neighbour more.
    #[must_use]
    pub fn neighbor(mut self, neighbor: Neighbor) -> Self {
        self.neighbors.push(neighbor);
        self
    }

    /// With one route of its own more.
    #[must_use]
    pub fn originate(mut self, prefix: &str, communities: &[&str]) -> Self {
        let communities = communities.iter().map(|community| (*community).to_owned()).collect();
        self.originates.push(Originated { prefix: prefix.to_owned(), communities });
        self
    }
}

/// A route of a router's own. FRR and BIRD originate without communities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Originated {
    /// `198.51.100.1/32`.
    pub prefix: String,
    /// `64500:1` and `large:64500:1:2`.
    pub communities: Vec<String>,
}

/// Where a neighbour is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum At {
    /// At an address.
    Address(IpAddr),
    /// Whoever is on that interface (unnumbered: RFC 5549 and RFC 8950).
    Interface(String),
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(ip) => write!(f, "{ip}"),
            Self::Interface(name) => f.write_str(name),
        }
    }
}

/// How a router speaks with one neighbour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbor {
    pub at: At,
    pub asn: u32,
    /// The router's own address of the session; needed by ExaBGP, and by others for multihop.
    pub local: Option<IpAddr>,
    pub port: u16,
    /// RFC 2385.
    pub password: Option<String>,
    /// TTL of an eBGP session over more than one hop.
    pub multihop: Option<u8>,
    /// RFC 5082.
    pub gtsm: bool,
    pub bfd: Option<Bfd>,
    /// Families of the session.
    pub families: BTreeSet<Family>,
    /// RFC 8950: IPv4 routes may have IPv6 next hops.
    pub extended_next_hop: bool,
    /// Only accepts.
    pub passive: bool,
    /// RFC 4724: seconds of the restart time.
    pub graceful_restart: Option<u16>,
    /// Seconds; keepalives go three times as often.
    pub hold_time: u16,
}

impl Neighbor {
    /// At an address, with that address's family.
    pub fn new(address: IpAddr, asn: u32) -> Self {
        Self::at(At::Address(address), asn, [Family::of(address)])
    }

    /// On an interface, with both families.
    pub fn on(interface: &str, asn: u32) -> Self {
        let at = At::Interface(interface.to_owned());
        Self { extended_next_hop: true, ..Self::at(at, asn, [Family::V4, Family::V6]) }
    }

    fn at(at: At, asn: u32, families: impl IntoIterator<Item = Family>) -> Self {
        Self {
            at,
            asn,
            local: None,
            port: 179,
            password: None,
            multihop: None,
            gtsm: false,
            bfd: None,
            families: families.into_iter().collect(),
            extended_next_hop: false,
            passive: false,
            graceful_restart: None,
            hold_time: 9,
        }
    }
}

/// RFC 5880: intervals in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bfd {
    pub tx: u32,
    pub rx: u32,
    pub multiplier: u8,
}

/// A route as a router sees it; one for each path to the prefix, as received.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// `198.51.100.1/32`.
    pub prefix: String,
    pub next_hops: Vec<IpAddr>,
    /// AS_SEQUENCEs in a row.
    pub as_path: Vec<u32>,
    /// As `64500:1` and `large:64500:1:2`.
    pub communities: BTreeSet<String>,
    pub local_pref: Option<u32>,
    pub med: Option<u32>,
}

/// RFC 4271 section 8.2.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    Idle,
    Connect,
    Active,
    OpenSent,
    OpenConfirm,
    Established,
}

impl State {
    /// In any daemon's spelling.
    fn named(text: &str) -> Option<Self> {
        Some(match text.to_ascii_lowercase().as_str() {
            "idle" | "clearing" | "deleted" | "down" => Self::Idle,
            "connect" => Self::Connect,
            "active" | "passive" => Self::Active,
            "opensent" | "connected" => Self::OpenSent,
            "openconfirm" => Self::OpenConfirm,
            "established" | "up" => Self::Established,
            _ => return None,
        })
    }
}

/// A session as a router sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The neighbour's address, or the interface.
    pub neighbor: String,
    pub state: State,
    /// How long it has been established.
    pub uptime: Option<Duration>,
    /// How often an established session was lost, since the router started.
    pub flaps: u64,
    /// Its prefixes received from the neighbour, by family; families that it says nothing of are left out.
    pub received: BTreeMap<Family, usize>,
    /// `None`: no BFD session.
    pub bfd_up: Option<bool>,
    /// What ended it last, in the daemon's words.
    pub last_error: Option<String>,
}

/// A daemon in its namespace. Dropping it kills it.
pub trait Router: fmt::Debug + Send {
    /// Who it is.
    fn kind(&self) -> Kind;

    /// Its processes, for signals (SIGSTOP: a peer that stalls).
    fn processes(&mut self) -> Vec<&mut crate::process::Process>;

    /// Every path of its table that came by BGP, in order.
    ///
    /// # Errors
    /// It does not answer, or in another way than is known.
    fn routes(&self, family: Family) -> Result<Vec<Route>>;

    /// One for each neighbour that it knows now.
    ///
    /// # Errors
    /// As [`Router::routes`].
    fn sessions(&self) -> Result<Vec<Session>>;

    /// Asks all neighbours for their routes again (RFC 2918).
    ///
    /// # Errors
    /// It cannot, or does not answer.
    fn refresh(&self) -> Result<()>;

    /// All that a person would ask it after a failure.
    fn show(&self) -> String;

    /// Ends it as an operator does: its peers are told.
    fn stop(&mut self) {
        for process in self.processes() {
            process.terminate(wait::secs(10));
        }
    }

    /// Ends it as a crash does: nothing is said.
    fn kill(&mut self) {
        for process in self.processes() {
            process.kill();
        }
    }
}

/// The four daemons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Frr,
    Bird,
    Gobgp,
    Exabgp,
}

/// What a daemon cannot do, and in whose words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cannot(pub Kind, pub &'static str);

impl fmt::Display for Cannot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0, self.1)
    }
}

impl std::error::Error for Cannot {}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `pad`, so that it stands in columns
        f.pad(match self {
            Self::Frr => "FRR",
            Self::Bird => "BIRD",
            Self::Gobgp => "GoBGP",
            Self::Exabgp => "ExaBGP",
        })
    }
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::Frr, Self::Bird, Self::Gobgp, Self::Exabgp];

    /// The daemon's program, Debian's package of it, and how it tells its version.
    fn program(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Frr => ("/usr/lib/frr/bgpd", "frr", "--version"),
            Self::Bird => ("bird", "bird2", "--version"),
            Self::Gobgp => ("gobgpd", "gobgpd", "--version"),
            Self::Exabgp => ("exabgp", "exabgp", "--version"),
        }
    }

    /// What the program says of itself.
    ///
    /// # Errors
    /// It is missing: the text names the package.
    pub fn version(self) -> Result<String> {
        let (program, package, argument) = self.program();
        let output = Command::new(program).arg(argument).stdin(Stdio::null()).output();
        let output = output.with_context(|| {
            format!("{self} is missing: {program} of the package {package} (make setup installs it)")
        })?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        let number = text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
        number.map(str::to_owned).with_context(|| format!("{program} {argument} says: {text}"))
    }

    /// The configuration in the daemon's own words.
    ///
    /// # Errors
    /// What it cannot do.
    pub fn render(self, config: &RouterConfig) -> Result<String, Cannot> {
        match self {
            Self::Frr => frr::render(config),
            Self::Bird => bird::render(config),
            Self::Gobgp => gobgp::render(config),
            Self::Exabgp => exabgp::render(config, Path::new("/dev/null")),
        }
    }

    /// Starts the daemon in its namespace, and waits until it answers. `name` is unique in the run.
    ///
    /// # Errors
    /// The package is missing, it cannot do what is asked ([`Cannot`]), or it did not come up.
    pub fn start(
        self,
        run: &Arc<RunDir>,
        name: &str,
        netns: &Netns,
        config: &RouterConfig,
    ) -> Result<Box<dyn Router>> {
        self.version()?;
        let router: Box<dyn Router> = match self {
            Self::Frr => Box::new(frr::Frr::start(run, name, netns, config)?),
            Self::Bird => Box::new(bird::Bird::start(run, name, netns, config)?),
            Self::Gobgp => Box::new(gobgp::Gobgp::start(run, name, netns, config)?),
            Self::Exabgp => Box::new(exabgp::Exabgp::start(run, name, netns, config)?),
        };
        answers(name, router.as_ref(), config.neighbors.len())?;
        Ok(router)
    }
}

/// Waits until the router knows its neighbours. Those of an interface come and go.
fn answers(name: &str, router: &dyn Router, neighbors: usize) -> Result<()> {
    let looked = wait::until_blocking(&format!("{name} answers"), wait::secs(20), || {
        let known = router.sessions()?.len();
        // Neighbours of an interface are known when they come.
        let all = neighbors == 0 || known > 0 || router.kind() == Kind::Bird;
        Ok(Seen::when(all, known))
    });
    looked.map(drop).with_context(|| format!("{} {name}:\n{}", router.kind(), router.show()))
}

/// Runs a daemon's own client.
fn ask(command: &mut Command) -> Result<String> {
    let what = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("run {what}"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{what}: {} {} {stdout}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(stdout)
}

/// Now, as daemons write times.
fn since_1970() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// Family of a prefix in text.
fn family_of(prefix: &str) -> Family {
    if prefix.contains(':') { Family::V6 } else { Family::V4 }
}

/// For a report: what was answered, or why not.
fn told(answer: Result<String>) -> String {
    answer.unwrap_or_else(|error| format!("({error:#})"))
}
