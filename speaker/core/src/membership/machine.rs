//! The machine: messages in, messages out, one deadline.

mod met;
mod received;
mod saying;
mod ticking;
mod watching;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::fallen::Fallen;
use super::gossip::{Found, Gossip, Identity};
use super::outbox::Outbox;
use super::ring::{self, Key};
use super::roster::{Peer, Roster, Status};
use super::segments::Segments;
use super::wire::{self, Body, Life, Sender, Who, You};
use super::{Down, Event, Input, Output, Settings, State};
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
            Input::Listen(addresses) => {
                if self.segments.listen(addresses) {
                    self.say(now);
                }
            }
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
