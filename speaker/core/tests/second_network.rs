//! From a silent segment to another leader: the membership of many under a virtual clock, and what each of them decides from it
//! for a Service whose address is on the second segment.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a failed expectation is a failed test
#![allow(unreachable_pub, dead_code)] // the swarm is shared with other programs
#![allow(clippy::disallowed_methods)] // the runner, unlike the core, has an environment and an origin of its clock

mod swarm;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use patina_crds::config::{Config, Failback, L2Advertisement, ObjectRef, Pool, ServiceAllocation};
use patina_speaker_core::intent::intent;
use patina_speaker_core::membership::{self, Input};
use patina_speaker_core::view::{
    EndpointView, InterfaceView, NodeView, Options, ServiceFacts, ServiceId, ServiceView, Snapshot,
};
use swarm::{BAD, LAN, Network, Swarm, address, address_there, name};

const MS: fn(u64) -> Duration = Duration::from_millis;
const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 1, 200, 1));
const SEEDS: std::ops::Range<u64> = 0..6;

#[test]
fn a_leader_whose_second_network_passes_nothing_is_replaced_by_all_at_about_the_detection_time() {
    for (network, most) in [(LAN, MS(450)), (BAD, MS(600))] {
        for seed in SEEDS {
            let mut swarm = started(5, network, seed);
            let leader = agreed(&swarm).unwrap_or_else(|| panic!("seed {seed}: {:?}", leaders(&swarm)));
            swarm.mute.insert(leader);
            swarm.deaf.insert(leader);
            let taken = swarm.run_until(MS(1500), |swarm| agreed(swarm).is_some_and(|other| other != leader));
            assert!(taken.is_some_and(|taken| taken <= most), "seed {seed}: {taken:?}");
            let moved = swarm.run_until(MS(3000), |swarm| agreed(swarm).is_none_or(|other| other == leader));
            assert_eq!(moved, None, "seed {seed}: it stays where it is");
            swarm.mute.clear();
            swarm.deaf.clear();
            let back = swarm.run_until(MS(1500), |swarm| agreed(swarm) == Some(leader));
            assert!(back.is_some_and(|back| back <= MS(750)), "seed {seed}: {back:?}");
            assert!(swarm.false_verdicts(&BTreeSet::new()).is_empty(), "seed {seed}: nobody is dead");
        }
    }
}

#[test]
fn a_network_on_which_nobody_hears_anybody_moves_nothing() {
    for seed in SEEDS {
        let mut swarm = started(4, LAN, seed);
        let leader = agreed(&swarm).expect("a leader");
        // As behind firewalls that refuse the port there, and pass ARP.
        swarm.mute.extend(0..4);
        swarm.run(MS(2000));
        assert!((0..4).all(|node| swarm.isolated_for(node).len() == 4), "seed {seed}");
        assert_eq!(agreed(&swarm), Some(leader), "seed {seed}");
    }
}

#[test]
fn a_node_that_cannot_listen_there_leads_as_before() {
    for seed in SEEDS {
        let mut swarm = started(4, LAN, seed);
        let leader = agreed(&swarm).expect("a leader");
        // Its port is taken there: it neither asks nor is asked, and nothing is known of its cable.
        swarm.input(leader, Input::Listen(BTreeSet::new()));
        let moved = swarm.run_until(MS(3000), |swarm| agreed(swarm) != Some(leader));
        assert_eq!(moved, None, "seed {seed}");
    }
}

fn started(count: usize, network: Network, seed: u64) -> Swarm {
    let all: Vec<usize> = (0..count).collect();
    let swarm = Swarm::started_with_second(count, &all, network, seed);
    // The driver listens where the core says.
    let listening = membership::further(&swarm.says(0), &[address(0)]);
    assert_eq!(listening.iter().map(|there| there.address).collect::<Vec<_>>(), [address_there(0).ip()]);
    swarm
}

/// Whom all take for the leader, if it is one.
fn agreed(swarm: &Swarm) -> Option<usize> {
    let leaders = leaders(swarm);
    let first = leaders.first()?.clone()?;
    let one = leaders.iter().all(|leader| leader.as_ref() == Some(&first));
    (0..leaders.len()).find(|node| one && name(*node) == first)
}

/// The leader, for each node.
fn leaders(swarm: &Swarm) -> Vec<Option<String>> {
    let (config, service) = (config(), service());
    let count = swarm.second.len();
    let nodes: Vec<NodeView> =
        (0..count).map(|node| NodeView { name: name(node), ..NodeView::default() }).collect();
    let decide = |node: usize| {
        let state = swarm.machine(node)?.state();
        let name = name(node);
        let intent = intent(&Snapshot {
            node: &name,
            config: &config,
            services: std::slice::from_ref(&service),
            nodes: &nodes,
            members: &state.members,
            interfaces: &interfaces(node),
            options: &Options::default(),
        });
        intent.verdicts.values().next()?.leader.as_ref().map(ToString::to_string)
    };
    (0..count).map(decide).collect()
}

fn interfaces(node: usize) -> Vec<InterfaceView> {
    let interface = |name: &str, index, ip| InterfaceView {
        name: name.to_owned(),
        index,
        mac: [2; 6],
        up: true,
        arp: true,
        addresses: BTreeSet::from([(ip, 16)]),
        ..InterfaceView::default()
    };
    vec![interface("eth0", 2, address(node).ip()), interface("eth1", 3, address_there(node).ip())]
}

fn config() -> Config {
    let source =
        |kind: &str| ObjectRef { kind: kind.to_owned(), namespace: String::new(), name: "all".to_owned() };
    let pool = Pool {
        name: "all".to_owned(),
        source: source("IPAddressPool"),
        labels: BTreeMap::new(),
        ranges: vec!["10.1.200.0/24".parse().unwrap()],
        auto_assign: true,
        avoid_buggy_ips: false,
        allocation: ServiceAllocation::default(),
    };
    let advertisement = L2Advertisement {
        source: source("L2Advertisement"),
        pools: ["all".to_owned()].into(),
        node_selectors: Vec::new(),
        interfaces: BTreeSet::new(),
        service_selectors: Vec::new(),
        preferred_nodes: Vec::new(),
        failback: Failback::default(),
    };
    Config {
        pools: [("all".to_owned(), pool)].into(),
        l2_advertisements: vec![advertisement],
        ..Config::default()
    }
}

fn service() -> ServiceView {
    let facts = ServiceFacts {
        id: ServiceId::new("default", "there"),
        ingress_text: VIP.to_string(),
        ingress: vec![VIP],
        is_load_balancer: true,
        ..ServiceFacts::default()
    };
    ServiceView::new(facts, [EndpointView { node: None, usable: true }])
}
