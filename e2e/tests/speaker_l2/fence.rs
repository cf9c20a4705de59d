//! A driver whose lease has run out sends nothing, and what waited meanwhile is not answered afterwards.

use std::time::{Duration, Instant};

use patina_e2e::wait::{self, Seen, secs};
use patina_speaker::l2::socket::Protocol;
use patina_speaker_core::l2::duty::{ClaimKind, Mode};

use crate::frames::{Arp, BAD, GOOD, transmit};
use crate::programs::{Capture, arping};
use crate::wire::{OTHER, VIP, Wire, show};

const FENCED: &str = "patina_l2_dropped_total{reason=\"fenced\"}";

#[test]
fn behind_the_fence_nothing_is_sent_and_everything_is_heard() {
    let wire = Wire::new();
    wire.announce_and_wait(&[VIP]);
    let mut sent = Capture::start(&wire.peer, "arp and ether src not 02:00:00:00:00:bb");
    wire.fence.set(None);
    // An answer, an announcement and a probe are due.
    transmit(&wire.peer, Protocol::Arp, &[Arp::request(BAD).frame()]);
    wire.again(VIP, 1, 1);
    wire.set(OTHER, Mode::Probe);
    wire.wait_for_metric(FENCED, 4);
    let claims = Arp { sender_ip: [172, 25, 7, 100], ..Arp::request(BAD) };
    transmit(&wire.peer, Protocol::Arp, &[claims.frame()]);
    assert_eq!(wire.claim().kind, ClaimKind::Announcement);
    wire.fence.set(Some(Instant::now() + Duration::from_secs(60)));
    let mac = show(wire.node_mac());
    wait::until_blocking("it answers again", secs(5), || {
        let answer = arping(&wire.peer, VIP);
        Ok(Seen::when(answer.as_deref() == Some(&*mac), answer))
    })
    .unwrap();
    // The question of before did not get its answer: the first one that goes out is that to the later question.
    loop {
        let (_, line) = sent.next();
        assert!(!line.contains(&format!("> {}", show(BAD))), "{line}");
        if line.contains("Reply") && !line.contains("ff:ff:ff:ff:ff:ff") {
            break;
        }
    }
}

#[test]
fn what_waited_while_the_process_was_stopped_is_not_answered_once_it_is_let_back_in() {
    let wire = Wire::new();
    wire.announce_and_wait(&[VIP]);
    let mut answers = Capture::start(&wire.peer, "arp[6:2] == 2 and not ether broadcast");
    // The driver's thread stands still; the lease runs out; the membership is back before the driver is.
    let pause = wire.pause();
    transmit(&wire.peer, Protocol::Arp, &vec![Arp::request(BAD).frame(); 50]);
    wire.fence.set(None);
    wire.fence.set(Some(Instant::now() + Duration::from_secs(60)));
    drop(pause);
    wire.wait_for_metric(FENCED, 50);
    transmit(&wire.peer, Protocol::Arp, &[Arp::request(GOOD).frame()]);
    let (_, first) = answers.next();
    assert!(first.contains(&format!("> {}", show(GOOD))), "{first}");
}
