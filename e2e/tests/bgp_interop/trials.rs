//! What is tried for each row of the table. A trial is short: a session, and the one thing that the row is about.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use patina_crds::config::Community;
use patina_e2e::routers::{
    Family, Feature, Kind, Over, PASSWORD, Port, Route, Router, RouterConfig, State, THEM, US, Wires,
};
use patina_e2e::rundir::RunDir;
use patina_e2e::wait::{self, Seen, secs};
use patina_speaker::bgp::{Ending, Remote};
use patina_speaker_core::bgp::rib::Table;

use crate::us::{Plan, Us, table};

/// By the name of the feature; `None`: nobody has written it.
pub(crate) fn of(name: &str) -> Option<fn(&Trial) -> Result<()>> {
    Some(match name {
        "eBGP, one hop" | "TCP MD5" | "GTSM" | "4-octet AS numbers" => plain,
        "the router calls, we only answer" => answer,
        "we call, the router only answers" => plain,
        "iBGP, LOCAL_PREF" => internal,
        "eBGP, multihop" => multihop,
        "TCP MD5, the key changes" => key_changes,
        "BFD, 50 ms x 3" => bfd,
        "standard communities" => standard_communities,
        "large communities" => large_communities,
        "a route is taken back" => taken_back,
        "route refresh" => refresh,
        "graceful restart of the speaker" => graceful_restart,
        "drain (GRACEFUL_SHUTDOWN)" => drain,
        "a router that stalls is given up" => stalls,
        "IPv4 routes with an IPv6 next hop" => extended_next_hop,
        "unnumbered" => unnumbered,
        "ECMP over two nodes" => ecmp,
        _ => return None,
    })
}

const V4: &str = "203.0.113.1/32";
const V6: &str = "2001:db8:ff::1/128";

/// One feature with one router over one kind of session.
pub(crate) struct Trial {
    pub(crate) feature: &'static Feature,
    pub(crate) over: Over,
    pub(crate) kind: Kind,
    us: Port,
    them: Port,
    wires: Wires,
    run: Arc<RunDir>,
}

impl Trial {
    pub(crate) fn new(feature: &'static Feature, over: Over, kind: Kind) -> Result<Self> {
        let run = Arc::new(RunDir::create()?);
        let wires = Wires::new(&run)?;
        let (us, them) = (wires.plug("us", 1)?, wires.plug("them", 2)?);
        Ok(Self { feature, over, kind, us, them, wires, run })
    }

    fn prefixes(&self) -> Vec<&'static str> {
        self.over.families().iter().map(|family| if *family == Family::V4 { V4 } else { V6 }).collect()
    }

    fn table(&self) -> Table {
        table(&self.prefixes(), &[], None)
    }

    fn config(&self) -> RouterConfig {
        let transport = self.over.transport();
        let neighbor =
            self.feature.neighbor(self.over, self.us.address(transport), self.them.address(transport));
        // A router of our own AS is one of iBGP; that of a large number has a large one itself.
        let asn = match neighbor.asn {
            US if self.feature.name.starts_with("iBGP") => US,
            US => THEM,
            large => large + 1,
        };
        RouterConfig::new(asn, Ipv4Addr::new(192, 0, 2, 1)).neighbor(neighbor)
    }

    fn router(&self, config: &RouterConfig) -> Result<Box<dyn Router>> {
        self.kind.start(&self.run, "router", &self.them.netns, config)
    }

    fn plan(&self, config: &RouterConfig) -> Plan {
        let neighbor = &config.neighbors[0];
        let remote = self.them.address(self.over.transport());
        let families: Vec<Family> = neighbor.families.iter().copied().collect();
        let mut plan = Plan::new(remote, neighbor.asn, config.asn, &families, self.table());
        if let Some(password) = &neighbor.password {
            plan.key(password);
        }
        plan.neighbour.minimum_ttl = neighbor.gtsm.then_some(255);
        plan.neighbour.settings.extended_next_hop = neighbor.extended_next_hop;
        plan.neighbour.settings.graceful_restart = neighbor.graceful_restart;
        plan
    }

    /// A router and us, with a session; what we announce has arrived.
    fn session(&self) -> Result<(Box<dyn Router>, Us)> {
        let config = self.config();
        let router = self.router(&config)?;
        let us = Us::start(&self.us, &self.plan(&config))?;
        self.arrives(router.as_ref(), &us, &self.prefixes(), |_| Ok(()))?;
        Ok((router, us))
    }

    /// Waits until the router has these routes of ours, and they are good.
    fn arrives(
        &self,
        router: &dyn Router,
        us: &Us,
        prefixes: &[&str],
        good: impl Fn(&Route) -> Result<()>,
    ) -> Result<Vec<Route>> {
        let waited = wait::until_blocking("the router has our routes as they should be", secs(25), || {
            let routes = all(router)?;
            for prefix in prefixes {
                let Some(route) = routes.iter().find(|route| route.prefix == *prefix) else {
                    return Ok(Seen::Not(format!("{routes:?}; we: {:?}", us.status())));
                };
                good(route).with_context(|| format!("{route:?}"))?;
            }
            Ok(Seen::Done(routes))
        });
        waited.with_context(|| format!("{}; we: {:?}", router.show(), us.status()))
    }

    fn never_lost(&self, router: &dyn Router) -> Result<()> {
        let sessions = router.sessions()?;
        let good = sessions.iter().any(|session| session.state == State::Established && session.flaps == 0);
        ensure!(good, "the session was lost: {sessions:?}");
        Ok(())
    }
}

fn all(router: &dyn Router) -> Result<Vec<Route>> {
    let mut routes = router.routes(Family::V4)?;
    routes.extend(router.routes(Family::V6)?);
    Ok(routes)
}

/// AS_PATH and next hop are ours.
fn plain(trial: &Trial) -> Result<()> {
    let config = trial.config();
    let mut plan = trial.plan(&config);
    // What answers for ExaBGP does so with the system's TTL: it has to call.
    plan.listen = trial.kind == Kind::Exabgp && config.neighbors[0].gtsm;
    let us = Us::start(&trial.us, &plan)?;
    let router = trial.router(&config)?;
    ours(trial, &config, router.as_ref(), &us)
}

fn ours(trial: &Trial, config: &RouterConfig, router: &dyn Router, us: &Us) -> Result<()> {
    let asn = config.neighbors[0].asn;
    let routes = trial.arrives(router, us, &trial.prefixes(), |route| {
        ensure!(route.as_path == [asn], "AS_PATH is not {asn}");
        let family = if route.prefix.contains(':') { Family::V6 } else { Family::V4 };
        let hop = trial.us.address(family);
        ensure!(route.next_hops.contains(&hop), "the next hop is not {hop}");
        ensure!(route.communities.is_empty(), "there are communities");
        Ok(())
    })?;
    ensure!(routes.len() == trial.prefixes().len(), "more than we said: {routes:?}");
    us.until(true, secs(1))?;
    trial.never_lost(router)
}

fn answer(trial: &Trial) -> Result<()> {
    let config = trial.config();
    let mut plan = trial.plan(&config);
    plan.neighbour.settings.passive = true;
    plan.listen = true;
    let us = Us::start(&trial.us, &plan)?;
    let router = trial.router(&config)?;
    trial.arrives(router.as_ref(), &us, &trial.prefixes(), |_| Ok(())).map(drop)
}

fn internal(trial: &Trial) -> Result<()> {
    let config = trial.config();
    let mut plan = trial.plan(&config);
    plan.table = table(&trial.prefixes(), &[], Some(333));
    let router = trial.router(&config)?;
    let us = Us::start(&trial.us, &plan)?;
    let good = |route: &Route| {
        ensure!(route.as_path.is_empty(), "AS_PATH is not empty");
        ensure!(route.local_pref == Some(333), "LOCAL_PREF is not 333");
        Ok(())
    };
    trial.arrives(router.as_ref(), &us, &trial.prefixes(), good)?;
    trial.never_lost(router.as_ref())
}

/// The router is behind another one, in another network.
fn multihop(trial: &Trial) -> Result<()> {
    let middle = trial.wires.plug("middle", 3)?;
    let there = |host: u16| match trial.over.transport() {
        Family::V4 => IpAddr::from(Ipv4Addr::new(172, 28, 0, host as u8)),
        Family::V6 => IpAddr::from(Ipv6Addr::new(0xfd28, 0, 0, 0, 0, 0, 0, host)),
    };
    let length = if trial.over.transport() == Family::V4 { 24 } else { 64 };
    let hop = middle.address(trial.over.transport()).to_string();
    let network = format!("{}/{length}", there(0));
    let own = format!("{}/{length}", trial.them.address(trial.over.transport()));
    middle.netns.ip(&["addr", "add", &format!("{}/{length}", there(3)), "dev", "eth0"])?;
    trial.us.netns.ip(&["route", "add", &network, "via", &hop])?;
    trial.them.netns.ip(&["addr", "del", &own, "dev", "eth0"])?;
    trial.them.netns.ip(&["addr", "add", &format!("{}/{length}", there(2)), "dev", "eth0"])?;
    let back = format!("{}/{length}", if length == 24 { "172.27.0.0" } else { "fd27::" });
    trial.them.netns.ip(&["route", "add", &back, "via", &there(3).to_string()])?;

    let mut config = trial.config();
    config.neighbors[0].local = Some(there(2));
    let router = trial.router(&config)?;
    let mut plan = trial.plan(&config);
    plan.neighbour.remote = Remote::Ip(there(2));
    let us = Us::start(&trial.us, &plan)?;
    ours(trial, &config, router.as_ref(), &us)
}

/// No session with another key; with the right one there is, and nothing was restarted. It ends when the key is another again.
fn key_changes(trial: &Trial) -> Result<()> {
    let config = trial.config();
    let router = trial.router(&config)?;
    let mut plan = trial.plan(&config);
    plan.key("another");
    let us = Us::start(&trial.us, &plan)?;
    let early = us.until(true, secs(4));
    ensure!(early.is_err(), "a session with another key");
    us.key(PASSWORD);
    trial.arrives(router.as_ref(), &us, &trial.prefixes(), |_| Ok(()))?;
    us.key("another");
    us.until(false, secs(20)).context("the key is another, and the session goes on")?;
    us.key(PASSWORD);
    trial.arrives(router.as_ref(), &us, &trial.prefixes(), |_| Ok(()))?;
    us.until(true, secs(20))
}

/// With a hold time of minutes only BFD can know that the cable is out.
fn bfd(trial: &Trial) -> Result<()> {
    let mut config = trial.config();
    config.neighbors[0].hold_time = 180;
    let bfd = config.neighbors[0].bfd.context("the row is about BFD")?;
    let router = trial.router(&config)?;
    let mut plan = trial.plan(&config);
    plan.neighbour.settings.bfd = true;
    plan.neighbour.settings.hold_time = secs(180);
    plan.bfd = Some(patina_speaker_core::bfd::Settings {
        transmit_interval: Duration::from_millis(bfd.tx.into()),
        receive_interval: Duration::from_millis(bfd.rx.into()),
        detect_multiplier: bfd.multiplier,
        echo_interval: Duration::from_millis(50),
        echo_mode: false,
        loops_echo: false,
        passive: false,
        multihop: false,
        minimum_ttl: 254,
    });
    let us = Us::start(&trial.us, &plan)?;
    let sees = |up: bool| {
        let waited = wait::until_blocking("the router and its BFD see it", secs(15), || {
            let sessions = router.sessions()?;
            let all = sessions
                .iter()
                .all(|session| session.bfd_up == Some(up) && (session.state == State::Established) == up);
            Ok(Seen::when(all && !sessions.is_empty(), sessions))
        });
        waited.map(drop).with_context(|| format!("{}; we: {:?}", router.show(), us.status()))
    };
    for _ in 0..2 {
        sees(true)?;
        us.until(true, secs(5))?;
        trial.arrives(router.as_ref(), &us, &trial.prefixes(), |_| Ok(()))?;
        trial.wires.cable(&trial.them, false)?;
        // 150 ms for BFD, and time for a busy machine.
        us.until(false, secs(2))?;
        sees(false)?;
        trial.wires.cable(&trial.them, true)?;
    }
    us.until(true, secs(20))
}

fn with_communities(trial: &Trial, communities: &[Community], texts: &[&str]) -> Result<()> {
    let (router, us) = trial.session()?;
    let expected: BTreeSet<String> = texts.iter().map(|text| (*text).to_owned()).collect();
    us.want(table(&trial.prefixes(), communities, None));
    let good = |route: &Route| {
        ensure!(route.communities == expected, "not {expected:?}");
        Ok(())
    };
    trial.arrives(router.as_ref(), &us, &trial.prefixes(), good)?;
    trial.never_lost(router.as_ref())
}

fn standard_communities(trial: &Trial) -> Result<()> {
    // NO_EXPORT (RFC 1997) and BLACKHOLE (RFC 7999) are known by name to some.
    let communities = [(64512, 7), (0, 1), (65535, 65281), (65535, 666)];
    let communities = communities.map(|(high, low)| Community::Standard(high, low));
    with_communities(trial, &communities, &["64512:7", "0:1", "65535:65281", "65535:666"])
}

fn large_communities(trial: &Trial) -> Result<()> {
    let communities =
        [Community::Large(64512, 1, 2), Community::Large(u32::MAX, 0, u32::MAX), Community::Standard(1, 2)];
    with_communities(trial, &communities, &["large:64512:1:2", "large:4294967295:0:4294967295", "1:2"])
}

fn taken_back(trial: &Trial) -> Result<()> {
    let (router, us) = trial.session()?;
    let more = ["203.0.113.128/25", "2001:db8:fe::/48"];
    let more: Vec<&str> =
        trial.over.families().iter().map(|family| more[usize::from(*family == Family::V6)]).collect();
    us.want(table(&[trial.prefixes(), more.clone()].concat(), &[], None));
    trial.arrives(router.as_ref(), &us, &more, |_| Ok(()))?;
    us.want(trial.table());
    gone(router.as_ref(), &more)?;
    trial.arrives(router.as_ref(), &us, &trial.prefixes(), |_| Ok(()))?;
    trial.never_lost(router.as_ref())?;
    // A session that ends on purpose takes its routes along.
    us.stop(Ending::Shutdown);
    gone(router.as_ref(), &trial.prefixes())
}

fn gone(router: &dyn Router, prefixes: &[&str]) -> Result<()> {
    let waited = wait::until_blocking("the routes are gone", secs(15), || {
        let routes = all(router)?;
        Ok(Seen::when(!routes.iter().any(|route| prefixes.contains(&route.prefix.as_str())), routes))
    });
    waited.map(drop).with_context(|| router.show())
}

fn refresh(trial: &Trial) -> Result<()> {
    let (router, us) = trial.session()?;
    let sent = || us.counted("metallb_bgp_updates_total");
    // The session's first UPDATEs end with End-of-RIB; after that none is due.
    let before = settled(sent)?;
    router.refresh()?;
    let waited = wait::until_blocking("the routes go out again", secs(15), || {
        Ok(Seen::when(sent()? > before, sent()?))
    });
    waited.with_context(|| router.show())?;
    trial.arrives(router.as_ref(), &us, &trial.prefixes(), |_| Ok(()))?;
    trial.never_lost(router.as_ref())
}

/// A counter that has stood still for a second.
fn settled(look: impl Fn() -> Result<f64>) -> Result<f64> {
    let (mut last, mut since) = (look()?, Instant::now());
    wait::until_blocking("nothing more is sent", secs(15), || {
        let now = look()?;
        if now > last {
            (last, since) = (now, Instant::now());
        }
        Ok(Seen::when(since.elapsed() > secs(1), now))
    })
}

/// We crash, and come back: the router has our routes all the time.
fn graceful_restart(trial: &Trial) -> Result<()> {
    let config = trial.config();
    let router = trial.router(&config)?;
    let mut plan = trial.plan(&config);
    let us = Us::start(&trial.us, &plan)?;
    trial.arrives(router.as_ref(), &us, &trial.prefixes(), |_| Ok(()))?;
    settled(|| us.counted("metallb_bgp_updates_total"))?;

    us.kill();
    let sees = |established: bool| {
        wait::until_blocking("the router sees it", secs(20), || {
            has(router.as_ref(), &trial.prefixes())?;
            let sessions = router.sessions()?;
            let is = sessions.iter().any(|session| session.state == State::Established);
            Ok(Seen::when(is == established, sessions))
        })
    };
    sees(false).with_context(|| router.show())?;
    stays(router.as_ref(), &trial.prefixes(), secs(3)).context("while we are away")?;

    plan.neighbour.settings.restarted = true;
    let us = Us::start(&trial.us, &plan)?;
    us.until(true, secs(20))?;
    stays(router.as_ref(), &trial.prefixes(), secs(3)).context("after we came back")?;
    trial.arrives(router.as_ref(), &us, &trial.prefixes(), |_| Ok(())).map(drop)
}

fn has(router: &dyn Router, prefixes: &[&str]) -> Result<()> {
    let routes = all(router)?;
    for prefix in prefixes {
        ensure!(routes.iter().any(|route| route.prefix == *prefix), "{prefix} is lost");
    }
    Ok(())
}

fn stays(router: &dyn Router, prefixes: &[&str], span: Duration) -> Result<()> {
    let since = Instant::now();
    let kept = wait::until_blocking("the span is over", span + secs(10), || {
        Ok(match has(router, prefixes) {
            Err(lost) => Seen::Done(Err(lost)),
            Ok(()) if since.elapsed() >= span => Seen::Done(Ok(())),
            Ok(()) => Seen::Not("the routes are there".to_owned()),
        })
    })?;
    kept.with_context(|| router.show())
}

fn drain(trial: &Trial) -> Result<()> {
    let (router, us) = trial.session()?;
    us.drain();
    let good = |route: &Route| {
        ensure!(route.communities.contains("65535:0"), "no GRACEFUL_SHUTDOWN");
        Ok(())
    };
    trial.arrives(router.as_ref(), &us, &trial.prefixes(), good)?;
    trial.never_lost(router.as_ref())
}

/// A router that is there and says nothing: our hold timer (RFC 4271 section 6.5) ends the session; it comes back with the router.
fn stalls(trial: &Trial) -> Result<()> {
    let (mut router, us) = trial.session()?;
    signal(router.as_mut(), Signal::SIGSTOP)?;
    let given_up = us.until(false, secs(15));
    signal(router.as_mut(), Signal::SIGCONT)?;
    given_up?;
    us.until(true, secs(60)).with_context(|| router.show())?;
    trial.arrives(router.as_ref(), &us, &trial.prefixes(), |_| Ok(())).map(drop)
}

fn signal(router: &mut dyn Router, signal: Signal) -> Result<()> {
    router.processes().into_iter().try_for_each(|process| process.signal(signal))
}

fn extended_next_hop(trial: &Trial) -> Result<()> {
    let config = trial.config();
    let router = trial.router(&config)?;
    let mut plan = trial.plan(&config);
    plan.table = table(&[V4, V6], &[], None);
    let us = Us::start(&trial.us, &plan)?;
    let good = |route: &Route| {
        ensure!(route.next_hops.contains(&trial.us.v6.into()), "the next hop is not {}", trial.us.v6);
        Ok(())
    };
    trial.arrives(router.as_ref(), &us, &[V4, V6], good).map(drop)
}

fn unnumbered(trial: &Trial) -> Result<()> {
    let config = trial.config();
    let mut plan = trial.plan(&config);
    plan.neighbour.remote = Remote::Interface("eth0".to_owned());
    plan.table = table(&[V4, V6], &[], None);
    plan.listen = true;
    let us = Us::start(&trial.us, &plan)?;
    let router = trial.router(&config)?;
    let good = |route: &Route| {
        ensure!(
            !route.next_hops.is_empty() && route.next_hops.iter().all(IpAddr::is_ipv6),
            "an IPv4 next hop"
        );
        Ok(())
    };
    trial.arrives(router.as_ref(), &us, &[V4, V6], good).map(drop)
}

/// Two of us announce one address: the router's kernel has two next hops; when one crashes, the other remains.
fn ecmp(trial: &Trial) -> Result<()> {
    let family = trial.over.transport();
    let second = trial.wires.plug("second", 3)?;
    let mut config = trial.config();
    let mut other = config.neighbors[0].clone();
    other.at = patina_e2e::routers::At::Address(second.address(family));
    config.neighbors.push(other);
    let router = trial.router(&config)?;
    let plan = trial.plan(&config);
    let (one, two) = (Us::start(&trial.us, &plan)?, Us::start(&second, &plan)?);
    for us in [&one, &two] {
        us.until(true, secs(20)).with_context(|| router.show())?;
    }
    // RFC 2545: the link-local address goes along, and is the one that is used.
    let hop = |port: &Port| match family {
        Family::V4 => format!("via {} ", port.v4),
        Family::V6 => format!("via {} ", port.link_local),
    };
    let hops = [hop(&trial.us), hop(&second)];
    let prefix = *trial.prefixes().first().context("a family")?;
    let address = prefix.split('/').next().unwrap_or(prefix);
    let show: &[&str] =
        if family == Family::V4 { &["route", "show", address] } else { &["-6", "route", "show", address] };
    let kernel = |wanted: &[&String]| {
        let waited = wait::until_blocking("the kernel has these next hops", secs(20), || {
            let text = trial.them.netns.ip(show)?;
            let there: Vec<&String> = hops.iter().filter(|hop| text.contains(hop.as_str())).collect();
            Ok(Seen::when(there == wanted, text))
        });
        waited.map(drop).with_context(|| router.show())
    };
    kernel(&[&hops[0], &hops[1]])?;
    two.kill();
    kernel(&[&hops[0]])?;
    if one.status().routes.sent.is_empty() {
        bail!("we do not know what we sent: {:?}", one.status());
    }
    Ok(())
}
