//! Two machines, a wire between them, and a clock that is moved. As a driver would, each side reads what has come before it
//! minds a deadline.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use patina_speaker_core::bfd::wire::Packet;
use patina_speaker_core::bfd::{Diagnostic, Input, Machine, Output, Settings, State};

pub(crate) const MS: fn(u64) -> Duration = Duration::from_millis;
pub(crate) const A: usize = 0;
pub(crate) const B: usize = 1;

/// xorshift64*: enough for choices, and the same everywhere.
#[derive(Clone, Copy)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % n
    }
}

/// What the wire does to a packet; in the direction away from a node.
#[derive(Clone, Copy)]
pub(crate) struct Wire {
    pub(crate) delay: Duration,
    /// More, at most.
    pub(crate) more: Duration,
    /// Of a thousand.
    pub(crate) loss: u64,
    /// Lost in a row, at most.
    pub(crate) row: u32,
    pub(crate) cut: bool,
    /// The other side's kernel sends our echo packets back.
    pub(crate) loops: bool,
}

impl Wire {
    pub(crate) const GOOD: Self = Self {
        delay: Duration::from_micros(200),
        more: Duration::ZERO,
        loss: 0,
        row: u32::MAX,
        cut: false,
        loops: true,
    };
}

/// A change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) at: Instant,
    pub(crate) to: State,
    pub(crate) diagnostic: Diagnostic,
    pub(crate) remote: State,
}

pub(crate) struct Node {
    pub(crate) machine: Machine,
    pub(crate) wire: Wire,
    /// Its process stands still until then.
    stalled: Option<Instant>,
    /// What waits in its socket.
    socket: Vec<(Instant, Arrived)>,
    pub(crate) changes: Vec<Change>,
    /// Each control packet, and when it was sent.
    pub(crate) sent: Vec<(Instant, Packet)>,
    pub(crate) echoes: u64,
    /// The last of them.
    pub(crate) echo: Vec<u8>,
    /// When one last arrived.
    pub(crate) heard: Option<Instant>,
    lost: u32,
}

#[derive(Clone)]
enum Arrived {
    Control(Vec<u8>),
    Echo(Vec<u8>),
}

pub(crate) struct World {
    pub(crate) start: Instant,
    pub(crate) now: Instant,
    pub(crate) nodes: [Node; 2],
    under_way: BTreeMap<(Instant, u64), (usize, Arrived)>,
    count: u64,
    pub(crate) random: Random,
}

/// 50 ms x 3, no echo.
pub(crate) fn settings() -> Settings {
    Settings {
        transmit_interval: MS(50),
        receive_interval: MS(50),
        detect_multiplier: 3,
        echo_interval: MS(20),
        echo_mode: false,
        loops_echo: true,
        passive: false,
        multihop: false,
        minimum_ttl: 254,
    }
}

impl World {
    pub(crate) fn new(seed: u64, settings: [Settings; 2]) -> Self {
        let start = Instant::now();
        let mut number = 0;
        let nodes = settings.map(|settings| {
            number += 1;
            Node {
                machine: Machine::new(settings, number, seed * 2 + u64::from(number), start),
                wire: Wire::GOOD,
                stalled: None,
                socket: Vec::new(),
                changes: Vec::new(),
                sent: Vec::new(),
                echoes: 0,
                echo: Vec::new(),
                heard: None,
                lost: 0,
            }
        });
        let random = Random::new(seed);
        let mut world = Self { start, now: start, nodes, under_way: BTreeMap::new(), count: 0, random };
        world.drain(A);
        world.drain(B);
        world
    }

    /// A pair that is up, with the intervals agreed on.
    pub(crate) fn up(seed: u64, settings: [Settings; 2]) -> Self {
        let mut world = Self::new(seed, settings);
        assert!(world.run_until(MS(10_000), Self::both_up), "{:?}", world.states());
        world.run(MS(1000));
        world
    }

    pub(crate) fn states(&self) -> [State; 2] {
        [A, B].map(|who| self.nodes[who].machine.view().state)
    }

    pub(crate) fn both_up(&self) -> bool {
        self.states() == [State::Up, State::Up]
    }

    pub(crate) fn since(&self, at: Instant) -> Duration {
        at - self.start
    }

    /// How often it went down.
    pub(crate) fn downs(&self, who: usize) -> usize {
        self.nodes[who].changes.iter().filter(|change| change.to == State::Down).count()
    }

    pub(crate) fn wires(&mut self, wire: Wire) {
        self.nodes.iter_mut().for_each(|node| node.wire = wire);
    }

    pub(crate) fn input(&mut self, who: usize, input: Input<'_>) {
        self.nodes[who].machine.handle(self.now, input).unwrap();
        self.drain(who);
    }

    /// Its process stands still for a while, from now on; the kernel goes on.
    pub(crate) fn stall(&mut self, who: usize, time: Duration) {
        self.nodes[who].stalled = Some(self.now + time);
    }

    pub(crate) fn run(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    /// Whether it became so.
    pub(crate) fn run_until(&mut self, time: Duration, is_so: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + time;
        for steps in 0.. {
            assert!(steps < 1_000_000, "time stands still");
            if is_so(self) {
                return true;
            }
            let packet = self.under_way.keys().next().map(|(at, _)| *at);
            let due = |who: usize| {
                let node = &self.nodes[who];
                let timeout = node.machine.poll_timeout();
                node.stalled.or(timeout)
            };
            let Some(next) = [packet, due(A), due(B)].into_iter().flatten().min().filter(|next| *next <= end)
            else {
                self.now = end;
                return false;
            };
            self.now = self.now.max(next);
            // At the same instant a packet comes first: it was in the socket when the timer fired.
            if packet.is_some_and(|at| at <= self.now) {
                let Some((_, (who, arrived))) = self.under_way.pop_first() else { continue };
                self.nodes[who].socket.push((self.now, arrived));
                if self.nodes[who].stalled.is_none() {
                    self.wake(who);
                }
                continue;
            }
            for who in [A, B] {
                if self.nodes[who].stalled.is_some_and(|until| until <= self.now) {
                    self.nodes[who].stalled = None;
                    self.wake(who);
                }
                let node = &mut self.nodes[who];
                if node.stalled.is_none() && node.machine.poll_timeout().is_some_and(|at| at <= self.now) {
                    node.machine.handle_timeout(self.now);
                    assert!(
                        node.machine.poll_timeout().is_none_or(|at| at > self.now),
                        "a deadline that was minded stays due"
                    );
                    self.drain(who);
                }
            }
        }
        false
    }

    fn wake(&mut self, who: usize) {
        for (at, arrived) in std::mem::take(&mut self.nodes[who].socket) {
            let node = &mut self.nodes[who];
            match arrived {
                Arrived::Control(bytes) => {
                    let packet = Packet::parse(&bytes).unwrap();
                    node.heard = Some(at);
                    let _admin_down = node.machine.handle(self.now, Input::Received { packet, ttl: 255, at });
                }
                Arrived::Echo(bytes) => {
                    let _late = node.machine.handle(self.now, Input::Echo(&bytes));
                }
            }
            self.drain(who);
        }
    }

    fn drain(&mut self, who: usize) {
        while let Some(output) = self.nodes[who].machine.poll_output() {
            match output {
                Output::Send(bytes) => {
                    let packet = Packet::parse(&bytes).unwrap();
                    assert!(!(packet.demand || packet.poll && packet.final_), "{packet:?}");
                    let up = packet.state == State::Up;
                    assert!(up || packet.desired_min_tx >= MS(1000), "6.8.3: {packet:?}");
                    self.nodes[who].sent.push((self.now, packet));
                    self.transmit(who, 1 - who, Arrived::Control(bytes));
                }
                Output::Echo(bytes) => {
                    assert_eq!(self.nodes[who].machine.view().state, State::Up);
                    self.nodes[who].echoes += 1;
                    self.nodes[who].echo.clone_from(&bytes);
                    if self.nodes[who].wire.loops {
                        self.transmit(who, who, Arrived::Echo(bytes));
                    }
                }
                Output::State { to, diagnostic, remote, .. } => {
                    self.nodes[who].changes.push(Change { at: self.now, to, diagnostic, remote });
                }
            }
        }
    }

    fn transmit(&mut self, from: usize, to: usize, what: Arrived) {
        let wire = self.nodes[from].wire;
        let lost = self.nodes[from].lost < wire.row && self.random.below(1000) < wire.loss;
        self.nodes[from].lost = if lost { self.nodes[from].lost + 1 } else { 0 };
        if wire.cut || lost {
            return;
        }
        let more = self.random.below(wire.more.as_micros() as u64 + 1);
        let back = if from == to { wire.delay } else { Duration::ZERO };
        self.count += 1;
        let at = self.now + wire.delay + back + Duration::from_micros(more);
        self.under_way.insert((at, self.count), (to, what));
    }
}

impl World {
    pub(crate) fn under_way_is_empty(&self) -> bool {
        self.under_way.is_empty()
    }
}
