//! The echo function (sections 6.4, 6.8.5, 6.8.9).

use patina_speaker_core::bfd::{Diagnostic, Dropped, Input, Settings};

use crate::each_seed;
use crate::world::{A, B, MS, World, settings};

fn echoing() -> Settings {
    Settings { echo_mode: true, ..settings() }
}

#[test]
fn while_echo_packets_come_back_control_packets_are_slow() {
    each_seed("slow", |seed| {
        let mut world = World::up(seed, [echoing(), echoing()]);
        for node in &mut world.nodes {
            let view = node.machine.view();
            assert!(view.echo);
            assert_eq!(view.transmit_interval, Some(MS(1000)));
            (node.echoes, node.sent) = (0, Vec::new());
        }
        world.run(MS(10_000));
        for node in &world.nodes {
            // Every 20 ms, less up to a quarter.
            assert!((500..=667).contains(&node.echoes), "{}", node.echoes);
            assert!((10..=14).contains(&node.sent.len()), "{}", node.sent.len());
        }
        assert_eq!([world.downs(A), world.downs(B)], [0, 0]);
    });
}

#[test]
fn echo_packets_that_do_not_come_back_any_more_take_the_session_down_in_time() {
    each_seed("lost echo", |seed| {
        let mut world = World::up(seed, [echoing(), settings_that_loop()]);
        world.nodes[A].wire.loops = false;
        let since = world.now;
        assert!(world.run_until(MS(200), |world| world.downs(A) > 0));
        let down = *world.nodes[A].changes.last().unwrap();
        assert_eq!(down.diagnostic, Diagnostic::EchoFailed);
        // Three intervals of 20 ms since the first that did not come back.
        let took = down.at - since;
        assert!(took >= MS(60) && took <= MS(80), "{took:?}");
        // Where the peer does not loop any more the control packets decide, and they are fast.
        assert!(world.run_until(MS(3000), World::both_up));
        world.run(MS(10_000));
        assert_eq!(world.downs(A), 1);
        let view = world.nodes[A].machine.view();
        assert_eq!((view.echo, view.detection_time), (false, Some(MS(150))));
    });
}

/// It offers echo, and is too slow to use it itself.
fn settings_that_loop() -> Settings {
    Settings { echo_mode: true, echo_interval: MS(20), ..settings() }
}

#[test]
fn a_peer_that_offers_echo_and_never_loops_is_not_down() {
    each_seed("never loops", |seed| {
        let mut world = World::new(seed, [echoing(), settings_that_loop()]);
        world.nodes[A].wire.loops = false;
        world.run(MS(60_000));
        assert_eq!([world.downs(A), world.downs(B)], [0, 0]);
        assert!(world.nodes[A].echoes > 1000, "it goes on trying");
    });
}

#[test]
fn nobody_sends_echo_packets_to_one_that_does_not_offer_it() {
    let refusals =
        [settings(), Settings { loops_echo: false, ..echoing() }, Settings { multihop: true, ..echoing() }];
    for theirs in refusals {
        let mut world = World::up(1, [echoing(), theirs]);
        world.run(MS(10_000));
        assert_eq!(world.nodes[A].echoes, 0);
    }
    let mut world = World::up(1, [Settings { multihop: true, ..echoing() }, settings_that_loop()]);
    world.run(MS(10_000));
    assert_eq!(world.nodes[A].echoes, 0, "several hops have no echo");
}

#[test]
fn an_offer_that_ends_ends_the_echo_and_control_packets_are_fast_again() {
    each_seed("offer ends", |seed| {
        let mut world = World::up(seed, [echoing(), settings_that_loop()]);
        world.run(MS(1000));
        world.input(B, Input::Configure(Box::new(settings())));
        world.run(MS(2000));
        world.nodes[A].echoes = 0;
        world.run(MS(10_000));
        assert_eq!(world.nodes[A].echoes, 0);
        assert_eq!(world.nodes[A].machine.view().detection_time, Some(MS(150)));
        assert_eq!([world.downs(A), world.downs(B)], [0, 0]);
    });
}

#[test]
fn an_echo_packet_counts_once_and_only_as_it_was_sent() {
    let mut world = World::up(3, [echoing(), settings_that_loop()]);
    world.nodes[A].wire.loops = false;
    let before = world.nodes[A].echoes;
    assert!(world.run_until(MS(21), |world| world.nodes[A].echoes > before));
    let sent = world.nodes[A].echo.clone();
    let machine = &mut world.nodes[A].machine;
    for at in 0..sent.len() {
        let mut forged = sent.clone();
        forged[at] ^= 1;
        assert_eq!(machine.handle(world.now, Input::Echo(&forged)), Err(Dropped::Echo), "byte {at}");
    }
    assert_eq!(machine.handle(world.now, Input::Echo(&sent)), Ok(()));
    assert!(machine.handle(world.now, Input::Echo(&sent)).is_err(), "it has come back already");
    for length in 0..sent.len() {
        assert!(machine.handle(world.now, Input::Echo(&sent[..length])).is_err());
    }
}
