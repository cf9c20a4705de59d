//! Where speakers are said to be, and where of those nobody has been met yet.
//!
//! A few places are tried at a time, in an order of our own: whoever answers has a list of the others (`listing`), and only
//! where nobody is who is on it must be tried, all of them and again and again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::roster::MAX_PEERS;

/// Tried again after this, doubled up to that.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// All places, and those that are tried.
#[derive(Debug)]
pub(super) struct Places {
    /// Sorted.
    all: Box<[SocketAddr]>,
    waiting: BTreeMap<SocketAddr, Place>,
    due: BTreeSet<(Instant, SocketAddr)>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    due: Instant,
    pause: Duration,
}

impl Places {
    /// A new list. `met`: where speakers are that we have met, and ourselves; `nonce`: random.
    pub(super) fn new(
        now: Instant,
        wanted: &BTreeSet<SocketAddr>,
        met: impl Fn(&SocketAddr) -> bool,
        old: Option<Self>,
        nonce: u64,
    ) -> Self {
        let all: Box<[SocketAddr]> = wanted.iter().take(MAX_PEERS).copied().collect();
        let mut places = Self { all, waiting: BTreeMap::new(), due: BTreeSet::new() };
        let old = old.map(|old| old.waiting).unwrap_or_default();
        let mut order = nonce;
        for at in wanted.iter().take(MAX_PEERS).filter(|at| !met(at)) {
            // All have the list in one order; if all tried it in that order, the first ones would be asked by everybody.
            order = order.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            let fresh = Place { due: now - Duration::from_nanos(order >> 48), pause: PAUSE.0 };
            places.wait(*at, old.get(at).copied().unwrap_or(fresh));
        }
        places
    }

    /// The list has it.
    pub(super) fn contains(&self, at: &SocketAddr) -> bool {
        self.all.binary_search(at).is_ok()
    }

    /// How many places of the list are left where nobody has been met.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Somebody is there.
    pub(super) fn met(&mut self, at: &SocketAddr) {
        if let Some(place) = self.waiting.remove(at) {
            self.due.remove(&(place.due, *at));
        }
    }

    /// Who was met there is forgotten.
    pub(super) fn forgotten(&mut self, now: Instant, at: SocketAddr) {
        if self.contains(&at) && !self.waiting.contains_key(&at) {
            self.wait(at, Place { due: now + PAUSE.1, pause: PAUSE.0 });
        }
    }

    /// Those that are tried now, `most` of them.
    pub(super) fn due(&mut self, now: Instant, most: usize) -> Vec<SocketAddr> {
        let due: Vec<_> = self.due.iter().take_while(|(due, _)| *due <= now).take(most).copied().collect();
        for (_, at) in &due {
            let Some(place) = self.waiting.get(at).copied() else { continue };
            self.met(at);
            self.wait(*at, Place { due: now + place.pause, pause: (place.pause * 2).min(PAUSE.1) });
        }
        due.into_iter().map(|(_, at)| at).collect()
    }

    fn wait(&mut self, at: SocketAddr, place: Place) {
        self.waiting.insert(at, place);
        self.due.insert((place.due, at));
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // a first instant to count from; the clock is never read again
mod tests {
    use super::*;

    fn at(number: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], number))
    }

    #[test]
    fn a_place_is_tried_again_less_and_less_often_until_somebody_is_met_there() {
        let now = Instant::now();
        let mut places = Places::new(now, &(1..=3).map(at).collect(), |place| *place == at(3), None, 7);
        assert_eq!(places.waiting(), 2);
        let tried = |places: &mut Places, ms| {
            let mut due = places.due(now + Duration::from_millis(ms), 9);
            due.sort_unstable();
            due
        };
        assert_eq!(tried(&mut places, 0), [at(1), at(2)]);
        assert_eq!(tried(&mut places, 99), []);
        places.met(&at(2));
        assert_eq!(tried(&mut places, 100), [at(1)]);
        assert_eq!(tried(&mut places, 299), []);
        assert_eq!(tried(&mut places, 300), [at(1)]);
        places.forgotten(now, at(2));
        places.forgotten(now, at(9));
        assert_eq!(tried(&mut places, 2000), [at(1), at(2)]);
        assert!(places.contains(&at(3)) && !places.contains(&at(9)));
    }

    #[test]
    fn a_few_at_a_time_in_an_order_of_ones_own_and_none_twice() {
        let now = Instant::now();
        let all: BTreeSet<_> = (1..=100).map(at).collect();
        let order = |nonce| {
            let mut places = Places::new(now, &all, |_| false, None, nonce);
            (0..10).flat_map(|_| places.due(now, 10)).collect::<Vec<_>>()
        };
        assert_eq!(order(1).iter().copied().collect::<BTreeSet<_>>(), all);
        assert_ne!(order(1), order(2));
    }

    #[test]
    fn a_new_list_keeps_the_pauses_of_the_old_one() {
        let now = Instant::now();
        let mut places = Places::new(now, &(1..=2).map(at).collect(), |_| false, None, 1);
        assert_eq!(places.due(now, 9).len(), 2);
        let mut places = Places::new(now, &(2..=3).map(at).collect(), |_| false, Some(places), 1);
        assert_eq!(places.due(now, 9), [at(3)]);
    }
}
