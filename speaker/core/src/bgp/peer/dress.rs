//! How a session dresses a route: AS_PATH, next hop, LOCAL_PREF, and the communities of a drain.

use std::net::{IpAddr, Ipv6Addr};

use patina_crds::config::Community;
use patina_crds::net::Family;

use super::fsm::Agreed;
use super::{Established, Settings};
use crate::bgp::message::{Attributes, MAX_EXTENDED_MESSAGE, MAX_MESSAGE, NextHop};
use crate::bgp::rib::{Dress, Wanted};

/// RFC 8326 section 5: GRACEFUL_SHUTDOWN.
const GRACEFUL_SHUTDOWN: Community = Community::Standard(65535, 0);
/// What routers assume where nobody says anything.
const DEFAULT_LOCAL_PREF: u32 = 100;

/// Of one session, as it is now.
#[derive(Debug)]
pub(super) struct Dressing<'a> {
    asn: u32,
    with: &'a Established,
    draining: bool,
}

impl<'a> Dressing<'a> {
    /// `None`: nothing is agreed yet.
    pub(super) fn new(settings: &Settings, agreed: Option<&'a Agreed>, draining: bool) -> Option<Self> {
        Some(Self { asn: settings.asn, with: &agreed?.with, draining })
    }

    pub(super) fn families_without_next_hop(&self) -> Vec<Family> {
        let families = self.with.negotiated.families.iter().copied();
        families.filter(|family| self.next_hop(*family).is_none()).collect()
    }

    /// RFC 4271 section 5.1.3: "the IP address of the interface" that faces the peer: ours on this session.
    fn next_hop(&self, family: Family) -> Option<NextHop> {
        let ends = &self.with.ends;
        let other = ends.other_family;
        match (family, ends.local) {
            (Family::V4, IpAddr::V4(local)) => Some(NextHop::V4(local)),
            // RFC 8950 section 4, where both ends announced it.
            (Family::V4, IpAddr::V6(local)) if self.with.negotiated.ipv4_over_ipv6 => Some(self.v6(local)),
            (Family::V4, IpAddr::V6(_)) => match other {
                Some(IpAddr::V4(other)) => Some(NextHop::V4(other)),
                _ => None,
            },
            (Family::V6, IpAddr::V6(local)) => Some(self.v6(local)),
            (Family::V6, IpAddr::V4(_)) => match other {
                Some(IpAddr::V6(other)) => Some(self.v6(other)),
                _ => None,
            },
        }
    }

    /// RFC 2545 section 3: the link-local address goes along with a global one. An unnumbered session has that one alone.
    fn v6(&self, address: Ipv6Addr) -> NextHop {
        let along = self.with.ends.link_local.filter(|_| !address.is_unicast_link_local());
        NextHop::V6(address, along)
    }
}

impl Dress for Dressing<'_> {
    fn dress(&self, family: Family, wanted: &Wanted) -> Option<Attributes> {
        let internal = self.with.negotiated.internal;
        let mut communities = wanted.communities.clone();
        if self.draining {
            communities.insert(GRACEFUL_SHUTDOWN);
        }
        // RFC 8326 section 4.2: LOCAL_PREF 0 within the AS; a neighbour AS sets its own by the community.
        let local_pref = if self.draining { 0 } else { wanted.local_pref.unwrap_or(DEFAULT_LOCAL_PREF) };
        Some(Attributes {
            // RFC 4271 section 5.1.2: empty to an internal peer, our own number to an external one.
            as_path: if internal { Vec::new() } else { vec![self.asn] },
            next_hop: self.next_hop(family)?,
            // RFC 4271 section 5.1.5: "SHALL" be included to internal peers, "MUST NOT" to external ones.
            local_pref: internal.then_some(local_pref),
            communities,
        })
    }

    fn room(&self, family: Family, attributes: Option<&Attributes>) -> usize {
        let whole = if self.with.negotiated.extended_message { MAX_EXTENDED_MESSAGE } else { MAX_MESSAGE };
        // Header 19, and the two lengths of UPDATE.
        let fixed = 19 + 2 + 2;
        let beside = match attributes {
            // MP_UNREACH_NLRI: head 4, AFI and SAFI 3.
            None => 7,
            Some(attributes) => length(attributes),
        };
        let _ = family;
        whole.saturating_sub(fixed + beside)
    }
}

/// At most so many octets, with every attribute in its longest form (RFC 4271 section 4.3: head of four octets).
fn length(attributes: &Attributes) -> usize {
    const HEAD: usize = 4;
    let large = attributes.communities.iter().filter(|c| matches!(c, Community::Large(..))).count();
    let standard = attributes.communities.len() - large;
    // AS_PATH, and AS4_PATH for an old peer.
    let path = 2 * (HEAD + 2 + 4 * attributes.as_path.len());
    // AFI, SAFI, length, next hop, reserved.
    let next_hop = match attributes.next_hop {
        NextHop::V4(_) => HEAD + 4,
        NextHop::V6(_, along) => HEAD + 3 + 1 + 16 + if along.is_some() { 16 } else { 0 } + 1,
    };
    let origin = HEAD + 1;
    let local_pref = HEAD + 4;
    origin + path + next_hop + local_pref + HEAD + 4 * standard + HEAD + 12 * large
}
