//! Recorded cases: lines in, lines out. See tests/cases/README.md for the words; a new case needs no Rust.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed expectation is a failed test
#![allow(clippy::disallowed_methods)] // the cases are files, and UPDATE_GOLDEN asks to write them

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use common::{config, pool};
use patina_controller_core::decide::{Decision, Outcome, Policy};
use patina_controller_core::reason::Reason;
use patina_controller_core::reconcile::Reconciler;
use patina_controller_core::surroundings::{Conflict, InUse, Surroundings, UsedBy};
use patina_controller_core::view::{FamilyPolicy, Port, Protocol, ServiceId, ServiceView, TrafficPolicy};
use patina_crds::config::{Config, ObjectRef, Pool, Reservation};
use patina_crds::net::{AddressRange, Family};
use patina_crds::selector::{Labels, Selector};

#[test]
fn every_recorded_case_gives_its_recorded_lines() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut files: Vec<_> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "case"));
    files.sort();
    let mut cases = 0;
    let mut failures = String::new();
    for file in &files {
        let text = std::fs::read_to_string(file).unwrap();
        cases += text.lines().filter(|line| line.starts_with("===")).count();
        let got = play(&text);
        if got != text && std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(file, got).unwrap();
        } else if got != text {
            let name = file.file_name().unwrap().to_string_lossy();
            for difference in diff(&text, &got) {
                writeln!(failures, "{name}: {difference}").unwrap();
            }
        }
    }
    assert!(failures.is_empty(), "- recorded, + now\n{failures}");
    assert!(cases >= 200, "only {cases} cases in {} files", files.len());
}

/// Lines that differ, walked in parallel.
fn diff(recorded: &str, now: &str) -> Vec<String> {
    let (a, b): (Vec<&str>, Vec<&str>) = (recorded.lines().collect(), now.lines().collect());
    let mut out = Vec::new();
    let mut case = "";
    for n in 0..a.len().max(b.len()) {
        case = a.get(n).and_then(|line| line.strip_prefix("===")).unwrap_or(case);
        if a.get(n) != b.get(n) {
            out.push(format!(
                "{}, line {}:\n  - {}\n  + {}",
                case.trim(),
                n + 1,
                a.get(n).unwrap_or(&""),
                b.get(n).unwrap_or(&"")
            ));
        }
    }
    out
}

#[derive(Default)]
struct Stage {
    pools: BTreeMap<String, Pool>,
    services: BTreeMap<ServiceId, ServiceView>,
    namespaces: BTreeMap<String, Labels>,
    reservations: BTreeMap<String, Reservation>,
    uses: Vec<InUse>,
    reconciler: Option<Reconciler>,
    strict: bool,
    class: Option<String>,
    clock: i64,
}

/// The same text with the `>` lines as they come out now.
fn play(text: &str) -> String {
    let mut stage = Stage::default();
    let mut out = String::new();
    for line in text.lines() {
        if line.starts_with('>') {
            continue;
        }
        writeln!(out, "{line}").unwrap();
        if line.starts_with("===") {
            stage = Stage::default();
            continue;
        }
        let words: Vec<&str> = line.split('#').next().unwrap_or_default().split_whitespace().collect();
        if let [verb, rest @ ..] = words.as_slice() {
            for answer in stage.run(verb, rest).unwrap_or_else(|| panic!("not understood: {line}")) {
                writeln!(out, "> {answer}").unwrap();
            }
        }
    }
    out
}

impl Stage {
    fn run(&mut self, verb: &str, rest: &[&str]) -> Option<Vec<String>> {
        match (verb, rest) {
            ("pool", [name, ranges, options @ ..]) => {
                let ranges: Vec<&str> = ranges.split(',').collect();
                let mut pool = pool(name, &ranges);
                options.iter().try_for_each(|option| pool_option(&mut pool, option))?;
                self.pools.insert((*name).to_owned(), pool);
            }
            ("nopool", [name]) => drop(self.pools.remove(*name)?),
            ("reserve", [name, ranges, options @ ..]) => {
                let reservation = reservation(name, ranges, options)?;
                self.reservations.insert((*name).to_owned(), reservation);
            }
            ("noreserve", [name]) => drop(self.reservations.remove(*name)?),
            ("uses", [range, by]) => {
                let in_use = InUse { range: range.parse().ok()?, by: used_by(by)? };
                self.uses.push(in_use);
            }
            ("usesnot", [range]) => {
                let range: AddressRange = range.parse().ok()?;
                self.uses.retain(|in_use| in_use.range != range);
            }
            ("usage", []) => return Some(self.usage()),
            ("namespace", [name, pairs @ ..]) => {
                self.namespaces.insert((*name).to_owned(), labels(pairs.iter().copied())?);
            }
            ("service" | "edit" | "again", [name, options @ ..]) => {
                let (namespace, name) = name.split_once('/')?;
                let id = ServiceId::new(namespace, name);
                self.clock += 1;
                let old = self.services.get(&id).filter(|_| verb != "again");
                assert_eq!(old.is_some(), verb == "edit", "{verb} {id}");
                let mut view = ServiceView::plain(id, old.map_or(self.clock, |old| old.created));
                if let Some(old) = old {
                    (view.held, view.marked) = (old.held.clone(), old.marked);
                    view.allocated_since = old.allocated_since;
                }
                options.iter().try_for_each(|option| service_option(&mut view, option))?;
                view.uid = format!("{}@{}", view.id, view.created);
                if let Some(reconciler) = &mut self.reconciler {
                    reconciler.service_changed(view.clone());
                }
                self.services.insert(view.id.clone(), view);
            }
            ("delete", [name]) => {
                let (namespace, name) = name.split_once('/')?;
                let id = ServiceId::new(namespace, name);
                self.services.remove(&id)?;
                if let Some(reconciler) = &mut self.reconciler {
                    reconciler.service_deleted(&id);
                }
            }
            ("restart", []) => self.reconciler = None,
            ("strict", []) => self.strict = true,
            ("class", [class]) => self.class = Some((*class).to_owned()),
            ("go", []) => return Some(self.go()),
            _ => return None,
        }
        Some(Vec::new())
    }

    fn go(&mut self) -> Vec<String> {
        let reconciler = self.reconciler.get_or_insert_with(|| {
            let policy = Policy { class: self.class.clone(), strict_pinning: self.strict };
            let mut reconciler = Reconciler::new(policy);
            self.services.values().for_each(|view| reconciler.service_changed(view.clone()));
            reconciler
        });
        for (name, labels) in &self.namespaces {
            reconciler.namespace_changed(name, labels.clone());
        }
        let reservations = self.reservations.values().cloned().collect();
        let config = Config { reservations, ..config(self.pools.values().cloned()) };
        reconciler.surroundings_changed(Arc::new(Surroundings { uses: self.uses.clone() }));
        reconciler.config_changed(Arc::new(config));
        reconciler.start();
        let mut lines = Vec::new();
        for (id, outcome) in reconciler.reconcile() {
            if let Some(view) = self.services.get_mut(&id) {
                write_status(view, &outcome.decision);
                reconciler.service_changed(view.clone());
            }
            lines.extend(describe(&id, &outcome));
        }
        // What was just written comes back, and changes nothing.
        for (id, outcome) in reconciler.reconcile() {
            let quiet =
                matches!(outcome.decision, Decision::Keep { .. } | Decision::Wait(_) | Decision::Ignore(_));
            assert!(quiet && outcome.lost.is_none(), "{id} is not stable: {outcome:?}");
        }
        lines
    }

    fn usage(&self) -> Vec<String> {
        let reconciler = self.reconciler.as_ref().unwrap();
        let line = |(name, u): (&str, patina_controller_core::allocator::Usage)| {
            let free = |total: u128, used: u128| format!("{used} of {total} used");
            let (v4, v6) = (free(u.total_v4, u.used_v4), free(u.total_v6, u.used_v6));
            format!("{name}: IPv4 {v4}, IPv6 {v6}, {} Service(s)", u.services)
        };
        reconciler.allocator().usage().map(line).collect()
    }
}

fn write_status(view: &mut ServiceView, decision: &Decision) {
    match decision {
        Decision::Assign { addresses, .. } | Decision::Keep { addresses, .. } => {
            view.held.clone_from(addresses);
            view.marked = true;
        }
        Decision::Wait(_) => (view.held, view.marked) = (Vec::new(), true),
        Decision::Release => (view.held, view.marked) = (Vec::new(), false),
        Decision::Ignore(_) => {}
    }
}

fn describe(id: &ServiceId, outcome: &Outcome) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(lost) = &outcome.lost {
        lines.push(format!("{id} loses: {lost}"));
    }
    let given = |addresses: &[std::net::IpAddr], pool: &str| {
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        format!("{} from {pool}", addresses.join(" "))
    };
    if let Decision::Wait(reason) = &outcome.decision {
        assert!(Reason::WORDS.contains(&reason.word()), "{} is not in Reason::WORDS", reason.word());
    }
    lines.push(match &outcome.decision {
        Decision::Assign { addresses, pool } => format!("{id} gets {}", given(addresses, pool)),
        Decision::Keep { addresses, pool } => format!("{id} keeps {}", given(addresses, pool)),
        Decision::Release => format!("{id} is released"),
        Decision::Wait(reason) => format!("{id} waits: {}: {reason}", reason.word()),
        Decision::Ignore(why) => format!("{id} is not ours: {why:?}"),
    });
    lines.extend(outcome.notices.iter().map(|notice| format!("{id} {}: {notice}", notice.event().1)));
    lines
}

fn pool_option(pool: &mut Pool, option: &str) -> Option<()> {
    match option.split_once('=').unwrap_or((option, "")) {
        ("manual", "") => pool.auto_assign = false,
        ("avoid-buggy", "") => pool.avoid_buggy_ips = true,
        ("priority", n) => pool.allocation.priority = Some(n.parse().ok()?),
        ("namespaces", names) => {
            pool.allocation.namespaces = names.split(',').map(str::to_owned).collect::<BTreeSet<_>>();
        }
        ("namespace-expression", text) => pool.allocation.namespace_selectors.push(expression(text)?),
        ("service-expression", text) => pool.allocation.service_selectors.push(expression(text)?),
        ("namespace-labels", pairs) => pool.allocation.namespace_selectors.push(selector(pairs)?),
        ("service-labels", pairs) => pool.allocation.service_selectors.push(selector(pairs)?),
        _ => return None,
    }
    Some(())
}

fn service_option(view: &mut ServiceView, option: &str) -> Option<()> {
    let mut annotate = |key: String, value: &str| drop(view.annotations.insert(key, value.to_owned()));
    match option.split_once('=').unwrap_or((option, "")) {
        ("pool", name) => annotate("metallb.io/address-pool".into(), name),
        ("old-pool", name) => annotate("metallb.universe.tf/address-pool".into(), name),
        ("ips", text) => annotate("metallb.io/loadBalancerIPs".into(), &text.replace('+', ", ")),
        ("old-ips", text) => annotate("metallb.universe.tf/loadBalancerIPs".into(), text),
        ("key", key) => annotate("metallb.io/allow-shared-ip".into(), key),
        ("old-key", key) => annotate("metallb.universe.tf/allow-shared-ip".into(), key),
        ("created", time) => view.created = time.parse().ok()?,
        ("ip", text) => view.load_balancer_ip = text.to_owned(),
        ("v6", "") => families(view, &[Family::V6]),
        ("v4v6", "") => families(view, &[Family::V4, Family::V6]),
        ("v6v4", "") => families(view, &[Family::V6, Family::V4]),
        ("headless", "") => view.cluster_ips.clear(),
        ("prefer", "") => view.family_policy = FamilyPolicy::PreferDual,
        ("require", "") => view.family_policy = FamilyPolicy::RequireDual,
        ("type", type_) => view.is_load_balancer = type_ == "LoadBalancer",
        ("class", class) => view.class = Some(class.to_owned()),
        ("ports", ports) => {
            let port = |text: &str| {
                let (number, protocol) = text.split_once('/').unwrap_or((text, "TCP"));
                let protocol = match protocol {
                    "TCP" => Protocol::Tcp,
                    "UDP" => Protocol::Udp,
                    "SCTP" => Protocol::Sctp,
                    _ => return None,
                };
                Some(Port { protocol, number: number.parse().ok()? })
            };
            view.ports = ports.split(',').map(port).collect::<Option<_>>()?;
        }
        ("local", "") => view.traffic_policy = TrafficPolicy::Local,
        ("selector", pairs) => view.selector = labels(pairs.split(','))?,
        ("labels", pairs) => view.labels = labels(pairs.split(','))?,
        ("held", "nothing") => view.held.clear(),
        ("held", ips) => {
            view.held = ips.split('+').map(|ip| ip.parse().ok()).collect::<Option<_>>()?;
        }
        ("marked", "") => view.marked = true,
        ("allocated", time) => view.allocated_since = Some(time.parse().ok()?),
        _ => return None,
    }
    Some(())
}

fn families(view: &mut ServiceView, families: &[Family]) {
    view.families = families.to_vec();
    let ip = |family: &Family| match family {
        Family::V4 => "10.96.0.1".parse().unwrap(),
        Family::V6 => "fd00:96::1".parse().unwrap(),
    };
    view.cluster_ips = families.iter().map(ip).collect();
}

fn labels<'a>(pairs: impl Iterator<Item = &'a str>) -> Option<Labels> {
    pairs.map(|pair| pair.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()))).collect()
}

/// `key:Operator:value+value`.
fn expression(text: &str) -> Option<Selector> {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
    let (key, rest) = text.split_once(':')?;
    let (operator, values) = rest.split_once(':').unwrap_or((rest, ""));
    let values: Vec<String> = values.split('+').filter(|v| !v.is_empty()).map(str::to_owned).collect();
    let requirement = LabelSelectorRequirement {
        key: key.to_owned(),
        operator: operator.to_owned(),
        values: (!values.is_empty()).then_some(values),
    };
    let selector = LabelSelector { match_labels: None, match_expressions: Some(vec![requirement]) };
    Selector::compile(&selector).ok()
}

fn reservation(name: &str, ranges: &str, options: &[&str]) -> Option<Reservation> {
    let range = |text: &str| {
        let single = text.parse().ok().map(AddressRange::single);
        single.or_else(|| text.parse().ok())
    };
    let mut reservation = Reservation {
        source: ObjectRef { kind: "AddressReservation".into(), namespace: "test".into(), name: name.into() },
        ranges: ranges.split(',').map(range).collect::<Option<_>>()?,
        service: None,
        reason: String::new(),
    };
    for option in options {
        match option.split_once('=')? {
            ("for", id) => {
                let (namespace, name) = id.split_once('/')?;
                reservation.service = Some(ServiceId::new(namespace, name));
            }
            ("reason", text) => reservation.reason = text.replace('_', " "),
            _ => return None,
        }
    }
    Some(reservation)
}

fn used_by(text: &str) -> Option<UsedBy> {
    let (what, node) = text.split_once(':').unwrap_or((text, ""));
    let node = node.to_owned();
    Some(match what {
        "host" => {
            let (node, before_use) = node.split_once('@').unwrap_or((&node, ""));
            let before_use = (!before_use.is_empty()).then(|| before_use.parse()).transpose().ok()?;
            UsedBy::Host(Conflict { mac: "02:00:00:00:00:66".into(), node: node.to_owned(), before_use })
        }
        "node" => UsedBy::Node(node),
        "pods" => UsedBy::Pods(node),
        "cluster-ips" => UsedBy::ClusterIps,
        "gateway" => UsedBy::Gateway(node),
        "network" => UsedBy::NetworkAddress(node),
        "broadcast" => UsedBy::BroadcastAddress(node),
        _ => return None,
    })
}

fn selector(pairs: &str) -> Option<Selector> {
    let selector = k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector {
        match_labels: Some(labels(pairs.split(','))?),
        match_expressions: None,
    };
    Selector::compile(&selector).ok()
}
