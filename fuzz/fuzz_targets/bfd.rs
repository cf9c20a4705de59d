//! BFD: whatever comes, in whatever order, nothing panics, no deadline stands still, and what goes out is valid.
#![no_main]

use std::time::{Duration, Instant};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use patina_speaker_core::bfd::wire::Packet;
use patina_speaker_core::bfd::{Input, Machine, Output, Settings, State, echo_discriminator};

const DISCRIMINATOR: u32 = 0x0a0b_0c0d;

#[derive(Arbitrary, Debug)]
enum Step {
    /// Any bytes.
    Bytes {
        bytes: Vec<u8>,
        ttl: u8,
    },
    /// A packet that passes the first checks. `bits`: poll, final, demand, and whether it knows us.
    Packet {
        state: u8,
        bits: u8,
        multiplier: u8,
        intervals: [u32; 3],
        ttl: u8,
        age: u16,
    },
    Echo(Vec<u8>),
    /// The last one, or one before it.
    EchoAgain(u8),
    Pass(u16),
    /// Nobody looks for a while.
    Stall(u16),
    AdminDown(bool),
    Configure {
        transmit: u16,
        receive: u16,
        multiplier: u8,
        echo: u16,
        bits: u8,
    },
}

fn settings(transmit: u16, receive: u16, multiplier: u8, echo: u16, bits: u8) -> Settings {
    Settings {
        transmit_interval: Duration::from_millis(transmit.into()),
        receive_interval: Duration::from_millis(receive.into()),
        detect_multiplier: multiplier,
        echo_interval: Duration::from_millis(echo.into()),
        echo_mode: bits & 1 != 0,
        loops_echo: bits & 2 != 0,
        passive: bits & 4 != 0,
        multihop: bits & 8 != 0,
        minimum_ttl: bits,
    }
}

struct World {
    now: Instant,
    machine: Machine,
    state: State,
    echoes: Vec<Vec<u8>>,
}

impl World {
    fn input(&mut self, input: Input<'_>) {
        let _dropped = self.machine.handle(self.now, input);
        self.drain();
    }

    fn timeout(&mut self) {
        self.machine.handle_timeout(self.now);
        self.drain();
        let next = self.machine.poll_timeout();
        assert!(next.is_none_or(|next| next > self.now), "a deadline that was minded stays due");
    }

    fn drain(&mut self) {
        let mut count = 0;
        while let Some(output) = self.machine.poll_output() {
            count += 1;
            match output {
                Output::Send(bytes) => {
                    let packet = Packet::parse(&bytes).expect("what goes out is valid");
                    assert!(!(packet.poll && packet.final_) && !packet.demand && !packet.authenticated);
                    assert_eq!(packet.my_discriminator, DISCRIMINATOR);
                    assert!(packet.state == State::Up || packet.desired_min_tx >= Duration::from_secs(1));
                }
                Output::Echo(bytes) => {
                    assert_eq!((echo_discriminator(&bytes), self.state), (Some(DISCRIMINATOR), State::Up));
                    self.echoes.push(bytes);
                }
                Output::State { from, to, .. } => {
                    assert!(from == self.state && from != to);
                    self.state = to;
                }
            }
        }
        assert!(count <= 6, "{count} outputs at once");
        assert_eq!(self.machine.view().state, self.state);
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..200 {
            let Some(next) = self.machine.poll_timeout().filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            self.timeout();
        }
        self.now = end;
    }
}

fuzz_target!(|input: (u64, u8, Vec<Step>)| {
    let (seed, bits, steps) = input;
    let now = Instant::now();
    let machine = Machine::new(settings(50, 50, 3, 20, bits), DISCRIMINATOR, seed, now);
    let mut world = World { now, machine, state: State::Down, echoes: Vec::new() };
    world.drain();
    for step in steps.into_iter().take(200) {
        match step {
            Step::Bytes { bytes, ttl } => {
                if let Ok(packet) = Packet::parse(&bytes) {
                    world.input(Input::Received { packet, ttl, at: world.now });
                }
            }
            Step::Packet { state, bits, multiplier, intervals: [tx, rx, echo], ttl, age } => {
                let flags = (state << 6) | (bits & 0x32);
                let yours = if bits & 1 == 0 { 0 } else { DISCRIMINATOR };
                let head = u32::from_be_bytes([0x20 | (bits >> 3), flags, multiplier.max(1), 24]);
                let bytes: Vec<u8> =
                    [head, 0x77, yours, tx, rx, echo].into_iter().flat_map(u32::to_be_bytes).collect();
                let packet = Packet::parse(&bytes).expect("made so");
                assert_eq!(packet.emit().as_slice(), bytes);
                let at = world.now.checked_sub(Duration::from_millis(age.into())).unwrap_or(world.now);
                world.input(Input::Received { packet, ttl: ttl | 0xf0, at });
            }
            Step::Echo(bytes) => world.input(Input::Echo(&bytes)),
            Step::EchoAgain(which) => {
                let which = world.echoes.len().checked_sub(1 + usize::from(which));
                if let Some(bytes) = which.and_then(|which| world.echoes.get(which)).cloned() {
                    world.input(Input::Echo(&bytes));
                }
            }
            Step::Pass(milliseconds) => world.pass(Duration::from_millis(milliseconds.into())),
            Step::Stall(milliseconds) => {
                world.now += Duration::from_millis(milliseconds.into());
                world.timeout();
            }
            Step::AdminDown(down) => world.input(Input::AdminDown(down)),
            Step::Configure { transmit, receive, multiplier, echo, bits } => {
                let settings = settings(transmit, receive, multiplier, echo, bits);
                world.input(Input::Configure(Box::new(settings)));
            }
        }
    }
});
