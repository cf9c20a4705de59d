//! The machine: messages in, messages out, one deadline.

mod listing;
mod met;
mod received;
mod saying;
mod ticking;
mod watching;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::fallen::Fallen;
use super::gossip::{Found, Gossip, Identity};
use super::outbox::Outbox;
use super::places::Places;
use super::ring::{self, Key};
use super::roster::{Peer, Roster, Status};
use super::segments::Segments;
use super::wire::{self, Body, Life, Sender, Who, You};
use super::{Down, Event, Input, Output, Settings, State};
use crate::view::{Member, Members};
use listing::List;

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
/// Unless somebody is telling us who is there.
const LISTING: Duration = Duration::from_secs(3);
/// Places that are tried in one tick: in the first, doubled each time; once the first round is through.
const TRIED: (usize, usize) = (64, 16);
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
    places: Option<Places>,
    list: List,
    /// Rounds in which places were tried.
    tried: u32,
    /// Whom we watch, and since when: one that was another's to watch until now may have been silent to us for long.
    watching: BTreeMap<Key, Watched>,
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
    joined: bool,
    fenced: bool,
    /// Made when somebody asks: during a start hundreds come, and each would have it made anew.
    members: OnceLock<Arc<Members>>,
    stations: Arc<BTreeMap<[u8; 6], Arc<str>>>,
    outputs: VecDeque<Output>,
}

/// Whom we watch.
#[derive(Clone, Copy, Debug)]
struct Watched {
    since: Instant,
    /// It is silent: since then others are asked.
    asked: Option<Instant>,
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
        // Room above it: whoever is known under a greater number goes beyond that.
        let life = Life { start: settings.incarnation.min(u64::MAX >> 1), renewals: 0 };
        let me = Sender { key: ring::key(&settings.node), life };
        let say = Member { starting: true, ..Member::default() };
        let gossip = Gossip::new(now, Identity::new(Arc::clone(&who), life), settings.seed);
        let nonce = settings.seed ^ settings.incarnation.rotate_left(17);
        Self {
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
            list: List::default(),
            tried: 0,
            watching: BTreeMap::new(),
            pings: BTreeMap::new(),
            nonce,
            began: now,
            ticked: now,
            ticks: 0,
            judge: now,
            stalled: None,
            left: false,
            joined: false,
            fenced: false,
            members: OnceLock::new(),
            stations: Arc::default(),
            outputs: VecDeque::new(),
        }
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
        let silent = self.watching.iter().filter_map(|(key, watched)| {
            let peer = self.roster.get(*key)?;
            let heard = peer.heard.max(watched.since);
            let verdict = heard + self.settings.detect;
            let ask = watched.asked.map_or(heard + self.doubt(), |asked| asked + AGAIN);
            Some(ask.min(verdict).max(self.judge))
        });
        let others = [self.outbox.poll_timeout(), self.gossip.poll_timeout()];
        others.into_iter().flatten().chain(silent).chain([tick]).min()
    }

    pub(super) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub(super) fn state(&self) -> State {
        let members = || {
            let others = self.roster.alive().map(|(_, peer)| (peer.who.name.clone(), peer.member.clone()));
            Arc::new(others.chain([(self.settings.node.clone(), self.say.clone())]).collect())
        };
        State {
            members: Arc::clone(self.members.get_or_init(members)),
            stations: Arc::clone(&self.stations),
            down: self.fallen.causes(),
            joined: self.joined,
            fenced: self.fenced,
        }
    }

    pub(super) fn alive(&self) -> impl ExactSizeIterator<Item = &str> {
        let name = |key: Option<&Key>| {
            let peer = key.and_then(|key| self.roster.get(*key));
            peer.map_or(self.settings.node.as_str(), |peer| peer.who.name.as_str())
        };
        let mut others = self.roster.alive.iter();
        (0..others.len() + 1).map(move |_| name(others.next()))
    }

    pub(super) fn answer_until(&self) -> Option<Instant> {
        let open = self.joined && !self.fenced && !self.left;
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
        let intro = self.intro(true, self.known(key));
        self.send(key, &intro);
    }

    /// `knows`: what we know of the receiver.
    fn intro(&self, want: bool, knows: Option<(Life, u32)>) -> Body {
        Body::Intro { want, said: self.said, who: (*self.who).clone(), member: self.say.clone(), knows }
    }

    fn known(&self, key: Key) -> Option<(Life, u32)> {
        self.roster.get(key).map(|peer| (peer.life, peer.said))
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
                        self.send_at(*at, &self.intro(true, None));
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
                let intro = self.intro(false, self.known(ready.to));
                self.send(ready.to, &intro);
                if ready.last {
                    self.unheard(now, ready.to);
                }
            }
            if let Some((seq, dead)) = ready.verdicts {
                self.send(ready.to, &Body::Verdict { seq, dead });
            }
        }
        if self.roster.has_turned() {
            self.watch(now);
        }
        if self.roster.alive.is_empty() {
            self.stalled = None;
        }
        self.mind_the_fence();
    }

    fn mind_the_fence(&mut self) {
        // Counted only where it matters: this is looked at after each message.
        let is_minority = || {
            let left = |peer: &&Peer| matches!(peer.status, Status::Left(_));
            let known = self.roster.peers.len() - self.roster.peers.values().filter(left).count() + 1;
            (self.roster.alive.len() + 1) * 2 <= known && known > 1
        };
        let fenced = self.stalled.is_some() || self.settings.quorum && is_minority();
        if fenced != self.fenced {
            self.fenced = fenced;
            let event = if fenced { Event::Fenced } else { Event::Unfenced };
            self.outputs.push_back(Output::Event(event));
        }
    }

    /// Whose the MAC addresses are.
    fn note(&mut self, peer: &Peer) {
        for interface in peer.member.interfaces.iter().flatten() {
            let (mac, node) = (&interface.mac, &peer.who.name);
            let known = self.stations.get(mac).map(|node| &**node);
            if known != Some(node) && (self.stations.len() < MAX_STATIONS || known.is_some()) {
                Arc::make_mut(&mut self.stations).insert(*mac, node.as_str().into());
            }
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
