//! The machine of a BGP peer, over bytes: connections that come and go in any order, a peer that is what it should be, or says
//! whatever it likes, and any pause. One session at most, no deadline that stays due, after a stop nothing, and no heap of
//! messages for who does not read.
#![no_main]

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use patina_crds::config::{Community, PeerAsn};
use patina_crds::net::Family;
use patina_fuzz::bgp;
use patina_speaker_core::bgp::codec::{Negotiated, encode};
use patina_speaker_core::bgp::message::{Capabilities, Ends, GracefulRestart, Message, Open};
use patina_speaker_core::bgp::peer::{Bfd, Event, Input, Link, Machine, Output, Settings, Side, State, Stop};
use patina_speaker_core::bgp::rib::{Table, Wanted};
use patina_speaker_core::intent::routes::Prefix;

#[derive(Arbitrary, Debug)]
struct Life {
    graceful: bool,
    restarted: bool,
    strict: bool,
    passive: bool,
    internal: bool,
    dual: bool,
    no_hold: bool,
    id: u8,
    seed: u64,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    Start,
    Stop(u8),
    Answered,
    Accepted,
    Lost(u8),
    Good(u8, Greeting),
    Keepalive(u8),
    /// The body of a message, framed.
    Message(u8, u8, Vec<u8>),
    Bytes(u8, Vec<u8>),
    Take(u8),
    Sent(u8),
    Want(u16, u8),
    Bfd(u8),
    Drain(bool),
    Pass(u32),
    /// The driver was late: only the last deadline is minded.
    Late(u32),
}

#[derive(Arbitrary, Debug)]
struct Greeting {
    hold: u8,
    id: u8,
    graceful: bool,
    extended: bool,
    wide: bool,
    families: u8,
}

struct World {
    now: Instant,
    machine: Machine,
    settings: Settings,
    wanted: bool,
    dialing: Option<Link>,
    accepted: u32,
    links: BTreeSet<Link>,
    up: Option<Link>,
}

impl World {
    fn input(&mut self, input: Input<'_>) {
        self.machine.handle(self.now, input);
        self.outputs();
    }

    fn outputs(&mut self) {
        let mut count = 0;
        while let Some(output) = self.machine.poll_output() {
            count += 1;
            assert!(count < 100_000);
            match output {
                Output::Connect(link) => {
                    assert!(self.wanted && !self.settings.passive);
                    assert_eq!(self.dialing.replace(link), None, "two attempts at once");
                }
                Output::Close(link) => {
                    assert!(self.links.remove(&link) | (self.dialing == Some(link)), "closed twice");
                    self.gone(link);
                    let mut farewell = Vec::new();
                    self.machine.poll_transmit(self.now, link, &mut farewell);
                    assert!(farewell.len() <= 2 * 4096, "OPEN and NOTIFICATION at most");
                    farewell.clear();
                    self.machine.poll_transmit(self.now, link, &mut farewell);
                    assert!(farewell.is_empty());
                }
                Output::Event(Event::Up(with)) => {
                    assert_eq!(self.up.replace(with.link), None, "two sessions at once");
                    assert!(self.links.contains(&with.link));
                }
                Output::Event(Event::Tolerated(text) | Event::Unsendable(text)) => bgp::one_line(&text),
                Output::Event(_) => {}
            }
        }
    }

    fn gone(&mut self, link: Link) {
        self.dialing = self.dialing.filter(|known| *known != link);
        self.up = self.up.filter(|known| *known != link);
    }

    fn check(&self) {
        let snapshot = self.machine.snapshot();
        assert_eq!(snapshot.state == State::Established, self.up.is_some());
        assert!(self.links.len() <= 3);
        assert!(snapshot.received.values().sum::<usize>() <= self.settings.max_prefixes);
        let timeout = self.machine.poll_timeout();
        if !self.wanted {
            assert_eq!((snapshot.state, timeout, self.dialing), (State::Idle, None, None));
            assert!(self.links.is_empty());
        } else if !self.settings.passive {
            assert!(
                timeout.is_some() || snapshot.state >= State::OpenConfirm,
                "asleep in {:?}",
                snapshot.state
            );
        }
    }

    fn link(&self, which: u8) -> Link {
        let known: Vec<Link> = self.links.iter().copied().collect();
        let nobody = Link { side: Side::Theirs, number: u32::MAX };
        let at = usize::from(which) % (known.len() * 4 + 1);
        known.get(at % known.len().max(1)).filter(|_| at < known.len() * 4).copied().unwrap_or(nobody)
    }

    fn say(&mut self, which: u8, message: &Message) {
        let mut bytes = Vec::new();
        if encode(message, &Negotiated::default(), &mut bytes).is_ok() {
            self.input(Input::Bytes(self.link(which), &bytes));
        }
    }

    fn minded(&mut self) {
        self.machine.handle_timeout(self.now);
        self.outputs();
        assert!(self.machine.poll_timeout().is_none_or(|next| next > self.now), "a deadline stays due");
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Start => {
                self.wanted = true;
                self.input(Input::Start);
            }
            Step::Stop(which) => {
                self.wanted = false;
                self.input(Input::Stop(match which % 4 {
                    0 => Stop::Restart,
                    1 => Stop::Deconfigured,
                    2 => Stop::Changed,
                    _ => Stop::Shutdown("\u{df}".repeat(which.into())),
                }));
            }
            Step::Answered => {
                if let Some(link) = self.dialing.take() {
                    self.links.insert(link);
                    self.input(Input::Connected(link, ends()));
                }
            }
            Step::Accepted => {
                self.accepted += 1;
                let link = Link { side: Side::Theirs, number: self.accepted };
                self.links.insert(link);
                self.input(Input::Connected(link, ends()));
            }
            Step::Lost(which) => {
                let link = self.dialing.filter(|_| which & 128 != 0).unwrap_or(self.link(which & 127));
                self.links.remove(&link);
                self.gone(link);
                self.input(Input::Lost(link, "reset"));
            }
            Step::Good(which, greeting) => {
                let asn = match self.settings.peer_asn {
                    PeerAsn::Number(asn) => asn,
                    _ => self.settings.asn,
                };
                self.say(which, &Message::Open(open(asn, &greeting)));
            }
            Step::Keepalive(which) => self.say(which, &Message::Keepalive),
            Step::Message(which, kind, body) => {
                if let Some(message) = bgp::message(kind % 6, &body) {
                    self.input(Input::Bytes(self.link(which), &message));
                }
            }
            Step::Bytes(which, bytes) => self.input(Input::Bytes(self.link(which), &bytes)),
            Step::Take(which) => {
                let link = self.link(which);
                let mut out = Vec::new();
                self.machine.poll_transmit(self.now, link, &mut out);
                assert!(out.len() < 64 * 1024 + 2 * 65_535, "{} octets at once", out.len());
                self.outputs();
            }
            Step::Sent(which) => self.input(Input::Sent(self.link(which))),
            Step::Want(count, community) => {
                let communities = BTreeSet::from([Community::Standard(64500, community.into())]);
                let wanted = Arc::new(Wanted { communities, local_pref: None });
                let route = |n: u16| {
                    let [high, low] = n.to_be_bytes();
                    (Prefix::containing(Ipv4Addr::new(10, 9, high, low).into(), 32), Arc::clone(&wanted))
                };
                self.input(Input::Want((0..count % 2048).map(route).collect::<Table>()));
            }
            Step::Bfd(which) => self.input(Input::Bfd(match which % 3 {
                0 => Bfd::Up,
                1 => Bfd::Down,
                _ => Bfd::AdminDown,
            })),
            Step::Drain(drain) => self.input(Input::Drain(drain)),
            Step::Pass(milliseconds) => {
                let end = self.now + Duration::from_millis(u64::from(milliseconds) % 600_000);
                let mut count = 0;
                while let Some(due) = self.machine.poll_timeout().filter(|due| *due <= end) {
                    self.now = self.now.max(due);
                    self.minded();
                    count += 1;
                    assert!(count < 2000, "no end of deadlines");
                }
                self.now = end;
            }
            Step::Late(milliseconds) => {
                self.now += Duration::from_millis(u64::from(milliseconds) % 600_000);
                self.minded();
            }
        }
        self.check();
    }
}

fn ends() -> Ends {
    let ip = |last| Ipv4Addr::new(192, 0, 2, last).into();
    Ends { local: ip(1), link_local: None, other_family: None, remote: ip(2) }
}

fn open(asn: u32, greeting: &Greeting) -> Open {
    let all = [(1, Family::V4), (2, Family::V6)];
    let families: BTreeSet<Family> =
        all.into_iter().filter(|(bit, _)| greeting.families & bit != 0).map(|(_, family)| family).collect();
    Open {
        asn,
        hold_time: greeting.hold.into(),
        router_id: Ipv4Addr::new(10, 0, 0, greeting.id % 4),
        capabilities: Capabilities {
            graceful_restart: greeting.graceful.then(|| GracefulRestart {
                notification: true,
                restart_time: 120,
                families: families.iter().map(|family| (*family, true)).collect(),
                ..GracefulRestart::default()
            }),
            families,
            four_octet_asn: greeting.wide,
            extended_message: greeting.extended,
            route_refresh: true,
            enhanced_route_refresh: greeting.extended,
            ..Capabilities::default()
        },
    }
}

fuzz_target!(|life: Life| {
    let asn = if life.internal { 64501 } else { 64500 };
    let settings = Settings {
        asn,
        peer_asn: PeerAsn::Number(64501),
        router_id: Ipv4Addr::new(10, 0, 0, life.id % 4 + 1),
        hold_time: Duration::from_secs(if life.no_hold { 0 } else { 90 }),
        keepalive_time: None,
        connect_retry_time: Duration::from_secs(2),
        connect_retry_max: Duration::from_secs(120),
        families: if life.dual { vec![Family::V4, Family::V6] } else { vec![Family::V4] },
        extended_next_hop: life.dual,
        graceful_restart: life.graceful.then_some(120),
        restarted: life.restarted,
        bfd: true,
        bfd_strict: life.strict,
        passive: life.passive,
        max_prefixes: 1000,
        seed: life.seed,
    };
    let mut world = World {
        now: Instant::now(),
        machine: Machine::new(settings.clone()),
        settings,
        wanted: false,
        dialing: None,
        accepted: 0,
        links: BTreeSet::new(),
        up: None,
    };
    for step in life.steps.into_iter().take(300) {
        world.step(step);
    }
    world.step(Step::Stop(3));
});
