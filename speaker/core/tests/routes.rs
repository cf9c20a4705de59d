//! Recorded snapshots and the routes that follow from them: every file of `tests/golden/routes/` is a case, and a new one
//! needs no Rust. Write the snapshot, leave `expect` empty, run, and paste what the failure prints once you agree with it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed expectation is a failed test

mod golden;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use patina_crds::config::{self, Config, Resources};
use patina_crds::selector::Labels;
use patina_crds::types::{
    BGPAdvertisement, BGPAdvertisementSpec, BGPPeer, BGPPeerSpec, IPAddressPool, IPAddressPoolSpec,
};
use patina_speaker_core::intent::routes::{Announcements, NodeRoutes};
use patina_speaker_core::view::{
    EndpointView, NodeView, Options, ServiceFacts, ServiceId, ServiceView, TrafficPolicy,
};
use serde::Deserialize;

/// A recorded case. Absent fields have the harmless value.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Case {
    #[serde(default)]
    ignore_exclude_lb: bool,
    /// Name to ranges.
    pools: BTreeMap<String, Vec<String>>,
    /// Specs by name, as in the resources.
    #[serde(default)]
    ads: BTreeMap<String, BGPAdvertisementSpec>,
    #[serde(default)]
    peers: BTreeMap<String, BGPPeerSpec>,
    nodes: BTreeMap<String, CaseNode>,
    /// In this order, which must not matter.
    services: Vec<CaseService>,
    /// What [`text`] says, node after node.
    expect: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CaseNode {
    #[serde(default)]
    labels: Labels,
    #[serde(default)]
    network_unavailable: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CaseService {
    /// `namespace/name`
    id: String,
    #[serde(default)]
    ips: Vec<String>,
    #[serde(default)]
    local: bool,
    #[serde(default)]
    class: Option<String>,
    #[serde(default)]
    labels: Labels,
    /// Node names; `""` has no node; one that begins with `!` is not usable.
    #[serde(default)]
    endpoints: Vec<String>,
}

#[test]
fn recorded_routes() {
    golden::run("routes", "yaml", |text| {
        let case: Case = serde_saphyr::from_str(text).expect("a case");
        let config = config(&case);
        let mut services: Vec<ServiceView> = case.services.iter().map(service).collect();
        let nodes: Vec<NodeView> = case.nodes.iter().map(node).collect();
        let options = Options { ignore_exclude_lb: case.ignore_exclude_lb, ..Options::default() };
        let mut answers = Vec::new();
        for _ in 0..2 {
            let announcements = Announcements::new(&config, &services, &nodes, &options);
            let mut out = String::new();
            for node in &nodes {
                writeln!(out, "{}:", node.name).unwrap();
                out.push_str(&self::text(&announcements.on(&node.name)));
            }
            drop(announcements);
            answers.push(out);
            services.reverse();
        }
        assert_eq!(answers[0], answers[1], "the order of the Services matters");
        (case.expect.clone(), answers.remove(0))
    });
}

#[test]
fn a_node_that_nobody_knows_tells_nobody_anything() {
    let services = [ServiceView::default()];
    let (config, options) = (Config::default(), Options::default());
    let routes = Announcements::new(&config, &services, &[], &options).on("ghost");
    assert!(routes.peers.is_empty());
    assert_eq!(routes.verdicts.len(), 1);
    assert!(routes.verdicts.values().all(|verdict| verdict.why_not.is_some()));
}

/// The routes of a node for people: what each peer gets, then what became of each Service without (all its) routes.
fn text(routes: &NodeRoutes<'_>) -> String {
    let mut out = String::new();
    for (peer, prefixes) in &routes.peers {
        if prefixes.is_empty() {
            writeln!(out, "  {peer} gets nothing").unwrap();
        }
        for (prefix, route) in prefixes {
            write!(out, "  {peer} gets {prefix}").unwrap();
            if let Some(preference) = route.local_pref {
                write!(out, " localPref {preference}").unwrap();
            }
            for community in &route.communities {
                write!(out, " {community}").unwrap();
            }
            let services: Vec<String> = route.services.iter().map(ServiceId::to_string).collect();
            writeln!(out, " for {}", services.join(", ")).unwrap();
        }
    }
    for (id, verdict) in &routes.verdicts {
        assert_ne!(verdict.routes.is_empty(), verdict.why_not.is_none(), "{id}: either routes or a reason");
        for (peer, prefix) in &verdict.routes {
            assert!(routes.peers[peer][prefix].services.contains(*id), "{id} does not cause {prefix}");
        }
        if let Some(why_not) = &verdict.why_not {
            writeln!(out, "  {id}: {}: {why_not}", why_not.reason()).unwrap();
        }
        for (ip, why_not) in &verdict.missing {
            writeln!(out, "  {id}: not {ip}: {}: {why_not}", why_not.reason()).unwrap();
        }
    }
    out
}

fn config(case: &Case) -> Config {
    let pool = |(name, addresses): (&String, &Vec<String>)| {
        IPAddressPool::new(name, IPAddressPoolSpec { addresses: addresses.clone(), ..Default::default() })
    };
    let resources = Resources {
        pools: case.pools.iter().map(pool).collect(),
        bgp_advertisements: case
            .ads
            .iter()
            .map(|(name, spec)| BGPAdvertisement::new(name, spec.clone()))
            .collect(),
        peers: case.peers.iter().map(|(name, spec)| BGPPeer::new(name, spec.clone())).collect(),
        ..Resources::default()
    };
    config::build(&resources).unwrap_or_else(|errors| panic!("{errors}")).config
}

fn service(service: &CaseService) -> ServiceView {
    let (namespace, name) = service.id.split_once('/').expect("namespace/name");
    let endpoint = |text: &String| {
        let node = text.trim_start_matches('!');
        EndpointView { node: (!node.is_empty()).then(|| node.into()), usable: !text.starts_with('!') }
    };
    let facts = ServiceFacts {
        id: ServiceId::new(namespace, name),
        labels: (&service.labels).into(),
        ingress: service.ips.iter().filter_map(|ip| ip.parse::<IpAddr>().ok()).collect(),
        ingress_text: service.ips.first().cloned().unwrap_or_default(),
        traffic_policy: if service.local { TrafficPolicy::Local } else { TrafficPolicy::Cluster },
        is_load_balancer: true,
        class: service.class.clone(),
        shared_key: None,
    };
    ServiceView::new(facts, service.endpoints.iter().map(endpoint))
}

fn node((name, node): (&String, &CaseNode)) -> NodeView {
    NodeView {
        name: name.clone(),
        labels: node.labels.clone(),
        network_unavailable: node.network_unavailable,
        draining: false,
    }
}
