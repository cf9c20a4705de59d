//! Recorded frames and what the responder says to them: `tests/golden/frames/*.txt`. A new case needs no Rust.
//!
//! `<` lines are the bytes of a frame in hex, received on an interface with the MAC 02:00:0a:00:00:02 (another one of the
//! same node has 02:00:0a:00:00:03) that announces 172.25.7.100, 172.25.7.101, fd00:25:7::100 and fd00:25:7::101, listens
//! for .110 and ::110, probes .111 and ::111, and answers for .112 and ::112 without announcing them. `>` lines are the answer: `reply ADDRESS` and the
//! bytes that are sent, or `dropped REASON: SENTENCE`. Several exchanges may follow one another. The bytes come from
//! tcpdump or from a few lines of Python, never from our own encoder.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed expectation is a failed test

mod golden;

use std::fmt::Write as _;
use std::sync::Arc;

use patina_speaker_core::l2::duty::{Duties, Duty, Mode};
use patina_speaker_core::l2::responder::Responder;

const INTERFACE: u32 = 3;
const MAC: [u8; 6] = [2, 0, 0x0a, 0, 0, 2];
const OTHER_MAC: [u8; 6] = [2, 0, 0x0a, 0, 0, 3];

#[test]
fn recorded_frames() {
    let announced = ["172.25.7.100", "172.25.7.101", "fd00:25:7::100", "fd00:25:7::101"];
    let listened = ["172.25.7.110", "fd00:25:7::110"];
    let probed = ["172.25.7.111", "fd00:25:7::111"];
    let answered = ["172.25.7.112", "fd00:25:7::112"];
    let mut duties = Duties::new();
    for (mode, ips) in [
        (Mode::Announce, &announced[..]),
        (Mode::Listen, &listened[..]),
        (Mode::Probe, &probed[..]),
        (Mode::Answer, &answered[..]),
    ] {
        for ip in ips {
            let interfaces = Arc::new([INTERFACE].into());
            duties.insert(ip.parse().unwrap(), Duty { interfaces, mode, round: 0, defence: 0 });
        }
    }
    let mut responder = Responder::default();
    responder.set(Arc::new(duties));
    responder.set_own([MAC, OTHER_MAC].into());
    golden::run("frames", "txt", |text| {
        let (mut expected, mut actual) = (String::new(), String::new());
        for exchange in exchanges(text) {
            let answer = answer(&responder, &exchange.frame);
            for (out, answer) in [(&mut expected, &exchange.answer), (&mut actual, &answer)] {
                writeln!(out, "{}{answer}\n", exchange.about).unwrap();
            }
        }
        (expected, actual)
    });
}

/// One frame and its answer.
#[derive(Default)]
struct Exchange {
    about: String,
    frame: Vec<u8>,
    /// Its first line, then all bytes in one.
    answer: String,
}

fn answer(responder: &Responder, frame: &[u8]) -> String {
    match responder.handle(frame, INTERFACE, MAC) {
        Ok(reply) => format!("reply {}\n{}", reply.ip, hex(&reply.frame)),
        Err(dropped) => format!("dropped {}: {dropped}", dropped.reason()),
    }
}

fn exchanges(text: &str) -> Vec<Exchange> {
    let mut all: Vec<Exchange> = Vec::new();
    let mut answered = true;
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let (mark, rest) = line.split_at(1);
        let rest = rest.trim();
        if answered && mark != ">" {
            all.push(Exchange::default());
            answered = false;
        }
        let exchange = all.last_mut().expect("an answer follows a frame");
        match mark {
            "#" => writeln!(exchange.about, "{rest}").unwrap(),
            "<" => exchange.frame.extend(bytes(rest)),
            ">" if !answered => {
                answered = true;
                exchange.answer = rest.to_owned();
            }
            ">" => {
                if !exchange.answer.contains('\n') {
                    exchange.answer.push('\n');
                }
                exchange.answer.push_str(&rest.replace(' ', ""));
            }
            _ => panic!("a line begins with '#', '<' or '>': {line:?}"),
        }
    }
    assert!(answered && !all.is_empty(), "every frame has an answer");
    all
}

fn bytes(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    assert!(digits.len().is_multiple_of(2), "whole bytes: {text:?}");
    digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
