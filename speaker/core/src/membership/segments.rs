//! Whether our interfaces reach the others on segments that the membership's own messages do not cross.
//!
//! A cable that is plugged into the wrong switch has a carrier. So speakers that have addresses in one subnet ask each other
//! there: ten times a second each asks two, of which one is the last that answered and the other the next in turn; while
//! nobody has answered the last round, more of them with each heartbeat. Only an answer counts: it proves both directions,
//! and it must come from an address of that subnet. One whose questions all stay unanswered for the detection time, although
//! somebody whom it asked lives, says that its interface is isolated; it takes that back after a few rounds with answers, so
//! that a segment that passes a frame now and then does not move addresses back and forth.
//!
//! An interface with a subnet of the membership's own addresses is not asked about: who is silent there is dead.

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
/// How many questions one round asks on each segment: while all is well (or known not to be), and after a round without an
/// answer. Where fewer speakers are, the latter repeat themselves: one in twenty may be lost.
const ASKED: (usize, usize) = (2, 4);
/// A node with more segments than this does not ask on the others, and does not listen there.
pub(super) const MOST: usize = 8;
/// Answers to the questions of so many rounds count.
const ROUNDS: u64 = 8;
/// Fewer unanswered rounds prove nothing, however long they took.
const ENOUGH: u32 = 3;
/// An interface is not isolated any more when so many rounds were answered, none a detection time after the other.
const BACK: u32 = 5;

/// First address, with the host bits cleared, and length.
pub(super) type Subnet = (IpAddr, u8);

/// An address of ours at which others can ask us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Further {
    /// The address.
    pub address: IpAddr,
    /// Its interface.
    pub interface: String,
    /// The subnets in which it is the one: first address, with the host bits cleared, and length.
    pub subnets: Vec<(IpAddr, u8)>,
}

/// Where to listen beside `own`, the membership's own addresses: one address in each subnet of the other interfaces that can
/// announce, in eight subnets at most.
#[must_use]
pub fn further(member: &Member, own: &[SocketAddr]) -> Vec<Further> {
    let of_membership = |interface: &MemberInterface| {
        own.iter().any(|own| interface.subnets.iter().any(|subnet| contains(*subnet, own.ip())))
    };
    let mut seen = BTreeSet::new();
    let mut further: Vec<Further> = Vec::new();
    let announcing = member.interfaces.iter().flatten().filter(|i| i.up && (i.arp || i.ndp));
    for interface in announcing.filter(|interface| !of_membership(interface)) {
        for subnet in interface.subnets.iter().filter(|subnet| is_telling(subnet.0)) {
            let mut addresses = interface.addresses.iter().filter(|ip| is_telling(**ip));
            let Some(address) = addresses.find(|ip| contains(*subnet, **ip)) else { continue };
            // Of two interfaces in one subnet only one is asked about.
            if seen.len() >= MOST || !seen.insert(*subnet) {
                continue;
            }
            match further.iter_mut().find(|known| known.address == *address) {
                Some(known) => known.subnets.push(*subnet),
                None => further.push(Further {
                    address: *address,
                    interface: interface.name.clone(),
                    subnets: vec![*subnet],
                }),
            }
        }
    }
    further
}

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
    /// Rounds since then that nobody has answered, and whom they asked.
    unanswered: u32,
    asked: BTreeSet<Key>,
    /// Who answered last.
    answered: Option<Key>,
    /// Whose turn it was last.
    turn: Key,
    /// Of the first question; the rounds count up from it.
    first: u64,
    round: u64,
    silent: bool,
    /// Rounds that were answered while it was silent, and the last of them.
    back: u32,
    last_back: u64,
}

impl Segments {
    pub(super) fn new(now: Instant) -> Self {
        Self { listening: BTreeSet::new(), asked: BTreeMap::new(), due: now, isolated: BTreeSet::new() }
    }

    /// True when [`Segments::mark`] says something else from now on.
    pub(super) fn listen(&mut self, addresses: BTreeSet<IpAddr>) -> bool {
        let changed = self.listening != addresses;
        self.listening = addresses;
        changed
    }

    /// What we say of ourselves, with what is known here: nobody shall ask where we do not listen, or take the silence for
    /// that of the segment.
    pub(super) fn mark(&self, own: &[SocketAddr], member: &mut Member) {
        for interface in member.interfaces.iter_mut().flatten() {
            interface.isolated |= self.isolated.contains(&interface.name);
            let listens = |ip: &IpAddr| self.listening.contains(ip) || own.iter().any(|own| own.ip() == *ip);
            interface.addresses.retain(listens);
        }
    }

    /// It is time for the next round, at least where the last was not answered.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        now >= self.due || self.asked.values().any(Segment::in_doubt)
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
            self.asked.values_mut().for_each(|segment| segment.begin(now));
        }
        let all = now >= self.due;
        if all {
            self.due = now + EVERY;
        }
        let further = further(ours, own);
        let mine: BTreeMap<Subnet, &Further> = further
            .iter()
            .filter(|further| self.listening.contains(&further.address))
            .flat_map(|further| further.subnets.iter().map(move |subnet| (*subnet, further)))
            .collect();
        let others = if mine.is_empty() { Vec::new() } else { others() };
        self.asked.retain(|subnet, segment| {
            mine.get(subnet).is_some_and(|mine| mine.interface == segment.interface)
        });
        let mut questions = Vec::new();
        for (index, (subnet, further)) in (0_u64..).zip(mine) {
            if !all && !self.asked.get(&subnet).is_some_and(Segment::in_doubt) {
                continue;
            }
            // An address that they and we have is another's network with the same numbers, as that of a container runtime.
            let there: BTreeMap<Key, (IpAddr, Other<'_>)> = others
                .iter()
                .filter_map(|other| Some((other.key, (address_in(other.member, subnet)?, *other))))
                .filter(|(_, (ip, _))| *ip != further.address)
                .collect();
            if there.is_empty() {
                self.asked.remove(&subnet);
                continue;
            }
            let segment = self
                .asked
                .entry(subnet)
                .or_insert_with(|| Segment::new(now, &further.interface, nonce ^ index << 32));
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
        segment.answer(now, key, round);
        self.judge()
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
        Self {
            interface: interface.to_owned(),
            since: now,
            unanswered: 0,
            asked: BTreeSet::new(),
            answered: None,
            turn: 0,
            first,
            round: 0,
            silent: false,
            back: 0,
            last_back: 0,
        }
    }

    /// From now on its silence counts.
    fn begin(&mut self, now: Instant) {
        self.since = now;
        self.unanswered = 0;
        self.asked.clear();
    }

    /// Nobody has answered the last round, and it is not known why.
    fn in_doubt(&self) -> bool {
        self.unanswered > 0 && !self.silent
    }

    fn answer(&mut self, now: Instant, key: Key, round: u64) {
        self.begin(now);
        self.answered = Some(key);
        if self.silent && (self.back == 0 || round > self.last_back) {
            self.back += 1;
            self.last_back = round;
            self.silent = self.back < BACK;
        }
    }

    fn ask(
        &mut self,
        now: Instant,
        detect: Duration,
        subnet: Subnet,
        there: &BTreeMap<Key, (IpAddr, Other<'_>)>,
    ) -> Vec<Question> {
        let silence = now.saturating_duration_since(self.since);
        if silence >= detect {
            self.back = 0;
            // Those who died with their silence isolate nobody: one who was asked must have been heard long after the last
            // answer, in another way.
            let late = self.since + detect.mul_f32(0.7);
            let lives = |key: &Key| there.get(key).is_some_and(|(_, other)| other.heard > late);
            self.silent |= self.unanswered >= ENOUGH && self.asked.iter().any(lives);
        }
        let doubt = self.in_doubt();
        let count = if doubt { ASKED.1 } else { ASKED.0 };
        let mut keys: BTreeSet<Key> =
            self.answered.filter(|key| there.contains_key(key)).into_iter().collect();
        let turns = there.range(self.turn.saturating_add(1)..).chain(there.iter()).map(|(key, _)| *key);
        for key in turns.take(there.len()) {
            if keys.len() >= count {
                break;
            }
            self.turn = key;
            keys.insert(key);
        }
        if !self.silent {
            self.asked.extend(&keys);
        }
        let nonce = self.first.wrapping_add(self.round);
        self.round += 1;
        self.unanswered = self.unanswered.saturating_add(1);
        let questions = if doubt { count } else { keys.len() };
        let asked = keys.iter().cycle().take(questions).filter_map(|key| there.get(key));
        // To be asked once.
        let lives = |index: usize| index < keys.len() && doubt && silence >= detect / 2;
        asked
            .enumerate()
            .map(|(index, (ip, other))| Question {
                key: other.key,
                to: SocketAddr::new(*ip, other.at.port()),
                subnet,
                nonce,
                lives: lives(index),
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

/// Whether the address lies in the subnet: first address, with the host bits cleared, and length.
#[must_use]
pub fn contains((first, length): (IpAddr, u8), ip: IpAddr) -> bool {
    let family = Family::of(first);
    let host_bits = u32::from(family.bits().saturating_sub(length));
    let differs = to_number(first) ^ to_number(ip);
    family == Family::of(ip) && differs.checked_shr(host_bits).unwrap_or(0) == 0
}
