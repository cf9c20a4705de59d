//! What a message means.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::super::roster::Status;
use super::super::wire::{self, Body, Sender, You};
use super::super::{Down, Event, Output};
use super::Machine;

impl Machine {
    pub(super) fn received(&mut self, now: Instant, from: SocketAddr, message: &[u8]) {
        let Ok((sender, body, rest)) = wire::decode(message) else { return };
        if sender.key == self.me.key {
            return;
        }
        if matches!(body, Body::SegmentPing { .. } | Body::SegmentPong { .. }) {
            return self.heard_on_segment(now, from, sender, &body);
        }
        let introduces = matches!(body, Body::Intro { .. });
        let about_us = if let Body::Ping { you, .. } | Body::Pong { you, .. } = body { you } else { None };
        match self.roster.peers.get_mut(&sender.key) {
            None if introduces => {}
            // If it takes us to be dead, it is a new life of ours that we introduce: the one that it knows would be answered
            // just so again, for ever.
            None => {
                self.mind(now, about_us);
                return self.send_at(from, &self.intro(true, None));
            }
            // From a life that is over; or from a later start whose random number is lower. It alone can tell, and goes
            // beyond what we know.
            Some(peer) if sender.life < peer.life => {
                if matches!(body, Body::Pong { .. }) {
                    return;
                }
                let you = Some(You { life: peer.life, alive: peer.alive(), said: peer.said });
                let alive = self.count();
                return self.send_at(from, &Body::Pong { nonce: 0, alive, said: self.said, you });
            }
            Some(peer) if sender.life == peer.life => match &peer.status {
                Status::Alive => {
                    peer.heard = now;
                    peer.direct = Some(now);
                    if let Some(watched) = self.watching.get_mut(&sender.key) {
                        watched.asked = None;
                    }
                    if peer.at != from && peer.who.addresses.contains(&from) {
                        peer.at = from;
                    }
                }
                // It lives, and was declared dead: it shall know. It may say the same of us. An answer is not answered, or
                // two who take each other for dead would never stop.
                Status::Dead(..) => {
                    let you = Some(You { life: peer.life, alive: false, said: peer.said });
                    let alive = self.count();
                    if !matches!(body, Body::Pong { .. }) {
                        self.send_at(from, &Body::Pong { nonce: 0, alive, said: self.said, you });
                    }
                    return self.mind(now, about_us);
                }
                Status::Left(_) => return,
            },
            // Another life: who is it now?
            Some(_) if introduces => {}
            Some(_) => {
                self.mind(now, about_us);
                return self.send_at(from, &self.intro(true, None));
            }
        }
        self.body(now, from, sender, body, rest);
    }

    pub(super) fn body(&mut self, now: Instant, from: SocketAddr, sender: Sender, body: Body, rest: &[u8]) {
        let key = sender.key;
        match body {
            Body::Heartbeat { said } => self.ask_what_it_says(key, said),
            Body::Ping { nonce, said, you, .. } => {
                let known = self.roster.get(key).map(|peer| You {
                    life: peer.life,
                    alive: peer.alive(),
                    said: peer.said,
                });
                let alive = self.count();
                self.send_at(from, &Body::Pong { nonce, alive, said: self.said, you: known });
                self.ask_what_it_says(key, said);
                self.mind(now, you);
            }
            Body::Pong { nonce, said, you, .. } => {
                self.ask_what_it_says(key, said);
                let asked = self.pings.get(&nonce).copied().filter(|asked| asked.target == key);
                self.mind(now, you);
                let Some(asked) = asked else { return };
                self.pings.remove(&nonce);
                let after = now.saturating_duration_since(asked.at);
                self.outputs.push_back(Output::Event(Event::Answered { after }));
                if let Some((asker, number)) = asked.on_behalf {
                    self.send(asker, &Body::Vouch { nonce: number, target: key, age: Some(0) });
                }
                if self.stalled.is_some_and(|since| asked.at >= since) {
                    self.stalled = None;
                }
            }
            Body::AskAbout { nonce, target } => {
                let Some(peer) = self.roster.get(target).filter(|peer| peer.alive()) else { return };
                let age = peer.direct.map_or(Duration::MAX, |direct| now.saturating_duration_since(direct));
                // What was heard here is told at once; what is older than two heartbeats is looked into as well.
                if age < self.doubt() {
                    let age = u16::try_from(age.as_millis()).ok();
                    self.send(key, &Body::Vouch { nonce, target, age });
                }
                if age >= self.settings.heartbeat * 2 {
                    self.ping(now, target, Some((key, nonce)));
                }
            }
            Body::Vouch { nonce, target, age } => {
                let Some(age) = age else { return };
                let Some(asked) = self.pings.get(&nonce).filter(|asked| asked.target == target) else {
                    return;
                };
                // The age was true after we had asked: it is so old at least.
                let Some(heard) = asked.at.checked_sub(Duration::from_millis(age.into())) else { return };
                if let Some(peer) = self.roster.peers.get_mut(&target).filter(|peer| peer.alive())
                    && heard > peer.heard
                {
                    peer.heard = heard;
                    if let Some(watched) = self.watching.get_mut(&target) {
                        watched.asked = None;
                    }
                }
            }
            Body::Intro { want, said, who, member, knows } => {
                self.met(now, from, sender, who, (said, member), (want, knows));
            }
            Body::IntroAck { said } => {
                if said == self.said {
                    self.outbox.intro_arrived(key);
                }
            }
            Body::Verdict { seq, dead } => {
                if seq != 0 {
                    self.send_at(from, &Body::VerdictAck { seq });
                }
                let by = self.roster.get(key).map(|peer| peer.who.name.clone()).unwrap_or_default();
                for dead in dead {
                    if dead.key == self.me.key {
                        if dead.life == self.me.life {
                            self.renew(now);
                        }
                    } else if self.roster.get(dead.key).is_some_and(|peer| peer.life == dead.life) {
                        self.bury(now, dead.key, Down::Reported { by: by.clone() });
                    }
                }
            }
            Body::VerdictAck { seq } => self.outbox.verdicts_arrived(key, seq),
            Body::Farewell => self.bury(now, key, Down::Left),
            Body::Gossip => self.gossip.handle(now, rest),
            Body::List { from } => self.tell_list(from, key),
            Body::Listed { from, to, known } => self.listed(now, key, (from, to), known),
            // See `heard_on_segment`.
            Body::SegmentPing { .. } | Body::SegmentPong { .. } => {}
        }
    }
}
