//! The routers of the lab with each other, without our speaker: what is in their packages, how they are told, and how they are
//! asked. A test of ours that fails later is then about us.
#![allow(clippy::unwrap_used, clippy::panic)] // a failed expectation is a failed test

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use anyhow::Context as _;
use patina_e2e::routers::{
    Bfd, Family, Kind, Neighbor, Port, Route, Router, RouterConfig, Session, State, Wires,
};
use patina_e2e::rundir::RunDir;
use patina_e2e::wait::{self, Seen, secs};

/// Two routers side by side on a bridge.
struct Two {
    ports: [Port; 2],
    wires: Wires,
    run: Arc<RunDir>,
}

const ASN: [u32; 2] = [64601, 4_200_000_602];

impl Two {
    fn new() -> Self {
        let run = Arc::new(RunDir::create().unwrap());
        let wires = Wires::new(&run).unwrap();
        let ports = [wires.plug("left", 1).unwrap(), wires.plug("right", 2).unwrap()];
        Self { ports, wires, run }
    }

    /// How `own` is told of the other one, with both families on an IPv4 session.
    fn config(&self, own: usize, change: impl Fn(&mut Neighbor)) -> RouterConfig {
        let other = 1 - own;
        let mut neighbor = Neighbor::new(self.ports[other].v4.into(), ASN[other]);
        neighbor.local = Some(self.ports[own].v4.into());
        neighbor.families = BTreeSet::from([Family::V4, Family::V6]);
        change(&mut neighbor);
        let id = Ipv4Addr::new(192, 0, 2, u8::try_from(own).unwrap() + 1);
        RouterConfig::new(ASN[own], id).neighbor(neighbor)
    }

    fn start(&self, own: usize, kind: Kind, config: &RouterConfig) -> Box<dyn Router> {
        let port = &self.ports[own];
        kind.start(
            &self.run,
            &format!("{}-{}", port.name, format!("{kind:?}").to_lowercase()),
            &port.netns,
            config,
        )
        .unwrap()
    }
}

/// Waits until this holds of the router; on failure says all that it knows.
fn until<T>(what: &str, router: &dyn Router, look: impl FnMut() -> anyhow::Result<Seen<T>>) -> T {
    let waited = wait::until_blocking(what, secs(40), look);
    waited.unwrap_or_else(|error| panic!("{}: {error:#}\n{}", router.kind(), router.show()))
}

fn first(router: &dyn Router) -> anyhow::Result<Session> {
    router.sessions()?.into_iter().next().context("it knows no neighbour")
}

fn established(router: &dyn Router) {
    until("its session is established", router, || {
        let sessions = router.sessions()?;
        let all = !sessions.is_empty() && sessions.iter().all(|session| session.state == State::Established);
        Ok(Seen::when(all, sessions))
    });
}

fn gets(router: &dyn Router, prefix: &str) -> Route {
    let family = if prefix.contains(':') { Family::V6 } else { Family::V4 };
    until(&format!("it has a route to {prefix}"), router, || {
        let routes = router.routes(family)?;
        let found = routes.iter().find(|route| route.prefix == prefix).cloned();
        Ok(found.map_or_else(|| Seen::Not(format!("{routes:?}")), Seen::Done))
    })
}

/// Both peer, over MD5, and each gets the other's routes of both families as they were sent.
fn peer(left: Kind, right: Kind) {
    let two = Two::new();
    let secret = |neighbor: &mut Neighbor| neighbor.password = Some("correct-horse".to_owned());
    let communities = ["64601:7", "large:4200000602:1:2"];
    let originates = |kind: Kind| match kind {
        Kind::Frr | Kind::Bird => [].as_slice(),
        Kind::Gobgp | Kind::Exabgp => communities.as_slice(),
    };
    let left_config = two.config(0, secret).originate("198.51.100.1/32", originates(left));
    let right_config = two.config(1, secret);
    let right_config =
        right_config.originate("198.51.100.2/32", originates(right)).originate("2001:db8:2::1/128", &[]);
    let left_router = two.start(0, left, &left_config);
    let right_router = two.start(1, right, &right_config);
    for router in [&left_router, &right_router] {
        established(router.as_ref());
    }

    let of_right = gets(left_router.as_ref(), "198.51.100.2/32");
    assert_eq!(
        (&of_right.as_path, &of_right.next_hops),
        (&vec![ASN[1]], &vec![IpAddr::from(two.ports[1].v4)]),
        "{left}"
    );
    let expected: BTreeSet<String> = originates(right).iter().map(|one| (*one).to_owned()).collect();
    assert_eq!(of_right.communities, expected, "{left} of {right}");
    let of_left = gets(right_router.as_ref(), "198.51.100.1/32");
    assert_eq!(
        (&of_left.as_path, &of_left.next_hops),
        (&vec![ASN[0]], &vec![IpAddr::from(two.ports[0].v4)]),
        "{right}"
    );
    // GoBGP and ExaBGP have no IPv6 next hop of their own on an IPv4 session: what they say for one is their business.
    if matches!(right, Kind::Frr | Kind::Bird) {
        let v6 = gets(left_router.as_ref(), "2001:db8:2::1/128");
        assert!(v6.next_hops.contains(&two.ports[1].v6.into()), "{left} of {right}: {v6:?}");
    }

    let session = first(left_router.as_ref()).unwrap();
    assert_eq!(
        (session.neighbor.as_str(), session.flaps),
        (two.ports[1].v4.to_string().as_str(), 0),
        "{session:?}"
    );
    assert!(session.uptime.is_some_and(|uptime| uptime < secs(60)), "{session:?}");
    // FRR sends back what it got, and ExaBGP drops no loops.
    assert!(session.received.get(&Family::V4).is_some_and(|count| *count >= 1), "{session:?}");

    // A wrong key would have been noticed: the session did not come up without one.
    two.wires.cable(&two.ports[1], false).unwrap();
    until("it misses its neighbour", left_router.as_ref(), || {
        let session = first(left_router.as_ref())?;
        Ok(Seen::when(session.state != State::Established && session.flaps == 1, session))
    });
    assert_eq!(left_router.routes(Family::V4).unwrap(), [], "{left} keeps what {right} took along");
}

#[test]
fn frr_and_bird_peer() {
    peer(Kind::Frr, Kind::Bird);
}

#[test]
fn bird_and_gobgp_peer() {
    peer(Kind::Bird, Kind::Gobgp);
}

#[test]
fn gobgp_and_exabgp_peer() {
    peer(Kind::Gobgp, Kind::Exabgp);
}

#[test]
fn exabgp_and_frr_peer() {
    peer(Kind::Exabgp, Kind::Frr);
}

#[test]
fn bfd_of_frr_and_bird_takes_the_session_down_long_before_its_hold_time() {
    let two = Two::new();
    let bfd = |neighbor: &mut Neighbor| {
        neighbor.bfd = Some(Bfd { tx: 50, rx: 50, multiplier: 3 });
        neighbor.hold_time = 180;
    };
    let frr = two.start(0, Kind::Frr, &two.config(0, bfd));
    let bird = two.start(1, Kind::Bird, &two.config(1, bfd));
    for router in [&frr, &bird] {
        until("BFD and the session are up", router.as_ref(), || {
            let session = first(router.as_ref())?;
            Ok(Seen::when(session.bfd_up == Some(true) && session.state == State::Established, session))
        });
    }
    two.wires.cable(&two.ports[1], false).unwrap();
    for router in [&frr, &bird] {
        let down = wait::until_blocking("the session is down", secs(5), || {
            let session = first(router.as_ref())?;
            Ok(Seen::when(session.bfd_up == Some(false) && session.state != State::Established, session))
        });
        down.unwrap_or_else(|error| panic!("{}: {error:#}\n{}", router.kind(), router.show()));
    }
}

#[test]
fn a_wrong_key_is_no_session() {
    let two = Two::new();
    let key = |key: &'static str| move |neighbor: &mut Neighbor| neighbor.password = Some(key.to_owned());
    let frr = two.start(0, Kind::Frr, &two.config(0, key("one")));
    let _bird = two.start(1, Kind::Bird, &two.config(1, key("another")));
    // Twice the time that a session with the right key takes at most: it would be there.
    let looked = wait::until_blocking("a session", secs(8), || {
        let sessions = frr.sessions()?;
        Ok(Seen::when(sessions.iter().any(|session| session.state == State::Established), sessions))
    });
    assert!(looked.is_err(), "{looked:?}");
}

#[test]
fn an_unnumbered_session_of_two_frrs_carries_ipv4_over_ipv6() {
    let two = Two::new();
    let config = |own: usize| {
        let id = Ipv4Addr::new(192, 0, 2, u8::try_from(own).unwrap() + 1);
        RouterConfig::new(ASN[own], id).neighbor(Neighbor::on("eth0", ASN[1 - own]))
    };
    let left = two.start(0, Kind::Frr, &config(0));
    let right = two.start(1, Kind::Frr, &config(1).originate("198.51.100.2/32", &[]));
    established(right.as_ref());
    let route = gets(left.as_ref(), "198.51.100.2/32");
    assert!(!route.next_hops.is_empty() && route.next_hops.iter().all(IpAddr::is_ipv6), "{route:?}");
}
