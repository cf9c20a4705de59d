//! The membership of many under a virtual clock: sentences, each over several seeds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a failed expectation is a failed test
#![allow(unreachable_pub)] // the swarm is shared with an example
#![allow(clippy::disallowed_methods)] // the runner, unlike the core, has an environment and an origin of its clock

mod swarm;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use patina_speaker_core::membership::{self, Down, Event, Input, Membership};
use patina_speaker_core::view::{Member, MemberInterface};
use swarm::{BAD, LAN, Swarm, address, name};

const MS: fn(u64) -> Duration = Duration::from_millis;

fn seeds() -> impl Iterator<Item = u64> {
    let more = std::env::var("PATINA_SEEDS").ok().and_then(|count| count.parse().ok());
    0..more.unwrap_or(6)
}

fn each_seed(what: &str, case: impl Fn(u64)) {
    for seed in seeds() {
        if let Err(panic) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| case(seed))) {
            eprintln!("{what}: failed with seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn all_find_each_other_and_the_first_round_ends() {
    each_seed("join", |seed| {
        for (count, network) in [(1, LAN), (2, LAN), (7, BAD), (40, LAN)] {
            let mut swarm = Swarm::started(count, network, seed);
            let took = swarm.run_until(MS(5000), Swarm::whole);
            took.unwrap_or_else(|| {
                panic!(
                    "{count} speakers: {:?}",
                    (0..count).map(|node| swarm.machine(node).map(Membership::state)).collect::<Vec<_>>()
                )
            });
            assert!((0..count).all(|node| swarm.machine(node).unwrap().state().joined), "{count}");
        }
    });
}

#[test]
fn a_death_is_known_to_all_within_300_ms_mostly_and_half_a_second_always() {
    let mut times = Vec::new();
    for seed in seeds() {
        for (count, network) in [(3, LAN), (10, BAD), (30, LAN)] {
            let mut swarm = Swarm::started(count, network, seed);
            let victim = swarm.below(count as u64) as usize;
            let pause = swarm.below(50_000);
            swarm.run(Duration::from_micros(pause));
            let died = swarm.time();
            swarm.kill(victim);
            swarm.run(MS(900));
            let learnt = swarm.learnt(victim, died);
            assert_eq!(learnt.len(), count - 1, "seed {seed}, {count} speakers: {learnt:?}");
            times.push(*learnt.values().max().unwrap());
            assert!(swarm.false_verdicts(&BTreeSet::from([victim])).is_empty(), "seed {seed}");
        }
    }
    times.sort();
    assert!(times[times.len() / 2] <= MS(300), "{times:?}");
    assert!(*times.last().unwrap() <= MS(500), "{times:?}");
}

#[test]
fn nobody_that_lives_is_declared_dead_in_ten_bad_minutes() {
    let mut swarm = Swarm::started(5, BAD, 7);
    swarm.run(Duration::from_secs(600));
    let wrong = swarm.false_verdicts(&BTreeSet::new());
    assert!(wrong.is_empty(), "{wrong:?}");
    assert!(swarm.whole());
}

#[test]
fn one_that_leaves_is_gone_at_once_and_nobody_asks_for_it() {
    each_seed("leave", |seed| {
        let mut swarm = Swarm::started(5, LAN, seed);
        swarm.input(2, Input::Leave);
        swarm.run(MS(20));
        swarm.kill(2);
        for node in [0, 1, 3, 4] {
            let state = swarm.machine(node).unwrap().state();
            assert!(!state.members.contains_key(&name(2)));
            assert_eq!(state.down.get(&name(2)), Some(&Down::Left));
        }
    });
}

#[test]
fn what_a_speaker_says_reaches_all_although_messages_are_lost() {
    each_seed("say", |seed| {
        let mut swarm = Swarm::started(12, BAD, seed);
        let interface = MemberInterface { name: "eth0".into(), mac: [2; 6], up: true, ..Default::default() };
        let say = Member { draining: true, interfaces: Some(vec![interface]), ..Member::default() };
        swarm.input(3, Input::Say(say.clone()));
        let knows = |machine: &Membership| machine.state().members.get(&name(3)) == Some(&say);
        let all = |swarm: &Swarm| (0..12).all(|node| knows(swarm.machine(node).unwrap()));
        let took = swarm.run_until(MS(2000), all).expect("all know");
        assert!(took <= MS(1500), "{took:?}");
        let stations = swarm.machine(0).unwrap().state().stations;
        assert_eq!(stations.get(&[2; 6]).map(|node| &**node), Some(name(3).as_str()));
    });
}

#[test]
fn a_restart_that_nobody_missed_makes_it_start_anew() {
    each_seed("restart", |seed| {
        let mut swarm = Swarm::started(4, LAN, seed);
        swarm.kill(1);
        swarm.run(MS(60));
        let before = swarm.told.len();
        swarm.start(1);
        swarm.run(MS(300));
        let up = |by| {
            swarm.told[before..].iter().any(|told| told.by == by && told.event == Event::Up { node: name(1) })
        };
        assert!([0, 2, 3].into_iter().all(up));
        assert!(swarm.whole());
        let downs = swarm.false_verdicts(&BTreeSet::new());
        assert!(downs.is_empty(), "{downs:?}");
    });
}

#[test]
fn a_speaker_that_stalls_is_replaced_fences_itself_and_comes_back() {
    each_seed("stall", |seed| {
        let mut swarm = Swarm::started(5, LAN, seed);
        let stopped = swarm.time();
        let lease = swarm.machine(2).unwrap().answer_until().expect("it answers");
        swarm.pause(2, MS(1000));
        swarm.run(MS(700));
        assert_eq!(swarm.learnt(2, stopped).len(), 4, "the others replaced it");
        assert_eq!(swarm.machine(2).unwrap().answer_until(), Some(lease), "and its lease ran out by itself");
        let woken = swarm.run_until(MS(1000), |swarm| {
            swarm.told.iter().any(|told| told.by == 2 && told.event == Event::Fenced)
        });
        assert!(woken.is_some());
        let back =
            swarm.run_until(MS(2000), |swarm| swarm.whole() && !swarm.machine(2).unwrap().state().fenced);
        assert!(back.is_some_and(|back| back < MS(500)), "{back:?}");
        // Nobody else fell.
        assert!(swarm.false_verdicts(&BTreeSet::from([2])).is_empty());
    });
}

#[test]
fn a_short_stall_harms_nobody() {
    each_seed("short stall", |seed| {
        let mut swarm = Swarm::started(6, LAN, seed);
        for round in 0..20 {
            swarm.pause(round % 6, MS(120));
            swarm.run(MS(400));
        }
        assert!(swarm.false_verdicts(&BTreeSet::new()).is_empty());
        assert!(!swarm.told.iter().any(|told| told.event == Event::Fenced));
    });
}

#[test]
fn alone_it_is_let_in_by_nobody_and_opens_after_a_detection_time() {
    let mut swarm = Swarm::started(3, LAN, 1);
    swarm.kill(0);
    swarm.kill(2);
    swarm.pause(1, MS(1000));
    swarm.run(MS(1100));
    assert!(swarm.machine(1).unwrap().state().fenced);
    swarm.run(MS(600));
    assert!(!swarm.machine(1).unwrap().state().fenced);
    assert!(swarm.machine(1).unwrap().answer_until().is_some());
}

#[test]
fn two_halves_elect_and_find_each_other_again_within_a_probe_period() {
    each_seed("partition", |seed| {
        for (count, other) in [(3, vec![0]), (6, vec![0, 1, 2]), (9, vec![4, 5])] {
            let mut swarm = Swarm::started(count, LAN, seed);
            swarm.part(&other);
            swarm.run(Duration::from_secs(5));
            let side = |wanted: bool| -> BTreeSet<String> {
                (0..count).filter(|node| other.contains(node) == wanted).map(name).collect()
            };
            for node in 0..count {
                assert_eq!(swarm.members(node), side(other.contains(&node)), "{count}, node {node}");
            }
            swarm.heal();
            let whole = swarm.run_until(Duration::from_secs(5), Swarm::whole).expect("whole again");
            assert!(whole <= MS(400), "{count}: {whole:?}");
            swarm.run(Duration::from_secs(2));
            assert!(swarm.whole(), "and it stays so");
        }
    });
}

#[test]
fn a_long_partition_heals_as_well() {
    let mut swarm = Swarm::started(6, LAN, 3);
    swarm.part(&[0, 1]);
    swarm.run(Duration::from_secs(180));
    swarm.heal();
    let whole = swarm.run_until(Duration::from_secs(10), Swarm::whole).expect("whole again");
    assert!(whole <= MS(1500), "{whole:?}");
}

#[test]
fn under_quorum_the_minority_answers_nothing() {
    let mut swarm = Swarm::new(5, LAN, 5);
    swarm.quorum = true;
    for node in 0..5 {
        swarm.start(node);
    }
    swarm.run(Duration::from_secs(2));
    swarm.part(&[0, 1]);
    swarm.run(Duration::from_secs(3));
    for node in 0..5 {
        let machine = swarm.machine(node).unwrap();
        assert_eq!(machine.answer_until().is_none(), node < 2, "node {node}");
    }
    swarm.heal();
    swarm.run(Duration::from_secs(2));
    assert!((0..5).all(|node| swarm.machine(node).unwrap().answer_until().is_some()));
}

#[test]
fn the_arcs_change_only_with_what_is_in_them() {
    let mut swarm = Swarm::started(4, LAN, 9);
    let before = swarm.machine(0).unwrap().state();
    swarm.run(Duration::from_secs(5));
    let after = swarm.machine(0).unwrap().state();
    assert!(Arc::ptr_eq(&before.members, &after.members) && Arc::ptr_eq(&before.stations, &after.stations));
}

#[test]
fn the_traffic_of_each_stays_the_same_however_many_there_are() {
    let rate = |count| {
        let mut swarm = Swarm::started(count, LAN, 2);
        let before = swarm.messages;
        swarm.run(Duration::from_secs(5));
        (swarm.messages - before) as f64 / 5.0 / count as f64
    };
    let (few, many) = (rate(5), rate(60));
    assert!(many < few * 1.3, "{few} and {many} messages a second");
}

const NONE: BTreeSet<usize> = BTreeSet::new();

#[test]
fn a_node_that_reaches_nobody_on_a_segment_says_so_within_half_a_second_and_takes_it_back() {
    let times = RefCell::new((Vec::new(), Vec::new()));
    each_seed("isolated", |seed| {
        for (count, network) in [(3, LAN), (5, BAD), (12, LAN)] {
            let all: Vec<usize> = (0..count).collect();
            let mut swarm = Swarm::started_with_second(count, &all, network, seed);
            assert!(all.iter().all(|node| swarm.isolated_for(*node).is_empty()), "nothing is cut yet");
            let pause = swarm.below(100_000);
            swarm.run(Duration::from_micros(pause));
            swarm.mute.insert(1);
            swarm.deaf.insert(1);
            let known = swarm.run_until(MS(1500), |swarm| swarm.isolated_for(1).len() == count);
            times.borrow_mut().0.push(known.unwrap_or(MS(1500)));
            assert!((0..count).all(|node| node == 1 || swarm.isolated_for(node).is_empty()), "only that one");
            // What is said anew does not take it back.
            let says = Member { draining: true, ..swarm.says(1) };
            swarm.input(1, Input::Say(says));
            swarm.run(Duration::from_secs(2));
            assert_eq!(swarm.isolated_for(1).len(), count);
            swarm.mute.clear();
            swarm.deaf.clear();
            let back = swarm.run_until(MS(1500), |swarm| swarm.isolated_for(1).is_empty());
            times.borrow_mut().1.push(back.unwrap_or(MS(1500)));
            assert!(swarm.whole() && swarm.false_verdicts(&BTreeSet::new()).is_empty(), "and nobody is dead");
        }
    });
    let (mut known, mut back) = times.into_inner();
    for (times, half, most) in [(&mut known, 350, 500), (&mut back, 550, 750)] {
        times.sort();
        assert!(times[times.len() / 2] <= MS(half) && *times.last().unwrap() <= MS(most), "{times:?}");
    }
}

#[test]
fn a_segment_that_passes_a_frame_now_and_then_does_not_come_and_go() {
    each_seed("flapping", |seed| {
        let mut swarm = Swarm::started_with_second(4, &[0, 1, 2, 3], LAN, seed);
        let (mut said, mut changes) = (false, 0);
        for _ in 0..600 {
            // Of each second, it passes frames in some tenths.
            if swarm.below(10) < 2 {
                swarm.mute.remove(&1);
            } else {
                swarm.mute.insert(1);
            }
            swarm.run(MS(100));
            let says = !swarm.isolated_for(1).is_empty();
            changes += usize::from(std::mem::replace(&mut said, says) != says);
        }
        assert!(said && changes <= 9, "it changed {changes} times in a minute");
    });
}

#[test]
fn an_address_at_which_a_speaker_does_not_receive_is_neither_told_nor_asked() {
    let mut swarm = Swarm::started_with_second(3, &[0, 1, 2], LAN, 8);
    swarm.input(1, Input::Listen(BTreeSet::new()));
    swarm.mute.insert(1);
    let said = swarm.run_until(MS(3000), |swarm| (0..3).any(|node| swarm.isolated_for(node) != NONE));
    assert_eq!(said, None);
    for node in 0..3 {
        let state = swarm.machine(node).unwrap().state();
        let told = |about| {
            let interfaces = state.members.get(&name(about)).and_then(|member| member.interfaces.clone());
            interfaces.unwrap().iter().flat_map(|interface| interface.addresses.clone()).collect::<Vec<_>>()
        };
        assert_eq!(told(1), [address(1).ip()], "what node {node} knows of node 1");
        assert_eq!(told(2), [address(2).ip(), swarm::address_there(2).ip()]);
    }
}

#[test]
fn a_speaker_listens_at_one_address_of_each_subnet_that_is_not_the_memberships() {
    let interface = |name: &str, subnets: &[(&str, u8)], addresses: &[&str]| MemberInterface {
        name: name.to_owned(),
        up: true,
        arp: true,
        subnets: subnets.iter().map(|(ip, length)| (ip.parse().unwrap(), *length)).collect(),
        addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
        ..MemberInterface::default()
    };
    let further = |interfaces: Vec<MemberInterface>| {
        let member = Member { interfaces: Some(interfaces), ..Member::default() };
        let found = membership::further(&member, &["10.0.0.1:7946".parse().unwrap()]);
        let words = found.iter().map(|f| format!("{} {} {}", f.address, f.interface, f.subnets.len()));
        words.collect::<Vec<_>>().join(", ")
    };
    let own = interface("eth0", &[("10.0.0.0", 16), ("fd00::", 64)], &["10.0.0.1", "fd00::1"]);
    let both = interface("eth1", &[("10.1.0.0", 16), ("fd01::", 64)], &["10.1.0.1", "10.1.0.9", "fd01::1"]);
    assert_eq!(further(vec![own.clone()]), "", "who is silent there is dead");
    assert_eq!(further(vec![own, both.clone()]), "10.1.0.1 eth1 1, fd01::1 eth1 1");
    let twin = MemberInterface { name: "eth2".to_owned(), ..both.clone() };
    assert_eq!(further(vec![both.clone(), twin]), "10.1.0.1 eth1 1, fd01::1 eth1 1");
    assert_eq!(further(vec![MemberInterface { up: false, ..both.clone() }]), "");
    assert_eq!(further(vec![MemberInterface { arp: false, ..both }]), "");
    let nested = interface("eth1", &[("10.1.0.0", 16), ("10.1.2.0", 24)], &["10.1.2.1"]);
    assert_eq!(further(vec![nested]), "10.1.2.1 eth1 2");
    let many = (0..20)
        .map(|n| interface(&format!("v{n}"), &[(&format!("10.2.{n}.0"), 24)], &[&format!("10.2.{n}.1")]));
    assert_eq!(further(many.collect()).split(", ").count(), 8);
}

#[test]
fn whoever_is_not_heard_or_hears_nobody_is_isolated_as_well() {
    each_seed("one way", |seed| {
        for mute in [true, false] {
            let mut swarm = Swarm::started_with_second(4, &[0, 1, 2, 3], LAN, seed);
            if mute {
                swarm.mute.insert(2)
            } else {
                swarm.deaf.insert(2)
            };
            swarm.run(Duration::from_secs(1));
            assert_eq!(swarm.isolated_for(2).len(), 4, "mute: {mute}");
            assert!([0, 1, 3].into_iter().all(|node| swarm.isolated_for(node) == NONE));
        }
    });
}

#[test]
fn of_two_that_do_not_reach_each_other_both_say_it() {
    each_seed("two", |seed| {
        let mut swarm = Swarm::started_with_second(3, &[0, 2], LAN, seed);
        swarm.mute.insert(0);
        swarm.run(Duration::from_secs(1));
        assert_eq!((swarm.isolated_for(0).len(), swarm.isolated_for(2).len()), (3, 3));
        swarm.mute.clear();
        swarm.run(Duration::from_secs(1));
        assert_eq!((swarm.isolated_for(0), swarm.isolated_for(2)), (NONE, NONE));
    });
}

#[test]
fn a_node_without_others_on_a_segment_says_nothing_and_asks_nothing() {
    let mut swarm = Swarm::started_with_second(4, &[1], LAN, 3);
    swarm.run(Duration::from_secs(5));
    assert_eq!(swarm.isolated_for(1), NONE);
    assert_eq!(swarm.messages_there, 0);
    // Nor when there was one, and it died: that is another thing.
    each_seed("the other died", |seed| {
        let mut swarm = Swarm::started_with_second(6, &[1, 4], BAD, seed);
        swarm.kill(4);
        let said = swarm.run_until(Duration::from_secs(3), |swarm| !swarm.isolated_for(1).is_empty());
        assert_eq!(said, None);
        swarm.kill(1);
        swarm.start(4);
        swarm.start(1);
        let said = swarm.run_until(Duration::from_secs(3), |swarm| !swarm.isolated_for(1).is_empty());
        assert_eq!(said, None);
    });
}

#[test]
fn ten_bad_minutes_isolate_nobody() {
    let mut swarm = Swarm::started_with_second(3, &[0, 1, 2], BAD, 11);
    let said = swarm
        .run_until(Duration::from_secs(600), |swarm| (0..3).any(|node| swarm.isolated_for(node) != NONE));
    assert_eq!(said, None);
}

#[test]
fn a_stall_of_ours_isolates_nobody() {
    each_seed("stall", |seed| {
        let mut swarm = Swarm::started_with_second(4, &[0, 1, 2, 3], LAN, seed);
        swarm.pause(0, MS(3000));
        let said = swarm.run_until(MS(6000), |swarm| (0..4).any(|node| swarm.isolated_for(node) != NONE));
        assert_eq!(said, None);
    });
}

#[test]
fn what_is_asked_on_a_segment_stays_the_same_however_many_are_there() {
    for count in [2, 5, 60] {
        let all: Vec<usize> = (0..count).collect();
        let mut swarm = Swarm::started_with_second(count, &all, LAN, 4);
        let before = swarm.messages_there;
        swarm.run(Duration::from_secs(5));
        let each = (swarm.messages_there - before) as f64 / 5.0 / count as f64;
        // Two questions ten times a second, and their answers.
        assert!((19.0..=41.0).contains(&each), "{count}: {each} a second");
    }
}

#[test]
fn a_dead_speaker_that_the_list_does_not_name_is_forgotten_after_ten_minutes() {
    let mut swarm = Swarm::new(4, LAN, 6);
    swarm.quorum = true;
    swarm.second = BTreeSet::from([0, 1, 2, 3]);
    swarm.start_all();
    swarm.run(Duration::from_secs(2));
    swarm.kill(2);
    swarm.kill(3);
    // The list of the first leaves out node 3, that of the second both.
    swarm.input(0, Input::Peers(BTreeSet::from([address(1), address(2)])));
    swarm.input(1, Input::Peers(BTreeSet::from([address(0)])));
    swarm.run(Duration::from_secs(590));
    let down = |swarm: &Swarm, node| {
        let state = swarm.machine(node).unwrap().state();
        let macs = [2, 3].map(|dead| state.stations.values().any(|node| **node == *name(dead)));
        (state.down.keys().cloned().collect::<Vec<_>>(), macs, state.fenced)
    };
    for node in [0, 1] {
        assert_eq!(down(&swarm, node), (vec![name(2), name(3)], [true, true], true), "node {node}");
    }
    swarm.run(Duration::from_secs(30));
    assert_eq!(down(&swarm, 0), (vec![name(2)], [true, false], false));
    assert_eq!(down(&swarm, 1), (vec![], [false, false], false));
    // They are met again as if for the first time.
    swarm.start(2);
    swarm.start(3);
    let whole = swarm.run_until(Duration::from_secs(5), Swarm::whole).expect("whole");
    assert!(whole <= MS(1500), "{whole:?}");
}

#[test]
fn deadlines_that_always_come_late_kill_nobody() {
    each_seed("late", |seed| {
        let mut swarm = Swarm::started(5, LAN, seed);
        swarm.lag(2, MS(80));
        swarm.run(Duration::from_secs(20));
        assert!(swarm.whole() && swarm.false_verdicts(&BTreeSet::new()).is_empty());
    });
}

#[test]
fn those_that_are_not_heard_are_dead_for_the_others_and_come_back_without_a_storm() {
    each_seed("one way", |seed| {
        for (count, mute, network) in [(3, vec![2], LAN), (8, vec![0, 5], LAN), (6, vec![1, 2, 3], BAD)] {
            let mut swarm = Swarm::started(count, network, seed);
            swarm.silence(&mute);
            swarm.run(Duration::from_secs(5));
            for node in (0..count).filter(|node| !mute.contains(node)) {
                let members = swarm.members(node);
                assert!(mute.iter().all(|mute| !members.contains(&name(*mute))), "{count}: {members:?}");
            }
            swarm.heal();
            let before = swarm.messages;
            let whole = swarm.run_until(Duration::from_secs(5), Swarm::whole).expect("whole again");
            assert!(whole <= MS(1000), "{count}: {whole:?}");
            swarm.run(Duration::from_secs(2));
            assert!(swarm.whole(), "and it stays so");
            let each = (swarm.messages - before) / count as u64;
            assert!(each < 600, "{count}: each sent {each} messages in some two seconds");
        }
    });
}
