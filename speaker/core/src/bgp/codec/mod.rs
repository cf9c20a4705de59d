//! Bytes to messages and back: framing, screening by what was negotiated, RFC 7606 verdicts, NOTIFICATION codes.
//!
//! ```text
//!  bytes ──> frame: header ──┬─> open ──> capabilities
//!                            ├─> update ──> attributes (RFC 7606), prefixes
//!                            ├─> notification
//!                            └─> ROUTE-REFRESH
//!  Message ──> encode ──> whole messages: one, or for an UPDATE as many as its prefixes need
//! ```
//!
//! Reading is total: no input panics or leaves the stream out of step, and what a message makes us keep is no larger than
//! it is. It is ours and not the wire library's, because a verdict of RFC 7606 needs what a library's parser throws away
//! (where an attribute ends whose value is wrong, its flags, which one was first), and RFC 5492's tolerance needs each
//! family of a capability looked at for itself. Writing uses `netgauze-bgp-pkt` for capabilities and path attributes; the
//! tests ask it and `bgp-rs` for a second opinion on what we read.

mod attributes;
mod capabilities;
mod emit;
mod frame;
mod notification;
mod open;
pub(super) mod prefixes;
mod update;

use std::collections::BTreeSet;

use patina_crds::net::Family;

pub use emit::Unsendable;
pub use frame::Reader;

use super::message::Message;

/// What both ends agreed on, as far as it changes how bytes are read and written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Negotiated {
    /// RFC 6793: AS numbers have four octets.
    pub four_octet_asn: bool,
    /// RFC 8654: messages other than OPEN and KEEPALIVE up to 65535 octets.
    pub extended_message: bool,
    /// Families that both announced (IPv4 unicast if one announced none).
    pub families: BTreeSet<Family>,
    /// RFC 8950 for IPv4 unicast.
    pub ipv4_over_ipv6: bool,
    /// Both ends are of one AS: LOCAL_PREF is expected, and AS_PATH may be empty (RFC 7606 sections 7.2, 7.5).
    pub internal: bool,
}

/// Appends a message: one, or of an UPDATE as many as its prefixes need.
///
/// # Errors
/// An UPDATE that this peer cannot be sent; a withdrawal of its prefixes was appended in its place.
pub fn encode(message: &Message, negotiated: &Negotiated, out: &mut Vec<u8>) -> Result<(), Unsendable> {
    match message {
        Message::Open(open) => open::encode(open, out),
        Message::Update(update) => return emit::encode(update, negotiated, out),
        Message::Received(_) => return Err(Unsendable::Received),
        Message::Notification(notification) => notification::encode(notification, out),
        Message::Keepalive => frame::encode(frame::Kind::Keepalive, &[], out),
        Message::RouteRefresh { family: Some(family), subtype } => {
            let [high, low] = afi(*family).to_be_bytes();
            frame::encode(frame::Kind::RouteRefresh, &[high, low, *subtype, UNICAST], out);
        }
        Message::RouteRefresh { family: None, .. } => return Err(Unsendable::Received),
    }
    Ok(())
}

/// SAFI of unicast (RFC 4760).
const UNICAST: u8 = 1;

/// The family that an AFI and a SAFI mean, if we speak it.
fn family(afi: u16, safi: u8) -> Option<Family> {
    match (afi, safi) {
        (1, UNICAST) => Some(Family::V4),
        (2, UNICAST) => Some(Family::V6),
        _ => None,
    }
}

/// AFI of a family (RFC 4760).
fn afi(family: Family) -> u16 {
    match family {
        Family::V4 => 1,
        Family::V6 => 2,
    }
}
