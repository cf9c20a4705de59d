//! Whatever happens to a BGP peer's machine, in whatever order: what always holds. proptest prints the case and its seed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed expectation is a failed test

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use patina_crds::config::PeerAsn;
use patina_crds::net::Family;
use patina_speaker_core::bgp::message::{
    Capabilities, Ends, GracefulRestart, Message, Notification, Open, ReceivedUpdate,
};
use patina_speaker_core::bgp::peer::fsm::{Fsm, Happening};
use patina_speaker_core::bgp::peer::{Bfd, Event, Link, Output, Settings, Side, State, Stop};
use patina_speaker_core::bgp::rib::{Table, Wanted};
use patina_speaker_core::intent::routes::Prefix;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

#[derive(Clone, Debug)]
enum Step {
    Start,
    Stop(u8),
    /// The attempt that is under way succeeds.
    Answered,
    Accepted,
    /// A peer as it should be: it connects or answers, its OPEN is good, it confirms ours.
    Meet {
        answers: bool,
        graceful: bool,
        id: u8,
    },
    /// Of the links that we know of: this one.
    Lost(u8),
    Open(u8, OpenKind),
    Message(u8, Said),
    Take(u8),
    Sent(u8),
    Want(u8),
    Bfd(u8),
    Drain(bool),
    Pass(Duration),
}

#[derive(Clone, Debug)]
struct OpenKind {
    asn: u32,
    hold: u16,
    id: u8,
    graceful: bool,
    families: u8,
}

#[derive(Clone, Debug)]
enum Said {
    Keepalive,
    Update(u8),
    Refresh(u8),
    Notification(u8, u8),
    Malformed(u8, u8),
}

fn step() -> impl Strategy<Value = Step> {
    let open = (
        prop_oneof![6 => Just(64501), 1 => Just(64500), 1 => Just(0)],
        prop_oneof![4 => Just(90), 1 => 0u16..5],
        0u8..4,
        any::<bool>(),
        0u8..4,
    )
        .prop_map(|(asn, hold, id, graceful, families)| OpenKind { asn, hold, id, graceful, families });
    let said = prop_oneof![
        6 => Just(Said::Keepalive),
        2 => any::<u8>().prop_map(Said::Update),
        2 => any::<u8>().prop_map(Said::Refresh),
        1 => (1u8..9, 0u8..11).prop_map(|(code, subcode)| Said::Notification(code, subcode)),
        1 => (1u8..4, 0u8..11).prop_map(|(code, subcode)| Said::Malformed(code, subcode)),
    ];
    prop_oneof![
        2 => Just(Step::Start),
        1 => (0u8..4).prop_map(Step::Stop),
        4 => Just(Step::Answered),
        3 => Just(Step::Accepted),
        8 => (any::<bool>(), any::<bool>(), 1u8..4).prop_map(|(answers, graceful, id)| Step::Meet { answers, graceful, id }),
        1 => any::<u8>().prop_map(Step::Lost),
        6 => (any::<u8>(), open).prop_map(|(link, open)| Step::Open(link, open)),
        8 => (any::<u8>(), said).prop_map(|(link, said)| Step::Message(link, said)),
        6 => any::<u8>().prop_map(Step::Take),
        2 => any::<u8>().prop_map(Step::Sent),
        2 => any::<u8>().prop_map(Step::Want),
        2 => (0u8..3).prop_map(Step::Bfd),
        1 => any::<bool>().prop_map(Step::Drain),
        4 => (0u64..40_000).prop_map(|ms| Step::Pass(Duration::from_millis(ms))),
        1 => (0u64..400_000).prop_map(|ms| Step::Pass(Duration::from_millis(ms))),
    ]
}

fn settings() -> impl Strategy<Value = Settings> {
    (any::<[bool; 6]>(), 0u8..4, any::<u64>()).prop_map(
        |([graceful, restarted, strict, passive, both, hold], id, seed)| Settings {
            asn: 64500,
            peer_asn: PeerAsn::External,
            router_id: Ipv4Addr::new(10, 0, 0, id + 1),
            hold_time: Duration::from_secs(if hold { 90 } else { 0 }),
            keepalive_time: None,
            connect_retry_time: Duration::from_secs(2),
            connect_retry_max: Duration::from_secs(120),
            families: if both { vec![Family::V4, Family::V6] } else { vec![Family::V4] },
            extended_next_hop: both,
            graceful_restart: graceful.then_some(120),
            restarted,
            bfd: true,
            bfd_strict: strict,
            passive,
            max_prefixes: 20,
            seed,
        },
    )
}

struct World {
    now: Instant,
    fsm: Fsm,
    passive: bool,
    wanted: bool,
    dialing: Option<Link>,
    accepted: u32,
    /// As the driver sees it.
    links: BTreeSet<Link>,
    up: Option<Link>,
    sessions: usize,
}

impl World {
    fn handle(&mut self, happening: Happening) {
        self.fsm.handle(self.now, happening);
        self.outputs();
    }

    fn outputs(&mut self) {
        while let Some(output) = self.fsm.poll_output() {
            match output {
                Output::Connect(link) => {
                    assert!(self.wanted && !self.passive, "connects unwanted");
                    assert_eq!(self.dialing.replace(link), None, "two attempts at once");
                }
                Output::Close(link) => {
                    assert!(self.links.remove(&link) | (self.dialing == Some(link)), "closes {link:?} twice");
                    self.gone(link);
                    let mut last = None;
                    let mut count = 0;
                    while let Some(message) = self.fsm.poll_message(self.now, link) {
                        count += 1;
                        last = Some(message);
                    }
                    assert!(count <= 2 && last.is_none_or(|last| matches!(last, Message::Notification(_))));
                }
                Output::Event(Event::Up(with)) => {
                    assert_eq!(self.up.replace(with.link), None, "two sessions at once");
                    assert!(self.links.contains(&with.link));
                    self.sessions += 1;
                }
                Output::Event(_) => {}
            }
        }
        for link in &self.links {
            assert!(self.fsm.listens(*link), "a connection was forgotten");
        }
    }

    fn gone(&mut self, link: Link) {
        self.dialing = self.dialing.filter(|known| *known != link);
        self.up = self.up.filter(|known| *known != link);
    }

    fn check(&self) {
        let state = self.fsm.state();
        assert_eq!(state == State::Established, self.up.is_some());
        assert!(self.links.len() <= 3, "{:?}", self.links);
        let timeout = self.fsm.poll_timeout();
        if self.wanted && !self.passive {
            // Something will happen by itself.
            assert!(timeout.is_some() || state >= State::OpenConfirm, "asleep in {state:?}");
        }
        if !self.wanted {
            assert_eq!((state, timeout, self.dialing), (State::Idle, None, None));
            assert!(self.links.is_empty());
        }
    }

    /// One of the links that there are, or one that there is not.
    fn link(&self, which: u8) -> Link {
        let known: Vec<Link> = self.links.iter().copied().collect();
        let nobody = Link { side: Side::Theirs, number: u32::MAX };
        known.get(usize::from(which) % (known.len() + 1)).copied().unwrap_or(nobody)
    }

    fn answered(&mut self) -> Option<Link> {
        let link = self.dialing.take()?;
        self.links.insert(link);
        self.handle(Happening::Connected(link, ends()));
        Some(link)
    }

    fn accepted(&mut self) -> Link {
        self.accepted += 1;
        let link = Link { side: Side::Theirs, number: self.accepted };
        self.links.insert(link);
        self.handle(Happening::Connected(link, ends()));
        link
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Start => {
                self.wanted = true;
                self.handle(Happening::Start);
            }
            Step::Stop(which) => {
                self.wanted = false;
                let stop = match which {
                    0 => Stop::Restart,
                    1 => Stop::Deconfigured,
                    2 => Stop::Changed,
                    _ => Stop::Shutdown("x".repeat(300)),
                };
                self.handle(Happening::Stop(stop));
            }
            Step::Answered => {
                self.answered();
            }
            Step::Accepted => {
                self.accepted();
            }
            Step::Meet { answers, graceful, id } => {
                let answered = if answers { self.answered() } else { None };
                let link = answered.unwrap_or_else(|| self.accepted());
                let good = OpenKind { asn: 64501, hold: 90, id, graceful, families: 3 };
                self.handle(Happening::Message(link, Message::Open(open(&good))));
                self.handle(Happening::Message(link, Message::Keepalive));
            }
            Step::Lost(which) => {
                let link = match self.dialing {
                    Some(link) if which % 2 == 0 => link,
                    _ => self.link(which),
                };
                self.links.remove(&link);
                self.gone(link);
                self.handle(Happening::Lost(link, "reset".into()));
            }
            Step::Open(which, kind) => {
                let message = Message::Open(open(&kind));
                self.handle(Happening::Message(self.link(which), message));
            }
            Step::Message(which, said) => {
                let link = self.link(which);
                let notification = |code, subcode| Notification { code, subcode, data: Vec::new() };
                self.handle(match said {
                    Said::Keepalive => Happening::Message(link, Message::Keepalive),
                    Said::Update(which) => {
                        let prefix = Prefix::containing(Ipv4Addr::new(198, 51, which, 0).into(), 24);
                        let prefixes = std::iter::once(prefix).collect();
                        let update = if which.is_multiple_of(3) {
                            ReceivedUpdate { withdrawn: prefixes, ..ReceivedUpdate::default() }
                        } else {
                            ReceivedUpdate { announced: prefixes, ..ReceivedUpdate::default() }
                        };
                        Happening::Message(link, Message::Received(update))
                    }
                    Said::Refresh(which) => {
                        let family =
                            [Some(Family::V4), Some(Family::V6), None].get(usize::from(which % 3)).copied();
                        let message = Message::RouteRefresh { family: family.flatten(), subtype: which % 4 };
                        Happening::Message(link, message)
                    }
                    Said::Notification(code, subcode) => {
                        Happening::Message(link, Message::Notification(notification(code, subcode)))
                    }
                    Said::Malformed(code, subcode) => Happening::Malformed(link, notification(code, subcode)),
                });
            }
            Step::Take(which) => {
                let link = self.link(which);
                let mut count = 0;
                while self.fsm.poll_message(self.now, link).is_some() {
                    count += 1;
                    assert!(count < 100, "no end of messages");
                }
                self.outputs();
            }
            Step::Sent(which) => self.handle(Happening::Sent(self.link(which))),
            Step::Want(count) => {
                let wanted = std::sync::Arc::new(Wanted::default());
                let route = |n| (Prefix::containing(Ipv4Addr::new(203, 0, n, 0).into(), 24), wanted.clone());
                self.handle(Happening::Want((0..count).map(route).collect::<Table>()));
            }
            Step::Bfd(0) => self.handle(Happening::Bfd(Bfd::Up)),
            Step::Bfd(1) => self.handle(Happening::Bfd(Bfd::Down)),
            Step::Bfd(_) => self.handle(Happening::Bfd(Bfd::AdminDown)),
            Step::Drain(drain) => self.handle(Happening::Drain(drain)),
            Step::Pass(time) => self.pass(time),
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        let mut count = 0;
        while let Some(due) = self.fsm.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.fsm.handle_timeout(self.now);
            self.outputs();
            count += 1;
            assert!(count < 2000, "no end of deadlines");
            assert!(
                self.fsm.poll_timeout().is_none_or(|next| next > self.now),
                "a deadline that was minded stays due"
            );
        }
        self.now = end;
    }
}

fn ends() -> Ends {
    let ip = |last| Ipv4Addr::new(192, 0, 2, last).into();
    Ends { local: ip(1), link_local: None, other_family: None, remote: ip(2) }
}

fn open(kind: &OpenKind) -> Open {
    let all = [(1, Family::V4), (2, Family::V6)];
    let families: BTreeSet<Family> =
        all.into_iter().filter(|(bit, _)| kind.families & bit != 0).map(|(_, f)| f).collect();
    Open {
        asn: kind.asn,
        hold_time: kind.hold,
        router_id: Ipv4Addr::new(10, 0, 0, kind.id),
        capabilities: Capabilities {
            families,
            graceful_restart: kind.graceful.then(GracefulRestart::default),
            enhanced_route_refresh: kind.graceful,
            ..Capabilities::default()
        },
    }
}

/// Of 2000 random lives; a life that fails is shrunk and printed.
#[test]
fn whatever_happens_there_is_one_session_at_most_and_a_way_on() {
    let config = ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() };
    let lives = (settings(), prop::collection::vec(step(), 0..120));
    let sessions = std::cell::Cell::new(0);
    let run = TestRunner::new(config).run(&lives, |(settings, steps)| {
        sessions.set(sessions.get() + live(settings, steps));
        Ok(())
    });
    if let Err(failure) = run {
        panic!("{failure}");
    }
    println!("{} sessions came up", sessions.get());
    assert!(sessions.get() > 500, "{} sessions in 2000 lives: the steps lead nowhere", sessions.get());
}

/// How many sessions came up in it.
fn live(settings: Settings, steps: Vec<Step>) -> usize {
    #[allow(clippy::disallowed_methods)] // any instant will do as the origin of a virtual clock
    let now = Instant::now();
    let passive = settings.passive;
    let mut world = World {
        now,
        fsm: Fsm::new(settings),
        passive,
        wanted: false,
        dialing: None,
        accepted: 0,
        links: BTreeSet::new(),
        up: None,
        sessions: 0,
    };
    for step in steps {
        world.step(step);
        world.check();
    }
    world.step(Step::Stop(3));
    world.check();
    world.sessions
}
