//! What must arrive: it is repeated until it is acknowledged, or until the slow net underneath will have to do.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::ring::Key;
use super::wire::{Dead, MAX_DEAD};

/// Between the first and the second time; doubled each time.
const FIRST: Duration = Duration::from_millis(40);
/// So often.
const TRIES: u8 = 7;

/// What one speaker has yet to hear.
#[derive(Debug, Default)]
struct Parcel {
    /// What we say of ourselves.
    intro: bool,
    verdicts: Vec<Dead>,
    seq: u32,
    tries: u8,
    due: Option<Instant>,
}

/// What all have yet to hear.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    parcels: BTreeMap<Key, Parcel>,
    due: BTreeSet<(Instant, Key)>,
    seq: u32,
}

/// A parcel that is to be sent now.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ready {
    pub(super) to: Key,
    pub(super) intro: bool,
    /// With their sequence number.
    pub(super) verdicts: Option<(u32, Vec<Dead>)>,
    /// For the last time.
    pub(super) last: bool,
}

impl Outbox {
    pub(super) fn intro(&mut self, now: Instant, to: Key) {
        self.parcel(now, to).intro = true;
    }

    pub(super) fn verdict(&mut self, now: Instant, to: Key, dead: Dead) {
        self.seq = self.seq.wrapping_add(1);
        let seq = self.seq;
        let parcel = self.parcel(now, to);
        parcel.verdicts.retain(|other| other.key != dead.key);
        parcel.verdicts.push(dead);
        if parcel.verdicts.len() > MAX_DEAD {
            parcel.verdicts.remove(0);
        }
        parcel.seq = seq;
    }

    pub(super) fn intro_arrived(&mut self, to: Key) {
        self.arrived(to, |parcel| parcel.intro = false);
    }

    pub(super) fn verdicts_arrived(&mut self, to: Key, seq: u32) {
        self.arrived(to, |parcel| {
            if parcel.seq == seq {
                parcel.verdicts.clear();
            }
        });
    }

    /// It is not to be told anything any more.
    pub(super) fn forget(&mut self, to: Key) {
        if let Some(due) = self.parcels.remove(&to).and_then(|parcel| parcel.due) {
            self.due.remove(&(due, to));
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    pub(super) fn ready(&mut self, now: Instant) -> Option<Ready> {
        let &(due, to) = self.due.first().filter(|(due, _)| *due <= now)?;
        self.due.remove(&(due, to));
        let parcel = self.parcels.get_mut(&to)?;
        let verdicts = (!parcel.verdicts.is_empty()).then(|| (parcel.seq, parcel.verdicts.clone()));
        let last = parcel.tries + 1 >= TRIES;
        let ready = Ready { to, intro: parcel.intro, verdicts, last };
        let pause = FIRST * 2_u32.pow(parcel.tries.into());
        parcel.tries += 1;
        if last {
            self.parcels.remove(&to);
        } else {
            parcel.due = now.checked_add(pause);
            self.due.extend(parcel.due.map(|due| (due, to)));
        }
        Some(ready)
    }

    /// The parcel of a speaker, to be sent then.
    fn parcel(&mut self, now: Instant, to: Key) -> &mut Parcel {
        let parcel = self.parcels.entry(to).or_default();
        if let Some(due) = parcel.due.replace(now) {
            self.due.remove(&(due, to));
        }
        self.due.insert((now, to));
        parcel.tries = 0;
        parcel
    }

    fn arrived(&mut self, to: Key, what: impl FnOnce(&mut Parcel)) {
        let Some(parcel) = self.parcels.get_mut(&to) else { return };
        what(parcel);
        if !parcel.intro && parcel.verdicts.is_empty() {
            self.forget(to);
        }
    }
}
