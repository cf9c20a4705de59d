//! The bytes of a datagram. Parsing is total.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use super::keys::KeyId;
use super::{Epoch, Refused};

const VERSION: u8 = 1;
/// Version, key id, epoch, to, counter.
pub(super) const HEADER: usize = 1 + 4 + 16 + 8 + 8;
/// In front of the message: the newest key's id, and the kind.
pub(super) const PREFIX: usize = 4 + 1;
pub(super) const TAG: usize = 16;
/// In place of the receiver's epoch, when it is not known.
pub(super) const NOBODY: [u8; 8] = [0; 8];

const GREETING: u8 = 0;
const MESSAGE: u8 = 1;

/// All before the ciphertext.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) key: KeyId,
    pub(super) epoch: Epoch,
    pub(super) to: [u8; 8],
    pub(super) counter: u64,
}

/// What is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inner<'a> {
    Message(&'a [u8]),
    Greeting { answers: u64 },
}

impl Header {
    pub(super) fn parse(datagram: &[u8]) -> Result<(Self, &[u8]), Refused> {
        let (version, rest) = datagram.split_first().ok_or(Refused::Short)?;
        if *version != VERSION {
            return Err(Refused::Version);
        }
        let parse = || {
            let (key, rest) = rest.split_first_chunk()?;
            let (epoch, rest) = rest.split_first_chunk()?;
            let (to, rest) = rest.split_first_chunk()?;
            let (counter, rest) = rest.split_first_chunk()?;
            let header =
                Self { key: KeyId(*key), epoch: *epoch, to: *to, counter: u64::from_be_bytes(*counter) };
            (rest.len() >= PREFIX + TAG).then_some((header, rest))
        };
        parse().ok_or(Refused::Short)
    }

    fn write(&self) -> Vec<u8> {
        let counter = self.counter.to_be_bytes();
        [&[VERSION][..], &self.key.0, &self.epoch, &self.to, &counter].concat()
    }

    /// RFC 8439, 2.8: 96 bits, never twice with one key.
    fn nonce(&self) -> Nonce {
        let mut nonce = [0; 12];
        nonce.iter_mut().skip(4).zip(self.counter.to_be_bytes()).for_each(|(to, from)| *to = from);
        Nonce::assume_unique_for_key(nonce)
    }
}

/// How a datagram names its receiver's epoch.
pub(super) fn to(epoch: &Epoch) -> [u8; 8] {
    let [a, b, c, d, e, f, g, h, ..] = *epoch;
    [a, b, c, d, e, f, g, h]
}

/// A datagram. (Empty, which nobody opens, in the case that ring excludes: more than 256 GiB.)
pub(super) fn seal(key: &[u8; 32], header: &Header, newest: KeyId, inner: &Inner<'_>) -> Vec<u8> {
    let head = header.write();
    let mut body = newest.0.to_vec();
    match inner {
        Inner::Message(message) => {
            body.push(MESSAGE);
            body.extend_from_slice(message);
        }
        Inner::Greeting { answers } => {
            body.push(GREETING);
            body.extend_from_slice(&answers.to_be_bytes());
        }
    }
    let tag = cipher(key).and_then(|cipher| {
        cipher.seal_in_place_separate_tag(header.nonce(), Aad::from(&head), &mut body).ok()
    });
    tag.map(|tag| [&head[..], &body, tag.as_ref()].concat()).unwrap_or_default()
}

/// The plaintext; `None` when it was not made with this key, or not so.
pub(super) fn open(key: &[u8; 32], header: &Header, sealed: &[u8]) -> Option<Vec<u8>> {
    let mut body = sealed.to_vec();
    let length = cipher(key)?.open_in_place(header.nonce(), Aad::from(header.write()), &mut body).ok()?.len();
    body.truncate(length);
    Some(body)
}

/// The newest key of the sender, and what it says.
pub(super) fn parse(plain: &[u8]) -> Option<(KeyId, Inner<'_>)> {
    let (newest, rest) = plain.split_first_chunk()?;
    let (kind, rest) = rest.split_first()?;
    let inner = match *kind {
        MESSAGE => Inner::Message(rest),
        GREETING => Inner::Greeting { answers: u64::from_be_bytes(rest.try_into().ok()?) },
        _ => return None,
    };
    Some((KeyId(*newest), inner))
}

fn cipher(key: &[u8; 32]) -> Option<LessSafeKey> {
    Some(LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).ok()?))
}
