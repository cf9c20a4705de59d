//! Every transition of a BGP peer's machine: `tests/golden/bgp_peer/*.txt`. A line is `state | event`, then the state that
//! follows and all that is said and done. Write the first two, run, and paste what the failure prints once you agree with it.
//!
//! Events carry the numbers of RFC 4271 section 8.1. The peer is 192.0.2.2, AS 64501, identifier 10.0.0.2; we are 10.0.0.1, AS
//! 64500. `ours1` is our first connection, `theirs1` the peer's. A state is reached over `ours1` unless it says otherwise.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed expectation is a failed test

mod golden;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use patina_crds::config::PeerAsn;
use patina_crds::net::Family;
use patina_speaker_core::bgp::message::{
    Capabilities, Ends, GracefulRestart, Message, Notification, Open, ReceivedUpdate, Update,
};
use patina_speaker_core::bgp::peer::fsm::{Fsm, Happening};
use patina_speaker_core::bgp::peer::{Bfd, Event, Link, Output, Settings, Side, State, Stop, Why};
use patina_speaker_core::bgp::rib::{Table, Wanted};
use patina_speaker_core::intent::routes::Prefix;

const OURS: Link = Link { side: Side::Ours, number: 1 };
const THEIRS: Link = Link { side: Side::Theirs, number: 1 };
const AGAIN: Link = Link { side: Side::Theirs, number: 2 };

#[test]
fn every_transition() {
    golden::run("bgp_peer", "txt", |text| {
        let mut actual = String::new();
        let mut settings = settings();
        for line in text.lines() {
            if let Some(words) = line.strip_prefix("set ") {
                set(&mut settings, words);
            }
            if line.is_empty() || line.starts_with('#') || line.starts_with("set ") {
                actual.push_str(line);
            } else {
                let mut columns = line.split('|').map(str::trim);
                let (state, event) = (columns.next().unwrap(), columns.next().expect("state | event"));
                let mut run = Run::new(settings.clone());
                run.reach(state);
                run.said();
                run.event(event);
                let said = run.said();
                actual
                    .push_str(format!("{state:<19} | {event:<29} | {:<15} | {said}", run.state()).trim_end());
            }
            actual.push('\n');
        }
        (text.to_owned(), actual)
    });
}

/// Nobody forgets an event, or a state.
#[test]
fn the_table_has_every_event_in_every_state() {
    let text = include_str!("golden/bgp_peer/transitions.txt");
    let rows: Vec<(&str, &str)> = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty() && !line.starts_with("set "))
        .map(|line| line.split_once('|').unwrap())
        .map(|(state, rest)| (state.trim(), rest.trim().split(' ').next().unwrap()))
        .collect();
    for state in ["Idle", "Held", "Connect", "Active", "OpenSent", "OpenConfirm", "Established"] {
        for event in [
            "1", "2", "9", "10", "11", "13", "16", "17", "18", "19", "21", "22", "23", "24", "25", "26",
            "27", "28", "29",
        ] {
            assert!(rows.contains(&(state, event)), "no row for event {event} in {state}");
        }
    }
}

#[test]
fn a_peer_that_asks_again_gets_everything_again_between_two_marks_and_not_before_the_first_time_is_over() {
    let mut run = Run::new(settings());
    run.reach("OpenConfirm");
    run.want(3);
    run.said();
    run.message(OURS, Message::Keepalive);
    run.event("ROUTE-REFRESH");
    run.event("ROUTE-REFRESH");
    let first = "up, ours1 < 3 routes, ours1 < End-of-RIB IPv4";
    let again = "ours1 < ROUTE-REFRESH 1, ours1 < 3 routes, ours1 < ROUTE-REFRESH 2";
    assert_eq!(run.said(), format!("{first}, {again}"));
    run.event("ROUTE-REFRESH");
    assert_eq!(run.said(), again);
    // It asks while it is answered: once more, after that, and not more often than that.
    run.event("ROUTE-REFRESH");
    let mut said = vec![run.fsm.poll_message(run.now, OURS).map(|message| words(&message)).unwrap()];
    for _ in 0..5 {
        run.event("ROUTE-REFRESH");
    }
    said.push(run.said());
    let (rest, whole) = (again.replace("ours1 < ROUTE-REFRESH 1, ", ""), again);
    assert_eq!(said, ["ROUTE-REFRESH 1".to_owned(), format!("{rest}, {whole}")]);
}

#[test]
fn that_we_have_restarted_is_said_until_the_peer_has_heard_everything_once() {
    let mut settings = settings();
    set(&mut settings, "graceful restart, restarted");
    let mut run = Run::new(settings);
    let mut link = OURS;
    let mut opens = Vec::new();
    run.handle(Happening::Start);
    for told in [false, false, true, true] {
        run.handle(Happening::Connected(link, ends()));
        opens.push(run.said());
        run.message(link, Message::Open(run.open()));
        run.message(link, Message::Keepalive);
        if told {
            while run.fsm.poll_message(run.now, link).is_some() {}
        }
        run.handle(Happening::Lost(link, "reset".into()));
        run.now = run.fsm.poll_timeout().unwrap();
        run.fsm.handle_timeout(run.now);
        link.number += 1;
    }
    let flags: Vec<char> = opens.iter().map(|said| said.chars().last().unwrap()).collect();
    assert_eq!(flags, ['1', '1', '1', '0'], "{opens:?}");
}

#[test]
fn no_route_and_no_end_of_routes_goes_out_before_it_is_known_what_is_wanted() {
    let mut run = Run { fsm: Fsm::new(settings()), ..Run::new(settings()) };
    run.reach("OpenConfirm");
    run.said();
    run.message(OURS, Message::Keepalive);
    assert_eq!(run.said(), "up");
    run.want(2);
    assert_eq!(run.said(), "ours1 < 2 routes, ours1 < End-of-RIB IPv4");
}

#[test]
fn jitter_and_back_off_stay_in_their_bounds() {
    for seed in 0..50 {
        let mut run = Run::new(Settings { seed, ..settings() });
        run.handle(Happening::Start);
        let mut link = OURS;
        for pause in [4, 8, 16, 32, 64, 120, 120] {
            run.handle(Happening::Lost(link, "refused".into()));
            let waits = run.fsm.poll_timeout().unwrap() - run.now;
            let most = Duration::from_secs(pause);
            assert!(waits <= most && waits >= most * 3 / 4, "seed {seed}: {waits:?} of {most:?}");
            run.now += waits;
            run.fsm.handle_timeout(run.now);
            link.number += 1;
        }
    }
}

fn settings() -> Settings {
    Settings {
        asn: 64500,
        peer_asn: PeerAsn::Number(64501),
        router_id: Ipv4Addr::new(10, 0, 0, 1),
        hold_time: Duration::from_secs(90),
        keepalive_time: None,
        connect_retry_time: Duration::from_secs(4),
        connect_retry_max: Duration::from_secs(120),
        families: vec![Family::V4],
        extended_next_hop: false,
        graceful_restart: None,
        restarted: false,
        bfd: true,
        bfd_strict: false,
        passive: false,
        max_prefixes: 2,
        seed: 1,
    }
}

fn set(settings: &mut Settings, words: &str) {
    *settings = self::settings();
    for word in words.split(", ") {
        match word {
            "defaults" => {}
            "passive" => settings.passive = true,
            "graceful restart" => settings.graceful_restart = Some(120),
            "restarted" => settings.restarted = true,
            "bfd strict" => settings.bfd_strict = true,
            "hold 0" => settings.hold_time = Duration::ZERO,
            "larger identifier" => settings.router_id = Ipv4Addr::new(10, 0, 0, 3),
            "equal identifier" => settings.router_id = Ipv4Addr::new(10, 0, 0, 2),
            "equal identifier and larger AS" => {
                settings.router_id = Ipv4Addr::new(10, 0, 0, 2);
                settings.asn = 64502;
            }
            "internal" => {
                settings.asn = 64501;
                settings.peer_asn = PeerAsn::Internal;
            }
            "external" => settings.peer_asn = PeerAsn::External,
            "IPv6 only" => settings.families = vec![Family::V6],
            other => panic!("no setting {other}"),
        }
    }
}

fn ends() -> Ends {
    Ends {
        local: "192.0.2.1".parse().unwrap(),
        link_local: None,
        other_family: None,
        remote: "192.0.2.2".parse().unwrap(),
    }
}

fn open() -> Open {
    Open {
        asn: 64501,
        hold_time: 90,
        router_id: Ipv4Addr::new(10, 0, 0, 2),
        capabilities: Capabilities {
            families: BTreeSet::from([Family::V4]),
            four_octet_asn: true,
            route_refresh: true,
            enhanced_route_refresh: true,
            ..Capabilities::default()
        },
    }
}

struct Run {
    now: Instant,
    fsm: Fsm,
    graceful: bool,
}

impl Run {
    fn new(settings: Settings) -> Self {
        #[allow(clippy::disallowed_methods)] // any instant will do as the origin of a virtual clock
        let now = Instant::now();
        let graceful = settings.graceful_restart.is_some();
        let mut run = Self { now, fsm: Fsm::new(settings), graceful };
        run.handle(Happening::Want(Table::default()));
        run
    }

    fn handle(&mut self, happening: Happening) {
        self.fsm.handle(self.now, happening);
    }

    fn message(&mut self, link: Link, message: Message) {
        self.handle(Happening::Message(link, message));
    }

    fn want(&mut self, count: u8) {
        let wanted = std::sync::Arc::new(Wanted::default());
        let route = |n| (Prefix::containing(Ipv4Addr::new(203, 0, 113, n).into(), 32), wanted.clone());
        self.handle(Happening::Want((0..count).map(route).collect()));
    }

    fn open(&self) -> Open {
        let mut open = open();
        if self.graceful {
            open.capabilities.graceful_restart = Some(GracefulRestart {
                notification: true,
                restart_time: 120,
                families: vec![(Family::V4, true)],
                ..GracefulRestart::default()
            });
        }
        open
    }

    fn reach(&mut self, state: &str) {
        let (state, over) = match state.split_once(' ') {
            Some((state, over)) => (state, over),
            None => (state, "ours1"),
        };
        let link = match over {
            "ours1" => OURS,
            "theirs1" => THEIRS,
            "bfd-up" => {
                self.handle(Happening::Bfd(Bfd::Up));
                OURS
            }
            other => panic!("no link {other}"),
        };
        if state == "Idle" {
            return;
        }
        self.handle(Happening::Start);
        match state {
            "Connect" => return,
            "Held" => {
                self.handle(Happening::Connected(OURS, ends()));
                return self.message(OURS, Message::Keepalive);
            }
            "Active" => {
                if self.fsm.state() != State::Active {
                    self.handle(Happening::Lost(OURS, "refused".into()));
                }
                return;
            }
            _ => self.handle(Happening::Connected(link, ends())),
        }
        if state == "OpenSent" {
            return;
        }
        self.message(link, Message::Open(self.open()));
        if state == "OpenConfirm" {
            return;
        }
        self.message(link, Message::Keepalive);
        assert_eq!(state, "Established");
    }

    /// On the link that the state was reached over.
    fn event(&mut self, event: &str) {
        let link = if self.fsm.listens(THEIRS) { THEIRS } else { OURS };
        let event = match event.split_once(" on ") {
            Some((event, "the other")) => return self.other(event, link),
            _ => event,
        };
        let notification = |code, subcode| Notification { code, subcode, data: Vec::new() };
        let bad = |change: fn(&mut Open)| {
            let mut open = self.open();
            change(&mut open);
            Message::Open(open)
        };
        let update = |announced: &[&str]| {
            let prefix =
                |ip: &&str| patina_speaker_core::intent::routes::Prefix::containing(ip.parse().unwrap(), 24);
            let announced = announced.iter().map(prefix).collect();
            Message::Received(ReceivedUpdate { announced, ..ReceivedUpdate::default() })
        };
        match event {
            "1 ManualStart" => self.handle(Happening::Start),
            "2 ManualStop" => self.handle(Happening::Stop(Stop::Shutdown("bye".into()))),
            "2 stop to restart" => self.handle(Happening::Stop(Stop::Restart)),
            "2 stop, peer deconfigured" => self.handle(Happening::Stop(Stop::Deconfigured)),
            "2 stop, changed" => self.handle(Happening::Stop(Stop::Changed)),
            // A timer that does not run does not expire: nothing may happen then.
            "9 ConnectRetryTimer_Expires" => self.expire("retry"),
            "10 HoldTimer_Expires" => self.expire("hold"),
            "11 KeepaliveTimer_Expires" => self.expire("keepalive"),
            "13 IdleHoldTimer_Expires" => self.expire("idle"),
            "29 SendHoldTimer_Expires" => self.expire("send"),
            "16 Tcp_CR_Acked" => self.handle(Happening::Connected(OURS, ends())),
            "17 TcpConnectionConfirmed" => self.handle(Happening::Connected(AGAIN, ends())),
            "18 TcpConnectionFails" => self.handle(Happening::Lost(link, "reset".into())),
            "19 BGPOpen" => self.message(link, Message::Open(self.open())),
            "19 BGPOpen, hold 0" => self.message(link, bad(|open| open.hold_time = 0)),
            "19 BGPOpen, hold 3" => self.message(link, bad(|open| open.hold_time = 3)),
            "19 BGPOpen, no families" => self.message(link, bad(|open| open.capabilities.families.clear())),
            "21 BGPHeaderErr" => self.handle(Happening::Malformed(link, notification(1, 2))),
            "22 BGPOpenMsgErr, AS" => self.message(link, bad(|open| open.asn = 64999)),
            "22 BGPOpenMsgErr, AS ours" => self.message(link, bad(|open| open.asn = 64500)),
            "22 BGPOpenMsgErr, AS 0" => self.message(link, bad(|open| open.asn = 0)),
            "22 BGPOpenMsgErr, hold 2" => self.message(link, bad(|open| open.hold_time = 2)),
            "22 BGPOpenMsgErr, our id" => {
                let mut open = self.open();
                open.router_id = Ipv4Addr::new(10, 0, 0, 1);
                self.message(link, Message::Open(open));
            }
            "22 BGPOpenMsgErr, id 0" => {
                self.message(link, bad(|open| open.router_id = Ipv4Addr::UNSPECIFIED))
            }
            "22 BGPOpenMsgErr, families" => {
                self.message(link, bad(|open| open.capabilities.families = BTreeSet::from([Family::V6])));
            }
            // The other connection wins.
            "23 OpenCollisionDump" => {
                self.handle(Happening::Connected(AGAIN, ends()));
                self.message(AGAIN, Message::Open(self.open()));
            }
            "24 NotifMsgVerErr" => self.message(link, Message::Notification(notification(2, 1))),
            "25 NotifMsg" => self.message(link, Message::Notification(notification(6, 4))),
            "25 NotifMsg, bad AS" => self.message(link, Message::Notification(notification(2, 2))),
            "26 KeepAliveMsg" => self.message(link, Message::Keepalive),
            "27 UpdateMsg" => self.message(link, update(&["198.51.100.0"])),
            "27 UpdateMsg, too much" => {
                self.message(link, update(&["198.51.100.0", "198.51.101.0", "198.51.102.0"]));
            }
            "28 UpdateMsgErr" => self.handle(Happening::Malformed(link, notification(3, 1))),
            "ROUTE-REFRESH" => {
                self.message(link, Message::RouteRefresh { family: Some(Family::V4), subtype: 0 });
            }
            "ROUTE-REFRESH, unknown" => {
                self.message(link, Message::RouteRefresh { family: None, subtype: 0 })
            }
            "ROUTE-REFRESH, BoRR" => {
                self.message(link, Message::RouteRefresh { family: Some(Family::V4), subtype: 1 });
            }
            "BFD Up" => self.handle(Happening::Bfd(Bfd::Up)),
            "BFD Down" => self.handle(Happening::Bfd(Bfd::Down)),
            "BFD AdminDown" => self.handle(Happening::Bfd(Bfd::AdminDown)),
            "BFD Up after the KEEPALIVE" => {
                self.message(link, Message::Keepalive);
                assert_eq!(self.fsm.state(), State::OpenConfirm);
                self.handle(Happening::Bfd(Bfd::Up));
            }
            other => panic!("no event {other}"),
        }
    }

    /// A second connection, or one that was there at the same time.
    fn other(&mut self, event: &str, link: Link) {
        match event {
            "19 BGPOpen" => {
                self.handle(Happening::Connected(AGAIN, ends()));
                self.said();
                self.message(AGAIN, Message::Open(self.open()));
            }
            "19 BGPOpen, later" => {
                self.now += Duration::from_secs(1);
                self.handle(Happening::Connected(AGAIN, ends()));
                self.said();
                self.message(AGAIN, Message::Open(self.open()));
            }
            "18 TcpConnectionFails" => {
                self.handle(Happening::Connected(AGAIN, ends()));
                self.said();
                self.handle(Happening::Lost(AGAIN, "reset".into()));
            }
            "22 BGPOpenMsgErr, AS" => {
                self.handle(Happening::Connected(AGAIN, ends()));
                self.said();
                self.message(AGAIN, Message::Open(Open { asn: 64999, ..self.open() }));
            }
            other => panic!("no event {other} for another link than {link:?}"),
        }
    }

    /// Passes the time in which this timer, if it runs, and no longer one expires.
    fn expire(&mut self, timer: &str) {
        let wait = match (timer, self.fsm.state()) {
            ("retry", State::Connect) => Duration::from_secs(10),
            ("retry", State::Active) | ("idle", State::Idle) => Duration::from_secs(4),
            ("hold", State::OpenSent) => Duration::from_secs(240),
            ("hold", State::OpenConfirm | State::Established) => Duration::from_secs(90),
            ("keepalive", State::OpenConfirm | State::Established) => Duration::from_secs(30),
            ("send", State::Established) => return self.stall(),
            _ => return,
        };
        self.now += wait;
        self.fsm.handle_timeout(self.now);
    }

    /// The peer sends and does not read: 8 minutes after the first octet that stays.
    fn stall(&mut self) {
        let link = if self.fsm.listens(THEIRS) { THEIRS } else { OURS };
        while self.fsm.poll_message(self.now, link).is_some() {}
        for _ in 0..16 {
            self.now += Duration::from_secs(30);
            self.message(link, Message::Keepalive);
            self.fsm.handle_timeout(self.now);
        }
    }

    fn state(&self) -> String {
        let timer = self.fsm.poll_timeout().is_some();
        match self.fsm.state() {
            State::Idle if timer => "Held".to_owned(),
            state => format!("{state:?}"),
        }
    }

    /// All that was said and done since.
    fn said(&mut self) -> String {
        let mut said = Vec::new();
        while let Some(output) = self.fsm.poll_output() {
            match output {
                Output::Connect(link) => said.push(format!("connect {}", name(link))),
                Output::Close(link) => {
                    self.messages(link, &mut said);
                    said.push(format!("close {}", name(link)));
                }
                Output::Event(Event::Up(_)) => said.push("up".to_owned()),
                Output::Event(Event::Down(why)) => said.push(format!("down: {}", reason(&why))),
                Output::Event(Event::Counted(..) | Event::State(_)) => {}
                Output::Event(event) => said.push(format!("{event:?}")),
            }
        }
        let ours = (1..5).map(|number| Link { number, ..OURS });
        for link in ours.chain([THEIRS, AGAIN]) {
            self.messages(link, &mut said);
        }
        while self.fsm.poll_output().is_some() {}
        said.join(", ")
    }

    fn messages(&mut self, link: Link, said: &mut Vec<String>) {
        while let Some(message) = self.fsm.poll_message(self.now, link) {
            said.push(format!("{} < {}", name(link), words(&message)));
        }
    }
}

fn name(link: Link) -> String {
    format!("{}{}", if link.side == Side::Ours { "ours" } else { "theirs" }, link.number)
}

fn reason(why: &Why) -> String {
    match why {
        Why::Sent(n) => format!("sent {}/{}", n.code, n.subcode),
        Why::Received(n) => format!("received {}/{}", n.code, n.subcode),
        other => format!("{other:?}"),
    }
}

fn words(message: &Message) -> String {
    match message {
        Message::Open(open) => {
            let restart = open.capabilities.graceful_restart.as_ref();
            let flags =
                restart.map(|r| format!(" restart-time {} R {}", r.restart_time, u8::from(r.restarting)));
            format!("OPEN AS {} hold {}{}", open.asn, open.hold_time, flags.unwrap_or_default())
        }
        Message::Notification(n) if n.data.is_empty() => format!("NOTIFICATION {}/{}", n.code, n.subcode),
        Message::Notification(n) => format!("NOTIFICATION {}/{} {:?}", n.code, n.subcode, n.data),
        Message::Keepalive => "KEEPALIVE".to_owned(),
        Message::RouteRefresh { subtype, .. } => format!("ROUTE-REFRESH {subtype}"),
        Message::Update(Update::Reach { prefixes, .. }) => format!("{} routes", prefixes.len()),
        Message::Update(Update::EndOfRib(family)) => format!("End-of-RIB {family}"),
        other => format!("{other:?}"),
    }
}
