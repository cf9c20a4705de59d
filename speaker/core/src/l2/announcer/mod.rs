//! When an announcement is repeated, and which groups an interface listens to.
//!
//! Sans-IO: [`handle`](Announcer::handle) what happened, sleep until [`poll_timeout`](Announcer::poll_timeout), call
//! [`handle_timeout`](Announcer::handle_timeout), and after each of them drain [`poll_output`](Announcer::poll_output).
//!
//! Each (address, interface) has a schedule of its own, so that an interface that appears later, or comes back with
//! another MAC, is announced on from the start:
//!
//! ```text
//! claim ──> 0  100  300  1000 ms ──> 2 s  3 s  4 s  5 s ──> every 60 s (Settings::refresh)
//! ```
//!
//! The first four find switches and caches that lost one frame; the next ones those that learn slowly; the refresh
//! keeps entries of switches and routers from ageing out. Refreshes of many addresses are spread over the interval.
//! Deadlines that passed while nobody called are skipped, not made up for: one announcement is worth as much as three.
//!
//! Ten thousand addresses are ten thousand entries in an ordered set: a step costs O(log n), nothing is scanned, and
//! frames are built one at a time, when they are polled.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use super::wire::Mac;
use super::wire::arp::Arp;
use super::wire::ndp::{Advertisement, group_mac, solicited_node};
use crate::intent::L2Announcement;

/// Offsets from the claim, in milliseconds: the burst, then each second to the fifth.
const SCHEDULE: [u64; 8] = [0, 100, 300, 1000, 2000, 3000, 4000, 5000];

/// What can be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Time between announcements once the schedule is through; `None`: no more of them.
    pub refresh: Option<Duration>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { refresh: Some(Duration::from_secs(60)) }
    }
}

/// Something happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// From now on `ip` is announced on exactly these interfaces. Schedules that run already run on; after
    /// [`Input::Quiet`] they start anew.
    Claim {
        /// The address.
        ip: IpAddr,
        /// Kernel indexes; interfaces that are not known yet start when they are.
        interfaces: BTreeSet<u32>,
    },
    /// `ip` is announced no more, but still listened for: its successor announces it, and ours would win caches back.
    /// Nothing happens when `ip` is not claimed.
    Quiet {
        /// The address.
        ip: IpAddr,
    },
    /// `ip` is announced no more.
    Release {
        /// The address.
        ip: IpAddr,
    },
    /// An interface is there with this MAC. With another MAC than before, all its schedules start anew.
    Interface {
        /// Kernel index.
        index: u32,
        /// Its MAC.
        mac: Mac,
    },
    /// An interface is gone, and its group memberships with it: no [`Output::Leave`] follows.
    InterfaceGone {
        /// Kernel index.
        index: u32,
    },
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a frame.
    Send {
        /// On which interface.
        ifindex: u32,
        /// The address that it announces.
        ip: IpAddr,
        /// A whole Ethernet frame.
        frame: Vec<u8>,
    },
    /// Listen to a solicited-node group. Always before the first announcement of its addresses.
    ///
    /// Join with `IPV6_ADD_MEMBERSHIP` on an IPv6 socket rather than with `PACKET_ADD_MEMBERSHIP`: it sends the MLD report
    /// that snooping switches need (RFC 4862 5.4.2) and sets the same hardware filter. Memberships per socket are
    /// limited (`net.core.optmem_max`).
    Join(Group),
    /// Stop listening to it.
    Leave(Group),
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

/// Announces the addresses that this node leads.
#[derive(Clone, Debug, Default)]
pub struct Announcer {
    settings: Settings,
    /// Latest time that we were told.
    now: Option<Instant>,
    macs: BTreeMap<u32, Mac>,
    claims: BTreeMap<IpAddr, BTreeSet<u32>>,
    /// Those of the claims that are listened for only.
    quiet: BTreeSet<IpAddr>,
    /// Only for claims on interfaces that are known.
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
    since: Instant,
    /// Also in `deadlines`. `None`: quiet, or the schedule is through and there is no refresh.
    due: Option<Instant>,
}

impl Announcer {
    /// One that announces nothing yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings, ..Self::default() }
    }

    /// The inputs that lead from what is claimed to what an [`Intent`](crate::intent::Intent) says; none when nothing
    /// changed.
    #[must_use]
    pub fn diff(&self, wanted: &BTreeMap<IpAddr, L2Announcement>) -> Vec<Input> {
        self.diff_with_quiet(wanted, &BTreeSet::new())
    }

    /// [`diff`](Self::diff), where `quiet` are those of `wanted` that are answered for but not announced: a successor is
    /// taking them over.
    #[must_use]
    pub fn diff_with_quiet(
        &self,
        wanted: &BTreeMap<IpAddr, L2Announcement>,
        quiet: &BTreeSet<IpAddr>,
    ) -> Vec<Input> {
        let released = self.claims.keys().filter(|ip| !wanted.contains_key(ip));
        let mut inputs: Vec<Input> = released.map(|ip| Input::Release { ip: *ip }).collect();
        for (ip, wanted) in wanted {
            let (is_quiet, shall_be) = (self.quiet.contains(ip), quiet.contains(ip));
            if self.claims.get(ip) != Some(&*wanted.interfaces) || (is_quiet && !shall_be) {
                inputs.push(Input::Claim { ip: *ip, interfaces: (*wanted.interfaces).clone() });
                // A claim speaks up; in the same breath as this it does not come to that.
                inputs.extend(shall_be.then_some(Input::Quiet { ip: *ip }));
            } else if shall_be && !is_quiet {
                inputs.push(Input::Quiet { ip: *ip });
            }
        }
        inputs
    }

    /// Takes note of what happened at `now`.
    pub fn handle(&mut self, now: Instant, input: Input) {
        self.now = Some(now);
        match input {
            Input::Claim { ip, interfaces } => self.claim(now, ip, interfaces),
            Input::Quiet { ip } => self.hush(ip),
            Input::Release { ip } => self.claim(now, ip, BTreeSet::new()),
            Input::Interface { index, mac } => {
                if self.macs.insert(index, mac) != Some(mac) {
                    for ip in self.claimed_on(index) {
                        self.start(now, ip, index);
                    }
                }
            }
            Input::InterfaceGone { index } => {
                self.macs.remove(&index);
                // Forgotten before the schedules stop: the kernel has left these groups already.
                self.members.retain(|group, _| group.ifindex != index);
                self.outputs.retain(|output| output.ifindex() != index);
                for ip in self.claimed_on(index) {
                    self.stop(ip, index);
                }
            }
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
                Output::Send { ip, ifindex, .. } if !self.announces(*ip, *ifindex) => {}
                _ => return Some(output),
            }
        }
        let now = self.now?;
        let &(due, key) = self.deadlines.first().filter(|(due, _)| *due <= now)?;
        self.deadlines.remove(&(due, key));
        self.advance(now, key);
        let (ip, ifindex) = key;
        let mac = *self.macs.get(&ifindex)?;
        let send = |frame| Output::Send { ifindex, ip, frame };
        match ip {
            IpAddr::V4(ip) => {
                self.outputs.push_back(send(Arp::gratuitous_reply(ip, mac).emit()));
                Some(send(Arp::gratuitous_request(ip, mac).emit()))
            }
            IpAddr::V6(ip) => Some(send(Advertisement::unsolicited(ip, mac).emit())),
        }
    }

    fn announces(&self, ip: IpAddr, index: u32) -> bool {
        self.schedules.contains_key(&(ip, index)) && !self.quiet.contains(&ip)
    }

    fn claim(&mut self, now: Instant, ip: IpAddr, interfaces: BTreeSet<u32>) {
        let before = self.claims.remove(&ip).unwrap_or_default();
        let was_quiet = self.quiet.remove(&ip);
        for index in before.difference(&interfaces) {
            self.stop(ip, *index);
        }
        for index in interfaces.iter().filter(|index| was_quiet || !before.contains(index)) {
            self.start(now, ip, *index);
        }
        if !interfaces.is_empty() {
            self.claims.insert(ip, interfaces);
        }
    }

    fn hush(&mut self, ip: IpAddr) {
        let Some(interfaces) = self.claims.get(&ip) else { return };
        self.quiet.insert(ip);
        for index in interfaces {
            if let Some(due) = self.schedules.get_mut(&(ip, *index)).and_then(|schedule| schedule.due.take())
            {
                self.deadlines.remove(&(due, (ip, *index)));
            }
        }
    }

    /// Starts the schedule of an address on an interface that is known, or starts it anew.
    fn start(&mut self, now: Instant, ip: IpAddr, index: u32) {
        if !self.macs.contains_key(&index) {
            return;
        }
        let key = (ip, index);
        let due = (!self.quiet.contains(&ip)).then_some(now);
        let before = self.schedules.insert(key, Schedule { since: now, due });
        if let Some(due) = before.and_then(|schedule| schedule.due) {
            self.deadlines.remove(&(due, key));
        }
        if let Some(due) = due {
            self.deadlines.insert((due, key));
        }
        if let (None, Some(group)) = (before, group_of(ip, index)) {
            let members = self.members.entry(group).or_default();
            *members += 1;
            if *members == 1 {
                self.outputs.push_back(Output::Join(group));
            }
        }
    }

    /// Ends the schedule of an address on an interface.
    fn stop(&mut self, ip: IpAddr, index: u32) {
        let Some(schedule) = self.schedules.remove(&(ip, index)) else { return };
        if let Some(due) = schedule.due {
            self.deadlines.remove(&(due, (ip, index)));
        }
        let Some(group) = group_of(ip, index) else { return };
        let Some(members) = self.members.get_mut(&group) else { return };
        *members -= 1;
        if *members == 0 {
            self.members.remove(&group);
            self.outputs.push_back(Output::Leave(group));
        }
    }

    /// Sets the deadline after `now`.
    fn advance(&mut self, now: Instant, key: Key) {
        let Some(schedule) = self.schedules.get_mut(&key) else { return };
        schedule.due = next(schedule.since, now, self.settings.refresh, key);
        if let Some(due) = schedule.due {
            self.deadlines.insert((due, key));
        }
    }

    /// The addresses claimed on an interface, known or not. Looks at all of them, once per change of an interface.
    fn claimed_on(&self, index: u32) -> Vec<IpAddr> {
        let claims = self.claims.iter().filter(|(_, interfaces)| interfaces.contains(&index));
        claims.map(|(ip, _)| *ip).collect()
    }
}

impl Output {
    fn ifindex(&self) -> u32 {
        match self {
            Self::Send { ifindex, .. } => *ifindex,
            Self::Join(group) | Self::Leave(group) => group.ifindex,
        }
    }
}

fn group_of(ip: IpAddr, ifindex: u32) -> Option<Group> {
    match ip {
        IpAddr::V4(_) => None,
        IpAddr::V6(ip) => {
            let group = solicited_node(ip);
            Some(Group { ifindex, group, mac: group_mac(group) })
        }
    }
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
