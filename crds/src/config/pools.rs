//! Pools: what addresses there are and who may have them.

use std::collections::{BTreeMap, BTreeSet};

use super::draft::{Draft, Place, Problems, distinct, distinct_selectors};
use super::{ObjectRef, Pool, ServiceAllocation};
use crate::net::AddressRange;
use crate::selector::Selector;
use crate::types;

/// Checks every pool, and all of them for overlaps.
pub(super) fn build(
    drafts: &[Draft<types::IPAddressPoolSpec>],
    problems: &mut Problems,
) -> BTreeMap<String, Pool> {
    let mut pools = BTreeMap::new();
    let mut declared = Vec::new();
    for draft in drafts {
        let ranges = ranges(draft, &mut declared, problems);
        let allocation = match &draft.spec.service_allocation {
            Some(allocation) => service_allocation(&draft.place, allocation, problems),
            None => ServiceAllocation::default(),
        };
        let pool = Pool {
            name: draft.name.clone(),
            source: draft.place.object.clone(),
            labels: draft.labels.clone(),
            ranges,
            auto_assign: draft.spec.auto_assign,
            avoid_buggy_ips: draft.spec.avoid_buggy_ips,
            allocation,
        };
        pools.insert(draft.name.clone(), pool);
    }
    check_overlaps(&declared, problems);
    pools
}

/// The pools that names and selectors choose. Neither: every pool, except that an advertisement resource leaves the pools of
/// the legacy ConfigMap alone, which have their protocol beside them.
pub(super) fn chosen(
    place: &Place,
    names: &[String],
    selectors: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector],
    pools: &BTreeMap<String, Pool>,
    problems: &mut Problems,
) -> BTreeSet<String> {
    let named = distinct(place, "ipAddressPools", names, problems);
    let selectors: Vec<Selector> = distinct_selectors(place, "ipAddressPoolSelectors", selectors, problems);
    if names.is_empty() && selectors.is_empty() {
        return pools
            .values()
            .filter(|pool| !is_legacy(&pool.source))
            .map(|pool| pool.name.clone())
            .collect();
    }
    for name in named.iter().filter(|name| !pools.contains_key(*name)) {
        problems.notice(&place.object, format!("names the pool {name:?}, which does not exist"));
    }
    // Most advertisements have no selectors: not every pool is looked at for each of them.
    let selectable = (!selectors.is_empty()).then(|| pools.values()).into_iter().flatten();
    let selected = selectable
        .filter(|pool| selectors.iter().any(|selector| selector.matches(&pool.labels)))
        .map(|pool| &pool.name);
    selected.chain(named.iter().filter(|name| pools.contains_key(*name))).cloned().collect()
}

/// Whether the object is the legacy ConfigMap.
pub(super) fn is_legacy(source: &ObjectRef) -> bool {
    source.kind == "ConfigMap"
}

/// One entry of `addresses`, where it stands.
struct Declared {
    range: AddressRange,
    text: String,
    object: ObjectRef,
    pool: String,
    field: String,
}

fn ranges(
    draft: &Draft<types::IPAddressPoolSpec>,
    declared: &mut Vec<Declared>,
    problems: &mut Problems,
) -> Vec<AddressRange> {
    let place = &draft.place;
    if draft.spec.addresses.is_empty() {
        let message = "the pool has no addresses; at least one CIDR or range is needed";
        problems.error(&place.object, place.field("addresses"), message);
    }
    let mut out = Vec::new();
    for (i, text) in draft.spec.addresses.iter().enumerate() {
        match text.parse::<AddressRange>() {
            Ok(range) => {
                out.push(range);
                declared.push(Declared {
                    range,
                    text: text.trim().to_owned(),
                    object: place.object.clone(),
                    pool: draft.name.clone(),
                    field: place.entry("addresses", i),
                });
            }
            Err(error) => problems.error(&place.object, place.entry("addresses", i), error.to_string()),
        }
    }
    out
}

/// Sorted by first address, an entry overlaps an earlier one exactly when it starts before the furthest end so far. Of the two
/// the one that was declared later is to blame.
fn check_overlaps(declared: &[Declared], problems: &mut Problems) {
    let mut order: Vec<(usize, &Declared)> = declared.iter().enumerate().collect();
    order.sort_by_key(|(i, entry)| (entry.range, *i));
    let mut furthest: Option<(usize, &Declared)> = None;
    let mut found = Vec::new();
    for (i, entry) in order {
        match furthest {
            Some((other, earlier)) if earlier.range.overlaps(&entry.range) => {
                let pair = [(other, earlier), (i, entry)];
                found.push(if other < i { pair } else { [pair[1], pair[0]] });
                if entry.range.last_number() > earlier.range.last_number() {
                    furthest = Some((i, entry));
                }
            }
            _ => furthest = Some((i, entry)),
        }
    }
    found.sort_by_key(|[(earlier, _), (later, _)]| (*later, *earlier));
    for [(_, earlier), (_, entry)] in found {
        let message = if earlier.pool == entry.pool && earlier.object == entry.object {
            format!("{:?} overlaps with {:?} ({}) of the same pool", entry.text, earlier.text, earlier.field)
        } else {
            format!(
                "{:?} of pool {:?} overlaps with {:?} of pool {:?} ({}: {}); an address may be in one pool only",
                entry.text, entry.pool, earlier.text, earlier.pool, earlier.object, earlier.field
            )
        };
        problems.error(&entry.object, entry.field.clone(), message);
    }
}

fn service_allocation(
    place: &Place,
    allocation: &types::ServiceAllocation,
    problems: &mut Problems,
) -> ServiceAllocation {
    let nested = place.nested("serviceAllocation");
    let priority = match allocation.priority {
        None | Some(0) => None,
        Some(n) => {
            // MetalLB takes any number, and only positive ones rank.
            let priority = u32::try_from(n).ok().or((n > 0).then_some(u32::MAX));
            if priority.is_none_or(|priority| i64::from(priority) != n) {
                let (field, rank) =
                    (nested.field("priority"), priority.map_or("0 (last)".to_owned(), |n| n.to_string()));
                let message = format!(
                    "{field}: {n} ranks as {rank}; meant to be used are 0 (last) and 1 to {}",
                    u32::MAX
                );
                problems.notice(&place.object, message);
            }
            priority
        }
    };
    ServiceAllocation {
        priority,
        namespaces: distinct(&nested, "namespaces", &allocation.namespaces, problems),
        namespace_selectors: distinct_selectors(
            &nested,
            "namespaceSelectors",
            &allocation.namespace_selectors,
            problems,
        ),
        service_selectors: distinct_selectors(
            &nested,
            "serviceSelectors",
            &allocation.service_selectors,
            problems,
        ),
    }
}
