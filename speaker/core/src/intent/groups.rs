//! Services that share an address, put together.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::services::Claim;

/// Services that are connected by shared addresses; most often one alone.
#[derive(Debug)]
pub(super) struct Group<'a> {
    /// The text that the election hashes.
    pub(super) first_ingress: &'a str,
    pub(super) claims: Vec<Claim<'a>>,
}

/// Partitions the claims: two that hold one address, directly or through others, are in one group.
pub(super) fn groups(claims: Vec<Claim<'_>>) -> Vec<Group<'_>> {
    // Union-find over the claims; an address joins whoever held it first.
    let mut parents: Vec<usize> = (0..claims.len()).collect();
    let mut holders: BTreeMap<IpAddr, usize> = BTreeMap::new();
    for (index, claim) in claims.iter().enumerate() {
        for ip in &claim.service.ingress {
            let holder = *holders.entry(*ip).or_insert(index);
            let (a, b) = (root(&mut parents, holder), root(&mut parents, index));
            if let Some(parent) = parents.get_mut(a.max(b)) {
                *parent = a.min(b);
            }
        }
    }
    let mut by_root: BTreeMap<usize, Vec<Claim<'_>>> = BTreeMap::new();
    for (index, claim) in claims.into_iter().enumerate() {
        by_root.entry(root(&mut parents, index)).or_default().push(claim);
    }
    by_root.into_values().map(|claims| Group { first_ingress: first_ingress(&claims), claims }).collect()
}

/// The text of the lowest first address, IPv4 before IPv6; of two spellings of one address the smaller.
fn first_ingress<'a>(claims: &[Claim<'a>]) -> &'a str {
    claims
        .iter()
        .filter_map(|claim| Some((*claim.service.ingress.first()?, claim.service.ingress_text.as_str())))
        .min()
        .map(|(_, text)| text)
        .unwrap_or_default()
}

fn root(parents: &mut [usize], mut index: usize) -> usize {
    while let Some(parent) = parents.get(index).copied().filter(|parent| *parent != index) {
        // Halve the path on the way up, so that it stays short.
        let grandparent = parents.get(parent).copied().unwrap_or(parent);
        if let Some(slot) = parents.get_mut(index) {
            *slot = grandparent;
        }
        index = grandparent;
    }
    index
}
