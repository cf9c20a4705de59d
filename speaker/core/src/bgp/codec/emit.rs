//! UPDATE that goes out: attributes once, prefixes packed into as few messages as carry them.

use netgauze_bgp_pkt::community::{Community as Standard, LargeCommunity};
use netgauze_bgp_pkt::path_attribute::{
    As2PathSegment, As4Path, As4PathSegment, AsPath, AsPathSegmentType, Communities, LargeCommunities,
    LocalPreference, NextHop as Ipv4NextHop, Origin, PathAttribute, PathAttributeValue,
};
use netgauze_parse_utils::WritablePdu;
use patina_crds::config::Community;
use patina_crds::net::Family;

use super::attributes::{MP_REACH_NLRI, MP_UNREACH_NLRI};
use super::{Negotiated, UNICAST, afi, frame, prefixes};
use crate::bgp::message::{AS_TRANS, Attributes, MAX_EXTENDED_MESSAGE, MAX_MESSAGE, NextHop, Update};
use crate::intent::routes::Prefix;

/// LOCAL_PREF towards our own AS where nobody asked for one: it "SHALL" be there (RFC 4271 section 5.1.5), and 100 is what
/// routers take for a route without.
const LOCAL_PREF: u32 = 100;
/// Most ASes of one segment: its count has one octet.
const SEGMENT: usize = 255;

/// Why a message was not sent. The prefixes of an UPDATE were withdrawn instead, so that the peer has no older form of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsendable {
    /// "A BGP message ... whose size exceeds 4,096 octets MUST NOT be sent" to who does not know RFC 8654 (section 4).
    #[error("its attributes take {needed} octets with one prefix, and a message to this peer has {room}")]
    TooLarge {
        /// Octets of the smallest message that would carry one prefix.
        needed: usize,
        /// The largest message.
        room: usize,
    },
    /// RFC 8950 is not negotiated, or the next hop is of IPv4 and the route of IPv6.
    #[error("an {0} route cannot have this next hop on this session")]
    NextHop(Family),
    /// It is one that came.
    #[error("a message that was received is not one to send")]
    Received,
    /// The wire library refuses.
    #[error("{0}")]
    Library(String),
}

/// Appends an UPDATE as one or more whole messages.
///
/// # Errors
/// What the peer cannot be told; a withdrawal of the prefixes was appended in its place.
pub(super) fn encode(update: &Update, negotiated: &Negotiated, out: &mut Vec<u8>) -> Result<(), Unsendable> {
    let room = if negotiated.extended_message { MAX_EXTENDED_MESSAGE } else { MAX_MESSAGE };
    match update {
        Update::Reach { attributes, prefixes } => {
            let family = prefixes.first().map_or(Family::V4, |prefix| Family::of(prefix.address()));
            match Shape::announce(family, attributes, negotiated).and_then(|shape| shape.fits(room)) {
                Ok(shape) => shape.pack(prefixes, room, out),
                Err(why) => {
                    Shape::withdraw(family).pack(prefixes, room, out);
                    return Err(why);
                }
            }
        }
        Update::Withdraw(prefixes) => {
            let family = prefixes.first().map_or(Family::V4, |prefix| Family::of(prefix.address()));
            Shape::withdraw(family).pack(prefixes, room, out);
        }
        Update::EndOfRib(family) => Shape::withdraw(*family).message(&[], out),
    }
    Ok(())
}

/// An UPDATE without its prefixes.
struct Shape {
    family: Family,
    place: Place,
    /// Attributes other than the one that carries the prefixes, in the order of their types.
    attributes: Vec<u8>,
}

/// Where the prefixes go. RFC 7606 section 5.1: an UPDATE has "no more than one of" these, and those of RFC 4760 stand before
/// all other attributes.
enum Place {
    WithdrawnRoutes,
    Nlri,
    Multiprotocol {
        code: u8,
        /// What stands before them in the value.
        head: Vec<u8>,
    },
}

impl Shape {
    fn withdraw(family: Family) -> Self {
        let [high, low] = afi(family).to_be_bytes();
        let place = match family {
            Family::V4 => Place::WithdrawnRoutes,
            Family::V6 => Place::Multiprotocol { code: MP_UNREACH_NLRI, head: vec![high, low, UNICAST] },
        };
        Self { family, place, attributes: Vec::new() }
    }

    fn announce(
        family: Family,
        attributes: &Attributes,
        negotiated: &Negotiated,
    ) -> Result<Self, Unsendable> {
        let [high, low] = afi(family).to_be_bytes();
        let place = match (family, attributes.next_hop) {
            (Family::V4, NextHop::V4(_)) => Place::Nlri,
            (Family::V4, NextHop::V6(..)) if !negotiated.ipv4_over_ipv6 => {
                return Err(Unsendable::NextHop(family));
            }
            (Family::V6, NextHop::V4(_)) => return Err(Unsendable::NextHop(family)),
            (_, NextHop::V6(global, link_local)) => {
                // RFC 2545 section 3: 16, or 32 octets with the link-local one.
                let mut head = vec![high, low, UNICAST, if link_local.is_some() { 32 } else { 16 }];
                head.extend(global.octets());
                head.extend(link_local.into_iter().flat_map(|ip| ip.octets()));
                head.push(0); // reserved
                Place::Multiprotocol { code: MP_REACH_NLRI, head }
            }
        };
        Ok(Self { family, place, attributes: encode_attributes(attributes, negotiated)? })
    }

    /// Octets of a message without prefixes, at most.
    fn overhead(&self) -> usize {
        let multiprotocol = match &self.place {
            // flags, type, extended length
            Place::Multiprotocol { head, .. } => 4 + head.len(),
            Place::WithdrawnRoutes | Place::Nlri => 0,
        };
        frame::HEADER + 4 + multiprotocol + self.attributes.len()
    }

    /// Whether any prefix of the family can be added.
    fn fits(self, room: usize) -> Result<Self, Unsendable> {
        let needed = self.overhead() + 1 + usize::from(self.family.bits() / 8);
        if needed > room { Err(Unsendable::TooLarge { needed, room }) } else { Ok(self) }
    }

    /// As few messages as carry the prefixes, in their order.
    fn pack(&self, all: &[Prefix], room: usize, out: &mut Vec<u8>) {
        let room = room - self.overhead().min(room);
        let mut field = Vec::new();
        for prefix in all {
            if field.len() + prefixes::size(prefix) > room {
                self.message(&field, out);
                field.clear();
            }
            prefixes::encode(prefix, &mut field);
        }
        if !field.is_empty() {
            self.message(&field, out);
        }
    }

    /// One message with this field of prefixes.
    fn message(&self, field: &[u8], out: &mut Vec<u8>) {
        let mut body = Vec::with_capacity(self.overhead() + field.len());
        let mut attributes = Vec::new();
        if let Place::Multiprotocol { code, head } = &self.place {
            // End-of-RIB of IPv4 unicast is "an UPDATE message with the minimum length" (RFC 4724 section 2).
            let length = head.len() + field.len();
            // optional, non-transitive
            match u8::try_from(length) {
                Ok(length) => attributes.extend([0x80, *code, length]),
                Err(_) => {
                    attributes.extend([0x90, *code]);
                    attributes.extend(two_octets(length));
                }
            }
            attributes.extend(head);
            attributes.extend(field);
        }
        attributes.extend(&self.attributes);
        let (withdrawn, announced): (&[u8], &[u8]) = match self.place {
            Place::WithdrawnRoutes => (field, &[]),
            Place::Nlri => (&[], field),
            Place::Multiprotocol { .. } => (&[], &[]),
        };
        body.extend(two_octets(withdrawn.len()));
        body.extend(withdrawn);
        body.extend(two_octets(attributes.len()));
        body.extend(attributes);
        body.extend(announced);
        frame::encode(frame::Kind::Update, &body, out);
    }
}

/// All attributes but those of RFC 4760, "ordered in ascending order of attribute type" (RFC 4271 section 5).
fn encode_attributes(attributes: &Attributes, negotiated: &Negotiated) -> Result<Vec<u8>, Unsendable> {
    let mut out = Vec::new();
    let mut put = |optional, value| put(optional, value, &mut out);
    put(false, PathAttributeValue::Origin(Origin::IGP))?;
    put(false, PathAttributeValue::AsPath(as_path(&attributes.as_path, negotiated.four_octet_asn)))?;
    if let NextHop::V4(ip) = attributes.next_hop {
        put(false, PathAttributeValue::NextHop(Ipv4NextHop::new(ip)))?;
    }
    if negotiated.internal {
        let preference = LocalPreference::new(attributes.local_pref.unwrap_or(LOCAL_PREF));
        put(false, PathAttributeValue::LocalPreference(preference))?;
    }
    let standard: Vec<_> = attributes.communities.iter().filter_map(standard).collect();
    if !standard.is_empty() {
        put(true, PathAttributeValue::Communities(Communities::new(standard)))?;
    }
    // RFC 6793 section 4.2.2: "the AS4_PATH attribute ... MUST be constructed", "in the case that the AS path information
    // contains" numbers that two octets cannot carry.
    if !negotiated.four_octet_asn && attributes.as_path.iter().any(|asn| u16::try_from(*asn).is_err()) {
        put(true, PathAttributeValue::As4Path(As4Path::new(wide_segments(&attributes.as_path))))?;
    }
    let large: Vec<_> = attributes.communities.iter().filter_map(large).collect();
    if !large.is_empty() {
        put(true, PathAttributeValue::LargeCommunities(LargeCommunities::new(large)))?;
    }
    Ok(out)
}

/// Appends an attribute, transitive as all of ours are; with a length of two octets only where one is too small.
fn put(optional: bool, value: PathAttributeValue, out: &mut Vec<u8>) -> Result<(), Unsendable> {
    let build = |extended, value| {
        PathAttribute::from(optional, true, false, extended, value)
            .map_err(|(_, why)| Unsendable::Library(why.to_string()))
    };
    let short = build(false, value)?;
    let fits = short.len() <= 3 + usize::from(u8::MAX);
    let attribute = if fits { short } else { build(true, short.value().clone())? };
    if attribute.len() > MAX_EXTENDED_MESSAGE {
        return Err(Unsendable::TooLarge { needed: attribute.len(), room: MAX_EXTENDED_MESSAGE });
    }
    attribute.write(out).map_err(|why| Unsendable::Library(why.to_string()))
}

fn as_path(path: &[u32], four_octets: bool) -> AsPath {
    if four_octets {
        return AsPath::As4PathSegments(wide_segments(path).into());
    }
    let narrow = |asn: &u32| u16::try_from(*asn).unwrap_or(AS_TRANS);
    let segments: Vec<_> = path
        .chunks(SEGMENT)
        .map(|part| {
            let part: Vec<u16> = part.iter().map(narrow).collect();
            As2PathSegment::new(AsPathSegmentType::AsSequence, part)
        })
        .collect();
    AsPath::As2PathSegments(segments.into())
}

fn wide_segments(path: &[u32]) -> Vec<As4PathSegment> {
    path.chunks(SEGMENT).map(|part| As4PathSegment::new(AsPathSegmentType::AsSequence, part)).collect()
}

fn standard(community: &Community) -> Option<Standard> {
    match community {
        Community::Standard(high, low) => Some(Standard::new(u32::from(*high) << 16 | u32::from(*low))),
        Community::Large(..) => None,
    }
}

fn large(community: &Community) -> Option<LargeCommunity> {
    match community {
        Community::Large(a, b, c) => Some(LargeCommunity::new(*a, *b, *c)),
        Community::Standard(..) => None,
    }
}

fn two_octets(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes()
}
