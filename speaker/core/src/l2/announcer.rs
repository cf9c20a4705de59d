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
    /// From now on `ip` is announced on exactly these interfaces. Schedules that run already run on.
    Claim {
        /// The address.
        ip: IpAddr,
        /// Kernel indexes; interfaces that are not known yet start when they are.
        interfaces: BTreeSet<u32>,
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
    /// Also in `deadlines`. `None`: the schedule is through, and there is no refresh.
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
        let released = self.claims.keys().filter(|ip| !wanted.contains_key(ip));
        let changed = wanted.iter().filter(|(ip, wanted)| self.claims.get(ip) != Some(&wanted.interfaces));
        released
            .map(|ip| Input::Release { ip: *ip })
            .chain(
                changed.map(|(ip, wanted)| Input::Claim { ip: *ip, interfaces: wanted.interfaces.clone() }),
            )
            .collect()
    }

    /// Takes note of what happened at `now`.
    pub fn handle(&mut self, now: Instant, input: Input) {
        self.now = Some(now);
        match input {
            Input::Claim { ip, interfaces } => self.claim(now, ip, interfaces),
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
                Output::Send { ip, ifindex, .. } if !self.schedules.contains_key(&(*ip, *ifindex)) => {}
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

    fn claim(&mut self, now: Instant, ip: IpAddr, interfaces: BTreeSet<u32>) {
        let before = self.claims.remove(&ip).unwrap_or_default();
        for index in before.difference(&interfaces) {
            self.stop(ip, *index);
        }
        for index in interfaces.difference(&before) {
            self.start(now, ip, *index);
        }
        if !interfaces.is_empty() {
            self.claims.insert(ip, interfaces);
        }
    }

    /// Starts the schedule of an address on an interface that is known, or starts it anew.
    fn start(&mut self, now: Instant, ip: IpAddr, index: u32) {
        if !self.macs.contains_key(&index) {
            return;
        }
        match self.schedules.insert((ip, index), Schedule { since: now, due: Some(now) }) {
            Some(Schedule { due: Some(due), .. }) => {
                self.deadlines.remove(&(due, (ip, index)));
            }
            Some(_) => {}
            None => {
                if let Some(group) = group_of(ip, index) {
                    let members = self.members.entry(group).or_default();
                    *members += 1;
                    if *members == 1 {
                        self.outputs.push_back(Output::Join(group));
                    }
                }
            }
        }
        self.deadlines.insert((now, (ip, index)));
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
mod tests {
    use proptest::prelude::*;

    use super::super::wire::arp::Operation;
    use super::super::wire::ndp::Message;
    use super::*;

    const MAC: Mac = [2, 0, 0, 0, 0, 9];

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// The machine under a virtual clock that starts at 0 ms.
    struct Bench {
        announcer: Announcer,
        start: Instant,
    }

    impl Bench {
        fn new(refresh: Option<u64>) -> Self {
            let settings = Settings { refresh: refresh.map(Duration::from_secs) };
            // Any instant will do as the origin of a virtual clock.
            #[allow(clippy::disallowed_methods)]
            let start = Instant::now();
            let mut bench = Self { announcer: Announcer::new(settings), start };
            bench.input(0, Input::Interface { index: 3, mac: MAC });
            bench
        }

        fn at(&self, millis: u64) -> Instant {
            self.start + Duration::from_millis(millis)
        }

        fn input(&mut self, millis: u64, input: Input) -> Vec<Output> {
            self.announcer.handle(self.at(millis), input);
            self.drain()
        }

        fn claim(&mut self, millis: u64, address: &str, interfaces: &[u32]) -> Vec<Output> {
            let interfaces = interfaces.iter().copied().collect();
            self.input(millis, Input::Claim { ip: ip(address), interfaces })
        }

        fn drain(&mut self) -> Vec<Output> {
            std::iter::from_fn(|| self.announcer.poll_output()).collect()
        }

        /// Runs from deadline to deadline; the time of each frame, in ms.
        fn run(&mut self, until: u64) -> Vec<(u64, Output)> {
            let mut all = Vec::new();
            while let Some(due) = self.announcer.poll_timeout().filter(|due| *due <= self.at(until)) {
                self.announcer.handle_timeout(due);
                let millis = u64::try_from(due.duration_since(self.start).as_millis()).unwrap();
                all.extend(self.drain().into_iter().map(|output| (millis, output)));
            }
            all
        }

        fn times(&mut self, until: u64) -> Vec<u64> {
            let mut times: Vec<u64> = self.run(until).into_iter().map(|(at, _)| at).collect();
            times.dedup();
            times
        }
    }

    fn join(address: &str, ifindex: u32) -> Output {
        Output::Join(group_of(ip(address), ifindex).unwrap())
    }

    fn leave(address: &str, ifindex: u32) -> Output {
        Output::Leave(group_of(ip(address), ifindex).unwrap())
    }

    #[test]
    fn a_claim_is_announced_at_once_as_request_and_as_reply() {
        let outputs = Bench::new(None).claim(0, "192.0.2.1", &[3]);
        let operations: Vec<_> = outputs
            .iter()
            .map(|output| match output {
                Output::Send { ifindex: 3, frame, .. } => Arp::parse(frame).unwrap(),
                other => panic!("{other:?}"),
            })
            .inspect(|arp| assert!(arp.is_announcement() && arp.sender_mac == MAC))
            .map(|arp| arp.operation)
            .collect();
        assert_eq!(operations, [Operation::Request, Operation::Reply]);
    }

    #[test]
    fn an_ipv6_claim_joins_its_group_and_advertises() {
        let outputs = Bench::new(None).claim(0, "2001:db8::1", &[3]);
        let [first, Output::Send { frame, .. }] = outputs.as_slice() else { panic!("{outputs:?}") };
        assert_eq!(*first, join("2001:db8::1", 3));
        let Ok(Message::Advertisement(advertisement)) = Message::parse(frame) else { panic!("{frame:?}") };
        assert_eq!((advertisement.solicited, advertisement.replaces), (false, true));
        assert_eq!(advertisement.target_link_layer, Some(MAC));
    }

    #[test]
    fn the_schedule_is_a_burst_then_seconds_then_silence() {
        let mut bench = Bench::new(None);
        assert_eq!(bench.claim(0, "192.0.2.1", &[3]).len(), 2);
        assert_eq!(bench.times(3_600_000), [100, 300, 1000, 2000, 3000, 4000, 5000]);
        assert_eq!(bench.announcer.poll_timeout(), None);
    }

    #[test]
    fn the_refresh_comes_once_per_interval() {
        let mut bench = Bench::new(Some(60));
        bench.claim(0, "192.0.2.1", &[3]);
        let times = bench.times(5000 + 3_600_000);
        let (schedule, refreshes) = times.split_at(7);
        assert_eq!(schedule.last(), Some(&5000));
        assert_eq!(refreshes.len(), 60);
        assert!(refreshes[0] > 5000 && refreshes[0] <= 65_000);
        assert!(refreshes.windows(2).all(|pair| pair[1] - pair[0] == 60_000), "{refreshes:?}");
    }

    #[test]
    fn refreshes_of_many_are_spread() {
        let mut bench = Bench::new(Some(60));
        for i in 0..6000u32 {
            let ip = IpAddr::from((0x0a00_0000 + i).to_be_bytes());
            bench.input(0, Input::Claim { ip, interfaces: [3].into() });
        }
        bench.run(5000);
        let mut per_second = BTreeMap::<u64, usize>::new();
        for (at, _) in bench.run(65_000) {
            *per_second.entry(at / 1000).or_default() += 1;
        }
        // 12,000 frames in 60 s are 200 per second on average.
        assert_eq!(per_second.values().sum::<usize>(), 12_000);
        assert!(per_second.values().all(|n| *n < 400), "{per_second:?}");
    }

    #[test]
    fn late_calls_skip_and_repeated_calls_do_nothing() {
        let mut bench = Bench::new(None);
        bench.claim(0, "192.0.2.1", &[3]);
        bench.announcer.handle_timeout(bench.at(2500));
        assert_eq!(bench.drain().len(), 2, "100, 300, 1000 and 2000 ms have passed: one announcement");
        bench.announcer.handle_timeout(bench.at(2500));
        assert_eq!(bench.drain(), []);
        assert_eq!(bench.times(60_000), [3000, 4000, 5000]);
    }

    #[test]
    fn the_same_claim_again_changes_nothing() {
        let mut bench = Bench::new(None);
        bench.claim(0, "192.0.2.1", &[3]);
        assert_eq!(bench.claim(50, "192.0.2.1", &[3]), []);
        let wanted =
            [(ip("192.0.2.1"), L2Announcement { interfaces: [3].into(), services: [].into() })].into();
        assert_eq!(bench.announcer.diff(&wanted), []);
        assert_eq!(bench.times(5000), [100, 300, 1000, 2000, 3000, 4000, 5000]);
    }

    #[test]
    fn diff_leads_to_what_is_wanted() {
        let mut bench = Bench::new(None);
        bench.claim(0, "192.0.2.1", &[3]);
        bench.claim(0, "192.0.2.2", &[3]);
        let wanted = [
            (ip("192.0.2.2"), L2Announcement { interfaces: [3, 4].into(), services: [].into() }),
            (ip("192.0.2.3"), L2Announcement { interfaces: [3].into(), services: [].into() }),
        ]
        .into();
        let inputs = bench.announcer.diff(&wanted);
        let expected = [
            Input::Release { ip: ip("192.0.2.1") },
            Input::Claim { ip: ip("192.0.2.2"), interfaces: [3, 4].into() },
            Input::Claim { ip: ip("192.0.2.3"), interfaces: [3].into() },
        ];
        assert_eq!(inputs, expected);
        for input in inputs {
            bench.input(0, input);
        }
        assert_eq!(bench.announcer.diff(&wanted), []);
    }

    #[test]
    fn a_release_silences_even_between_request_and_reply() {
        let mut bench = Bench::new(Some(60));
        let claim = Input::Claim { ip: ip("192.0.2.1"), interfaces: [3].into() };
        bench.announcer.handle(bench.at(0), claim);
        assert!(bench.announcer.poll_output().is_some());
        assert_eq!(bench.input(0, Input::Release { ip: ip("192.0.2.1") }), []);
        assert_eq!(bench.announcer.poll_timeout(), None);
    }

    #[test]
    fn a_shared_group_is_joined_once_and_left_with_its_last_address() {
        // The same low 24 bits, so the same solicited-node group.
        let (one, two) = ("2001:db8::1", "2001:db8:1::1");
        let mut bench = Bench::new(None);
        assert!(bench.claim(0, one, &[3]).contains(&join(one, 3)));
        assert!(!bench.claim(0, two, &[3]).contains(&join(one, 3)));
        assert_eq!(bench.input(0, Input::Release { ip: ip(one) }), []);
        assert_eq!(bench.input(0, Input::Release { ip: ip(two) }), [leave(two, 3)]);
    }

    #[test]
    fn an_interface_that_appears_later_joins_and_announces() {
        let address = "2001:db8::1";
        let mut bench = Bench::new(None);
        assert_eq!(bench.claim(0, address, &[7]), []);
        let outputs = bench.input(10_000, Input::Interface { index: 7, mac: MAC });
        assert_eq!(outputs[0], join(address, 7));
        assert_eq!(bench.times(60_000).first(), Some(&10_100));
    }

    #[test]
    fn a_new_mac_starts_anew_without_leaving_the_group() {
        let mut bench = Bench::new(None);
        bench.claim(0, "2001:db8::1", &[3]);
        bench.run(60_000);
        assert_eq!(bench.input(60_000, Input::Interface { index: 3, mac: MAC }), []);
        let outputs = bench.input(60_000, Input::Interface { index: 3, mac: [2, 0, 0, 0, 0, 8] });
        let [Output::Send { frame, .. }] = outputs.as_slice() else { panic!("{outputs:?}") };
        assert_eq!(frame[6..12], [2, 0, 0, 0, 0, 8]);
        assert_eq!(bench.times(70_000).len(), 7);
    }

    #[test]
    fn a_gone_interface_is_forgotten_and_joined_again_when_it_comes_back() {
        let address = "2001:db8::1";
        let mut bench = Bench::new(Some(60));
        bench.claim(0, address, &[3]);
        assert_eq!(bench.input(10, Input::InterfaceGone { index: 3 }), []);
        assert_eq!(bench.announcer.poll_timeout(), None);
        assert_eq!(bench.input(20, Input::Interface { index: 3, mac: MAC })[0], join(address, 3));
        bench.input(30, Input::InterfaceGone { index: 3 });
        assert_eq!(bench.input(40, Input::Release { ip: ip(address) }), [], "the kernel has left already");
    }

    fn inputs() -> impl Strategy<Value = Vec<(u64, Input)>> {
        let address = (0u8..6)
            .prop_map(|n| if n < 3 { IpAddr::from([192, 0, 2, n]) } else { ip(&format!("2001:db8:{n}::1")) });
        let interfaces = proptest::collection::btree_set(3u32..6, 0..3);
        let input = prop_oneof![
            (address.clone(), interfaces).prop_map(|(ip, interfaces)| Input::Claim { ip, interfaces }),
            address.prop_map(|ip| Input::Release { ip }),
            (3u32..6, 0u8..2).prop_map(|(index, n)| Input::Interface { index, mac: [2, 0, 0, 0, 0, n] }),
            (3u32..6).prop_map(|index| Input::InterfaceGone { index }),
        ];
        proptest::collection::vec((0u64..3000, input), 0..40)
    }

    proptest! {
        /// Whatever happens: groups are joined exactly while an address needs them on a known interface, only claimed
        /// addresses are sent, from the current MAC, and every claim on a known interface has a deadline.
        #[test]
        fn groups_and_frames_follow_the_claims(inputs in inputs()) {
            let mut bench = Bench::new(Some(60));
            let mut joined = BTreeSet::new();
            let mut live = BTreeSet::<Key>::new();
            let mut clock = 0;
            for (pause, input) in inputs {
                clock += pause;
                for (_, output) in bench.run(clock) {
                    let Output::Send { ip, ifindex, .. } = output else { panic!("{output:?}") };
                    prop_assert!(live.contains(&(ip, ifindex)), "{} on {}", ip, ifindex);
                }
                if let Input::InterfaceGone { index } = input {
                    joined.retain(|group: &Group| group.ifindex != index);
                }
                let outputs = bench.input(clock, input);
                let announcer = &bench.announcer;
                live = announcer
                    .claims
                    .iter()
                    .flat_map(|(ip, interfaces)| interfaces.iter().map(|index| (*ip, *index)))
                    .filter(|(_, index)| announcer.macs.contains_key(index))
                    .collect();
                for output in outputs {
                    match output {
                        Output::Join(group) => prop_assert!(joined.insert(group), "joined twice: {:?}", group),
                        Output::Leave(group) => prop_assert!(joined.remove(&group), "not joined: {:?}", group),
                        Output::Send { ip, ifindex, frame } => {
                            prop_assert!(live.contains(&(ip, ifindex)));
                            prop_assert_eq!(&frame[6..12], &announcer.macs[&ifindex]);
                        }
                    }
                }
                let groups: BTreeSet<Group> =
                    live.iter().filter_map(|(ip, index)| group_of(*ip, *index)).collect();
                prop_assert_eq!(&joined, &groups);
                let scheduled: BTreeSet<Key> = announcer.deadlines.iter().map(|(_, key)| *key).collect();
                prop_assert_eq!(&scheduled, &live);
                prop_assert_eq!(announcer.deadlines.len(), live.len());
            }
        }
    }
}
