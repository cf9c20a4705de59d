//! L2Advertisements.

use std::collections::BTreeMap;

use super::draft::{Draft, Problems, selectors};
use super::{L2Advertisement, Pool, PreferredNodes, failback, pools};
use crate::selector::Selector;
use crate::types;

/// Checks every advertisement against the pools.
pub(super) fn build(
    drafts: &[Draft<types::L2AdvertisementSpec>],
    pools: &BTreeMap<String, Pool>,
    problems: &mut Problems,
) -> Vec<L2Advertisement> {
    drafts.iter().map(|draft| one(draft, pools, problems)).collect()
}

fn one(
    draft: &Draft<types::L2AdvertisementSpec>,
    pools: &BTreeMap<String, Pool>,
    problems: &mut Problems,
) -> L2Advertisement {
    let (place, spec) = (&draft.place, &draft.spec);
    let chosen =
        pools::chosen(place, &spec.ip_address_pools, &spec.ip_address_pool_selectors, pools, problems);
    L2Advertisement {
        source: place.object.clone(),
        pools: chosen,
        node_selectors: selectors(place, "nodeSelectors", &spec.node_selectors, problems),
        interfaces: spec.interfaces.iter().cloned().collect(),
        service_selectors: selectors(place, "serviceSelectors", &spec.service_selectors, problems),
        preferred_nodes: preferred_nodes(draft, problems),
        failback: failback::read(draft, problems),
    }
}

fn preferred_nodes(
    draft: &Draft<types::L2AdvertisementSpec>,
    problems: &mut Problems,
) -> Vec<PreferredNodes> {
    let mut out = Vec::new();
    for (i, preferred) in draft.spec.preferred_node_selectors.iter().enumerate() {
        let field = draft.place.entry("preferredNodeSelectors", i);
        let weight = u32::try_from(preferred.weight).ok().filter(|weight| (1..=100).contains(weight));
        if weight.is_none() {
            let message = format!("{} is not a weight; allowed is 1 to 100", preferred.weight);
            problems.error(&draft.place.object, format!("{field}.weight"), message);
        }
        match (weight, Selector::compile(&preferred.preference)) {
            (Some(weight), Ok(selector)) => out.push(PreferredNodes { weight, selector }),
            (None, Ok(_)) => {}
            (_, Err(error)) => {
                problems.error(&draft.place.object, format!("{field}.preference"), error.to_string());
            }
        }
    }
    out
}
