//! What we say of ourselves, and what the segments add to it.

use std::net::SocketAddr;
use std::time::Instant;

use super::super::segments::{self, Other};
use super::super::wire::{self, Body, Sender};
use super::Machine;

impl Machine {
    /// What we say of ourselves from now on.
    pub(super) fn say(&mut self, now: Instant) {
        let mut member = self.wished.clone();
        self.segments.mark(&self.settings.addresses, &mut member);
        self.say = wire::fitting(self.me, &self.who, member);
        self.said = self.said.saturating_add(1);
        self.members.take();
        self.tell_all(now);
    }

    /// Asks others on the segments that they and we are on.
    pub(super) fn ask_on_segments(&mut self, now: Instant) {
        if !self.segments.is_due(now) {
            return;
        }
        let nonce = self.next_nonce();
        let roster = &self.roster;
        let (questions, changed) = self.segments.round(
            now,
            self.settings.detect,
            &self.say,
            &self.settings.addresses,
            || roster.alive().map(|(key, peer)| Other::new(*key, peer)).collect(),
            nonce,
        );
        for question in questions {
            self.send_at(question.to, &Body::SegmentPing { nonce: question.nonce, subnet: question.subnet });
            if question.lives {
                self.ping(now, question.key, None);
            }
        }
        if changed {
            self.say(now);
        }
    }

    /// A question on a segment, or an answer. That somebody is heard there says nothing about the network of the membership,
    /// so it is no sign of life: whoever is silent there is dead, although it may be reached on another way.
    pub(super) fn heard_on_segment(&mut self, now: Instant, from: SocketAddr, sender: Sender, body: &Body) {
        let known = self.roster.get(sender.key).is_some_and(|peer| peer.alive() && peer.life == sender.life);
        match *body {
            Body::SegmentPing { nonce, subnet } if known && segments::contains(subnet, from.ip()) => {
                self.send_at(from, &Body::SegmentPong { nonce, subnet });
            }
            Body::SegmentPong { nonce, subnet }
                if known && self.segments.answered(now, sender.key, from.ip(), subnet, nonce) =>
            {
                self.say(now);
            }
            _ => {}
        }
    }
}
