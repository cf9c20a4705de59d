//! What speakers say to each other, below the seal of the envelope.
//!
//! ```text
//!  0         1                                              n
//!  +---------+---------------------------+------------------+----------------------+
//!  | version | sender: key, start,       | body: its kind,  | Gossip: foca's bytes |
//!  |  1      |         renewals          | its fields       | others: ignored      |
//!  +---------+---------------------------+------------------+----------------------+
//!             postcard: numbers as LEB128, lengths before what they measure
//! ```
//!
//! Parsing is total, and bounded by [`MAX_MESSAGE`]. What a later version adds at the end of a body is not looked at, and a
//! kind that this version does not know is an error that costs nothing: the message is skipped.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::ring::{self, Key};
use crate::view::Member;

/// No message is longer: with the envelope's overhead it fits into an Ethernet frame.
pub(crate) const MAX_MESSAGE: usize = 1200;
/// Of this format.
const VERSION: u8 = 1;
/// Addresses of one speaker: two families, and room for a change.
pub(super) const MAX_ADDRESSES: usize = 4;
/// Verdicts in one message.
pub(crate) const MAX_DEAD: usize = 40;
/// Starts and renewals are below, so that whoever hears of a later life under its own name can always go beyond it.
const MAX_START: u64 = 1 << 63;
const MAX_RENEWALS: u32 = 1 << 31;

/// One life of a speaker; the later one wins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Life {
    /// Of the process.
    pub(crate) start: u64,
    /// How often it came back after it had been declared dead.
    pub(crate) renewals: u32,
}

/// Who says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sender {
    pub(crate) key: Key,
    pub(crate) life: Life,
}

/// Where to find a speaker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Who {
    /// Its node.
    pub(crate) name: String,
    /// One per family, the preferred one first.
    pub(crate) addresses: Vec<SocketAddr>,
}

/// What the sender knows of the receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct You {
    pub(crate) life: Life,
    pub(crate) alive: bool,
    /// The last that it said of itself.
    pub(crate) said: u32,
}

/// A verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Dead {
    pub(crate) key: Key,
    pub(crate) life: Life,
}

/// A speaker, as another one tells of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Known {
    pub(crate) who: Who,
    pub(crate) life: Life,
    /// The number of what it said last.
    pub(crate) said: u32,
    pub(crate) member: Member,
}

/// What is said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Body {
    /// I live.
    Heartbeat { said: u32 },
    /// Do you live? `alive`: how many the sender takes to be.
    Ping { nonce: u64, alive: u32, said: u32, you: Option<You> },
    /// I do.
    Pong { nonce: u64, alive: u32, said: u32, you: Option<You> },
    /// Does that one live?
    AskAbout { nonce: u64, target: Key },
    /// I heard from it so many milliseconds ago; `None`: not lately.
    Vouch { nonce: u64, target: Key, age: Option<u16> },
    /// This is I, and what I say of myself. `want`: say who you are.
    /// `knows`: the life and the saying of the receiver's that the sender has already.
    Intro { want: bool, said: u32, who: Who, member: Member, knows: Option<(Life, u32)> },
    /// I know now.
    IntroAck { said: u32 },
    /// They are dead.
    Verdict { seq: u32, dead: Vec<Dead> },
    /// I know now.
    VerdictAck { seq: u32 },
    /// I end.
    Farewell,
    /// The rest is foca's.
    Gossip,
    /// Do you hear me on this segment?
    SegmentPing { nonce: u64, subnet: (IpAddr, u8) },
    /// I do.
    SegmentPong { nonce: u64, subnet: (IpAddr, u8) },
    /// Whom do you know, from this key on?
    List { from: Key },
    /// Those from the one key to the other, both included, without the receiver and the sender.
    Listed { from: Key, to: Key, known: Vec<Known> },
}

/// Why a message is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error("longer than {MAX_MESSAGE} bytes")]
    TooLong,
    #[error("version {0} of the format")]
    Version(u8),
    #[error("cut short, or of an unknown kind")]
    Malformed,
    #[error("{0} is out of bounds")]
    Bounds(&'static str),
}

/// The bytes of a message; `rest` is for [`Body::Gossip`].
pub(crate) fn encode(sender: Sender, body: &Body, rest: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64 + rest.len());
    bytes.push(VERSION);
    // Appending to a Vec does not fail; were it to, what is cut short is dropped by the receiver.
    let bytes = postcard::to_extend(&(sender, body), bytes).unwrap_or_default();
    [bytes.as_slice(), rest].concat()
}

/// How many bytes it takes within a message.
pub(crate) fn length(value: &impl Serialize) -> usize {
    postcard::to_extend(value, Vec::new()).map_or(usize::MAX / 2, |bytes: Vec<u8>| bytes.len())
}

/// Reads a message.
pub(crate) fn decode(message: &[u8]) -> Result<(Sender, Body, &[u8]), Unreadable> {
    if message.len() > MAX_MESSAGE {
        return Err(Unreadable::TooLong);
    }
    let (&version, bytes) = message.split_first().ok_or(Unreadable::Malformed)?;
    if version != VERSION {
        return Err(Unreadable::Version(version));
    }
    let ((sender, body), rest): ((Sender, Body), _) =
        postcard::take_from_bytes(bytes).map_err(|_malformed| Unreadable::Malformed)?;
    check_life(sender.life)?;
    check(sender, &body)?;
    Ok((sender, body, rest))
}

/// What a speaker says of itself, so that it fits: the list of interfaces is left out when it is too long, which is less than it
/// says but nothing wrong ([`Member::interfaces`]).
pub(crate) fn fitting(sender: Sender, who: &Who, mut member: Member) -> Member {
    if member.version.len() > MAX_VERSION {
        member.version = member.version.chars().take(MAX_VERSION / 4).collect();
    }
    let longest = Life { start: MAX_START - 1, renewals: MAX_RENEWALS - 1 };
    let sender = Sender { key: sender.key, life: longest };
    let intro = |member: Member| {
        let knows = Some((longest, u32::MAX));
        Body::Intro { want: true, said: u32::MAX, who: who.clone(), member, knows }
    };
    let fits = |member: &Member| decode(&encode(sender, &intro(member.clone()), &[])).is_ok();
    if !fits(&member) {
        member.interfaces = None;
    }
    member
}

const MAX_VERSION: usize = 64;
const MAX_NAME: usize = 253;

fn check_life(life: Life) -> Result<(), Unreadable> {
    let ok = life.start < MAX_START && life.renewals < MAX_RENEWALS;
    ok.then_some(()).ok_or(Unreadable::Bounds("life"))
}

fn check(sender: Sender, body: &Body) -> Result<(), Unreadable> {
    match body {
        Body::Ping { you: Some(you), .. } | Body::Pong { you: Some(you), .. } => check_life(you.life),
        Body::Listed { known, .. } => known.iter().try_for_each(|known| {
            check_life(known.life)?;
            known.who.check()?;
            check_member(&known.member)
        }),
        Body::Intro { who, member, knows, .. } => {
            knows.map_or(Ok(()), |(life, _)| check_life(life))?;
            who.check()?;
            if ring::key(&who.name) != sender.key {
                return Err(Unreadable::Bounds("name"));
            }
            check_member(member)
        }
        Body::Verdict { dead, .. } if dead.len() > MAX_DEAD => Err(Unreadable::Bounds("verdicts")),
        Body::Verdict { dead, .. } => dead.iter().try_for_each(|dead| check_life(dead.life)),
        Body::SegmentPing { subnet, .. } | Body::SegmentPong { subnet, .. } => check_subnet(*subnet),
        _ => Ok(()),
    }
}

impl Who {
    pub(crate) fn check(&self) -> Result<(), Unreadable> {
        if self.name.is_empty() || self.name.len() > MAX_NAME || self.name.chars().any(char::is_control) {
            return Err(Unreadable::Bounds("name"));
        }
        let usable = |at: &SocketAddr| at.port() != 0 && !at.ip().is_unspecified() && !at.ip().is_multicast();
        let ok = (1..=MAX_ADDRESSES).contains(&self.addresses.len()) && self.addresses.iter().all(usable);
        ok.then_some(()).ok_or(Unreadable::Bounds("addresses"))
    }
}

fn check_member(member: &Member) -> Result<(), Unreadable> {
    if member.version.len() > MAX_VERSION {
        return Err(Unreadable::Bounds("version"));
    }
    for interface in member.interfaces.iter().flatten() {
        if interface.name.is_empty() || interface.name.len() > MAX_VERSION {
            return Err(Unreadable::Bounds("interface"));
        }
        interface.subnets.iter().try_for_each(|subnet| check_subnet(*subnet))?;
    }
    Ok(())
}

fn check_subnet((address, length): (IpAddr, u8)) -> Result<(), Unreadable> {
    let longest = if address.is_ipv4() { 32 } else { 128 };
    (length <= longest).then_some(()).ok_or(Unreadable::Bounds("subnet"))
}

#[cfg(test)]
mod tests;
