//! What waits for somebody's epoch, and who was told ours lately. Both bounded.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::Epoch;

/// Longer than any answer takes; what is older is no news.
const PATIENCE: Duration = Duration::from_secs(1);
/// Messages that wait, for one place and for all.
const PER_PLACE: usize = 8;
const PLACES: usize = 128;
/// Between greetings to one who does not know our epoch.
const GREETING_PAUSE: Duration = Duration::from_millis(100);
const MOST_GREETED: usize = 1024;

/// Messages for places whose epoch is not known.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    places: BTreeMap<SocketAddr, Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    turn: usize,
    messages: VecDeque<(Instant, Vec<u8>)>,
}

impl Waiting {
    /// Keeps a message, in the place of the oldest when there are too many. Returns how often that was done for this place.
    pub(super) fn push(&mut self, now: Instant, to: SocketAddr, message: &[u8]) -> usize {
        if self.places.len() >= PLACES && !self.places.contains_key(&to) {
            self.places.retain(|_, queue| queue.messages.back().is_some_and(|(at, _)| is_news(now, *at)));
            if self.places.len() >= PLACES {
                // Nothing is kept for it; its greeting goes out all the same.
                return 0;
            }
        }
        let queue = self.places.entry(to).or_default();
        if queue.messages.len() >= PER_PLACE {
            queue.messages.pop_front();
        }
        queue.messages.push_back((now, message.to_vec()));
        queue.turn += 1;
        queue.turn - 1
    }

    /// What waits for this place.
    pub(super) fn take(&mut self, now: Instant, place: SocketAddr) -> Vec<Vec<u8>> {
        let queue = self.places.remove(&place).unwrap_or_default();
        queue.messages.into_iter().filter(|(at, _)| is_news(now, *at)).map(|(_, message)| message).collect()
    }

    #[cfg(test)]
    pub(super) fn places(&self) -> usize {
        self.places.len()
    }
}

fn is_news(now: Instant, at: Instant) -> bool {
    now.saturating_duration_since(at) < PATIENCE
}

/// Who was told our epoch lately.
#[derive(Debug, Default)]
pub(super) struct Greeted(BTreeMap<(SocketAddr, Epoch), Instant>);

impl Greeted {
    pub(super) fn may(&mut self, now: Instant, from: SocketAddr, epoch: Epoch) -> bool {
        let lately = |at: &Instant| now.saturating_duration_since(*at) < GREETING_PAUSE;
        if self.0.get(&(from, epoch)).is_some_and(lately) {
            return false;
        }
        if self.0.len() >= MOST_GREETED {
            self.0.retain(|_, at| lately(at));
            if self.0.len() >= MOST_GREETED {
                // Somebody repeats recordings from a thousand places. A greeting is no longer than what it answers by
                // much, so that he gains nothing; and newcomers shall not wait for him to end.
                self.0.clear();
            }
        }
        self.0.insert((from, epoch), now);
        true
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
