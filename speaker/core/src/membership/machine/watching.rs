//! Whom we watch, and when one of them is dead.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::gossip::Identity;
use super::super::ring::{self, Key};
use super::super::roster::{Gone, Status};
use super::super::wire::{Body, Dead};
use super::super::{Down, Event, Output};
use super::{AGAIN, Asked, HELPERS, KNOCK, MAX_PINGS, Machine, Watched};

impl Machine {
    /// Silence from which on we ask.
    pub(super) fn doubt(&self) -> Duration {
        self.settings.detect.mul_f32(0.55)
    }

    /// Those whom we watch.
    pub(super) fn watched(&self) -> impl Iterator<Item = Key> + '_ {
        ring::before(&self.roster.alive, self.me.key, self.settings.watchers)
    }

    /// The ring may have changed.
    pub(super) fn watch(&mut self, now: Instant) {
        let watched: BTreeSet<Key> = self.watched().collect();
        self.watching.retain(|key, _| watched.contains(key));
        for key in watched {
            self.watching.entry(key).or_insert(Watched { since: now, asked: None });
        }
    }

    /// A deadline of ours that was missed by more than the detection time: the others may have replaced us.
    pub(super) fn mind_a_stall(&mut self, now: Instant) {
        let gap = now.saturating_duration_since(self.ticked);
        if gap > self.settings.detect {
            // What we know of the others is as old.
            for peer in self.roster.peers.values_mut().filter(|peer| peer.alive()) {
                peer.heard = now;
            }
            for watched in self.watching.values_mut() {
                watched.asked = None;
            }
            if !self.roster.alive.is_empty() {
                self.stalled = Some(now);
                self.pings.clear();
            }
            self.ticked = now.checked_sub(self.settings.heartbeat).unwrap_or(now);
        } else if gap > self.settings.heartbeat * 2 {
            // Lifeguard: whoever was late distrusts its own verdicts first. What waits in the socket comes before them.
            self.judge = self.judge.max(now + self.settings.heartbeat);
        }
    }

    /// Whoever we watch is asked when it is silent, and is dead when it stays so.
    pub(super) fn judge(&mut self, now: Instant) {
        if now < self.judge {
            return;
        }
        let doubt = self.doubt();
        for (key, Watched { since, asked }) in self.watching.clone() {
            let Some(heard) = self.roster.get(key).map(|peer| peer.heard) else { continue };
            let silent = now.saturating_duration_since(heard.max(since));
            if silent >= self.settings.detect && asked.is_some() {
                self.verdict(now, key, silent);
            } else if silent >= doubt
                && asked.is_none_or(|asked| now.saturating_duration_since(asked) >= AGAIN)
            {
                if let Some(watched) = self.watching.get_mut(&key) {
                    watched.asked = Some(now);
                }
                self.ping(now, key, None);
                let helpers: Vec<Key> = ring::after(&self.roster.alive, key, HELPERS + 1)
                    .filter(|helper| *helper != key)
                    .take(HELPERS)
                    .collect();
                let nonce = self.next_nonce();
                if self.pings.len() < MAX_PINGS {
                    self.pings.insert(nonce, Asked { target: key, at: now, on_behalf: None });
                }
                for helper in helpers {
                    self.send(helper, &Body::AskAbout { nonce, target: key });
                }
            }
        }
    }

    pub(super) fn verdict(&mut self, now: Instant, key: Key, silent: Duration) {
        let Some(peer) = self.roster.get(key) else { return };
        let dead = Dead { key, life: peer.life };
        self.bury(now, key, Down::Silent(silent));
        let all: Vec<Key> = self.roster.alive.iter().copied().collect();
        for other in all {
            self.outbox.verdict(now, other, dead);
        }
        // If it lives, it shall know.
        self.send(key, &Body::Verdict { seq: 0, dead: vec![dead] });
    }

    /// It is dead, or has left.
    pub(super) fn bury(&mut self, now: Instant, key: Key, cause: Down) {
        let gone = Gone::new(now, now + KNOCK.0);
        let status = if cause == Down::Left { Status::Left(gone) } else { Status::Dead(gone) };
        let Some(peer) = self.roster.bury(key, status) else { return };
        let (identity, node) = (Identity::new(Arc::clone(&peer.who), peer.life), peer.who.name.clone());
        self.outbox.forget(key);
        self.gossip.down(now, identity);
        self.fallen.fell(&node, cause.clone());
        self.members.take();
        self.outputs.push_back(Output::Event(Event::Down { node, cause }));
    }
}
