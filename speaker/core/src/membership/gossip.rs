//! foca (SWIM): the list of speakers, its spread, and the slow net under everything else.
//!
//! foca learns from us whom we met and whom we declared dead, and tells others; from it we learn of speakers that we have
//! not met (and introduce ourselves), and of deaths that neither we nor a watcher saw. Its messages are no longer than
//! [`MAX_PACKET`], however many speakers there are.

use std::collections::BTreeMap;
use std::num::{NonZeroU8, NonZeroUsize};
use std::sync::Arc;
use std::time::{Duration, Instant};

use foca::{
    Config, Foca, Member, NoCustomBroadcast, Notification, PeriodicParams, PostcardCodec, Runtime, Timer,
};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::ring::{self, Key};
use super::wire::{Life, Who};

/// Of foca's bytes; the rest of [`super::wire::MAX_MESSAGE`] is our header.
const MAX_PACKET: usize = 1150;
/// More identities than this are not believed: foca is built anew from whom we met.
const MAX_KNOWN: usize = super::roster::MAX_PEERS + 500;

/// A speaker, as foca knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) key: Key,
    pub(crate) life: Life,
    pub(crate) who: Arc<Who>,
}

impl Identity {
    pub(crate) fn new(who: Arc<Who>, life: Life) -> Self {
        Self { key: ring::key(&who.name), life, who }
    }
}

impl foca::Identity for Identity {
    type Addr = Key;

    /// We renew ourselves, and then foca is built anew: what it held against others belongs to the life that ended.
    fn renew(&self) -> Option<Self> {
        None
    }

    fn addr(&self) -> Key {
        self.key
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.life > adversary.life
    }
}

impl Serialize for Identity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (&*self.who, self.life).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Identity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (who, life) = <(Who, Life)>::deserialize(deserializer)?;
        who.check().map_err(serde::de::Error::custom)?;
        Ok(Self::new(Arc::new(who), life))
    }
}

/// What foca found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// It lives, foca says.
    Up(Identity),
    /// It does not.
    Down(Identity),
    /// We do not.
    Ourselves,
}

pub(crate) struct Gossip {
    foca: Foca<Identity, PostcardCodec, StdRng, NoCustomBroadcast>,
    seed: u64,
    collected: Collected,
    /// Feeds that we still ask for.
    feeds: u8,
}

impl std::fmt::Debug for Gossip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gossip").field("identity", self.foca.identity()).finish_non_exhaustive()
    }
}

impl Gossip {
    pub(crate) fn new(now: Instant, identity: Identity, seed: u64) -> Self {
        let foca = Foca::new(identity, config(), StdRng::seed_from_u64(seed), PostcardCodec);
        Self { foca, seed, collected: Collected::new(now), feeds: 3 }
    }

    /// Another life of ours: nothing of the old one counts. `alive`: whom we met and take to be alive.
    pub(crate) fn renew(&mut self, now: Instant, identity: Identity, alive: impl Iterator<Item = Identity>) {
        let out = std::mem::take(&mut self.collected.to_send);
        *self = Self::new(now, identity, self.seed.wrapping_add(1));
        self.collected.to_send = out;
        let alive: Vec<_> = alive.map(Member::alive).collect();
        self.with(now, |foca, collected| foca.apply_many(alive.into_iter(), false, collected));
        // What foca notifies of here we told it ourselves.
        self.collected.found.clear();
    }

    /// We met it. `spread`: others may not know; it is for a few to say so, or each would hear it from all.
    pub(crate) fn alive(&mut self, now: Instant, identity: Identity, spread: bool) {
        let ask = self.feeds > 0;
        self.feeds = self.feeds.saturating_sub(1);
        let member = Member::alive(identity.clone());
        self.with(now, |foca, mut collected| {
            foca.apply_many(std::iter::once(member), spread, &mut collected)?;
            // The first few that we meet are asked for the list.
            if ask { foca.announce(identity, collected) } else { Ok(()) }
        });
    }

    /// It is dead, or left.
    pub(crate) fn down(&mut self, now: Instant, identity: Identity) {
        let member = Member::down(identity);
        self.with(now, |foca, collected| foca.apply_many(std::iter::once(member), true, collected));
    }

    /// We end.
    pub(crate) fn leave(&mut self, now: Instant) {
        self.with(now, |foca, collected| foca.leave_cluster(collected));
    }

    /// foca's bytes came.
    pub(crate) fn handle(&mut self, now: Instant, bytes: &[u8]) {
        if self.foca.iter_membership_state().len() > MAX_KNOWN {
            let identity = self.foca.identity().clone();
            self.renew(now, identity, std::iter::empty());
        }
        self.with(now, |foca, collected| foca.handle_data(bytes, collected));
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.collected.due(now) {
            self.with(now, |foca, collected| foca.handle_timer(timer, collected));
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.collected.timers.keys().next().map(|(at, _)| *at)
    }

    pub(crate) fn sends(&mut self) -> Vec<(Identity, Vec<u8>)> {
        std::mem::take(&mut self.collected.to_send)
    }

    pub(crate) fn found(&mut self) -> Vec<Found> {
        std::mem::take(&mut self.collected.found)
    }

    /// An error of foca's leaves its state as it was, and concerns the message or timer alone: there is nobody to tell.
    fn with(
        &mut self,
        now: Instant,
        call: impl FnOnce(
            &mut Foca<Identity, PostcardCodec, StdRng, NoCustomBroadcast>,
            &mut Collected,
        ) -> Result<(), foca::Error>,
    ) {
        self.collected.now = now;
        let _ = call(&mut self.foca, &mut self.collected);
    }
}

/// foca's own detection is slow on purpose: the ring of watchers is the fast one.
fn config() -> Config {
    let some = |count| NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN);
    Config {
        probe_period: Duration::from_secs(1),
        probe_rtt: Duration::from_millis(300),
        num_indirect_probes: some(3),
        max_transmissions: NonZeroU8::new(10).unwrap_or(NonZeroU8::MIN),
        suspect_to_down_after: Duration::from_secs(5),
        remove_down_after: Some(Duration::from_secs(600)),
        max_packet_size: some(MAX_PACKET),
        // We tell those who do not know that they were declared dead ourselves.
        notify_down_members: false,
        periodic_announce: Some(PeriodicParams { frequency: Duration::from_secs(10), num_members: some(1) }),
        periodic_announce_to_down_members: None,
        periodic_gossip: Some(PeriodicParams { frequency: Duration::from_millis(200), num_members: some(3) }),
    }
}

/// What foca wants done.
#[derive(Debug)]
struct Collected {
    now: Instant,
    to_send: Vec<(Identity, Vec<u8>)>,
    timers: BTreeMap<(Instant, u64), Timer<Identity>>,
    count: u64,
    found: Vec<Found>,
}

impl Collected {
    fn new(now: Instant) -> Self {
        Self { now, to_send: Vec::new(), timers: BTreeMap::new(), count: 0, found: Vec::new() }
    }

    fn due(&mut self, now: Instant) -> Option<Timer<Identity>> {
        let first = self.timers.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }
}

impl Runtime<Identity> for Collected {
    fn notify(&mut self, notification: Notification<'_, Identity>) {
        match notification {
            Notification::MemberUp(identity) => self.found.push(Found::Up(identity.clone())),
            Notification::MemberDown(identity) => self.found.push(Found::Down(identity.clone())),
            Notification::Rename(_, identity) => self.found.push(Found::Up(identity.clone())),
            Notification::Defunct => self.found.push(Found::Ourselves),
            _ => {}
        }
    }

    fn send_to(&mut self, to: Identity, data: &[u8]) {
        self.to_send.push((to, data.to_vec()));
    }

    fn submit_after(&mut self, event: Timer<Identity>, after: Duration) {
        self.count = self.count.wrapping_add(1);
        self.timers.insert((self.now + after, self.count), event);
    }
}
