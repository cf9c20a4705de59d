//! Two of our drivers.

use std::net::{IpAddr, UdpSocket};
use std::time::{Duration, Instant};

use patina_e2e::wait::{self, Seen, secs};
use patina_speaker::bfd::Key;
use patina_speaker_core::bfd::{Diagnostic, Settings, State};
use patina_speaker_core::bgp::peer::Bfd;

use crate::us::{Net, Us, key, settings};

/// A machine that also compiles may be so late.
const LATE: Duration = Duration::from_millis(250);

#[test]
fn two_of_ours_come_up_and_a_pulled_cable_is_noticed_in_time() {
    let net = Net::new();
    let (a, b) = (net.wires.plug("a", 1).unwrap(), net.wires.plug("b", 2).unwrap());
    let (us, them) = (Us::start(&a), Us::start(&b));
    let link = |peer: std::net::Ipv6Addr| Key { interface: Some("eth0".to_owned()), ..key(peer) };
    let far = |peer: IpAddr, local: IpAddr| Key { local: Some(local), multihop: true, ..key(peer) };
    let pairs = [
        (key(b.v4), key(a.v4)),
        (key(b.v6), key(a.v6)),
        (link(b.link_local), link(a.link_local)),
        (far(b.v4.into(), a.v4.into()), far(a.v4.into(), b.v4.into())),
        (far(b.v6.into(), a.v6.into()), far(a.v6.into(), b.v6.into())),
    ];
    for (ours, theirs) in &pairs {
        us.add(ours.clone(), settings());
        them.add(theirs.clone(), settings());
    }
    for (ours, theirs) in &pairs {
        us.until_up(ours);
        them.until_up(theirs);
    }
    // They go on.
    let since: Vec<Instant> = pairs.iter().map(|(ours, _)| us.status(ours).unwrap().since).collect();
    let sent = us.metric(&format!("metallb_bfd_control_packet_output{{peer=\"{}\",vrf=\"\"}}", b.v4));
    wait::until_blocking("a hundred packets more", secs(10), || {
        let now = us.metric(&format!("metallb_bfd_control_packet_output{{peer=\"{}\",vrf=\"\"}}", b.v4));
        Ok(Seen::when(now > sent + 100, now))
    })
    .unwrap();
    for ((ours, _), since) in pairs.iter().zip(since) {
        assert_eq!(
            us.status(ours).unwrap().since,
            since,
            "{ours}: a session that nothing happened to\n{}",
            us.metrics()
        );
    }
    let pulled = Instant::now();
    net.wires.cable(&b, false).unwrap();
    let done = Instant::now();
    for (ours, _) in &pairs {
        let status = us.until(ours, "is down", |status| status.view.state == State::Down);
        assert_eq!((status.view.diagnostic, status.downs), (Diagnostic::ControlDetectionTimeExpired, 1));
        assert_eq!(status.says, Some(Bfd::Down));
        // The last packet came at most one interval before the cable was pulled.
        let (least, most) = (Duration::from_millis(90), Duration::from_millis(150));
        let took = (status.since.duration_since(pulled), status.since.duration_since(done));
        assert!(took.0 >= least && took.1 <= most + LATE, "{ours}: {took:?}");
        println!("{ours}: down {:?} after the cable was pulled", took.0);
    }
    net.wires.cable(&b, true).unwrap();
    for (ours, theirs) in &pairs {
        us.until_up(ours);
        them.until_up(theirs);
    }
    let labels = format!("{{peer=\"{}\",vrf=\"\"}}", b.v4);
    // Two sessions with one peer are counted together.
    assert_eq!(us.metric(&format!("metallb_bfd_session_down_events{labels}")), 2);
    assert_eq!(us.metric(&format!("metallb_bfd_session_up_events{labels}")), 4);
    assert_eq!(us.metric(&format!("metallb_bfd_session_up{labels}")), 1);
}

#[test]
fn a_removed_session_and_a_stopped_speaker_are_no_failure() {
    let net = Net::new();
    let (a, b) = (net.wires.plug("a", 1).unwrap(), net.wires.plug("b", 2).unwrap());
    let (mut us, them) = (Us::start(&a), Us::start(&b));
    let (ours, theirs) = (key(b.v4), key(a.v4));
    us.add(ours.clone(), settings());
    them.add(theirs.clone(), settings());
    us.until_up(&ours);
    let told = |what: &str| {
        let status = them.until(&theirs, what, |status| status.view.state == State::Down);
        let view = status.view;
        assert_eq!((view.diagnostic, view.remote), (Diagnostic::NeighborSignaledDown, State::AdminDown));
        assert_eq!(status.says, Some(Bfd::AdminDown), "no reason to end the BGP session");
    };
    us.change(&ours, |wanted| wanted.admin_down = true);
    told("is held down by the peer");
    us.change(&ours, |wanted| wanted.admin_down = false);
    them.until_up(&theirs);
    us.remove(&ours);
    told("is removed by the peer");
    us.add(ours.clone(), settings());
    them.until_up(&theirs);
    let began = Instant::now();
    us.stop();
    assert!(began.elapsed() < secs(1), "the peer knew at once");
    told("the peer's speaker has ended");
    assert!(!us.metrics().contains("peer="), "{}", us.metrics());
}

#[test]
fn changed_intervals_are_agreed_on_without_a_flap() {
    let net = Net::new();
    let (a, b) = (net.wires.plug("a", 1).unwrap(), net.wires.plug("b", 2).unwrap());
    let (us, them) = (Us::start(&a), Us::start(&b));
    let (ours, theirs) = (key(b.v4), key(a.v4));
    us.add(ours.clone(), settings());
    them.add(theirs.clone(), settings());
    let up = us.until_up(&ours);
    for interval in [400, 20, 300, 50].map(Duration::from_millis) {
        us.change(&ours, |wanted| {
            wanted.settings.transmit_interval = interval;
            wanted.settings.receive_interval = interval;
        });
        let agreed = interval.max(Duration::from_millis(50));
        us.until(&ours, "sends so", |status| status.view.transmit_interval == Some(agreed));
        us.until(&ours, "waits so", |status| status.view.detection_time == Some(agreed * 3));
        them.until(&theirs, "waits so", |status| status.view.detection_time == Some(agreed * 3));
    }
    assert_eq!((us.status(&ours).unwrap().since, us.status(&ours).unwrap().downs), (up.since, 0));
}

#[test]
fn what_waited_in_the_socket_while_our_thread_stood_still_counts() {
    let net = Net::new();
    let (a, b) = (net.wires.plug("a", 1).unwrap(), net.wires.plug("b", 2).unwrap());
    let (us, them) = (Us::start(&a), Us::start(&b));
    let (ours, theirs) = (key(b.v4), key(a.v4));
    // The peer is patient with us, and we are not with the peer.
    let patient = || Settings { receive_interval: secs(2), ..settings() };
    us.add(ours.clone(), settings());
    them.add(theirs.clone(), patient());
    let up = us.until_up(&ours);
    for _ in 0..3 {
        let pause = us.pause();
        // Eight detection times.
        let series = format!("metallb_bfd_control_packet_output{{peer=\"{}\",vrf=\"\"}}", a.v4);
        let before = them.metric(&series);
        wait::until_blocking("the peer has sent a lot", secs(10), || {
            let now = them.metric(&series);
            Ok(Seen::when(now >= before + 24, now))
        })
        .unwrap();
        drop(pause);
    }
    let series = format!("metallb_bfd_control_packet_input{{peer=\"{}\",vrf=\"\"}}", b.v4);
    let before = us.metric(&series);
    wait::until_blocking("it goes on", secs(10), || Ok(Seen::when(us.metric(&series) >= before + 10, ())))
        .unwrap();
    assert_eq!((us.status(&ours).unwrap().since, us.status(&ours).unwrap().downs), (up.since, 0));
}

#[test]
fn strangers_are_counted_and_neither_answered_nor_a_nuisance() {
    let net = Net::new();
    let plug = |name: &str, host| net.wires.plug(name, host).unwrap();
    let (a, b, c) = (plug("a", 1), plug("b", 2), plug("c", 3));
    let (us, them) = (Us::start(&a), Us::start(&b));
    let (ours, theirs) = (key(b.v4), key(a.v4));
    us.add(ours.clone(), settings());
    them.add(theirs, settings());
    let up = us.until_up(&ours);
    let socket = c
        .netns
        .run(|| {
            let socket = UdpSocket::bind((c.v4, 3784)).unwrap();
            socket.set_ttl(255).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
            socket
        })
        .unwrap();
    let down = "20400318 00000077 00000000 000f4240 0000c350 00000000";
    let up_for_nobody = "20e00318 00000077 00000001 0000c350 0000c350 00000000";
    let cases = [
        (down, "stranger"),
        (up_for_nobody, "yourDiscriminatorUnknown"),
        ("00", "version"),
        ("2040", "length"),
    ];
    for (text, reason) in cases {
        let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
        let bytes: Vec<u8> =
            digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap()).collect();
        let series = format!("patina_bfd_dropped_total{{reason=\"{reason}\"}}");
        let before = us.metric(&series);
        for _ in 0..20_000 {
            let _sent = socket.send_to(&bytes, (a.v4, 3784));
        }
        wait::until_blocking(&series, secs(5), || {
            Ok(Seen::when(us.metric(&series) > before + 1000, us.metric(&series)))
        })
        .unwrap();
    }
    assert!(socket.recv(&mut [0; 64]).is_err(), "nobody answers a stranger");
    assert_eq!((us.status(&ours).unwrap().since, us.status(&ours).unwrap().downs), (up.since, 0));
}
