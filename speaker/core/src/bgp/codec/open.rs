//! OPEN (RFC 4271 section 4.2).

use std::net::Ipv4Addr;

use netgauze_parse_utils::reader::SliceReader;

use super::{capabilities, frame};
use crate::bgp::message::{AS_TRANS, Capabilities, Notification, Open};

const VERSION: u8 = 4;
/// Optional parameter: capabilities (RFC 5492).
const CAPABILITIES: u8 = 2;
/// In the place of the first parameter's type: lengths have two octets (RFC 9072).
const EXTENDED: u8 = 255;

/// Reads an OPEN's body.
///
/// ```text
/// +---------------+
/// | version (4)   |
/// +---------------+---------------+
/// | my autonomous system          |
/// +-------------------------------+
/// | hold time                     |
/// +-------------------------------+-------------------------------+
/// | BGP identifier                                                |
/// +---------------+-----------------------------------------------+
/// | length        | optional parameters: type, length, value ...
/// +---------------+-----------------------------------------------+
///                 | 255 | extended length (2) | type, length (2), value ...      (RFC 9072)
///                 +-----------------------------------------------+
/// ```
///
/// Errors as RFC 4271 section 6.2 says.
pub(super) fn read(body: &[u8]) -> Result<Open, Notification> {
    // The frame lets no shorter body pass than all of the fixed fields.
    let (fixed, parameters) = body.split_first_chunk::<10>().ok_or_else(unspecific)?;
    let [version, as_high, as_low, hold_high, hold_low, a, b, c, d, length] = *fixed;
    // "The Data field is a 2-octet unsigned integer, which indicates the largest, locally-supported version number less
    // than the version the remote BGP peer bid ... or ... the smallest".
    if version != VERSION {
        return Err(Notification::new(2, 1, u16::from(VERSION).to_be_bytes().to_vec()));
    }
    let mut capabilities = Capabilities::default();
    let mut four_octets = None;
    read_parameters(length, parameters, |value| {
        capabilities::read(value, &mut capabilities, &mut four_octets).ok_or_else(unspecific)
    })?;
    let asn = four_octets.unwrap_or_else(|| u32::from(u16::from_be_bytes([as_high, as_low])));
    // RFC 7607 section 2: "If a BGP speaker receives zero as the peer AS in an OPEN message, it MUST abort the connection
    // and send a NOTIFICATION with Error Code "OPEN Message Error" and subcode "Bad Peer AS"" (of either width).
    if asn == 0 || (as_high, as_low) == (0, 0) {
        return Err(Notification::bad_peer_as());
    }
    // "An implementation MUST reject Hold Time values of one or two seconds."
    let hold_time = u16::from_be_bytes([hold_high, hold_low]);
    if matches!(hold_time, 1 | 2) {
        return Err(Notification::unacceptable_hold_time());
    }
    // RFC 6286 section 2.1: "a 4-octet, unsigned, non-zero integer", of any kind.
    let router_id = Ipv4Addr::new(a, b, c, d);
    if router_id.is_unspecified() {
        return Err(Notification::bad_router_id());
    }
    Ok(Open { asn, hold_time, router_id, capabilities })
}

/// Calls `capabilities` with the value of each such parameter. `rest` is all that follows the length.
fn read_parameters(
    length: u8,
    rest: &[u8],
    mut capabilities: impl FnMut(&[u8]) -> Result<(), Notification>,
) -> Result<(), Notification> {
    // RFC 9072 section 2: the extended format "is indicated" by type 255 in the place of the first parameter; the length
    // before it "MUST be ignored on receipt" then, unless it is 0.
    let (mut parameters, wide) = match rest {
        [EXTENDED, high, low, rest @ ..] if length > 0 => {
            (exactly(rest, usize::from(u16::from_be_bytes([*high, *low])))?, true)
        }
        rest => (exactly(rest, usize::from(length))?, false),
    };
    while !parameters.is_empty() {
        let kind = parameters.read_u8().map_err(|_| unspecific())?;
        let length = if wide { parameters.read_u16_be() } else { parameters.read_u8().map(u16::from) };
        let value = length.and_then(|length| parameters.read_bytes(usize::from(length)));
        // "If one of the Optional Parameters in the OPEN message is not recognized, then the Error Subcode MUST be set to
        // Unsupported Optional Parameters"; "recognized, but is malformed, then ... 0 (Unspecific)".
        match (kind, value) {
            (CAPABILITIES, Ok(value)) => capabilities(value)?,
            (CAPABILITIES, Err(_)) => return Err(unspecific()),
            _ => return Err(Notification::new(2, 4, Vec::new())),
        }
    }
    Ok(())
}

/// All octets that are left, if they are this many.
fn exactly(rest: &[u8], length: usize) -> Result<SliceReader<'_>, Notification> {
    if rest.len() == length { Ok(SliceReader::new(rest)) } else { Err(unspecific()) }
}

fn unspecific() -> Notification {
    Notification::new(2, 0, Vec::new())
}

/// Appends an OPEN. Of its capabilities, `other` are not written: we know their codes, not what they say.
pub(super) fn encode(open: &Open, out: &mut Vec<u8>) {
    let capabilities = capabilities::encode(open);
    // RFC 6793 section 4.2.1: AS_TRANS stands for a number that two octets cannot carry.
    let asn = u16::try_from(open.asn).unwrap_or(AS_TRANS);
    let mut body = vec![VERSION];
    body.extend(asn.to_be_bytes());
    body.extend(open.hold_time.to_be_bytes());
    body.extend(open.router_id.octets());
    // RFC 5492 section 4: one parameter for all capabilities. Of ours none is longer than 255 octets together: RFC 9072
    // section 2 wants the extended format only for what the old one cannot carry.
    match (u8::try_from(capabilities.len()), u8::try_from(capabilities.len() + 2)) {
        (Ok(0), _) => body.push(0),
        (Ok(value), Ok(parameter)) => body.extend([parameter, CAPABILITIES, value]),
        _ => {
            let [high, low] = length(capabilities.len());
            let [all_high, all_low] = length(capabilities.len() + 3);
            body.extend([EXTENDED, EXTENDED, all_high, all_low, CAPABILITIES, high, low]);
        }
    }
    body.extend(capabilities);
    frame::encode(frame::Kind::Open, &body, out);
}

fn length(octets: usize) -> [u8; 2] {
    u16::try_from(octets).unwrap_or(u16::MAX).to_be_bytes()
}
