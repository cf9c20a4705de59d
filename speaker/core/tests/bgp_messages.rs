//! Recorded BGP messages and what is read from them: `tests/golden/bgp/*.txt`. A new case needs no Rust.
//!
//! `#` says what the case is. `%` is what was negotiated, as words: `as4`, `extended`, `v4`, `v6`, `v4-over-v6`,
//! `internal`; without one `as4 v4 v6`. `<` lines are the bytes in hex: `(…)` is preceded by its length in one octet, `[…]`
//! in two, and a line that begins with the name of a message gets its header (marker, length, type); `;` begins a comment.
//! `>` lines are what comes out: a message each, at last `error CODE/SUBCODE DATA NAME` or `waits N octets`. Every case runs
//! twice: all bytes at once, and one by one. The bytes come from captures or from the RFCs, never from our own encoder.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed expectation is a failed test

mod golden;

use std::cell::RefCell;
use std::fmt::Write as _;

use patina_crds::net::Family;
use patina_speaker_core::bgp::codec::{Negotiated, Reader};
use patina_speaker_core::bgp::message::{Capabilities, Message, Open, Prefixes, ReceivedUpdate};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

#[test]
fn recorded_messages() {
    golden::run("bgp", "txt", |text| {
        let (mut expected, mut actual) = (String::new(), String::new());
        for case in cases(text) {
            let whole = read(&case, case.bytes.len().max(1));
            assert_eq!(whole, read(&case, 1), "{}: octet by octet", case.about);
            writeln!(expected, "{}{}", case.about, case.answer).unwrap();
            writeln!(actual, "{}{whole}", case.about).unwrap();
        }
        (expected, actual)
    });
}

proptest! {
    /// Octets changed, doubled and left out, and the stream cut anywhere.
    #[test]
    fn a_mutated_stream_is_read_the_same_however_it_is_cut(
        case in select(recorded()),
        changes in vec((any::<Index>(), any::<u8>(), 0..4), 0..6),
        piece in 1..40_usize,
    ) {
        let mut case = case;
        for (place, octet, how) in changes {
            // Behind the marker: what is before it was tried by the recorded cases.
            let Some(last) = case.bytes.len().checked_sub(17) else { break };
            let place = 16 + place.index(last + 1);
            match how {
                0 => drop(case.bytes.remove(place)),
                1 => case.bytes.insert(place, octet),
                _ => case.bytes[place] = octet,
            }
        }
        prop_assert_eq!(read(&case, case.bytes.len().max(1)), read(&case, piece));
    }
}

/// All recorded cases.
fn recorded() -> Vec<Case> {
    let all = RefCell::new(Vec::new());
    golden::run("bgp", "txt", |text| {
        all.borrow_mut().extend(cases(text));
        Default::default()
    });
    all.into_inner()
}

#[derive(Clone, Debug, Default)]
struct Case {
    about: String,
    negotiated: Negotiated,
    bytes: Vec<u8>,
    answer: String,
}

fn cases(text: &str) -> Vec<Case> {
    let mut all: Vec<Case> = Vec::new();
    let mut answered = true;
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let (mark, rest) = line.split_at(1);
        if answered && mark != ">" {
            all.push(Case { negotiated: negotiated("as4 v4 v6"), ..Case::default() });
            answered = false;
        }
        let case = all.last_mut().expect("an answer follows bytes");
        match mark {
            "#" => writeln!(case.about, "{}", rest.trim()).unwrap(),
            "%" => case.negotiated = negotiated(rest),
            "<" => case.bytes.extend(bytes(rest.split(';').next().unwrap().trim())),
            ">" => {
                answered = true;
                writeln!(case.answer, "{}", rest.trim()).unwrap();
            }
            _ => panic!("a line begins with '#', '%', '<' or '>': {line:?}"),
        }
    }
    assert!(answered && !all.is_empty(), "every case has an answer");
    all
}

fn negotiated(words: &str) -> Negotiated {
    let mut negotiated = Negotiated::default();
    for word in words.split_whitespace() {
        match word {
            "as4" => negotiated.four_octet_asn = true,
            "extended" => negotiated.extended_message = true,
            "v4-over-v6" => negotiated.ipv4_over_ipv6 = true,
            "internal" => negotiated.internal = true,
            "v4" => drop(negotiated.families.insert(Family::V4)),
            "v6" => drop(negotiated.families.insert(Family::V6)),
            _ => panic!("negotiated: {word:?}"),
        }
    }
    negotiated
}

/// The bytes of a line.
fn bytes(line: &str) -> Vec<u8> {
    let names = [("open", 1), ("update", 2), ("notification", 3), ("keepalive", 4), ("refresh", 5)];
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    let Some((_, kind)) = names.iter().find(|(name, _)| *name == word) else { return hex(line) };
    let body = hex(rest);
    let mut message = vec![0xff; 16];
    message.extend(u16::try_from(19 + body.len()).unwrap().to_be_bytes());
    message.push(*kind);
    message.extend(body);
    message
}

fn hex(text: &str) -> Vec<u8> {
    let mut open = vec![Vec::new()];
    let mut half = None;
    for c in text.chars().filter(|c| !c.is_whitespace()) {
        match c {
            '(' | '[' => open.push(Vec::new()),
            ')' | ']' => {
                let value = open.pop().unwrap();
                let outer = open.last_mut().expect("a bracket too many");
                if c == ')' {
                    outer.push(u8::try_from(value.len()).expect("fits an octet"));
                } else {
                    outer.extend(u16::try_from(value.len()).expect("fits two octets").to_be_bytes());
                }
                outer.extend(value);
            }
            digit => {
                let digit = u8::try_from(digit.to_digit(16).unwrap_or_else(|| panic!("{digit:?}"))).unwrap();
                match half.take() {
                    None => half = Some(digit),
                    Some(high) => open.last_mut().unwrap().push(high << 4 | digit),
                }
            }
        }
    }
    assert!(open.len() == 1 && half.is_none(), "brackets and octets: {text:?}");
    open.remove(0)
}

/// What a reader says, fed with pieces of this size.
fn read(case: &Case, piece: usize) -> String {
    let mut reader = Reader::default();
    let mut said = String::new();
    let mut left = case.bytes.len();
    for piece in case.bytes.chunks(piece) {
        reader.feed(piece);
        loop {
            match reader.next(&case.negotiated) {
                Ok(Some(message)) => {
                    left -= message_length(&case.bytes[case.bytes.len() - left..]);
                    writeln!(said, "{}", show(&message)).unwrap();
                }
                Ok(None) => break,
                Err(error) => {
                    let data: String = error.data.iter().map(|octet| format!("{octet:02x}")).collect();
                    let data = if data.is_empty() { "-".to_owned() } else { data };
                    writeln!(said, "error {}/{} {data} {error}", error.code, error.subcode).unwrap();
                    assert_eq!(reader.next(&case.negotiated), Err(error), "the answer stays");
                    return said;
                }
            }
        }
    }
    if left > 0 {
        writeln!(said, "waits {left} octets").unwrap();
    }
    said
}

fn message_length(bytes: &[u8]) -> usize {
    usize::from(u16::from_be_bytes([bytes[16], bytes[17]]))
}

fn show(message: &Message) -> String {
    match message {
        Message::Open(open) => show_open(open),
        Message::Received(update) => show_update(update),
        Message::Notification(notification) => format!("notification {notification}"),
        Message::Keepalive => "keepalive".to_owned(),
        Message::RouteRefresh { family: Some(family), subtype } => format!("refresh {family} {subtype}"),
        Message::RouteRefresh { family: None, subtype } => format!("refresh unknown {subtype}"),
        Message::Update(_) => panic!("never received"),
    }
}

fn show_open(open: &Open) -> String {
    let Capabilities {
        families,
        ipv4_over_ipv6,
        four_octet_asn,
        route_refresh,
        enhanced_route_refresh,
        extended_message,
        graceful_restart,
        long_lived,
        bfd_strict,
        other,
    } = &open.capabilities;
    let mut said = format!("open AS {} hold {} id {}", open.asn, open.hold_time, open.router_id);
    for family in families {
        write!(said, " {family}").unwrap();
    }
    for (has, name) in [
        (ipv4_over_ipv6, "v4-over-v6"),
        (four_octet_asn, "as4"),
        (route_refresh, "refresh"),
        (enhanced_route_refresh, "enhanced-refresh"),
        (extended_message, "extended"),
        (bfd_strict, "bfd-strict"),
    ] {
        if *has {
            write!(said, " {name}").unwrap();
        }
    }
    if let Some(restart) = graceful_restart {
        let flags = [(restart.restarting, "R"), (restart.notification, "N")];
        let flags: String = flags.iter().filter(|(has, _)| *has).map(|(_, name)| *name).collect();
        write!(said, " restart {}s{flags}", restart.restart_time).unwrap();
        for (family, kept) in &restart.families {
            write!(said, " {family}{}", if *kept { "+F" } else { "" }).unwrap();
        }
    }
    for (family, stale) in long_lived {
        write!(said, " long-lived {family} {stale}s").unwrap();
    }
    if !other.is_empty() {
        write!(said, " other {other:?}").unwrap();
    }
    said
}

fn show_update(update: &ReceivedUpdate) -> String {
    let mut said = "update".to_owned();
    let list =
        |prefixes: &Prefixes| prefixes.iter().map(|prefix| prefix.to_string()).collect::<Vec<_>>().join(" ");
    for (prefixes, name) in [(&update.announced, "+"), (&update.withdrawn, "-")] {
        if !prefixes.is_empty() {
            write!(said, " {name} {}", list(prefixes)).unwrap();
        }
    }
    if let Some(family) = update.end_of_rib {
        write!(said, " end of {family}").unwrap();
    }
    if let Some(tolerated) = &update.tolerated {
        write!(said, ", {:?} {}: {}", tolerated.how, tolerated.attribute, tolerated.why).unwrap();
    }
    said
}
