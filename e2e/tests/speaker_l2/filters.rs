//! Generated programs in the kernel: it takes them, they do what they should, and it has memory for them or less.

use patina_crds::net::Family;
use patina_e2e::netns::Netns;
use patina_e2e::wait::{self, Seen, secs};
use patina_speaker::l2::socket::{FrameSocket, Protocol};
use patina_speaker_core::l2::duty::Mode;
use patina_speaker_core::l2::filter;
use socket2::SockFilter;

use crate::frames::{Arp, BAD, GOOD, transmit};
use crate::programs::{Capture, arping, ndisc6};
use crate::wire::{VIP, VIP6, Wire, show};

const FRAMES: &str = "patina_l2_frames_total";

/// Each third address of 172.25.64.0/18, so that none follows another.
fn scattered(n: u16) -> Vec<String> {
    (0..n).map(|n| n * 3).map(|n| format!("172.25.{}.{}", 64 + n / 256, n % 256)).collect()
}

fn listen(wire: &Wire, vips: &[String]) {
    wire.set_all(vips, Mode::Listen);
    // Announced after them: their filter is in place by then.
    wire.announce_also(VIP);
    wire.wait_for_metric(&format!("metallb_layer2_gratuitous_sent{{ip=\"{VIP}\"}}"), 1);
}

/// Asks for these, then for [`VIP`]: how many of the questions came to the driver.
fn heard_of(wire: &Wire, targets: &[String]) -> u64 {
    let mut answers = Capture::start(&wire.peer, "arp[6:2] == 2 and not ether broadcast");
    let before = wire.metric(FRAMES);
    let ask = |target: &str| Arp { target, ..Arp::request(BAD) }.frame();
    for targets in targets.chunks(100) {
        let mut frames: Vec<Vec<u8>> = targets.iter().map(|target| ask(target)).collect();
        frames.push(Arp::request(GOOD).frame());
        transmit(&wire.peer, Protocol::Arp, &frames);
        answers.next();
    }
    wire.metric(FRAMES) - before - targets.chunks(100).count() as u64
}

#[test]
fn nine_hundred_scattered_addresses_pass_and_those_between_them_do_not() {
    let wire = Wire::new();
    let ours = scattered(900);
    listen(&wire, &ours);
    assert_eq!(heard_of(&wire, &ours), 900);
    let between: Vec<String> = ours.iter().map(|ip| next(ip)).collect();
    assert_eq!(heard_of(&wire, &between), 0);
}

#[test]
fn three_thousand_scattered_addresses_pass_too() {
    let wire = Wire::new();
    let ours = scattered(3000);
    listen(&wire, &ours);
    assert_eq!(heard_of(&wire, &ours), 3000);
    let below = vec!["172.25.63.255".to_owned(), "172.25.200.0".to_owned()];
    assert_eq!(heard_of(&wire, &below), 0, "what is in no gap of theirs stays out");
}

#[test]
fn a_takeover_of_three_thousand_addresses_loses_no_announcement_and_changes_no_filter() {
    let wire = Wire::new();
    let ours = scattered(3000);
    listen(&wire, &ours);
    let mut last = Capture::start(&wire.peer, &format!("arp[6:2] == 1 and arp src host {}", ours[2999]));
    let began = std::time::Instant::now();
    wire.set_all(&ours, Mode::Announce);
    last.next();
    println!("the last of 3,000 was announced after {:?}", began.elapsed());
    wire.wait_for_metric("patina_l2_sent_total{kind=\"announcement\"}", 6000);
    assert_eq!(wire.metric("patina_l2_dropped_total{reason=\"sendFailed\"}"), 0);
    assert_eq!(heard_of(&wire, &ours[..100]), 100);
}

#[test]
fn where_the_kernel_has_little_memory_the_filter_is_shorter_and_nothing_is_lost() {
    let wire = Wire::new();
    set_memory(&wire.node, 6000);
    let ours = scattered(900);
    listen(&wire, &ours);
    assert_eq!(heard_of(&wire, &ours), 900);
    let far = vec!["172.25.63.255".to_owned(), "172.25.200.0".to_owned()];
    assert_eq!(heard_of(&wire, &far), 0, "it is a filter still");
}

#[test]
fn a_protocol_whose_socket_cannot_be_opened_leaves_the_other_alone_and_is_tried_again() {
    let wire = Wire::new();
    // A program for neighbour discovery is a little longer than one for ARP.
    let opens = |protocol, family| {
        let program: Vec<SockFilter> =
            filter::whole(family).iter().map(|i| SockFilter::new(i.code, i.jt, i.jf, i.k)).collect();
        let index = wire.node_index();
        let open = || FrameSocket::open(index, protocol, &program).is_ok();
        wire.node
            .run(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async { open() })
            })
            .unwrap()
    };
    let between = (64..2000).step_by(8).find(|bytes| {
        set_memory(&wire.node, *bytes);
        opens(Protocol::Arp, Family::V4)
    });
    assert!(between.is_some() && !opens(Protocol::Ipv6, Family::V6), "{between:?}");
    wire.announce(&[VIP, VIP6]);
    wire.wait_for_metric(&format!("metallb_layer2_gratuitous_sent{{ip=\"{VIP}\"}}"), 2);
    let mac = show(wire.node_mac());
    assert_eq!(arping(&wire.peer, VIP), Some(mac.clone()));
    assert_eq!(ndisc6(&wire.peer, VIP6), None);
    set_memory(&wire.node, 131_072);
    wait::until_blocking("IPv6 is answered after a later try", secs(5), || {
        let answer = ndisc6(&wire.peer, VIP6);
        Ok(Seen::when(answer.as_ref() == Some(&mac), answer))
    })
    .unwrap();
}

fn next(ip: &str) -> String {
    let ip: std::net::Ipv4Addr = ip.parse().unwrap();
    std::net::Ipv4Addr::from(u32::from(ip) + 1).to_string()
}

/// `net.core.optmem_max` of this namespace: what a socket may hold in filters and options.
fn set_memory(netns: &Netns, bytes: u32) {
    let path = "/proc/sys/net/core/optmem_max";
    netns.run(|| std::fs::write(path, bytes.to_string())).unwrap().unwrap();
}
