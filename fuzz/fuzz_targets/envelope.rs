//! Three speakers, and somebody between them who repeats, reorders, redirects, changes and invents datagrams, while keys change
//! and speakers start again. What is believed was sent by a speaker, to this start of this one (or of whom it was made to
//! take for another), and is believed once.
#![no_main]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use patina_speaker_core::membership::envelope::{Content, Envelope, Keyring};

const SECRETS: [&[u8]; 3] =
    [b"the first secret of all", b"another secret than that", b"and a third one for luck"];

#[derive(Arbitrary, Debug)]
enum Step {
    Send {
        from: u8,
        to: u8,
    },
    /// One of the datagrams that were ever sent, to anybody, from anywhere.
    Deliver {
        which: u16,
        to: u8,
        from: u8,
    },
    Change {
        which: u16,
        to: u8,
        place: u16,
        by: u8,
    },
    Invent {
        to: u8,
        bytes: Vec<u8>,
        known_key: Option<u16>,
    },
    Pass {
        milliseconds: u16,
    },
    Rotate {
        who: u8,
        newest: u8,
        previous: Option<u8>,
    },
    Restart {
        who: u8,
        newest: u8,
    },
}

struct World {
    now: Instant,
    speakers: Vec<Envelope>,
    /// How often each started.
    starts: [u8; 3],
    /// Each datagram, and how often each speaker had started when it was made.
    wire: Vec<(Vec<u8>, [u8; 3])>,
    /// How many messages were sent; each is its number.
    sent: usize,
    believed: BTreeSet<u32>,
}

fn place(who: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 1 + who as u16))
}

fn keyring(newest: u8, previous: Option<u8>) -> Keyring {
    let secret = |which: u8| SECRETS[usize::from(which) % SECRETS.len()];
    Keyring::new(secret(newest), previous.map(secret)).expect("long enough")
}

impl World {
    fn start(who: usize, start: u8, newest: u8) -> Envelope {
        let epoch = [who as u8 + 1, start, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7];
        Envelope::new(keyring(newest, None), epoch, [who as u8 * 16 + start; 32])
    }

    /// `made`: the starts of all when it was made; `None`: not by a speaker.
    fn open(&mut self, to: usize, from: usize, datagram: &[u8], made: Option<[u8; 3]>) {
        let before = self.speakers[to].work();
        let opened = self.speakers[to].open(self.now, place(from), datagram);
        let after = self.speakers[to].work();
        assert!(after.attempts - before.attempts <= 1 && after.derived - before.derived <= 1);
        let Ok(opened) = opened else { return };
        let made = made.expect("what opens was made by a speaker");
        assert!(opened.replies.len() <= 32);
        self.wire.extend(opened.replies.into_iter().map(|reply| (reply, self.starts)));
        let Content::Message(message) = opened.content else { return };
        let number = u32::from_be_bytes(message.try_into().expect("a message is a number"));
        // For whom a message is meant is for whom the sender takes the place that it writes to, and whoever changes the
        // sender of datagrams on their way can make it take it for another speaker: it is then read by that one.
        assert!((number as usize) < self.sent, "{number} was never sent");
        assert_eq!(self.starts[to], made[to], "{number} was sent to an earlier start");
        assert!(self.believed.insert(number), "{number} was believed twice");
    }
}

fuzz_target!(|steps: Vec<Step>| {
    let speakers = (0..3).map(|who| World::start(who, 0, 0)).collect();
    let mut world = World {
        now: Instant::now(),
        speakers,
        starts: [0; 3],
        wire: Vec::new(),
        sent: 0,
        believed: BTreeSet::new(),
    };
    for step in steps.into_iter().take(300) {
        let who = |name: u8| usize::from(name) % 3;
        match step {
            Step::Send { from, to } if who(from) != who(to) => {
                let number = world.sent as u32;
                world.sent += 1;
                let message = number.to_be_bytes();
                let datagram = world.speakers[who(from)].seal(world.now, place(who(to)), &message);
                world.wire.push((datagram, world.starts));
            }
            Step::Send { .. } => {}
            Step::Deliver { which, to, from } if !world.wire.is_empty() => {
                let (datagram, made) = world.wire[usize::from(which) % world.wire.len()].clone();
                world.open(who(to), who(from), &datagram, Some(made));
            }
            Step::Change { which, to, place, by } if !world.wire.is_empty() && by != 0 => {
                let (mut datagram, _) = world.wire[usize::from(which) % world.wire.len()].clone();
                let at = usize::from(place) % datagram.len();
                datagram[at] ^= by;
                world.open(who(to), 0, &datagram, None);
            }
            Step::Deliver { .. } | Step::Change { .. } => {}
            Step::Invent { to, mut bytes, known_key } => {
                if let Some(which) = known_key.filter(|_| !world.wire.is_empty()) {
                    let (example, _) = &world.wire[usize::from(which) % world.wire.len()];
                    let head = example.iter().take(37).copied();
                    bytes = head.chain(bytes).collect();
                }
                if world.wire.iter().all(|(datagram, _)| *datagram != bytes) {
                    world.open(who(to), 1, &bytes, None);
                }
            }
            Step::Pass { milliseconds } => world.now += Duration::from_millis(milliseconds.into()),
            Step::Rotate { who: name, newest, previous } => {
                let now = world.now;
                world.speakers[who(name)].rotate(now, keyring(newest, previous));
            }
            Step::Restart { who: name, newest } if world.starts[who(name)] < 15 => {
                let name = who(name);
                world.starts[name] += 1;
                world.speakers[name] = World::start(name, world.starts[name], newest);
            }
            Step::Restart { .. } => {}
        }
    }
});
