//! Recorded timelines of the ownership machine: every file of `tests/golden/ownership/` is a case, and a new one needs no Rust.
//!
//! A line that starts with a number is an input, at that millisecond; the indented lines below it are what followed, and
//! when. Write the inputs, run, and paste what the failure prints once you agree with it.
//!
//! ```text
//! we b                                              our node; all of a to h are speakers and no strangers
//! set longest-handover 1000                         milliseconds; names as in `Settings`
//! 0 decide 192.0.2.1: a b c; 192.0.2.2: b on 2,3 failback never
//! 5 hear 192.0.2.2 use from other                announcement | use | probe; from a node or any other word; on an interface
//! 9 stations a b                                    from now on only these are speakers
//! 9 missed c                                     from now on these fell silent; without a name: none
//! 10 rejoined | woken | leave | idle? | wait
//! ```
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed expectation is a failed test

mod golden;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use patina_crds::config::Failback;
use patina_speaker_core::intent::{How, L2Announcement};
use patina_speaker_core::l2::duty::{Claim, ClaimKind, Duties, Duty, Mode};
use patina_speaker_core::l2::ownership::{Gave, Input, Output, Ownership, Settings};
use patina_speaker_core::l2::wire::Mac;

#[test]
fn recorded_timelines() {
    golden::run("ownership", "txt", |text| {
        let mut run = Run::new(text);
        for line in text.lines().filter(|line| !line.starts_with(' ')) {
            run.line(line);
        }
        (text.to_owned(), run.text)
    });
}

struct Run {
    we: String,
    start: Instant,
    machine: Ownership,
    duties: Arc<Duties>,
    text: String,
}

impl Run {
    fn new(text: &str) -> Self {
        let we = text.lines().find_map(|line| line.strip_prefix("we ")).expect("a line `we NODE`").to_owned();
        let mut settings = Settings::default();
        for line in text.lines().filter_map(|line| line.strip_prefix("set ")) {
            let (name, value) = line.split_once(' ').unwrap();
            let value = Duration::from_millis(value.parse().unwrap());
            match name {
                "longest-handover" => settings.longest_handover = value,
                "defend-interval" => settings.defend_interval = value,
                "parked-retry" => settings.parked_retry = value,
                "waiting-retry" => settings.waiting_retry = value,
                "conflict-quiet" => settings.conflict_quiet = value,
                "probe-interval" => settings.probing.interval = value,
                other => panic!("no setting {other}"),
            }
        }
        #[allow(clippy::disallowed_methods)] // any instant will do as the origin of a virtual clock
        let start = Instant::now();
        let machine = Ownership::new(&we, settings);
        let mut run = Self { we, start, machine, duties: Arc::default(), text: String::new() };
        run.duties = run.machine.duties();
        run.stations(start, "a b c d e f g h");
        run
    }

    fn line(&mut self, line: &str) {
        let input = line.split_once(' ').and_then(|(at, input)| Some((at.parse().ok()?, input)));
        let Some((at, input)) = input else {
            writeln!(self.text, "{line}").unwrap();
            return;
        };
        let at = self.start + Duration::from_millis(at);
        while let Some(due) = self.machine.poll_timeout().filter(|due| *due <= at) {
            self.machine.handle_timeout(due);
            self.follow(due);
            // Calls that come late or twice do no harm.
            self.machine.handle_timeout(due);
            let text = self.text.len();
            self.follow(due);
            assert_eq!(self.text.len(), text, "a second call did something");
        }
        writeln!(self.text, "{line}").unwrap();
        let (verb, rest) = input.split_once(' ').unwrap_or((input, ""));
        match verb {
            "decide" => {
                let decided =
                    rest.split(';').filter(|part| *part != "nothing").map(|part| self.announcement(part));
                let decided = Arc::new(decided.collect::<BTreeMap<_, _>>());
                self.machine.handle(at, Input::Decided(decided));
            }
            "hear" => self.machine.handle(at, Input::Heard(claim(rest))),
            "stations" => self.stations(at, rest),
            "missed" => {
                let nodes = rest.split(' ').filter(|node| !node.is_empty()).map(Arc::from);
                self.machine.handle(at, Input::Missed(nodes.collect()));
            }
            "woken" => self.machine.handle(at, Input::Woken),
            "rejoined" => self.machine.handle(at, Input::Rejoined),
            "leave" => self.machine.handle(at, Input::Leave),
            "idle?" => {
                let idle = if self.machine.idle() { "idle" } else { "not idle" };
                writeln!(self.text, "  {} {idle}", (at - self.start).as_millis()).unwrap();
            }
            "wait" => {}
            other => panic!("no input {other}"),
        }
        self.follow(at);
    }

    /// `192.0.2.1: a b c on 2,3 failback never`
    fn announcement(&self, part: &str) -> (IpAddr, L2Announcement) {
        let (ip, rest) = part.trim().split_once(": ").expect("IP: NODES");
        let (rest, failback) = rest.split_once(" failback ").unwrap_or((rest, "immediate"));
        let (order, interfaces) = rest.split_once(" on ").unwrap_or((rest, "2"));
        let order: Arc<[Arc<str>]> = order.split(' ').map(Arc::from).collect();
        let how = How {
            interfaces: Arc::new(interfaces.split(',').map(|index| index.parse().unwrap()).collect()),
            leads: *order[0] == *self.we,
            keepers: Arc::new(order.iter().cloned().collect()),
            order,
            failback: match failback {
                "immediate" => Failback::Immediate,
                "never" => Failback::Never,
                millis => Failback::After(Duration::from_millis(millis.parse().unwrap())),
            },
        };
        let announcement = L2Announcement { how: Arc::new(how), ..L2Announcement::default() };
        (ip.parse().unwrap(), announcement)
    }

    fn stations(&mut self, at: Instant, names: &str) {
        let others = names.split_whitespace().filter(|name| *name != self.we);
        let stations = others.map(|name| (mac(name), Arc::from(name))).collect();
        self.machine.handle(at, Input::Stations(Arc::new(stations)));
    }

    /// Writes down what followed.
    fn follow(&mut self, at: Instant) {
        let at = (at - self.start).as_millis();
        while let Some(output) = self.machine.poll_output() {
            writeln!(self.text, "  {at} {}", say(&output)).unwrap();
        }
        let duties = self.machine.duties();
        let mut changed = false;
        let ips: std::collections::BTreeSet<&IpAddr> = self.duties.keys().chain(duties.keys()).collect();
        for ip in ips {
            if let Some(what) = difference(self.duties.get(ip), duties.get(ip)) {
                changed = true;
                writeln!(self.text, "  {at} {ip} {what}").unwrap();
            }
        }
        assert_eq!(Arc::ptr_eq(&duties, &self.duties), !changed, "the same value when nothing changed");
        self.duties = duties;
    }
}

fn claim(text: &str) -> Claim {
    let words: Vec<&str> = text.split(' ').collect();
    let (ip, kind, from, on) = match words.as_slice() {
        [ip, kind, "from", from] => (ip, kind, from, 2),
        [ip, kind, "from", from, "on", on] => (ip, kind, from, on.parse().unwrap()),
        other => panic!("{other:?}"),
    };
    let kind = match *kind {
        "announcement" => ClaimKind::Announcement,
        "use" => ClaimKind::Use,
        "probe" => ClaimKind::Probe,
        other => panic!("no kind {other}"),
    };
    Claim { ip: ip.parse().unwrap(), ifindex: on, mac: mac(from), kind }
}

/// The first five letters of the name.
fn mac(name: &str) -> Mac {
    let mut mac = [2, 0, 0, 0, 0, 0];
    for (to, from) in mac.iter_mut().skip(1).zip(name.bytes()) {
        *to = from;
    }
    mac
}

fn who(mac: Mac) -> String {
    mac.iter().skip(1).filter(|byte| **byte != 0).map(|byte| char::from(*byte)).collect()
}

fn difference(before: Option<&Duty>, after: Option<&Duty>) -> Option<String> {
    let Some(duty) = after else { return before.map(|_| "nothing".to_owned()) };
    let Some(before) = before.filter(|b| b.mode == duty.mode && b.interfaces == duty.interfaces) else {
        let mode = match duty.mode {
            Mode::Listen => "listen",
            Mode::Probe => "probe",
            Mode::Answer => "answer",
            Mode::Announce => "announce",
        };
        let interfaces: Vec<String> = duty.interfaces.iter().map(ToString::to_string).collect();
        return Some(format!("{mode} on {}", interfaces.join(",")));
    };
    match (before.round != duty.round, before.defence != duty.defence) {
        (false, false) => None,
        (true, _) => Some("anew".to_owned()),
        (false, true) => Some("once more".to_owned()),
    }
}

fn say(output: &Output) -> String {
    match output {
        Output::Hint(node) => format!("hint {node}"),
        Output::Took(ip) => format!("took {ip}"),
        Output::Gave(ip, Gave::Heard(node)) => format!("gave {ip}: heard {node}"),
        Output::Gave(ip, Gave::Unheard) => format!("gave {ip}: unheard"),
        Output::Gave(ip, Gave::Withdrawn) => format!("gave {ip}: withdrawn"),
        Output::Conflict { ip, claim, in_use } => {
            format!("conflict {ip}: {}{}", who(claim.mac), if *in_use { ", in use" } else { "" })
        }
        Output::Defended(claim) => format!("defended {} against {}", claim.ip, who(claim.mac)),
        Output::ConflictOver(ip) => format!("conflict over {ip}"),
    }
}
