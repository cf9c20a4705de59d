//! Our driver with FRR's bfdd and with BIRD, at 50 ms x 3.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use patina_e2e::process::Spec;
use patina_e2e::routers::{Bfd, Kind, Neighbor, Port, Router, RouterConfig};
use patina_e2e::wait::{self, Seen, secs};
use patina_speaker::bfd::Key;
use patina_speaker_core::bfd::{Diagnostic, Settings, State};

use crate::us::{Net, Us, key, settings};

/// FRR with a bfdd that is told what a test likes.
struct Frr {
    router: Box<dyn Router>,
    dir: PathBuf,
}

impl Frr {
    fn start(net: &Net, port: &Port) -> Self {
        // Somebody who is not there: bfdd is started, and BGP has nothing to do.
        let mut nobody = Neighbor::new([172, 27, 0, 99].into(), 64_699);
        nobody.bfd = Some(Bfd { tx: 50, rx: 50, multiplier: 3 });
        let config = RouterConfig::new(64_601, [192, 0, 2, 1].into()).neighbor(nobody);
        let router = Kind::Frr.start(&net.run, "frr", &port.netns, &config).unwrap();
        Self { router, dir: net.run.dir("frr").unwrap() }
    }

    fn vtysh(&self, commands: &[&str]) -> String {
        let mut vtysh = Command::new("vtysh");
        vtysh.arg("--vty_socket").arg(&self.dir).args(commands.iter().flat_map(|command| ["-c", command]));
        let output = vtysh.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{commands:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    fn peer(&self, peer: &str, how: &[&str]) {
        let commands = [&["configure terminal", "bfd", peer][..], how, &["end"]].concat();
        let said = self.vtysh(&commands);
        // It says so whenever echo is switched on, also for IPv4.
        let refused = said.replace("% Echo mode works correctly for IPv4", "");
        assert!(!refused.contains('%'), "{commands:?}: {said}");
    }

    fn until(&self, what: &str, is_so: impl Fn(&str) -> bool) {
        let look = || {
            let said = self.vtysh(&["show bfd peers"]);
            Ok(Seen::when(is_so(&said), said))
        };
        wait::until_blocking(what, secs(20), look)
            .unwrap_or_else(|error| panic!("{error:#}\n{}", self.router.show()));
    }
}

/// A machine that also compiles may be so late.
const LATE: Duration = Duration::from_millis(250);
const FAST: [&str; 4] = ["detect-multiplier 3", "transmit-interval 50", "receive-interval 50", "no shutdown"];

#[test]
fn with_frr_over_ipv4_ipv6_link_local_and_several_hops() {
    let net = Net::new();
    let (a, b) = (net.wires.plug("a", 1).unwrap(), net.wires.plug("b", 2).unwrap());
    let (us, mut frr) = (Us::start(&a), Frr::start(&net, &b));
    let local = |peer: IpAddr, local: IpAddr| Key { local: Some(local), ..key(peer) };
    let cases = [
        (local(b.v4.into(), a.v4.into()), format!("peer {} local-address {} interface eth0", a.v4, b.v4)),
        (local(b.v6.into(), a.v6.into()), format!("peer {} local-address {} interface eth0", a.v6, b.v6)),
        (
            Key { interface: Some("eth0".to_owned()), ..key(b.link_local) },
            format!("peer {} local-address {} interface eth0", a.link_local, b.link_local),
        ),
        (
            Key { multihop: true, ..local(b.v4.into(), a.v4.into()) },
            format!("peer {} multihop local-address {}", a.v4, b.v4),
        ),
    ];
    for (key, peer) in &cases {
        us.add(key.clone(), settings());
        frr.peer(peer, &FAST);
    }
    let mut since = Vec::new();
    for (key, _) in &cases {
        since.push(us.until_up(key).since);
    }
    frr.until("FRR says so, too", |said| said.matches("Status: up").count() == cases.len());
    // Ten seconds of 50 ms x 3.
    let input = || us.metric(&format!("metallb_bfd_control_packet_input{{peer=\"{}\",vrf=\"\"}}", b.v6));
    let before = input();
    wait::until_blocking("200 packets more", secs(30), || Ok(Seen::when(input() > before + 200, input())))
        .unwrap();
    for ((key, _), since) in cases.iter().zip(&since) {
        assert_eq!(us.status(key).unwrap().since, *since, "{key}: nothing happened to it\n{}", us.metrics());
    }

    // FRR's intervals change, and the session does not mind.
    frr.peer(&cases[0].1, &["transmit-interval 300", "receive-interval 300"]);
    let slow = Duration::from_millis(900);
    us.until(&cases[0].0, "follows", |status| status.view.detection_time == Some(slow));
    frr.peer(&cases[0].1, &["transmit-interval 50", "receive-interval 50"]);
    us.until_up(&cases[0].0);
    // So do ours.
    us.change(&cases[1].0, |wanted| wanted.settings.transmit_interval = Duration::from_millis(400));
    frr.until("FRR follows", |said| said.contains("400ms"));
    us.until(&cases[1].0, "sends so", |status| {
        status.view.transmit_interval == Some(Duration::from_millis(400))
    });
    for ((key, _), since) in cases.iter().zip(&since) {
        assert_eq!(us.status(key).unwrap().since, *since, "{key}: it was not down for that");
    }

    // An operator's word is no failure, in either direction.
    frr.peer(&cases[0].1, &["shutdown"]);
    let status = us.until(&cases[0].0, "is down", |status| status.view.state == State::Down);
    assert_eq!(
        (status.view.diagnostic, status.view.remote),
        (Diagnostic::NeighborSignaledDown, State::AdminDown)
    );
    frr.peer(&cases[0].1, &["no shutdown"]);
    us.until_up(&cases[0].0);
    us.change(&cases[2].0, |wanted| wanted.admin_down = true);
    frr.until("FRR hears of it", |said| said.contains("Remote diagnostics: administratively down"));
    us.change(&cases[2].0, |wanted| wanted.admin_down = false);
    us.until_up(&cases[2].0);

    // Its death is noticed within a detection time.
    let bfdd = frr.router.processes().into_iter().find(|process| process.name().ends_with("bfdd")).unwrap();
    let killed = Instant::now();
    bfdd.kill();
    for (key, _) in &cases {
        let status = us.until(key, "is down", |status| status.view.state == State::Down);
        assert_eq!(status.view.diagnostic, Diagnostic::ControlDetectionTimeExpired, "{key}");
        let took = status.since.duration_since(killed);
        assert!(took <= Duration::from_millis(150) + LATE, "{key}: {took:?}");
        println!("{key}: down {took:?} after bfdd was killed");
    }
}

#[test]
fn with_frr_and_echo_in_both_directions() {
    let net = Net::new();
    let (a, b) = (net.wires.plug("a", 1).unwrap(), net.wires.plug("b", 2).unwrap());
    let (us, frr) = (Us::start(&a), Frr::start(&net, &b));
    let key = key(b.v4);
    us.add(key.clone(), Settings { echo_mode: true, ..settings() });
    let echo = ["echo-mode", "echo transmit-interval 50", "echo receive-interval 50"];
    frr.peer(
        &format!("peer {} local-address {} interface eth0", a.v4, b.v4),
        &[&FAST[..3], &echo, &FAST[3..]].concat(),
    );
    let status = us.until(&key, "echoes", |status| status.view.state == State::Up && status.view.echo);
    // FRR loops ours, and we loop FRR's: while either is wrong the session does not last.
    let series = format!("metallb_bfd_echo_packet_input{{peer=\"{}\",vrf=\"\"}}", b.v4);
    let before = us.metric(&series);
    wait::until_blocking("200 of ours more", secs(30), || {
        Ok(Seen::when(us.metric(&series) > before + 200, us.metric(&series)))
    })
    .unwrap();
    let counters = frr.vtysh(&["show bfd peers counters"]);
    let numbers = counters.lines().filter_map(|line| line.trim().strip_prefix("Echo packet input: "));
    let theirs: u32 = numbers.filter_map(|text| text.split(' ').next()?.parse::<u32>().ok()).sum();
    assert!(theirs > 150, "FRR's came back, too: {counters}");
    let now = us.status(&key).unwrap();
    assert_eq!((now.since, now.downs), (status.since, 0), "{}", us.metrics());
}

#[test]
fn with_bird_over_ipv4_and_ipv6() {
    let net = Net::new();
    let (a, b) = (net.wires.plug("a", 1).unwrap(), net.wires.plug("b", 2).unwrap());
    let us = Us::start(&a);
    let config = net.run.dir("bird").unwrap().join("bird.conf");
    let text = format!(
        "log stderr all;\nrouter id 192.0.2.2;\nprotocol device {{}}\nprotocol bfd {{\n  interface \"eth0\" {{\n    \
         min rx interval 50 ms;\n    min tx interval 50 ms;\n    idle tx interval 1 s;\n    multiplier 3;\n  }};\n  \
         neighbor {} dev \"eth0\" local {};\n  neighbor {} dev \"eth0\" local {};\n}}\n",
        a.v4, b.v4, a.v6, b.v6
    );
    std::fs::write(&config, text).unwrap();
    let socket = config.with_extension("ctl");
    let mut bird = Spec::new("bird", "/usr/sbin/bird")
        .arg("-f")
        .arg("-c")
        .arg(&config)
        .arg("-s")
        .arg(&socket)
        .netns(Some(&b.netns))
        .spawn(&net.run)
        .unwrap();
    let keys = [key(b.v4), key(b.v6)];
    for key in &keys {
        us.add(key.clone(), settings());
    }
    let since: Vec<Instant> = keys.iter().map(|key| us.until_up(key).since).collect();
    let input = || us.metric(&format!("metallb_bfd_control_packet_input{{peer=\"{}\",vrf=\"\"}}", b.v4));
    let before = input();
    wait::until_blocking("200 packets more", secs(30), || Ok(Seen::when(input() > before + 200, input())))
        .unwrap();
    for (key, since) in keys.iter().zip(since) {
        assert_eq!(us.status(key).unwrap().since, since, "{key}: nothing happened to it\n{}", us.metrics());
    }
    let killed = Instant::now();
    bird.kill();
    for key in &keys {
        let status = us.until(key, "is down", |status| status.view.state == State::Down);
        let took = status.since.duration_since(killed);
        assert!(took <= Duration::from_millis(150) + LATE, "{key}: {took:?}");
        println!("{key}: down {took:?} after bird was killed");
    }
}
