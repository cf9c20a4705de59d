//! BGPAdvertisements.

use std::collections::{BTreeMap, BTreeSet};

use super::draft::{Draft, Place, Problems, distinct, selectors};
use super::{BgpAdvertisement, Community, Pool, pools};
use crate::net::Family;
use crate::selector::{Selector, disjoint};
use crate::types;

/// Checks every advertisement against the pools and against each other.
pub(super) fn build(
    drafts: &[Draft<types::BGPAdvertisementSpec>],
    pools: &BTreeMap<String, Pool>,
    aliases: &BTreeMap<String, Option<Community>>,
    problems: &mut Problems,
) -> Vec<BgpAdvertisement> {
    let out: Vec<_> = drafts.iter().map(|draft| one(draft, pools, aliases, problems)).collect();
    check_local_pref(drafts, &out, pools, problems);
    out
}

fn one(
    draft: &Draft<types::BGPAdvertisementSpec>,
    pools: &BTreeMap<String, Pool>,
    aliases: &BTreeMap<String, Option<Community>>,
    problems: &mut Problems,
) -> BgpAdvertisement {
    let (place, spec) = (&draft.place, &draft.spec);
    let chosen =
        pools::chosen(place, &spec.ip_address_pools, &spec.ip_address_pool_selectors, pools, problems);
    let service_selectors = selectors(place, "serviceSelectors", &spec.service_selectors, problems);
    let mut length = |name, value, family| aggregation_length(place, name, value, family, problems);
    let (v4, v6) = (
        length("aggregationLength", spec.aggregation_length, Family::V4),
        length("aggregationLengthV6", spec.aggregation_length_v6, Family::V6),
    );
    for (name, value, family) in
        [("aggregationLength", v4, Family::V4), ("aggregationLengthV6", v6, Family::V6)]
    {
        let Some(value) = value else { continue };
        check_against_pools(place, name, value, family, &chosen, pools, problems);
        if !service_selectors.is_empty() && value != family.bits() {
            let message = format!(
                "{value} with serviceSelectors would announce Services that no selector matches; allowed with \
                 serviceSelectors is {} only",
                family.bits()
            );
            problems.error(&place.object, place.field(name), message);
        }
    }
    BgpAdvertisement {
        source: place.object.clone(),
        pools: chosen,
        node_selectors: selectors(place, "nodeSelectors", &spec.node_selectors, problems),
        service_selectors,
        aggregation_length: v4.unwrap_or(32),
        aggregation_length_v6: v6.unwrap_or(128),
        local_pref: local_pref(place, spec.local_pref, problems),
        communities: communities(place, &spec.communities, aliases, problems),
        peers: distinct(place, "peers", &spec.peers, problems),
    }
}

fn aggregation_length(
    place: &Place,
    name: &str,
    value: Option<i64>,
    family: Family,
    problems: &mut Problems,
) -> Option<u8> {
    let value = value.unwrap_or(i64::from(family.bits()));
    let length = u8::try_from(value).ok().filter(|length| (1..=family.bits()).contains(length));
    if length.is_none() {
        let message = format!("{value} is not an {family} prefix length; allowed is 1 to {}", family.bits());
        problems.error(&place.object, place.field(name), message);
    }
    length
}

/// A route shorter than the pool's own prefix would cover addresses that are not in the pool.
fn check_against_pools(
    place: &Place,
    name: &str,
    length: u8,
    family: Family,
    chosen: &BTreeSet<String>,
    pools: &BTreeMap<String, Pool>,
    problems: &mut Problems,
) {
    for pool in chosen.iter().filter_map(|name| pools.get(name)) {
        for range in pool.ranges.iter().filter(|range| range.family() == family) {
            let shortest = range.cidrs().iter().map(|(_, prefix)| *prefix).min().unwrap_or(family.bits());
            if length < shortest {
                let message = format!(
                    "{length} would announce more than the addresses {range} of pool {:?}; allowed is {shortest} to {}",
                    pool.name,
                    family.bits()
                );
                problems.error(&place.object, place.field(name), message);
            }
        }
    }
}

fn local_pref(place: &Place, value: Option<i64>, problems: &mut Problems) -> Option<u32> {
    let value = value?;
    let preference = u32::try_from(value).ok();
    if preference.is_none() {
        let message = format!("{value} is not a LOCAL_PREF; allowed is 0 to {}", u32::MAX);
        problems.error(&place.object, place.field("localPref"), message);
    }
    // 0 and absent are the same thing in Go's types: nothing was asked for.
    preference.filter(|preference| *preference != 0)
}

fn communities(
    place: &Place,
    list: &[String],
    aliases: &BTreeMap<String, Option<Community>>,
    problems: &mut Problems,
) -> BTreeSet<Community> {
    let mut out = BTreeSet::new();
    for (i, text) in list.iter().enumerate() {
        let field = || place.entry("communities", i);
        let community = match (aliases.get(text).copied(), text.parse::<Community>()) {
            (Some(Some(community)), _) | (None, Ok(community)) => community,
            // The alias itself is wrong and has been reported.
            (Some(None), _) => continue,
            // Something with a colon was meant as a value; anything else as the name of an alias.
            (None, Err(error)) if text.contains(':') => {
                problems.error(&place.object, field(), error.to_string());
                continue;
            }
            (None, Err(_)) => {
                let known: Vec<&str> = aliases.keys().map(String::as_str).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                let message = format!(
                    "{text:?} is neither a community (64500:100, large:64500:1:2) nor an alias; aliases defined: {known}"
                );
                problems.transient(&place.object, field(), message);
                continue;
            }
        };
        // The ConfigMap always took a community twice for once.
        if !out.insert(community) && !place.legacy {
            problems.error(
                &place.object,
                field(),
                format!("{text:?} stands twice in the list; name it once"),
            );
        }
    }
    out
}

/// Two LOCAL_PREFs for one route to one peer from one node: the peer would see whichever came last.
fn check_local_pref(
    drafts: &[Draft<types::BGPAdvertisementSpec>],
    ads: &[BgpAdvertisement],
    pools: &BTreeMap<String, Pool>,
    problems: &mut Problems,
) {
    for (i, (draft, ad)) in drafts.iter().zip(ads).enumerate() {
        for (earlier_draft, earlier) in drafts.iter().zip(ads).take(i) {
            let Some(pool) = conflict(earlier, ad, pools) else { continue };
            let preference = |ad: &BgpAdvertisement| ad.local_pref.unwrap_or(0);
            let message = format!(
                "{} for pool {pool:?}, but {} ({}) says {} for the same routes; give both the same value, or different \
                 aggregation lengths, peers or nodes",
                preference(ad),
                earlier_draft.place.object,
                earlier_draft.place.path(),
                preference(earlier)
            );
            problems.error(&draft.place.object, draft.place.field("localPref"), message);
        }
    }
}

/// The pool for which two advertisements want different LOCAL_PREFs. With service selectors it depends on the Service and
/// is decided when it is announced.
fn conflict<'a>(
    a: &BgpAdvertisement,
    b: &BgpAdvertisement,
    pools: &'a BTreeMap<String, Pool>,
) -> Option<&'a str> {
    let by_service = !a.service_selectors.is_empty() || !b.service_selectors.is_empty();
    let other_peers = !a.peers.is_empty() && !b.peers.is_empty() && a.peers.is_disjoint(&b.peers);
    if by_service || a.local_pref == b.local_pref || other_peers || nodes_apart(a, b) {
        return None;
    }
    let same_routes = |pool: &Pool| {
        pool.ranges.iter().any(|range| match range.family() {
            Family::V4 => a.aggregation_length == b.aggregation_length,
            Family::V6 => a.aggregation_length_v6 == b.aggregation_length_v6,
        })
    };
    let shared = a.pools.intersection(&b.pools).filter_map(|name| pools.get(name));
    shared.filter(|pool| same_routes(pool)).map(|pool| pool.name.as_str()).next()
}

fn nodes_apart(a: &BgpAdvertisement, b: &BgpAdvertisement) -> bool {
    let lists: [&[Selector]; 2] = [&a.node_selectors, &b.node_selectors];
    disjoint(lists[0], lists[1])
}
