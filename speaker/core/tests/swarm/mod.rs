//! Many membership machines under a virtual clock: loss, delay, jitter, partitions, pauses. One seed, one history.
//!
//! The membership's addresses are 10.0.x.x; those of the nodes that are on a second segment as well are 10.1.x.x there.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use patina_speaker_core::membership::{Down, Event, Input, Membership, Output, Settings};
use patina_speaker_core::view::{Member, MemberInterface};

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
    /// Its deadlines are noticed so much too late.
    lag: Duration,
}

enum Happens {
    Deliver { to: usize, from: SocketAddr, message: Vec<u8> },
    Wake { node: usize },
}

/// All of them.
pub struct Swarm {
    pub network: Network,
    pub detect: Duration,
    pub quorum: bool,
    pub told: Vec<Told>,
    /// Of what the machines say only deaths and fences are kept: of thousands each tells of thousands.
    pub terse: bool,
    pub messages: u64,
    pub bytes: u64,
    /// These have an address on the second segment.
    pub second: BTreeSet<usize>,
    /// Of those: nothing arrives from them there.
    pub mute: BTreeSet<usize>,
    /// Of those: nothing arrives at them there.
    pub deaf: BTreeSet<usize>,
    /// Messages that were sent on the second segment.
    pub messages_there: u64,
    start: Instant,
    now: Instant,
    nodes: Vec<Node>,
    /// When, in which order, and where in `events`.
    queue: BinaryHeap<Reverse<(Instant, u64, usize)>>,
    events: Vec<Option<Happens>>,
    /// Places in `events` that are free.
    free: Vec<usize>,
    seq: u64,
    random: u64,
    /// Messages from one of these sides to another are lost.
    cut: BTreeSet<(u8, u8)>,
}

impl Swarm {
    pub fn new(count: usize, network: Network, seed: u64) -> Self {
        let now = Instant::now();
        let node = || Node {
            machine: None,
            paused: None,
            waiting: Vec::new(),
            wake: None,
            lives: 0,
            side: 0,
            lag: Duration::ZERO,
        };
        Self {
            network,
            detect: Duration::from_millis(250),
            quorum: false,
            told: Vec::new(),
            terse: false,
            messages: 0,
            bytes: 0,
            second: BTreeSet::new(),
            mute: BTreeSet::new(),
            deaf: BTreeSet::new(),
            messages_there: 0,
            start: now,
            now,
            nodes: (0..count).map(|_| node()).collect(),
            queue: BinaryHeap::new(),
            events: Vec::new(),
            free: Vec::new(),
            seq: 0,
            random: seed,
            cut: BTreeSet::new(),
        }
    }

    /// All of them are started, one after the other, and have a second to find each other.
    pub fn started(count: usize, network: Network, seed: u64) -> Self {
        let mut swarm = Self::new(count, network, seed);
        swarm.start_all();
        swarm.run(Duration::from_secs(3));
        swarm
    }

    /// As [`Swarm::started`]; these are on a second segment, too.
    pub fn started_with_second(count: usize, second: &[usize], network: Network, seed: u64) -> Self {
        let mut swarm = Self::new(count, network, seed);
        swarm.second = second.iter().copied().collect();
        swarm.start_all();
        swarm.run(Duration::from_secs(3));
        swarm
    }

    /// One after the other, within a millisecond or so each.
    pub fn start_all(&mut self) {
        for node in 0..self.nodes.len() {
            self.start(node);
            let pause = self.below(2000);
            self.run(Duration::from_micros(pause));
        }
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
        if self.second.contains(&node) {
            machine.handle(self.now, Input::Listen(BTreeSet::from([address_there(node).ip()])));
        }
        machine.handle(self.now, Input::Say(self.says(node)));
        self.nodes[node].machine = Some(machine);
        self.nodes[node].lives += 1;
        self.nodes[node].paused = None;
        self.drain(node);
    }

    /// What a node says of itself.
    pub fn says(&self, node: usize) -> Member {
        let number = u8::try_from(node % 200).unwrap_or_default();
        let there = MemberInterface {
            name: "eth1".to_owned(),
            mac: [2, 0, 0, 1, 0, number],
            up: true,
            arp: true,
            subnets: BTreeSet::from([(Ipv4Addr::new(10, 1, 0, 0).into(), 16)]),
            addresses: BTreeSet::from([address_there(node).ip()]),
            ..MemberInterface::default()
        };
        let here = MemberInterface {
            name: "eth0".to_owned(),
            mac: [2, 0, 0, 0, 0, number],
            up: true,
            arp: true,
            subnets: BTreeSet::from([(Ipv4Addr::new(10, 0, 0, 0).into(), 16)]),
            addresses: BTreeSet::from([address(node).ip()]),
            ..MemberInterface::default()
        };
        let interfaces = self.second.contains(&node).then(|| vec![here, there]);
        Member { version: "test".to_owned(), interfaces, ..Member::default() }
    }

    /// Who of the others knows that this node's interface on the second segment is isolated.
    pub fn isolated_for(&self, node: usize) -> BTreeSet<usize> {
        let says = |by: &usize| {
            let state = self.machine(*by).map(Membership::state).unwrap_or_default();
            let member = state.members.get(&name(node));
            let interfaces = member.and_then(|member| member.interfaces.clone()).unwrap_or_default();
            interfaces.iter().any(|interface| interface.name == "eth1" && interface.isolated)
        };
        (0..self.nodes.len()).filter(says).collect()
    }

    /// From now on its deadlines are noticed so much too late.
    pub fn lag(&mut self, node: usize, lag: Duration) {
        self.nodes[node].lag = lag;
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
    #[allow(dead_code)] // not every program that shares this file needs it
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
        // First how many, which is cheap: this is asked every few milliseconds, of many.
        let machines = || self.nodes.iter().filter_map(|node| node.machine.as_ref());
        machines().all(|machine| machine.alive().len() == alive.len())
            && machines().all(|machine| machine.alive().all(|name| alive.contains(name)))
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
        while let Some(Reverse((at, _, place))) =
            self.queue.peek().copied().filter(|Reverse((at, ..))| *at <= end)
        {
            self.queue.pop();
            let Some(happens) = self.events[place].take() else { continue };
            self.free.push(place);
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

    fn deliver(&mut self, to: usize, from: SocketAddr, message: Vec<u8>) {
        let now = self.now;
        let node = &mut self.nodes[to];
        if node.paused.is_some_and(|until| until > now) {
            node.waiting.push((from, message));
            return;
        }
        let Some(machine) = &mut node.machine else { return };
        machine.handle(now, Input::Received { from, message });
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
                Output::Event(event) => {
                    if !self.terse || matches!(event, Event::Down { .. } | Event::Fenced) {
                        self.told.push(Told { at, by: index, event });
                    }
                }
            }
        }
        let deadline = machine.poll_timeout();
        for (to, message) in sends {
            self.send(index, to, message);
        }
        if let Some(deadline) = deadline {
            let deadline = deadline.max(now) + self.nodes[index].lag;
            if self.nodes[index].wake.is_none_or(|wake| wake > deadline || wake < now) {
                self.nodes[index].wake = Some(deadline);
                self.schedule_wake(index, deadline);
            }
        }
    }

    fn send(&mut self, from: usize, to: SocketAddr, message: Vec<u8>) {
        self.messages += 1;
        self.bytes += message.len() as u64 + 45 + 28; // envelope, UDP, IP
        let Some((to, there)) = index(to).filter(|(to, _)| *to < self.nodes.len()) else { return };
        let (cut, at) = if there {
            self.messages_there += 1;
            let reach = self.second.contains(&from) && self.second.contains(&to);
            (!reach || self.mute.contains(&from) || self.deaf.contains(&to), address_there(from))
        } else {
            (self.cut.contains(&(self.nodes[from].side, self.nodes[to].side)), address(from))
        };
        if cut || self.below(1_000_000) < self.network.loss_ppm {
            return;
        }
        let jitter = self.below(self.network.jitter.as_micros() as u64 + 1);
        let arrives = self.now + self.network.delay + Duration::from_micros(jitter);
        self.schedule(arrives, Happens::Deliver { to, from: at, message });
    }

    fn schedule_wake(&mut self, node: usize, at: Instant) {
        self.schedule(at, Happens::Wake { node });
    }

    fn schedule(&mut self, at: Instant, happens: Happens) {
        self.seq += 1;
        let place = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            self.events.len() - 1
        });
        self.events[place] = Some(happens);
        self.queue.push(Reverse((at, self.seq, place)));
    }
}

pub fn name(node: usize) -> String {
    format!("node-{node}")
}

pub fn address(node: usize) -> SocketAddr {
    in_net(0, node)
}

pub fn address_there(node: usize) -> SocketAddr {
    in_net(1, node)
}

fn in_net(net: u32, node: usize) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::from(0x0a00_0001 + (net << 16) + node as u32).into(), 7946)
}

/// Whose address it is, and whether it is that on the second segment.
fn index(address: SocketAddr) -> Option<(usize, bool)> {
    let IpAddr::V4(ip) = address.ip() else { return None };
    let [10, net @ (0 | 1), ..] = ip.octets() else { return None };
    let number = (u32::from(ip) & 0xffff).checked_sub(1)?;
    Some((number as usize, net == 1))
}
