//! Many membership machines under a virtual clock: loss, delay, jitter, partitions, pauses. One seed, one history.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use patina_speaker_core::membership::{Down, Event, Input, Membership, Output, Settings};
use patina_speaker_core::view::Member;

/// How the network treats a message.
#[derive(Clone, Copy, Debug)]
pub struct Network {
    /// Of a million messages so many are lost.
    pub loss_ppm: u64,
    /// Each takes at least so long.
    pub delay: Duration,
    /// And up to so much longer.
    pub jitter: Duration,
}

/// A LAN.
pub const LAN: Network =
    Network { loss_ppm: 0, delay: Duration::from_micros(200), jitter: Duration::from_micros(300) };
/// A bad one: one message in twenty is lost, and the others are late and out of order.
pub const BAD: Network =
    Network { loss_ppm: 50_000, delay: Duration::from_millis(1), jitter: Duration::from_millis(50) };

/// What a machine said, and when.
#[derive(Clone, Debug)]
pub struct Told {
    pub at: Duration,
    pub by: usize,
    pub event: Event,
}

struct Node {
    machine: Option<Membership>,
    /// It does not run until then: SIGSTOP. What comes waits.
    paused: Option<Instant>,
    waiting: Vec<(SocketAddr, Vec<u8>)>,
    wake: Option<Instant>,
    lives: u64,
    side: u8,
}

enum Happens {
    Deliver { to: usize, from: usize, message: Vec<u8> },
    Wake { node: usize },
}

/// All of them.
pub struct Swarm {
    pub network: Network,
    pub detect: Duration,
    pub quorum: bool,
    pub told: Vec<Told>,
    pub messages: u64,
    pub bytes: u64,
    start: Instant,
    now: Instant,
    nodes: Vec<Node>,
    queue: BinaryHeap<Reverse<(Instant, u64, usize)>>,
    events: BTreeMap<u64, Happens>,
    seq: u64,
    random: u64,
    /// Messages from one of these sides to another are lost.
    cut: BTreeSet<(u8, u8)>,
}

impl Swarm {
    pub fn new(count: usize, network: Network, seed: u64) -> Self {
        let now = Instant::now();
        let node =
            || Node { machine: None, paused: None, waiting: Vec::new(), wake: None, lives: 0, side: 0 };
        Self {
            network,
            detect: Duration::from_millis(250),
            quorum: false,
            told: Vec::new(),
            messages: 0,
            bytes: 0,
            start: now,
            now,
            nodes: (0..count).map(|_| node()).collect(),
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            seq: 0,
            random: seed,
            cut: BTreeSet::new(),
        }
    }

    /// All of them are started, one after the other, and have a second to find each other.
    pub fn started(count: usize, network: Network, seed: u64) -> Self {
        let mut swarm = Self::new(count, network, seed);
        for node in 0..count {
            swarm.start(node);
            let pause = swarm.below(2000);
            swarm.run(Duration::from_micros(pause));
        }
        swarm.run(Duration::from_secs(3));
        swarm
    }

    pub fn time(&self) -> Duration {
        self.now.duration_since(self.start)
    }

    pub fn start(&mut self, node: usize) {
        let seed = self.below(u64::MAX);
        let settings = Settings {
            node: name(node),
            addresses: vec![address(node)],
            heartbeat: Duration::from_millis(50),
            detect: self.detect,
            watchers: 3,
            quorum: self.quorum,
            incarnation: (self.nodes[node].lives + 1) << 20 | self.below(1 << 20),
            seed,
        };
        let mut machine = Membership::new(self.now, settings);
        let peers = (0..self.nodes.len()).filter(|peer| *peer != node).map(address).collect();
        machine.handle(self.now, Input::Peers(peers));
        machine.handle(self.now, Input::Say(Member { version: "test".to_owned(), ..Member::default() }));
        self.nodes[node].machine = Some(machine);
        self.nodes[node].lives += 1;
        self.nodes[node].paused = None;
        self.drain(node);
    }

    pub fn kill(&mut self, node: usize) {
        self.nodes[node].machine = None;
        self.nodes[node].waiting.clear();
    }

    pub fn pause(&mut self, node: usize, time: Duration) {
        self.nodes[node].paused = Some(self.now + time);
        self.schedule_wake(node, self.now + time);
    }

    pub fn input(&mut self, node: usize, input: Input) {
        let now = self.now;
        if let Some(machine) = &mut self.nodes[node].machine {
            machine.handle(now, input);
        }
        self.drain(node);
    }

    /// The nodes of `side` are on another side than the rest; both ways are cut.
    pub fn part(&mut self, nodes: &[usize]) {
        for node in nodes {
            self.nodes[*node].side = 1;
        }
        self.cut = BTreeSet::from([(0, 1), (1, 0)]);
    }

    /// Only what these nodes send is lost.
    #[allow(dead_code)]
    pub fn silence(&mut self, nodes: &[usize]) {
        for node in nodes {
            self.nodes[*node].side = 1;
        }
        self.cut = BTreeSet::from([(1, 0)]);
    }

    pub fn heal(&mut self) {
        self.cut.clear();
        for node in &mut self.nodes {
            node.side = 0;
        }
    }

    pub fn machine(&self, node: usize) -> Option<&Membership> {
        self.nodes[node].machine.as_ref()
    }

    pub fn members(&self, node: usize) -> BTreeSet<String> {
        let state = self.machine(node).map(Membership::state).unwrap_or_default();
        state.members.keys().cloned().collect()
    }

    /// Every machine that runs knows exactly those that run.
    pub fn whole(&self) -> bool {
        let alive: BTreeSet<String> =
            (0..self.nodes.len()).filter(|node| self.machine(*node).is_some()).map(name).collect();
        (0..self.nodes.len()).all(|node| self.machine(node).is_none() || self.members(node) == alive)
    }

    /// Who missed whom that ran: false verdicts. `about`: nodes for which a verdict is right.
    pub fn false_verdicts(&self, about: &BTreeSet<usize>) -> Vec<&Told> {
        let right: BTreeSet<String> = about.iter().map(|node| name(*node)).collect();
        let wrong = |event: &Event| matches!(event, Event::Down { node, cause } if *cause != Down::Left && !right.contains(node));
        self.told.iter().filter(|told| wrong(&told.event)).collect()
    }

    /// When each of the others first learnt after `since` that `node` is dead.
    pub fn learnt(&self, node: usize, since: Duration) -> BTreeMap<usize, Duration> {
        let mut learnt = BTreeMap::new();
        for told in self.told.iter().filter(|told| told.at >= since) {
            if matches!(&told.event, Event::Down { node: down, .. } if *down == name(node)) {
                learnt.entry(told.by).or_insert(told.at.saturating_sub(since));
            }
        }
        learnt
    }

    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(Reverse((at, seq, _))) =
            self.queue.peek().copied().filter(|Reverse((at, ..))| *at <= end)
        {
            self.queue.pop();
            let Some(happens) = self.events.remove(&seq) else { continue };
            self.now = at;
            match happens {
                Happens::Deliver { to, from, message } => self.deliver(to, from, message),
                Happens::Wake { node } => self.wake(node),
            }
        }
        self.now = end;
    }

    /// Until `done`, at most `time`. How long it took.
    pub fn run_until(&mut self, time: Duration, mut done: impl FnMut(&Self) -> bool) -> Option<Duration> {
        let began = self.now;
        while self.now < began + time {
            if done(self) {
                return Some(self.now.duration_since(began));
            }
            self.run(Duration::from_millis(5));
        }
        done(self).then(|| self.now.duration_since(began))
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound.max(1)
    }

    fn deliver(&mut self, to: usize, from: usize, message: Vec<u8>) {
        let now = self.now;
        let node = &mut self.nodes[to];
        if node.paused.is_some_and(|until| until > now) {
            node.waiting.push((address(from), message));
            return;
        }
        let Some(machine) = &mut node.machine else { return };
        machine.handle(now, Input::Received { from: address(from), message });
        self.drain(to);
    }

    fn wake(&mut self, index: usize) {
        let now = self.now;
        let node = &mut self.nodes[index];
        if node.paused.is_some_and(|until| until > now) {
            return;
        }
        node.paused = None;
        let waiting = std::mem::take(&mut node.waiting);
        let Some(machine) = &mut node.machine else { return };
        // As the driver does: first what waits in the socket, then the deadlines.
        for (from, message) in waiting {
            machine.handle(now, Input::Received { from, message });
        }
        if machine.poll_timeout().is_some_and(|deadline| deadline <= now) {
            machine.handle_timeout(now);
        }
        node.wake = None;
        self.drain(index);
    }

    fn drain(&mut self, index: usize) {
        let (now, at) = (self.now, self.time());
        let Some(machine) = &mut self.nodes[index].machine else { return };
        let mut sends = Vec::new();
        while let Some(output) = machine.poll_output() {
            match output {
                Output::Send { to, message } => sends.push((to, message)),
                Output::Event(event) => self.told.push(Told { at, by: index, event }),
            }
        }
        let deadline = machine.poll_timeout();
        for (to, message) in sends {
            self.send(index, to, message);
        }
        if let Some(deadline) = deadline {
            let deadline = deadline.max(now);
            if self.nodes[index].wake.is_none_or(|wake| wake > deadline || wake < now) {
                self.nodes[index].wake = Some(deadline);
                self.schedule_wake(index, deadline);
            }
        }
    }

    fn send(&mut self, from: usize, to: SocketAddr, message: Vec<u8>) {
        self.messages += 1;
        self.bytes += message.len() as u64 + 45 + 28; // envelope, UDP, IP
        let Some(to) = index(to).filter(|to| *to < self.nodes.len()) else { return };
        let sides = (self.nodes[from].side, self.nodes[to].side);
        if self.cut.contains(&sides) || self.below(1_000_000) < self.network.loss_ppm {
            return;
        }
        let jitter = self.below(self.network.jitter.as_micros() as u64 + 1);
        let at = self.now + self.network.delay + Duration::from_micros(jitter);
        self.schedule(at, Happens::Deliver { to, from, message });
    }

    fn schedule_wake(&mut self, node: usize, at: Instant) {
        self.schedule(at, Happens::Wake { node });
    }

    fn schedule(&mut self, at: Instant, happens: Happens) {
        self.seq += 1;
        self.queue.push(Reverse((at, self.seq, 0)));
        self.events.insert(self.seq, happens);
    }
}

pub fn name(node: usize) -> String {
    format!("node-{node}")
}

fn address(node: usize) -> SocketAddr {
    let number = node as u32 + 1;
    SocketAddr::new(Ipv4Addr::from(0x0a00_0000 + number).into(), 7946)
}

fn index(address: SocketAddr) -> Option<usize> {
    match address {
        SocketAddr::V4(v4) => u32::from(*v4.ip()).checked_sub(0x0a00_0001).map(|number| number as usize),
        SocketAddr::V6(_) => None,
    }
}
