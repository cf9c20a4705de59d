//! Recorded snapshots and what follows from them: every file of `tests/golden/intent/` is a case, and a new one needs no
//! Rust. Write the snapshot, leave `expect` empty, run, and paste what the failure prints once you agree with it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed expectation is a failed test

mod golden;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use patina_crds::config::{
    BgpAdvertisement, Config, Failback, L2Advertisement, ObjectRef, Pool, PreferredNodes, ServiceAllocation,
};
use patina_crds::selector::{Labels, Selector};
use patina_speaker_core::intent::{Intent, intent};
use patina_speaker_core::view::{
    EndpointView, InterfaceView, Member, MemberInterface, NodeView, Options, ServiceFacts, ServiceId,
    ServiceView, Snapshot, TrafficPolicy,
};
use serde::Deserialize;

/// A recorded case. Absent fields have the harmless value.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Case {
    /// On which node we are.
    node: String,
    #[serde(default)]
    ignore_exclude_lb: bool,
    #[serde(default)]
    lb_class: Option<String>,
    /// Name to ranges.
    pools: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    l2: Vec<CaseAdvertisement>,
    /// Pools that BGPAdvertisements cover.
    #[serde(default)]
    bgp: Vec<String>,
    nodes: BTreeMap<String, CaseNode>,
    /// Absent: one good interface, eth0 with index 2.
    #[serde(default)]
    interfaces: Option<Vec<CaseInterface>>,
    services: BTreeMap<String, CaseService>,
    /// What [`text`] says.
    expect: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CaseAdvertisement {
    name: String,
    pools: BTreeSet<String>,
    #[serde(default)]
    node_selectors: Vec<LabelSelector>,
    #[serde(default)]
    interfaces: BTreeSet<String>,
    #[serde(default)]
    service_selectors: Vec<LabelSelector>,
    #[serde(default)]
    preferred: Vec<CasePreference>,
    /// Seconds; -1 is never.
    #[serde(default)]
    failback: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CasePreference {
    weight: u32,
    preference: LabelSelector,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CaseNode {
    #[serde(default)]
    labels: Labels,
    #[serde(default)]
    network_unavailable: bool,
    /// No live speaker there.
    #[serde(default)]
    dead: bool,
    /// The annotation.
    #[serde(default)]
    drain: bool,
    /// What its speaker tells of itself.
    #[serde(default)]
    starting: bool,
    #[serde(default)]
    leaving: bool,
    /// Likewise; absent: nothing. For our own node: those of the case, once any node tells its own.
    #[serde(default)]
    interfaces: Option<Vec<CaseInterface>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CaseInterface {
    name: String,
    #[serde(default)]
    index: u32,
    /// With prefix lengths.
    #[serde(default)]
    addresses: Vec<String>,
    #[serde(default)]
    isolated: bool,
    #[serde(default)]
    down: bool,
    #[serde(default)]
    enslaved: bool,
    #[serde(default)]
    no_arp: bool,
    #[serde(default)]
    no_ndp: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CaseService {
    /// `status.loadBalancer.ingress[].ip`
    #[serde(default)]
    ips: Vec<String>,
    #[serde(default)]
    local: bool,
    #[serde(default)]
    not_load_balancer: bool,
    #[serde(default)]
    class: Option<String>,
    #[serde(default)]
    shared_key: Option<String>,
    #[serde(default)]
    labels: Labels,
    /// Node names; `""` has no node; one that begins with `!` is not usable.
    #[serde(default)]
    endpoints: Vec<String>,
}

#[test]
fn recorded_snapshots() {
    golden::run("intent", "yaml", |text| {
        let case: Case = serde_saphyr::from_str(text).expect("a case");
        let config = config(&case);
        let services: Vec<ServiceView> = case.services.iter().map(service).collect();
        let nodes: Vec<NodeView> = case.nodes.iter().map(node).collect();
        let alive = case.nodes.iter().filter(|(_, node)| !node.dead);
        let members = alive.map(|(name, node)| (name.clone(), member(&case, name, node))).collect();
        let interfaces = interfaces(case.interfaces.as_deref());
        let options = Options {
            ignore_exclude_lb: case.ignore_exclude_lb,
            lb_class: case.lb_class.clone(),
            ..Options::default()
        };
        let snapshot = Snapshot {
            node: &case.node,
            config: &config,
            services: &services,
            nodes: &nodes,
            members: &members,
            interfaces: &interfaces,
            options: &options,
        };
        (case.expect.clone(), self::text(&case.node, &intent(&snapshot)))
    });
}

/// An intent for people: first what is announced, then what became of each Service.
fn text(node: &str, intent: &Intent) -> String {
    let mut out = String::new();
    for (ip, announcement) in intent.l2.iter().filter(|(_, announcement)| announcement.leads) {
        let interfaces: Vec<String> = announcement.interfaces.iter().map(u32::to_string).collect();
        let services: Vec<String> = announcement.services.iter().map(ServiceId::to_string).collect();
        let (interfaces, services) = (interfaces.join(","), services.join(", "));
        writeln!(out, "announce {ip} on {interfaces} for {services}").unwrap();
    }
    for (ip, announcement) in intent.l2.iter() {
        let order: Vec<&str> = announcement.order.iter().map(|node| &**node).collect();
        if !order.contains(&node) {
            assert!(!announcement.leads, "{ip}");
            writeln!(out, "hand over {ip} to {}", order.join(" ")).unwrap();
        }
        if announcement.failback != Failback::Immediate {
            let keepers: Vec<&str> = announcement.keepers.iter().map(|node| &**node).collect();
            writeln!(out, "{ip} stays with one of {}: {}", keepers.join(" "), announcement.failback).unwrap();
        }
    }
    for (id, verdict) in &intent.verdicts {
        assert_ne!(verdict.mine, verdict.why_not.is_some(), "{id}: either mine or a reason");
        assert_eq!(verdict.leader.as_ref(), verdict.candidates.first().map(|c| &c.node), "{id}");
        match &verdict.why_not {
            Some(why_not) => writeln!(out, "{id}: {}: {why_not}", why_not.reason()).unwrap(),
            None if verdict.all_interfaces => writeln!(out, "{id}: mine on all interfaces").unwrap(),
            None => {
                let names: Vec<&str> = verdict.interfaces.iter().map(String::as_str).collect();
                writeln!(out, "{id}: mine on {}", names.join(",")).unwrap();
            }
        }
        for (ip, why_not) in verdict.failed.iter().filter(|_| verdict.mine) {
            writeln!(out, "  but not {ip}: {}: {why_not}", why_not.reason()).unwrap();
        }
        if !verdict.candidates.is_empty() {
            let alone = verdict.candidates.iter().all(|candidate| candidate.serves == 1);
            let alike = verdict.candidates.windows(2).all(|pair| pair[0].announces == pair[1].announces);
            let candidates: Vec<String> = verdict
                .candidates
                .iter()
                .map(|c| {
                    let score = if c.score > 0 { format!("+{}", c.score) } else { String::new() };
                    let serves = if alone { String::new() } else { format!("({})", c.serves) };
                    let announces = if alike { String::new() } else { format!("[{}]", c.announces) };
                    let last = c.last_resort.map(|why| format!("!{why}")).unwrap_or_default();
                    format!("{}{score}{serves}{announces}{last}", c.node)
                })
                .collect();
            writeln!(out, "  candidates {}", candidates.join(" ")).unwrap();
        }
    }
    out
}

fn object(kind: &str, name: &str) -> ObjectRef {
    ObjectRef { kind: kind.to_owned(), namespace: "metallb-system".to_owned(), name: name.to_owned() }
}

fn selectors(selectors: &[LabelSelector]) -> Vec<Selector> {
    selectors.iter().map(|selector| Selector::compile(selector).unwrap()).collect()
}

fn config(case: &Case) -> Config {
    let pools = case
        .pools
        .iter()
        .map(|(name, ranges)| {
            let pool = Pool {
                name: name.clone(),
                source: object("IPAddressPool", name),
                labels: Labels::new(),
                ranges: ranges.iter().map(|range| range.parse().unwrap()).collect(),
                auto_assign: true,
                avoid_buggy_ips: false,
                allocation: ServiceAllocation::default(),
            };
            (name.clone(), pool)
        })
        .collect();
    let l2_advertisements = case
        .l2
        .iter()
        .map(|ad| L2Advertisement {
            source: object("L2Advertisement", &ad.name),
            pools: ad.pools.clone(),
            node_selectors: selectors(&ad.node_selectors),
            interfaces: ad.interfaces.clone(),
            service_selectors: selectors(&ad.service_selectors),
            preferred_nodes: ad
                .preferred
                .iter()
                .map(|p| PreferredNodes {
                    weight: p.weight,
                    selector: Selector::compile(&p.preference).unwrap(),
                })
                .collect(),
            failback: match ad.failback {
                0 => Failback::Immediate,
                seconds => u64::try_from(seconds)
                    .map_or(Failback::Never, |seconds| Failback::After(Duration::from_secs(seconds))),
            },
        })
        .collect();
    let bgp_advertisements = case
        .bgp
        .iter()
        .map(|pool| BgpAdvertisement {
            source: object("BGPAdvertisement", "bgp"),
            pools: [pool.clone()].into(),
            node_selectors: Vec::new(),
            service_selectors: Vec::new(),
            aggregation_length: 32,
            aggregation_length_v6: 128,
            local_pref: None,
            communities: BTreeSet::new(),
            peers: BTreeSet::new(),
        })
        .collect();
    Config { pools, l2_advertisements, bgp_advertisements, ..Config::default() }
}

fn service((id, service): (&String, &CaseService)) -> ServiceView {
    let (namespace, name) = id.split_once('/').expect("namespace/name");
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
        is_load_balancer: !service.not_load_balancer,
        class: service.class.clone(),
        shared_key: service.shared_key.clone(),
    };
    ServiceView::new(facts, service.endpoints.iter().map(endpoint))
}

fn node((name, node): (&String, &CaseNode)) -> NodeView {
    NodeView {
        name: name.clone(),
        labels: node.labels.clone(),
        network_unavailable: node.network_unavailable,
        draining: node.drain,
    }
}

fn member(case: &Case, name: &str, node: &CaseNode) -> Member {
    let anybody_tells = case.nodes.values().any(|node| node.interfaces.is_some());
    let told = match &node.interfaces {
        None if name == case.node && anybody_tells => Some(interfaces(case.interfaces.as_deref())),
        told => told.as_ref().map(|told| interfaces(Some(told))),
    };
    let isolated = |name: &str| {
        let mut all = node.interfaces.as_ref().or(case.interfaces.as_ref()).into_iter().flatten();
        all.any(|interface| interface.isolated && interface.name == name)
    };
    let tell = |view: InterfaceView| {
        let isolated = isolated(&view.name);
        MemberInterface { isolated, ..view.told() }
    };
    Member {
        starting: node.starting,
        draining: node.leaving,
        interfaces: told.map(|told| told.into_iter().map(tell).collect()),
        ..Member::default()
    }
}

/// `192.0.2.7/24`
fn address(text: &str) -> (IpAddr, u8) {
    let (ip, length) = text.split_once('/').expect("an address with its prefix length");
    (ip.parse().unwrap(), length.parse().unwrap())
}

fn interfaces(interfaces: Option<&[CaseInterface]>) -> Vec<InterfaceView> {
    let good = |name: &str, index| InterfaceView {
        name: name.to_owned(),
        index,
        mac: [2, 0, 0, 0, 0, 1],
        up: true,
        arp: true,
        ndp: true,
        ..InterfaceView::default()
    };
    let Some(interfaces) = interfaces else { return vec![good("eth0", 2)] };
    interfaces
        .iter()
        .map(|i| InterfaceView {
            up: !i.down,
            enslaved: i.enslaved,
            arp: !i.no_arp,
            ndp: !i.no_ndp,
            addresses: i.addresses.iter().map(|text| address(text)).collect(),
            ..good(&i.name, i.index)
        })
        .collect()
}
