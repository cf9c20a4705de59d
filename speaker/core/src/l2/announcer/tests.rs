//! The announcer under a virtual clock.

use proptest::prelude::*;

use super::*;
use crate::l2::wire::arp::Operation;
use crate::l2::wire::ndp::Message;

const MAC: Mac = [2, 0, 0, 0, 0, 9];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The machine under a virtual clock that starts at 0 ms, on an interface 3 that speaks both families.
struct Bench {
    announcer: Announcer,
    duties: Duties,
    start: Instant,
}

impl Bench {
    fn new(refresh: Option<u64>) -> Self {
        let probing = Probing { count: 3, interval: Duration::from_millis(200) };
        let settings = Settings { refresh: refresh.map(Duration::from_secs), probing };
        // Any instant will do as the origin of a virtual clock.
        #[allow(clippy::disallowed_methods)]
        let start = Instant::now();
        let mut bench = Self { announcer: Announcer::new(settings), duties: Duties::new(), start };
        bench.up(0, 3, MAC);
        bench
    }

    fn at(&self, millis: u64) -> Instant {
        self.start + Duration::from_millis(millis)
    }

    fn input(&mut self, millis: u64, input: Input) -> Vec<Output> {
        self.announcer.handle(self.at(millis), input);
        self.drain()
    }

    fn up(&mut self, millis: u64, index: u32, mac: Mac) -> Vec<Output> {
        let families = [Family::V4, Family::V6];
        families
            .iter()
            .flat_map(|family| self.input(millis, Input::Interface { index, family: *family, mac }))
            .collect()
    }

    fn down(&mut self, millis: u64, index: u32) -> Vec<Output> {
        let families = [Family::V4, Family::V6];
        families
            .iter()
            .flat_map(|family| self.input(millis, Input::InterfaceGone { index, family: *family }))
            .collect()
    }

    fn set(&mut self, millis: u64, address: &str, interfaces: &[u32], mode: Mode) -> Vec<Output> {
        let interfaces = Arc::new(interfaces.iter().copied().collect());
        self.duties.insert(ip(address), Duty { interfaces, mode, round: 0, defence: 0 });
        self.tell(millis)
    }

    fn claim(&mut self, millis: u64, address: &str, interfaces: &[u32]) -> Vec<Output> {
        self.set(millis, address, interfaces, Mode::Announce)
    }

    fn alter(&mut self, millis: u64, address: &str, alter: impl FnOnce(&mut Duty)) -> Vec<Output> {
        alter(self.duties.get_mut(&ip(address)).unwrap());
        self.tell(millis)
    }

    fn release(&mut self, millis: u64, address: &str) -> Vec<Output> {
        self.duties.remove(&ip(address)).unwrap();
        self.tell(millis)
    }

    fn tell(&mut self, millis: u64) -> Vec<Output> {
        self.input(millis, Input::Duties(Arc::new(self.duties.clone())))
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
    Output::Join(group_of((ip(address), ifindex)).unwrap())
}

fn leave(address: &str, ifindex: u32) -> Output {
    Output::Leave(group_of((ip(address), ifindex)).unwrap())
}

#[test]
fn a_claim_is_announced_at_once_as_request_and_as_reply() {
    let outputs = Bench::new(None).claim(0, "192.0.2.1", &[3]);
    let operations: Vec<_> = outputs
        .iter()
        .map(|output| match output {
            Output::Send { ifindex: 3, what: What::Announcement, frame, .. } => Arp::parse(frame).unwrap(),
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
fn an_address_is_probed_as_often_as_set_and_then_announced_from_the_start() {
    let (four, six) = ("192.0.2.1", "2001:db8::1");
    let mut bench = Bench::new(None);
    let mut outputs = bench.set(0, four, &[3], Mode::Probe);
    outputs.extend(bench.set(0, six, &[3], Mode::Probe));
    let [
        Output::Send { what: What::Probe, frame, .. },
        group,
        Output::Send { what: What::Probe, frame: ndp, .. },
    ] = outputs.as_slice()
    else {
        panic!("{outputs:?}")
    };
    let arp = Arp::parse(frame).unwrap();
    assert_eq!((arp.sender_ip.is_unspecified(), arp.target_ip.into()), (true, ip(four)));
    // RFC 4862 5.4.2: "Before sending a Neighbor Solicitation, an interface MUST join the all-nodes multicast address and
    // the solicited-node multicast address of the tentative address."
    assert_eq!(*group, join(six, 3));
    let Ok(Message::Solicitation(solicitation)) = Message::parse(ndp) else { panic!("{ndp:?}") };
    assert!(solicitation.is_probe() && solicitation.target == ip(six));
    assert_eq!(bench.times(60_000), [200, 400]);
    assert_eq!(bench.alter(70_000, six, |duty| duty.mode = Mode::Announce).len(), 1, "joined already");
    assert_eq!(bench.alter(70_000, four, |duty| duty.mode = Mode::Announce).len(), 2);
    assert_eq!(bench.times(71_000), [70_100, 70_300, 71_000]);
}

#[test]
fn an_address_that_is_listened_for_or_answered_sends_nothing_by_itself() {
    let address = "2001:db8::1";
    let mut bench = Bench::new(Some(60));
    assert_eq!(bench.set(0, address, &[3], Mode::Listen), []);
    assert_eq!(bench.alter(0, address, |duty| duty.mode = Mode::Answer), [join(address, 3)]);
    assert_eq!(bench.announcer.poll_timeout(), None);
    assert_eq!(bench.alter(0, address, |duty| duty.round += 1), []);
    assert_eq!(bench.alter(0, address, |duty| duty.defence += 1), []);
    assert_eq!(bench.alter(0, address, |duty| duty.mode = Mode::Listen), [leave(address, 3)]);
}

#[test]
fn another_round_starts_the_schedule_anew() {
    let mut bench = Bench::new(None);
    bench.claim(0, "192.0.2.1", &[3]);
    assert_eq!(bench.times(60_000).len(), 7);
    assert_eq!(bench.alter(60_000, "192.0.2.1", |duty| duty.round = 7).len(), 2);
    assert_eq!(bench.times(61_000), [60_100, 60_300, 61_000]);
    bench.alter(70_000, "192.0.2.1", |duty| duty.mode = Mode::Probe);
    assert_eq!(bench.times(80_000), [70_200, 70_400]);
    assert_eq!(bench.alter(90_000, "192.0.2.1", |duty| duty.round = 8).len(), 1);
    assert_eq!(bench.times(100_000), [90_200, 90_400]);
}

#[test]
fn a_defence_is_one_announcement_and_leaves_the_schedule_as_it_was() {
    let mut bench = Bench::new(None);
    bench.claim(0, "192.0.2.1", &[3]);
    assert_eq!(bench.alter(50, "192.0.2.1", |duty| duty.defence = 1).len(), 2);
    assert_eq!(bench.alter(60, "192.0.2.1", |duty| duty.defence = 1), []);
    assert_eq!(bench.times(5000), [100, 300, 1000, 2000, 3000, 4000, 5000]);
    // Both at once: the first announcement of the new round is the defence.
    let both = bench.alter(6000, "192.0.2.1", |duty| (duty.round, duty.defence) = (1, 2));
    assert_eq!(both.len(), 2);
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
    let duty = Duty { interfaces: Arc::new([3].into()), mode: Mode::Announce, round: 0, defence: 0 };
    let ips = (0..6000u32).map(|i| IpAddr::from((0x0a00_0000 + i).to_be_bytes()));
    bench.duties = ips.map(|ip| (ip, duty.clone())).collect();
    bench.tell(0);
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
fn the_same_duties_again_change_nothing() {
    let mut bench = Bench::new(None);
    bench.claim(0, "192.0.2.1", &[3]);
    assert_eq!(bench.claim(50, "192.0.2.1", &[3]), []);
    assert_eq!(bench.times(5000), [100, 300, 1000, 2000, 3000, 4000, 5000]);
}

#[test]
fn another_interface_starts_alone() {
    let mut bench = Bench::new(None);
    bench.up(0, 4, [2, 0, 0, 0, 0, 4]);
    bench.claim(0, "192.0.2.1", &[3]);
    assert_eq!(bench.times(150), [100]);
    let outputs = bench.claim(150, "192.0.2.1", &[3, 4]);
    assert!(outputs.iter().all(|output| matches!(output, Output::Send { ifindex: 4, .. })), "{outputs:?}");
    assert_eq!(bench.times(500), [250, 300, 450]);
    assert_eq!(bench.claim(600, "192.0.2.1", &[4]), []);
    assert_eq!(bench.times(2000), [1150]);
}

#[test]
fn a_release_silences_even_between_request_and_reply() {
    let mut bench = Bench::new(Some(60));
    let duty = Duty { interfaces: Arc::new([3].into()), mode: Mode::Announce, round: 0, defence: 0 };
    let duties = Arc::new([(ip("192.0.2.1"), duty)].into());
    bench.announcer.handle(bench.at(0), Input::Duties(duties));
    assert!(bench.announcer.poll_output().is_some());
    assert_eq!(bench.input(0, Input::Duties(Arc::default())), []);
    assert_eq!(bench.announcer.poll_timeout(), None);
}

#[test]
fn a_quiet_address_is_listened_for_but_not_announced() {
    let address = "2001:db8::1";
    let mut bench = Bench::new(Some(60));
    bench.claim(0, address, &[3]);
    assert_eq!(bench.alter(50, address, |duty| duty.mode = Mode::Answer), []);
    assert_eq!(bench.announcer.poll_timeout(), None);
    // Not even when the interface changes; but it joins there.
    bench.down(60, 3);
    assert_eq!(bench.up(70, 3, [2, 0, 0, 0, 0, 8]), [join(address, 3)]);
    // Ours again: from the start, without a second join.
    assert_eq!(bench.claim(80, address, &[3]).len(), 1);
    assert_eq!(bench.times(6000), [180, 380, 1080, 2080, 3080, 4080, 5080]);
    bench.alter(6000, address, |duty| duty.mode = Mode::Answer);
    assert_eq!(bench.release(6000, address), [leave(address, 3)]);
}

#[test]
fn a_shared_group_is_joined_once_and_left_with_its_last_address() {
    // The same low 24 bits, so the same solicited-node group.
    let (one, two) = ("2001:db8::1", "2001:db8:1::1");
    let mut bench = Bench::new(None);
    assert!(bench.claim(0, one, &[3]).contains(&join(one, 3)));
    assert!(!bench.claim(0, two, &[3]).contains(&join(one, 3)));
    assert_eq!(bench.release(0, one), []);
    assert_eq!(bench.release(0, two), [leave(two, 3)]);
}

#[test]
fn an_interface_that_appears_later_joins_and_announces() {
    let address = "2001:db8::1";
    let mut bench = Bench::new(None);
    assert_eq!(bench.claim(0, address, &[7]), []);
    let outputs = bench.up(10_000, 7, MAC);
    assert_eq!(outputs[0], join(address, 7));
    assert_eq!(bench.times(60_000).first(), Some(&10_100));
}

#[test]
fn a_family_that_an_interface_loses_leaves_the_other_alone() {
    let (four, six) = ("192.0.2.1", "2001:db8::1");
    let mut bench = Bench::new(None);
    bench.claim(0, four, &[3]);
    bench.claim(0, six, &[3]);
    assert_eq!(bench.input(50, Input::InterfaceGone { index: 3, family: Family::V6 }), []);
    let addresses: BTreeSet<IpAddr> = bench
        .run(5000)
        .into_iter()
        .map(|(_, output)| match output {
            Output::Send { ip, .. } => ip,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(addresses, [ip(four)].into());
}

#[test]
fn a_new_mac_starts_anew_without_leaving_the_group() {
    let mut bench = Bench::new(None);
    bench.claim(0, "2001:db8::1", &[3]);
    bench.run(60_000);
    assert_eq!(bench.up(60_000, 3, MAC), []);
    let outputs = bench.up(60_000, 3, [2, 0, 0, 0, 0, 8]);
    let [Output::Send { frame, .. }] = outputs.as_slice() else { panic!("{outputs:?}") };
    assert_eq!(frame[6..12], [2, 0, 0, 0, 0, 8]);
    assert_eq!(bench.times(70_000).len(), 7);
}

#[test]
fn a_gone_interface_is_forgotten_and_joined_again_when_it_comes_back() {
    let address = "2001:db8::1";
    let mut bench = Bench::new(Some(60));
    bench.claim(0, address, &[3]);
    assert_eq!(bench.down(10, 3), []);
    assert_eq!(bench.announcer.poll_timeout(), None);
    assert_eq!(bench.up(20, 3, MAC)[0], join(address, 3));
    bench.down(30, 3);
    assert_eq!(bench.release(40, address), [], "the kernel has left already");
}

/// What happens to the world of the property below.
#[derive(Clone, Debug)]
enum Event {
    Set(IpAddr, BTreeSet<u32>, Mode, u32),
    Release(IpAddr),
    Up(u32, Family, Mac),
    Down(u32, Family),
}

fn events() -> impl Strategy<Value = Vec<(u64, Event)>> {
    let address = (0u8..6)
        .prop_map(|n| if n < 3 { IpAddr::from([192, 0, 2, n]) } else { ip(&format!("2001:db8:{n}::1")) });
    let interfaces = proptest::collection::btree_set(3u32..6, 1..3);
    let mode = prop_oneof![Just(Mode::Listen), Just(Mode::Probe), Just(Mode::Answer), Just(Mode::Announce)];
    let family = || prop_oneof![Just(Family::V4), Just(Family::V6)];
    let event = prop_oneof![
        3 => (address.clone(), interfaces, mode, 0u32..2).prop_map(|(ip, on, mode, round)| Event::Set(ip, on, mode, round)),
        1 => address.prop_map(Event::Release),
        1 => (3u32..6, family(), 0u8..2).prop_map(|(index, family, n)| Event::Up(index, family, [2, 0, 0, 0, 0, n])),
        1 => (3u32..6, family()).prop_map(|(index, family)| Event::Down(index, family)),
    ];
    proptest::collection::vec((0u64..3000, event), 0..40)
}

proptest! {
    /// Whatever happens: groups are joined exactly while an address needs them on a known interface, only what a duty
    /// says is sent, from the current MAC, and every announcement on a known interface has a deadline.
    #[test]
    fn groups_and_frames_follow_the_duties(events in events()) {
        let mut bench = Bench::new(Some(60));
        let mut joined = BTreeSet::new();
        let mut clock = 0;
        for (pause, event) in events {
            clock += pause;
            for (_, output) in bench.run(clock) {
                let Output::Send { ip, ifindex, what, .. } = output else { panic!("{output:?}") };
                prop_assert_eq!(bench.announcer.does(ip, ifindex), Some(what), "{} on {}", ip, ifindex);
            }
            let outputs = match event {
                Event::Set(ip, interfaces, mode, round) => {
                    bench.duties.insert(ip, Duty { interfaces: Arc::new(interfaces), mode, round, defence: round });
                    bench.tell(clock)
                }
                Event::Release(ip) => {
                    bench.duties.remove(&ip);
                    bench.tell(clock)
                }
                Event::Up(index, family, mac) => bench.input(clock, Input::Interface { index, family, mac }),
                Event::Down(index, family) => {
                    joined.retain(|group: &Group| family == Family::V4 || group.ifindex != index);
                    bench.input(clock, Input::InterfaceGone { index, family })
                }
            };
            let announcer = &bench.announcer;
            let on: BTreeMap<Key, Mode> = bench
                .duties
                .iter()
                .flat_map(|(ip, duty)| duty.interfaces.iter().map(|index| ((*ip, *index), duty.mode)))
                .filter(|(key, _)| announcer.knows(*key))
                .collect();
            for output in outputs {
                match output {
                    Output::Join(group) => prop_assert!(joined.insert(group), "joined twice: {:?}", group),
                    Output::Leave(group) => prop_assert!(joined.remove(&group), "not joined: {:?}", group),
                    Output::Send { ip, ifindex, what: said, frame } => {
                        prop_assert_eq!(what(on[&(ip, ifindex)]), Some(said));
                        prop_assert_eq!(&frame[6..12], &announcer.macs[&(ifindex, Family::of(ip))]);
                    }
                }
            }
            let present = on.iter().filter(|(_, mode)| **mode != Mode::Listen);
            let groups: BTreeSet<Group> = present.filter_map(|(key, _)| group_of(*key)).collect();
            prop_assert_eq!(&joined, &groups);
            let scheduled: BTreeSet<Key> = announcer.deadlines.iter().map(|(_, key)| *key).collect();
            prop_assert_eq!(announcer.deadlines.len(), scheduled.len());
            for (key, mode) in &on {
                prop_assert_eq!(announcer.does(key.0, key.1), what(*mode));
                prop_assert!(*mode != Mode::Announce || scheduled.contains(key));
            }
            prop_assert!(announcer.schedules.keys().all(|key| on.contains_key(key)));
        }
    }
}
