//! A configuration in words: what it gives, to whom, and who announces it.

use patina_crds::config::{Config, L2Advertisement, Peer, PeerAddress, PeerAsn, Pool};
use patina_crds::net::AddressRange;
use patina_crds::selector::Selector;

use serde_json::{Value, json};

use crate::table::Table;

/// Tables of pools, advertisements and peers.
#[must_use]
pub(super) fn config(config: &Config) -> String {
    let mut out = String::new();
    let mut pools = Table::new(&["POOL", "ADDRESSES", "SIZE", "AUTO", "FOR", "ANNOUNCED BY"]);
    for pool in config.pools.values() {
        let ranges: Vec<_> = pool.ranges.iter().map(range).collect();
        let auto = if pool.auto_assign { "yes" } else { "on request" };
        pools.row([
            pool.name.clone(),
            ranges.join(", "),
            size(pool),
            auto.to_owned(),
            users(pool),
            announced_by(config, &pool.name),
        ]);
    }
    push(&mut out, &pools);

    let mut l2 = Table::new(&["L2 ADVERTISEMENT", "POOLS", "NODES", "INTERFACES", "SERVICES", "FAILBACK"]);
    for ad in &config.l2_advertisements {
        l2.row([
            ad.source.name.clone(),
            joined(&ad.pools),
            nodes(ad),
            if ad.interfaces.is_empty() { "all".to_owned() } else { joined(&ad.interfaces) },
            selectors(&ad.service_selectors),
            ad.failback.to_string(),
        ]);
    }
    push(&mut out, &l2);

    let mut bgp = Table::new(&["BGP ADVERTISEMENT", "POOLS", "NODES", "PEERS", "PREFIXES", "SERVICES"]);
    for ad in &config.bgp_advertisements {
        bgp.row([
            ad.source.name.clone(),
            joined(&ad.pools),
            selectors(&ad.node_selectors),
            if ad.peers.is_empty() { "all".to_owned() } else { joined(&ad.peers) },
            format!("/{} /{}", ad.aggregation_length, ad.aggregation_length_v6),
            selectors(&ad.service_selectors),
        ]);
    }
    push(&mut out, &bgp);

    let mut peers = Table::new(&["PEER", "ADDRESS", "ASN", "OUR ASN", "NODES", "BFD"]);
    for peer in &config.peers {
        peers.row([
            peer.source.name.clone(),
            peer_address(peer),
            match peer.peer_asn {
                PeerAsn::Number(number) => number.to_string(),
                PeerAsn::Internal => "internal".to_owned(),
                PeerAsn::External => "external".to_owned(),
            },
            peer.local_asn.unwrap_or(peer.my_asn).to_string(),
            selectors(&peer.node_selectors),
            peer.bfd_profile.clone().unwrap_or_default(),
        ]);
    }
    push(&mut out, &peers);

    let mut kept = Table::new(&["RESERVATION", "ADDRESSES", "FOR", "REASON"]);
    for reservation in &config.reservations {
        let user = reservation.service.as_ref().map_or_else(|| "nobody".to_owned(), ToString::to_string);
        let ranges: Vec<_> = reservation.ranges.iter().map(kept_range).collect();
        kept.row([reservation.source.name.clone(), ranges.join(", "), user, reservation.reason.clone()]);
    }
    push(&mut out, &kept);
    out
}

/// The same for programs: what each pool gives, to whom, and by what it is announced.
#[must_use]
pub(super) fn json(config: &Config) -> Value {
    let pools: Vec<_> = config
        .pools
        .values()
        .map(|pool| {
            json!({
                "name": pool.name,
                "addresses": pool.ranges.iter().map(range).collect::<Vec<_>>(),
                "autoAssign": pool.auto_assign,
                "avoidBuggyIPs": pool.avoid_buggy_ips,
                "for": users(pool),
                "announcedBy": announced_by(config, &pool.name),
            })
        })
        .collect();
    let l2: Vec<_> = config
        .l2_advertisements
        .iter()
        .map(|ad| {
            json!({
                "name": ad.source.name, "pools": ad.pools, "nodes": nodes(ad), "interfaces": ad.interfaces,
                "services": selectors(&ad.service_selectors), "failback": ad.failback.to_string(),
            })
        })
        .collect();
    let bgp: Vec<_> = config
        .bgp_advertisements
        .iter()
        .map(|ad| {
            json!({
                "name": ad.source.name, "pools": ad.pools, "nodes": selectors(&ad.node_selectors), "peers": ad.peers,
                "aggregationLength": ad.aggregation_length, "aggregationLengthV6": ad.aggregation_length_v6,
                "services": selectors(&ad.service_selectors),
            })
        })
        .collect();
    let peers: Vec<_> = config
        .peers
        .iter()
        .map(|peer| json!({"name": peer.source.name, "address": peer_address(peer), "myASN": peer.my_asn}))
        .collect();
    let reservations: Vec<_> = config
        .reservations
        .iter()
        .map(|reservation| {
            let service = reservation.service.as_ref();
            json!({
                "name": reservation.source.name,
                "addresses": reservation.ranges.iter().map(kept_range).collect::<Vec<_>>(),
                "service": service.map(|id| json!({"namespace": id.namespace, "name": id.name})),
                "reason": reservation.reason,
            })
        })
        .collect();
    json!({
        "pools": pools, "l2Advertisements": l2, "bgpAdvertisements": bgp, "peers": peers,
        "reservations": reservations,
    })
}

fn push(out: &mut String, table: &Table) {
    if !table.is_empty() {
        if !out.is_empty() {
            out.push('\n');
        }
        out.push_str(&table.render());
    }
}

/// `first-last`, or the CIDR when it is one.
pub(super) fn range(range: &AddressRange) -> String {
    match range.cidrs().as_slice() {
        [(_, prefix)] if range.first() != range.last() => format!("{}/{prefix}", range.first()),
        _ => range.to_string(),
    }
}

/// A reservation may be of one address, which has no need of a prefix.
fn kept_range(kept: &AddressRange) -> String {
    if kept.first() == kept.last() { kept.first().to_string() } else { range(kept) }
}

/// Addresses that can be given; large IPv6 pools as a power of two.
fn size(pool: &Pool) -> String {
    let total = pool.ranges.iter().map(AddressRange::len).fold(0u128, u128::saturating_add);
    let buggy = if pool.avoid_buggy_ips { " less .0 and .255" } else { "" };
    if total > 1 << 40 {
        return format!("2^{}{buggy}", total.ilog2());
    }
    format!("{total}{buggy}")
}

fn users(pool: &Pool) -> String {
    let allocation = &pool.allocation;
    let mut parts = Vec::new();
    if !allocation.namespaces.is_empty() {
        parts.push(format!("namespaces {}", joined(&allocation.namespaces)));
    }
    if !allocation.namespace_selectors.is_empty() {
        parts.push(format!("namespaces with {}", selectors(&allocation.namespace_selectors)));
    }
    let mut text = parts.join(" or ");
    if !allocation.service_selectors.is_empty() {
        let and = if text.is_empty() { "" } else { "; " };
        text.push_str(&format!("{and}Services with {}", selectors(&allocation.service_selectors)));
    }
    if text.is_empty() {
        text.push_str("all");
    }
    if let Some(priority) = allocation.priority {
        text.push_str(&format!(" (priority {priority})"));
    }
    text
}

fn announced_by(config: &Config, pool: &str) -> String {
    let mut ways = Vec::new();
    if config.l2_advertisements.iter().any(|ad| ad.pools.contains(pool)) {
        ways.push("layer 2");
    }
    if config.bgp_advertisements.iter().any(|ad| ad.pools.contains(pool)) {
        ways.push("BGP");
    }
    if ways.is_empty() { "NOBODY".to_owned() } else { ways.join(" and ") }
}

fn nodes(ad: &L2Advertisement) -> String {
    let mut text = selectors(&ad.node_selectors);
    for preferred in &ad.preferred_nodes {
        text.push_str(&format!(", rather {} ({})", preferred.selector, preferred.weight));
    }
    text
}

fn selectors(selectors: &[Selector]) -> String {
    if selectors.is_empty() {
        return "all".to_owned();
    }
    selectors.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
}

fn peer_address(peer: &Peer) -> String {
    match &peer.address {
        PeerAddress::Ip(ip) if peer.port == 179 => ip.to_string(),
        PeerAddress::Ip(ip) => std::net::SocketAddr::new(*ip, peer.port).to_string(),
        PeerAddress::Interface(name) => format!("on {name}"),
    }
}

fn joined<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    let names: Vec<_> = names.into_iter().map(String::as_str).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(",") }
}
