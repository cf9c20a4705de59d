//! The stream: message headers, and the messages that are little more than one.

use super::{Negotiated, family, notification, open, update};
use crate::bgp::message::{MAX_EXTENDED_MESSAGE, MAX_MESSAGE, Message, Notification};

/// Octets of a header.
pub(super) const HEADER: usize = 19;
/// A buffer that grew beyond this is given back when it is empty: most sessions say nothing for hours.
const KEPT: usize = 2 * MAX_MESSAGE;

/// Takes a stream apart.
///
/// Holds less than one message between calls, when [`Reader::next`] is called until it has no more after each
/// [`Reader::feed`].
#[derive(Debug, Default)]
pub struct Reader {
    buffer: Vec<u8>,
    /// Octets of it that were read.
    done: usize,
    /// The stream ended with this error.
    broken: Option<Notification>,
}

impl Reader {
    /// Adds bytes that came.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.broken.is_none() {
            self.buffer.drain(..self.done);
            self.done = 0;
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// The next whole message, read as `negotiated` says.
    ///
    /// # Errors
    /// What the peer must be told; the stream is of no use any more, and the answer stays the same.
    // Not an Iterator: what is read next depends on what the last message agreed on.
    #[allow(clippy::should_implement_trait)] // no iterator: it reads as what was agreed until then says
    pub fn next(&mut self, negotiated: &Negotiated) -> Result<Option<Message>, Notification> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        let message = self.take(negotiated);
        if let Err(error) = &message {
            self.broken = Some(error.clone());
            self.buffer = Vec::new();
            self.done = 0;
        }
        message
    }

    fn take(&mut self, negotiated: &Negotiated) -> Result<Option<Message>, Notification> {
        let waiting = self.buffer.get(self.done..).unwrap_or_default();
        let Some(header) = Header::read(waiting, negotiated)? else { return Ok(None) };
        let Some(whole) = waiting.get(..header.length) else { return Ok(None) };
        let message = read(header.kind, whole, negotiated)?;
        self.done += header.length;
        if self.done == self.buffer.len() {
            self.done = 0;
            self.buffer.clear();
            if self.buffer.capacity() > KEPT {
                self.buffer = Vec::new();
            }
        }
        Ok(Some(message))
    }
}

/// RFC 4271 section 4.1, and 5 of RFC 2918.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Open = 1,
    Update = 2,
    Notification = 3,
    Keepalive = 4,
    RouteRefresh = 5,
}

/// RFC 4271 section 4.1.
///
/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +---------------------------------------------------------------+
/// |                      marker (16 octets of 0xff)               |
/// +-------------------------------+---------------+---------------+
/// | length (header included)      | type          |
/// +-------------------------------+---------------+
/// ```
struct Header {
    length: usize,
    kind: Kind,
}

impl Header {
    /// `None`: it is not all there yet. Errors as RFC 4271 section 6.1 says.
    fn read(bytes: &[u8], negotiated: &Negotiated) -> Result<Option<Self>, Notification> {
        let Some((marker, rest)) = bytes.split_first_chunk::<16>() else { return Ok(None) };
        let Some(&[high, low, kind]) = rest.first_chunk::<3>() else { return Ok(None) };
        // "If the Marker field of the message header is not as expected, then a synchronization error has occurred"
        if *marker != [0xff; 16] {
            return Err(Notification::new(1, 1, Vec::new()));
        }
        // "The Data field MUST contain the erroneous Length field."
        let bad_length = || Notification::new(1, 2, vec![high, low]);
        let length = usize::from(u16::from_be_bytes([high, low]));
        let largest = if negotiated.extended_message { MAX_EXTENDED_MESSAGE } else { MAX_MESSAGE };
        if length < HEADER || length > largest {
            return Err(bad_length());
        }
        let (kind, lengths) = match kind {
            // RFC 8654 section 3: "... except for the OPEN and KEEPALIVE messages".
            1 => (Kind::Open, 29..=MAX_MESSAGE),
            2 => (Kind::Update, 23..=largest),
            3 => (Kind::Notification, 21..=largest),
            4 => (Kind::Keepalive, HEADER..=HEADER),
            // Other lengths than 23 are answered by what the message says: RFC 7313 section 5.
            5 => (Kind::RouteRefresh, HEADER..=largest),
            // "If the Type field of the message header is not recognized ... The Data field MUST contain the
            // erroneous Type field."
            unknown => return Err(Notification::new(1, 3, vec![unknown])),
        };
        if lengths.contains(&length) { Ok(Some(Self { length, kind })) } else { Err(bad_length()) }
    }
}

/// Reads one whole message.
fn read(kind: Kind, whole: &[u8], negotiated: &Negotiated) -> Result<Message, Notification> {
    let body = whole.get(HEADER..).unwrap_or_default();
    match kind {
        Kind::Open => open::read(body).map(Message::Open),
        Kind::Update => update::read(body, negotiated).map(Message::Received),
        Kind::Notification => Ok(Message::Notification(notification::read(body))),
        Kind::Keepalive => Ok(Message::Keepalive),
        Kind::RouteRefresh => read_route_refresh(whole, body),
    }
}

/// RFC 2918 section 3, RFC 7313 section 3.2: AFI (2), subtype (1), SAFI (1).
fn read_route_refresh(whole: &[u8], body: &[u8]) -> Result<Message, Notification> {
    match *body {
        [a, b, subtype, safi] => {
            Ok(Message::RouteRefresh { family: family(u16::from_be_bytes([a, b]), safi), subtype })
        }
        // RFC 7313 section 5: "If the length ... of the received ROUTE-REFRESH message with Message Subtype 1 and 2 is not
        // 4, then the BGP speaker MUST send a NOTIFICATION message with the Error Code of "ROUTE-REFRESH Message Error" and
        // subcode of "Invalid Message Length". The Data field ... MUST contain the complete ROUTE-REFRESH message."
        [_, _, 1 | 2, ..] => Err(Notification::new(7, 1, whole.to_vec())),
        // Cut off, or with filters (RFC 5291) that we never said we know.
        _ => Err(Notification::new(1, 2, whole.get(16..18).unwrap_or_default().to_vec())),
    }
}

/// Appends a message. The callers see to it that its length fits 16 bits.
pub(super) fn encode(kind: Kind, body: &[u8], out: &mut Vec<u8>) {
    let length = u16::try_from(HEADER + body.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&[0xff; 16]);
    out.extend_from_slice(&length.to_be_bytes());
    out.push(kind as u8);
    out.extend_from_slice(body.get(..usize::from(length) - HEADER).unwrap_or(body));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(length: usize) -> Vec<u8> {
        // all of it withdrawals of 0.0.0.0/0
        let withdrawn = u16::try_from(length - 23).unwrap();
        let body: Vec<u8> =
            withdrawn.to_be_bytes().into_iter().chain(vec![0; length - 23]).chain([0, 0]).collect();
        let mut out = Vec::new();
        encode(Kind::Update, &body, &mut out);
        out
    }

    #[test]
    fn a_reader_holds_less_than_one_message_between_two_reads() {
        let negotiated = Negotiated { extended_message: true, ..Negotiated::default() };
        let stream: Vec<u8> = [23, 65535, 40000, 65535, 24].into_iter().flat_map(update).collect();
        let (mut reader, mut messages) = (Reader::default(), 0);
        for piece in stream.chunks(50_000) {
            reader.feed(piece);
            assert!(reader.buffer.len() < MAX_EXTENDED_MESSAGE + 50_000);
            while reader.next(&negotiated).unwrap().is_some() {
                messages += 1;
            }
            assert!(reader.buffer.len() - reader.done < MAX_EXTENDED_MESSAGE);
        }
        assert_eq!(messages, 5);
        assert_eq!(reader.buffer.capacity(), 0, "a large buffer is given back");
    }

    #[test]
    fn a_header_that_is_wrong_is_not_waited_for() {
        let mut reader = Reader::default();
        reader.feed(&update(65535)[..19]);
        let refused = reader.next(&Negotiated::default()).unwrap_err();
        assert_eq!((refused.code, refused.subcode), (1, 2));
        reader.feed(&[0; 1000]);
        assert_eq!(reader.buffer.len(), 0, "nothing more is kept of a broken stream");
        assert_eq!(reader.next(&Negotiated::default()), Err(refused));
    }
}
