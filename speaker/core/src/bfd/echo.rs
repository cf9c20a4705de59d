//! Our own echo packets (RFC 5880 section 6.4). Their content is a local matter: nobody but us reads them.
//!
//! ```text
//!  +-------------------+-------------------+---------------------------------------+
//!  |   discriminator   |     sequence      |                 nonce                 |
//!  +-------------------+-------------------+---------------------------------------+
//!   0                   4                   8                                    16
//! ```
//!
//! Section 9: "the receiver of looped back Echo packets" should be able to tell forged ones. Each packet has 64 random bits
//! that were never on the wire before and count once, so who does not see our packets cannot make one up, and who sees
//! them cannot repeat one.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rand::Rng as _;
use rand::rngs::StdRng;

const LENGTH: usize = 16;
/// Packets that are out, at most. With a multiplier of 255 the session is down before.
const MOST: usize = 512;

/// Which session a packet that came back on UDP 3785 belongs to; `None`: it is none of ours.
#[must_use]
pub fn discriminator(payload: &[u8]) -> Option<u32> {
    let payload: &[u8; LENGTH] = payload.try_into().ok()?;
    payload.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

/// What is out, while the function is in use.
#[derive(Debug)]
pub(super) struct Echo {
    /// The next is due then.
    pub(super) next: Instant,
    /// One came back: the peer does loop. Until then a missing one says nothing.
    pub(super) proven: bool,
    sequence: u32,
    out: VecDeque<Sent>,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    sequence: u32,
    nonce: u64,
    at: Instant,
}

impl Sent {
    fn bytes(&self, discriminator: u32) -> [u8; LENGTH] {
        let number =
            u128::from(discriminator) << 96 | u128::from(self.sequence) << 64 | u128::from(self.nonce);
        number.to_be_bytes()
    }
}

impl Echo {
    pub(super) fn new(now: Instant) -> Self {
        Self { next: now, proven: false, sequence: 0, out: VecDeque::new() }
    }

    /// The next packet.
    pub(super) fn send(&mut self, now: Instant, discriminator: u32, random: &mut StdRng) -> Vec<u8> {
        self.sequence = self.sequence.wrapping_add(1);
        let sent = Sent { sequence: self.sequence, nonce: random.next_u64(), at: now };
        if self.out.len() >= MOST {
            self.out.pop_front();
        }
        self.out.push_back(sent);
        sent.bytes(discriminator).to_vec()
    }

    /// One came back. False: it is none that is out. Those before it are lost, or late: they count no more.
    pub(super) fn returned(&mut self, payload: &[u8], discriminator: u32) -> bool {
        let Some(at) = self.out.iter().position(|sent| sent.bytes(discriminator) == payload) else {
            return false;
        };
        self.out.drain(..=at);
        self.proven = true;
        true
    }

    /// Then too many in a row have not come back.
    pub(super) fn deadline(&self, detection: Duration) -> Option<Instant> {
        let first = self.out.front().filter(|_| self.proven)?;
        Some(first.at + detection)
    }
}
