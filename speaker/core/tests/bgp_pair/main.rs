//! Two whole BGP speakers talk to each other, in bytes, under a virtual clock.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a failed expectation is a failed test

mod wires;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use patina_crds::config::{Community, PeerAsn};
use patina_crds::net::Family;
use patina_speaker_core::bgp::peer::{Bfd, Direction, Event, Input, MessageType, State, Stop, Why};
use patina_speaker_core::bgp::rib::{Table, Wanted};
use patina_speaker_core::intent::routes::Prefix;
use wires::{Wires, settings};

const SECOND: Duration = Duration::from_secs(1);

fn table(count: u32) -> Table {
    let wanted = Arc::new(Wanted { communities: [Community::Standard(64500, 1)].into(), local_pref: None });
    (0..count)
        .map(|n| (Prefix::containing(Ipv4Addr::from(0xcb00_0000 + n).into(), 32), Arc::clone(&wanted)))
        .collect()
}

fn started(seed: u64) -> Wires {
    let mut wires = Wires::new([settings(0, seed), settings(1, seed)]);
    for who in 0..2 {
        wires.input(who, Input::Want(Table::default()));
        wires.input(who, Input::Start);
    }
    assert!(wires.until(60 * SECOND, Wires::up), "seed {seed}: {:?}", wires.told);
    wires
}

fn received(wires: &Wires, who: usize) -> usize {
    wires.machine(who).snapshot().received.values().sum()
}

fn downs(wires: &Wires, who: usize) -> Vec<Why> {
    let down = |event: &Event| if let Event::Down(why) = event { Some(why.clone()) } else { None };
    wires.events(who).filter_map(down).collect()
}

/// In all orders: who begins first, by how much, and how long each direction takes.
#[test]
fn both_connect_at_once_and_one_connection_remains() {
    let mut slowest = Duration::ZERO;
    let mut runs = 0;
    for seed in 0..4 {
        for head_start in [0, 1, 2, 3, 5, 8, 13, 21, 40] {
            for (there, back) in [(1, 1), (1, 9), (9, 1), (10, 10), (4, 5), (0, 0)] {
                for first in 0..2 {
                    let mut wires = Wires::new([settings(0, seed), settings(1, seed)]);
                    wires.latency = [Duration::from_millis(there), Duration::from_millis(back)];
                    for who in 0..2 {
                        wires.input(who, Input::Want(table(10)));
                    }
                    wires.input(first, Input::Start);
                    wires.pass(Duration::from_millis(head_start));
                    wires.input(1 - first, Input::Start);
                    let case = format!(
                        "seed {seed}, {first} begins by {head_start} ms, {there} ms there, {back} back"
                    );
                    assert!(wires.until(30 * SECOND, Wires::up), "{case}: {:?}", wires.told);
                    slowest = slowest.max(wires.elapsed());
                    runs += 1;
                    let at = wires.told.len();
                    wires.pass(300 * SECOND);
                    assert!(wires.up(), "{case}");
                    let later: Vec<_> =
                        wires.told.iter().skip(at).filter(|t| matches!(t.2, Event::Down(_))).collect();
                    assert!(later.is_empty(), "{case}: {later:?}");
                    assert_eq!((received(&wires, 0), received(&wires, 1)), (10, 10), "{case}");
                }
            }
        }
    }
    println!("{runs} runs, the slowest took {slowest:?}");
    assert!(runs > 400 && slowest < 10 * SECOND, "{slowest:?}");
}

#[test]
fn routes_arrive_and_go_and_nothing_is_said_when_nothing_changes() {
    let mut wires = started(1);
    wires.input(0, Input::Want(table(10_000)));
    wires.pass(SECOND);
    assert_eq!(received(&wires, 1), 10_000);
    assert_eq!(wires.machine(0).snapshot().sent.values().sum::<usize>(), 10_000);
    let updates = |wires: &Wires| {
        wires.events(0).filter(|e| **e == Event::Counted(Direction::Out, MessageType::Update)).count()
    };
    let before = updates(&wires);
    wires.input(0, Input::Want(table(10_000)));
    wires.pass(SECOND);
    assert_eq!(updates(&wires), before);
    wires.input(0, Input::Want(table(9_999)));
    wires.pass(SECOND);
    assert_eq!((received(&wires, 1), updates(&wires)), (9_999, before + 1));
    assert!(wires.events(0).any(|event| *event == Event::InitialDone(Family::V4)));
}

#[test]
fn a_session_that_says_nothing_new_lasts() {
    let mut wires = started(2);
    wires.pass(3600 * SECOND);
    assert!(wires.up());
    let keepalives =
        wires.events(0).filter(|e| **e == Event::Counted(Direction::In, MessageType::Keepalive)).count();
    // Every 22.5 to 30 s.
    assert!((119..=162).contains(&keepalives), "{keepalives} in an hour");
}

#[test]
fn a_silent_loss_is_known_after_the_hold_time_and_mended() {
    for seed in 0..20 {
        let mut wires = started(seed);
        wires.input(1, Input::Want(table(7)));
        wires.pass(10 * SECOND);
        wires.cut(true);
        let since = wires.elapsed();
        assert!(wires.until(100 * SECOND, |w| w.state(0) != State::Established), "seed {seed}");
        let took = wires.elapsed() - since;
        assert!(took >= 60 * SECOND && took <= 90 * SECOND, "seed {seed}: {took:?}");
        assert!(matches!(downs(&wires, 0).last(), Some(Why::Sent(n)) if n.code == 4), "seed {seed}");
        wires.pass(100 * SECOND);
        wires.cut(false);
        assert!(wires.until(130 * SECOND, Wires::up), "seed {seed}: {:?}", wires.told);
        wires.pass(SECOND);
        assert_eq!(received(&wires, 0), 7, "seed {seed}");
    }
}

#[test]
fn a_reset_is_mended_within_seconds() {
    for seed in 0..20 {
        let mut wires = started(seed);
        for _ in 0..3 {
            wires.pass(100 * SECOND);
            wires.reset();
            wires.pass(Duration::from_millis(10));
            assert!(!wires.up());
            let since = wires.elapsed();
            assert!(wires.until(30 * SECOND, Wires::up), "seed {seed}: {:?}", wires.told);
            let took = wires.elapsed() - since;
            assert!(took < 10 * SECOND, "seed {seed}: {took:?}");
        }
    }
}

#[test]
fn a_peer_that_refuses_is_asked_less_and_less_often() {
    let mut wires = Wires::new([settings(0, 5), settings(1, 5)]);
    wires.deaf.insert(1);
    wires.input(0, Input::Start);
    wires.pass(3600 * SECOND);
    let attempts: Vec<Duration> =
        wires.told.iter().filter(|t| matches!(t.2, Event::Down(_))).map(|t| t.0).collect();
    let pauses: Vec<Duration> = attempts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses.iter().all(|pause| *pause <= 121 * SECOND), "{pauses:?}");
    assert!(pauses.iter().rev().take(20).all(|pause| *pause >= 90 * SECOND), "{pauses:?}");
    assert!(pauses[0] <= 3 * SECOND);
    // The peer comes to us: no waiting.
    wires.input(1, Input::Start);
    assert!(wires.until(SECOND, Wires::up), "{:?}", wires.told.last());
}

#[test]
fn a_restarted_speaker_is_taken_back_at_once_with_graceful_restart() {
    let graceful = |who, seed| {
        let mut settings = settings(who, seed);
        settings.graceful_restart = Some(120);
        settings
    };
    for seed in 0..20 {
        let mut wires = Wires::new([graceful(0, seed), graceful(1, seed)]);
        for who in 0..2 {
            wires.input(who, Input::Want(table(3)));
            wires.input(who, Input::Start);
        }
        assert!(wires.until(60 * SECOND, Wires::up), "seed {seed}");
        wires.pass(100 * SECOND);
        // Its peer knows nothing of it: no FIN came.
        wires.crash(0, patina_speaker_core::bgp::peer::Settings { restarted: true, ..graceful(0, seed + 1) });
        wires.input(0, Input::Want(table(4)));
        wires.input(0, Input::Start);
        assert!(wires.until(SECOND, |w| w.up() && received(w, 1) == 4), "seed {seed}: {:?}", wires.told);
        assert_eq!(downs(&wires, 1).last(), Some(&Why::Replaced), "seed {seed}");
    }
}

#[test]
fn a_planned_restart_says_nothing_and_a_stop_says_why() {
    let mut both = [settings(0, 3), settings(1, 3)];
    both.iter_mut().for_each(|settings| settings.graceful_restart = Some(120));
    let mut wires = Wires::new(both.clone());
    for who in 0..2 {
        wires.input(who, Input::Start);
    }
    assert!(wires.until(60 * SECOND, Wires::up));
    wires.input(0, Input::Stop(Stop::Restart));
    wires.pass(SECOND);
    assert!(matches!(downs(&wires, 1).last(), Some(Why::Connection(_))), "{:?}", downs(&wires, 1));
    assert_eq!(wires.state(0), State::Idle);
    wires.input(0, Input::Start);
    assert!(wires.until(60 * SECOND, Wires::up));
    wires.input(0, Input::Stop(Stop::Shutdown("maintenance until noon".into())));
    wires.pass(SECOND);
    let Some(Why::Received(told)) = downs(&wires, 1).last().cloned() else {
        panic!("{:?}", downs(&wires, 1))
    };
    assert_eq!((told.code, told.subcode), (6, 9), "a hard reset");
    assert_eq!(told.encapsulated().and_then(|inner| inner.text()).as_deref(), Some("maintenance until noon"));
}

#[test]
fn a_peer_that_does_not_read_costs_little_and_is_dropped_after_eight_minutes() {
    let mut wires = started(4);
    wires.stalled.insert(1);
    wires.input(0, Input::Want(table(100_000)));
    let before = wires.sent[0];
    wires.pass(60 * SECOND);
    assert_eq!(wires.sent[0], before, "nothing is made that nobody takes");
    // The peer still speaks; we cannot. It gives us up first: it hears nothing.
    assert!(wires.until(100 * SECOND, |w| w.state(1) != State::Established));
}

#[test]
fn a_drain_sends_every_route_again_and_its_end_once_more() {
    let mut wires = started(6);
    wires.input(0, Input::Want(table(500)));
    wires.pass(SECOND);
    let before = wires.sent[0];
    wires.input(0, Input::Drain(true));
    wires.pass(SECOND);
    let drained = wires.sent[0] - before;
    wires.input(0, Input::Drain(true));
    wires.pass(SECOND);
    assert_eq!(wires.sent[0] - before, drained, "said once");
    wires.input(0, Input::Drain(false));
    wires.pass(SECOND);
    assert!(drained > 500 * 5 && wires.sent[0] - before >= 2 * 500 * 5, "{drained}");
    assert!(wires.up() && received(&wires, 1) == 500);
}

#[test]
fn too_many_prefixes_end_the_session_and_it_does_not_oscillate() {
    let mut both = [settings(0, 7), settings(1, 7)];
    both[1].max_prefixes = 100;
    let mut wires = Wires::new(both);
    wires.input(0, Input::Want(table(1000)));
    for who in 0..2 {
        wires.input(who, Input::Start);
    }
    wires.pass(600 * SECOND);
    let downs = downs(&wires, 1)
        .into_iter()
        .filter(|why| matches!(why, Why::Sent(n) if (n.code, n.subcode) == (6, 1)));
    let count = downs.count();
    assert!((2..=4).contains(&count), "{count} times in ten minutes");
}

/// Whatever has happened to the two and to the wires between them: once it stops, both know what the other wants them to.
#[test]
fn after_any_trouble_both_find_each_other_again() {
    let (mut slowest, mut sessions) = (Duration::ZERO, 0);
    for seed in 0..150_u64 {
        let mut random = Random(seed);
        let graceful = random.below(2) == 0;
        let life = |who, lives: u64| {
            let mut settings = settings(who, seed.wrapping_mul(1000) + lives);
            settings.graceful_restart = graceful.then_some(120);
            settings.restarted = graceful && lives > 0;
            settings.passive = seed % 5 == 0 && who == 1;
            settings
        };
        let mut wires = Wires::new([life(0, 0), life(1, 0)]);
        let mut wanted = [0_u32; 2];
        for who in 0..2 {
            wires.input(who, Input::Want(table(0)));
            wires.input(who, Input::Start);
        }
        for step in 0..60 {
            let who = usize::try_from(random.below(2)).unwrap();
            match random.below(10) {
                0 => wires.reset(),
                1 => wires.cut(true),
                2 => wires.cut(false),
                3 => wires.latency[who] = Duration::from_millis(random.below(200)),
                4 | 5 => {
                    wanted[who] = u32::try_from(random.below(3000)).unwrap();
                    wires.input(who, Input::Want(table(wanted[who])));
                }
                6 => wires.input(who, Input::Drain(random.below(2) == 0)),
                7 => {
                    let stop =
                        if random.below(2) == 0 { Stop::Restart } else { Stop::Shutdown(String::new()) };
                    wires.input(who, Input::Stop(stop));
                    wires.pass(Duration::from_millis(random.below(3000)));
                    wires.input(who, Input::Start);
                }
                dies => {
                    if dies == 8 {
                        wires.kill(who, life(who, step))
                    } else {
                        wires.crash(who, life(who, step))
                    }
                    wires.input(who, Input::Want(table(wanted[who])));
                    wires.input(who, Input::Start);
                }
            }
            let longest = if random.below(4) == 0 { 200_000 } else { 2000 };
            wires.pass(Duration::from_millis(random.below(longest)));
        }
        wires.cut(false);
        let since = wires.elapsed();
        let same = |wires: &Wires| {
            wires.up() && (0..2).all(|who| received(wires, who) == usize::try_from(wanted[1 - who]).unwrap())
        };
        assert!(
            wires.until(400 * SECOND, same),
            "seed {seed}: {:?}",
            wires.told.iter().rev().take(30).collect::<Vec<_>>()
        );
        slowest = slowest.max(wires.elapsed() - since);
        sessions += wires.events(0).filter(|event| matches!(event, Event::Up(_))).count();
        let at = wires.told.len();
        wires.pass(600 * SECOND);
        assert!(
            same(&wires) && !wires.told[at..].iter().any(|told| matches!(told.2, Event::Down(_))),
            "seed {seed}"
        );
    }
    println!("{sessions} sessions, the slowest recovery took {slowest:?}");
}

#[test]
fn with_bfd_strict_on_both_ends_no_session_stands_without_bfd() {
    let mut both = [settings(0, 8), settings(1, 8)];
    for settings in &mut both {
        (settings.bfd, settings.bfd_strict) = (true, true);
    }
    let mut wires = Wires::new(both);
    for who in 0..2 {
        wires.input(who, Input::Want(table(5)));
        wires.input(who, Input::Start);
    }
    wires.pass(300 * SECOND);
    assert!(!wires.events(0).chain(wires.events(1)).any(|event| matches!(event, Event::Up(_))));
    for round in 0..5 {
        wires.input(0, Input::Bfd(Bfd::Up));
        wires.pass(Duration::from_millis(700 * round));
        wires.input(1, Input::Bfd(Bfd::Up));
        assert!(wires.until(SECOND, Wires::up), "round {round}: {:?}", wires.told);
        wires.pass(7 * SECOND);
        assert_eq!(received(&wires, 0), 5);
        wires.input(0, Input::Bfd(Bfd::Down));
        wires.input(1, Input::Bfd(Bfd::Down));
        wires.pass(round as u32 * 20 * SECOND);
        assert!(!wires.up(), "round {round}");
    }
}

#[test]
fn both_families_go_over_one_unnumbered_session_and_inside_an_as() {
    let mut both = [settings(0, 9), settings(1, 9)];
    for settings in &mut both {
        settings.families = vec![Family::V4, Family::V6];
        settings.extended_next_hop = true;
        (settings.asn, settings.peer_asn) = (64500, PeerAsn::Internal);
    }
    let mut wires = Wires::new(both);
    wires.unnumbered = true;
    let wanted = Arc::new(Wanted::default());
    let v6 = |n: u128| {
        (
            Prefix::containing(std::net::Ipv6Addr::from((0x2001_0db8 << 96) + n).into(), 128),
            Arc::clone(&wanted),
        )
    };
    let routes: Table = table(1500).iter().cloned().chain((0..700).map(v6)).collect();
    for who in 0..2 {
        wires.input(who, Input::Want(routes.clone()));
        wires.input(who, Input::Start);
    }
    assert!(wires.until(60 * SECOND, Wires::up));
    wires.pass(SECOND);
    for who in 0..2 {
        let snapshot = wires.machine(who).snapshot();
        assert_eq!(snapshot.received, [(Family::V4, 1500), (Family::V6, 700)].into(), "{:?}", wires.told);
        assert_eq!((snapshot.sent, snapshot.pending), (snapshot.received, 0));
        for family in [Family::V4, Family::V6] {
            assert!(wires.events(who).any(|event| *event == Event::InitialDone(family)));
        }
        assert!(!wires.events(who).any(|event| matches!(event, Event::Tolerated(_) | Event::NoNextHop(_))));
    }
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}
