//! The announcer under a virtual clock.

use proptest::prelude::*;

use super::*;
use crate::l2::wire::arp::Operation;
use crate::l2::wire::ndp::Message;

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
    let wanted = [(
        ip("192.0.2.1"),
        L2Announcement { interfaces: std::sync::Arc::new([3].into()), ..L2Announcement::default() },
    )]
    .into();
    assert_eq!(bench.announcer.diff(&wanted), []);
    assert_eq!(bench.times(5000), [100, 300, 1000, 2000, 3000, 4000, 5000]);
}

#[test]
fn diff_leads_to_what_is_wanted() {
    let mut bench = Bench::new(None);
    bench.claim(0, "192.0.2.1", &[3]);
    bench.claim(0, "192.0.2.2", &[3]);
    let wanted = [
        (
            ip("192.0.2.2"),
            L2Announcement { interfaces: std::sync::Arc::new([3, 4].into()), ..L2Announcement::default() },
        ),
        (
            ip("192.0.2.3"),
            L2Announcement { interfaces: std::sync::Arc::new([3].into()), ..L2Announcement::default() },
        ),
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
fn a_quiet_address_is_listened_for_but_not_announced() {
    let address = "2001:db8::1";
    let mut bench = Bench::new(Some(60));
    bench.claim(0, address, &[3]);
    assert_eq!(bench.input(50, Input::Quiet { ip: ip(address) }), []);
    assert_eq!(bench.announcer.poll_timeout(), None);
    // Not even when the interface changes; but it joins there.
    bench.input(60, Input::InterfaceGone { index: 3 });
    let interface = Input::Interface { index: 3, mac: [2, 0, 0, 0, 0, 8] };
    assert_eq!(bench.input(70, interface), [join(address, 3)]);
    // Ours again: from the start, without a second join.
    assert_eq!(bench.claim(80, address, &[3]).len(), 1);
    assert_eq!(bench.times(6000), [180, 380, 1080, 2080, 3080, 4080, 5080]);
    bench.input(6000, Input::Quiet { ip: ip(address) });
    assert_eq!(bench.input(6000, Input::Release { ip: ip(address) }), [leave(address, 3)]);
}

#[test]
fn diff_quietens_and_speaks_up_again() {
    let mut bench = Bench::new(None);
    let claimed = |interfaces: &[u32]| L2Announcement {
        interfaces: std::sync::Arc::new(interfaces.iter().copied().collect()),
        ..L2Announcement::default()
    };
    let address = ip("192.0.2.1");
    let quiet: BTreeSet<IpAddr> = [address].into();
    let follow = |bench: &mut Bench, inputs: Vec<Input>| {
        for input in inputs {
            bench.announcer.handle(bench.start, input);
        }
        bench.drain().len()
    };
    let one = BTreeMap::from([(address, claimed(&[3]))]);
    let inputs = bench.announcer.diff(&one);
    assert_eq!(follow(&mut bench, inputs), 2);
    let inputs = bench.announcer.diff_with_quiet(&one, &quiet);
    assert_eq!(inputs, [Input::Quiet { ip: address }]);
    assert_eq!(follow(&mut bench, inputs), 0);
    assert_eq!(bench.announcer.diff_with_quiet(&one, &quiet), []);
    let two = BTreeMap::from([(address, claimed(&[3, 4]))]);
    let inputs = bench.announcer.diff_with_quiet(&two, &quiet);
    assert_eq!(follow(&mut bench, inputs), 0, "quiet on another interface, too");
    let inputs = bench.announcer.diff(&two);
    assert_eq!(follow(&mut bench, inputs), 2);
    assert_eq!(bench.announcer.diff(&two), []);
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
        address.clone().prop_map(|ip| Input::Release { ip }),
        address.prop_map(|ip| Input::Quiet { ip }),
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
        let mut clock = 0;
        for (pause, input) in inputs {
            clock += pause;
            for (_, output) in bench.run(clock) {
                let Output::Send { ip, ifindex, .. } = output else { panic!("{output:?}") };
                prop_assert!(bench.announcer.announces(ip, ifindex), "{} on {}", ip, ifindex);
            }
            if let Input::InterfaceGone { index } = input {
                joined.retain(|group: &Group| group.ifindex != index);
            }
            let outputs = bench.input(clock, input);
            let announcer = &bench.announcer;
            let live: BTreeSet<Key> = announcer
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
                        prop_assert!(announcer.announces(ip, ifindex));
                        prop_assert_eq!(&frame[6..12], &announcer.macs[&ifindex]);
                    }
                }
            }
            let groups: BTreeSet<Group> =
                live.iter().filter_map(|(ip, index)| group_of(*ip, *index)).collect();
            prop_assert_eq!(&joined, &groups);
            let scheduled: BTreeSet<Key> = announcer.deadlines.iter().map(|(_, key)| *key).collect();
            let loud: BTreeSet<Key> =
                live.iter().copied().filter(|(ip, _)| !announcer.quiet.contains(ip)).collect();
            prop_assert_eq!(&scheduled, &loud);
            prop_assert_eq!(announcer.deadlines.len(), loud.len());
        }
    }
}
