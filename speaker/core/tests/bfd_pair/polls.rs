//! Other intervals while the session is up (section 6.8.3).

use patina_speaker_core::bfd::{Input, Settings};

use crate::world::{A, B, MS, Wire, World, settings};
use crate::{any_settings, each_seed};

fn with(transmit: u64, receive: u64) -> Settings {
    Settings { transmit_interval: MS(transmit), receive_interval: MS(receive), ..settings() }
}

#[test]
fn the_sender_slows_down_only_when_the_peer_has_said_that_it_knows() {
    each_seed("slower", |seed| {
        let mut world = World::up(seed, [with(50, 50), with(50, 50)]);
        // Nothing of ours arrives for a while, and the peer's patience is 150 ms.
        world.wires(Wire { delay: MS(30), ..Wire::GOOD });
        world.run(MS(500));
        world.nodes[A].sent.clear();
        world.input(A, Input::Configure(Box::new(with(500, 50))));
        let asked = world.now;
        assert!(world.nodes[A].sent[0].1.poll && world.nodes[A].sent[0].1.desired_min_tx == MS(500));
        world.run(MS(59));
        assert_eq!(world.nodes[A].machine.view().transmit_interval, Some(MS(50)), "the answer is under way");
        world.run(MS(2));
        assert_eq!(world.nodes[A].machine.view().transmit_interval, Some(MS(500)));
        assert_eq!(world.nodes[B].machine.view().detection_time, Some(MS(1500)));
        let asking = world.nodes[A].sent.iter().filter(|(at, packet)| *at > asked && packet.poll).count();
        assert!(asking >= 1, "it goes on asking meanwhile");
        world.run(MS(20_000));
        assert_eq!([world.downs(A), world.downs(B)], [0, 0]);
        assert!(world.nodes[A].sent.last().is_some_and(|(_, packet)| !packet.poll));
    });
}

#[test]
fn the_receiver_gets_impatient_only_when_the_peer_has_said_that_it_knows() {
    each_seed("impatient", |seed| {
        let mut world = World::up(seed, [with(50, 500), with(50, 50)]);
        world.wires(Wire { delay: MS(30), ..Wire::GOOD });
        world.run(MS(2000));
        assert_eq!(world.nodes[A].machine.view().detection_time, Some(MS(1500)));
        world.input(A, Input::Configure(Box::new(with(50, 50))));
        world.run(MS(59));
        assert_eq!(world.nodes[A].machine.view().detection_time, Some(MS(1500)), "the answer is under way");
        world.run(MS(2));
        assert_eq!(world.nodes[A].machine.view().detection_time, Some(MS(150)));
        world.run(MS(20_000));
        assert_eq!([world.downs(A), world.downs(B)], [0, 0]);
    });
}

#[test]
fn changes_in_the_other_direction_count_at_once() {
    each_seed("at once", |seed| {
        let mut world = World::up(seed, [with(500, 50), with(50, 50)]);
        world.wires(Wire { delay: MS(30), ..Wire::GOOD });
        world.run(MS(2000));
        world.input(A, Input::Configure(Box::new(with(50, 500))));
        let view = world.nodes[A].machine.view();
        assert_eq!((view.transmit_interval, view.detection_time), (Some(MS(50)), Some(MS(1500))));
        world.run(MS(20_000));
        assert_eq!([world.downs(A), world.downs(B)], [0, 0]);
    });
}

#[test]
fn changes_upon_changes_on_both_sides_over_a_lossy_wire_bring_nothing_down() {
    each_seed("many changes", |seed| {
        let mut world = World::up(seed, [with(50, 50), with(50, 50)]);
        // Two lost in a row are the most that a multiplier of 3 may bear.
        world.wires(Wire { delay: MS(2), loss: 300, row: 1, ..Wire::GOOD });
        for round in 0..200 {
            let mut random = world.random;
            random.below(2 + round);
            let settings = Settings { detect_multiplier: 4, ..any_settings(&mut random) };
            let pause = MS(random.below(if round % 2 == 0 { 20 } else { 2000 }));
            world.input((round % 2) as usize, Input::Configure(Box::new(settings)));
            world.run(pause);
        }
        assert_eq!([world.downs(A), world.downs(B)], [0, 0]);
        world.run(MS(10_000));
        for node in &world.nodes {
            let (_, last) = node.sent.last().unwrap();
            assert!(!last.poll, "every Poll Sequence has ended");
        }
        let [a, b] = [A, B].map(|who| world.nodes[who].machine.view());
        let [pa, pb] = [A, B].map(|who| world.nodes[who].sent.last().unwrap().1);
        assert_eq!(a.transmit_interval, Some(pa.desired_min_tx.max(pb.required_min_rx)));
        assert_eq!(b.detection_time, Some(pa.desired_min_tx.max(pb.required_min_rx) * 4));
    });
}
