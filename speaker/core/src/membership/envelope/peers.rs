//! The epochs of other speakers that have written to this start of ours.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::super::segments;
use super::super::wire::MAX_ADDRESSES;
use super::Epoch;
use super::keys::KeyId;
use super::window::Window;
use super::wire::Header;

/// Epochs that are remembered: several starts of each speaker of a large cluster.
pub(super) const MOST: usize = 16_384;
/// Places that one epoch may write from: as many as a speaker tells that it receives at, for the membership and on further
/// segments. Only who has the key, and has answered us, has one; the oldest makes room.
const PLACES: usize = MAX_ADDRESSES + segments::MOST;
/// Of our last datagrams it is remembered where they went.
const SENT: u64 = 1024;
/// Who was silent for longer is gone, as far as keys are concerned.
const GONE: Duration = Duration::from_secs(600);
/// When the table is full, those are kept that wrote within this time.
const LATELY: Duration = Duration::from_secs(60);

/// One start of one speaker.
#[derive(Clone)]
pub(super) struct Peer {
    /// The newest key that it has.
    pub(super) newest: KeyId,
    /// The key under which it last wrote to us.
    pub(super) under: KeyId,
    /// Derived keys.
    keys: Vec<(KeyId, [u8; 32])>,
    window: Window,
    heard: Instant,
    places: Vec<SocketAddr>,
}

#[derive(Default)]
pub(super) struct Peers {
    epochs: BTreeMap<Epoch, Peer>,
    places: BTreeMap<SocketAddr, Epoch>,
    /// At its remainder: the counter, and where it went.
    sent: BTreeMap<u64, (u64, SocketAddr)>,
}

impl Peers {
    /// Who writes from there.
    pub(super) fn at(&self, place: SocketAddr) -> Option<(Epoch, &Peer)> {
        let epoch = self.places.get(&place)?;
        Some((*epoch, self.epochs.get(epoch)?))
    }

    pub(super) fn has_seen(&self, epoch: &Epoch, counter: u64) -> bool {
        self.epochs.get(epoch).is_some_and(|peer| peer.window.has_seen(counter))
    }

    pub(super) fn key(&self, epoch: &Epoch, id: KeyId) -> Option<[u8; 32]> {
        let keys = &self.epochs.get(epoch)?.keys;
        keys.iter().find(|(of, _)| *of == id).map(|(_, key)| *key)
    }

    /// A datagram opened, was for us, and is new. True when there are too many epochs now.
    pub(super) fn note(&mut self, now: Instant, header: &Header, newest: KeyId, key: &[u8; 32]) -> bool {
        let mut latest = true;
        let peer = match self.epochs.get_mut(&header.epoch) {
            Some(peer) => {
                latest = peer.window.mark(header.counter);
                peer
            }
            None => self.epochs.entry(header.epoch).or_insert_with(|| Peer {
                newest,
                under: header.key,
                keys: Vec::new(),
                window: Window::new(header.counter),
                heard: now,
                places: Vec::new(),
            }),
        };
        peer.heard = now;
        if latest {
            peer.newest = newest;
            peer.under = header.key;
        }
        if peer.keys.iter().all(|(id, _)| *id != header.key) {
            // The one before may still be on its way; no more are needed.
            if peer.keys.len() > 1 {
                peer.keys.remove(0);
            }
            peer.keys.push((header.key, *key));
        }
        self.epochs.len() > MOST
    }

    /// The speaker with this epoch is at this place from now on. A datagram that somebody held back may say otherwise for a
    /// moment, until the next one.
    pub(super) fn learn(&mut self, place: SocketAddr, epoch: Epoch) {
        let Some(peer) = self.epochs.get_mut(&epoch) else { return };
        if !peer.places.contains(&place) {
            peer.places.push(place);
            if peer.places.len() > PLACES {
                let oldest = peer.places.remove(0);
                if self.places.get(&oldest) == Some(&epoch) {
                    self.places.remove(&oldest);
                }
            }
        }
        self.places.insert(place, epoch);
    }

    /// Our datagram with this counter went there.
    pub(super) fn sent(&mut self, counter: u64, to: SocketAddr) {
        self.sent.insert(counter % SENT, (counter, to));
    }

    /// Where our datagram with this counter went.
    pub(super) fn sent_to(&self, counter: u64) -> Option<SocketAddr> {
        self.sent.get(&(counter % SENT)).filter(|(sent, _)| *sent == counter).map(|(_, to)| *to)
    }

    /// There is somebody, and all who are not gone last wrote to us under such a key.
    pub(super) fn all_write_under(&self, now: Instant, is_current: &dyn Fn(KeyId) -> bool) -> bool {
        let mut there =
            self.epochs.values().filter(|peer| now.saturating_duration_since(peer.heard) < GONE).peekable();
        there.peek().is_some() && there.all(|peer| is_current(peer.under))
    }

    /// Forgets who did not write lately; everybody, if there are too many all the same.
    pub(super) fn shrink(&mut self, now: Instant) {
        self.epochs.retain(|_, peer| now.saturating_duration_since(peer.heard) < LATELY);
        if self.epochs.len() > MOST / 2 {
            self.epochs.clear();
        }
        let Self { epochs, places, .. } = self;
        places.retain(|_, epoch| epochs.contains_key(epoch));
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.epochs.len()
    }
}
