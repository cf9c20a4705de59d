//! Recorded sessions: `tests/golden/bfd/*.txt`. A new case needs no Rust.
//!
//! `settings` begins a session whose discriminator is 0a0b0c0d: 50 ms each way, three packets, and what else the line says
//! (`transmit=` `receive=` `echo=` in ms, `multiplier=` `ttl=`, `passive` `multihop` `loops`; `echo=` means echo mode).
//! `configure` changes them later. `<` is a packet that came: its TTL, then its bytes in hex. `echo` is an echo packet that came
//! back, `again` the last one that was sent. `admin down`, `admin up`. `+` lets so many milliseconds pass. After each of these
//! come lines with `>`: what the machine did (`send`, `echo`, `state`), or why it dropped the packet. The bytes come from a
//! few lines of Python, never from our own encoder.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed expectation is a failed test
#![allow(clippy::disallowed_methods)] // any instant will do as the origin of a virtual clock

mod golden;

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use patina_speaker_core::bfd::wire::Packet;
use patina_speaker_core::bfd::{Dropped, Input, Machine, Output, Settings};

const DISCRIMINATOR: u32 = 0x0a0b_0c0d;

#[test]
fn recorded_sessions() {
    golden::run("bfd", "txt", |text| {
        let mut session = Session { machine: None, now: Instant::now(), echo: Vec::new() };
        let (mut expected, mut actual) = (String::new(), String::new());
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            writeln!(expected, "{line}").unwrap();
            if line.starts_with('>') {
                continue;
            }
            writeln!(actual, "{line}").unwrap();
            for output in session.line(line) {
                writeln!(actual, "> {output}").unwrap();
            }
        }
        assert!(expected.contains("\n>"), "nothing is expected");
        (expected, actual)
    });
}

struct Session {
    machine: Option<Machine>,
    now: Instant,
    /// The last that was sent.
    echo: Vec<u8>,
}

impl Session {
    fn line(&mut self, line: &str) -> Vec<String> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "#" => return Vec::new(),
            "settings" => self.machine = Some(Machine::new(settings(rest), DISCRIMINATOR, 1, self.now)),
            "configure" => return self.input(Input::Configure(Box::new(settings(rest)))),
            "admin" => return self.input(Input::AdminDown(rest == "down")),
            "echo" if rest == "again" => {
                let echo = self.echo.clone();
                return self.input(Input::Echo(&echo));
            }
            "echo" => return self.input(Input::Echo(&bytes(rest))),
            "<" => {
                let (ttl, rest) = rest.split_once(' ').unwrap_or((rest, ""));
                let packet = match Packet::parse(&bytes(rest)) {
                    Ok(packet) => packet,
                    Err(dropped) => return vec![said(dropped)],
                };
                let (ttl, at) = (ttl.parse().unwrap(), self.now);
                return self.input(Input::Received { packet, ttl, at });
            }
            _ => {
                let time = word.strip_prefix('+').expect(line).parse().unwrap();
                return self.pass(Duration::from_millis(time));
            }
        }
        self.outputs()
    }

    fn input(&mut self, input: Input<'_>) -> Vec<String> {
        let result = self.machine.as_mut().expect("settings come first").handle(self.now, input);
        let mut lines = self.outputs();
        lines.extend(result.err().map(said));
        lines
    }

    fn pass(&mut self, time: Duration) -> Vec<String> {
        let (end, mut lines) = (self.now + time, Vec::new());
        loop {
            let machine = self.machine.as_mut().expect("settings come first");
            let Some(due) = machine.poll_timeout().filter(|due| *due <= end) else { break };
            self.now = self.now.max(due);
            machine.handle_timeout(self.now);
            lines.extend(self.outputs());
        }
        self.now = end;
        lines
    }

    fn outputs(&mut self) -> Vec<String> {
        let machine = self.machine.as_mut().expect("settings come first");
        let mut lines = Vec::new();
        while let Some(output) = machine.poll_output() {
            lines.push(match output {
                Output::Send(bytes) => {
                    let words: Vec<String> = bytes.chunks(4).map(hex).collect();
                    format!("send {}", words.join(" "))
                }
                Output::Echo(bytes) => {
                    self.echo = bytes;
                    "echo".to_owned()
                }
                Output::State { from, to, diagnostic, remote, remote_diagnostic } => {
                    format!("state {from:?} {to:?} {diagnostic:?}; remote {remote:?} {remote_diagnostic:?}")
                }
            });
        }
        lines
    }
}

fn said(dropped: Dropped) -> String {
    format!("dropped {}", dropped.reason())
}

fn settings(line: &str) -> Settings {
    let mut settings = Settings {
        transmit_interval: Duration::from_millis(50),
        receive_interval: Duration::from_millis(50),
        detect_multiplier: 3,
        echo_interval: Duration::from_millis(50),
        echo_mode: false,
        loops_echo: false,
        passive: false,
        multihop: false,
        minimum_ttl: 254,
    };
    for word in line.split_whitespace() {
        let (name, value) = word.split_once('=').unwrap_or((word, "0"));
        let number: u64 = value.parse().unwrap();
        let (time, small) = (Duration::from_millis(number), u8::try_from(number));
        match name {
            "transmit" => settings.transmit_interval = time,
            "receive" => settings.receive_interval = time,
            "multiplier" => settings.detect_multiplier = small.unwrap(),
            "echo" => (settings.echo_mode, settings.echo_interval) = (true, time),
            "loops" => settings.loops_echo = true,
            "passive" => settings.passive = true,
            "multihop" => settings.multihop = true,
            "ttl" => settings.minimum_ttl = small.unwrap(),
            other => panic!("no such setting: {other}"),
        }
    }
    settings
}

fn bytes(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    assert!(digits.len().is_multiple_of(2), "whole bytes: {text:?}");
    digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
