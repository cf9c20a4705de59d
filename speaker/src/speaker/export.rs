//! What goes to the routers: snapshot -> routes -> tables of the peers; and with whom BGP, and BFD, is spoken at all.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use patina_crds::config::{Config, Peer, PeerAddress};
use patina_speaker_core::bfd::Settings as BfdSettings;
use patina_speaker_core::bgp::peer;
use patina_speaker_core::bgp::rib::{Table, Tables};
use patina_speaker_core::intent::routes::{NodeRoutes, routes};
use patina_speaker_core::view::{InterfaceView, ServiceId, Snapshot};

use super::Speaker;
use crate::bfd;
use crate::bgp::{Desired, Neighbour, Remote, Secret};
use crate::status::{Bgp, Wanted};

/// What one decision leaves for the next.
#[derive(Debug, Default)]
pub(super) struct Exported {
    tables: Tables,
    /// Services that go out, and the names of the peers they go to.
    services: Arc<BTreeMap<ServiceId, Arc<[Arc<str>]>>>,
}

impl Speaker {
    /// Tells the drivers of BGP and BFD what follows from the snapshot.
    /// True: what is to be shown of it has changed.
    pub(super) fn export(&self, exported: &mut Exported, snapshot: &Snapshot<'_>) -> bool {
        let before = self.bgp.borrow().clone();
        if snapshot.config.peers.is_empty() && before.peers.is_empty() {
            return false;
        }
        let routes = routes(snapshot);
        let peers: Vec<&Peer> = snapshot
            .config
            .peers
            .iter()
            .filter(|peer| routes.peers.contains_key(peer.name.as_str()))
            .collect();
        let sessions: BTreeMap<String, (bfd::Key, bfd::Wanted)> =
            peers.iter().filter_map(|peer| Some((peer.name.clone(), session(peer, snapshot)?))).collect();
        let desired = Desired {
            peers: neighbours(&peers, snapshot, &before.peers),
            tables: tables(&mut exported.tables, &routes),
            bfd: sessions.iter().map(|(peer, (key, _))| (peer.clone(), key.clone())).collect(),
            interfaces: match *before.interfaces == *snapshot.interfaces {
                true => Arc::clone(&before.interfaces),
                false => Arc::new(snapshot.interfaces.to_vec()),
            },
            draining: snapshot.nodes.iter().any(|node| node.name == snapshot.node && node.draining),
            ending: before.ending,
        };
        self.bfd.send_if_modified(|known| crate::watch::replace(known, sessions.into_values().collect()));
        if desired != before {
            self.bgp.send_replace(desired);
        }
        let services = services(&routes);
        let changed = services != *exported.services;
        if changed {
            exported.services = Arc::new(services);
        }
        changed
    }

    /// Has the status objects say to which peers each Service goes.
    pub(super) fn show_exports(&self, exported: &Exported) {
        let wanted = Wanted::<Bgp> { services: Arc::clone(&exported.services), owner: self.owner() };
        self.wanted_bgp.send_if_modified(|current| crate::watch::replace(current, wanted));
    }
}

fn services(routes: &NodeRoutes<'_>) -> BTreeMap<ServiceId, Arc<[Arc<str>]>> {
    let names: BTreeMap<&str, Arc<str>> = routes.peers.keys().map(|name| (*name, Arc::from(*name))).collect();
    let of = |peers: Vec<&str>| peers.into_iter().filter_map(|peer| names.get(peer).cloned()).collect();
    let announced = routes.verdicts.iter().filter(|(_, verdict)| !verdict.routes.is_empty());
    announced
        .map(|(id, verdict)| {
            // In order, by peer first.
            let mut peers: Vec<&str> = verdict.routes.iter().map(|(peer, _)| *peer).collect();
            peers.dedup();
            ((*id).clone(), of(peers))
        })
        .collect()
}

fn tables(known: &mut Tables, routes: &NodeRoutes<'_>) -> BTreeMap<String, Table> {
    routes.peers.iter().map(|(peer, routes)| ((*peer).to_owned(), known.table(routes))).collect()
}

/// The peers of this node. One that is as it was stays the same value.
fn neighbours(
    peers: &[&Peer],
    snapshot: &Snapshot<'_>,
    before: &BTreeMap<String, Arc<Neighbour>>,
) -> BTreeMap<String, Arc<Neighbour>> {
    peers
        .iter()
        .map(|peer| {
            let now = neighbour(peer, snapshot.node, snapshot.interfaces);
            let same = before.get(&peer.name).filter(|known| ***known == now);
            (peer.name.clone(), same.cloned().unwrap_or_else(|| Arc::new(now)))
        })
        .collect()
}

fn neighbour(peer: &Peer, node: &str, interfaces: &[InterfaceView]) -> Neighbour {
    Neighbour {
        // Routes of the process before us may stand in the peer; whether, only the peer knows (RFC 4724 section 4.1).
        settings: peer::Settings::of(peer, node, interfaces, true),
        remote: match &peer.address {
            PeerAddress::Ip(ip) => Remote::Ip(*ip),
            PeerAddress::Interface(name) => Remote::Interface(name.clone()),
        },
        port: peer.port,
        source: peer.source_address,
        vrf: peer.vrf.clone(),
        password: peer.password.clone().map(Secret),
        minimum_ttl: None,
    }
}

/// The BFD session of a peer. An unnumbered one has none yet: where it is, only the driver of BGP finds out.
fn session(peer: &Peer, snapshot: &Snapshot<'_>) -> Option<(bfd::Key, bfd::Wanted)> {
    let profile = profile(peer, snapshot.config)?;
    let PeerAddress::Ip(ip) = &peer.address else { return None };
    let link = snapshot.interfaces.iter().find(|interface| leads_to(interface, *ip));
    let multihop = peer.ebgp_multi_hop || link.is_none();
    let key = bfd::Key {
        peer: *ip,
        local: peer.source_address,
        interface: link.filter(|_| !multihop).map(|interface| interface.name.clone()),
        vrf: peer.vrf.clone(),
        multihop,
    };
    Some((key, bfd::Wanted { settings: BfdSettings::new(profile, multihop), admin_down: false }))
}

fn profile<'a>(peer: &Peer, config: &'a Config) -> Option<&'a patina_crds::config::BfdProfile> {
    config.bfd_profiles.get(peer.bfd_profile.as_ref()?)
}

/// Whether the address is on the interface's own network.
fn leads_to(interface: &InterfaceView, ip: IpAddr) -> bool {
    use patina_speaker_core::intent::routes::Prefix;
    let on = |(own, length): &(IpAddr, u8)| {
        own.is_ipv4() == ip.is_ipv4() && Prefix::containing(*own, *length) == Prefix::containing(ip, *length)
    };
    interface.addresses.iter().any(on)
}
