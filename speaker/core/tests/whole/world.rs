//! The segment, the network that carries membership, the API server, and time.

mod happen;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use patina_crds::config::Failback;
use patina_speaker_core::l2::announcer;
use patina_speaker_core::l2::duty::Mode;
use patina_speaker_core::l2::ownership::{self, Output};
use patina_speaker_core::l2::responder::Dropped;
use patina_speaker_core::l2::wire::arp::{Arp, Operation};
use patina_speaker_core::l2::wire::ndp::{Envelope, Message, Solicitation, group_mac, solicited_node};
use patina_speaker_core::l2::wire::{BROADCAST, Mac};
use patina_speaker_core::membership;

use super::api::Api;
use super::ideal::Ideal;
use super::node::{self, INTERFACE, Liveness, Node, Process};
use super::oracle::{Oracle, Sight};
use super::random::Random;
use super::windows::{DETECTION, HEALED, HEARING, SETTLE};

const CLIENT: Mac = [2, 0, 0, 0, 1, 0];
/// Frames and datagrams lost, in percent, per receiver.
const LOSS: usize = 5;
/// A process that runs again after less than this has not missed its lease.
const LEASE: Duration = Duration::from_millis(200);
/// What a socket holds for a process that is stopped.
const BUFFER: usize = 200;

pub(crate) enum Event {
    /// For a node or, `None`, for the client.
    Frame {
        to: Option<usize>,
        epoch: u64,
        frame: Vec<u8>,
    },
    Message {
        to: usize,
        epoch: u64,
        from: SocketAddr,
        message: Vec<u8>,
    },
    Api {
        node: usize,
        epoch: u64,
        api: Arc<Api>,
    },
    Decide {
        node: usize,
        epoch: u64,
    },
    /// With an ideal membership: one learns the truth about another.
    Truth {
        viewer: usize,
        about: usize,
    },
    Join {
        node: usize,
        epoch: u64,
    },
    LetIn {
        node: usize,
        epoch: u64,
        patience: u32,
    },
    /// It has pinged the others on its segment.
    Pinged {
        node: usize,
        epoch: u64,
    },
    /// It was let in again, and decides what that means.
    Opened {
        node: usize,
        epoch: u64,
    },
    Wake {
        node: usize,
        epoch: u64,
    },
    Exit {
        node: usize,
        epoch: u64,
        patience: u32,
    },
}

/// A speaker said that it has an address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Said {
    pub(crate) at: Instant,
    pub(crate) node: usize,
    pub(crate) ip: IpAddr,
    /// Because somebody asked.
    pub(crate) answer: bool,
}

pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) random: Random,
    trace: bool,
    real: bool,
    /// Membership goes over the same link as the addresses.
    pub(crate) one_nic: bool,
    start: Instant,
    pub(crate) now: Instant,
    pub(crate) lossy: bool,
    events: BTreeMap<(Instant, u64), Event>,
    /// Makes keys of `events` unique.
    sequence: u64,
    pub(crate) api: Api,
    pub(crate) nodes: Vec<Node>,
    /// Which part of the wire, and of membership's network, each node is in. The client is in part 0.
    pub(crate) wire: Vec<u8>,
    pub(crate) net: Vec<u8>,
    /// Two who share a wire do not share membership.
    split: bool,
    /// The wire was in pieces, or two announced on one because they did not know each other, since it was last quiet.
    was_torn: bool,
    /// What the client believes, from answers and from announcements.
    cache: BTreeMap<IpAddr, Mac>,
    answers: Vec<(IpAddr, Mac)>,
    /// What the speakers said of addresses since somebody last looked.
    pub(crate) claims: Vec<Said>,
    /// Conflicts that a node has reported.
    conflicts: BTreeSet<(usize, IpAddr)>,
    pub(crate) oracle: Oracle,
    /// What the wire sees may have changed.
    changed: bool,
}

impl World {
    pub(crate) fn new(seed: u64, real: bool) -> Self {
        let mut random = Random::new(seed);
        let names: Vec<String> = (0..2 + random.below(6)).map(|n| format!("node-{n}")).collect();
        let failback = some_failback(&mut random);
        let start = Instant::now();
        Self {
            seed,
            trace: std::env::var_os("PATINA_TRACE").is_some(),
            real,
            one_nic: random.percent(60),
            start,
            now: start,
            lossy: true,
            events: BTreeMap::new(),
            sequence: 0,
            api: Api::new(&names, 1 + random.below(3), failback),
            wire: vec![0; names.len()],
            net: vec![0; names.len()],
            split: false,
            was_torn: false,
            nodes: names.iter().enumerate().map(|(index, name)| Node::new(index, name)).collect(),
            cache: BTreeMap::new(),
            answers: Vec::new(),
            claims: Vec::new(),
            conflicts: BTreeSet::new(),
            oracle: Oracle::new(start),
            changed: false,
            random,
        }
    }

    pub(crate) fn say(&self, what: impl FnOnce() -> String) {
        if self.trace {
            println!("{:>12.6} {}", (self.now - self.start).as_secs_f64(), what());
        }
    }

    pub(crate) fn fail(&self, what: &str) -> ! {
        let nodes: Vec<String> = self
            .nodes
            .iter()
            .map(|node| {
                let states: Vec<String> =
                    self.api.ips().into_iter().map(|ip| format!("{:?}", node.ownership.state(ip))).collect();
                format!(
                    "{} {:?} joined {} decided {} permits {} carrier {} link {} members {:?} {}",
                    node.name,
                    node.process,
                    node.joined(),
                    node.decided,
                    node.permits(self.now),
                    node.carrier,
                    node.link,
                    node.members().keys().collect::<Vec<_>>(),
                    states.join(" ")
                )
            })
            .collect();
        panic!("seed {} at {:?}: {what}\n{}", self.seed, self.now - self.start, nodes.join("\n"));
    }

    // What happens to processes.

    pub(crate) fn start(&mut self, n: usize) {
        let epoch = self.nodes[n].epoch + 1;
        let liveness = if self.real {
            let seed = self.random.below(1 << 30) as u64;
            let mut membership = node::membership(self.now, n, &self.nodes[n].name, epoch, seed);
            let peers = (0..self.nodes.len()).filter(|other| *other != n).map(node::address).collect();
            membership.handle(self.now, membership::Input::Peers(peers));
            Liveness::Real(Box::new(membership))
        } else {
            let joined = self.random.millis(50, 500);
            self.at(joined, Event::Join { node: n, epoch });
            Liveness::Ideal(Ideal::default())
        };
        self.nodes[n].start(self.now, epoch, liveness);
        self.conflicts.retain(|(node, _)| *node != n);
        let read = self.random.millis(20, 800);
        let api = Arc::new(self.api.clone());
        self.at(read, Event::Api { node: n, epoch, api });
        self.tell(n);
        self.moved();
    }

    pub(crate) fn kill(&mut self, n: usize) {
        self.nodes[n].process = Process::Dead;
        self.conflicts.retain(|(node, _)| *node != n);
        self.moved();
    }

    pub(crate) fn stop(&mut self, n: usize, duration: Duration) {
        self.nodes[n].process = Process::Stopped { since: self.now };
        let epoch = self.nodes[n].epoch;
        self.at(duration, Event::Wake { node: n, epoch });
        self.moved();
    }

    /// SIGTERM.
    pub(crate) fn leave(&mut self, n: usize) {
        self.nodes[n].leaving = true;
        self.nodes[n].ownership.handle(self.now, ownership::Input::Leave);
        self.tell(n);
        self.follow(n);
        let epoch = self.nodes[n].epoch;
        self.at(Duration::from_millis(10), Event::Exit { node: n, epoch, patience: 500 });
    }

    pub(crate) fn set_link(&mut self, n: usize, carrier: bool, link: bool) {
        if carrier && !self.nodes[n].carrier && self.one_nic {
            // It has forgotten the hardware addresses of the others, and asks for them once a second.
            self.nodes[n].mute_until = Some(self.now + self.random.millis(0, 1000));
        }
        (self.nodes[n].carrier, self.nodes[n].link) = (carrier, link);
        self.tell(n);
        self.dirty(n);
        self.moved();
    }

    /// The API server says something else; each speaker hears of it after its own while.
    pub(crate) fn publish(&mut self, lag: Duration) {
        self.api.version += 1;
        let api = Arc::new(self.api.clone());
        for node in 0..self.nodes.len() {
            let delay = Duration::from_micros(self.random.below(lag.as_micros() as usize) as u64);
            let epoch = self.nodes[node].epoch;
            self.at(delay, Event::Api { node, epoch, api: Arc::clone(&api) });
        }
    }

    /// Who reaches whom, or who runs, has changed.
    pub(crate) fn moved(&mut self) {
        self.changed = true;
        let split = self.is_split();
        if self.split && !split {
            self.oracle.excuse(Some(self.now + HEALED), None);
        }
        self.split = split;
        let cut = self.nodes.iter().any(|node| node.carrier && !node.link);
        self.was_torn |= split || cut || self.wire.iter().any(|part| *part != 0);
        for node in 0..self.nodes.len() {
            let (delay, epoch) = (self.random.millis(300, 1000), self.nodes[node].epoch);
            self.at(delay, Event::Pinged { node, epoch });
        }
        if self.real {
            return;
        }
        for viewer in 0..self.nodes.len() {
            for about in (0..self.nodes.len()).filter(|about| *about != viewer) {
                let delay = match self.knows(viewer, about) {
                    true => self.random.millis(5, 300),
                    false => self.random.millis(200, 430),
                };
                self.at(delay, Event::Truth { viewer, about });
            }
        }
    }

    /// What a node says of itself has changed.
    fn tell(&mut self, n: usize) {
        if matches!(self.nodes[n].liveness, Liveness::Real(_)) {
            let says = self.nodes[n].says();
            let Liveness::Real(membership) = &mut self.nodes[n].liveness else { return };
            membership.handle(self.now, membership::Input::Say(says));
            self.follow(n);
            return;
        }
        for viewer in (0..self.nodes.len()).filter(|viewer| *viewer != n) {
            let delay = if self.random.percent(LOSS) {
                self.random.millis(30, 300)
            } else {
                self.random.millis(0, 5)
            };
            self.at(delay, Event::Truth { viewer, about: n });
        }
    }

    // Who reaches whom.

    fn linked(&self, n: usize) -> bool {
        self.nodes[n].carrier && self.nodes[n].link
    }

    pub(crate) fn on_wire(&self, a: usize, b: usize) -> bool {
        self.linked(a) && self.linked(b) && self.wire[a] == self.wire[b]
    }

    fn on_net(&self, a: usize, b: usize) -> bool {
        self.net[a] == self.net[b] && (!self.one_nic || (self.linked(a) && self.linked(b)))
    }

    /// With an ideal membership: what one should know of another.
    fn knows(&self, viewer: usize, about: usize) -> bool {
        self.nodes[about].running() && self.nodes[about].joined() && self.on_net(viewer, about)
    }

    fn is_split(&self) -> bool {
        let running = |n: &usize| self.nodes[*n].running();
        let nodes: Vec<usize> = (0..self.nodes.len()).filter(running).collect();
        nodes.iter().any(|a| nodes.iter().any(|b| self.on_wire(*a, *b) && !self.on_net(*a, *b)))
    }

    /// The wire is in pieces, the membership is not: the leader may be where the client is not.
    fn torn(&self) -> bool {
        let running = |n: &usize| self.nodes[*n].running() && self.nodes[*n].carrier;
        let nodes: Vec<usize> = (0..self.nodes.len()).filter(running).collect();
        let pieces = self.wire.iter().any(|part| *part != self.wire[0]);
        let apart = |a: usize, b: usize| self.on_net(a, b) && !self.on_wire(a, b);
        (pieces && (0..self.nodes.len()).any(|a| (0..self.nodes.len()).any(|b| apart(a, b))))
            // Of two who miss each other nobody knows which one the client misses, too.
            || nodes.iter().any(|a| {
                nodes.iter().any(|b| apart(*a, *b) && self.nodes[*a].isolated == self.nodes[*b].isolated)
            })
    }

    // Time.

    fn at(&mut self, delay: Duration, event: Event) {
        self.sequence += 1;
        self.events.insert((self.now + delay, self.sequence), event);
    }

    /// Runs from event to event and deadline to deadline.
    pub(crate) fn advance(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            let event = self.events.keys().next().map(|(at, _)| *at);
            let running = self.nodes.iter().filter(|node| node.running());
            let deadline = running.filter_map(Node::poll_timeout).min();
            let Some(next) = event.into_iter().chain(deadline).min().filter(|next| *next <= end) else {
                break;
            };
            // A machine that was started, or woken, late has deadlines that have passed.
            self.now = self.now.max(next);
            while let Some(entry) = self.events.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let event = entry.remove();
                self.happen(event);
            }
            for n in 0..self.nodes.len() {
                if self.nodes[n].running() && self.nodes[n].poll_timeout().is_some_and(|at| at <= self.now) {
                    self.nodes[n].handle_timeout(self.now);
                    self.follow(n);
                }
            }
            self.look();
        }
        self.now = end;
        self.look();
    }

    /// Compares what the network sees with what may be.
    fn look(&mut self) {
        let torn = self.torn();
        if self.split || torn {
            let now = self.now;
            self.oracle.excuse(self.split.then_some(now + HEALED), torn.then_some(now + DETECTION));
        }
        let _ = std::mem::take(&mut self.changed);
        for ip in self.api.ips() {
            let sight = self.sight(ip);
            if let Some(wrong) = self.oracle.see(self.now, ip, sight) {
                self.fail(&wrong);
            }
        }
    }

    fn sight(&self, ip: IpAddr) -> Sight {
        let mut sight = Sight::default();
        let mut announcers: BTreeMap<u8, usize> = BTreeMap::new();
        for (n, node) in self.nodes.iter().enumerate() {
            if !node.able(self.now) || !node.link {
                continue;
            }
            let mode = node.mode(ip);
            if mode == Some(Mode::Announce) {
                *announcers.entry(self.wire[n]).or_default() += 1;
            }
            if self.wire[n] == 0 {
                sight.eligible |= node.decided && !node.leaving;
                sight.answered |= mode.is_some_and(Mode::answers);
            }
        }
        sight.announcers = announcers.values().copied().max().unwrap_or_default();
        sight
    }

    /// Nothing happens any more. Then exactly one speaker has each address, only it answers, and the client knows it.
    pub(crate) fn settle(&mut self, what: &str) {
        self.advance(SETTLE);
        self.lossy = false;
        self.answers.clear();
        let alive = self
            .nodes
            .iter()
            .enumerate()
            .any(|(n, node)| node.able(self.now) && self.linked(n) && node.decided && !node.leaving);
        for ip in self.api.ips() {
            let having: Vec<Mac> = self
                .nodes
                .iter()
                .filter(|node| node.able(self.now) && node.mode(ip) == Some(Mode::Announce))
                .map(|node| node.mac)
                .collect();
            if having.len() != usize::from(alive) {
                self.fail(&format!("{what}: {ip} is announced by {having:?}"));
            }
            // Whoever has it now cannot know that the client was with one that died on the other side of a cut.
            let believed = self.cache.get(&ip);
            let died =
                |mac: &Mac| self.nodes.iter().any(|node| node.mac == *mac && node.process == Process::Dead);
            let excused = self.was_torn && believed.is_none_or(died);
            if let [only] = having.as_slice()
                && believed != Some(only)
                && !excused
            {
                self.fail(&format!("{what}: the client looks for {ip} at {believed:?}, {only:?} has it"));
            }
            self.ask(ip);
        }
        // Shorter than the pause between refreshes, long enough for an answer.
        self.advance(Duration::from_millis(10));
        let answered: BTreeMap<IpAddr, Mac> = self.answers.iter().copied().collect();
        let expected = if alive { self.api.ips().len() } else { 0 };
        if answered.len() != expected || self.answers.len() != expected {
            let answers = self.answers.clone();
            self.fail(&format!("{what}: answers {answers:?}"));
        }
        if let Some((n, ip)) = self.conflicts.first() {
            self.fail(&format!(
                "{what}: node-{n} still reports a conflict over {ip}, and there is no stranger"
            ));
        }
        self.lossy = true;
        self.was_torn = false;
        self.claims.clear();
        self.oracle.quiet();
    }
}

impl World {
    /// The client asks who has an address.
    pub(crate) fn ask(&mut self, ip: IpAddr) {
        self.send(None, &question(ip));
    }
}

/// Which address a frame says that its sender has, and whether it is an answer.
fn claimed(frame: &[u8]) -> Option<(IpAddr, bool)> {
    match (Arp::parse(frame), Message::parse(frame)) {
        (Ok(arp), _) if arp.sender_ip.is_unspecified() => None,
        (Ok(arp), _) => {
            Some((arp.sender_ip.into(), arp.operation == Operation::Reply && !arp.is_announcement()))
        }
        (_, Ok(Message::Advertisement(na))) => Some((na.target.into(), na.solicited)),
        _ => None,
    }
}

pub(crate) fn some_failback(random: &mut Random) -> Failback {
    match random.below(4) {
        0 => Failback::Never,
        1 => Failback::After(random.millis(1000, 6000)),
        _ => Failback::Immediate,
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
