//! NOTIFICATION (RFC 4271 section 4.5): those that we send by name, and all of them in the words of the RFCs.

use std::fmt;

use patina_crds::net::Family;

use super::{UNICAST, afi, frame};
use crate::bgp::message::{MAX_MESSAGE, Notification};

/// Error code of Cease.
const CEASE: u8 = 6;
/// Subcode of Cease: Administrative Shutdown.
const SHUTDOWN: u8 = 2;
/// Subcode of Cease: Administrative Reset.
const RESET: u8 = 4;
/// Subcode of Cease: Hard Reset (RFC 8538).
const HARD_RESET: u8 = 9;
/// Longest text of RFC 9003, in octets: its length has one octet.
const TEXT: usize = 255;
/// What fits a message without RFC 8654, which a NOTIFICATION before the end of the negotiation is.
const DATA: usize = MAX_MESSAGE - frame::HEADER - 2;

/// What a body says; the frame made sure of code and subcode.
pub(super) fn read(body: &[u8]) -> Notification {
    match body {
        [code, subcode, data @ ..] => Notification::new(*code, *subcode, data.to_vec()),
        short => Notification::new(0, 0, short.to_vec()),
    }
}

/// Appends a NOTIFICATION. Data that does not fit 4096 octets is cut: it only helps whoever reads the peer's log.
pub(super) fn encode(notification: &Notification, out: &mut Vec<u8>) {
    let mut body = vec![notification.code, notification.subcode];
    body.extend(notification.data.iter().take(DATA));
    frame::encode(frame::Kind::Notification, &body, out);
}

impl Notification {
    /// Code, subcode and data as they are.
    #[must_use]
    pub fn new(code: u8, subcode: u8, data: Vec<u8>) -> Self {
        Self { code, subcode, data }
    }

    /// Bad Peer AS (2/2): not the configured one, or 0 (RFC 7607).
    #[must_use]
    pub fn bad_peer_as() -> Self {
        Self::new(2, 2, Vec::new())
    }

    /// Bad BGP Identifier (2/3): 0, or ours inside our own AS (RFC 6286 section 2.2).
    #[must_use]
    pub fn bad_router_id() -> Self {
        Self::new(2, 3, Vec::new())
    }

    /// Unacceptable Hold Time (2/6).
    #[must_use]
    pub fn unacceptable_hold_time() -> Self {
        Self::new(2, 6, Vec::new())
    }

    /// Unsupported Capability (2/7): "used when a particular capability is required", and these are missing (RFC 5492
    /// section 3): "data ... MUST list the set of capabilities that causes the speaker to send the message", encoded as in
    /// an OPEN. Families of RFC 4760 that we insist on.
    #[must_use]
    pub fn missing_families(families: impl IntoIterator<Item = Family>) -> Self {
        let encoded = families.into_iter().flat_map(|family| {
            let [high, low] = afi(family).to_be_bytes();
            [1, 4, high, low, 0, UNICAST]
        });
        Self::new(2, 7, encoded.collect())
    }

    /// Hold Timer Expired (4/0).
    #[must_use]
    pub fn hold_timer_expired() -> Self {
        Self::new(4, 0, Vec::new())
    }

    /// Send Hold Timer Expired (8/0, RFC 9687 section 4); a peer that reads nothing will hardly see it.
    #[must_use]
    pub fn send_hold_timer_expired() -> Self {
        Self::new(8, 0, Vec::new())
    }

    /// Receive Unexpected Message in OpenSent State (5/1, RFC 6608), with the type of the message.
    #[must_use]
    pub fn unexpected_in_open_sent(message_type: u8) -> Self {
        Self::new(5, 1, vec![message_type])
    }

    /// Receive Unexpected Message in OpenConfirm State (5/2, RFC 6608).
    #[must_use]
    pub fn unexpected_in_open_confirm(message_type: u8) -> Self {
        Self::new(5, 2, vec![message_type])
    }

    /// Receive Unexpected Message in Established State (5/3, RFC 6608).
    #[must_use]
    pub fn unexpected_in_established(message_type: u8) -> Self {
        Self::new(5, 3, vec![message_type])
    }

    /// Maximum Number of Prefixes Reached (6/1): RFC 4486 section 4 gives family and limit as data.
    #[must_use]
    pub fn max_prefixes(family: Family, limit: u32) -> Self {
        let mut data = afi(family).to_be_bytes().to_vec();
        data.push(UNICAST);
        data.extend(limit.to_be_bytes());
        Self::new(CEASE, 1, data)
    }

    /// Administrative Shutdown (6/2) with a text of up to 255 octets (RFC 9003 section 2); a longer one is cut between two
    /// characters.
    #[must_use]
    pub fn cease_shutdown(text: &str) -> Self {
        Self::new(CEASE, SHUTDOWN, communication(text))
    }

    /// Administrative Reset (6/4) with a text (RFC 9003).
    #[must_use]
    pub fn cease_reset(text: &str) -> Self {
        Self::new(CEASE, RESET, communication(text))
    }

    /// Peer De-configured (6/3).
    #[must_use]
    pub fn peer_deconfigured() -> Self {
        Self::new(CEASE, 3, Vec::new())
    }

    /// Connection Rejected (6/5).
    #[must_use]
    pub fn connection_rejected() -> Self {
        Self::new(CEASE, 5, Vec::new())
    }

    /// Other Configuration Change (6/6).
    #[must_use]
    pub fn configuration_change() -> Self {
        Self::new(CEASE, 6, Vec::new())
    }

    /// Connection Collision Resolution (6/7).
    #[must_use]
    pub fn collision() -> Self {
        Self::new(CEASE, 7, Vec::new())
    }

    /// Out of Resources (6/8).
    #[must_use]
    pub fn out_of_resources() -> Self {
        Self::new(CEASE, 8, Vec::new())
    }

    /// BFD Down (6/10, RFC 9384).
    #[must_use]
    pub fn bfd_down() -> Self {
        Self::new(CEASE, 10, Vec::new())
    }

    /// Hard Reset (6/9, RFC 8538 section 3.1), which encapsulates the reason: also a peer that would keep our routes by
    /// graceful restart drops them now.
    #[must_use]
    pub fn hard_reset(self) -> Self {
        let mut data = vec![self.code, self.subcode];
        data.extend(self.data);
        Self::new(CEASE, HARD_RESET, data)
    }

    /// What a Hard Reset encapsulates.
    #[must_use]
    pub fn encapsulated(&self) -> Option<Self> {
        match (self.code, self.subcode, self.data.as_slice()) {
            (CEASE, HARD_RESET, [code, subcode, data @ ..]) => {
                Some(Self::new(*code, *subcode, data.to_vec()))
            }
            _ => None,
        }
    }

    /// What the peer's operator wrote (RFC 9003), fit for one line of a log.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        let (CEASE, SHUTDOWN | RESET) = (self.code, self.subcode) else { return None };
        // "the length of the Shutdown Communication ... When the length value is zero, no Shutdown Communication field
        // follows." RFC 9003 section 4: invalid UTF-8 "SHOULD be logged", so what is none is replaced.
        let (length, text) = self.data.split_first()?;
        let text = text.get(..usize::from(*length))?;
        if text.is_empty() {
            return None;
        }
        Some(String::from_utf8_lossy(text).chars().map(harmless).collect())
    }
}

/// One line: the name of the error, its numbers, and what the data says where it says something to people.
impl fmt::Display for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = words(self.code, self.subcode).or_else(|| words(self.code, 0));
        write!(f, "{} ({}/{})", words.unwrap_or("unknown error"), self.code, self.subcode)?;
        if let Some(text) = self.text() {
            write!(f, ": \"{text}\"")?;
        }
        match (self.code, self.subcode, self.data.as_slice()) {
            (2, 1, [high, low, ..]) => write!(f, ": version {}", u16::from_be_bytes([*high, *low])),
            (1, 2, [high, low, ..]) => write!(f, ": {} octets", u16::from_be_bytes([*high, *low])),
            (1, 3, [kind, ..]) => write!(f, ": type {kind}"),
            (3, 3, [attribute, ..]) => write!(f, ": attribute {attribute}"),
            (3, 2 | 4..=6 | 8 | 9, [_, attribute, ..]) => write!(f, ": attribute {attribute}"),
            (CEASE, 1, [_, _, _, a, b, c, d]) => {
                write!(f, ": the limit is {}", u32::from_be_bytes([*a, *b, *c, *d]))
            }
            // One level: what a Hard Reset encapsulates is no Hard Reset, whatever a peer sends.
            (CEASE, HARD_RESET, [code, subcode, ..]) if (*code, *subcode) != (CEASE, HARD_RESET) => {
                match self.encapsulated() {
                    Some(reason) => write!(f, ": {reason}"),
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}

/// What the RFCs call it.
fn words(code: u8, subcode: u8) -> Option<&'static str> {
    Some(match (code, subcode) {
        (1, 0) => "Message Header Error",
        (1, 1) => "Connection Not Synchronized",
        (1, 2) => "Bad Message Length",
        (1, 3) => "Bad Message Type",
        (2, 0) => "OPEN Message Error",
        (2, 1) => "Unsupported Version Number",
        (2, 2) => "Bad Peer AS",
        (2, 3) => "Bad BGP Identifier",
        (2, 4) => "Unsupported Optional Parameter",
        (2, 5) => "Authentication Failure", // of RFC 1771
        (2, 6) => "Unacceptable Hold Time",
        (2, 7) => "Unsupported Capability",
        (2, 11) => "Role Mismatch",
        (3, 0) => "UPDATE Message Error",
        (3, 1) => "Malformed Attribute List",
        (3, 2) => "Unrecognized Well-known Attribute",
        (3, 3) => "Missing Well-known Attribute",
        (3, 4) => "Attribute Flags Error",
        (3, 5) => "Attribute Length Error",
        (3, 6) => "Invalid ORIGIN Attribute",
        (3, 7) => "AS Routing Loop", // of RFC 1771
        (3, 8) => "Invalid NEXT_HOP Attribute",
        (3, 9) => "Optional Attribute Error",
        (3, 10) => "Invalid Network Field",
        (3, 11) => "Malformed AS_PATH",
        (4, 0) => "Hold Timer Expired",
        (5, 0) => "Finite State Machine Error",
        (5, 1) => "Receive Unexpected Message in OpenSent State",
        (5, 2) => "Receive Unexpected Message in OpenConfirm State",
        (5, 3) => "Receive Unexpected Message in Established State",
        (CEASE, 0) => "Cease",
        (CEASE, 1) => "Maximum Number of Prefixes Reached",
        (CEASE, SHUTDOWN) => "Administrative Shutdown",
        (CEASE, 3) => "Peer De-configured",
        (CEASE, RESET) => "Administrative Reset",
        (CEASE, 5) => "Connection Rejected",
        (CEASE, 6) => "Other Configuration Change",
        (CEASE, 7) => "Connection Collision Resolution",
        (CEASE, 8) => "Out of Resources",
        (CEASE, HARD_RESET) => "Hard Reset",
        (CEASE, 10) => "BFD Down",
        (7, 0) => "ROUTE-REFRESH Message Error",
        (7, 1) => "Invalid Message Length",
        (8, 0) => "Send Hold Timer Expired",
        _ => return None,
    })
}

/// Length and text of RFC 9003; nothing for no text.
fn communication(text: &str) -> Vec<u8> {
    let mut end = text.len().min(TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let text = text.get(..end).unwrap_or_default();
    match u8::try_from(text.len()) {
        Ok(length) if length > 0 => std::iter::once(length).chain(text.bytes()).collect(),
        _ => Vec::new(),
    }
}

/// RFC 9003 section 4: "implementations SHOULD ... escape non-printable characters" of a text that a stranger wrote; marks
/// that turn the direction of a line are among them.
fn harmless(c: char) -> char {
    let invisible =
        matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    match c {
        '"' => '\'',
        c if c.is_control() || invisible => ' ',
        c => c,
    }
}
