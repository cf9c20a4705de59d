//! Whether our interfaces reach the others on segments that the membership's own messages do not cross.
//!
//! A cable that is plugged into the wrong switch has a carrier. So speakers that have addresses in one subnet ask each other
//! there: ten times a second each asks two, of which one is the last that answered and the other the next in turn. Only an
//! answer counts: it proves both directions, and it must come from an address of that subnet. One whose questions all stay
//! unanswered for two detection times, although somebody whom it asks lives, says that its interface is isolated.
//!
//! The subnet of the membership's own address is not asked about: who is silent there is dead.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use patina_crds::net::{Family, to_number};
use patina_crds::networks::is_telling;

use super::ring::Key;
use super::roster::Peer;
use crate::view::{Member, MemberInterface};

/// Between two rounds of questions.
pub(super) const EVERY: Duration = Duration::from_millis(100);
/// Whom one round asks on each segment.
const ASKED: usize = 2;
/// A node with more segments than this does not ask on the others.
const MOST: usize = 8;
/// Answers to the questions of so many rounds count.
const ROUNDS: u64 = 8;

/// First address, with the host bits cleared, and length.
pub(super) type Subnet = (IpAddr, u8);

/// A speaker that may be asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Other<'a> {
    pub(super) key: Key,
    /// What it says of itself.
    pub(super) member: &'a Member,
    /// Where the membership reaches it.
    pub(super) at: SocketAddr,
    /// Its last sign of life, on whatever way.
    pub(super) heard: Instant,
}

impl<'a> Other<'a> {
    pub(super) fn new(key: Key, peer: &'a Peer) -> Self {
        Self { key, member: &peer.member, at: peer.at, heard: peer.heard }
    }
}

/// A question to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) key: Key,
    pub(super) to: SocketAddr,
    pub(super) subnet: Subnet,
    pub(super) nonce: u64,
    /// It stays silent there: does it live at all? To be asked where the membership reaches it.
    pub(super) lives: bool,
}

/// All segments that we ask on.
#[derive(Debug)]
pub(super) struct Segments {
    /// Addresses of ours at which we receive, beside the membership's.
    listening: BTreeSet<IpAddr>,
    asked: BTreeMap<Subnet, Segment>,
    due: Instant,
    isolated: BTreeSet<String>,
}

#[derive(Debug)]
struct Segment {
    /// Our interface there.
    interface: String,
    /// Asked without a break, or answered last.
    since: Instant,
    /// Who answered last.
    answered: Option<Key>,
    /// Whose turn it was last.
    turn: Key,
    /// Of the first question; the rounds count up from it.
    first: u64,
    round: u64,
    silent: bool,
}

impl Segments {
    pub(super) fn new(now: Instant) -> Self {
        Self { listening: BTreeSet::new(), asked: BTreeMap::new(), due: now, isolated: BTreeSet::new() }
    }

    pub(super) fn listen(&mut self, addresses: BTreeSet<IpAddr>) {
        self.listening = addresses;
    }

    /// What we say of ourselves, with what is known here.
    pub(super) fn mark(&self, member: &mut Member) {
        for interface in member.interfaces.iter_mut().flatten() {
            interface.isolated |= self.isolated.contains(&interface.name);
        }
    }

    /// It is time for the next round.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        now >= self.due
    }

    /// The next round. `ours`: what we say of ourselves; `own`: where the membership reaches us; `nonce`: random. The
    /// second value is true when [`Segments::mark`] says something else from now on.
    pub(super) fn round<'a>(
        &mut self,
        now: Instant,
        detect: Duration,
        ours: &Member,
        own: &[SocketAddr],
        others: impl FnOnce() -> Vec<Other<'a>>,
        nonce: u64,
    ) -> (Vec<Question>, bool) {
        // We were late: nobody could have answered.
        if now.saturating_duration_since(self.due) > detect {
            for segment in self.asked.values_mut() {
                segment.since = now;
            }
        }
        self.due = now + EVERY;
        let mine = self.mine(ours, own);
        let others = if mine.is_empty() { Vec::new() } else { others() };
        self.asked.retain(|subnet, segment| mine.get(subnet) == Some(&segment.interface.as_str()));
        let mut questions = Vec::new();
        for (index, (subnet, interface)) in (0_u64..).zip(mine) {
            let there: BTreeMap<Key, (IpAddr, Other<'_>)> = others
                .iter()
                .filter_map(|other| Some((other.key, (address_in(other.member, subnet)?, *other))))
                .collect();
            if there.is_empty() {
                self.asked.remove(&subnet);
                continue;
            }
            let segment =
                self.asked.entry(subnet).or_insert_with(|| Segment::new(now, interface, nonce ^ index << 32));
            questions.extend(segment.ask(now, detect, subnet, &there));
        }
        let changed = self.judge();
        (questions, changed)
    }

    /// An answer of `key` came from there. True when [`Segments::mark`] says something else from now on.
    pub(super) fn answered(
        &mut self,
        now: Instant,
        key: Key,
        from: IpAddr,
        subnet: Subnet,
        nonce: u64,
    ) -> bool {
        let Some(segment) = self.asked.get_mut(&subnet).filter(|_| contains(subnet, from)) else {
            return false;
        };
        let round = nonce.wrapping_sub(segment.first);
        if round >= segment.round || segment.round - round > ROUNDS {
            return false;
        }
        segment.since = now;
        segment.answered = Some(key);
        segment.silent = false;
        self.judge()
    }

    /// The subnets that we ask in, and by which interface.
    fn mine<'a>(&self, ours: &'a Member, own: &[SocketAddr]) -> BTreeMap<Subnet, &'a str> {
        let usable = ours.interfaces.iter().flatten().filter(|interface| interface.up);
        let all =
            usable.flat_map(|interface| interface.subnets.iter().map(move |subnet| (*subnet, interface)));
        all.filter(|(subnet, _)| own.iter().all(|address| !contains(*subnet, address.ip())))
            .filter(|(subnet, interface)| {
                let listens = |ip: &IpAddr| contains(*subnet, *ip) && self.listening.contains(ip);
                is_telling(subnet.0) && interface.addresses.iter().any(listens)
            })
            .take(MOST)
            .map(|(subnet, interface)| (subnet, interface.name.as_str()))
            .collect()
    }

    /// An interface is isolated when nobody answers in any of its subnets.
    fn judge(&mut self) -> bool {
        let names = |silent| {
            let those = self.asked.values().filter(move |segment| segment.silent == silent);
            those.map(|segment| segment.interface.clone()).collect::<BTreeSet<_>>()
        };
        let isolated: BTreeSet<String> = names(true).difference(&names(false)).cloned().collect();
        let changed = self.isolated != isolated;
        self.isolated = isolated;
        changed
    }
}

impl Segment {
    fn new(now: Instant, interface: &str, first: u64) -> Self {
        let interface = interface.to_owned();
        Self { interface, since: now, answered: None, turn: 0, first, round: 0, silent: false }
    }

    fn ask(
        &mut self,
        now: Instant,
        detect: Duration,
        subnet: Subnet,
        there: &BTreeMap<Key, (IpAddr, Other<'_>)>,
    ) -> Vec<Question> {
        let silence = now.saturating_duration_since(self.since);
        // Those who died with their silence isolate nobody: somebody must have been heard since, in another way.
        let lives = there.values().any(|(_, other)| other.heard > self.since + detect);
        if silence >= detect * 2 && lives {
            self.silent = true;
        }
        let nonce = self.first.wrapping_add(self.round);
        self.round += 1;
        let mut keys: BTreeSet<Key> =
            self.answered.filter(|key| there.contains_key(key)).into_iter().collect();
        let turns = there.range(self.turn.saturating_add(1)..).chain(there.iter()).map(|(key, _)| *key);
        for key in turns.take(there.len()) {
            if keys.len() >= ASKED {
                break;
            }
            self.turn = key;
            keys.insert(key);
        }
        let asked = keys.iter().filter_map(|key| there.get(key));
        asked
            .map(|(ip, other)| Question {
                key: other.key,
                to: SocketAddr::new(*ip, other.at.port()),
                subnet,
                nonce,
                lives: silence >= detect && !self.silent,
            })
            .collect()
    }
}

/// Where a speaker is reached in a subnet.
fn address_in(member: &Member, subnet: Subnet) -> Option<IpAddr> {
    let up = member.interfaces.iter().flatten().filter(|interface: &&MemberInterface| interface.up);
    let mut addresses = up.flat_map(|interface| &interface.addresses);
    addresses.find(|ip| is_telling(**ip) && contains(subnet, **ip)).copied()
}

/// Whether the address lies there.
pub(super) fn contains((first, length): Subnet, ip: IpAddr) -> bool {
    let family = Family::of(first);
    let host_bits = u32::from(family.bits().saturating_sub(length));
    let differs = to_number(first) ^ to_number(ip);
    family == Family::of(ip) && differs.checked_shr(host_bits).unwrap_or(0) == 0
}
