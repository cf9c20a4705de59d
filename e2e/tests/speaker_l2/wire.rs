//! Two namespaces and a veth pair: in `node` the speaker's driver as the speaker runs it, in `peer` the world.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc as sync;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use patina_crds::net::Family;
use patina_e2e::netns::Netns;
use patina_e2e::rundir::RunDir;
use patina_e2e::wait::{self, Seen, secs};
use patina_speaker::exclude::Exclude;
use patina_speaker::fence::Fence;
use patina_speaker::interfaces;
use patina_speaker::l2::{Desired, Driver, Heard};
use patina_speaker::metrics::L2Metrics;
use patina_speaker_core::l2::announcer::Settings;
use patina_speaker_core::l2::duty::{Claim, Duties, Duty, Mode};
use prometheus::{Registry, TextEncoder};
use tokio::sync::{Notify, mpsc, watch};

pub(crate) const VIP: &str = "172.25.7.100";
pub(crate) const OTHER: &str = "172.25.7.101";
pub(crate) const VIP6: &str = "fd00:25:7::100";
pub(crate) const OTHER6: &str = "fd00:25:7::1:0:101";

/// What the driver shall do: for each address its mode, round and defence, on every usable interface.
type Vips = BTreeMap<IpAddr, (Mode, u32, u32)>;

/// Says that the driver's thread stands still, then waits for the end of the other channel.
type Pause = (sync::Sender<()>, sync::Receiver<()>);

pub(crate) struct Wire {
    pub(crate) node: Netns,
    pub(crate) peer: Netns,
    vips: Option<watch::Sender<Vips>>,
    /// Asked by the driver before it sends.
    pub(crate) fence: Fence,
    heard: Mutex<mpsc::UnboundedReceiver<Claim>>,
    pauses: mpsc::UnboundedSender<Pause>,
    careless: Arc<AtomicBool>,
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
        let (registry, fence) = (Registry::new(), Fence::open());
        let (vips, wanted) = watch::channel(Vips::default());
        let (claims, heard) = mpsc::unbounded_channel();
        let (pauses, wanted_pauses) = mpsc::unbounded_channel();
        let (ready, is_ready) = sync::channel();
        let careless = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (node, registry, fence) = (node.clone(), registry.clone(), fence.clone());
            let careless = Arc::clone(&careless);
            let reins = Reins { vips: wanted, claims, pauses: wanted_pauses, careless, fence };
            move || drive(&node, reins, &registry, &ready)
        });
        is_ready.recv().unwrap();
        let (vips, heard, thread) = (Some(vips), Mutex::new(heard), Some(thread));
        let wire = Self { node, peer, vips, fence, heard, pauses, careless, registry, thread, _run: run };
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
        let all = vips.iter().map(|vip| (vip.parse().unwrap(), (Mode::Announce, 0, 0))).collect();
        self.vips.as_ref().unwrap().send(all).unwrap();
    }

    /// Does this for one address; the others stay as they are.
    pub(crate) fn set(&self, vip: &str, mode: Mode) {
        let vip = vip.parse().unwrap();
        self.vips.as_ref().unwrap().send_modify(|vips| {
            vips.entry(vip).or_insert((mode, 0, 0)).0 = mode;
        });
    }

    /// Does this for many at once.
    pub(crate) fn set_all(&self, vips: &[String], mode: Mode) {
        self.vips.as_ref().unwrap().send_modify(|all| {
            all.extend(vips.iter().map(|vip| (vip.parse().unwrap(), (mode, 0, 0))));
        });
    }

    /// From now on everything is answered for, but not announced: successors are about to.
    pub(crate) fn quieten(&self) {
        self.vips
            .as_ref()
            .unwrap()
            .send_modify(|vips| vips.values_mut().for_each(|vip| vip.0 = Mode::Answer));
    }

    /// Announces one more address; the others stay as they are.
    pub(crate) fn announce_also(&self, vip: &str) {
        self.set(vip, Mode::Announce);
    }

    /// Another round, or another defence, of an address.
    pub(crate) fn again(&self, vip: &str, round: u32, defence: u32) {
        let vip = vip.parse().unwrap();
        self.vips.as_ref().unwrap().send_modify(|vips| {
            let (_, was, defended) = vips.get_mut(&vip).unwrap();
            (*was, *defended) = (*was + round, *defended + defence);
        });
    }

    /// The next claim that the driver tells of. Waits for it.
    pub(crate) fn claim(&self) -> Claim {
        let heard = wait::until_blocking("a claim is heard", secs(5), || {
            Ok(Seen::when(true, self.heard.lock().unwrap().try_recv()?))
        });
        heard.unwrap()
    }

    /// Stops the driver's thread, as SIGSTOP would, until what is returned is dropped.
    pub(crate) fn pause(&self) -> sync::Sender<()> {
        let ((stands, stood), (hold, go_on)) = (sync::channel(), sync::channel());
        self.pauses.send((stands, go_on)).unwrap();
        stood.recv().unwrap();
        hold
    }

    /// From now on interfaces are used that do not speak the family, as they do for a moment when that changes.
    pub(crate) fn use_whatever_is_up(&self) {
        self.careless.store(true, Ordering::Relaxed);
    }

    /// Whether no claim is waiting to be heard.
    pub(crate) fn heard_nothing(&self) -> bool {
        self.heard.lock().unwrap().try_recv().is_err()
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

    /// The kernel's index of the node's end.
    pub(crate) fn node_index(&self) -> u32 {
        let shown = self.node.ip(&["-o", "link", "show", "eth0"]).unwrap();
        shown.split_once(':').unwrap().0.parse().unwrap()
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

/// What the test holds the driver by.
struct Reins {
    vips: watch::Receiver<Vips>,
    claims: mpsc::UnboundedSender<Claim>,
    pauses: mpsc::UnboundedReceiver<Pause>,
    careless: Arc<AtomicBool>,
    fence: Fence,
}

/// The thread of the speaker: its interfaces, its driver, and in the place of its decisions what the test wants,
/// everywhere.
fn drive(node: &Netns, reins: Reins, registry: &Registry, ready: &sync::Sender<()>) {
    let Reins { mut vips, claims, mut pauses, careless, fence } = reins;
    node.enter_this_thread().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let bell = Arc::new(Notify::new());
        let (list, follower) = interfaces::watch(Exclude::nothing(), Arc::clone(&bell)).await.unwrap();
        let follower = tokio::spawn(follower.run());
        let (desired, wishes) = watch::channel(Desired::default());
        let (news, mut heard) = mpsc::channel(16);
        let settings = Settings { refresh: None, ..Settings::default() };
        let metrics = L2Metrics::register(registry).unwrap();
        let driver = tokio::spawn(Driver::new(wishes, news, fence.clone(), settings, metrics).run());
        ready.send(()).unwrap();
        loop {
            tokio::select! {
                () = bell.notified() => {}
                () = fence.opened() => {}
                changed = vips.changed() => if changed.is_err() { break },
                Some(Heard::Claim(claim)) = heard.recv() => {
                    let _test_over = claims.send(claim);
                    continue;
                }
                Some((stands, go_on)) = pauses.recv() => {
                    stands.send(()).unwrap();
                    let _dropped = go_on.recv();
                    continue;
                }
            }
            let opening = fence.openings();
            let interfaces = list.list();
            let mut duties = Duties::new();
            for (vip, (mode, round, defence)) in &*vips.borrow_and_update() {
                let usable = interfaces.iter().filter(|i| {
                    i.unusable(Family::of(*vip)).is_none() || (i.up && careless.load(Ordering::Relaxed))
                });
                let interfaces: BTreeSet<u32> = usable.map(|i| i.index).collect();
                if !interfaces.is_empty() {
                    let interfaces = Arc::new(interfaces);
                    duties.insert(*vip, Duty { interfaces, mode: *mode, round: *round, defence: *defence });
                }
            }
            let (interfaces, duties) = (Arc::new(interfaces), Arc::new(duties));
            desired.send_replace(Desired { interfaces, duties, opening });
        }
        drop(desired);
        driver.await.unwrap();
        follower.abort();
    });
}
