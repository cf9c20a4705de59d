//! What is done twenty times a second: heartbeats, questions to the dead, knocks where speakers are said to be.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::places::Places;
use super::super::ring::{self, Key};
use super::super::roster::{Peer, Status};
use super::super::wire::Body;
use super::super::{Event, Output};
use super::{FIRST_ROUND, KNOCK, KNOCK_FAST_FOR, LISTING, MEASURE, Machine, PATIENCE, TRIED, WITNESSES};

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
        self.mind_list(now);
        self.join(now);
        self.ask_on_segments(now);
        self.forget_the_old(now);
    }

    /// Those that died long ago, and that nobody expects back. Without a list nobody is forgotten.
    pub(super) fn forget_the_old(&mut self, now: Instant) {
        let Some(places) = &self.places else { return };
        for peer in self.roster.sweep(now, |at| places.contains(at)) {
            self.forgotten(now, &peer);
        }
    }

    pub(super) fn forgotten(&mut self, now: Instant, peer: &Peer) {
        self.fallen.forget(&peer.who.name);
        if peer.member.interfaces.is_some() {
            Arc::make_mut(&mut self.stations).retain(|_, node| **node != *peer.who.name);
        }
        for at in &peer.who.addresses {
            self.places.iter_mut().for_each(|places| places.forgotten(now, *at));
        }
    }

    /// Asks the dead.
    pub(super) fn knock(&mut self, now: Instant) {
        let is_due = |key: &&Key| match self.roster.get(**key).map(|peer| &peer.status) {
            Some(Status::Dead(gone)) => gone.knock <= now,
            _ => false,
        };
        let due: Vec<Key> = self.roster.dead.iter().filter(is_due).copied().collect();
        for key in due {
            // Its former watchers often, all others seldom.
            let watched = ring::is_after(&self.roster.alive, key, self.me.key, self.settings.watchers);
            let jitter = Duration::from_millis(self.next_nonce() % 50);
            let Some(peer) = self.roster.peers.get_mut(&key) else { continue };
            let Status::Dead(gone) = &mut peer.status else { continue };
            let fresh = now.saturating_duration_since(gone.since) < KNOCK_FAST_FOR;
            let pause = if fresh && watched { KNOCK.0 } else { KNOCK.1 * if watched { 1 } else { 5 } };
            gone.knock = now + pause + jitter;
            self.ping(now, key, None);
        }
    }

    /// Knocks where speakers are said to be and nobody has answered.
    pub(super) fn join(&mut self, now: Instant) {
        let round = now.saturating_duration_since(self.began);
        let listing = self.listing() && round < LISTING;
        if let Some(places) = &mut self.places {
            // One that tells us of the others has answered already.
            let most = match (self.joined, listing) {
                (true, _) => TRIED.1,
                (false, true) => 0,
                (false, false) => TRIED.0 << self.tried.min(8),
            };
            let due = places.due(now, most);
            self.tried = self.tried.saturating_add(1);
            for at in due {
                self.send_at(at, &self.intro(true, None));
            }
        }
        let through = match &self.places {
            // Nobody says where speakers are: then none is awaited for ever.
            None => round >= FIRST_ROUND * 5,
            Some(places) => places.waiting() == 0 || round >= FIRST_ROUND && !listing,
        };
        if through && !self.joined {
            self.joined = true;
            self.outputs.push_back(Output::Event(Event::Joined));
        }
    }

    pub(super) fn places(&mut self, now: Instant, wanted: &BTreeSet<SocketAddr>) {
        let nonce = self.next_nonce();
        let own = self.who.addresses.iter();
        let others = self.roster.peers.values().flat_map(|peer| &peer.who.addresses);
        let met: BTreeSet<&SocketAddr> = own.chain(others).collect();
        let old = self.places.take();
        if old.is_none() {
            self.began = now;
        }
        self.places = Some(Places::new(now, wanted, |at| met.contains(at), old, nonce));
        self.join(now);
    }
}
