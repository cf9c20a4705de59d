//! The speakers that we have met, and what we know of each.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Down;
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
    /// Since when, and why.
    Dead(Instant, Down),
    Left,
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
    /// one alive between them.
    pub(super) direct: Instant,
    /// The number of the last that it said of itself; 0: nothing yet in this life.
    pub(super) said: u32,
    pub(super) member: Member,
    /// Where it is reached: where it last wrote from when that is one of its addresses.
    pub(super) at: SocketAddr,
    /// Of one that we watch and that is silent: since when others are asked.
    pub(super) asked: Option<Instant>,
    /// Of a dead one: when it is asked next whether it lives.
    pub(super) knock: Instant,
    /// Of one that is gone: when the API server's list last named it.
    pub(super) named: Instant,
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

    /// Room for one more: the oldest that left or died makes it, and is told.
    pub(super) fn room(&mut self) -> Result<Option<Peer>, Full> {
        if self.peers.len() < MAX_PEERS {
            return Ok(None);
        }
        let gone = self.peers.iter().filter(|(_, peer)| !peer.alive()).min_by_key(|(_, peer)| peer.heard);
        let oldest = gone.map(|(key, _)| *key).ok_or(Full)?;
        Ok(self.peers.remove(&oldest))
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
        for (key, peer) in self.peers.iter_mut().filter(|(_, peer)| !peer.alive()) {
            if peer.who.addresses.iter().any(&named) {
                peer.named = now;
            } else if now.saturating_duration_since(peer.named.max(peer.heard)) >= FORGET {
                old.push(*key);
            }
        }
        old.iter().filter_map(|key| self.peers.remove(key)).collect()
    }
}
