//! What a BGP message says, as values of our own: the wire library stays inside [`super::codec`].

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use patina_crds::config::Community;
use patina_crds::net::Family;

use super::codec::prefixes;
use crate::intent::routes::Prefix;

/// `AS_TRANS` (RFC 6793 section 9): stands in two octets for a number that needs four.
pub const AS_TRANS: u16 = 23456;
/// The largest message without RFC 8654.
pub const MAX_MESSAGE: usize = 4096;
/// The largest message with RFC 8654.
pub const MAX_EXTENDED_MESSAGE: usize = 65535;

/// A message, either way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// RFC 4271 section 4.2.
    Open(Open),
    /// Section 4.3; only ever received: [`Update`] is what we send.
    Received(ReceivedUpdate),
    /// Section 4.3, ours; only ever sent.
    Update(Update),
    /// Section 4.5.
    Notification(Notification),
    /// Section 4.4.
    Keepalive,
    /// RFC 2918, with the subtype of RFC 7313 (0 request, 1 begin, 2 end).
    RouteRefresh {
        /// Of IPv4 or IPv6 unicast; `None`: a family that we do not speak.
        family: Option<Family>,
        /// RFC 7313; others than 0, 1 and 2 are to be ignored (section 5), and all are 0 to who does not know that RFC.
        subtype: u8,
    },
}

/// RFC 4271 section 4.2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The sender's AS: of its 4-octet capability if it sent one, else of the fixed field.
    pub asn: u32,
    /// Seconds: 0, or 3 and more.
    pub hold_time: u16,
    /// BGP Identifier.
    pub router_id: Ipv4Addr,
    /// What it can.
    pub capabilities: Capabilities,
}

/// Capabilities that mean something to us (RFC 5492); others are kept by their code only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Multiprotocol (RFC 4760), unicast only. Empty: the sender knows nothing of RFC 4760, and means IPv4 unicast.
    pub families: BTreeSet<Family>,
    /// RFC 8950: IPv4 unicast routes with an IPv6 next hop.
    pub ipv4_over_ipv6: bool,
    /// RFC 6793.
    pub four_octet_asn: bool,
    /// RFC 2918 (and the old code 128).
    pub route_refresh: bool,
    /// RFC 7313.
    pub enhanced_route_refresh: bool,
    /// RFC 8654.
    pub extended_message: bool,
    /// RFC 4724.
    pub graceful_restart: Option<GracefulRestart>,
    /// RFC 9494: families and their stale time in seconds.
    pub long_lived: Vec<(Family, u32)>,
    /// draft-ietf-idr-bgp-bfd-strict-mode, capability 74.
    pub bfd_strict: bool,
    /// Codes of all others, as sent.
    pub other: BTreeSet<u8>,
}

/// RFC 4724 section 3, with the N bit of RFC 8538.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GracefulRestart {
    /// R: the sender has restarted.
    pub restarting: bool,
    /// N (RFC 8538): also after a NOTIFICATION.
    pub notification: bool,
    /// Seconds, at most 4095.
    pub restart_time: u16,
    /// Families, and whether their forwarding state was kept (F).
    pub families: Vec<(Family, bool)>,
}

/// An UPDATE of ours: one set of attributes, and as many prefixes of one family as fit; or withdrawals of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// Announces.
    Reach {
        /// What holds for all of the prefixes.
        attributes: Arc<Attributes>,
        /// All of one family, never empty.
        prefixes: Vec<Prefix>,
    },
    /// Takes back; all of one family, never empty.
    Withdraw(Vec<Prefix>),
    /// End-of-RIB of a family (RFC 4724 section 2).
    EndOfRib(Family),
}

/// The path attributes of a route of ours. ORIGIN is always IGP.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attributes {
    /// `AS_PATH`: one AS_SEQUENCE, empty towards our own AS. Written in two octets, with AS4_PATH, to an old peer.
    pub as_path: Vec<u32>,
    /// Where the routes lead.
    pub next_hop: NextHop,
    /// LOCAL_PREF, to our own AS only (RFC 4271 section 5.1.5).
    pub local_pref: Option<u32>,
    /// RFC 1997 and RFC 8092; well-known ones included.
    pub communities: BTreeSet<Community>,
}

/// Of a route, in the family of its next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NextHop {
    /// NEXT_HOP (RFC 4271 section 5.1.3), for IPv4 prefixes.
    V4(Ipv4Addr),
    /// In MP_REACH_NLRI (RFC 4760; RFC 8950 for IPv4 prefixes), with a link-local one where both are on one link (RFC 2545).
    V6(Ipv6Addr, Option<Ipv6Addr>),
}

/// An UPDATE that came: counted and dropped, so it says little. A prefix that is in both lists is announced (RFC 4271
/// section 4.3), so withdrawals are to be applied first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReceivedUpdate {
    /// Prefixes announced, of families that were negotiated.
    pub announced: Prefixes,
    /// Prefixes withdrawn, and those that RFC 7606 treats as withdrawn.
    pub withdrawn: Prefixes,
    /// It marks the end of this family's routes.
    pub end_of_rib: Option<Family>,
    /// What was wrong with its attributes, and was survived (RFC 7606).
    pub tolerated: Option<Tolerated>,
}

/// Prefixes as they stand on the wire, IPv4 before IPv6: what an UPDATE makes us keep has no more octets than the UPDATE. (As
/// values, 65,000 default routes would take twenty times as many.)
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Prefixes {
    v4: Vec<u8>,
    v6: Vec<u8>,
}

impl Prefixes {
    /// None of them, and octets to take more.
    pub(super) fn with_room(family: Family, octets: usize) -> Self {
        let mut prefixes = Self::default();
        prefixes.of(family).reserve_exact(octets);
        prefixes
    }

    /// Adds one.
    pub(super) fn push(&mut self, prefix: &Prefix) {
        prefixes::encode(prefix, self.of(Family::of(prefix.address())));
    }

    /// Moves all of the others here.
    pub(super) fn append(&mut self, others: Self) {
        for (family, octets) in [(Family::V4, others.v4), (Family::V6, others.v6)] {
            let ours = self.of(family);
            if ours.is_empty() {
                *ours = octets;
            } else {
                ours.reserve_exact(octets.len());
                ours.extend(octets);
            }
        }
    }

    /// There is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// In the order of the message, IPv4 before IPv6.
    pub fn iter(&self) -> impl Iterator<Item = Prefix> {
        prefixes::Iter::new(&self.v4, Family::V4).chain(prefixes::Iter::new(&self.v6, Family::V6)).flatten()
    }

    fn of(&mut self, family: Family) -> &mut Vec<u8> {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }
}

impl FromIterator<Prefix> for Prefixes {
    fn from_iter<T: IntoIterator<Item = Prefix>>(prefixes: T) -> Self {
        let mut all = Self::default();
        prefixes.into_iter().for_each(|prefix| all.push(&prefix));
        all
    }
}

impl std::fmt::Debug for Prefixes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Milder than a NOTIFICATION (RFC 7606 section 2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tolerated {
    /// The verdict.
    pub how: Tolerance,
    /// Type code of the attribute; 0: none, but the prefixes themselves.
    pub attribute: u8,
    /// In words, without bytes of the peer.
    pub why: String,
}

/// RFC 7606 section 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tolerance {
    /// "Attribute discard".
    AttributeDiscard,
    /// "Treat-as-withdraw".
    TreatAsWithdraw,
}

/// RFC 4271 section 4.5. Ordered by code, subcode, data.
#[derive(Clone, PartialEq, Eq)]
pub struct Notification {
    /// Error code.
    pub code: u8,
    /// Error subcode.
    pub subcode: u8,
    /// Data; at most what fits a message.
    pub data: Vec<u8>,
}

impl std::fmt::Debug for Notification {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Notification({}/{}, {} octets of data)", self.code, self.subcode, self.data.len())
    }
}

/// Addresses of both ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Ours.
    pub local: IpAddr,
    /// Our link-local address on the same interface, where there is one: goes with a global next hop (RFC 2545).
    pub link_local: Option<Ipv6Addr>,
    /// An address of the other family on the interface of the connection: next hop of that family's routes.
    pub other_family: Option<IpAddr>,
    /// The peer's.
    pub remote: IpAddr,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bgp::codec::{Negotiated, Reader};

    /// An UPDATE that announces or withdraws 0.0.0.0/0 as often as it can: an octet each.
    fn flood(announce: bool) -> Vec<u8> {
        let attributes = [0x40, 1, 1, 0, 0x40, 2, 0, 0x40, 3, 4, 192, 0, 2, 1];
        let routes = vec![0; MAX_EXTENDED_MESSAGE - 23 - if announce { attributes.len() } else { 0 }];
        let mut message = vec![0xff; 18];
        message.push(2);
        if announce {
            message.extend([0, 0, 0, 14]);
            message.extend(attributes);
            message.extend(routes);
        } else {
            message.extend(u16::try_from(routes.len()).unwrap().to_be_bytes());
            message.extend(routes);
            message.extend([0, 0]);
        }
        assert_eq!(message.len(), MAX_EXTENDED_MESSAGE);
        message
    }

    #[test]
    fn an_update_is_kept_in_no_more_octets_than_it_has() {
        for announce in [true, false] {
            let mut reader = Reader::default();
            reader.feed(&flood(announce));
            let negotiated =
                Negotiated { extended_message: true, families: [Family::V4].into(), ..Negotiated::default() };
            let Message::Received(update) = reader.next(&negotiated).unwrap().unwrap() else { panic!() };
            assert_eq!(update.tolerated, None);
            let all = [&update.announced, &update.withdrawn];
            assert!(all.iter().map(|prefixes| prefixes.iter().count()).sum::<usize>() > 65_000);
            let octets: usize =
                all.iter().map(|prefixes| prefixes.v4.capacity() + prefixes.v6.capacity()).sum();
            assert!(octets < MAX_EXTENDED_MESSAGE, "{octets}");
        }
    }
}
