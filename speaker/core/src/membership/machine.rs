//! The machine: messages in, messages out, one deadline.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::fallen::Fallen;
use super::gossip::{Found, Gossip, Identity};
use super::outbox::Outbox;
use super::ring::{self, Key};
use super::roster::{Peer, Roster, Status};
use super::segments::{Other, Segments};
use super::wire::{self, Body, Dead, Life, Sender, Who, You};
use super::{Down, Event, Input, Output, Settings, State, roster, segments};
use crate::view::{Member, Members};

/// The lease ends so much before the others may take us to be dead.
const MARGIN: Duration = Duration::from_millis(20);
/// The first round lasts no longer.
const FIRST_ROUND: Duration = Duration::from_secs(1);
/// Questions that are not answered by then are forgotten.
const PATIENCE: Duration = Duration::from_millis(500);
/// Questions that wait for an answer, at most.
const MAX_PINGS: usize = 1024;
/// One that stays silent is asked again after this: neither a lost question nor a lost answer shall decide.
const AGAIN: Duration = Duration::from_millis(25);
/// Ticks between two questions that only measure the round trip.
const MEASURE: u32 = 20;
/// How many others are asked about a silent one.
const HELPERS: usize = 3;
/// How many members a woken speaker asks at a time.
const WITNESSES: usize = 8;
/// Dead speakers are asked whether they live: this often, later that often.
const KNOCK: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(1));
const KNOCK_FAST_FOR: Duration = Duration::from_secs(60);
/// Places where nobody answered are tried again: after this, doubled up to that.
const JOIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// MAC addresses that are remembered: several interfaces of each speaker of a large cluster.
const MAX_STATIONS: usize = 65_536;

/// See the parent module.
#[derive(Debug)]
pub(super) struct Machine {
    settings: Settings,
    me: Sender,
    who: Arc<Who>,
    said: u32,
    say: Member,
    /// The same without what is found out here.
    wished: Member,
    roster: Roster,
    fallen: Fallen,
    outbox: Outbox,
    gossip: Gossip,
    segments: Segments,
    /// Where speakers are said to be; `None`: nobody has told yet.
    places: Option<BTreeMap<SocketAddr, Place>>,
    /// Whom we watch, and since when: one that was another's to watch until now may have been silent to us for long.
    watching: BTreeMap<Key, Instant>,
    pings: BTreeMap<u64, Asked>,
    nonce: u64,
    began: Instant,
    ticked: Instant,
    ticks: u32,
    /// After a stall of ours nobody is judged before.
    judge: Instant,
    /// We stalled, and nobody has let us back in.
    stalled: Option<Instant>,
    left: bool,
    state: State,
    stations: BTreeMap<[u8; 6], Arc<str>>,
    outputs: VecDeque<Output>,
    changed: bool,
}

/// A place to join.
#[derive(Clone, Copy, Debug)]
struct Place {
    due: Instant,
    pause: Duration,
}

/// A question that waits for an answer.
#[derive(Clone, Copy, Debug)]
struct Asked {
    target: Key,
    at: Instant,
    /// Who wants to know, and its own number of the question.
    on_behalf: Option<(Key, u64)>,
}

impl Machine {
    pub(super) fn new(now: Instant, settings: Settings) -> Self {
        let who = Arc::new(Who { name: settings.node.clone(), addresses: settings.addresses.clone() });
        let life = Life { start: settings.incarnation >> 1, renewals: 0 };
        let me = Sender { key: ring::key(&settings.node), life };
        let say = Member { starting: true, ..Member::default() };
        let gossip = Gossip::new(now, Identity::new(Arc::clone(&who), life), settings.seed);
        let nonce = settings.seed ^ settings.incarnation.rotate_left(17);
        let mut machine = Self {
            settings,
            me,
            who,
            said: 1,
            wished: say.clone(),
            say,
            roster: Roster::default(),
            fallen: Fallen::default(),
            outbox: Outbox::default(),
            gossip,
            segments: Segments::new(now),
            places: None,
            watching: BTreeMap::new(),
            pings: BTreeMap::new(),
            nonce,
            began: now,
            ticked: now,
            ticks: 0,
            judge: now,
            stalled: None,
            left: false,
            state: State::default(),
            stations: BTreeMap::new(),
            outputs: VecDeque::new(),
            changed: true,
        };
        machine.publish();
        machine
    }

    pub(super) fn handle(&mut self, now: Instant, input: Input) {
        if self.left {
            return;
        }
        self.mind_a_stall(now);
        match input {
            Input::Received { from, message } => self.received(now, from, &message),
            Input::Peers(places) => self.places(now, &places),
            Input::Say(member) => {
                self.wished = member;
                self.say(now);
            }
            Input::Listen(addresses) => self.segments.listen(addresses),
            Input::Hint { node } => {
                let key = ring::key(&node);
                if self.roster.get(key).is_some_and(|peer| !peer.alive()) {
                    self.introduce_to(key);
                }
            }
            Input::Leave => {
                self.gossip.leave(now);
                self.send_gossip();
                let all: Vec<Key> = self.roster.alive.iter().copied().collect();
                for key in all {
                    self.send(key, &Body::Farewell);
                }
                self.left = true;
            }
        }
        self.settle(now);
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.left {
            return;
        }
        self.mind_a_stall(now);
        if now >= self.ticked + self.settings.heartbeat {
            self.tick(now);
        }
        self.judge(now);
        self.gossip.handle_timeout(now);
        self.settle(now);
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        if self.left {
            return None;
        }
        let tick = self.ticked + self.settings.heartbeat;
        let silent = self.watching.iter().filter_map(|(key, since)| {
            let peer = self.roster.get(*key)?;
            let heard = peer.heard.max(*since);
            let verdict = heard + self.settings.detect;
            let ask = peer.asked.map_or(heard + self.doubt(), |asked| asked + AGAIN);
            Some(ask.min(verdict).max(self.judge))
        });
        let others = [self.outbox.poll_timeout(), self.gossip.poll_timeout()];
        others.into_iter().flatten().chain(silent).chain([tick]).min()
    }

    pub(super) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub(super) fn state(&self) -> &State {
        &self.state
    }

    pub(super) fn answer_until(&self) -> Option<Instant> {
        let open = self.state.joined && !self.state.fenced && !self.left;
        open.then(|| self.ticked + self.settings.detect.saturating_sub(MARGIN))
    }

    /// Silence from which on we ask.
    fn doubt(&self) -> Duration {
        self.settings.detect.mul_f32(0.55)
    }

    /// Those whom we watch.
    fn watched(&self) -> impl Iterator<Item = Key> + '_ {
        ring::before(&self.roster.alive, self.me.key, self.settings.watchers)
    }

    /// The ring may have changed.
    fn watch(&mut self, now: Instant) {
        let watched: BTreeSet<Key> = self.watched().collect();
        self.watching.retain(|key, _| watched.contains(key));
        for key in watched {
            if let std::collections::btree_map::Entry::Vacant(new) = self.watching.entry(key) {
                new.insert(now);
                if let Some(peer) = self.roster.peers.get_mut(&key) {
                    peer.asked = None;
                }
            }
        }
    }

    /// A deadline of ours that was missed by more than the detection time: the others may have replaced us.
    fn mind_a_stall(&mut self, now: Instant) {
        let gap = now.saturating_duration_since(self.ticked);
        if gap > self.settings.detect {
            // What we know of the others is as old.
            for key in self.roster.alive.clone() {
                if let Some(peer) = self.roster.peers.get_mut(&key) {
                    peer.heard = now;
                    peer.asked = None;
                }
            }
            if !self.roster.alive.is_empty() {
                self.stalled = Some(now);
                self.pings.clear();
                self.changed = true;
            }
            self.ticked = now.checked_sub(self.settings.heartbeat).unwrap_or(now);
        } else if gap > self.settings.heartbeat * 2 {
            // Lifeguard: whoever was late distrusts its own verdicts first. What waits in the socket comes before them.
            self.judge = self.judge.max(now + self.settings.heartbeat);
        }
    }

    fn tick(&mut self, now: Instant) {
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
    fn forget_the_old(&mut self, now: Instant) {
        let Some(places) = &self.places else { return };
        for peer in self.roster.sweep(now, |at| places.contains_key(at)) {
            self.forgotten(&peer);
        }
    }

    fn forgotten(&mut self, peer: &Peer) {
        self.fallen.forget(&peer.who.name);
        self.stations.retain(|_, node| **node != *peer.who.name);
        self.changed = true;
    }

    /// What we say of ourselves from now on.
    fn say(&mut self, now: Instant) {
        let mut member = self.wished.clone();
        self.segments.mark(&mut member);
        self.say = wire::fitting(self.me, &self.who, member);
        self.said = self.said.saturating_add(1);
        self.changed = true;
        self.tell_all(now);
    }

    /// Asks others on the segments that they and we are on.
    fn ask_on_segments(&mut self, now: Instant) {
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
    fn heard_on_segment(&mut self, now: Instant, from: SocketAddr, sender: Sender, body: &Body) {
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

    /// Asks the dead.
    fn knock(&mut self, now: Instant) {
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
    fn join(&mut self, now: Instant) {
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
            None => false,
            Some(places) => unanswered(places) == 0 || now >= self.began + FIRST_ROUND,
        };
        if through && !self.state.joined {
            self.state.joined = true;
            self.changed = true;
            self.outputs.push_back(Output::Event(Event::Joined));
        }
    }

    fn places(&mut self, now: Instant, wanted: &BTreeSet<SocketAddr>) {
        if self.places.is_none() {
            self.began = now;
        }
        let mut old = self.places.take().unwrap_or_default();
        let place = |at: &SocketAddr| {
            let fresh = Place { due: now, pause: JOIN.0 };
            (*at, old.remove(at).unwrap_or(fresh))
        };
        self.places = Some(wanted.iter().take(super::roster::MAX_PEERS).map(place).collect());
        self.join(now);
    }

    /// Whoever we watch is asked when it is silent, and is dead when it stays so.
    fn judge(&mut self, now: Instant) {
        if now < self.judge {
            return;
        }
        for (key, since) in self.watching.clone() {
            let Some(peer) = self.roster.peers.get_mut(&key) else { continue };
            let silent = now.saturating_duration_since(peer.heard.max(since));
            if silent >= self.settings.detect && peer.asked.is_some() {
                self.verdict(now, key, silent);
            } else if silent >= self.settings.detect.mul_f32(0.55)
                && peer.asked.is_none_or(|asked| now.saturating_duration_since(asked) >= AGAIN)
            {
                peer.asked = Some(now);
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

    fn verdict(&mut self, now: Instant, key: Key, silent: Duration) {
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
    fn bury(&mut self, now: Instant, key: Key, cause: Down) {
        let Some(peer) = self.roster.peers.get_mut(&key) else { return };
        if !peer.alive() {
            return;
        }
        peer.status = if cause == Down::Left { Status::Left } else { Status::Dead(now, cause.clone()) };
        peer.knock = now + KNOCK.0;
        peer.asked = None;
        let (identity, node) = (Identity::new(Arc::clone(&peer.who), peer.life), peer.who.name.clone());
        self.roster.alive.remove(&key);
        self.outbox.forget(key);
        self.gossip.down(now, identity);
        self.fallen.fell(&node, cause.clone());
        self.changed = true;
        self.outputs.push_back(Output::Event(Event::Down { node, cause }));
    }

    fn received(&mut self, now: Instant, from: SocketAddr, message: &[u8]) {
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
                return self.send_at(from, &self.intro(true));
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
            Some(peer) if sender.life == peer.life => match peer.status {
                Status::Alive => {
                    peer.heard = now;
                    peer.direct = now;
                    peer.asked = None;
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
                Status::Left => return,
            },
            // Another life: who is it now?
            Some(_) if introduces => {}
            Some(_) => {
                self.mind(now, about_us);
                return self.send_at(from, &self.intro(true));
            }
        }
        self.body(now, from, sender, body, rest);
    }

    fn body(&mut self, now: Instant, from: SocketAddr, sender: Sender, body: Body, rest: &[u8]) {
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
                    self.changed = true;
                }
            }
            Body::AskAbout { nonce, target } => {
                let heard = self.roster.get(target).filter(|peer| peer.alive()).map(|peer| peer.direct);
                let Some(heard) = heard else { return };
                let age = now.saturating_duration_since(heard);
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
                    peer.asked = None;
                }
            }
            Body::Intro { want, said, who, member } => self.met(now, from, sender, who, (said, member), want),
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
            // See `heard_on_segment`.
            Body::SegmentPing { .. } | Body::SegmentPong { .. } => {}
        }
    }

    /// It told who it is.
    fn met(
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
    fn mind(&mut self, now: Instant, you: Option<You>) {
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
    fn renew(&mut self, now: Instant) {
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

    fn tell_all(&mut self, now: Instant) {
        for key in &self.roster.alive {
            self.outbox.intro(now, *key);
        }
    }

    fn ask_what_it_says(&mut self, key: Key, said: u32) {
        if self.roster.get(key).is_some_and(|peer| peer.said < said) {
            self.introduce_to(key);
        }
    }

    fn introduce_to(&mut self, key: Key) {
        let intro = self.intro(true);
        self.send(key, &intro);
    }

    fn intro(&self, want: bool) -> Body {
        Body::Intro { want, said: self.said, who: (*self.who).clone(), member: self.say.clone() }
    }

    fn ping(&mut self, now: Instant, target: Key, on_behalf: Option<(Key, u64)>) {
        if self.pings.len() >= MAX_PINGS {
            return;
        }
        let nonce = self.next_nonce();
        self.pings.insert(nonce, Asked { target, at: now, on_behalf });
        let you =
            self.roster.get(target).map(|peer| You { life: peer.life, alive: peer.alive(), said: peer.said });
        let alive = self.count();
        self.send(target, &Body::Ping { nonce, alive, said: self.said, you });
    }

    /// With us.
    fn count(&self) -> u32 {
        u32::try_from(self.roster.alive.len() + 1).unwrap_or(u32::MAX)
    }

    fn send(&mut self, to: Key, body: &Body) {
        if let Some(at) = self.roster.get(to).map(|peer| peer.at) {
            self.send_at(at, body);
        }
    }

    fn send_at(&mut self, to: SocketAddr, body: &Body) {
        let message = wire::encode(self.me, body, &[]);
        self.outputs.push_back(Output::Send { to, message });
    }

    fn send_gossip(&mut self) {
        for (to, bytes) in self.gossip.sends() {
            let known = self.roster.get(to.key).map(|peer| peer.at);
            if let Some(at) = known.or_else(|| to.who.addresses.first().copied()) {
                let message = wire::encode(self.me, &Body::Gossip, &bytes);
                self.outputs.push_back(Output::Send { to: at, message });
            }
        }
    }

    /// After each step: what it led to.
    fn settle(&mut self, now: Instant) {
        for found in self.gossip.found() {
            match found {
                // Others know it; we shall meet it.
                Found::Up(identity) => {
                    let known = self.roster.get(identity.key);
                    if known.is_none_or(|peer| !peer.alive() || peer.life < identity.life)
                        && let Some(at) = identity.who.addresses.first()
                    {
                        self.send_at(*at, &self.intro(true));
                    }
                }
                Found::Down(identity) => {
                    let fresh =
                        |peer: &&Peer| now.saturating_duration_since(peer.heard) < self.settings.detect;
                    let same = |peer: &&Peer| peer.life == identity.life;
                    if self.roster.get(identity.key).filter(same).filter(|peer| !fresh(peer)).is_some() {
                        self.bury(now, identity.key, Down::default());
                    }
                }
                Found::Ourselves if self.left => {}
                Found::Ourselves => self.renew(now),
            }
        }
        self.send_gossip();
        while let Some(ready) = self.outbox.ready(now) {
            if ready.intro {
                let intro = self.intro(false);
                self.send(ready.to, &intro);
            }
            if let Some((seq, dead)) = ready.verdicts {
                self.send(ready.to, &Body::Verdict { seq, dead });
            }
        }
        self.watch(now);
        if self.stalled.is_some() && self.roster.alive.is_empty() {
            self.stalled = None;
            self.changed = true;
        }
        self.publish();
    }

    /// Brings the state up to date.
    fn publish(&mut self) {
        if !std::mem::take(&mut self.changed) {
            return;
        }
        let known = self.roster.peers.values().filter(|peer| peer.status != Status::Left).count() + 1;
        let minority = self.settings.quorum && (self.roster.alive.len() + 1) * 2 <= known && known > 1;
        let fenced = self.stalled.is_some() || minority;
        if fenced != self.state.fenced {
            self.state.fenced = fenced;
            let event = if fenced { Event::Fenced } else { Event::Unfenced };
            self.outputs.push_back(Output::Event(event));
        }
        let mut members: Members =
            self.roster.alive().map(|(_, peer)| (peer.who.name.clone(), peer.member.clone())).collect();
        members.insert(self.settings.node.clone(), self.say.clone());
        if *self.state.members != members {
            self.state.members = Arc::new(members);
        }
        self.state.down = self.fallen.causes();
        if *self.state.stations != self.stations {
            self.state.stations = Arc::new(self.stations.clone());
        }
    }

    /// splitmix64.
    fn next_nonce(&mut self) -> u64 {
        self.nonce = self.nonce.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.nonce;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).max(1)
    }
}
