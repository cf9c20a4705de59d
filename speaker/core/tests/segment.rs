//! A segment of several speakers and a client under a virtual clock, with frames lost and membership news late: nodes
//! die and come back, and whenever the news is in everywhere, exactly one node answers for each address.
//!
//! Everything random comes from the seed that a failure names; `run(SEED)` repeats it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed expectation is a failed test

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use patina_crds::config::{Config, L2Advertisement, ObjectRef, Pool, ServiceAllocation};
use patina_crds::net::Family;
use patina_speaker_core::intent::{L2Announcement, intent};
use patina_speaker_core::l2::announcer::{Announcer, Input, Output, Settings};
use patina_speaker_core::l2::duty::{Duties, Duty, Mode};
use patina_speaker_core::l2::responder::Responder;
use patina_speaker_core::l2::wire::arp::{Arp, Operation};
use patina_speaker_core::l2::wire::ndp::{Envelope, Message, Solicitation, group_mac, solicited_node};
use patina_speaker_core::l2::wire::{BROADCAST, Mac};
use patina_speaker_core::view::{
    EndpointView, InterfaceView, NodeView, Options, ServiceFacts, ServiceId, ServiceView, Snapshot,
};

const CLIENT: Mac = [2, 0, 0, 0, 1, 0];
const INTERFACE: u32 = 2;
/// Frames lost, in percent, per receiver.
const LOSS: u64 = 5;

#[test]
fn after_every_change_exactly_one_node_answers() {
    for seed in 1..=60 {
        run(seed);
    }
}

fn run(seed: u64) {
    let mut segment = Segment::new(seed);
    segment.settle();
    segment.check("at the start");
    for round in 0..6 {
        let node = segment.random.below(segment.nodes.len());
        if segment.nodes[node].alive {
            segment.kill(node);
            // Known to some, not to others: the order of the survivors is the same for all, so nobody answers twice.
            segment.advance(Duration::from_millis(400), true);
        } else {
            segment.revive(node);
        }
        segment.settle();
        segment.check(&format!("round {round}"));
    }
}

/// xorshift64*: enough for choices, and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from((self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % n as u64).unwrap()
    }

    fn millis(&mut self, below: usize) -> Duration {
        Duration::from_micros(self.below(below * 1000) as u64)
    }
}

struct Node {
    name: String,
    mac: Mac,
    alive: bool,
    members: BTreeSet<String>,
    announcer: Announcer,
    responder: Responder,
    /// Multicast addresses that its interface lets through.
    listens: BTreeSet<Mac>,
}

/// What happens at a time: news of the members for a node, or a frame for a node (`None`: the client).
enum Event {
    News { node: usize, members: BTreeSet<String> },
    Frame { node: Option<usize>, frame: Vec<u8> },
}

struct Segment {
    seed: u64,
    random: Random,
    start: Instant,
    now: Instant,
    lossy: bool,
    events: BTreeMap<(Instant, u64), Event>,
    /// Makes keys of `events` unique.
    sequence: u64,
    config: Config,
    services: Vec<ServiceView>,
    views: Vec<NodeView>,
    nodes: Vec<Node>,
    /// What the client believes, from answers and from announcements.
    cache: BTreeMap<IpAddr, Mac>,
    /// Who answered the client since it was cleared.
    answers: Vec<(IpAddr, Mac)>,
}

impl Segment {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let names: Vec<String> = (0..2 + random.below(6)).map(|n| format!("node-{n}")).collect();
        #[allow(clippy::disallowed_methods)] // any instant will do as the origin of a virtual clock
        let start = Instant::now();
        let mut segment = Self {
            seed,
            start,
            now: start,
            lossy: true,
            events: BTreeMap::new(),
            sequence: 0,
            config: config(),
            services: (0..1 + random.below(12)).map(|n| service(n, &names)).collect(),
            views: names.iter().map(|name| NodeView { name: name.clone(), ..NodeView::default() }).collect(),
            nodes: (0u8..).zip(&names).map(|(n, name)| Node::new(n, name)).collect(),
            cache: BTreeMap::new(),
            answers: Vec::new(),
            random,
        };
        for node in 0..segment.nodes.len() {
            segment.revive(node);
        }
        segment
    }

    fn kill(&mut self, node: usize) {
        self.nodes[node].alive = false;
        self.tell();
    }

    /// A new process: it knows nothing, and the kernel has left all groups.
    fn revive(&mut self, node: usize) {
        let n = u8::try_from(node).unwrap();
        self.nodes[node] = Node { alive: true, ..Node::new(n, &self.views[node].name.clone()) };
        let mac = self.nodes[node].mac;
        for family in [Family::V4, Family::V6] {
            let interface = Input::Interface { index: INTERFACE, family, mac };
            self.nodes[node].announcer.handle(self.now, interface);
        }
        self.tell();
    }

    /// Everybody hears who is alive, each after its own while.
    fn tell(&mut self) {
        let alive = self.nodes.iter().filter(|node| node.alive);
        let members: BTreeSet<String> = alive.map(|node| node.name.clone()).collect();
        for node in 0..self.nodes.len() {
            let delay = self.random.millis(300);
            self.at(delay, Event::News { node, members: members.clone() });
        }
    }

    fn settle(&mut self) {
        self.advance(Duration::from_secs(7), false);
    }

    fn at(&mut self, delay: Duration, event: Event) {
        self.sequence += 1;
        self.events.insert((self.now + delay, self.sequence), event);
    }

    /// Runs from event to event and deadline to deadline.
    fn advance(&mut self, duration: Duration, never_two: bool) {
        let end = self.now + duration;
        loop {
            let event = self.events.keys().next().map(|(at, _)| *at);
            let alive = self.nodes.iter().filter(|node| node.alive);
            let deadline = alive.filter_map(|node| node.announcer.poll_timeout()).min();
            let Some(next) = event.into_iter().chain(deadline).min().filter(|next| *next <= end) else {
                break;
            };
            assert!(next >= self.now, "{}: a deadline in the past", self.when());
            self.now = next;
            while let Some(entry) = self.events.first_entry().filter(|entry| entry.key().0 <= next) {
                let event = entry.remove();
                self.happen(event);
            }
            for node in 0..self.nodes.len() {
                if self.nodes[node].alive {
                    self.nodes[node].announcer.handle_timeout(next);
                    self.drain(node);
                }
            }
            for ip in self.ips().into_iter().filter(|_| never_two) {
                assert!(
                    self.announcers(ip).len() <= 1,
                    "{}: {:?} announce {ip}",
                    self.when(),
                    self.announcers(ip)
                );
            }
        }
        self.now = end;
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::News { node, members } => {
                // Late news of an older change must not undo newer ones; a membership protocol numbers them.
                let alive = self.nodes.iter().filter(|node| node.alive);
                let current: BTreeSet<String> = alive.map(|node| node.name.clone()).collect();
                if self.nodes[node].alive && members == current {
                    self.nodes[node].members = members;
                    self.decide(node);
                }
            }
            Event::Frame { node: Some(node), frame } if self.nodes[node].alive => {
                let (responder, mac) = (&self.nodes[node].responder, self.nodes[node].mac);
                if let Ok(reply) = responder.handle(&frame, INTERFACE, mac) {
                    self.send(Some(node), &reply.frame);
                }
            }
            Event::Frame { node: Some(_), .. } => {}
            Event::Frame { node: None, frame } => self.learn(&frame),
        }
    }

    /// What the shell does after each snapshot.
    fn decide(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        let interface = InterfaceView {
            name: "eth0".to_owned(),
            index: INTERFACE,
            mac: node.mac,
            up: true,
            arp: true,
            ndp: true,
            ..InterfaceView::default()
        };
        let intent = intent(&Snapshot {
            node: &node.name,
            config: &self.config,
            services: &self.services,
            nodes: &self.views,
            members: &live(&node.members),
            interfaces: &[interface],
            options: &Options::default(),
        });
        let announce = |announcement: &L2Announcement| Duty {
            interfaces: Arc::clone(&announcement.interfaces),
            mode: Mode::Announce,
            round: 0,
            defence: 0,
        };
        let leading = intent.l2.iter().filter(|(_, announcement)| announcement.leads);
        let duties: Arc<Duties> =
            Arc::new(leading.map(|(ip, announcement)| (*ip, announce(announcement))).collect());
        node.responder.set(Arc::clone(&duties));
        node.announcer.handle(self.now, Input::Duties(duties));
        self.drain(index);
    }

    fn drain(&mut self, index: usize) {
        while let Some(output) = self.nodes[index].announcer.poll_output() {
            match output {
                Output::Join(group) => assert!(self.nodes[index].listens.insert(group.mac), "joined twice"),
                Output::Leave(group) => assert!(self.nodes[index].listens.remove(&group.mac), "not joined"),
                Output::Send { frame, .. } => self.send(Some(index), &frame),
            }
        }
    }

    /// To every station whose interface lets it through, a little later.
    fn send(&mut self, from: Option<usize>, frame: &[u8]) {
        let destination: Mac = frame[..6].try_into().unwrap();
        for to in std::iter::once(None).chain((0..self.nodes.len()).map(Some)).filter(|to| *to != from) {
            let accepts = match to {
                None => destination == CLIENT || destination[0] & 1 == 1,
                Some(node) => {
                    let node = &self.nodes[node];
                    destination == BROADCAST || destination == node.mac || node.listens.contains(&destination)
                }
            };
            let lost = self.lossy && (self.random.below(100) as u64) < LOSS;
            if accepts && !lost {
                let delay = self.random.millis(2);
                self.at(delay, Event::Frame { node: to, frame: frame.to_vec() });
            }
        }
    }

    fn learn(&mut self, frame: &[u8]) {
        let (ip, mac, answer) = match (Arp::parse(frame), Message::parse(frame)) {
            (Ok(arp), _) => (
                arp.sender_ip.into(),
                arp.sender_mac,
                arp.operation == Operation::Reply && !arp.is_announcement(),
            ),
            (_, Ok(Message::Advertisement(na))) => {
                (na.target.into(), na.target_link_layer.expect("a target link-layer option"), na.solicited)
            }
            other => panic!("{}: {other:?}", self.when()),
        };
        self.cache.insert(ip, mac);
        if answer {
            self.answers.push((ip, mac));
        }
    }

    /// Exactly one node announces each address, it is the one whom the client believes, and only it answers.
    fn check(&mut self, what: &str) {
        self.lossy = false;
        self.answers.clear();
        let alive = self.nodes.iter().any(|node| node.alive);
        for ip in self.ips() {
            let announcers = self.announcers(ip);
            assert_eq!(announcers.len(), usize::from(alive), "{}, {what}: {ip}: {announcers:?}", self.when());
            if let [only] = announcers.as_slice() {
                assert_eq!(self.cache.get(&ip), Some(only), "{}, {what}: {ip}: stale", self.when());
            }
            self.send(None, &question(ip));
        }
        // Shorter than the pause between refreshes, long enough for an answer.
        self.advance(Duration::from_millis(10), true);
        let mut expected: Vec<(IpAddr, Mac)> = self
            .ips()
            .into_iter()
            .flat_map(|ip| self.announcers(ip).into_iter().map(move |mac| (ip, mac)))
            .collect();
        expected.sort_unstable();
        self.answers.sort_unstable();
        assert_eq!(self.answers, expected, "{}, {what}", self.when());
        self.lossy = true;
    }

    fn ips(&self) -> Vec<IpAddr> {
        self.services.iter().flat_map(|service| service.ingress.iter().copied()).collect()
    }

    fn announcers(&self, ip: IpAddr) -> Vec<Mac> {
        let nodes = self.nodes.iter().filter(|node| node.alive && node.responder.announces(ip, INTERFACE));
        nodes.map(|node| node.mac).collect()
    }

    fn when(&self) -> String {
        format!("seed {} at {:?}", self.seed, self.now - self.start)
    }
}

impl Node {
    fn new(n: u8, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            mac: [2, 0, 0, 0, 0, n],
            alive: false,
            members: BTreeSet::new(),
            announcer: Announcer::new(Settings::default()),
            responder: Responder::default(),
            listens: BTreeSet::new(),
        }
    }
}

fn question(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => Arp {
            destination: BROADCAST,
            source: CLIENT,
            operation: Operation::Request,
            sender_mac: CLIENT,
            sender_ip: [192, 0, 2, 254].into(),
            target_mac: [0; 6],
            target_ip: ip,
        }
        .emit(),
        IpAddr::V6(ip) => {
            let group = solicited_node(ip);
            let envelope = Envelope {
                destination_mac: group_mac(group),
                source_mac: CLIENT,
                destination: group,
                source: "2001:db8::ffff".parse().unwrap(),
            };
            Solicitation { envelope, target: ip, source_link_layer: None }.emit()
        }
    }
}

fn config() -> Config {
    let source =
        |kind: &str| ObjectRef { kind: kind.to_owned(), namespace: String::new(), name: "all".to_owned() };
    let pool = Pool {
        name: "all".to_owned(),
        source: source("IPAddressPool"),
        labels: BTreeMap::new(),
        ranges: ["192.0.2.0/24", "2001:db8::/64"].map(|range| range.parse().unwrap()).to_vec(),
        auto_assign: true,
        avoid_buggy_ips: false,
        allocation: ServiceAllocation::default(),
    };
    let advertisement = L2Advertisement {
        source: source("L2Advertisement"),
        pools: ["all".to_owned()].into(),
        node_selectors: Vec::new(),
        interfaces: BTreeSet::new(),
        service_selectors: Vec::new(),
        preferred_nodes: Vec::new(),
        failback: patina_crds::config::Failback::default(),
    };
    Config {
        pools: [("all".to_owned(), pool)].into(),
        l2_advertisements: vec![advertisement],
        ..Config::default()
    }
}

/// A dual-stack Service with endpoints on all nodes.
fn service(n: usize, nodes: &[String]) -> ServiceView {
    let ingress = [format!("192.0.2.{}", n + 1), format!("2001:db8::{:x}", n + 1)];
    let facts = ServiceFacts {
        id: ServiceId::new("default", format!("service-{n}")),
        ingress_text: ingress[0].clone(),
        ingress: ingress.iter().map(|ip| ip.parse().unwrap()).collect(),
        is_load_balancer: true,
        ..ServiceFacts::default()
    };
    let on = |node: &String| EndpointView { node: Some(node.as_str().into()), usable: true };
    ServiceView::new(facts, nodes.iter().map(on))
}

/// Speakers of which nothing is known but that they live.
fn live(names: &BTreeSet<String>) -> patina_speaker_core::view::Members {
    names.iter().map(|name| (name.clone(), patina_speaker_core::view::Member::default())).collect()
}
