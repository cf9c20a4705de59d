//! Services that share an address, put together.

use std::net::IpAddr;

use super::services::Claim;

/// Puts claims next to each other when they hold one address, directly or through others, and numbers these groups. Most
/// often each is one alone.
pub(super) fn group(claims: &mut [Claim<'_>]) {
    // Union-find over the claims; an address joins whoever held it first.
    let mut parents: Vec<usize> = (0..claims.len()).collect();
    let addresses = claims.iter().map(|claim| claim.service.ingress.len()).sum();
    let mut holders: Vec<(IpAddr, usize)> = Vec::with_capacity(addresses);
    for (index, claim) in claims.iter().enumerate() {
        holders.extend(claim.service.ingress.iter().map(|ip| (*ip, index)));
    }
    holders.sort_unstable();
    for same in holders.chunk_by(|(a, _), (b, _)| a == b) {
        let Some((_, first)) = same.first() else { continue };
        for (_, other) in same {
            let (a, b) = (root(&mut parents, *first), root(&mut parents, *other));
            if let Some(parent) = parents.get_mut(a.max(b)) {
                *parent = a.min(b);
            }
        }
    }
    for (index, claim) in claims.iter_mut().enumerate() {
        claim.group = root(&mut parents, index);
    }
    claims.sort_by_key(|claim| claim.group);
}

/// The text of the lowest first address, IPv4 before IPv6; of two spellings of one address the smaller.
pub(super) fn first_ingress<'a>(claims: &[Claim<'a>]) -> &'a str {
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
