//! When an announcement and a probe are sent, and which groups an interface listens to.
//!
//! Sans-IO: [`handle`](Announcer::handle) what happened, sleep until [`poll_timeout`](Announcer::poll_timeout), call
//! [`handle_timeout`](Announcer::handle_timeout), and after each of them drain [`poll_output`](Announcer::poll_output).
//!
//! Each (address, interface) has a schedule of its own, so that an interface that appears later, or comes back with
//! another MAC, is announced on from the start:
//!
//! ```text
//! Announce ──> 0  100  300  1000 ms ──> 2 s  3 s  4 s  5 s ──> every 60 s (Settings::refresh)
//! Probe    ──> 0  100 ms                                       (Settings::probing)
//! ```
//!
//! The first four find switches and caches that lost one frame; the next ones those that learn slowly; the refresh
//! keeps entries of switches and routers from ageing out. Refreshes of many addresses are spread over the interval.
//! Deadlines that passed while nobody called are skipped, not made up for: one announcement is worth as much as three.
//!
//! Ten thousand addresses are ten thousand entries in an ordered set: a step costs O(log n), new duties a comparison each
//! (pointers and small numbers) and work for those that differ, and frames are built one at a time, when they are polled.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use patina_crds::net::Family;

use super::duty::{self, Duties, Duty, Mode, Probing};
use super::wire::Mac;
use super::wire::arp::Arp;
use super::wire::ndp::{Advertisement, Solicitation, group_mac, solicited_node};

/// Offsets from the claim, in milliseconds: the burst, then each second to the fifth.
const SCHEDULE: [u64; 8] = [0, 100, 300, 1000, 2000, 3000, 4000, 5000];

/// What can be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Time between announcements once the schedule is through; `None`: no more of them.
    pub refresh: Option<Duration>,
    /// How many probes are sent, and how fast.
    pub probing: Probing,
}

impl Default for Settings {
    fn default() -> Self {
        Self { refresh: Some(Duration::from_secs(60)), probing: Probing::default() }
    }
}

/// Something happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// From now on exactly this is to be done. Schedules that run run on, unless the mode or the round changed.
    Duties(Arc<Duties>),
    /// An interface speaks this family, with this MAC. With another MAC than before, all its schedules start anew.
    Interface {
        /// Kernel index.
        index: u32,
        /// IPv4: ARP. IPv6: neighbour discovery.
        family: Family,
        /// Its MAC.
        mac: Mac,
    },
    /// An interface speaks this family no more, and its group memberships are gone: no [`Output::Leave`] follows.
    InterfaceGone {
        /// Kernel index.
        index: u32,
        /// IPv4: ARP. IPv6: neighbour discovery.
        family: Family,
    },
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a frame.
    Send {
        /// On which interface.
        ifindex: u32,
        /// The address that it is about.
        ip: IpAddr,
        /// What it says.
        what: What,
        /// A whole Ethernet frame.
        frame: Vec<u8>,
    },
    /// Listen to a solicited-node group. Always before the first frame about its addresses.
    ///
    /// Join with `IPV6_ADD_MEMBERSHIP` on an IPv6 socket rather than with `PACKET_ADD_MEMBERSHIP`: it sends the MLD report
    /// that snooping switches need (RFC 4862 5.4.2) and sets the same hardware filter. Memberships per socket are
    /// limited (`net.core.optmem_max`).
    Join(Group),
    /// Stop listening to it.
    Leave(Group),
}

/// What a frame says that nobody asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Does somebody have this address?
    Probe,
    /// We have it.
    Announcement,
}

/// A solicited-node group on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group {
    /// Kernel index of the interface.
    pub ifindex: u32,
    /// The group.
    pub group: Ipv6Addr,
    /// Its Ethernet address.
    pub mac: Mac,
}

/// An address on an interface: what has a schedule.
type Key = (IpAddr, u32);

/// Announces and probes.
#[derive(Clone, Debug, Default)]
pub struct Announcer {
    settings: Settings,
    /// Latest time that we were told.
    now: Option<Instant>,
    macs: BTreeMap<(u32, Family), Mac>,
    duties: Arc<Duties>,
    /// Of what is announced or probed, on interfaces that are known.
    schedules: BTreeMap<Key, Schedule>,
    /// The deadlines of `schedules`, earliest first.
    deadlines: BTreeSet<(Instant, Key)>,
    /// How many addresses need a group.
    members: BTreeMap<Group, usize>,
    outputs: VecDeque<Output>,
}

/// What one address does on one interface.
#[derive(Clone, Copy, Debug)]
struct Schedule {
    what: What,
    since: Instant,
    /// Also in `deadlines`. `None`: the schedule is through.
    due: Option<Instant>,
}

impl Announcer {
    /// One that has nothing to do yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings, ..Self::default() }
    }

    /// Takes note of what happened at `now`.
    pub fn handle(&mut self, now: Instant, input: Input) {
        self.now = Some(now);
        match input {
            Input::Duties(duties) => {
                let before = std::mem::replace(&mut self.duties, Arc::clone(&duties));
                for (ip, old, new) in duty::changes(&before, &duties) {
                    self.change(now, ip, old, new);
                }
            }
            Input::Interface { index, family, mac } => self.interface(now, index, family, mac),
            Input::InterfaceGone { index, family } => self.gone(index, family),
        }
    }

    /// Makes everything that is due at `now` ready to be polled. Late and repeated calls do no harm.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = Some(now);
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(due, _)| *due)
    }

    /// The next thing to do; poll until there is none.
    pub fn poll_output(&mut self) -> Option<Output> {
        while let Some(output) = self.outputs.pop_front() {
            match &output {
                // Released between its request and its reply.
                Output::Send { ip, ifindex, what, .. } if self.does(*ip, *ifindex) != Some(*what) => {}
                _ => return Some(output),
            }
        }
        let now = self.now?;
        let &(due, key) = self.deadlines.first().filter(|(due, _)| *due <= now)?;
        self.deadlines.remove(&(due, key));
        let what = self.advance(now, key)?;
        self.say(what, key);
        self.outputs.pop_front()
    }

    fn does(&self, ip: IpAddr, index: u32) -> Option<What> {
        self.schedules.get(&(ip, index)).map(|schedule| schedule.what)
    }

    /// The duty for one address differs.
    fn change(&mut self, now: Instant, ip: IpAddr, old: Option<&Duty>, new: Option<&Duty>) {
        let empty = BTreeSet::new();
        let before = old.map_or(&empty, |duty| &duty.interfaces);
        let after = new.map_or(&empty, |duty| &duty.interfaces);
        for index in before.difference(after) {
            self.stop((ip, *index));
            self.listen((ip, *index), old.map(listens), None);
        }
        for index in after {
            let was = old.filter(|_| before.contains(index));
            let key = (ip, *index);
            self.listen(key, was.map(listens), new.map(listens));
            let Some((new, what)) = new.and_then(|new| what(new.mode).map(|what| (new, what))) else {
                self.stop(key);
                continue;
            };
            if self.does(ip, *index) != Some(what) || was.is_some_and(|was| was.round != new.round) {
                self.start(now, key, what);
            } else if what == What::Announcement && was.is_some_and(|was| was.defence != new.defence) {
                self.say(what, key);
            }
        }
    }

    fn interface(&mut self, now: Instant, index: u32, family: Family, mac: Mac) {
        let before = self.macs.insert((index, family), mac);
        if before == Some(mac) {
            return;
        }
        let duties = Arc::clone(&self.duties);
        for (ip, duty) in on(&duties, index, family) {
            if before.is_none() {
                self.listen((ip, index), None, Some(listens(duty)));
            }
            if let Some(what) = what(duty.mode) {
                self.start(now, (ip, index), what);
            }
        }
    }

    fn gone(&mut self, index: u32, family: Family) {
        self.macs.remove(&(index, family));
        if family == Family::V6 {
            // The kernel has left these groups already.
            self.members.retain(|group, _| group.ifindex != index);
        }
        self.outputs.retain(|output| output.place() != (index, family));
        let duties = Arc::clone(&self.duties);
        for (ip, _) in on(&duties, index, family) {
            self.stop((ip, index));
        }
    }

    /// Starts the schedule of an address on an interface, when it is known, or starts it anew.
    fn start(&mut self, now: Instant, key: Key, what: What) {
        if !self.knows(key) {
            return;
        }
        self.stop(key);
        self.schedules.insert(key, Schedule { what, since: now, due: Some(now) });
        self.deadlines.insert((now, key));
    }

    /// Ends the schedule of an address on an interface.
    fn stop(&mut self, key: Key) {
        if let Some(due) = self.schedules.remove(&key).and_then(|schedule| schedule.due) {
            self.deadlines.remove(&(due, key));
        }
    }

    /// Sets the deadline after `now`, and says what the present one was for.
    fn advance(&mut self, now: Instant, key: Key) -> Option<What> {
        let schedule = self.schedules.get_mut(&key)?;
        schedule.due = match schedule.what {
            What::Announcement => next(schedule.since, now, self.settings.refresh, key),
            What::Probe => next_probe(schedule.since, now, self.settings.probing),
        };
        if let Some(due) = schedule.due {
            self.deadlines.insert((due, key));
        }
        Some(schedule.what)
    }

    /// Puts the frames of one announcement or of one probe in the queue.
    fn say(&mut self, what: What, (ip, ifindex): Key) {
        let Some(&mac) = self.macs.get(&(ifindex, Family::of(ip))) else { return };
        let frames = match (ip, what) {
            (IpAddr::V4(ip), What::Announcement) => {
                [Some(Arp::gratuitous_request(ip, mac).emit()), Some(Arp::gratuitous_reply(ip, mac).emit())]
            }
            (IpAddr::V4(ip), What::Probe) => [Some(Arp::probe(ip, mac).emit()), None],
            (IpAddr::V6(ip), What::Announcement) => [Some(Advertisement::unsolicited(ip, mac).emit()), None],
            (IpAddr::V6(ip), What::Probe) => [Some(Solicitation::probe(ip, mac).emit()), None],
        };
        let sends = frames.into_iter().flatten().map(|frame| Output::Send { ifindex, ip, what, frame });
        self.outputs.extend(sends);
    }

    /// Joins or leaves the group of an address when it is the first or the last that needs it.
    fn listen(&mut self, key: Key, before: Option<bool>, after: Option<bool>) {
        let (before, after) = (before == Some(true), after == Some(true));
        let Some(group) = group_of(key).filter(|_| before != after && self.knows(key)) else { return };
        let members = self.members.entry(group).or_default();
        if after {
            *members += 1;
            if *members == 1 {
                self.outputs.push_back(Output::Join(group));
            }
        } else {
            *members = members.saturating_sub(1);
            if *members == 0 {
                self.members.remove(&group);
                self.outputs.push_back(Output::Leave(group));
            }
        }
    }

    fn knows(&self, (ip, index): Key) -> bool {
        self.macs.contains_key(&(index, Family::of(ip)))
    }
}

impl Output {
    fn place(&self) -> (u32, Family) {
        match self {
            Self::Send { ifindex, ip, .. } => (*ifindex, Family::of(*ip)),
            Self::Join(group) | Self::Leave(group) => (group.ifindex, Family::V6),
        }
    }
}

/// Whether questions for it shall reach us. Not those for an address that is only listened for: the claims that count
/// then come to all nodes or by broadcast, and a hundred nodes in the group of an address would all be asked for it.
fn listens(duty: &Duty) -> bool {
    duty.mode != Mode::Listen
}

/// What is sent about it unasked.
fn what(mode: Mode) -> Option<What> {
    match mode {
        Mode::Listen | Mode::Answer => None,
        Mode::Probe => Some(What::Probe),
        Mode::Announce => Some(What::Announcement),
    }
}

/// The duties of a family on an interface. Looks at all of them, once per change of an interface.
fn on(duties: &Duties, index: u32, family: Family) -> impl Iterator<Item = (IpAddr, &Duty)> {
    let here =
        move |(ip, duty): &(&IpAddr, &Duty)| Family::of(**ip) == family && duty.interfaces.contains(&index);
    duties.iter().filter(here).map(|(ip, duty)| (*ip, duty))
}

fn group_of((ip, ifindex): Key) -> Option<Group> {
    match ip {
        IpAddr::V4(_) => None,
        IpAddr::V6(ip) => {
            let group = solicited_node(ip);
            Some(Group { ifindex, group, mac: group_mac(group) })
        }
    }
}

/// The first deadline after `now` of probes that began at `since`.
fn next_probe(since: Instant, now: Instant, probing: Probing) -> Option<Instant> {
    let elapsed = now.saturating_duration_since(since);
    let mut offsets = (1..probing.count).map(|n| probing.interval.saturating_mul(n));
    since.checked_add(offsets.find(|offset| *offset > elapsed)?)
}

/// The first deadline after `now` of a schedule that began at `since`.
fn next(since: Instant, now: Instant, refresh: Option<Duration>, key: Key) -> Option<Instant> {
    let elapsed = now.saturating_duration_since(since);
    let mut offsets = SCHEDULE.iter().map(|millis| Duration::from_millis(*millis));
    if let Some(offset) = offsets.find(|offset| *offset > elapsed) {
        return since.checked_add(offset);
    }
    let refresh = refresh.filter(|refresh| !refresh.is_zero())?.as_nanos();
    let through = u128::from(SCHEDULE.last().copied().unwrap_or(0)) * 1_000_000;
    // Somewhere in the first interval, the same place each time: addresses claimed together are not refreshed together.
    let phase = (refresh * (u128::from(spread(key)) + 1)) >> 32;
    let first = through + phase;
    let periods = elapsed.as_nanos().checked_sub(first).map_or(0, |behind| behind / refresh + 1);
    let offset = u64::try_from(first + periods * refresh).ok()?;
    since.checked_add(Duration::from_nanos(offset))
}

/// FNV-1a over address and interface, folded to 32 bits.
fn spread((ip, index): Key) -> u32 {
    let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    let hash = match ip {
        IpAddr::V4(ip) => ip.octets().iter().fold(0xcbf2_9ce4_8422_2325, fold),
        IpAddr::V6(ip) => ip.octets().iter().fold(0xcbf2_9ce4_8422_2325, fold),
    };
    let hash = index.to_be_bytes().iter().fold(hash, fold);
    ((hash >> 32) ^ (hash & 0xffff_ffff)) as u32
}

#[cfg(test)]
mod tests;
