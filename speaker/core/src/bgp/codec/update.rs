//! UPDATE that came (RFC 4271 section 4.3), with the verdicts of RFC 7606.

use netgauze_parse_utils::reader::SliceReader;
use patina_crds::net::Family;

use super::attributes::{
    AS_PATH, Fault, LOCAL_PREF, MP_REACH_NLRI, MP_UNREACH_NLRI, NEXT_HOP, ORIGIN, Raw, check, subcode,
    update_error,
};
use super::{Negotiated, family, prefixes};
use crate::bgp::message::Tolerance::TreatAsWithdraw;
use crate::bgp::message::{Notification, Prefixes, ReceivedUpdate};

/// Reads an UPDATE's body.
///
/// ```text
/// +-------------------------------+
/// | withdrawn routes length       | withdrawn routes ...
/// +-------------------------------+
/// | total path attribute length   | path attributes ...
/// +-------------------------------+
/// | NLRI, to the end of the message ...
/// ```
pub(super) fn read(body: &[u8], negotiated: &Negotiated) -> Result<ReceivedUpdate, Notification> {
    let fields = Fields::split(body).ok_or_else(|| update_error(subcode::LIST, Vec::new()))?;
    let mut update = ReceivedUpdate::default();
    // RFC 7606 section 3 (j): prefixes first. Without all of them nothing can be treated as withdrawn.
    let withdrawn = prefixes::read(fields.withdrawn, Family::V4).map_err(invalid_network)?;
    let (announced, multicast) =
        prefixes::read_unicast(fields.announced, Family::V4).map_err(invalid_network)?;
    let attributes = Attributes::read(fields.attributes, negotiated)?;
    let mut fault = attributes.fault;
    let has_ipv4 = negotiated.families.contains(&Family::V4);

    if let Some(code) = missing(&fields, &attributes, negotiated) {
        let why = "it is missing";
        strongest(&mut fault, Fault::new(TreatAsWithdraw, code, why, subcode::MISSING, &[]));
    }
    // RFC 7606 section 5.2: "if an UPDATE message is encountered that does contain path attributes other than
    // MP_UNREACH_NLRI and doesn't encode any reachable NLRI, we cannot be confident that the NLRI have been successfully
    // parsed ... if any encountered error specifies an error-handling approach other than "attribute discard", then the
    // "session reset" approach MUST be used."
    if let Some(fault) = fault
        && fault.how == TreatAsWithdraw
        && !reaches(&fields, &attributes)
    {
        return Err(fault.notification());
    }

    update.end_of_rib =
        end_of_rib(&fields, &attributes).filter(|family| negotiated.families.contains(family));
    if has_ipv4 {
        update.withdrawn = withdrawn;
        update.announced = announced;
    } else if !fields.withdrawn.is_empty() || !fields.announced.is_empty() {
        strongest(&mut fault, Fault::note(0, "IPv4 unicast was not negotiated"));
    }
    update.withdrawn.append(attributes.unreach);
    let reach = attributes.reach.unwrap_or_default();
    update.announced.append(reach.prefixes);
    if multicast && has_ipv4 || reach.multicast {
        // RFC 4271 section 6.3: "an error SHOULD be logged locally, and the prefix SHOULD be ignored."
        strongest(&mut fault, Fault::note(0, "a prefix is not of unicast addresses"));
    }
    if fault.as_ref().is_some_and(|fault| fault.how == TreatAsWithdraw) {
        let announced = std::mem::take(&mut update.announced);
        update.withdrawn.append(announced);
    }
    update.tolerated = fault.map(Into::into);
    Ok(update)
}

/// Whether it announces something, as far as that can be seen.
fn reaches(fields: &Fields<'_>, attributes: &Attributes<'_>) -> bool {
    !fields.announced.is_empty() || attributes.reach.as_ref().is_some_and(|reach| reach.reaches)
}

/// RFC 7606 section 3 (d): "If any of the well-known mandatory attributes are not present in an UPDATE message, then
/// "treat-as-withdraw" MUST be used." They are mandatory for what is announced.
fn missing(fields: &Fields<'_>, attributes: &Attributes<'_>, negotiated: &Negotiated) -> Option<u8> {
    let mandatory = [
        (ORIGIN, true),
        (AS_PATH, true),
        (NEXT_HOP, !fields.announced.is_empty()), // else it is in MP_REACH_NLRI
        (LOCAL_PREF, negotiated.internal),        // RFC 4271 section 5.1.5
    ];
    let mut missing =
        mandatory.iter().filter(|(code, mandatory)| *mandatory && !attributes.seen.contains(*code));
    missing.next().filter(|_| reaches(fields, attributes)).map(|(code, _)| *code)
}

/// RFC 4724 section 2: "an UPDATE message with no reachable Network Layer Reachability Information (NLRI) and empty withdrawn
/// NLRI"; for others than IPv4 unicast one "that contains only the MP_UNREACH_NLRI attribute".
fn end_of_rib(fields: &Fields<'_>, attributes: &Attributes<'_>) -> Option<Family> {
    if !fields.withdrawn.is_empty() || !fields.announced.is_empty() || attributes.others {
        None
    } else if fields.attributes.is_empty() {
        Some(Family::V4)
    } else {
        attributes.end_of_rib
    }
}

struct Fields<'a> {
    withdrawn: &'a [u8],
    attributes: &'a [u8],
    announced: &'a [u8],
}

impl<'a> Fields<'a> {
    /// `None`: RFC 4271 section 6.3, "If the Withdrawn Routes Length or Total Attribute Length is too large"; RFC 7606
    /// section 3 (b) leaves that a session reset.
    fn split(body: &'a [u8]) -> Option<Self> {
        let mut body = SliceReader::new(body);
        let mut field = || {
            let length = body.read_u16_be().ok()?;
            body.read_bytes(usize::from(length)).ok()
        };
        let (withdrawn, attributes) = (field()?, field()?);
        Some(Self { withdrawn, attributes, announced: body.as_slice() })
    }
}

/// Of the fields that are no attributes. RFC 7606 section 3 (i), 5.3; RFC 4271 section 6.3: "the NLRI field ... syntactically
/// incorrect, then the Error Subcode MUST be set to Invalid Network Field."
fn invalid_network(_: &str) -> Notification {
    update_error(subcode::NETWORK, Vec::new())
}

/// What all attributes together say.
#[derive(Default)]
struct Attributes<'a> {
    seen: Codes,
    /// There are others than MP_UNREACH_NLRI.
    others: bool,
    reach: Option<Reach>,
    unreach: Prefixes,
    /// MP_UNREACH_NLRI of this family withdraws nothing.
    end_of_rib: Option<Family>,
    fault: Option<Fault<'a>>,
}

impl<'a> Attributes<'a> {
    fn read(mut field: &'a [u8], negotiated: &Negotiated) -> Result<Self, Notification> {
        let mut all = Self::default();
        while !field.is_empty() {
            let Some((attribute, rest)) = Raw::split(field) else {
                // RFC 7606 section 4: "the length of the last encountered path attribute would cause the Total Attribute
                // Length to be exceeded", or "fewer than three octets remain": "the "treat-as-withdraw" approach MUST be
                // used", and the NLRI are where Total Attribute Length says.
                all.others = true;
                let why = "the last attribute is cut off";
                all.add(Fault::new(TreatAsWithdraw, 0, why, subcode::LIST, &[]));
                break;
            };
            field = rest;
            all.others |= attribute.code != MP_UNREACH_NLRI;
            let again = !all.seen.insert(attribute.code);
            match attribute.code {
                // 3 (g): "If the MP_REACH_NLRI attribute or the MP_UNREACH_NLRI ... attribute appears more than once in the
                // UPDATE message, then a NOTIFICATION message MUST be sent with the Error Subcode "Malformed Attribute
                // List"."
                MP_REACH_NLRI | MP_UNREACH_NLRI if again => {
                    return Err(update_error(subcode::LIST, Vec::new()));
                }
                MP_REACH_NLRI => {
                    let reach = Reach::read(&attribute, negotiated)?;
                    if reach.foreign {
                        all.add(Fault::note(MP_REACH_NLRI, "of a family that was not negotiated"));
                    }
                    all.reach = Some(reach);
                }
                MP_UNREACH_NLRI => all.read_unreach(&attribute, negotiated)?,
                // "If any other attribute ... appears more than once in an UPDATE message, then all the occurrences of the
                // attribute other than the first one SHALL be discarded and the UPDATE message will continue to be
                // processed."
                code if again => all.add(Fault::note(code, "it is there more than once")),
                _ => {
                    if let Some(fault) = check(&attribute, negotiated)? {
                        all.add(fault);
                    }
                }
            }
        }
        Ok(all)
    }

    fn add(&mut self, fault: Fault<'a>) {
        strongest(&mut self.fault, fault);
    }

    /// RFC 4760 section 4: AFI (2), SAFI (1), prefixes.
    fn read_unreach(&mut self, attribute: &Raw<'_>, negotiated: &Negotiated) -> Result<(), Notification> {
        let incorrect = || incorrect(attribute);
        let Some((&[a, b, safi], field)) = attribute.value.split_first_chunk::<3>() else {
            return Err(incorrect());
        };
        if !attribute.has_flags(true, false) {
            return Err(incorrect());
        }
        match negotiated_family(u16::from_be_bytes([a, b]), safi, negotiated) {
            Some(family) => {
                self.unreach = prefixes::read(field, family).map_err(|_| incorrect())?;
                self.end_of_rib = self.unreach.is_empty().then_some(family);
            }
            None => self.add(Fault::note(MP_UNREACH_NLRI, "of a family that was not negotiated")),
        }
        Ok(())
    }
}

/// MP_REACH_NLRI (RFC 4760 section 3).
///
/// ```text
/// +-------------------------------+---------------+
/// | AFI                           | SAFI          |
/// +---------------+---------------+---------------+
/// | length        | next hop ...
/// +---------------+---------------+
/// | reserved      | NLRI ...
/// +---------------+---------------+
/// ```
#[derive(Default)]
struct Reach {
    prefixes: Prefixes,
    /// There were others, not of unicast addresses.
    multicast: bool,
    /// It announces something, also where that is of a family that we do not read.
    reaches: bool,
    /// Its family was not negotiated, and its prefixes were not read.
    foreign: bool,
}

impl Reach {
    /// RFC 7606 section 5.3: incorrect are flags other than those of RFC 4760, less than 5 octets, and prefixes that do not
    /// fit; 7.11: a next hop whose length is not one of the family's. The session ends for them.
    fn read(attribute: &Raw<'_>, negotiated: &Negotiated) -> Result<Self, Notification> {
        let incorrect = || incorrect(attribute);
        let Some((&[a, b, safi, length], rest)) = attribute.value.split_first_chunk::<4>() else {
            return Err(incorrect());
        };
        let (_, rest) = rest.split_at_checked(usize::from(length)).ok_or_else(incorrect)?;
        let (_, field) = rest.split_first().ok_or_else(incorrect)?;
        if !attribute.has_flags(true, false) {
            return Err(incorrect());
        }
        let Some(family) = negotiated_family(u16::from_be_bytes([a, b]), safi, negotiated) else {
            return Ok(Self { reaches: !field.is_empty(), foreign: true, ..Self::default() });
        };
        // 16, or 32 with a link-local one (RFC 2545 section 3); for IPv4 only where RFC 8950 was negotiated.
        let fits = match family {
            Family::V4 => length == 4 || negotiated.ipv4_over_ipv6 && matches!(length, 16 | 32),
            Family::V6 => matches!(length, 16 | 32),
        };
        if !fits {
            return Err(incorrect());
        }
        let (prefixes, multicast) = prefixes::read_unicast(field, family).map_err(|_| incorrect())?;
        Ok(Self { prefixes, multicast, reaches: !field.is_empty(), foreign: false })
    }
}

/// RFC 4760 section 7: "the Error Subcode ... Optional Attribute Error"; RFC 4271 section 6.3: "The Data field MUST contain the
/// attribute (type, length, and value)."
fn incorrect(attribute: &Raw<'_>) -> Notification {
    update_error(subcode::OPTIONAL, attribute.whole.to_vec())
}

fn negotiated_family(afi: u16, safi: u8, negotiated: &Negotiated) -> Option<Family> {
    family(afi, safi).filter(|family| negotiated.families.contains(family))
}

/// RFC 7606 section 3 (h): "the approach with the strongest action MUST be used". Of equals the first is told.
fn strongest<'a>(fault: &mut Option<Fault<'a>>, new: Fault<'a>) {
    if fault.as_ref().is_none_or(|old| old.how < new.how) {
        *fault = Some(new);
    }
}

/// A set of type codes.
#[derive(Default)]
struct Codes([u128; 2]);

impl Codes {
    fn contains(&self, code: u8) -> bool {
        let [low, high] = self.0;
        let half = if code < 128 { low } else { high };
        half >> (code % 128) & 1 == 1
    }

    /// Whether it is new.
    fn insert(&mut self, code: u8) -> bool {
        let new = !self.contains(code);
        let [low, high] = &mut self.0;
        *(if code < 128 { low } else { high }) |= 1 << (code % 128);
        new
    }
}
