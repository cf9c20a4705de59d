//! Who somebody is, and what others take us for.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::super::gossip::Identity;
use super::super::ring;
use super::super::roster::{self, Peer, Status};
use super::super::wire::{Body, Life, Sender, Who, You};
use super::super::{Event, Output};
use super::Machine;
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
        (want, knows): (bool, Option<(Life, u32)>),
    ) {
        let key = sender.key;
        let before = self.roster.get(key).cloned();
        if before.is_none() {
            match self.roster.room() {
                Ok(evicted) => evicted.iter().for_each(|peer| self.forgotten(now, peer)),
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
            direct: Some(now),
            said: said_then,
            member,
            at,
        };
        self.note(&peer);
        for at in peer.who.addresses.iter() {
            self.places.iter_mut().for_each(|places| places.met(at));
        }
        let identity = Identity::new(Arc::clone(&peer.who), peer.life);
        self.roster.insert(key, peer);
        if let Some(watched) = self.watching.get_mut(&key) {
            watched.asked = None;
        }
        // It tells everybody itself. If somebody is not told, its watchers see to it, and whoever hears it from them.
        if !was_alive || before.as_ref().is_none_or(|peer| peer.life != sender.life) {
            let spread = ring::is_after(&self.roster.alive, key, self.me.key, self.settings.watchers);
            self.gossip.alive(now, identity, spread);
        }
        self.send_at(from, &Body::IntroAck { said });
        if want {
            self.send_at(from, &self.intro(false, Some((sender.life, said_then))));
        }
        if !was_alive || restarted {
            self.fallen.forget(&node);
            self.outputs.push_back(Output::Event(Event::Up { node }));
            self.members.take();
            if !want && knows != Some((self.me.life, self.said)) {
                self.outbox.intro(now, key);
            }
        } else if news {
            self.outputs.push_back(Output::Event(Event::Said { node }));
            self.members.take();
        }
        self.want_list(now, key);
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
        for key in self.roster.dead.clone() {
            self.introduce_to(key);
        }
    }
}
