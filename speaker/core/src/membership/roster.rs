//! The speakers that we have met, and what we know of each.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::Down;
use super::ring::Key;
use super::wire::{Life, Who};
use crate::view::Member;

/// More speakers than this are not taken in.
pub(crate) const MAX_PEERS: usize = 5000;

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
}

impl Roster {
    pub(super) fn get(&self, key: Key) -> Option<&Peer> {
        self.peers.get(&key)
    }

    pub(super) fn alive(&self) -> impl Iterator<Item = (&Key, &Peer)> {
        self.alive.iter().filter_map(|key| self.peers.get_key_value(key))
    }

    /// Room for one more: the oldest that left or died makes it.
    pub(super) fn room(&mut self) -> bool {
        if self.peers.len() < MAX_PEERS {
            return true;
        }
        let gone = self.peers.iter().filter(|(_, peer)| !peer.alive()).min_by_key(|(_, peer)| peer.heard);
        let Some(key) = gone.map(|(key, _)| *key) else { return false };
        self.peers.remove(&key);
        true
    }
}
