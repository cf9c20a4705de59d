//! A speaker among others: two that are what they say, and somebody who has the key and says whatever he likes, in any order
//! and at any time, from any place. Nothing panics, nothing grows without bounds, no answer is longer than a datagram, and
//! nobody makes us answer for ever.
#![no_main]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use patina_speaker_core::membership::{Input, Membership, Output, Settings};
use patina_speaker_core::view::{Member, MemberInterface};

/// Of a message to others: with the envelope's overhead it fits into an Ethernet frame.
const LONGEST: usize = 1200;
const SPEAKERS: u8 = 3;

#[derive(Arbitrary, Debug)]
enum Step {
    /// The next message that a speaker sent arrives, the first or the last of those on the wire.
    Deliver {
        last: bool,
    },
    /// One that was sent before arrives once more, anywhere and from anywhere.
    Again {
        which: u16,
        to: u8,
        from: u8,
    },
    /// So does one that was changed.
    Change {
        which: u16,
        to: u8,
        from: u8,
        changes: Vec<(u16, u8)>,
        keep: u16,
    },
    /// Whatever he likes. The first byte, the version, is right.
    Invent {
        to: u8,
        from: u8,
        bytes: Vec<u8>,
    },
    /// The deadlines that are due in this time are minded.
    Pass {
        milliseconds: u16,
    },
    /// A speaker was stopped for so long, or its clock was late.
    Stall {
        who: u8,
        milliseconds: u16,
    },
    Peers {
        who: u8,
        named: Vec<u8>,
    },
    Say {
        who: u8,
        draining: bool,
        interfaces: Vec<(u8, u8, bool)>,
    },
    Listen {
        who: u8,
        addresses: Vec<u8>,
    },
    Hint {
        who: u8,
        of: u8,
    },
    Leave {
        who: u8,
    },
    Restart {
        who: u8,
    },
}

struct Datagram {
    from: SocketAddr,
    to: SocketAddr,
    message: Vec<u8>,
}

struct World {
    now: Instant,
    speakers: Vec<Membership>,
    starts: u64,
    wire: Vec<Datagram>,
    /// Those on the wire before are delivered, or lost.
    delivered: usize,
}

fn place(who: u8) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::new(10, 0, who & 1, 1 + who % 7).into(), 7946)
}

/// Some are in one subnet, some in another.
fn there(address: u8) -> IpAddr {
    Ipv4Addr::new(10, 1, address & 1, 1 + address % 5).into()
}

impl World {
    fn start(&mut self, who: u8) -> Membership {
        self.starts += 1;
        let settings = Settings {
            node: format!("node-{who}"),
            addresses: vec![place(who)],
            heartbeat: Duration::from_millis(50),
            detect: Duration::from_millis(250),
            watchers: 3,
            quorum: who == 2,
            incarnation: self.starts << 20,
            seed: self.starts,
        };
        let mut speaker = Membership::new(self.now, settings);
        let others = (0..SPEAKERS).filter(|other| *other != who).map(place).collect();
        speaker.handle(self.now, Input::Peers(others));
        speaker
    }

    fn speaker(&mut self, who: u8) -> &mut Membership {
        &mut self.speakers[usize::from(who % SPEAKERS)]
    }

    fn input(&mut self, who: u8, input: Input) {
        let now = self.now;
        self.speaker(who).handle(now, input);
        self.drain(who);
    }

    fn receive(&mut self, who: u8, from: SocketAddr, message: Vec<u8>) {
        self.input(who, Input::Received { from, message });
    }

    /// What a step led to.
    fn drain(&mut self, who: u8) {
        let (now, from) = (self.now, place(who % SPEAKERS));
        let speaker = self.speaker(who);
        let mut sends = Vec::new();
        let mut events = 0;
        while let Some(output) = speaker.poll_output() {
            match output {
                Output::Send { to, message } => {
                    assert!(message.len() <= LONGEST, "{} bytes", message.len());
                    sends.push(Datagram { from, to, message });
                }
                Output::Event(_) => events += 1,
            }
        }
        let state = speaker.state();
        assert!(state.down.len() <= 100 && state.members.len() <= 5001 && state.stations.len() <= 65_536);
        assert!(speaker.answer_until().is_none_or(|until| until < now + Duration::from_secs(1)));
        // To each that it knows a few; foca asks and answers on top.
        let most = 200 + 40 * (state.members.len() + state.down.len());
        assert!(sends.len() <= most && events <= most, "{} messages, {events} events", sends.len());
        self.wire.extend(sends);
        // Who sends more than is looked at loses it.
        if self.wire.len() > 4096 {
            let old = self.wire.len() - 2048;
            self.wire.drain(..old);
            self.delivered = self.delivered.saturating_sub(old);
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..200 {
            let due = |who: u8| Some((self.speakers[usize::from(who)].poll_timeout()?, who));
            let Some((at, who)) = (0..SPEAKERS).filter_map(due).min().filter(|(at, _)| *at <= end) else {
                break;
            };
            self.now = self.now.max(at);
            let now = self.now;
            let minded = |world: &mut Self| {
                world.speaker(who).handle_timeout(now);
                world.drain(who);
                world.speaker(who).poll_timeout().is_none_or(|next| next > now)
            };
            assert!((0..8).any(|_| minded(self)), "a deadline that was minded stays due");
        }
        self.now = end;
    }

    fn old(&self, which: u16) -> Option<Vec<u8>> {
        let count = self.wire.len().max(1);
        self.wire.get(usize::from(which) % count).map(|datagram| datagram.message.clone())
    }
}

fuzz_target!(|steps: Vec<Step>| {
    let mut world =
        World { now: Instant::now(), speakers: Vec::new(), starts: 0, wire: Vec::new(), delivered: 0 };
    for who in 0..SPEAKERS {
        let speaker = world.start(who);
        world.speakers.push(speaker);
        world.drain(who);
    }
    for step in steps.into_iter().take(300) {
        match step {
            Step::Deliver { last } => {
                let next = if last { world.wire.len().checked_sub(1) } else { Some(world.delivered) };
                let Some(datagram) = next.and_then(|next| world.wire.get(next)) else { continue };
                let (from, to, message) = (datagram.from, datagram.to, datagram.message.clone());
                world.delivered += usize::from(!last);
                if let Some(who) = (0..SPEAKERS).find(|who| place(*who) == to) {
                    world.receive(who, from, message);
                }
            }
            Step::Again { which, to, from } => {
                if let Some(message) = world.old(which) {
                    world.receive(to, place(from), message);
                }
            }
            Step::Change { which, to, from, changes, keep } => {
                let Some(mut message) = world.old(which) else { continue };
                message.truncate(usize::from(keep).max(1));
                for (at, by) in changes {
                    let at = usize::from(at) % message.len();
                    message[at] ^= by;
                }
                world.receive(to, place(from), message);
            }
            Step::Invent { to, from, bytes } => {
                world.receive(to, place(from), [&[1], bytes.as_slice()].concat());
            }
            Step::Pass { milliseconds } => world.pass(Duration::from_millis(u64::from(milliseconds) % 2000)),
            Step::Stall { who, milliseconds } => {
                world.now += Duration::from_millis(milliseconds.into());
                let now = world.now;
                world.speaker(who).handle_timeout(now);
                world.drain(who);
            }
            Step::Peers { who, named } => {
                world.input(who, Input::Peers(named.into_iter().map(place).collect()));
            }
            Step::Say { who, draining, interfaces } => {
                let interface = |(number, address, up): (u8, u8, bool)| MemberInterface {
                    name: format!("eth{number}"),
                    mac: [2, 0, 0, 0, who, number],
                    up,
                    arp: up,
                    subnets: BTreeSet::from([(Ipv4Addr::new(10, 1, address & 1, 0).into(), 24)]),
                    addresses: BTreeSet::from([there(address)]),
                    ..MemberInterface::default()
                };
                let interfaces = Some(interfaces.into_iter().map(interface).collect());
                world.input(who, Input::Say(Member { draining, interfaces, ..Member::default() }));
            }
            Step::Listen { who, addresses } => {
                world.input(who, Input::Listen(addresses.into_iter().map(there).collect()));
            }
            Step::Hint { who, of } => world.input(who, Input::Hint { node: format!("node-{of}") }),
            Step::Leave { who } => world.input(who, Input::Leave),
            Step::Restart { who } => {
                let who = who % SPEAKERS;
                let speaker = world.start(who);
                world.speakers[usize::from(who)] = speaker;
                world.drain(who);
            }
        }
    }
});
