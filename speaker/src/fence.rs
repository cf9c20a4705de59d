//! The lease under which frames are answered: the membership task prolongs it, the wire looks before each frame.
//!
//! A process that was stopped (SIGSTOP, a frozen cgroup, a starved machine) wakes with a lease that has run out: it is silent
//! before any of its threads has run, and stays so until the others have let it back in. What it then does must not be what it did
//! before: every opening has a number, whoever decides hears of it, and the wire does only what was decided after the last
//! one ([decision 25](../../docs/decisions/0025-nothing-old-passes-the-fence.md)).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// Shared by the membership task, which sets it, and the wire, which asks it.
#[derive(Clone, Debug)]
pub struct Fence {
    /// The zero of `until`.
    began: Instant,
    /// Nanoseconds after `began`; 0: closed; `u64::MAX`: open for ever.
    until: Arc<AtomicU64>,
    /// How often it was opened.
    openings: Arc<AtomicU64>,
    /// Rings at each opening.
    bell: Arc<Notify>,
}

impl Fence {
    /// Open for ever: there is no membership.
    #[must_use]
    pub fn open() -> Self {
        Self::until(u64::MAX)
    }

    /// Closed until [`Fence::set`].
    #[must_use]
    pub fn closed() -> Self {
        Self::until(0)
    }

    fn until(until: u64) -> Self {
        let until = Arc::new(AtomicU64::new(until));
        Self { began: Instant::now(), until, openings: Arc::default(), bell: Arc::default() }
    }

    /// Frames may be answered until then; `None`: not at all.
    pub fn set(&self, until: Option<Instant>) {
        let after = |until: Instant| until.saturating_duration_since(self.began);
        let nanos = |after: Duration| u64::try_from(after.as_nanos()).unwrap_or(u64::MAX - 1);
        let now = Instant::now();
        let opens = until.is_some_and(|until| until > now) && !self.permits(now);
        if opens {
            // Before the lease: whoever sees that it is open sees that it was opened.
            self.openings.fetch_add(1, Ordering::Release);
        }
        self.until.store(until.map_or(0, |until| nanos(after(until))), Ordering::Release);
        if opens {
            self.bell.notify_one();
        }
    }

    /// Whether a frame may be answered at `now`.
    #[must_use]
    pub fn permits(&self, now: Instant) -> bool {
        let until = self.until.load(Ordering::Acquire);
        let now = now.saturating_duration_since(self.began).as_nanos();
        until == u64::MAX || now < u128::from(until)
    }

    /// Whether a frame may be answered at `now` for a reason that is as old as the opening of this number: false when the fence
    /// was closed in between, though it is open now.
    #[must_use]
    pub fn permits_since(&self, opening: u64, now: Instant) -> bool {
        // In this order: see `set`.
        self.permits(now) && self.openings() == opening
    }

    /// How often it was opened. Another number than before: it was closed in between.
    #[must_use]
    pub fn openings(&self) -> u64 {
        self.openings.load(Ordering::Acquire)
    }

    /// Returns after an opening, one that nobody waited for included. For one who waits, again and again.
    pub async fn opened(&self) {
        self.bell.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_runs_out_by_itself() {
        let fence = Fence::closed();
        let now = Instant::now();
        assert!(!fence.permits(now));
        fence.set(Some(now + Duration::from_millis(200)));
        assert!(fence.permits(now + Duration::from_millis(199)));
        assert!(!fence.permits(now + Duration::from_millis(200)));
        fence.set(None);
        assert!(!fence.permits(now));
        assert!(Fence::open().permits(now + Duration::from_secs(1_000_000)));
    }

    #[test]
    fn every_opening_after_a_pause_counts() {
        let (fence, now) = (Fence::closed(), Instant::now());
        let hour = Duration::from_secs(3600);
        assert_eq!(fence.openings(), 0);
        fence.set(Some(now + hour));
        fence.set(Some(now + 2 * hour));
        assert_eq!(fence.openings(), 1, "prolonged, not opened");
        fence.set(None);
        fence.set(Some(now));
        assert_eq!(fence.openings(), 1, "a lease that has run out already opens nothing");
        fence.set(Some(now + hour));
        assert_eq!(fence.openings(), 2);
        assert!(fence.permits_since(2, now));
        assert!(!fence.permits_since(1, now), "what was decided before it was closed");
    }

    #[test]
    fn whoever_decides_hears_of_an_opening_that_came_before_it_listened() {
        use futures::FutureExt as _;
        let fence = Fence::closed();
        assert!(fence.opened().now_or_never().is_none());
        fence.set(Some(Instant::now() + Duration::from_secs(3600)));
        assert!(fence.opened().now_or_never().is_some());
        assert!(fence.opened().now_or_never().is_none(), "told once");
    }
}
