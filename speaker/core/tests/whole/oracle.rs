//! What must hold at every moment, and what was measured.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::windows::{HEARING, MOVES};

/// One address at one moment, as the network sees it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sight {
    /// The most speakers that announce it on one wire.
    pub(crate) announcers: usize,
    /// A candidate shares the wire with the client.
    pub(crate) eligible: bool,
    /// Somebody answers the client.
    pub(crate) answered: bool,
}

pub(crate) struct Oracle {
    /// Until when two may announce, and until when an address may be dark.
    two_until: Instant,
    dark_until: Instant,
    two_since: BTreeMap<IpAddr, Instant>,
    dark_since: BTreeMap<IpAddr, Instant>,
    taken: BTreeMap<IpAddr, usize>,
    /// What happened since the network was last quiet.
    happened: usize,
    /// The one thing that happened, as long as it is one.
    alone: Option<&'static str>,
    pub(crate) record: Record,
}

/// How long two announced, and how long nobody answered, after a thing that happened alone.
#[derive(Default)]
pub(crate) struct Record {
    two: BTreeMap<&'static str, Vec<Duration>>,
    dark: BTreeMap<&'static str, Vec<Duration>>,
    moves: BTreeMap<&'static str, usize>,
    times: BTreeMap<&'static str, usize>,
}

impl Oracle {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            two_until: now,
            dark_until: now,
            two_since: BTreeMap::new(),
            dark_since: BTreeMap::new(),
            taken: BTreeMap::new(),
            happened: 0,
            alone: None,
            record: Record::default(),
        }
    }

    /// Something happens: until when two may announce, and until when an address may be dark.
    pub(crate) fn happens(&mut self, what: &'static str, two_until: Instant, dark_until: Instant) {
        self.two_until = self.two_until.max(two_until);
        self.dark_until = self.dark_until.max(dark_until);
        self.happened += 1;
        self.alone = (self.happened == 1).then_some(what);
        if self.happened == 1 {
            *self.record.times.entry(what).or_default() += 1;
        }
    }

    /// An excuse that lasts on.
    pub(crate) fn excuse(&mut self, two_until: Option<Instant>, dark_until: Option<Instant>) {
        self.two_until = self.two_until.max(two_until.unwrap_or(self.two_until));
        self.dark_until = self.dark_until.max(dark_until.unwrap_or(self.dark_until));
    }

    pub(crate) fn quiet(&mut self) {
        self.happened = 0;
        self.alone = None;
        self.taken.clear();
    }

    /// What is wrong, if anything is.
    pub(crate) fn took(&mut self, ip: IpAddr) -> Option<String> {
        let taken = self.taken.entry(ip).or_default();
        *taken += 1;
        if let Some(what) = self.alone {
            *self.record.moves.entry(what).or_default() += 1;
        }
        let bound = MOVES * self.happened.max(1);
        (*taken > bound)
            .then(|| format!("{ip} was taken {taken} times after {} things happened", self.happened))
    }

    pub(crate) fn see(&mut self, now: Instant, ip: IpAddr, sight: Sight) -> Option<String> {
        let mut wrong = None;
        if sight.announcers > 1 {
            let since = *self.two_since.entry(ip).or_insert(now);
            if now > self.two_until && now > since + HEARING {
                wrong = Some(format!("{} announce {ip} for {:?}", sight.announcers, now - since));
            }
        } else if let (Some(since), Some(what)) = (self.two_since.remove(&ip), self.alone) {
            self.record.two.entry(what).or_default().push(now - since);
        }
        if sight.eligible && !sight.answered {
            let since = *self.dark_since.entry(ip).or_insert(now);
            if now > self.dark_until {
                wrong = Some(format!("nobody answers for {ip} for {:?}", now - since));
            }
        } else if let (Some(since), Some(what)) = (self.dark_since.remove(&ip), self.alone) {
            self.record.dark.entry(what).or_default().push(now - since);
        }
        wrong
    }
}

impl Record {
    pub(crate) fn add(&mut self, other: &Self) {
        for (what, times) in &other.two {
            self.two.entry(what).or_default().extend(times);
        }
        for (what, times) in &other.dark {
            self.dark.entry(what).or_default().extend(times);
        }
        for (what, n) in &other.moves {
            *self.moves.entry(what).or_default() += n;
        }
        for (what, n) in &other.times {
            *self.times.entry(what).or_default() += n;
        }
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |times: Option<&Vec<Duration>>| {
            let mut times = times.cloned().unwrap_or_default();
            times.sort_unstable();
            match times.as_slice() {
                [] => "never".to_owned(),
                [.., max] => {
                    let p = |percent: usize| times[(times.len() - 1) * percent / 100].as_millis();
                    format!(
                        "{:5} x, ms p50 {:4} p99 {:4} max {:4}",
                        times.len(),
                        p(50),
                        p(99),
                        max.as_millis()
                    )
                }
            }
        };
        for (what, n) in &self.times {
            let moves = self.moves.get(what).copied().unwrap_or_default();
            writeln!(
                f,
                "{what:28} {n:4} times, {moves:5} moves; two announce: {:45} dark: {}",
                line(self.two.get(what)),
                line(self.dark.get(what))
            )?;
        }
        Ok(())
    }
}
