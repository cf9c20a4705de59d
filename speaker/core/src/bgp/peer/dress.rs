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

    fn room(&self, _family: Family, attributes: Option<&Attributes>) -> usize {
        let whole = if self.with.negotiated.extended_message { MAX_EXTENDED_MESSAGE } else { MAX_MESSAGE };
        // Header 19, and the two lengths of UPDATE.
        let fixed = 19 + 2 + 2;
        let beside = match attributes {
            // MP_UNREACH_NLRI: head 4, AFI and SAFI 3.
            None => 7,
            Some(attributes) => length(attributes),
        };
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;
    use crate::bgp::codec::{Negotiated, encode};
    use crate::bgp::message::{Capabilities, Ends, Message, Update};
    use crate::bgp::peer::{Link, Side};
    use crate::intent::routes::Prefix;

    fn with(local: &str, link_local: Option<&str>, other_family: Option<&str>) -> Established {
        Established {
            link: Link { side: Side::Ours, number: 1 },
            ends: Ends {
                local: local.parse().unwrap(),
                link_local: link_local.map(|ip| ip.parse().unwrap()),
                other_family: other_family.map(|ip| ip.parse().unwrap()),
                remote: local.parse().unwrap(),
            },
            asn: 64501,
            router_id: Ipv4Addr::new(10, 0, 0, 2),
            hold_time: Duration::from_secs(90),
            theirs: Capabilities::default(),
            negotiated: Negotiated {
                four_octet_asn: true,
                families: BTreeSet::from([Family::V4, Family::V6]),
                ..Negotiated::default()
            },
        }
    }

    fn hops(with: &Established) -> (Option<NextHop>, Option<NextHop>) {
        let dressing = Dressing { asn: 64500, with, draining: false };
        (dressing.next_hop(Family::V4), dressing.next_hop(Family::V6))
    }

    fn v4(ip: &str) -> Option<NextHop> {
        Some(NextHop::V4(ip.parse().unwrap()))
    }

    fn v6(ip: &str, link_local: Option<&str>) -> Option<NextHop> {
        Some(NextHop::V6(ip.parse().unwrap(), link_local.map(|ip| ip.parse().unwrap())))
    }

    #[test]
    fn each_family_has_the_next_hop_that_the_session_can_give() {
        assert_eq!(hops(&with("192.0.2.1", None, None)), (v4("192.0.2.1"), None));
        assert_eq!(
            hops(&with("192.0.2.1", Some("fe80::1"), Some("2001:db8::1"))),
            (v4("192.0.2.1"), v6("2001:db8::1", Some("fe80::1")))
        );
        assert_eq!(hops(&with("2001:db8::1", None, None)), (None, v6("2001:db8::1", None)));
        assert_eq!(
            hops(&with("2001:db8::1", Some("fe80::1"), Some("192.0.2.1"))),
            (v4("192.0.2.1"), v6("2001:db8::1", Some("fe80::1")))
        );
        // Unnumbered.
        let mut unnumbered = with("fe80::1", Some("fe80::1"), None);
        assert_eq!(hops(&unnumbered), (None, v6("fe80::1", None)));
        unnumbered.negotiated.ipv4_over_ipv6 = true;
        assert_eq!(hops(&unnumbered), (v6("fe80::1", None), v6("fe80::1", None)));
        let dressing = Dressing { asn: 64500, with: &unnumbered, draining: false };
        assert_eq!(dressing.families_without_next_hop(), []);
        let alone = with("192.0.2.1", None, None);
        let dressing = Dressing { asn: 64500, with: &alone, draining: false };
        assert_eq!(dressing.families_without_next_hop(), [Family::V6]);
    }

    #[test]
    fn our_number_and_no_preference_go_out_of_the_as_and_a_preference_stays_inside() {
        let mut session = with("192.0.2.1", None, None);
        let dress = |session: &Established, draining, local_pref| {
            let wanted = Wanted { local_pref, communities: [Community::Standard(1, 2)].into() };
            Dressing { asn: 64500, with: session, draining }.dress(Family::V4, &wanted).unwrap()
        };
        let external = dress(&session, false, Some(200));
        assert_eq!((external.as_path, external.local_pref), (vec![64500], None));
        let external = dress(&session, true, Some(200));
        assert_eq!(external.local_pref, None);
        assert_eq!(external.communities, [Community::Standard(1, 2), GRACEFUL_SHUTDOWN].into());
        session.negotiated.internal = true;
        let internal = dress(&session, false, None);
        assert_eq!((internal.as_path, internal.local_pref), (vec![], Some(100)));
        assert_eq!(dress(&session, false, Some(200)).local_pref, Some(200));
        let draining = dress(&session, true, Some(200));
        assert_eq!((draining.local_pref, draining.communities.contains(&GRACEFUL_SHUTDOWN)), (Some(0), true));
    }

    /// What `room` allows is one message on the wire, and not much less than one.
    #[test]
    fn as_many_prefixes_as_there_is_room_for_are_one_full_message() {
        let mut cases = 0;
        for bits in 0..32_u32 {
            let mut session = with("2001:db8::1", (bits & 1 != 0).then_some("fe80::1"), Some("192.0.2.1"));
            session.negotiated.four_octet_asn = bits & 2 != 0;
            session.negotiated.extended_message = bits & 4 != 0;
            session.negotiated.ipv4_over_ipv6 = bits & 8 != 0;
            session.negotiated.internal = bits & 16 != 0;
            for count in [0, 1, 60, 70] {
                let communities =
                    (0..count).flat_map(|n| [Community::Standard(1, n), Community::Large(1, 2, n.into())]);
                let wanted = Wanted { communities: communities.collect(), local_pref: None };
                for family in [Family::V4, Family::V6] {
                    let dressing = Dressing { asn: 4_200_000_000, with: &session, draining: true };
                    let attributes = dressing.dress(family, &wanted).unwrap();
                    let (octets, length) = if family == Family::V4 { (5, 32) } else { (17, 128) };
                    let prefixes = |room: usize| -> Vec<Prefix> {
                        let address = |n: u32| match family {
                            Family::V4 => IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + n)),
                            Family::V6 => IpAddr::V6(Ipv6Addr::from(u128::from(n) + (0x2001_0db8 << 96))),
                        };
                        (0..u32::try_from(room / octets).unwrap())
                            .map(|n| Prefix::containing(address(n), length))
                            .collect()
                    };
                    let reach = Update::Reach {
                        prefixes: prefixes(dressing.room(family, Some(&attributes))),
                        attributes: attributes.into(),
                    };
                    let withdraw = Update::Withdraw(prefixes(dressing.room(family, None)));
                    for update in [reach, withdraw] {
                        let mut out = Vec::new();
                        encode(&Message::Update(update), &session.negotiated, &mut out).unwrap();
                        let first = usize::from(u16::from_be_bytes([out[16], out[17]]));
                        assert_eq!(
                            first,
                            out.len(),
                            "one message: {session:?}, {count} communities, {family}"
                        );
                        let most = if session.negotiated.extended_message { 65_535 } else { 4096 };
                        assert!(out.len() <= most && out.len() + 80 > most, "{} of {most}", out.len());
                        cases += 1;
                    }
                }
            }
        }
        assert_eq!(cases, 32 * 4 * 2 * 2);
    }
}
