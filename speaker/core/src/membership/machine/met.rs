//! Who somebody is, and what others take us for.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::super::gossip::Identity;
use super::super::ring::Key;
use super::super::roster::{self, Peer, Status};
use super::super::wire::{Body, Life, Sender, Who, You};
use super::super::{Event, Output};
use super::{MAX_STATIONS, Machine};
use crate::view::Member;

impl Machine {
    /// It told who it is.
    pub(super) fn met(
        &mut self,
        now: Instant,
        from: SocketAddr,
        sender: Sender,
        who: Who,
        (said, member): (u32, Member),
        want: bool,
    ) {
        let key = sender.key;
        let before = self.roster.get(key).cloned();
        if before.is_none() {
            match self.roster.room() {
                Ok(evicted) => evicted.iter().for_each(|peer| self.forgotten(peer)),
                Err(roster::Full) => return,
            }
        }
        if before.as_ref().is_some_and(|peer| peer.who.name != who.name) {
            return; // two names, one place on the ring
        }
        let restarted = before.as_ref().is_none_or(|peer| peer.life.start != sender.life.start);
        let was_alive = before.as_ref().is_some_and(Peer::alive);
        let older = before.as_ref().is_some_and(|peer| !restarted && peer.said > said);
        let node = who.name.clone();
        let at =
            if who.addresses.contains(&from) { from } else { who.addresses.first().copied().unwrap_or(from) };
        let (said_then, member) = match &before {
            Some(peer) if older => (peer.said, peer.member.clone()),
            _ => (said, member),
        };
        let news = before.as_ref().is_none_or(|peer| peer.member != member || restarted);
        let peer = Peer {
            who: Arc::new(who),
            life: sender.life,
            status: Status::Alive,
            heard: now,
            direct: now,
            said: said_then,
            member,
            at,
            asked: None,
            knock: now,
            named: now,
        };
        for interface in peer.member.interfaces.iter().flatten() {
            if self.stations.len() < MAX_STATIONS || self.stations.contains_key(&interface.mac) {
                self.stations.insert(interface.mac, node.as_str().into());
            }
        }
        let identity = Identity::new(Arc::clone(&peer.who), peer.life);
        self.roster.peers.insert(key, peer);
        self.roster.alive.insert(key);
        self.gossip.alive(now, identity);
        self.send_at(from, &Body::IntroAck { said });
        if want {
            self.send_at(from, &self.intro(false));
        }
        if !was_alive || restarted {
            self.fallen.forget(&node);
            self.outputs.push_back(Output::Event(Event::Up { node }));
            self.changed = true;
            if !want {
                self.outbox.intro(now, key);
            }
        } else if news {
            self.outputs.push_back(Output::Event(Event::Said { node }));
            self.changed = true;
        }
    }

    /// What another knows of us.
    pub(super) fn mind(&mut self, now: Instant, you: Option<You>) {
        let Some(you) = you else { return };
        if you.life.start > self.me.life.start {
            // An earlier start of this node is known under a higher number: beyond it we are the later one.
            self.me.life = Life { start: you.life.start.saturating_add(1), renewals: 0 };
            self.renew(now);
        } else if you.life == self.me.life && !you.alive || you.life > self.me.life {
            self.me.life.renewals = you.life.renewals;
            self.renew(now);
        }
    }

    /// We were declared dead, and live: a new life.
    pub(super) fn renew(&mut self, now: Instant) {
        self.me.life.renewals = self.me.life.renewals.saturating_add(1);
        let alive: Vec<Identity> =
            self.roster.alive().map(|(_, peer)| Identity::new(Arc::clone(&peer.who), peer.life)).collect();
        self.gossip.renew(now, Identity::new(Arc::clone(&self.who), self.me.life), alive.into_iter());
        self.tell_all(now);
        // Those who took us for dead may be dead for us.
        let dead: Vec<Key> = self
            .roster
            .peers
            .iter()
            .filter(|(_, peer)| matches!(peer.status, Status::Dead(..)))
            .map(|(key, _)| *key)
            .collect();
        for key in dead {
            self.introduce_to(key);
        }
    }
}
