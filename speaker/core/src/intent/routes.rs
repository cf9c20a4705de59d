//! Which routes each BGP peer of a node gets: what belongs into its Adj-RIB-Out (RFC 4271 3.2), and why a Service has none.
//!
//! ```text
//! Service ── ours? address in a pool? covered by a BGPAdvertisement? ── no ──> NoRoute (about the Service)
//!    │ yes
//! node ── not excluded, network available, endpoint (Local: of its own; Cluster: any), selected ── no ──> NoRoute
//!    │ yes
//! each address x each advertisement ──> prefix (aggregation length of its family)
//!    └─ x each peer of the node that the advertisement goes to and whose session carries the family ──> a route
//! ```
//!
//! Unlike layer 2 every node that can announces: the router spreads the traffic.
//!
//! * **A prefix is one route**, however many Services and advertisements cause it; the communities of all are united.
//! * **LOCAL_PREF** cannot be united. Two values for one route to one peer are refused where the configuration is read,
//!   except where it depends on the Service (`serviceSelectors`): then that Service has no route from this node. Where two
//!   *Services* cause one prefix with different values, the first of them in the order of their names has the route.
//! * **Families** (api 1.4): an IPv4 session carries IPv4 and an IPv6 session IPv6; with `dualStackAddressFamily` both, and
//!   so does an unnumbered session (`interface`), which is made for it (RFC 8950: IPv4 routes with an IPv6 next hop).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use patina_crds::config::{BgpAdvertisement, Community, Config, Peer, PeerAddress};
use patina_crds::net::{Family, from_number, to_number};
use patina_crds::selector::any_matches;

pub use super::no_route::{Conflict, NoRoute};
use super::nodes::{Fitness, standing};
use super::services::Rules;
use crate::view::{NodeView, Options, ServiceId, ServiceView, Snapshot, TrafficPolicy};

/// An IP prefix. Ordered by family, address, length; printed as `192.0.2.0/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

impl Prefix {
    /// The prefix of this length that contains `ip`; a length beyond the address is the whole address.
    #[must_use]
    pub fn containing(ip: IpAddr, length: u8) -> Self {
        let family = Family::of(ip);
        let length = length.min(family.bits());
        let host_bits = u32::from(family.bits() - length);
        let kept = u128::MAX.checked_shl(host_bits).unwrap_or(0);
        Self { address: from_number(family, to_number(ip) & kept).unwrap_or(ip), length }
    }

    /// Its first address.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// In bits.
    #[must_use]
    pub fn length(&self) -> u8 {
        self.length
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// A route to announce.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// Of all advertisements that cause it.
    pub communities: BTreeSet<Community>,
    /// As configured; it goes to peers of our own AS only (RFC 4271 5.1.5).
    pub local_pref: Option<u32>,
    /// The Services that cause it; never empty.
    pub services: BTreeSet<ServiceId>,
}

/// What one node tells its peers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeRoutes<'a> {
    /// Every peer of the node by name, also those without a route.
    pub peers: BTreeMap<&'a str, BTreeMap<Prefix, Route>>,
    /// One per Service.
    pub verdicts: BTreeMap<&'a ServiceId, RouteVerdict<'a>>,
}

/// What became of a Service on one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteVerdict<'a> {
    /// The routes that it causes, as peer and prefix, in order.
    pub routes: BTreeSet<(&'a str, Prefix)>,
    /// Without any route: why.
    pub why_not: Option<NoRoute>,
    /// With a route: its addresses that have none.
    pub missing: BTreeMap<IpAddr, NoRoute>,
}

/// The routes of the snapshot's node.
#[must_use]
pub fn routes<'a>(snapshot: &Snapshot<'a>) -> NodeRoutes<'a> {
    Announcements::new(snapshot.config, snapshot.services, snapshot.nodes, snapshot.options).on(snapshot.node)
}

/// What is the same for all nodes, worked out once.
#[derive(Debug)]
pub struct Announcements<'a> {
    config: &'a Config,
    options: &'a Options,
    nodes: BTreeMap<&'a str, &'a NodeView>,
    /// In the order of the Services' names.
    claims: BTreeMap<&'a ServiceId, Result<Claim<'a>, NoRoute>>,
}

/// A Service that some BGPAdvertisement covers and that has an endpoint.
#[derive(Debug)]
struct Claim<'a> {
    service: &'a ServiceView,
    /// Indexes into [`Config::bgp_advertisements`].
    advertisements: Vec<usize>,
    /// Nodes with a usable endpoint; `None`: any node will do.
    local: Option<BTreeSet<&'a str>>,
}

impl<'a> Announcements<'a> {
    /// Of these Services, on these nodes.
    #[must_use]
    pub fn new(
        config: &'a Config,
        services: &'a [ServiceView],
        nodes: &'a [NodeView],
        options: &'a Options,
    ) -> Self {
        let rules = Rules::new(config, options);
        let claims = services.iter().map(|service| (&service.id, claim(&rules, config, service))).collect();
        let nodes = nodes.iter().map(|node| (node.name.as_str(), node)).collect();
        Self { config, options, nodes, claims }
    }

    /// What this node tells its peers.
    #[must_use]
    pub fn on(&self, node: &str) -> NodeRoutes<'a> {
        let name: Arc<str> = Arc::from(node);
        let barred = match self.nodes.get(node) {
            None => Some(NoRoute::NodeUnknown(Arc::clone(&name))),
            Some(view) => match standing(view, self.options) {
                Fitness::Excluded => Some(NoRoute::NodeLabeledExcludeBalancers(Arc::clone(&name))),
                Fitness::NetworkUnavailable => Some(NoRoute::NodeNetworkUnavailable(Arc::clone(&name))),
                _ => None,
            },
        };
        let labels = self.nodes.get(node).map(|view| &view.labels);
        let here = |selectors| labels.is_some_and(|labels| any_matches(selectors, labels));
        let peers = self.config.peers.iter().filter(|peer| here(&peer.node_selectors));
        let advertisements = self.config.bgp_advertisements.iter();
        let mut table = Table {
            peers: peers.collect(),
            advertisements: advertisements.map(|ad| here(&ad.node_selectors).then_some(ad)).collect(),
            routes: BTreeMap::new(),
            name,
        };
        let mut out = NodeRoutes::default();
        for (id, claim) in &self.claims {
            let verdict = match (claim, &barred) {
                (Err(why_not), _) | (Ok(_), Some(why_not)) => Err(why_not.clone()),
                (Ok(claim), None) => table.announce(claim),
            };
            let refused = |why_not| RouteVerdict { why_not: Some(why_not), ..RouteVerdict::default() };
            out.verdicts.insert(id, verdict.unwrap_or_else(refused));
        }
        out.peers = table.peers.iter().map(|peer| (peer.name.as_str(), BTreeMap::new())).collect();
        for ((peer, prefix), (_, route)) in table.routes {
            out.peers.entry(peer).or_default().insert(prefix, route);
        }
        out
    }
}

fn claim<'a>(rules: &Rules<'a>, config: &'a Config, service: &'a ServiceView) -> Result<Claim<'a>, NoRoute> {
    let pool = rules.pool(service).map_err(NoRoute::NotOurs)?;
    let matches = |ad: &BgpAdvertisement| {
        ad.pools.contains(&pool.name) && any_matches(&ad.service_selectors, &service.labels)
    };
    let matching = config.bgp_advertisements.iter().enumerate().filter(|(_, ad)| matches(ad));
    let advertisements: Vec<usize> = matching.map(|(index, _)| index).collect();
    if advertisements.is_empty() {
        return Err(NoRoute::NoMatchingAdvertisement { pool: pool.name.clone() });
    }
    if !service.endpoints.iter().any(|endpoint| endpoint.usable) {
        return Err(NoRoute::NoEndpoints);
    }
    let usable = service.endpoints.iter().filter(|endpoint| endpoint.usable);
    let local = match service.traffic_policy {
        TrafficPolicy::Cluster => None,
        TrafficPolicy::Local => Some(usable.filter_map(|endpoint| endpoint.node.as_deref()).collect()),
    };
    Ok(Claim { service, advertisements, local })
}

/// One node's routes while they are collected.
struct Table<'a> {
    name: Arc<str>,
    peers: Vec<&'a Peer>,
    /// By index; `None`: does not select this node.
    advertisements: Vec<Option<&'a BgpAdvertisement>>,
    /// By peer and prefix; with the advertisement that the LOCAL_PREF is of.
    routes: BTreeMap<(&'a str, Prefix), (&'a BgpAdvertisement, Route)>,
}

impl<'a> Table<'a> {
    /// Adds the routes of a Service: all, or none and why.
    fn announce(&mut self, claim: &Claim<'a>) -> Result<RouteVerdict<'a>, NoRoute> {
        let node = || Arc::clone(&self.name);
        if claim.local.as_ref().is_some_and(|local| !local.contains(&*self.name)) {
            return Err(NoRoute::NoLocalEndpoints(node()));
        }
        let at = |index: &usize| self.advertisements.get(*index).copied().flatten();
        let advertisements: Vec<_> = claim.advertisements.iter().filter_map(at).collect();
        if advertisements.is_empty() {
            return Err(NoRoute::NodeNotSelected(node()));
        }
        let mut wanted: BTreeMap<(&'a str, Prefix), (&'a BgpAdvertisement, Route)> = BTreeMap::new();
        let mut missing = BTreeMap::new();
        let mut has_peer = false;
        for ip in &claim.service.ingress {
            let family = Family::of(*ip);
            let mut carried = false;
            for ad in &advertisements {
                let goes_to = |peer: &&&Peer| ad.peers.is_empty() || ad.peers.contains(&peer.name);
                for peer in self.peers.iter().filter(goes_to) {
                    has_peer = true;
                    if carries(peer, family) {
                        carried = true;
                        want(&mut wanted, peer, ad, prefix(ad, *ip))?;
                    }
                }
            }
            if !carried {
                missing.insert(*ip, NoRoute::NoSessionOfFamily { family, node: node() });
            }
        }
        if !has_peer {
            return Err(NoRoute::NoPeer(node()));
        }
        if wanted.is_empty() {
            let first = missing.into_values().next();
            return Err(first.unwrap_or_else(|| NoRoute::NoPeer(node())));
        }
        for ((peer, prefix), (ad, _)) in &wanted {
            if let Some((first, route)) = self.routes.get(&(*peer, *prefix))
                && first.local_pref != ad.local_pref
            {
                let mut conflict = conflict(peer, *prefix, first, ad);
                conflict.announced_for = route.services.first().cloned();
                return Err(NoRoute::ConflictingAdvertisements(Box::new(conflict)));
            }
        }
        let routes = wanted.keys().copied().collect();
        for (key, (ad, route)) in wanted {
            let (_, known) = self.routes.entry(key).or_insert_with(|| (ad, Route::default()));
            known.local_pref = route.local_pref;
            known.communities.extend(route.communities);
            known.services.insert(claim.service.id.clone());
        }
        Ok(RouteVerdict { routes, why_not: None, missing })
    }
}

/// One more advertisement that wants this route.
fn want<'a>(
    wanted: &mut BTreeMap<(&'a str, Prefix), (&'a BgpAdvertisement, Route)>,
    peer: &'a Peer,
    ad: &'a BgpAdvertisement,
    prefix: Prefix,
) -> Result<(), NoRoute> {
    let fresh = || (ad, Route { local_pref: ad.local_pref, ..Route::default() });
    let (first, route) = wanted.entry((&peer.name, prefix)).or_insert_with(fresh);
    if first.local_pref != ad.local_pref {
        let conflict = conflict(&peer.name, prefix, first, ad);
        return Err(NoRoute::ConflictingAdvertisements(Box::new(conflict)));
    }
    route.communities.extend(&ad.communities);
    Ok(())
}

fn conflict(peer: &str, prefix: Prefix, one: &BgpAdvertisement, other: &BgpAdvertisement) -> Conflict {
    let side = |ad: &BgpAdvertisement| (ad.source.clone(), ad.local_pref);
    Conflict { peer: peer.to_owned(), prefix, one: side(one), other: side(other), announced_for: None }
}

fn prefix(ad: &BgpAdvertisement, ip: IpAddr) -> Prefix {
    match Family::of(ip) {
        Family::V4 => Prefix::containing(ip, ad.aggregation_length),
        Family::V6 => Prefix::containing(ip, ad.aggregation_length_v6),
    }
}

/// Whether routes of this family go over the session.
fn carries(peer: &Peer, family: Family) -> bool {
    match &peer.address {
        PeerAddress::Ip(ip) => peer.dual_stack_address_family || Family::of(*ip) == family,
        PeerAddress::Interface(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_has_no_host_bits() {
        for (ip, length, text) in [
            ("192.0.2.77", 24, "192.0.2.0/24"),
            ("192.0.2.77", 32, "192.0.2.77/32"),
            ("255.255.255.255", 1, "128.0.0.0/1"),
            ("192.0.2.77", 0, "0.0.0.0/0"),
            ("192.0.2.77", 40, "192.0.2.77/32"),
            ("2001:db8::1:1", 112, "2001:db8::1:0/112"),
            ("2001:db8::1", 128, "2001:db8::1/128"),
            ("2001:db8::1", 0, "::/0"),
        ] {
            assert_eq!(Prefix::containing(ip.parse().unwrap(), length).to_string(), text);
        }
    }
}
