//! What is allowed but leaves a hole.

use std::collections::BTreeSet;

use super::Config;
use super::draft::{Drafts, Problems};

/// Pools that nobody announces, advertisements for peers that do not exist.
pub(super) fn look_for_gaps(config: &Config, drafts: &Drafts, problems: &mut Problems) {
    let peers: BTreeSet<&str> = config.peers.iter().map(|peer| peer.name.as_str()).collect();
    for draft in &drafts.bgp_advertisements {
        for name in draft.spec.peers.iter().filter(|name| !peers.contains(name.as_str())) {
            problems.notice(&draft.place.object, format!("names the peer {name:?}, which does not exist"));
        }
    }
    let l2 = config.l2_advertisements.iter().flat_map(|ad| &ad.pools);
    let announced: BTreeSet<&String> =
        l2.chain(config.bgp_advertisements.iter().flat_map(|ad| &ad.pools)).collect();
    for pool in config.pools.values().filter(|pool| !announced.contains(&pool.name)) {
        let message = format!(
            "no advertisement covers the pool {:?}: its addresses are given out but not announced; create an \
             L2Advertisement or a BGPAdvertisement",
            pool.name
        );
        problems.notice(&pool.source, message);
    }
}
