//! Frames that no well-behaved program sends, and what wakes the speaker.

use std::sync::atomic::{AtomicBool, Ordering};

use patina_e2e::netns::Netns;
use patina_speaker::l2::socket::{FrameSocket, Protocol};
use patina_speaker_core::l2::duty::Mode;
use socket2::SockFilter;

use crate::programs::Capture;
use crate::wire::{OTHER, VIP, VIP6, Wire, show};

pub(crate) const GOOD: [u8; 6] = [2, 0, 0, 0, 0, 0xaa];
pub(crate) const BAD: [u8; 6] = [2, 0, 0, 0, 0, 0xbb];
const BROADCAST: [u8; 6] = [0xff; 6];
const LISTENED: &str = "172.25.7.103";
/// Announced after something else, it tells that the driver has done that.
const MARK: &str = "172.25.7.104";
const FRAMES: &str = "patina_l2_frames_total";

/// Puts frames on the wire as they are.
pub(crate) fn transmit(netns: &Netns, protocol: Protocol, frames: &[Vec<u8>]) {
    let shown = netns.ip(&["-o", "link", "show", "eth0"]).unwrap();
    let (index, _) = shown.split_once(':').unwrap();
    let index = index.parse().unwrap();
    netns
        .run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                // `ret #0`: a socket that only sends.
                let socket = FrameSocket::open(index, protocol, &[SockFilter::new(6, 0, 0, 0)]).unwrap();
                for frame in frames {
                    socket.send(frame).unwrap();
                }
            });
        })
        .unwrap();
}

pub(crate) struct Arp<'a> {
    pub(crate) to: [u8; 6],
    pub(crate) from: [u8; 6],
    pub(crate) operation: u8,
    pub(crate) sender_mac: [u8; 6],
    pub(crate) sender_ip: [u8; 4],
    pub(crate) target: &'a str,
}

impl Arp<'_> {
    pub(crate) fn request(from: [u8; 6]) -> Self {
        Self { to: BROADCAST, from, operation: 1, sender_mac: from, sender_ip: [172, 25, 7, 9], target: VIP }
    }

    /// RFC 826, written down once more.
    pub(crate) fn frame(&self) -> Vec<u8> {
        let target: std::net::Ipv4Addr = self.target.parse().unwrap();
        let mut frame = [self.to, self.from].concat();
        frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, self.operation]);
        frame.extend(self.sender_mac);
        frame.extend(self.sender_ip);
        frame.extend([0; 6]);
        frame.extend(target.octets());
        frame
    }

    /// With an IEEE 802.1Q tag.
    fn tagged(&self, vlan: u8) -> Vec<u8> {
        let mut frame = self.frame();
        frame.splice(12..12, [0x81, 0, 0, vlan]);
        frame
    }
}

/// Answers to somebody, as they arrive at the peer: nobody's gratuitous ones.
fn answers(wire: &Wire) -> Capture {
    Capture::start(&wire.peer, "arp[6:2] == 2 and not ether broadcast")
}

#[test]
fn what_is_not_a_request_to_us_on_this_segment_is_not_answered() {
    let wire = Wire::new();
    wire.announce_and_wait(&[VIP]);
    let mut answers = answers(&wire);
    let (bad, good) = (Arp::request(BAD), Arp::request(GOOD));
    let silent = [
        Arp { to: [2, 0, 0, 0, 0, 0x77], ..Arp::request(BAD) }.frame(),
        bad.tagged(100),
        Arp { operation: 2, ..Arp::request(BAD) }.frame(),
        Arp { target: OTHER, ..Arp::request(BAD) }.frame(),
        Arp { sender_ip: [172, 25, 7, 100], ..Arp::request(BAD) }.frame(),
        Arp { sender_mac: BROADCAST, ..Arp::request(BAD) }.frame(),
        bad.frame()[..30].to_vec(),
    ];
    transmit(&wire.peer, Protocol::Arp, &[&silent[..], &[good.frame()]].concat());
    // Answers come in the order of the questions, so the first answer says that none of those before it got one.
    let (_, first) = answers.next();
    assert!(first.contains(&format!("> {}", show(GOOD))), "{first}");
}

#[test]
fn a_request_to_our_mac_and_one_with_a_priority_tag_are_answered() {
    let wire = Wire::new();
    wire.announce_and_wait(&[VIP]);
    let mut answers = answers(&wire);
    let to_us = Arp { to: wire.node_mac(), ..Arp::request(GOOD) }.frame();
    // VLAN 0 is no VLAN: the tag carries a priority only (IEEE 802.1Q 6.9).
    transmit(&wire.peer, Protocol::Arp, &[to_us, Arp::request(BAD).tagged(0)]);
    assert!(answers.next().1.contains(&format!("> {}", show(GOOD))));
    assert!(answers.next().1.contains(&format!("> {}", show(BAD))));
}

#[test]
fn the_process_wakes_for_what_is_about_its_addresses_only() {
    let wire = Wire::new();
    wire.announce_and_wait(&[VIP]);
    let mut answers = answers(&wire);
    let mut frames = Vec::new();
    for _ in 0..100 {
        frames.push(Arp { operation: 2, ..Arp::request(BAD) }.frame());
        frames.push(Arp { target: OTHER, ..Arp::request(BAD) }.frame());
        frames.push(Arp { to: [2, 0, 0, 0, 0, 0x77], ..Arp::request(BAD) }.frame());
        frames.push(Arp::request(BAD).tagged(100));
    }
    // Listened for: the driver hears of it, and says nothing.
    wire.set(LISTENED, Mode::Listen);
    wire.announce_also(MARK);
    wire.wait_for_metric(&format!("metallb_layer2_gratuitous_sent{{ip=\"{MARK}\"}}"), 1);
    for _ in 0..10 {
        frames.push(Arp { target: LISTENED, ..Arp::request(BAD) }.frame());
    }
    frames.push(Arp::request(GOOD).frame());
    let before = wire.metric(FRAMES);
    transmit(&wire.peer, Protocol::Arp, &frames);
    answers.next();
    assert_eq!(wire.metric(FRAMES) - before, 11);
    assert_eq!(wire.metric("patina_l2_dropped_total{reason=\"notAnnounced\"}"), 10);
    assert_eq!(wire.metric(&format!("metallb_layer2_requests_received{{ip=\"{VIP}\"}}")), 1);
    assert_eq!(wire.metric(&format!("metallb_layer2_responses_sent{{ip=\"{VIP}\"}}")), 1);
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_flood_of_foreign_requests_delays_neither_answers_nor_decisions() {
    let wire = Wire::new();
    wire.announce_and_wait(&[VIP]);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop_however_it_ends = Stop(&stop);
        scope.spawn(|| {
            let flood = vec![Arp { target: OTHER, ..Arp::request(BAD) }.frame(); 2000];
            while !stop.load(Ordering::Relaxed) {
                transmit(&wire.peer, Protocol::Arp, &flood);
            }
        });
        let mut arrived = Capture::start(&wire.node, &format!("arp host {OTHER}"));
        arrived.next();
        let mut answers = answers(&wire);
        transmit(&wire.peer, Protocol::Arp, &[Arp::request(GOOD).frame()]);
        let first = answers.next();
        // A decision, in the middle of it.
        wire.announce_and_wait(&[VIP, VIP6]);
        assert!(first.1.contains(&format!("> {}", show(GOOD))), "{first:?}");
    });
    assert!(wire.metric(FRAMES) < 10, "the flood stays in the kernel: {}", wire.metric(FRAMES));
}

#[test]
fn a_speaker_that_announces_nothing_is_not_woken_at_all() {
    let wire = Wire::new();
    wire.announce_and_wait(&[VIP]);
    wire.announce(&[]);
    transmit(&wire.peer, Protocol::Arp, &vec![Arp::request(BAD).frame(); 100]);
    wire.announce_and_wait(&[VIP]);
    let mut answers = answers(&wire);
    transmit(&wire.peer, Protocol::Arp, &[Arp::request(GOOD).frame()]);
    answers.next();
    // Whatever slipped in before the socket was closed, it was not all of them.
    assert!(wire.metric(FRAMES) <= 101, "{}", wire.metric(FRAMES));
}
