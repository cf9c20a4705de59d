//! The speakers that we have met, and what we know of each.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ring::Key;
use super::wire::{Life, Who};
use crate::view::Member;

/// More speakers than this are not taken in.
pub(crate) const MAX_PEERS: usize = 5000;
/// One that is gone is forgotten when the API server's list has not named it for so long.
const FORGET: Duration = Duration::from_secs(600);
/// So often it is looked who is to be forgotten.
const SWEEP: Duration = Duration::from_secs(10);

/// What we take a speaker to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Alive,
    Dead(Box<Gone>),
    Left(Box<Gone>),
}

/// Of one that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gone {
    pub(super) since: Instant,
    /// When a dead one is asked next whether it lives.
    pub(super) knock: Instant,
    /// When the API server's list last named it.
    pub(super) named: Instant,
}

impl Gone {
    pub(super) fn new(now: Instant, knock: Instant) -> Box<Self> {
        Box::new(Self { since: now, knock, named: now })
    }
}

/// A speaker that told us who it is.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) who: Arc<Who>,
    pub(super) life: Life,
    pub(super) status: Status,
    /// The last sign of life, its own or one that another speaker vouched for.
    pub(super) heard: Instant,
    /// The last that came from itself: what we vouch for. Were it the one above, two that ask each other would keep a dead
    /// one alive between them. `None`: others told us of it, and it has said nothing itself yet.
    pub(super) direct: Option<Instant>,
    /// The number of the last that it said of itself; 0: nothing yet in this life.
    pub(super) said: u32,
    pub(super) member: Member,
    /// Where it is reached: where it last wrote from when that is one of its addresses.
    pub(super) at: SocketAddr,
}

impl Peer {
    pub(super) fn alive(&self) -> bool {
        self.status == Status::Alive
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Roster {
    pub(super) peers: BTreeMap<Key, Peer>,
    /// The keys of those alive.
    pub(super) alive: BTreeSet<Key>,
    /// The keys of those dead.
    pub(super) dead: BTreeSet<Key>,
    /// Those alive are others than when it was last asked ([`Roster::has_turned`]).
    turned: bool,
    swept: Option<Instant>,
}

/// There are as many as may be, and all of them live.
#[derive(Clone, Copy, Debug)]
pub(super) struct Full;

impl Roster {
    pub(super) fn get(&self, key: Key) -> Option<&Peer> {
        self.peers.get(&key)
    }

    pub(super) fn alive(&self) -> impl Iterator<Item = (&Key, &Peer)> {
        self.alive.iter().filter_map(|key| self.peers.get_key_value(key))
    }

    /// Whether somebody came or went since this was asked last: the ring has changed.
    pub(super) fn has_turned(&mut self) -> bool {
        std::mem::take(&mut self.turned)
    }

    /// It lives.
    pub(super) fn insert(&mut self, key: Key, peer: Peer) {
        self.peers.insert(key, peer);
        self.dead.remove(&key);
        self.turned |= self.alive.insert(key);
    }

    /// It is dead, or has left. Who it was.
    pub(super) fn bury(&mut self, key: Key, status: Status) -> Option<&Peer> {
        if !self.alive.remove(&key) {
            return None;
        }
        self.turned = true;
        if matches!(status, Status::Dead(_)) {
            self.dead.insert(key);
        }
        let peer = self.peers.get_mut(&key)?;
        peer.status = status;
        Some(peer)
    }

    fn remove(&mut self, key: Key) -> Option<Peer> {
        self.dead.remove(&key);
        self.peers.remove(&key)
    }

    /// Room for one more: the oldest that left or died makes it, and is told.
    pub(super) fn room(&mut self) -> Result<Option<Peer>, Full> {
        if self.peers.len() < MAX_PEERS {
            return Ok(None);
        }
        let gone = self.peers.iter().filter(|(_, peer)| !peer.alive()).min_by_key(|(_, peer)| peer.heard);
        let oldest = gone.map(|(key, _)| *key).ok_or(Full)?;
        Ok(self.remove(oldest))
    }

    /// Those that are forgotten now. `named`: whether the list has this address. A node that was taken out of the cluster
    /// is not asked for ever whether it lives, and does not count for a quorum.
    pub(super) fn sweep(&mut self, now: Instant, named: impl Fn(&SocketAddr) -> bool) -> Vec<Peer> {
        if self.swept.is_some_and(|then| now.saturating_duration_since(then) < SWEEP) {
            return Vec::new();
        }
        self.swept = Some(now);
        // An address that another has taken over names that one.
        let taken: BTreeSet<SocketAddr> =
            self.alive().flat_map(|(_, peer)| peer.who.addresses.iter().copied()).collect();
        let named = |at: &SocketAddr| named(at) && !taken.contains(at);
        let mut old = Vec::new();
        for (key, peer) in &mut self.peers {
            let (Status::Dead(gone) | Status::Left(gone)) = &mut peer.status else { continue };
            if peer.who.addresses.iter().any(&named) {
                gone.named = now;
            } else if now.saturating_duration_since(gone.named.max(peer.heard)) >= FORGET {
                old.push(*key);
            }
        }
        old.iter().filter_map(|key| self.remove(*key)).collect()
    }
}
