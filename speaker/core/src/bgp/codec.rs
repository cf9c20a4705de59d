//! Bytes to messages and back: framing, screening by what was negotiated, RFC 7606 verdicts, NOTIFICATION codes.
//!
//! Total: no input panics, allocates more than its message, or leaves the stream out of step.

use patina_crds::net::Family;

use super::message::{Message, Notification};

/// What both ends agreed on, as far as it changes how bytes are read and written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Negotiated {
    /// RFC 6793: AS numbers have four octets.
    pub four_octet_asn: bool,
    /// RFC 8654: messages other than OPEN and KEEPALIVE up to 65535 octets.
    pub extended_message: bool,
    /// Families that both announced (IPv4 unicast if one announced none).
    pub families: std::collections::BTreeSet<Family>,
    /// RFC 8950 for IPv4 unicast.
    pub ipv4_over_ipv6: bool,
    /// Both ends are of one AS: LOCAL_PREF is expected, and AS_PATH may be empty (RFC 7606 sections 7.2, 7.5).
    pub internal: bool,
}

/// Takes a stream apart.
#[derive(Debug, Default)]
pub struct Reader {}

impl Reader {
    /// Adds bytes that came.
    pub fn feed(&mut self, _bytes: &[u8]) {}

    /// The next whole message, read as `negotiated` says.
    ///
    /// # Errors
    /// What the peer must be told; the stream is of no use any more.
    pub fn next(&mut self, _negotiated: &Negotiated) -> Result<Option<Message>, Notification> {
        Ok(None)
    }
}
