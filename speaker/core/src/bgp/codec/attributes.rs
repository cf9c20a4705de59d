//! Path attributes that came: taken apart, and judged one by one as RFC 7606 says.
//!
//! We keep no attribute: the routes are counted and dropped. What is judged is their form.

use super::Negotiated;
use crate::bgp::message::Tolerance::{AttributeDiscard, TreatAsWithdraw};
use crate::bgp::message::{Notification, Tolerance, Tolerated};

pub(super) const ORIGIN: u8 = 1;
pub(super) const AS_PATH: u8 = 2;
pub(super) const NEXT_HOP: u8 = 3;
const MULTI_EXIT_DISC: u8 = 4;
pub(super) const LOCAL_PREF: u8 = 5;
const ATOMIC_AGGREGATE: u8 = 6;
const AGGREGATOR: u8 = 7;
const COMMUNITIES: u8 = 8;
const ORIGINATOR_ID: u8 = 9;
const CLUSTER_LIST: u8 = 10;
pub(super) const MP_REACH_NLRI: u8 = 14;
pub(super) const MP_UNREACH_NLRI: u8 = 15;
const EXTENDED_COMMUNITIES: u8 = 16;
const AS4_PATH: u8 = 17;
const AS4_AGGREGATOR: u8 = 18;
const IPV6_EXTENDED_COMMUNITIES: u8 = 25;
const LARGE_COMMUNITIES: u8 = 32;
const ONLY_TO_CUSTOMER: u8 = 35;

/// Subcodes of UPDATE Message Error (RFC 4271 section 4.5).
pub(super) mod subcode {
    pub(in super::super) const LIST: u8 = 1;
    pub(in super::super) const UNRECOGNIZED: u8 = 2;
    pub(in super::super) const MISSING: u8 = 3;
    pub(in super::super) const FLAGS: u8 = 4;
    pub(in super::super) const LENGTH: u8 = 5;
    pub(in super::super) const ORIGIN: u8 = 6;
    pub(in super::super) const NEXT_HOP: u8 = 8;
    pub(in super::super) const OPTIONAL: u8 = 9;
    pub(in super::super) const NETWORK: u8 = 10;
    pub(in super::super) const AS_PATH: u8 = 11;
}

const OPTIONAL_BIT: u8 = 0x80;
const TRANSITIVE_BIT: u8 = 0x40;
const EXTENDED_BIT: u8 = 0x10;

/// One attribute as it stands in the message (RFC 4271 section 4.3).
///
/// ```text
/// +---------------+---------------+---------------+- - - - - - - -+
/// | O T P E 0 0 0 0 | type        | length        | (with E)      | value ...
/// +---------------+---------------+---------------+- - - - - - - -+
/// ```
#[derive(Clone, Copy, Debug)]
pub(super) struct Raw<'a> {
    pub(super) flags: u8,
    pub(super) code: u8,
    pub(super) value: &'a [u8],
    /// With flags, code and length: the data of a NOTIFICATION.
    pub(super) whole: &'a [u8],
}

impl<'a> Raw<'a> {
    /// The first one, and what follows it; `None`: the field ends before the attribute does.
    pub(super) fn split(field: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (&[flags, code], rest) = field.split_first_chunk::<2>()?;
        let (length, rest) = if flags & EXTENDED_BIT == 0 {
            let (length, rest) = rest.split_first()?;
            (usize::from(*length), rest)
        } else {
            let (length, rest) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        };
        let (value, rest) = rest.split_at_checked(length)?;
        let whole = field.get(..field.len() - rest.len())?;
        Some((Self { flags, code, value, whole }, rest))
    }

    pub(super) fn is_optional(&self) -> bool {
        self.flags & OPTIONAL_BIT != 0
    }

    /// "If the value of either the Optional or Transitive bits in the Attribute Flags is in conflict with their specified
    /// values" (RFC 7606 section 3 (c)); the other bits are left alone.
    pub(super) fn has_flags(&self, optional: bool, transitive: bool) -> bool {
        (self.is_optional(), self.flags & TRANSITIVE_BIT != 0) == (optional, transitive)
    }
}

/// What is wrong with an attribute, and was not bad enough to end the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault<'a> {
    pub(super) how: Tolerance,
    pub(super) attribute: u8,
    pub(super) why: &'static str,
    /// What RFC 4271 had told the peer about it.
    subcode: u8,
    data: &'a [u8],
}

impl<'a> Fault<'a> {
    pub(super) fn new(how: Tolerance, attribute: u8, why: &'static str, subcode: u8, data: &'a [u8]) -> Self {
        Self { how, attribute, why, subcode, data }
    }

    /// Something to say that RFC 4271 would not have ended the session for.
    pub(super) fn note(attribute: u8, why: &'static str) -> Self {
        Self::new(AttributeDiscard, attribute, why, 0, &[])
    }

    /// For where RFC 7606 gives up (section 5.2).
    pub(super) fn notification(&self) -> Notification {
        update_error(self.subcode, self.data.to_vec())
    }
}

impl From<Fault<'_>> for Tolerated {
    fn from(fault: Fault<'_>) -> Self {
        Self { how: fault.how, attribute: fault.attribute, why: fault.why.to_owned() }
    }
}

/// UPDATE Message Error.
pub(super) fn update_error(subcode: u8, data: Vec<u8>) -> Notification {
    Notification::new(3, subcode, data)
}

/// How long a value may be.
enum Length {
    Exactly(usize),
    /// "a non-zero multiple of"
    Multiple(usize),
    Any,
}

/// What an attribute has to look like, and what becomes of one that does not.
struct Rule {
    optional: bool,
    transitive: bool,
    length: Length,
    how: Tolerance,
}

/// Of the attributes that we know, except those of RFC 4760; the numbers are sections of RFC 7606.
fn rule(code: u8, negotiated: &Negotiated) -> Option<Rule> {
    use Length::{Any, Exactly, Multiple};
    let well_known = |length, how| Some(Rule { optional: false, transitive: true, length, how });
    let transitive = |length, how| Some(Rule { optional: true, transitive: true, length, how });
    let local = |length, how| Some(Rule { optional: true, transitive: false, length, how });
    match code {
        ORIGIN => well_known(Exactly(1), TreatAsWithdraw),     // 7.1
        AS_PATH => well_known(Any, TreatAsWithdraw),           // 7.2
        NEXT_HOP => well_known(Exactly(4), TreatAsWithdraw),   // 7.3
        MULTI_EXIT_DISC => local(Exactly(4), TreatAsWithdraw), // 7.4
        LOCAL_PREF => well_known(Exactly(4), TreatAsWithdraw), // 7.5
        ATOMIC_AGGREGATE => well_known(Exactly(0), AttributeDiscard), // 7.6
        // 7.7: "its length is not 6 (when the 4-octet AS number capability is not advertised to or not received from
        // the peer) ... or its length is not 8"
        AGGREGATOR => transitive(Exactly(if negotiated.four_octet_asn { 8 } else { 6 }), AttributeDiscard),
        COMMUNITIES => transitive(Multiple(4), TreatAsWithdraw), // 7.8
        ORIGINATOR_ID => local(Exactly(4), TreatAsWithdraw),     // 7.9
        CLUSTER_LIST => local(Multiple(4), TreatAsWithdraw),     // 7.10
        EXTENDED_COMMUNITIES => transitive(Multiple(8), TreatAsWithdraw), // 7.14
        AS4_PATH => transitive(Any, AttributeDiscard),           // RFC 6793 section 6
        AS4_AGGREGATOR => transitive(Exactly(8), AttributeDiscard), // RFC 6793 section 6
        IPV6_EXTENDED_COMMUNITIES => transitive(Multiple(20), TreatAsWithdraw), // 7.15
        LARGE_COMMUNITIES => transitive(Multiple(12), TreatAsWithdraw), // RFC 8092 section 5
        ONLY_TO_CUSTOMER => transitive(Exactly(4), TreatAsWithdraw), // RFC 9234 section 5
        // 7.13 (Traffic Engineering) and 7.16 (ATTR_SET) are of address families that we do not speak, and opaque to us.
        _ => None,
    }
}

/// Judges an attribute other than those of RFC 4760.
///
/// `Err`: the session has to end.
pub(super) fn check<'a>(
    attribute: &Raw<'a>,
    negotiated: &Negotiated,
) -> Result<Option<Fault<'a>>, Notification> {
    let Some(rule) = rule(attribute.code, negotiated) else {
        // RFC 4271 section 6.3: "If any of the well-known mandatory attributes are not recognized, then the Error Subcode
        // MUST be set to Unrecognized Well-known Attribute. The Data field MUST contain the unrecognized attribute".
        // RFC 7606 leaves that as it is: nobody can say what such a route means. Section 5 of RFC 4271: an unrecognized
        // optional one is passed on or "quietly ignored".
        return if attribute.is_optional() {
            Ok(None)
        } else {
            Err(update_error(subcode::UNRECOGNIZED, attribute.whole.to_vec()))
        };
    };
    Ok(judge(attribute, &rule, negotiated).err())
}

fn judge<'a>(attribute: &Raw<'a>, rule: &Rule, negotiated: &Negotiated) -> Result<(), Fault<'a>> {
    let code = attribute.code;
    let fault = |how, subcode, why| Err(Fault::new(how, code, why, subcode, attribute.whole));
    match code {
        // 7.5, 7.9, 7.10: "if received from an external neighbor, it SHALL be discarded using the approach of "attribute
        // discard"", before anything else about it matters.
        LOCAL_PREF | ORIGINATOR_ID | CLUSTER_LIST if !negotiated.internal => {
            return Err(Fault::note(code, "from another AS"));
        }
        // RFC 6793 section 4.1: "A NEW BGP speaker that receives the AS4_PATH attribute or the AS4_AGGREGATOR attribute
        // in an UPDATE message from a NEW BGP speaker MUST discard the path attribute and continue".
        AS4_PATH | AS4_AGGREGATOR if negotiated.four_octet_asn => {
            return Err(Fault::note(code, "from a speaker of 4-octet AS numbers"));
        }
        _ => {}
    }
    // 3 (c): "... MUST be treated as malformed and the "treat-as-withdraw" approach used"
    if !attribute.has_flags(rule.optional, rule.transitive) {
        return fault(TreatAsWithdraw, subcode::FLAGS, "its flags are not those of its type");
    }
    let length = attribute.value.len();
    let fits = match rule.length {
        Length::Exactly(octets) => length == octets,
        Length::Multiple(octets) => length > 0 && length.is_multiple_of(octets),
        Length::Any => true,
    };
    if !fits {
        return fault(rule.how, subcode::LENGTH, "its length is not that of its type");
    }
    match (code, attribute.value) {
        (ORIGIN, [origin]) if *origin > 2 => fault(rule.how, subcode::ORIGIN, "not a defined origin"),
        (NEXT_HOP, &[a, _, _, _]) if a == 0 || a >= 224 => {
            // "If the NEXT_HOP attribute field is syntactically incorrect ... Syntactic correctness means that the
            // NEXT_HOP attribute represents a valid IP host address."
            fault(rule.how, subcode::NEXT_HOP, "not the address of a host")
        }
        (AS_PATH, path) => match check_path(path, negotiated.four_octet_asn) {
            Ok(()) => Ok(()),
            // "... Malformed AS_PATH" has no data.
            Err(why) => Err(Fault::new(rule.how, code, why, subcode::AS_PATH, &[])),
        },
        (AS4_PATH, path) => match check_path(path, true) {
            Ok(()) => Ok(()),
            Err(why) => fault(rule.how, subcode::OPTIONAL, why),
        },
        // RFC 7607 section 2: AS 0 in it is malformed, too.
        (AGGREGATOR, [0, 0, _, _, _, _] | [0, 0, 0, 0, ..]) | (AS4_AGGREGATOR, [0, 0, 0, 0, ..]) => {
            fault(rule.how, subcode::OPTIONAL, "AS 0")
        }
        _ => Ok(()),
    }
}

/// Segments: type, number of ASes, ASes of two or four octets (RFC 4271 section 4.3, RFC 6793).
fn check_path(mut path: &[u8], four_octets: bool) -> Result<(), &'static str> {
    let width = if four_octets { 4 } else { 2 };
    // RFC 7606 section 7.2, case by case.
    while let Some((kind, rest)) = path.split_first() {
        // "A Path Segment Type ... unrecognized". Confederations (3, 4; RFC 5065 section 5) end at their border, and we
        // are in none: "It is an error for a BGP speaker to receive an UPDATE message with an AS_PATH attribute that
        // contains AS_CONFED_SEQUENCE or AS_CONFED_SET segments from a neighbor that is not located in the same
        // confederation."
        if !matches!(kind, 1 | 2) {
            return Err("a segment of an unknown type");
        }
        // "There is a Path Segment underrun (i.e., only a single octet remaining ...)"
        let Some((count, rest)) = rest.split_first() else { return Err("the last segment is cut off") };
        // "... a Path Segment Length field of zero"
        if *count == 0 {
            return Err("an empty segment");
        }
        // "There is a Path Segment overrun"
        let Some((ases, rest)) = rest.split_at_checked(usize::from(*count) * width) else {
            return Err("the last segment is cut off");
        };
        // RFC 7607 section 2: "An UPDATE message that contains the AS number zero in the AS_PATH or AGGREGATOR attribute
        // MUST be considered as malformed".
        if ases.chunks_exact(width).any(|asn| asn.iter().all(|octet| *octet == 0)) {
            return Err("AS 0 in the path");
        }
        path = rest;
    }
    Ok(())
}
