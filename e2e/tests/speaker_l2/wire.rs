//! Two namespaces and a veth pair: in `node` the speaker's driver as the speaker runs it, in `peer` the world.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc as sync;
use std::thread::JoinHandle;

use patina_crds::net::Family;
use patina_e2e::netns::Netns;
use patina_e2e::rundir::RunDir;
use patina_e2e::wait::{self, Seen, secs};
use patina_speaker::exclude::Exclude;
use patina_speaker::interfaces;
use patina_speaker::l2::{Desired, Driver};
use patina_speaker::metrics::L2Metrics;
use patina_speaker_core::l2::duty::{Duties, Duty, Mode};
use prometheus::{Registry, TextEncoder};
use tokio::sync::{Notify, mpsc, watch};

pub(crate) const VIP: &str = "172.25.7.100";
pub(crate) const OTHER: &str = "172.25.7.101";
pub(crate) const VIP6: &str = "fd00:25:7::100";
pub(crate) const OTHER6: &str = "fd00:25:7::1:0:101";

/// What the driver shall answer for.
#[derive(Clone, Debug, Default)]
struct Vips {
    all: BTreeSet<IpAddr>,
    quiet: BTreeSet<IpAddr>,
}

pub(crate) struct Wire {
    pub(crate) node: Netns,
    pub(crate) peer: Netns,
    vips: Option<watch::Sender<Vips>>,
    registry: Registry,
    thread: Option<JoinHandle<()>>,
    _run: RunDir,
}

impl Wire {
    /// A cable, addresses on both ends, and the driver. It announces nothing yet.
    pub(crate) fn new() -> Self {
        let run = RunDir::create().unwrap();
        let node =
            Netns::create(&run, "node").expect("network namespaces need root and the package iproute2");
        let peer = Netns::create(&run, "peer").unwrap();
        for netns in [&node, &peer] {
            // Link-local addresses at once, not after a second of waiting for objections.
            for key in ["all", "default"] {
                netns
                    .run(|| std::fs::write(format!("/proc/sys/net/ipv6/conf/{key}/accept_dad"), "0"))
                    .unwrap()
                    .unwrap();
            }
        }
        let registry = Registry::new();
        let (vips, wanted) = watch::channel(Vips::default());
        let (ready, is_ready) = sync::channel();
        let thread = std::thread::spawn({
            let (node, registry) = (node.clone(), registry.clone());
            move || drive(&node, wanted, &registry, &ready)
        });
        is_ready.recv().unwrap();
        let wire = Self { node, peer, vips: Some(vips), registry, thread: Some(thread), _run: run };
        wire.plug();
        wire
    }

    /// Makes the cable: `eth0` on both ends.
    pub(crate) fn plug(&self) {
        let peer = self.peer.name();
        self.node
            .ip(&["link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", peer])
            .unwrap();
        for (netns, host) in [(&self.node, 11), (&self.peer, 9)] {
            netns.ip(&["address", "add", &format!("172.25.7.{host}/24"), "dev", "eth0"]).unwrap();
            netns.ip(&["address", "add", &format!("fd00:25:7::{host}/64"), "dev", "eth0", "nodad"]).unwrap();
            netns.ip(&["link", "set", "eth0", "up"]).unwrap();
        }
        for netns in [&self.node, &self.peer] {
            wait::until_blocking("the link is up and has its link-local address", secs(5), || {
                let shown = netns.ip(&["-6", "address", "show", "dev", "eth0", "scope", "link"])?;
                Ok(Seen::when(shown.contains("fe80::") && !shown.contains("tentative"), shown))
            })
            .unwrap();
        }
    }

    /// Announces exactly these from now on, on every usable interface.
    pub(crate) fn announce(&self, vips: &[&str]) {
        let all = vips.iter().map(|vip| vip.parse().unwrap()).collect();
        self.vips.as_ref().unwrap().send(Vips { all, quiet: BTreeSet::new() }).unwrap();
    }

    /// From now on everything is answered for, but not announced: successors are about to.
    pub(crate) fn quieten(&self) {
        self.vips.as_ref().unwrap().send_modify(|vips| vips.quiet = vips.all.clone());
    }

    /// Announces one more address; the others stay as they are.
    pub(crate) fn announce_also(&self, vip: &str) {
        let vip = vip.parse().unwrap();
        self.vips.as_ref().unwrap().send_modify(|vips| {
            vips.all.insert(vip);
        });
    }

    /// Announces, and waits until the first announcement of each has gone out.
    pub(crate) fn announce_and_wait(&self, vips: &[&str]) {
        self.announce(vips);
        for vip in vips {
            self.wait_for_metric(&format!("metallb_layer2_gratuitous_sent{{ip=\"{vip}\"}}"), 1);
        }
    }

    /// The value of a series as the metrics page shows it; 0 when it is not there.
    pub(crate) fn metric(&self, series: &str) -> u64 {
        let text = TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse::<f64>().ok());
        value.unwrap_or(0.0) as u64
    }

    pub(crate) fn wait_for_metric(&self, series: &str, at_least: u64) {
        wait::until_blocking(&format!("{series} >= {at_least}"), secs(5), || {
            let value = self.metric(series);
            Ok(Seen::when(value >= at_least, value))
        })
        .unwrap();
    }

    /// The MAC address of the node's end.
    pub(crate) fn node_mac(&self) -> [u8; 6] {
        mac_of(&self.node)
    }

    /// The MAC address of the peer's end.
    pub(crate) fn peer_mac(&self) -> [u8; 6] {
        mac_of(&self.peer)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.vips = None; // ends the driver
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the driver panicked");
        }
    }
}

pub(crate) fn show(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

fn mac_of(netns: &Netns) -> [u8; 6] {
    let shown = netns.ip(&["-o", "link", "show", "eth0"]).unwrap();
    let (_, rest) = shown.split_once("link/ether ").unwrap();
    let bytes: Vec<u8> = rest[..17].split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    bytes.try_into().unwrap()
}

/// The thread of the speaker: its interfaces, its driver, and in the place of its decisions "all of `vips` everywhere".
fn drive(node: &Netns, mut vips: watch::Receiver<Vips>, registry: &Registry, ready: &sync::Sender<()>) {
    node.enter_this_thread().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let bell = Arc::new(Notify::new());
        let (list, follower) = interfaces::watch(Exclude::nothing(), Arc::clone(&bell)).await.unwrap();
        let follower = tokio::spawn(follower.run());
        let (desired, wishes) = watch::channel(Desired::default());
        let (news, _heard) = mpsc::channel(16);
        let driver = Driver::new(wishes, news, None, L2Metrics::register(registry).unwrap());
        let driver = tokio::spawn(driver.run());
        ready.send(()).unwrap();
        loop {
            tokio::select! {
                () = bell.notified() => {}
                changed = vips.changed() => if changed.is_err() { break },
            }
            let interfaces = list.list();
            let mut duties = Duties::new();
            let Vips { all, quiet } = vips.borrow_and_update().clone();
            for vip in &all {
                let usable = interfaces.iter().filter(|i| i.unusable(Family::of(*vip)).is_none());
                let mode = if quiet.contains(vip) { Mode::Answer } else { Mode::Announce };
                let interfaces: BTreeSet<u32> = usable.map(|i| i.index).collect();
                if !interfaces.is_empty() {
                    duties
                        .insert(*vip, Duty { interfaces: Arc::new(interfaces), mode, round: 0, defence: 0 });
                }
            }
            desired.send_replace(Desired { interfaces: Arc::new(interfaces), duties: Arc::new(duties) });
        }
        drop(desired);
        driver.await.unwrap();
        follower.abort();
    });
}
