//! How long a decision takes, and what is kept for the next: `cargo run --release -p patina-speaker-core --example speed`.
//! Wall time of one thread that does nothing else. The benchmark of whole speakers is `make bench`.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::panic)] // a benchmark reads the clock and stops at the first lie

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use patina_crds::config::{Config, Failback, L2Advertisement, ObjectRef, Pool, ServiceAllocation};
use patina_crds::selector::Labels;
use patina_speaker_core::intent::{Cache, Intent, intent_with};
use patina_speaker_core::view::{
    EndpointView, InterfaceView, Member, Members, NodeView, Options, ServiceFacts, ServiceId, ServiceView,
    Snapshot, TrafficPolicy,
};

const SERVICES: u32 = 10_000;

fn main() {
    let (services, nodes) = match std::env::args().nth(1).as_deref() {
        // For a try without optimization.
        Some("small") => (SERVICES / 10, 100),
        _ => (SERVICES, 1000),
    };
    for count in [3, 50, nodes] {
        run(&format!("{services} Services, {count} nodes"), &Cluster::new(count, services));
    }
    let mut local = Cluster::new(nodes, services);
    local.make_local(3);
    run(&format!("{services} Local Services with 3 endpoints, {nodes} nodes"), &local);
}

/// First without a cache, then with: nothing new, a death, five more, a new node.
fn run(title: &str, cluster: &Cluster) {
    println!("{title}");
    let (mut cache, mut cluster) = (Cache::default(), cluster.clone());
    let mut last = Intent::default();
    let mut decide = |what: &str, cluster: &Cluster| {
        let before = resident();
        let (intent, took) = cluster.decide(&mut cache);
        let moved = intent
            .verdicts
            .iter()
            .filter(|(id, verdict)| last.verdicts.get(*id).is_some_and(|old| old.leader != verdict.leader));
        let moved = moved.count();
        last = intent;
        let grown = resident().saturating_sub(before);
        println!("  {what:<12} {:>8.1} ms, {moved} moved, {grown} kB more", took.as_secs_f64() * 1000.0);
        leader(&last)
    };
    let first = decide("first", &cluster);
    decide("again", &cluster);
    cluster.members.remove(&first);
    let second = decide("a death", &cluster);
    cluster.members.insert(first, Member::default());
    decide("its return", &cluster);
    cluster.members.remove(&second);
    for node in cluster.nodes.iter().rev().take(cluster.nodes.len() / 20).map(|node| &node.name) {
        cluster.members.remove(node);
    }
    decide("a rack dies", &cluster);
    cluster.add("node-new");
    decide("a new node", &cluster);
}

/// Some leader that is not the node that decides.
fn leader(intent: &Intent) -> String {
    let leaders: BTreeSet<_> =
        intent.verdicts.values().filter_map(|verdict| verdict.leader.clone()).collect();
    leaders.into_iter().find(|node| **node != *ME).unwrap().to_string()
}

const ME: &str = "node-0";

#[derive(Clone)]
struct Cluster {
    config: Config,
    nodes: Vec<NodeView>,
    members: Members,
    services: Vec<ServiceView>,
    interfaces: Vec<InterfaceView>,
}

impl Cluster {
    fn new(nodes: usize, services: u32) -> Self {
        let object = |kind: &str| ObjectRef { kind: kind.into(), namespace: "x".into(), name: "all".into() };
        let pool = Pool {
            name: "all".into(),
            source: object("IPAddressPool"),
            labels: Labels::new(),
            ranges: vec!["10.0.0.0/16".parse().unwrap()],
            auto_assign: true,
            avoid_buggy_ips: false,
            allocation: ServiceAllocation::default(),
        };
        let advertisement = L2Advertisement {
            source: object("L2Advertisement"),
            pools: ["all".to_owned()].into(),
            node_selectors: Vec::new(),
            interfaces: BTreeSet::new(),
            service_selectors: Vec::new(),
            preferred_nodes: Vec::new(),
            failback: Failback::Immediate,
        };
        let interface = InterfaceView {
            name: "eth0".into(),
            index: 2,
            up: true,
            arp: true,
            ndp: true,
            addresses: [(IpAddr::V4(Ipv4Addr::new(10, 0, 255, 1)), 16)].into(),
            ..InterfaceView::default()
        };
        let mut cluster = Self {
            config: Config {
                pools: [("all".to_owned(), pool)].into(),
                l2_advertisements: vec![advertisement],
                ..Config::default()
            },
            nodes: Vec::new(),
            members: Members::new(),
            services: (0..services).map(service).collect(),
            interfaces: vec![interface],
        };
        (0..nodes).for_each(|node| cluster.add(&format!("node-{node}")));
        cluster
    }

    fn add(&mut self, name: &str) {
        self.nodes.push(NodeView { name: name.to_owned(), ..NodeView::default() });
        let interfaces = self.interfaces.iter().map(InterfaceView::told).collect();
        let member = Member { interfaces: Some(interfaces), ..Member::default() };
        self.members.insert(name.to_owned(), member);
    }

    fn make_local(&mut self, endpoints: usize) {
        for (number, view) in self.services.iter_mut().enumerate() {
            let facts =
                ServiceFacts { traffic_policy: TrafficPolicy::Local, ..ServiceFacts::clone(&view.facts) };
            let node = |i: usize| &self.nodes[(number + i * 7) % self.nodes.len()];
            let endpoint = |i| EndpointView { node: Some(node(i).name.as_str().into()), usable: true };
            *view = ServiceView::new(facts, (0..endpoints).map(endpoint));
        }
    }

    fn decide(&self, cache: &mut Cache) -> (Intent, Duration) {
        let began = Instant::now();
        let intent = intent_with(
            cache,
            &Snapshot {
                node: ME,
                config: &self.config,
                services: &self.services,
                nodes: &self.nodes,
                members: &self.members,
                interfaces: &self.interfaces,
                options: &Options::default(),
            },
        );
        let took = began.elapsed();
        assert_eq!(intent.verdicts.len(), self.services.len());
        assert!(intent.verdicts.values().all(|verdict| verdict.leader.is_some()));
        (intent, took)
    }
}

fn service(number: u32) -> ServiceView {
    let ip = IpAddr::V4(Ipv4Addr::from(0x0A00_0001 + number));
    let facts = ServiceFacts {
        id: ServiceId::new(format!("ns{}", number % 50), format!("s{number}")),
        ingress: vec![ip],
        ingress_text: ip.to_string(),
        is_load_balancer: true,
        ..ServiceFacts::default()
    };
    ServiceView::new(facts, [EndpointView { node: Some("node-1".into()), usable: true }])
}

/// Resident memory of this process in kB, as the kernel counts it.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
