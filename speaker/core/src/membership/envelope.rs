//! Datagrams that only speakers with the key can read or write, each for one start of one receiver, and once.
//!
//! ```text
//!  0         1        5          21          29         37                        n-16      n
//!  +---------+--------+----------+-----------+----------+-------------------------+---------+
//!  | version | key id | epoch    | to        | counter  | ciphertext              | tag     |
//!  +---------+--------+----------+-----------+----------+-------------------------+---------+
//!    1                  of the     first half  big        ChaCha20-Poly1305 (RFC 8439) under a key of the epoch's own:
//!                       sender,    of the      endian,    HKDF-SHA256 (RFC 5869) of secret and epoch. The nonce is the
//!                       one per    receiver's  never      counter; all before the ciphertext is authenticated with it
//!                       start      epoch, or 0 twice
//!
//!  plaintext:  | newest key id of the sender (4) | 1 | message                              |
//!              | newest key id of the sender (4) | 0 | counter of what this answers, or 0 (8) |   a greeting
//! ```
//!
//! **A datagram is for one start of its receiver.** Its sender names the receiver's epoch, a random value that nobody knew
//! before the receiver started. So nothing recorded from an earlier start opens, nor what was sent to somebody else; and what
//! was sent to this start counts once, by a window over the counters of each sender's epoch. Nobody needs to be challenged:
//! whoever does not know our epoch yet, or knows that of an earlier start, is answered with a greeting, which names it. The
//! message that did so is lost, or kept by its sender for a moment ([`Envelope::seal`]); the machine above repeats itself.
//!
//! **A stranger** costs a comparison when he does not know the key's id, else one derivation and one attempt to open. He
//! leaves no trace in any table: an epoch is remembered only after a datagram of it opened that names ours. Windows are never
//! forgotten while our epoch lasts: when the table is full, we take a new epoch.
//!
//! **Rotation.** Each message says which is the newest key that its sender has; it is sent under the newest that its receiver
//! has shown. A key that is no longer configured still opens until every speaker we know writes to us under one that is, for
//! ten minutes at most. See docs/decisions/0018-membership-keys.md.

mod keys;
mod peers;
mod waiting;
mod window;
mod wire;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use self::keys::{EpochKey, Keys};
pub use self::keys::{KeyError, KeyId, Keyring, LEAST_SECRET};
use self::peers::Peers;
use self::waiting::{Greeted, Waiting};
use self::wire::{Header, Inner};

/// What the envelope adds to a message, in bytes.
pub const OVERHEAD: usize = wire::HEADER + wire::PREFIX + wire::TAG;

/// The longest message that fits one datagram on a link with an MTU of 1500, over IPv6.
pub const MAX_MESSAGE: usize = 1500 - 40 - 8 - OVERHEAD;

/// A random value of one start.
pub type Epoch = [u8; 16];

/// Between looks at the keys that are no longer configured.
const TIDY: Duration = Duration::from_secs(1);

/// A datagram that opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// What was in it.
    pub content: Content,
    /// Datagrams to send back to where it came from: a greeting, or what waited for one.
    pub replies: Vec<Vec<u8>>,
}

/// What a datagram held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A message for the machine above.
    Message(Vec<u8>),
    /// A greeting: it is between envelopes only.
    Greeting,
    /// It was meant for another start of ours, or for nobody in particular: not to be believed. Its sender, if it is not
    /// a recording, is told our epoch.
    OtherStart,
}

/// Why a datagram did not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum Refused {
    /// Shorter than an empty message.
    #[error("too short for a membership message")]
    Short,
    /// The first byte is not ours.
    #[error("another version of the membership protocol, or no membership message")]
    Version,
    /// Sealed with a key that we do not have.
    #[error("sealed with a key that this speaker does not have")]
    UnknownKey,
    /// Our own datagram came back.
    #[error("our own message")]
    Own,
    /// It came before, or long after its time.
    #[error("a repetition, or too old to tell")]
    Replayed,
    /// Changed on its way, or made by somebody who does not have the key.
    #[error("changed on its way, or not made with the key")]
    BadTag,
    /// It opened, and is no message of this version.
    #[error("opened, and is no membership message")]
    Malformed,
}

impl Refused {
    /// All of them, for the series of the metric.
    pub const ALL: [Self; 7] = [
        Self::Short,
        Self::Version,
        Self::UnknownKey,
        Self::Own,
        Self::Replayed,
        Self::BadTag,
        Self::Malformed,
    ];

    /// A stable word for the metric.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::Version => "version",
            Self::UnknownKey => "unknownKey",
            Self::Own => "own",
            Self::Replayed => "replayed",
            Self::BadTag => "badTag",
            Self::Malformed => "malformed",
        }
    }
}

/// What strangers have cost so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Keys of epochs derived.
    pub derived: u64,
    /// Datagrams that were tried to be opened.
    pub attempts: u64,
}

/// The machine. Not `Clone`: two of them would use a counter twice.
pub struct Envelope {
    keys: Keys,
    epoch: Epoch,
    /// Where our further epochs come from.
    seed: [u8; 32],
    renewals: u64,
    counter: u64,
    peers: Peers,
    waiting: Waiting,
    greeted: Greeted,
    work: Work,
    tidied: Option<Instant>,
}

impl std::fmt::Debug for Envelope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Envelope")
            .field("keys", &self.keys)
            .field("counter", &self.counter)
            .finish_non_exhaustive()
    }
}

impl Envelope {
    /// One that knows nobody. `epoch` and `seed` come from a cryptographic random source: an epoch that was used before
    /// (with the same secret) would encrypt two messages with one nonce.
    #[must_use]
    pub fn new(keyring: Keyring, epoch: Epoch, seed: [u8; 32]) -> Self {
        Self {
            keys: Keys::new(keyring, epoch),
            epoch,
            seed,
            renewals: 0,
            // 0 is "answers nothing" in a greeting.
            counter: 1,
            peers: Peers::default(),
            waiting: Waiting::default(),
            greeted: Greeted::default(),
            work: Work::default(),
            tidied: None,
        }
    }

    /// A datagram that brings `message` to `to`; or, when its epoch is not known yet, one that asks for it. Then the message
    /// waits, for a second at most, and goes out as a reply when the answer is opened.
    pub fn seal(&mut self, now: Instant, to: SocketAddr, message: &[u8]) -> Vec<u8> {
        self.tidy(now);
        let Some((epoch, peer)) = self.peers.at(to) else {
            let turn = self.waiting.push(now, to, message);
            // Who knows none of the newest keys knows an older one: each in turn.
            let key = self.keys.in_turn(turn).clone();
            return self.send(to, &key, wire::NOBODY, Inner::Greeting { answers: 0 });
        };
        let key = self.keys.for_peer(peer.newest, peer.under).clone();
        self.send(to, &key, wire::to(&epoch), Inner::Message(message))
    }

    /// What is in a datagram that came from `from`.
    ///
    /// # Errors
    /// It is not for us, or not from one of us, or came before. Nothing has changed but the count of the work.
    pub fn open(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) -> Result<Opened, Refused> {
        self.tidy(now);
        let (header, sealed) = Header::parse(datagram)?;
        if header.epoch == self.epoch {
            return Err(Refused::Own);
        }
        let held = self.keys.get(header.key).ok_or(Refused::UnknownKey)?;
        let fresh = header.to == wire::to(&self.epoch);
        if fresh && self.peers.has_seen(&header.epoch, header.counter) {
            return Err(Refused::Replayed);
        }
        let key = match self.peers.key(&header.epoch, header.key) {
            Some(key) => key,
            None => {
                self.work.derived += 1;
                held.epoch_key(&header.epoch)
            }
        };
        self.work.attempts += 1;
        let plain = wire::open(&key, &header, sealed).ok_or(Refused::BadTag)?;
        let (newest, inner) = wire::parse(&plain).ok_or(Refused::Malformed)?;
        if !fresh {
            return Ok(Opened { content: Content::OtherStart, replies: self.greet(now, from, &header) });
        }
        if self.peers.note(now, &header, newest, &key) {
            self.renew(now);
        }
        let mut places = vec![from];
        let content = match inner {
            Inner::Message(message) => Content::Message(message.to_vec()),
            Inner::Greeting { answers } => {
                // Its sender may have more addresses than the one that it writes from: it has what we sent there.
                places.extend(self.peers.sent_to(answers));
                Content::Greeting
            }
        };
        let mut replies = Vec::new();
        for place in places {
            self.peers.learn(place, header.epoch);
            for message in self.waiting.take(now, place) {
                replies.push(self.seal(now, place, &message));
            }
        }
        Ok(Opened { content, replies })
    }

    /// The configured secrets are these now. True when that is a change.
    pub fn rotate(&mut self, now: Instant, keyring: Keyring) -> bool {
        self.keys.rotate(now, keyring, self.epoch)
    }

    /// The keys that open: those configured, newest first, then those that were.
    pub fn key_ids(&self) -> impl Iterator<Item = KeyId> + '_ {
        self.keys.ids()
    }

    /// The newest key that is configured.
    #[must_use]
    pub fn newest_key(&self) -> KeyId {
        self.keys.newest().id
    }

    /// What was done so far.
    #[must_use]
    pub fn work(&self) -> Work {
        self.work
    }

    /// Somebody who has the key does not know our epoch: it is named to him, at most once per tenth of a second.
    fn greet(&mut self, now: Instant, from: SocketAddr, header: &Header) -> Vec<Vec<u8>> {
        if !self.greeted.may(now, from, header.epoch) {
            return Vec::new();
        }
        let Some(key) = self.keys.own(header.key).cloned() else { return Vec::new() };
        let answer = Inner::Greeting { answers: header.counter };
        vec![self.send(from, &key, wire::to(&header.epoch), answer)]
    }

    fn send(&mut self, to: SocketAddr, key: &EpochKey, whom: [u8; 8], inner: Inner<'_>) -> Vec<u8> {
        let header = Header { key: key.id, epoch: self.epoch, to: whom, counter: self.counter };
        self.counter += 1;
        self.peers.sent(header.counter, to);
        wire::seal(&key.bytes, &header, self.keys.newest().id, &inner)
    }

    /// Another epoch of our own. What was sent to the old one does not count any more, so its windows may be forgotten.
    fn renew(&mut self, now: Instant) {
        self.renewals += 1;
        self.epoch = keys::later_epoch(&self.seed, self.renewals);
        self.keys.begin(self.epoch);
        self.peers.shrink(now);
    }

    fn tidy(&mut self, now: Instant) {
        if self.tidied.is_some_and(|last| now.saturating_duration_since(last) < TIDY) {
            return;
        }
        self.tidied = Some(now);
        let Self { keys, peers, .. } = self;
        keys.tidy(now, |id_is_current| peers.all_write_under(now, id_is_current));
    }
}
