//! How much may be under way: less when the API server says that it is too much, more again when it does not.
//!
//! Additive increase, multiplicative decrease, as TCP does for the same question: one 429 halves the window and stops
//! everything for the time that the server asks for; each windowful of answers lets one more request through.

use std::time::{Duration, Instant};

/// When a server that is too busy does not say for how long.
const PAUSE: Duration = Duration::from_secs(1);
/// Nobody is waited for longer than this, whatever it says.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
const FIRST_UNREACHABLE: Duration = Duration::from_millis(100);
const LONGEST_UNREACHABLE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Window {
    largest: usize,
    size: usize,
    under_way: usize,
    /// Of these, of namespaces or Services that fail.
    slow: usize,
    /// Answers since the size changed.
    answers: usize,
    /// Attempts below this number began before the size was last halved: they say nothing new.
    judged: u64,
    unreachable: u32,
    pub(super) paused_until: Option<Instant>,
}

impl Window {
    pub(super) fn new(largest: usize) -> Self {
        let largest = largest.max(1);
        Self {
            largest,
            size: largest,
            under_way: 0,
            slow: 0,
            answers: 0,
            judged: 0,
            unreachable: 0,
            paused_until: None,
        }
    }

    pub(super) fn size(&self) -> usize {
        self.size
    }

    pub(super) fn under_way(&self) -> usize {
        self.under_way
    }

    pub(super) fn open(&self) -> bool {
        self.paused_until.is_none() && self.under_way < self.size
    }

    /// What fails may use a quarter, so that it never holds up the rest.
    pub(super) fn open_for_slow(&self) -> bool {
        self.open() && self.slow < (self.size / 4).max(1)
    }

    pub(super) fn began(&mut self, slow: bool) {
        self.under_way += 1;
        self.slow += usize::from(slow);
    }

    pub(super) fn ended(&mut self, slow: bool) {
        self.under_way = self.under_way.saturating_sub(1);
        self.slow = self.slow.saturating_sub(usize::from(slow));
    }

    /// The server answered, whatever it was.
    pub(super) fn answered(&mut self) {
        self.unreachable = 0;
        self.answers += 1;
        if self.answers >= self.size && self.size < self.largest {
            self.size += 1;
            self.answers = 0;
        }
    }

    /// The server is too busy for this attempt; `next` is the number of the next one.
    pub(super) fn too_much(&mut self, now: Instant, attempt: u64, next: u64, retry_after: Option<Duration>) {
        self.unreachable = 0;
        if attempt >= self.judged {
            self.size = (self.size / 2).max(1);
            self.answers = 0;
            self.judged = next;
        }
        self.pause(now, retry_after.unwrap_or(PAUSE).min(LONGEST_PAUSE));
    }

    /// Nobody answers at all: that is nobody's fault in particular, so all wait, and one tries.
    pub(super) fn unreachable(&mut self, now: Instant, attempt: u64, next: u64) {
        if attempt >= self.judged {
            let pause = FIRST_UNREACHABLE.saturating_mul(1 << self.unreachable.min(10));
            self.unreachable += 1;
            self.size = 1;
            self.answers = 0;
            self.judged = next;
            self.pause(now, pause.min(LONGEST_UNREACHABLE));
        }
    }

    pub(super) fn resume(&mut self, now: Instant) {
        if self.paused_until.is_some_and(|until| until <= now) {
            self.paused_until = None;
        }
    }

    fn pause(&mut self, now: Instant, pause: Duration) {
        let until = now + pause;
        self.paused_until = Some(self.paused_until.map_or(until, |old| old.max(until)));
    }
}
