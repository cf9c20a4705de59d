//! Whatever happened before, a decision with a cache is the decision without one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed expectation is a failed test

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use patina_crds::config::{
    Config, Failback, L2Advertisement, ObjectRef, Pool, PreferredNodes, ServiceAllocation,
};
use patina_crds::selector::{Labels, Selector};
use patina_speaker_core::intent::{Cache, intent, intent_with};
use patina_speaker_core::l2::election::{self, Contender, Standing};
use patina_speaker_core::view::{
    EndpointView, InterfaceView, Member, Members, NodeView, Options, ServiceFacts, ServiceId, ServiceView,
    Snapshot, TrafficPolicy,
};
use proptest::prelude::*;

/// More than a verdict lists, and more than the cache keeps.
const NODES: usize = 60;
const SERVICES: u32 = 12;

/// A cluster that changes.
struct World {
    config: Config,
    nodes: BTreeMap<String, NodeView>,
    members: Members,
    services: Vec<ServiceView>,
    interfaces: Vec<InterfaceView>,
}

#[derive(Clone, Debug)]
enum Change {
    /// The speakers of these nodes die or come back.
    Members(BTreeSet<usize>),
    /// These Node objects go or come.
    Nodes(BTreeSet<usize>),
    /// Other labels: every n-th node.
    Label(usize),
    Drain(usize),
    /// A Service goes, or comes.
    Service(u32),
    /// A Service gets another policy, with endpoints on every n-th node.
    Policy(u32, usize),
    /// Two Services share an address, or do no more.
    Share(u32, u32),
    Prefer(u32),
    OnlyLabelled(bool),
}

fn change() -> impl Strategy<Value = Change> {
    let some = || proptest::collection::btree_set(0..NODES, 1..12);
    prop_oneof![
        4 => some().prop_map(Change::Members),
        3 => some().prop_map(Change::Nodes),
        1 => (1usize..6).prop_map(Change::Label),
        1 => (0..NODES).prop_map(Change::Drain),
        1 => (0..SERVICES).prop_map(Change::Service),
        1 => (0..SERVICES, 1usize..30).prop_map(|(s, n)| Change::Policy(s, n)),
        1 => (0..SERVICES, 0..SERVICES).prop_map(|(a, b)| Change::Share(a, b)),
        1 => (0u32..3).prop_map(Change::Prefer),
        1 => any::<bool>().prop_map(Change::OnlyLabelled),
    ]
}

fn name(node: usize) -> String {
    format!("node-{node}")
}

fn labelled() -> Selector {
    let labels = [("some".to_owned(), "label".to_owned())].into();
    Selector::compile(&LabelSelector { match_labels: Some(labels), ..LabelSelector::default() }).unwrap()
}

fn service(number: u32) -> ServiceView {
    let ip = IpAddr::V4(Ipv4Addr::from(0xC000_0200 + number));
    let facts = ServiceFacts {
        id: ServiceId::new("default", format!("s{number}")),
        ingress: vec![ip],
        ingress_text: ip.to_string(),
        is_load_balancer: true,
        ..ServiceFacts::default()
    };
    ServiceView::new(facts, [EndpointView { node: None, usable: true }])
}

impl World {
    fn new() -> Self {
        let object =
            |kind: &str| ObjectRef { kind: kind.to_owned(), namespace: "x".to_owned(), name: "a".to_owned() };
        let pool = Pool {
            name: "a".to_owned(),
            source: object("IPAddressPool"),
            labels: Labels::new(),
            ranges: vec!["192.0.2.0/24".parse().unwrap()],
            auto_assign: true,
            avoid_buggy_ips: false,
            allocation: ServiceAllocation::default(),
        };
        let advertisement = L2Advertisement {
            source: object("L2Advertisement"),
            pools: ["a".to_owned()].into(),
            node_selectors: Vec::new(),
            interfaces: BTreeSet::new(),
            service_selectors: Vec::new(),
            preferred_nodes: Vec::new(),
            failback: Failback::Never,
        };
        let mut world = Self {
            config: Config {
                pools: [("a".to_owned(), pool)].into(),
                l2_advertisements: vec![advertisement],
                ..Config::default()
            },
            nodes: BTreeMap::new(),
            members: Members::new(),
            services: (0..SERVICES).map(service).collect(),
            interfaces: vec![InterfaceView { index: 2, up: true, arp: true, ..InterfaceView::default() }],
        };
        for node in 0..NODES {
            world.nodes.insert(name(node), NodeView { name: name(node), ..NodeView::default() });
            world.members.insert(name(node), Member::default());
        }
        world
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::Members(nodes) => {
                for node in nodes {
                    if self.members.remove(&name(*node)).is_none() {
                        self.members.insert(name(*node), Member::default());
                    }
                }
            }
            Change::Nodes(nodes) => {
                for node in nodes {
                    if self.nodes.remove(&name(*node)).is_none() {
                        let view = NodeView { name: name(*node), ..NodeView::default() };
                        self.nodes.insert(name(*node), view);
                    }
                }
            }
            Change::Label(nth) => {
                for (number, node) in self.nodes.values_mut().enumerate() {
                    node.labels = Labels::new();
                    if number % nth == 0 {
                        node.labels.insert("some".to_owned(), "label".to_owned());
                    }
                }
            }
            Change::Drain(node) => {
                if let Some(node) = self.nodes.get_mut(&name(*node)) {
                    node.draining = !node.draining;
                }
            }
            Change::Service(number) => {
                let before = self.services.len();
                self.services.retain(|other| other.id != service(*number).id);
                if self.services.len() == before {
                    self.services.push(service(*number));
                }
            }
            Change::Policy(number, nth) => self.edit(*number, |facts, endpoints| {
                facts.traffic_policy = TrafficPolicy::Local;
                let on = |node| EndpointView { node: Some(name(node).into()), usable: true };
                *endpoints = (0..NODES).step_by(*nth).map(on).collect();
            }),
            Change::Share(a, b) => {
                let other = service(*b);
                self.edit(*a, |facts, _| facts.ingress = other.ingress.clone());
            }
            Change::Prefer(weight) => {
                let preferred = PreferredNodes { weight: *weight, selector: labelled() };
                self.config.l2_advertisements[0].preferred_nodes = vec![preferred];
            }
            Change::OnlyLabelled(only) => {
                self.config.l2_advertisements[0].node_selectors = only.then(labelled).into_iter().collect();
            }
        }
    }

    fn edit(&mut self, number: u32, edit: impl Fn(&mut ServiceFacts, &mut Vec<EndpointView>)) {
        let id = service(number).id.clone();
        for view in self.services.iter_mut().filter(|view| view.id == id) {
            let (mut facts, mut endpoints) = ((*view.facts).clone(), view.endpoints.to_vec());
            edit(&mut facts, &mut endpoints);
            *view = ServiceView::new(facts, endpoints);
        }
    }

    fn with_snapshot<T>(&self, then: impl FnOnce(&Snapshot<'_>) -> T) -> T {
        let nodes: Vec<NodeView> = self.nodes.values().cloned().collect();
        let options = Options::default();
        then(&Snapshot {
            node: "node-7",
            config: &self.config,
            services: &self.services,
            nodes: &nodes,
            members: &self.members,
            interfaces: &self.interfaces,
            options: &options,
        })
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_cache_changes_no_decision(changes in proptest::collection::vec(change(), 1..25)) {
        let (mut world, mut cache) = (World::new(), Cache::default());
        for change in &changes {
            world.with_snapshot(|snapshot| {
                assert_eq!(intent_with(&mut cache, snapshot), intent(snapshot), "before {change:?}");
            });
            world.apply(change);
        }
        world.with_snapshot(|snapshot| assert_eq!(intent_with(&mut cache, snapshot), intent(snapshot)));
    }

    #[test]
    fn the_order_is_that_of_the_election(
        changes in proptest::collection::vec(proptest::collection::btree_set(0..NODES, 1..12), 1..12),
        nodes_too in any::<bool>(),
    ) {
        let (mut world, mut cache) = (World::new(), Cache::default());
        for change in changes {
            world.apply(&Change::Members(change.clone()));
            if nodes_too {
                world.apply(&Change::Nodes(change));
            }
            let intent = world.with_snapshot(|snapshot| intent_with(&mut cache, snapshot));
            let alive: Vec<&str> = world
                .nodes
                .keys()
                .filter(|node| world.members.contains_key(*node))
                .map(String::as_str)
                .collect();
            for view in &world.services {
                let mut expected: Vec<Contender<'_>> =
                    alive.iter().map(|node| Contender { node, standing: Standing::PLAIN, score: 0 }).collect();
                election::order(&view.ingress_text, &mut expected);
                let verdict = &intent.verdicts[&view.id];
                prop_assert_eq!(verdict.candidate_count, alive.len());
                let found: Vec<&str> = verdict.candidates.iter().map(|candidate| &*candidate.node).collect();
                let expected: Vec<&str> = expected.iter().take(8).map(|contender| contender.node).collect();
                prop_assert_eq!(found, expected);
            }
        }
    }
}
