//! A configuration for people: what is in force, one thing a paragraph, defaults left out.

use std::collections::BTreeSet;
use std::fmt;

use super::{
    BfdProfile, BgpAdvertisement, Config, Failback, L2Advertisement, Peer, PeerAsn, Pool, Reservation,
    ServiceAllocation,
};
use crate::config::duration::show;
use crate::selector::Selector;

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::default() {
            return f.write_str("nothing is configured\n");
        }
        self.pools.values().try_for_each(|pool| render_pool(pool, f))?;
        self.l2_advertisements.iter().try_for_each(|ad| render_l2(ad, f))?;
        self.bgp_advertisements.iter().try_for_each(|ad| render_bgp(ad, f))?;
        self.peers.iter().try_for_each(|peer| render_peer(peer, f))?;
        self.bfd_profiles.iter().try_for_each(|(name, profile)| render_bfd(name, profile, f))?;
        self.reservations.iter().try_for_each(|reservation| render_reservation(reservation, f))
    }
}

/// One line of a paragraph; nothing for an empty value.
fn line(f: &mut fmt::Formatter<'_>, label: &str, value: &str) -> fmt::Result {
    if value.is_empty() { Ok(()) } else { writeln!(f, "  {label:<12} {value}") }
}

fn render_pool(pool: &Pool, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "pool {} ({})", pool.name, pool.source)?;
    for range in &pool.ranges {
        let count = range.len();
        let count = if count > 1 << 32 { String::new() } else { format!(" ({count})") };
        line(f, "addresses", &format!("{range}{count}"))?;
    }
    line(f, "labels", &join(pool.labels.iter().map(|(key, value)| format!("{key}={value}"))))?;
    line(f, "automatic", if pool.auto_assign { "" } else { "no, only by name or by address" })?;
    line(f, "avoids", if pool.avoid_buggy_ips { ".0 and .255" } else { "" })?;
    let ServiceAllocation { priority, namespaces, namespace_selectors, service_selectors } = &pool.allocation;
    line(f, "priority", &priority.map(|n| n.to_string()).unwrap_or_default())?;
    line(f, "namespaces", &join(namespaces.iter().cloned().chain(texts(namespace_selectors))))?;
    line(f, "services", &join(texts(service_selectors)))
}

fn render_l2(ad: &L2Advertisement, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "announce by layer 2 ({})", ad.source)?;
    line(f, "pools", &names(&ad.pools, "none"))?;
    line(f, "nodes", &join(texts(&ad.node_selectors)))?;
    line(f, "interfaces", &names(&ad.interfaces, ""))?;
    line(f, "services", &join(texts(&ad.service_selectors)))?;
    let failback = Some(ad.failback).filter(|failback| *failback != Failback::default());
    line(f, "failback", &failback.map(|failback| failback.to_string()).unwrap_or_default())?;
    for preferred in &ad.preferred_nodes {
        line(f, "prefers", &format!("{} by {}", selector(&preferred.selector), preferred.weight))?;
    }
    Ok(())
}

fn render_bgp(ad: &BgpAdvertisement, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "announce by BGP ({})", ad.source)?;
    line(f, "pools", &names(&ad.pools, "none"))?;
    line(f, "as", &format!("/{} and /{}", ad.aggregation_length, ad.aggregation_length_v6))?;
    line(f, "local pref", &ad.local_pref.map(|n| n.to_string()).unwrap_or_default())?;
    line(f, "communities", &join(ad.communities.iter().map(ToString::to_string)))?;
    line(f, "peers", &names(&ad.peers, ""))?;
    line(f, "nodes", &join(texts(&ad.node_selectors)))?;
    line(f, "services", &join(texts(&ad.service_selectors)))
}

fn render_peer(peer: &Peer, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "peer {} ({})", peer.name, peer.source)?;
    let theirs = match peer.peer_asn {
        PeerAsn::Number(asn) => format!("AS {asn}"),
        PeerAsn::Internal => "our AS".to_owned(),
        PeerAsn::External => "any AS but ours".to_owned(),
    };
    line(f, "session", &format!("AS {} to {theirs} at {} port {}", peer.my_asn, peer.address, peer.port))?;
    line(f, "shown as", &peer.local_asn.map(|asn| format!("AS {asn}")).unwrap_or_default())?;
    line(f, "from", &peer.source_address.map(|ip| ip.to_string()).unwrap_or_default())?;
    line(f, "router ID", &peer.router_id.map(|ip| ip.to_string()).unwrap_or_default())?;
    line(f, "VRF", peer.vrf.as_deref().unwrap_or_default())?;
    let timers =
        [("hold", peer.hold_time), ("keepalive", peer.keepalive_time), ("connect", peer.connect_time)];
    let timers = timers.iter().filter_map(|(name, time)| time.map(|time| format!("{name} {}", show(time))));
    line(f, "timers", &join(timers))?;
    line(f, "password", if peer.password.is_some() { "set" } else { "" })?;
    line(f, "BFD profile", peer.bfd_profile.as_deref().unwrap_or_default())?;
    let flags = [
        (peer.graceful_restart, "graceful restart"),
        (peer.ebgp_multi_hop, "multihop"),
        (peer.dual_stack_address_family, "both families"),
    ];
    line(f, "with", &join(flags.iter().filter(|(on, _)| *on).map(|(_, name)| (*name).to_owned())))?;
    line(f, "nodes", &join(texts(&peer.node_selectors)))
}

fn render_bfd(name: &str, profile: &BfdProfile, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "BFD profile {name} ({})", profile.source)?;
    let times = [
        ("receive", profile.receive_interval),
        ("transmit", profile.transmit_interval),
        ("echo", profile.echo_interval),
    ];
    line(
        f,
        "intervals",
        &join(times.iter().filter_map(|(name, t)| t.map(|t| format!("{name} {}", show(t))))),
    )?;
    line(f, "multiplier", &profile.detect_multiplier.map(|n| n.to_string()).unwrap_or_default())?;
    line(f, "minimum TTL", &profile.minimum_ttl.map(|n| n.to_string()).unwrap_or_default())?;
    let flags = [(profile.echo_mode, "echo"), (profile.passive_mode, "passive")];
    line(f, "modes", &join(flags.iter().filter(|(on, _)| *on).map(|(_, name)| (*name).to_owned())))
}

fn render_reservation(reservation: &Reservation, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "kept back ({})", reservation.source)?;
    line(f, "addresses", &join(reservation.ranges.iter().map(ToString::to_string)))?;
    line(
        f,
        "for",
        &reservation.service.as_ref().map_or("nobody".to_owned(), |service| format!("Service {service}")),
    )?;
    line(f, "because", &reservation.reason)
}

fn join(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(", ")
}

fn names(names: &BTreeSet<String>, none: &str) -> String {
    if names.is_empty() { none.to_owned() } else { join(names.iter().cloned()) }
}

fn texts(selectors: &[Selector]) -> impl Iterator<Item = String> {
    selectors.iter().map(selector)
}

fn selector(selector: &Selector) -> String {
    format!("[{selector}]")
}
