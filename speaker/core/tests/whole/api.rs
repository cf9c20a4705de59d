//! What the API server says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use patina_crds::config::{
    Config, Failback, L2Advertisement, ObjectRef, Pool, PreferredNodes, ServiceAllocation,
};
use patina_crds::selector::Selector;
use patina_speaker_core::view::{EndpointView, NodeView, ServiceFacts, ServiceId, ServiceView};

#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) version: u64,
    pub(crate) config: Config,
    pub(crate) services: Vec<ServiceView>,
    pub(crate) nodes: Vec<NodeView>,
}

impl Api {
    pub(crate) fn new(names: &[String], services: usize, failback: Failback) -> Self {
        let nodes = names.iter().map(|name| NodeView {
            name: name.clone(),
            labels: [("name".to_owned(), name.clone())].into(),
            ..NodeView::default()
        });
        Self {
            version: 0,
            config: config(failback),
            services: (0..services).map(service).collect(),
            nodes: nodes.collect(),
        }
    }

    pub(crate) fn ips(&self) -> BTreeSet<IpAddr> {
        self.services.iter().flat_map(|service| service.ingress.iter().copied()).collect()
    }

    /// Somebody prefers this node from now on, or nobody.
    pub(crate) fn prefer(&mut self, node: Option<&str>) {
        let label = node.map(|node| [("name".to_owned(), node.to_owned())].into());
        let preferred = label.map(|labels| PreferredNodes { weight: 50, selector: selector(labels) });
        self.config.l2_advertisements[0].preferred_nodes = preferred.into_iter().collect();
    }

    pub(crate) fn failback(&mut self, failback: Failback) {
        self.config.l2_advertisements[0].failback = failback;
    }
}

fn config(failback: Failback) -> Config {
    let source =
        |kind: &str| ObjectRef { kind: kind.to_owned(), namespace: String::new(), name: "all".to_owned() };
    let pool = Pool {
        name: "all".to_owned(),
        source: source("IPAddressPool"),
        labels: BTreeMap::new(),
        ranges: ["192.0.2.0/24", "2001:db8::/64"].map(|range| range.parse().unwrap()).to_vec(),
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
        failback,
    };
    Config {
        pools: [("all".to_owned(), pool)].into(),
        l2_advertisements: vec![advertisement],
        ..Config::default()
    }
}

/// A dual-stack Service.
pub(crate) fn service(n: usize) -> ServiceView {
    let ingress = [format!("192.0.2.{}", n + 1), format!("2001:db8::{:x}", n + 1)];
    let facts = ServiceFacts {
        id: ServiceId::new("default", format!("service-{n}")),
        ingress_text: ingress[0].clone(),
        ingress: ingress.iter().map(|ip| ip.parse().unwrap()).collect(),
        is_load_balancer: true,
        ..ServiceFacts::default()
    };
    ServiceView::new(facts, [EndpointView { node: None, usable: true }])
}

fn selector(labels: BTreeMap<String, String>) -> Selector {
    let selector = LabelSelector { match_labels: Some(labels), match_expressions: None };
    Selector::compile(&selector).unwrap()
}
