//! What goes to the routers: snapshot -> routes -> tables of the peers; and with whom BGP is spoken at all.

use std::collections::BTreeMap;
use std::sync::Arc;

use patina_crds::config::{Config, Peer, PeerAddress};
use patina_speaker_core::bgp::peer;
use patina_speaker_core::bgp::rib::Tables;
use patina_speaker_core::intent::routes::{NodeRoutes, routes};
use patina_speaker_core::view::{InterfaceView, ServiceId, Snapshot};

use super::Speaker;
use crate::bgp::{Desired, Neighbour, Remote, Secret};

/// What one decision leaves for the next.
#[derive(Debug, Default)]
pub(super) struct Exported {
    tables: Tables,
    /// Services that go out, and to which peers.
    pub(super) services: BTreeMap<ServiceId, Vec<String>>,
}

impl Speaker {
    /// Tells the BGP driver what follows from the snapshot.
    pub(super) fn export(&self, exported: &mut Exported, snapshot: &Snapshot<'_>) {
        let before = self.routes.borrow().clone();
        if snapshot.config.peers.is_empty() && before.peers.is_empty() {
            return;
        }
        let routes = routes(snapshot);
        let draining = snapshot.nodes.iter().any(|node| node.name == snapshot.node && node.draining);
        let desired = Desired {
            peers: neighbours(snapshot, &routes, &before.peers),
            tables: tables(&mut exported.tables, &routes),
            interfaces: match *before.interfaces == *snapshot.interfaces {
                true => Arc::clone(&before.interfaces),
                false => Arc::new(snapshot.interfaces.to_vec()),
            },
            draining,
            ending: before.ending,
        };
        if desired != before {
            self.routes.send_replace(desired);
        }
        let verdicts = routes.verdicts.iter().filter(|(_, verdict)| !verdict.routes.is_empty());
        exported.services = verdicts
            .map(|(id, verdict)| {
                let mut peers: Vec<String> = verdict.routes.iter().map(|(peer, _)| (*peer).to_owned()).collect();
                peers.dedup();
                ((*id).clone(), peers)
            })
            .collect();
    }
}

fn tables(known: &mut Tables, routes: &NodeRoutes<'_>) -> BTreeMap<String, patina_speaker_core::bgp::rib::Table> {
    routes.peers.iter().map(|(peer, routes)| ((*peer).to_owned(), known.table(routes))).collect()
}

/// The peers of this node. One that is as it was stays the same value.
fn neighbours(
    snapshot: &Snapshot<'_>,
    routes: &NodeRoutes<'_>,
    before: &BTreeMap<String, Arc<Neighbour>>,
) -> BTreeMap<String, Arc<Neighbour>> {
    let ours = snapshot.config.peers.iter().filter(|peer| routes.peers.contains_key(peer.name.as_str()));
    ours.map(|peer| {
        let now = neighbour(peer, snapshot.config, snapshot.node, snapshot.interfaces);
        let same = before.get(&peer.name).filter(|known| ***known == now);
        (peer.name.clone(), same.cloned().unwrap_or_else(|| Arc::new(now)))
    })
    .collect()
}

fn neighbour(peer: &Peer, _config: &Config, node: &str, interfaces: &[InterfaceView]) -> Neighbour {
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
