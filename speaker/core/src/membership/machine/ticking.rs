//! What is done twenty times a second: heartbeats, questions to the dead, knocks where speakers are said to be.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::super::ring::{self, Key};
use super::super::roster::{self, Peer, Status};
use super::super::wire::Body;
use super::super::{Event, Output};
use super::{FIRST_ROUND, JOIN, KNOCK, KNOCK_FAST_FOR, MEASURE, Machine, PATIENCE, Place, WITNESSES};

impl Machine {
    pub(super) fn tick(&mut self, now: Instant) {
        self.ticked = now;
        let watchers: Vec<Key> =
            ring::after(&self.roster.alive, self.me.key, self.settings.watchers).collect();
        for key in watchers {
            self.send(key, &Body::Heartbeat { said: self.said });
        }
        self.ticks = self.ticks.wrapping_add(1);
        if self.ticks.is_multiple_of(MEASURE) {
            // One after the other, so that the round trip is known while all is well.
            let watched: Vec<Key> = self.watched().collect();
            let turn = usize::try_from(self.ticks / MEASURE).unwrap_or(0).checked_rem(watched.len());
            if let Some(key) = turn.and_then(|turn| watched.get(turn)) {
                self.ping(now, *key, None);
            }
        }
        self.pings.retain(|_, asked| now.saturating_duration_since(asked.at) < PATIENCE);
        // Nobody has answered for a detection time: we are alone, and better one that answers than none. A minority under
        // `quorum` stays closed, for as long as the silent ones are not known to be dead.
        if !self.settings.quorum
            && self.stalled.is_some_and(|since| now.saturating_duration_since(since) >= self.settings.detect)
        {
            self.stalled = None;
            self.changed = true;
        }
        if self.stalled.is_some() {
            let witnesses: Vec<Key> = self.roster.alive.iter().copied().collect();
            let start = usize::try_from(self.next_nonce() % 1024).unwrap_or(0);
            let count = witnesses.len().max(1);
            for key in witnesses.iter().cycle().skip(start % count).take(WITNESSES.min(witnesses.len())) {
                self.ping(now, *key, None);
            }
        }
        self.knock(now);
        self.join(now);
        self.ask_on_segments(now);
        self.forget_the_old(now);
    }

    /// Those that died long ago, and that nobody expects back. Without a list nobody is forgotten.
    pub(super) fn forget_the_old(&mut self, now: Instant) {
        let Some(places) = &self.places else { return };
        for peer in self.roster.sweep(now, |at| places.contains_key(at)) {
            self.forgotten(&peer);
        }
    }

    pub(super) fn forgotten(&mut self, peer: &Peer) {
        self.fallen.forget(&peer.who.name);
        self.stations.retain(|_, node| **node != *peer.who.name);
        self.changed = true;
    }

    /// Asks the dead.
    pub(super) fn knock(&mut self, now: Instant) {
        let due: Vec<Key> = self
            .roster
            .peers
            .iter()
            .filter(|(_, peer)| matches!(peer.status, Status::Dead(..)) && peer.knock <= now)
            .map(|(key, _)| *key)
            .collect();
        for key in due {
            // Its former watchers often, all others seldom.
            let mut ring = self.roster.alive.clone();
            ring.insert(self.me.key);
            let watched =
                ring::after(&ring, key, self.settings.watchers).any(|watcher| watcher == self.me.key);
            let jitter = Duration::from_millis(self.next_nonce() % 50);
            let Some(peer) = self.roster.peers.get_mut(&key) else { continue };
            let Status::Dead(since, _) = peer.status else { continue };
            let fresh = now.saturating_duration_since(since) < KNOCK_FAST_FOR;
            let pause = if fresh && watched { KNOCK.0 } else { KNOCK.1 * if watched { 1 } else { 5 } };
            peer.knock = now + pause + jitter;
            self.ping(now, key, None);
        }
    }

    /// Knocks where speakers are said to be and nobody has answered.
    pub(super) fn join(&mut self, now: Instant) {
        // Twenty times a second, and of thousands: not when there is nothing to do.
        let is_due = self.places.iter().flatten().any(|(_, place)| place.due <= now);
        if self.state.joined && !is_due {
            return;
        }
        let known: BTreeSet<SocketAddr> =
            self.roster.peers.values().flat_map(|peer| peer.who.addresses.iter().copied()).collect();
        let mut due = Vec::new();
        for (at, place) in self.places.iter_mut().flatten() {
            if place.due > now {
                continue;
            }
            if known.contains(at) || self.who.addresses.contains(at) {
                *place = Place { due: now + JOIN.1, pause: JOIN.0 };
            } else {
                due.push(*at);
                place.due = now + place.pause;
                place.pause = (place.pause * 2).min(JOIN.1);
            }
        }
        for at in due {
            self.send_at(at, &self.intro(true));
        }
        let unanswered = |places: &BTreeMap<SocketAddr, Place>| {
            places.keys().filter(|at| !known.contains(at) && !self.who.addresses.contains(at)).count()
        };
        let through = match &self.places {
            // Nobody says where speakers are: then none is awaited for ever.
            None => now >= self.began + FIRST_ROUND * 5,
            Some(places) => unanswered(places) == 0 || now >= self.began + FIRST_ROUND,
        };
        if through && !self.state.joined {
            self.state.joined = true;
            self.changed = true;
            self.outputs.push_back(Output::Event(Event::Joined));
        }
    }

    pub(super) fn places(&mut self, now: Instant, wanted: &BTreeSet<SocketAddr>) {
        if self.places.is_none() {
            self.began = now;
        }
        let mut old = self.places.take().unwrap_or_default();
        let place = |at: &SocketAddr| {
            let fresh = Place { due: now, pause: JOIN.0 };
            (*at, old.remove(at).unwrap_or(fresh))
        };
        self.places = Some(wanted.iter().take(roster::MAX_PEERS).map(place).collect());
        self.join(now);
    }
}
