//! Whom a newcomer finds: one that knows them tells, in a few large messages, instead of each of them.
//!
//! Whoever was told of somebody introduces itself to it, and is as good as met: the other answers with what it says of itself
//! if that is newer, and otherwise just that it has heard. One that never does has died before it could be missed.
//!
//! ```text
//!  newcomer ── Intro(want) ──> some places ──> Intro ── newcomer ── List{0} ──> the first that answered
//!           <── Listed{0..a} Listed{a+1..b} ... ── a burst ── List{where the first gap is} ── ... until all keys are covered
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::gossip::Identity;
use super::super::ring::{self, Key};
use super::super::roster::{self, Peer, Status};
use super::super::wire::{self, Body, Known, MAX_MESSAGE};
use super::super::{Down, Event, Output};
use super::Machine;

/// Messages that one question is answered by.
const BURST: usize = 24;
/// Asked again, and another one, when nothing came for so long.
const PATIENCE: Duration = Duration::from_millis(120);
/// The smallest entry is about so large: nobody is encoded who will not fit anyway.
const ROOM: usize = 24;
/// So many introductions at a time: to those whom we have never spoken to each costs a greeting as well.
const AT_A_TIME: u32 = 64;
const BETWEEN: Duration = Duration::from_millis(10);

/// The list that we are being told.
#[derive(Debug)]
pub(super) struct Listing {
    /// By whom.
    by: Key,
    /// All keys before it we have been told of.
    next: Key,
    /// Behind it: first and last of each stretch that came early.
    early: BTreeMap<Key, Key>,
    /// When something came, or was asked, last.
    since: Instant,
    /// Messages since we asked last.
    pages: usize,
    /// Nothing came, so often.
    tries: u8,
    /// Introductions to those whom we were told of.
    told: u32,
}

/// Whether we have the list.
#[derive(Debug, Default)]
pub(super) enum List {
    /// Nobody has been asked.
    #[default]
    Wanted,
    Coming(Listing),
    /// We have it, or nobody tells.
    Done,
}

impl Listing {
    /// From the one key to the other. True: now we were told of all.
    fn cover(&mut self, from: Key, to: Key) -> bool {
        let last = self.early.entry(from).or_insert(to);
        *last = (*last).max(to);
        while let Some(stretch) = self.early.first_entry().filter(|stretch| *stretch.key() <= self.next) {
            match stretch.remove().checked_add(1) {
                Some(next) => self.next = self.next.max(next),
                None => return true,
            }
        }
        false
    }
}

impl Machine {
    /// Somebody answered: whom does it know?
    pub(super) fn want_list(&mut self, now: Instant, by: Key) {
        let unknown = self.places.as_ref().is_some_and(|places| places.waiting() > 0);
        if matches!(self.list, List::Wanted) && unknown {
            self.list = List::Coming(Listing {
                by,
                next: 0,
                early: BTreeMap::new(),
                since: now,
                pages: 0,
                tries: 0,
                told: 0,
            });
            self.send(by, &Body::List { from: 0 });
        }
    }

    /// It is being told.
    pub(super) fn listing(&self) -> bool {
        matches!(self.list, List::Coming(_))
    }

    /// Whether something is missing for too long.
    pub(super) fn mind_list(&mut self, now: Instant) {
        let List::Coming(listing) = &mut self.list else { return };
        if now.saturating_duration_since(listing.since) < PATIENCE {
            return;
        }
        let from = listing.next;
        listing.tries += 1;
        listing.since = now;
        listing.pages = 0;
        // One that is silent may be dead: every second time somebody else.
        if listing.tries.is_multiple_of(2) {
            listing.by = ring::after(&self.roster.alive, listing.by, 1).next().unwrap_or(listing.by);
        }
        if listing.tries > 8 {
            self.list = List::Done;
            return;
        }
        let by = listing.by;
        self.send(by, &Body::List { from });
    }

    /// Somebody asks: a burst of those we know from there on.
    pub(super) fn tell_list(&mut self, from: Key, to: Key) {
        let mut first = from;
        for _ in 0..BURST {
            let (last, known) = self.page(first, to);
            self.send(to, &Body::Listed { from: first, to: last, known });
            let Some(next) = last.checked_add(1) else { return };
            first = next;
        }
    }

    /// As many as fit into a message, and the key up to which those are all.
    fn page(&self, from: Key, to: Key) -> (Key, Vec<Known>) {
        let size = |known: &[Known]| {
            let body = Body::Listed { from, to: Key::MAX, known: known.to_vec() };
            wire::encode(self.me, &body, &[]).len()
        };
        let (mut room, mut known) = (MAX_MESSAGE.saturating_sub(size(&[])), Vec::new());
        let mut last = None;
        for key in self.roster.alive.range(from..) {
            let Some(peer) = self.roster.get(*key).filter(|_| *key != to) else { continue };
            let mut entry = Known {
                who: (*peer.who).clone(),
                life: peer.life,
                said: peer.said,
                member: peer.member.clone(),
            };
            // The count of the entries may need another byte.
            let mut needs = if room < ROOM { MAX_MESSAGE } else { wire::length(&entry) + 1 };
            if needs > room && known.is_empty() {
                // It says so much of itself that nobody else can tell it: it will, when it is asked.
                (entry.said, entry.member.interfaces) = (0, None);
                needs = wire::length(&entry) + 1;
            }
            if needs > room {
                return (last.unwrap_or(from), known);
            }
            room -= needs;
            known.push(entry);
            last = Some(*key);
        }
        (Key::MAX, known)
    }

    /// A part of the list.
    pub(super) fn listed(&mut self, now: Instant, by: Key, (from, to): (Key, Key), known: Vec<Known>) {
        let List::Coming(listing) = &mut self.list else { return };
        if from > to {
            return;
        }
        let all = listing.cover(from, to);
        listing.since = now;
        listing.tries = 0;
        listing.pages += 1;
        // A burst without a gap. What was lost of one is asked for when nothing comes any more.
        let more = !all && listing.by == by && listing.pages >= BURST && listing.early.is_empty();
        if more {
            listing.pages = 0;
        }
        let (next, mut told) = (listing.next, listing.told);
        for known in known {
            self.told_of(now, known, &mut told);
        }
        if let List::Coming(listing) = &mut self.list {
            listing.told = told;
        }
        if all {
            self.list = List::Done;
        } else if more {
            self.send(by, &Body::List { from: next });
        }
    }

    /// Another one knows it.
    fn told_of(&mut self, now: Instant, known: Known, told: &mut u32) {
        let key = ring::key(&known.who.name);
        if key == self.me.key {
            return;
        }
        if let Some(peer) = self.roster.get(key) {
            // We know something older, or it was dead: it shall say it itself.
            if !peer.alive() || peer.life < known.life || peer.life == known.life && peer.said < known.said {
                self.introduce_to(key);
            }
            return;
        }
        match self.roster.room() {
            Ok(evicted) => evicted.iter().for_each(|peer| self.forgotten(now, peer)),
            Err(roster::Full) => return,
        }
        let Some(at) = known.who.addresses.first().copied() else { return };
        let who = Arc::new(known.who);
        let identity = Identity::new(Arc::clone(&who), known.life);
        let node = who.name.clone();
        let peer = Peer {
            who,
            life: known.life,
            status: Status::Alive,
            heard: now,
            direct: None,
            said: known.said,
            member: known.member,
            at,
        };
        self.note(&peer);
        self.roster.insert(key, peer);
        // Whoever told us knows it from itself: there is nothing to spread.
        self.gossip.alive(now, identity, false);
        self.outbox.intro(now + BETWEEN * (*told / AT_A_TIME), key);
        *told += 1;
        self.fallen.forget(&node);
        self.outputs.push_back(Output::Event(Event::Up { node }));
        self.members.take();
    }

    /// We told it of ourselves until we gave up. One that we know from another's list only has never been there for us.
    pub(super) fn unheard(&mut self, now: Instant, key: Key) {
        let silent = |peer: &Peer| peer.alive() && peer.direct.is_none();
        if let Some(since) = self.roster.get(key).filter(|peer| silent(peer)).map(|peer| peer.heard) {
            let silence = now.saturating_duration_since(since);
            self.bury(now, key, Down::Silent(silence));
        }
    }
}
