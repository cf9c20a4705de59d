//! Our own BGP, its driver with real sockets, on a thread in a namespace.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use patina_crds::config::{Community, PeerAsn};
use patina_e2e::netns::Netns;
use patina_e2e::routers::{Family, Port};
use patina_e2e::wait::{self, Seen, secs};
use patina_runtime::tasks::Tasks;
use patina_speaker::bfd::{self, BfdMetrics, Desired as Sessions};
use patina_speaker::bgp::{
    BfdSays, BgpMetrics, Desired, Driver, Ending, Neighbour, PeerStatus, Remote, Secret, Statuses,
};
use patina_speaker_core::bgp::peer::{Settings, State};
use patina_speaker_core::bgp::rib::{Table, Wanted};
use patina_speaker_core::intent::routes::Prefix;
use patina_speaker_core::view::InterfaceView;
use prometheus::Registry;
use tokio::sync::{oneshot, watch};

/// The one peer.
const PEER: &str = "router";

/// How we speak with the router; what a trial changes.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) neighbour: Neighbour,
    pub(crate) table: Table,
    /// We answer on port 179.
    pub(crate) listen: bool,
    /// BFD with the router, on one hop.
    pub(crate) bfd: Option<patina_speaker_core::bfd::Settings>,
}

impl Plan {
    /// A plain session with the router at `remote`.
    pub(crate) fn new(remote: IpAddr, asn: u32, peer_asn: u32, families: &[Family], table: Table) -> Self {
        let settings = Settings {
            asn,
            peer_asn: PeerAsn::Number(peer_asn),
            router_id: Ipv4Addr::new(192, 0, 2, 200),
            hold_time: secs(9),
            keepalive_time: None,
            connect_retry_time: secs(1),
            connect_retry_max: secs(1),
            families: families.to_vec(),
            extended_next_hop: false,
            graceful_restart: None,
            restarted: false,
            bfd: false,
            bfd_strict: false,
            passive: false,
            max_prefixes: 1000,
            seed: 1,
        };
        let neighbour = Neighbour {
            settings,
            remote: Remote::Ip(remote),
            port: 179,
            source: None,
            vrf: None,
            password: None,
            minimum_ttl: None,
        };
        Self { neighbour, table, listen: false, bfd: None }
    }

    /// The BFD sessions of the plan.
    fn sessions(&self) -> Sessions {
        let Remote::Ip(peer) = self.neighbour.remote else { return Sessions::new() };
        let interface = Some("eth0".to_owned());
        let key = bfd::Key { peer, local: None, interface, vrf: None, multihop: false };
        let wanted = |settings| bfd::Wanted { settings, admin_down: false };
        self.bfd.clone().map(|settings| (key, wanted(settings))).into_iter().collect()
    }

    pub(crate) fn key(&mut self, key: &str) {
        self.neighbour.password = Some(Secret(key.to_owned()));
    }
}

/// A running driver. Dropping it is a crash.
pub(crate) struct Us {
    desired: watch::Sender<Desired>,
    statuses: watch::Receiver<Statuses>,
    registry: Registry,
    kill: Vec<oneshot::Sender<()>>,
    threads: Vec<JoinHandle<()>>,
    _bfd: (watch::Sender<Sessions>, Tasks),
}

impl Us {
    pub(crate) fn start(port: &Port, plan: &Plan) -> Result<Self> {
        let interfaces = Arc::new(interfaces(&port.netns)?);
        let (desired, obeyed) = watch::channel(Desired {
            peers: BTreeMap::from([(PEER.to_owned(), Arc::new(plan.neighbour.clone()))]),
            tables: BTreeMap::from([(PEER.to_owned(), plan.table.clone())]),
            interfaces,
            bfd: BTreeMap::new(),
            draining: false,
            ending: None,
        });
        let (publish, statuses) = watch::channel(Statuses::new());
        let registry = Registry::new();
        let metrics = BgpMetrics::register(&registry)?;
        let (says, heard) = watch::channel(BfdSays::new());
        let listen = plan.listen.then_some(179);

        let tasks = Tasks::new();
        let (sessions, wanted) = watch::channel(plan.sessions());
        let (tell, mut told) = watch::channel(bfd::Statuses::new());
        let (bfd_metrics, shutdown) = (BfdMetrics::register(&registry)?, tasks.shutdown());
        let (bfd_kill, bfd_thread) =
            in_netns(&port.netns, move || bfd::Driver::new(wanted, tell, bfd_metrics).run(shutdown));
        let (kill, thread) = in_netns(&port.netns, move || async move {
            let pass_on = async {
                while told.changed().await.is_ok() {
                    let news = told.borrow_and_update().values().find_map(|status| status.says);
                    says.send_replace(news.map(|news| (PEER.to_owned(), news)).into_iter().collect());
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = Driver::new(obeyed, heard, publish, metrics, listen).run() => {}
                () = pass_on => {}
            }
        });
        let (kill, threads) = (vec![kill, bfd_kill], vec![thread, bfd_thread]);
        Ok(Self { desired, statuses, registry, kill, threads, _bfd: (sessions, tasks) })
    }

    pub(crate) fn want(&self, table: Table) {
        self.desired.send_modify(|desired| drop(desired.tables.insert(PEER.to_owned(), table)));
    }

    pub(crate) fn drain(&self) {
        self.desired.send_modify(|desired| desired.draining = true);
    }

    pub(crate) fn key(&self, key: &str) {
        self.desired.send_modify(|desired| {
            for neighbour in desired.peers.values_mut() {
                Arc::make_mut(neighbour).password = Some(Secret(key.to_owned()));
            }
        });
    }

    pub(crate) fn status(&self) -> PeerStatus {
        self.statuses.borrow().get(PEER).cloned().unwrap_or_default()
    }

    /// Waits until the session is, or is not, established.
    pub(crate) fn until(&self, established: bool, deadline: Duration) -> Result<()> {
        let what = if established { "we see the session established" } else { "we see the session gone" };
        let waited = wait::until_blocking(what, deadline, || {
            let status = self.status();
            Ok(Seen::when((status.state == State::Established) == established, status))
        });
        waited.map(drop)
    }

    /// The sum of a counter over its labels.
    pub(crate) fn counted(&self, name: &str) -> Result<f64> {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name).context("no such metric")?;
        Ok(family.get_metric().iter().map(|metric| metric.get_counter().get_value()).sum())
    }

    /// Ends as a process that is killed: the kernel closes its connections.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    /// Ends as an operator wants it.
    pub(crate) fn stop(mut self, how: Ending) {
        self.desired.send_modify(|desired| desired.ending = Some(how));
        self.threads.remove(0).join().unwrap();
    }

    fn end(&mut self) {
        self.kill.clear();
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

impl Drop for Us {
    fn drop(&mut self) {
        self.end();
    }
}

/// Runs a driver on a thread of its own in the namespace until the sender is dropped.
fn in_netns<F: Future<Output = ()> + 'static>(
    netns: &Netns,
    driver: impl FnOnce() -> F + Send + 'static,
) -> (oneshot::Sender<()>, JoinHandle<()>) {
    let (kill, killed) = oneshot::channel::<()>();
    let netns = netns.clone();
    let thread = std::thread::spawn(move || {
        netns.enter_this_thread().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async move {
            tokio::select! {
                () = driver() => {}
                _ = killed => {}
            }
        });
    });
    (kill, thread)
}

/// Prefixes that all go with this.
pub(crate) fn table(prefixes: &[&str], communities: &[Community], local_pref: Option<u32>) -> Table {
    let wanted = Arc::new(Wanted { communities: communities.iter().copied().collect(), local_pref });
    let prefix = |text: &&str| {
        let (ip, length) = text.split_once('/').unwrap();
        Prefix::containing(ip.parse().unwrap(), length.parse().unwrap())
    };
    prefixes.iter().map(|text| (prefix(text), Arc::clone(&wanted))).collect()
}

/// The namespace's interfaces, as the speaker's watch of netlink would show them.
fn interfaces(netns: &Netns) -> Result<Vec<InterfaceView>> {
    let links: serde_json::Value = serde_json::from_str(&netns.ip(&["-j", "addr", "show"])?)?;
    let view = |link: &serde_json::Value| {
        let mut mac = [0; 6];
        for (octet, text) in mac.iter_mut().zip(link["address"].as_str()?.split(':')) {
            *octet = u8::from_str_radix(text, 16).ok()?;
        }
        let addresses = link["addr_info"].as_array()?.iter().filter_map(|address| {
            let ip: IpAddr = address["local"].as_str()?.parse().ok()?;
            Some((ip, u8::try_from(address["prefixlen"].as_u64()?).ok()?))
        });
        Some(InterfaceView {
            name: link["ifname"].as_str()?.to_owned(),
            index: u32::try_from(link["ifindex"].as_u64()?).ok()?,
            mac,
            up: true,
            arp: true,
            ndp: true,
            enslaved: false,
            addresses: addresses.collect(),
        })
    };
    Ok(links.as_array().context("ip said no list")?.iter().filter_map(view).collect())
}
