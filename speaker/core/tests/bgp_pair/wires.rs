//! Two speakers, TCP between them, one virtual clock. One seed, one history.
//!
//! The driver is the one that `bgp::peer` describes: it takes what is to be sent after each input, carries out the outputs before
//! the next one, and knows nothing of BGP.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use patina_crds::config::PeerAsn;
use patina_crds::net::Family;
use patina_speaker_core::bgp::message::Ends;
use patina_speaker_core::bgp::peer::{Event, Input, Link, Machine, Output, Settings, Side, State};

/// Which of the two.
pub(crate) type Who = usize;

#[derive(Debug)]
enum Happens {
    /// The SYN arrives.
    Syn {
        from: Who,
        link: Link,
    },
    /// The SYN|ACK does.
    Accepted {
        wire: usize,
    },
    Refused {
        who: Who,
        link: Link,
    },
    Bytes {
        wire: usize,
        to: Who,
        bytes: Vec<u8>,
    },
    /// FIN or RST.
    Gone {
        wire: usize,
        to: Who,
    },
}

/// A TCP connection: what each end calls it, until that end has forgotten it.
#[derive(Debug)]
struct Wire {
    links: [Option<Link>; 2],
    /// What is on its way to each end arrives until then: nothing overtakes it.
    last: [Option<Instant>; 2],
}

struct Speaker {
    machine: Machine,
    accepted: u32,
    up: Option<Link>,
}

pub(crate) struct Wires {
    pub(crate) now: Instant,
    /// Of each direction, in both of which octets stay in order.
    pub(crate) latency: [Duration; 2],
    /// The ends have link-local addresses only.
    pub(crate) unnumbered: bool,
    /// Nothing arrives, in either direction; what was sent waits, as TCP sends it again.
    cut: bool,
    held: Vec<Happens>,
    /// These do not accept.
    pub(crate) deaf: BTreeSet<Who>,
    /// These do not read: what is sent to them stays with the sender.
    pub(crate) stalled: BTreeSet<Who>,
    pub(crate) told: Vec<(Duration, Who, Event)>,
    /// Octets that each has sent.
    pub(crate) sent: [usize; 2],
    start: Instant,
    speakers: Vec<Speaker>,
    wires: Vec<Wire>,
    queue: BTreeMap<(Instant, u64), Happens>,
    seq: u64,
}

/// Of the first (0) or the second: AS 64500 and 64501, identifiers 10.0.0.1 and 10.0.0.2, IPv4.
pub(crate) fn settings(who: Who, seed: u64) -> Settings {
    let last = u8::try_from(who).unwrap() + 1;
    Settings {
        asn: 64500 + u32::from(last) - 1,
        peer_asn: PeerAsn::External,
        router_id: Ipv4Addr::new(10, 0, 0, last),
        hold_time: Duration::from_secs(90),
        keepalive_time: None,
        connect_retry_time: Duration::from_secs(2),
        connect_retry_max: Duration::from_secs(120),
        families: vec![Family::V4],
        extended_next_hop: false,
        graceful_restart: None,
        restarted: false,
        bfd: false,
        bfd_strict: false,
        passive: false,
        max_prefixes: 1_000_000,
        seed: seed ^ u64::from(last) << 32,
    }
}

impl Wires {
    pub(crate) fn new(settings: [Settings; 2]) -> Self {
        #[allow(clippy::disallowed_methods)] // any instant will do as the origin of a virtual clock
        let start = Instant::now();
        let speaker = |settings| Speaker { machine: Machine::new(settings), accepted: 0, up: None };
        Self {
            now: start,
            latency: [Duration::from_millis(1); 2],
            unnumbered: false,
            cut: false,
            held: Vec::new(),
            deaf: BTreeSet::new(),
            stalled: BTreeSet::new(),
            told: Vec::new(),
            sent: [0; 2],
            start,
            speakers: settings.into_iter().map(speaker).collect(),
            wires: Vec::new(),
            queue: BTreeMap::new(),
            seq: 0,
        }
    }

    pub(crate) fn cut(&mut self, cut: bool) {
        self.cut = cut;
        if !cut {
            for happens in std::mem::take(&mut self.held) {
                self.push(Duration::ZERO, happens);
            }
        }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    pub(crate) fn machine(&self, who: Who) -> &Machine {
        &self.speakers[who].machine
    }

    pub(crate) fn state(&self, who: Who) -> State {
        self.machine(who).snapshot().state
    }

    /// Both, over one and the same connection.
    pub(crate) fn up(&self) -> bool {
        let one = |wire: &Wire| {
            wire.links.iter().enumerate().all(|(who, link)| link.is_some() && *link == self.speakers[who].up)
        };
        self.state(0) == State::Established
            && self.state(1) == State::Established
            && self.wires.iter().any(one)
    }

    pub(crate) fn input(&mut self, who: Who, input: Input<'_>) {
        self.speakers[who].machine.handle(self.now, input);
        self.settle(who);
    }

    /// The process ends without a word: the kernel closes its connections.
    pub(crate) fn kill(&mut self, who: Who, next: Settings) {
        for wire in 0..self.wires.len() {
            self.hang_up(wire, who);
        }
        self.speakers[who] = Speaker { machine: Machine::new(next), accepted: 1000, up: None };
    }

    /// So does the machine under it: nobody says anything.
    pub(crate) fn crash(&mut self, who: Who, next: Settings) {
        for wire in &mut self.wires {
            wire.links[who] = None;
        }
        self.speakers[who] = Speaker { machine: Machine::new(next), accepted: 1000, up: None };
    }

    /// Every connection breaks, and both hear of it.
    pub(crate) fn reset(&mut self) {
        for wire in 0..self.wires.len() {
            for who in 0..2 {
                self.push(Duration::ZERO, Happens::Gone { wire, to: who });
            }
        }
    }

    /// Until it is so, at the latest so long from now. Whether it is.
    pub(crate) fn until(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + limit;
        for _ in 0..2_000_000 {
            if done(self) {
                return true;
            }
            if !self.step(end) {
                self.now = end;
                return done(self);
            }
        }
        panic!("no end of events at {:?}", self.elapsed());
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.until(time, |_| false);
    }

    pub(crate) fn events(&self, who: Who) -> impl Iterator<Item = &Event> {
        self.told.iter().filter(move |(_, by, _)| *by == who).map(|(_, _, event)| event)
    }

    fn step(&mut self, end: Instant) -> bool {
        let next = self.queue.first_key_value().map(|(key, _)| key.0);
        let timer = |who: Who| Some((self.speakers[who].machine.poll_timeout()?, who));
        let timer = (0..2).filter_map(timer).min();
        match (next, timer) {
            // What came is read before a deadline is minded.
            (Some(at), timer) if at <= end && timer.is_none_or(|(due, _)| at <= due) => {
                self.now = self.now.max(at);
                let (_, happens) = self.queue.pop_first().unwrap();
                self.happen(happens);
            }
            (_, Some((due, who))) if due <= end => {
                self.now = self.now.max(due);
                let now = self.now;
                self.speakers[who].machine.handle_timeout(now);
                let next = self.speakers[who].machine.poll_timeout();
                assert!(next.is_none_or(|next| next > now), "a deadline that was minded stays due");
                self.settle(who);
            }
            _ => return false,
        }
        true
    }

    fn push(&mut self, delay: Duration, happens: Happens) {
        self.seq += 1;
        let mut at = self.now + delay;
        if let Happens::Bytes { wire, to, .. } | Happens::Gone { wire, to } = happens {
            let last = &mut self.wires[wire].last[to];
            at = last.map_or(at, |last| at.max(last));
            *last = Some(at);
        }
        self.queue.insert((at, self.seq), happens);
    }

    fn happen(&mut self, happens: Happens) {
        if self.cut {
            // A SYN that is not answered is an attempt that fails.
            if !matches!(happens, Happens::Syn { .. }) {
                self.held.push(happens);
            }
            return;
        }
        match happens {
            Happens::Syn { from, link } => {
                let to = 1 - from;
                if self.deaf.contains(&to) {
                    return self.push(self.latency[to], Happens::Refused { who: from, link });
                }
                self.speakers[to].accepted += 1;
                let theirs = Link { side: Side::Theirs, number: self.speakers[to].accepted };
                let mut links = [None; 2];
                links[from] = Some(link);
                links[to] = Some(theirs);
                self.wires.push(Wire { links, last: [None; 2] });
                self.push(self.latency[to], Happens::Accepted { wire: self.wires.len() - 1 });
                let ends = self.ends(to);
                self.input(to, Input::Connected(theirs, ends));
            }
            Happens::Accepted { wire } => {
                let ours = |(who, link): (usize, &Option<Link>)| {
                    Some((who, (*link).filter(|l| l.side == Side::Ours)?))
                };
                let found = self.wires[wire].links.iter().enumerate().find_map(ours);
                if let Some((who, link)) = found {
                    let ends = self.ends(who);
                    self.input(who, Input::Connected(link, ends));
                }
            }
            Happens::Refused { who, link } => self.input(who, Input::Lost(link, "connection refused")),
            Happens::Bytes { wire, to, bytes } => match self.wires[wire].links[to] {
                Some(link) => self.input(to, Input::Bytes(link, &bytes)),
                // Nobody is there any more.
                None => self.push(self.latency[to], Happens::Gone { wire, to: 1 - to }),
            },
            Happens::Gone { wire, to } => {
                if let Some(link) = self.wires[wire].links[to].take() {
                    self.input(to, Input::Lost(link, "connection reset by peer"));
                }
            }
        }
    }

    /// Carries out what a machine wants.
    fn settle(&mut self, who: Who) {
        let now = self.now;
        loop {
            for wire in 0..self.wires.len() {
                if let Some(link) = self.wires[wire].links[who] {
                    self.transmit(who, wire, link);
                }
            }
            let mut outputs = VecDeque::new();
            while let Some(output) = self.speakers[who].machine.poll_output() {
                outputs.push_back(output);
            }
            let done = outputs.is_empty();
            for output in outputs {
                match output {
                    Output::Connect(link) => self.push(self.latency[who], Happens::Syn { from: who, link }),
                    Output::Close(link) => {
                        if let Some(wire) = self.wire(who, link) {
                            self.transmit(who, wire, link);
                            self.hang_up(wire, who);
                        }
                    }
                    Output::Event(event) => {
                        match &event {
                            Event::Up(up) => self.speakers[who].up = Some(up.link),
                            Event::Down(_) if self.state(who) != State::Established => {
                                self.speakers[who].up = None
                            }
                            _ => {}
                        }
                        self.told.push((now - self.start, who, event));
                    }
                }
            }
            if done {
                return;
            }
        }
    }

    fn transmit(&mut self, who: Who, wire: usize, link: Link) {
        if self.stalled.contains(&(1 - who)) {
            return;
        }
        loop {
            let mut bytes = Vec::new();
            self.speakers[who].machine.poll_transmit(self.now, link, &mut bytes);
            if bytes.is_empty() {
                return;
            }
            assert!(bytes.len() <= 128 * 1024, "{} octets at a time", bytes.len());
            self.sent[who] += bytes.len();
            self.push(self.latency[who], Happens::Bytes { wire, to: 1 - who, bytes });
            self.speakers[who].machine.handle(self.now, Input::Sent(link));
        }
    }

    fn ends(&self, who: Who) -> Ends {
        let address = |who| address(who, self.unnumbered);
        Ends { local: address(who), link_local: None, other_family: None, remote: address(1 - who) }
    }

    fn wire(&self, who: Who, link: Link) -> Option<usize> {
        self.wires.iter().position(|wire| wire.links[who] == Some(link))
    }

    fn hang_up(&mut self, wire: usize, who: Who) {
        if self.wires[wire].links[who].take().is_some() {
            self.push(self.latency[who], Happens::Gone { wire, to: 1 - who });
        }
    }
}

/// 192.0.2.1 and 192.0.2.2, or fe80::1 and fe80::2.
fn address(who: Who, unnumbered: bool) -> IpAddr {
    let last = u8::try_from(who).unwrap() + 1;
    if unnumbered {
        IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, last.into()))
    } else {
        IpAddr::V4(Ipv4Addr::new(192, 0, 2, last))
    }
}
