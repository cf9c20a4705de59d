//! The membership with real sockets and a real clock: several drivers in this process, each on a thread and at a loopback
//! address of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed expectation is a failed test

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use patina_e2e::wait::{self, Seen, secs};
use patina_runtime::flags::{METALLB_REFUSED, try_parse};
use patina_runtime::tasks::Tasks;
use patina_speaker::fence::Fence;
use patina_speaker::membership::{Members, MembershipMetrics, prepare};
use patina_speaker::settings::Settings;
use prometheus::Registry;
use tokio::sync::{oneshot, watch};

const PORT: u16 = 7946;
const OLD: &str = "the key of all tests";
const NEW: &str = "another key of all tests";

/// One test's network: addresses that no other test of this machine has.
struct Net {
    third: u8,
    keys: PathBuf,
}

/// A speaker's membership, and what is needed to look at it and to end it.
struct Node {
    members: Members,
    fence: Fence,
    registry: Registry,
    kill: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    _tasks: Tasks,
    _peers: watch::Sender<Option<BTreeSet<IpAddr>>>,
}

impl Net {
    fn new() -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let third = NEXT.fetch_add(1, Ordering::Relaxed);
        let keys = std::env::temp_dir().join(format!("patina-membership-{}-{third}", std::process::id()));
        Self { third, keys }
    }

    fn ip(&self, node: u8) -> IpAddr {
        let own = u8::try_from(std::process::id() % 250).unwrap() + 1;
        IpAddr::V4(Ipv4Addr::new(127, own, self.third, node))
    }

    /// Its directory with the key, as a mounted Secret.
    fn keys(&self, node: u8) -> PathBuf {
        self.keys.join(node.to_string())
    }

    fn write_key(&self, node: u8, key: &str) {
        std::fs::create_dir_all(self.keys(node)).unwrap();
        let next = self.keys(node).join("next");
        std::fs::write(&next, key).unwrap();
        std::fs::rename(next, self.keys(node).join("secretkey")).unwrap();
    }

    /// A speaker that is told of the nodes `all`.
    fn start(&self, node: u8, key: &str, all: &[u8]) -> Node {
        self.write_key(node, key);
        let settings = settings(node, self.ip(node), &self.keys(node));
        let (tell, peers) = watch::channel(Some(all.iter().map(|node| self.ip(*node)).collect()));
        let (registry, fence, tasks) = (Registry::new(), Fence::closed(), Tasks::new());
        let metrics = MembershipMetrics::register(&registry).unwrap();
        let (members, driver) = prepare(&settings, peers, fence.clone(), metrics).unwrap().unwrap();
        let (kill, killed) = oneshot::channel();
        let shutdown = tasks.shutdown();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            tokio::task::LocalSet::new().block_on(&runtime, async move {
                tokio::select! {
                    ended = driver.run(shutdown) => ended.unwrap(),
                    _ = killed => {}
                }
            });
        });
        let (kill, thread) = (Some(kill), Some(thread));
        Node { members, fence, registry, kill, thread, _tasks: tasks, _peers: tell }
    }

    /// All of them, once each knows the others and may answer.
    async fn joined(&self, nodes: &[u8]) -> Vec<Node> {
        let all: Vec<Node> = nodes.iter().map(|node| self.start(*node, OLD, nodes)).collect();
        for node in &all {
            node.knows(nodes.len()).await;
        }
        all
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        let _left_for_a_look = std::fs::remove_dir_all(&self.keys);
    }
}

impl Node {
    fn known(&self) -> Vec<String> {
        self.members.state.borrow().members.keys().map(ToString::to_string).collect()
    }

    async fn knows(&self, count: usize) {
        let what = format!("{count} members, joined, not fenced");
        let waited = wait::until(&what, secs(20), || async {
            let state = self.members.state.borrow().clone();
            let open = self.fence.permits(Instant::now());
            let whole = state.members.len() == count && state.joined && open;
            Ok(seen(whole, format!("{:?}, joined: {}, open: {open}", self.known(), state.joined)))
        });
        waited.await.unwrap_or_else(|error| panic!("{error:#}\n{}", self.metrics()));
    }

    fn metrics(&self) -> String {
        prometheus::TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }

    /// Ends as a process that gets SIGKILL: without a word.
    fn kill(&mut self) {
        drop(self.kill.take());
        self.thread.take().unwrap().join().unwrap();
    }

    /// The sum of a metric's series that have this label value (any: "").
    fn metric(&self, name: &str, label: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        let series = family.into_iter().flat_map(|family| family.get_metric());
        let wanted = series.filter(|m| label.is_empty() || m.get_label().iter().any(|l| l.value() == label));
        wanted.map(|m| m.get_counter().get_value() + m.get_gauge().get_value()).sum()
    }

    /// Id of the key that it writes with.
    fn newest_key(&self) -> String {
        let families = self.registry.gather();
        let keys = families.iter().filter(|family| family.name() == "patina_membership_key");
        let labels = keys.flat_map(|family| family.get_metric()).map(|metric| metric.get_label());
        let newest = labels.filter(|labels| labels.iter().any(|label| label.value() == "newest"));
        newest
            .flatten()
            .find(|label| label.name() == "id")
            .map(|id| id.value().to_owned())
            .unwrap_or_default()
    }

    fn downs(&self) -> f64 {
        self.metric("patina_membership_down_total", "")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.kill.take());
    }
}

fn seen(holds: bool, what: impl Into<String>) -> Seen<()> {
    if holds { Seen::Done(()) } else { Seen::Not(what.into()) }
}

fn settings(node: u8, ip: IpAddr, keys: &Path) -> Settings {
    let args = [
        "patina-speaker".to_owned(),
        format!("--node-name=node-{node}"),
        format!("--ml-bindaddr={ip}"),
        format!("--ml-bindport={PORT}"),
        format!("--ml-secret-key-path={}", keys.display()),
    ];
    try_parse(args.map(Into::into), METALLB_REFUSED).unwrap()
}

#[tokio::test]
async fn the_death_of_a_speaker_is_known_to_the_others_within_half_a_second() {
    let net = Net::new();
    let mut nodes = net.joined(&[1, 2, 3]).await;
    let mut dead = nodes.remove(0);
    let began = Instant::now();
    dead.kill();
    for node in &mut nodes {
        let gone = |state: &patina_speaker_core::membership::State| !state.members.contains_key("node-1");
        tokio::time::timeout(secs(10), node.members.state.wait_for(gone))
            .await
            .expect("never noticed")
            .unwrap();
        let took = began.elapsed();
        println!("known after {took:?}");
        assert!(took < Duration::from_millis(500), "known after {took:?}");
        assert_eq!(node.known().len(), 2);
    }
    // It comes back with another start, and is known again: its old epoch is no hindrance.
    let again = net.start(1, OLD, &[1, 2, 3]);
    for node in &nodes {
        node.knows(3).await;
    }
    again.knows(3).await;
}

#[tokio::test]
async fn a_speaker_that_leaves_is_gone_at_once_and_its_thread_ends() {
    let net = Net::new();
    let mut nodes = net.joined(&[1, 2, 3]).await;
    let mut leaving = nodes.remove(0);
    leaving.members.leave.send_replace(true);
    for node in &nodes {
        node.knows(2).await;
        assert!((node.metric("patina_membership_down_total", "left") - 1.0).abs() < 0.5, "it said farewell");
    }
    leaving.thread.take().unwrap().join().unwrap();
}

#[tokio::test]
async fn a_speaker_with_another_key_is_counted_and_not_believed() {
    let net = Net::new();
    let nodes = net.joined(&[1, 2]).await;
    let stranger = net.start(3, "a key that nobody else has", &[1, 2, 3]);
    wait::until("its datagrams are counted", secs(20), || async {
        let counts: Vec<f64> =
            nodes.iter().map(|n| n.metric("patina_membership_refused_total", "unknownKey")).collect();
        Ok(seen(counts.iter().all(|count| *count >= 2.0), format!("{counts:?}")))
    })
    .await
    .unwrap();
    assert!(nodes.iter().all(|node| node.known().len() == 2));
    assert!(stranger.known().len() <= 1, "{:?}", stranger.known());
}

#[tokio::test]
async fn keys_change_while_speakers_run_and_none_is_missed() {
    let net = Net::new();
    let nodes = net.joined(&[1, 2, 3]).await;
    let old = nodes[0].newest_key();
    // As kubelets do: one after the other.
    for (index, node) in nodes.iter().enumerate() {
        net.write_key(u8::try_from(index + 1).unwrap(), NEW);
        wait::until("it writes with the new key", secs(20), || async {
            Ok(seen(node.newest_key() != old, node.newest_key()))
        })
        .await
        .unwrap();
    }
    assert!(nodes.iter().all(|node| node.newest_key() == nodes[0].newest_key()));
    // Everybody goes on under the new one.
    let heard = |node: &Node| node.metric("patina_membership_datagrams_total", "in");
    let before: Vec<f64> = nodes.iter().map(heard).collect();
    wait::until("they talk on", secs(20), || async {
        let now: Vec<f64> = nodes.iter().map(heard).collect();
        Ok(seen(now.iter().zip(&before).all(|(now, before)| now - before > 40.0), format!("{now:?}")))
    })
    .await
    .unwrap();
    for node in &nodes {
        assert_eq!(node.known().len(), 3);
        assert!(node.downs() < 0.5, "somebody was taken to be dead");
        assert!(node.metric("patina_membership_refused_total", "unknownKey") < 0.5, "a datagram was lost");
    }
}

#[tokio::test]
async fn a_flood_of_a_stranger_makes_nobody_dead() {
    let net = Net::new();
    let nodes = net.joined(&[1, 2, 3]).await;
    let stop = Arc::new(AtomicBool::new(false));
    let (target, stopped) = (SocketAddr::new(net.ip(1), PORT), Arc::clone(&stop));
    let flood = std::thread::spawn(move || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let datagram = [[1; 32]; 4].concat();
        while !stopped.load(Ordering::Relaxed) {
            let _full = socket.send_to(&datagram, target);
        }
    });
    wait::until("100,000 datagrams are refused", secs(60), || async {
        let count = nodes[0].metric("patina_membership_refused_total", "unknownKey");
        Ok(seen(count >= 100_000.0, count.to_string()))
    })
    .await
    .unwrap();
    stop.store(true, Ordering::Relaxed);
    flood.join().unwrap();
    for node in &nodes {
        assert!(node.downs() < 0.5 && node.known().len() == 3, "{:?}", node.members.state.borrow());
    }
}
