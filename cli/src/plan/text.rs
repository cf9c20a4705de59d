//! The plan for people.

use std::collections::{BTreeMap, BTreeSet};

use super::{Plan, Route, ServicePlan};
use crate::table::Table;

/// How many names a cell shows.
const SHOWN: usize = 3;

/// Tables of what everybody gets, then what nobody gets and why, then what to know.
pub(super) fn render(plan: &Plan) -> String {
    let mut out = String::new();
    section(&mut out, &services(&plan.services));
    section(&mut out, &peers(plan));
    section(&mut out, &pools(plan));
    lines(&mut out, "Without an address:", pending(plan));
    lines(&mut out, "Not announced:", silent(plan));
    lines(&mut out, "To know:", notices(plan));
    if plan.services.is_empty() {
        out.push_str("There is no Service of type LoadBalancer in the files.\n");
    }
    out
}

/// What is wrong in the files; empty when nothing is.
pub(super) fn errors(plan: &Plan) -> String {
    let mut out: String = plan.errors.iter().map(|error| format!("error: {error}\n")).collect();
    if !plan.errors.is_empty() {
        let s = if plan.errors.len() == 1 { "" } else { "s" };
        out.push_str(&format!("{} error{s}.\n", plan.errors.len()));
    }
    out
}

fn services(services: &[ServicePlan]) -> Table {
    let mut table = Table::new(&["SERVICE", "ADDRESSES", "POOL", "ANNOUNCER", "WHY", "THEN", "ROUTES"]);
    for service in services {
        let addresses: Vec<String> = service.addresses.iter().map(ToString::to_string).collect();
        let announced = service.layer2.announcer.is_some();
        let successors = service.layer2.candidates.get(1..).unwrap_or_default();
        let prefixes: BTreeSet<&str> = service.bgp.iter().map(|route| route.prefix.as_str()).collect();
        table.row([
            name(service),
            addresses.join(", "),
            service.pool.clone().unwrap_or_default(),
            service.layer2.announcer.clone().unwrap_or_default(),
            if announced { service.layer2.choice.clone() } else { String::new() },
            if announced { few(successors.iter().map(String::as_str)) } else { String::new() },
            few(prefixes.into_iter()),
        ]);
    }
    table
}

/// The routes of each peer; those that only differ in the node are one row.
fn peers(plan: &Plan) -> Table {
    let mut table = Table::new(&["PEER", "GETS", "FROM", "COMMUNITIES", "LOCALPREF", "FOR"]);
    let mut rows: BTreeMap<Route, (BTreeSet<&str>, BTreeSet<String>)> = BTreeMap::new();
    for service in &plan.services {
        for route in &service.bgp {
            let (nodes, services) = rows.entry(Route { node: String::new(), ..route.clone() }).or_default();
            nodes.insert(&route.node);
            services.insert(name(service));
        }
    }
    for (route, (nodes, services)) in &rows {
        let everywhere = nodes.len() == plan.nodes.len() && nodes.len() > 1;
        table.row([
            route.peer.clone(),
            route.prefix.clone(),
            if everywhere { format!("all {} nodes", nodes.len()) } else { few(nodes.iter().copied()) },
            route.communities.join(" "),
            route.local_pref.map(|preference| preference.to_string()).unwrap_or_default(),
            few(services.iter().map(String::as_str)),
        ]);
    }
    let told: BTreeSet<&str> = rows.keys().map(|route| route.peer.as_str()).collect();
    for peer in plan.peers.iter().filter(|peer| !told.contains(peer.as_str())) {
        table.row([peer.as_str(), "nothing", "", "", "", ""]);
    }
    table
}

fn pools(plan: &Plan) -> Table {
    let mut table = Table::new(&["POOL", "SERVICES", "IPV4 USED", "IPV6 USED"]);
    for (pool, usage) in &plan.usage {
        let used = |used: u128, total: u128| match total {
            0 => String::new(),
            // A /64 in figures helps nobody.
            total if total > 1 << 40 => format!("{used} of 2^{}", total.ilog2()),
            total => format!("{used} of {total}"),
        };
        table.row([
            pool.clone(),
            usage.services.to_string(),
            used(usage.used_v4, usage.total_v4),
            used(usage.used_v6, usage.total_v6),
        ]);
    }
    table
}

fn pending(plan: &Plan) -> Vec<String> {
    let mut out = Vec::new();
    for service in &plan.services {
        out.extend(service.reason.iter().map(|reason| format!("{}: {reason}", name(service))));
    }
    out
}

/// Services with an address that nobody announces, and those of which a part is not announced.
fn silent(plan: &Plan) -> Vec<String> {
    let mut out = Vec::new();
    for service in plan.services.iter().filter(|service| !service.addresses.is_empty()) {
        let bgp = !service.bgp.is_empty() || !service.no_routes.is_empty();
        let only_bgp = |reason: &&String| bgp && reason.starts_with("noMatchingAdvertisement:");
        let layer2 = service.layer2.reason.iter().filter(|reason| !only_bgp(reason));
        out.extend(layer2.map(|reason| format!("{} at layer 2: {reason}", name(service))));
        out.extend(
            service.no_routes.iter().take(SHOWN).map(|line| format!("{} by BGP: {line}", name(service))),
        );
    }
    out
}

fn notices(plan: &Plan) -> Vec<String> {
    let mut out = plan.notes.clone();
    for service in &plan.services {
        out.extend(service.notices.iter().map(|notice| format!("Service {}: {notice}", name(service))));
    }
    out
}

fn name(service: &ServicePlan) -> String {
    format!("{}/{}", service.namespace, service.name)
}

/// The first names, and how many more there are.
fn few<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let more = names.len().saturating_sub(SHOWN);
    let shown: Vec<&str> = names.take(SHOWN).collect();
    let more = if more > 0 { format!(" +{more}") } else { String::new() };
    format!("{}{more}", shown.join(","))
}

fn section(out: &mut String, table: &Table) {
    if !table.is_empty() {
        separate(out);
        out.push_str(&table.render());
    }
}

fn lines(out: &mut String, title: &str, lines: Vec<String>) {
    if lines.is_empty() {
        return;
    }
    separate(out);
    out.push_str(title);
    out.push('\n');
    for line in lines {
        out.push_str(&format!("  {line}\n"));
    }
}

fn separate(out: &mut String) {
    if !out.is_empty() {
        out.push('\n');
    }
}
