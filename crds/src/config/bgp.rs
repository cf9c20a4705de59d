//! BGPAdvertisements.

use std::collections::{BTreeMap, BTreeSet};

use super::draft::{Draft, Place, Problems, distinct, selectors};
use super::{BgpAdvertisement, Community, Pool, pools};
use crate::net::{AddressRange, Family};
use crate::selector::disjoint;
use crate::types;

/// More names of aliases help nobody to find the right one.
const SHOWN: usize = 20;

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
    // A route to one address is never too much; most advertisements are of that kind.
    if length == family.bits() {
        return;
    }
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
    let (mut out, mut seen) = (BTreeSet::new(), BTreeSet::new());
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
                let mut known: Vec<&str> = aliases.keys().map(String::as_str).take(SHOWN).collect();
                known.extend((aliases.len() > SHOWN).then_some("..."));
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                let message = format!(
                    "{text:?} is neither a community (64500:100, large:64500:1:2) nor an alias; aliases defined: {known}"
                );
                problems.transient(&place.object, field(), ("Community", ""), message);
                continue;
            }
        };
        out.insert(community);
        // The ConfigMap always took a community twice for once. An alias beside its value is no mistake.
        if !seen.insert(text) && !place.legacy {
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
    let preferences: BTreeSet<Option<u32>> = ads.iter().map(|ad| ad.local_pref).collect();
    if preferences.len() < 2 {
        return;
    }
    // Only advertisements of one pool with different preferences meet, and one contradiction is enough for each of them.
    let mut of_pool: BTreeMap<&str, BTreeMap<Option<u32>, Vec<usize>>> = BTreeMap::new();
    for (i, (draft, ad)) in drafts.iter().zip(ads).enumerate() {
        let met = || {
            ad.pools.iter().filter_map(|name| pools.get(name)).flat_map(|pool| {
                let others = of_pool.get(pool.name.as_str()).into_iter().flatten();
                let others =
                    others.filter(|(preference, _)| **preference != ad.local_pref).flat_map(|(_, ads)| ads);
                others.filter_map(move |i| Some((pool, drafts.get(*i)?, ads.get(*i)?)))
            })
        };
        let preference = |ad: &BgpAdvertisement| ad.local_pref.unwrap_or(0);
        let said = |pool: &Pool, other: &Draft<types::BGPAdvertisementSpec>, earlier: &BgpAdvertisement| {
            let (ours, object, path) = (preference(ad), &other.place.object, other.place.path());
            format!("{ours} for pool {:?}, but {object} ({path}) says {}", pool.name, preference(earlier))
        };
        let same_lengths = |other: &BgpAdvertisement| {
            (ad.aggregation_length, ad.aggregation_length_v6)
                == (other.aggregation_length, other.aggregation_length_v6)
        };
        let field = draft.place.field("localPref");
        if let Some((pool, other, earlier)) =
            met().find(|(_, _, earlier)| same_lengths(earlier) && may_meet(earlier, ad))
        {
            let message = format!(
                "{} for the same routes; give both the same value, or different aggregation lengths, peers or nodes",
                said(pool, other, earlier)
            );
            problems.error(&draft.place.object, field, message);
        } else if let Some((pool, other, earlier)) = met()
            .find(|(pool, _, earlier)| common_family(earlier, ad, pool).is_some() && may_meet(earlier, ad))
        {
            // MetalLB takes two advertisements for different routes as soon as one of their lengths differs.
            let family =
                common_family(earlier, ad, pool).map(|family| family.to_string()).unwrap_or_default();
            let said = said(pool, other, earlier);
            let message = format!(
                "{field}: {said} for the same {family} routes; a Service that both cover is not announced"
            );
            problems.notice(&draft.place.object, message);
        }
        for pool in &ad.pools {
            of_pool.entry(pool).or_default().entry(ad.local_pref).or_default().push(i);
        }
    }
}

/// The family of the pool for which both announce routes of one length.
fn common_family(a: &BgpAdvertisement, b: &BgpAdvertisement, pool: &Pool) -> Option<Family> {
    let mut families = pool.ranges.iter().map(AddressRange::family);
    families.find(|family| match family {
        Family::V4 => a.aggregation_length == b.aggregation_length,
        Family::V6 => a.aggregation_length_v6 == b.aggregation_length_v6,
    })
}

/// Whether some peer could hear both from one node. With service selectors it depends on the Service and is decided when it
/// is announced.
fn may_meet(a: &BgpAdvertisement, b: &BgpAdvertisement) -> bool {
    let by_service = !a.service_selectors.is_empty() || !b.service_selectors.is_empty();
    let other_peers = !a.peers.is_empty() && !b.peers.is_empty() && a.peers.is_disjoint(&b.peers);
    !by_service && !other_peers && !disjoint(&a.node_selectors, &b.node_selectors)
}
