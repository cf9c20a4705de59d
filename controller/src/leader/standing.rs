//! Whether we may write right now, and what there is to say about it; shared with everything that writes or asks.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// See the module. Clones share everything.
#[derive(Clone, Debug, Default)]
pub(crate) struct Standing(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    /// Working until then, by either clock: the monotonic one does not count while a machine sleeps.
    until: Option<(Instant, SystemTime)>,
    /// Who holds the Lease, or why that is not known.
    seen: Option<Result<String, String>>,
    /// What a leader still waits for before it gives addresses.
    waits_for: Option<String>,
}

impl Standing {
    pub(crate) fn leads(&self) -> bool {
        self.lock().leads()
    }

    /// For [`patina_runtime::http::Health`]. Ready is who knows the leader; and the leader, once it is at work.
    pub(crate) fn readiness(&self) -> Result<(), String> {
        let inner = self.lock();
        match (&inner.seen, &inner.waits_for) {
            (None, _) => Err("the Lease was not read yet".to_owned()),
            (Some(Err(why)), _) => Err(why.clone()),
            (Some(Ok(_)), Some(what)) if inner.leads() => {
                Err(format!("leads, and is not at work yet: {what}"))
            }
            (Some(Ok(_)), _) => Ok(()),
        }
    }

    /// What the leader waits for; `None`: it is at work.
    pub(crate) fn waits_for(&self, what: Option<String>) {
        self.lock().waits_for = what;
    }

    /// Ours for `span` from `began`.
    pub(super) fn lead(&self, began: Instant, span: Duration) {
        let wall = SystemTime::now() + span.saturating_sub(began.elapsed());
        self.lock().until = Some((began + span, wall));
    }

    pub(super) fn stop(&self) {
        self.lock().until = None;
    }

    /// True when this is news.
    pub(super) fn saw(&self, seen: Result<String, String>) -> bool {
        let mut inner = self.lock();
        let news = inner.seen.as_ref() != Some(&seen);
        inner.seen = Some(seen);
        news
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn leads(&self) -> bool {
        self.until.is_some_and(|(until, wall)| Instant::now() < until && SystemTime::now() < wall)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_says_what_is_missing() {
        let standing = Standing::default();
        let why = |standing: &Standing| standing.readiness().unwrap_err();
        assert_eq!(why(&standing), "the Lease was not read yet");
        assert!(standing.saw(Err("cannot take the Lease: forbidden (403)".to_owned())));
        assert_eq!(why(&standing), "cannot take the Lease: forbidden (403)");
        // Standing by is ready: it takes over when it must.
        standing.saw(Ok("the other".to_owned()));
        standing.waits_for(Some("Services are not listed yet".to_owned()));
        assert_eq!(standing.readiness(), Ok(()));

        standing.lead(Instant::now(), Duration::from_secs(60));
        assert_eq!(why(&standing), "leads, and is not at work yet: Services are not listed yet");
        standing.waits_for(None);
        assert_eq!(standing.readiness(), Ok(()));
        assert!(standing.saw(Err("cannot renew the Lease: no answer within 4s".to_owned())));
        assert!(standing.leads() && standing.readiness().is_err());
    }

    #[test]
    fn a_leader_stops_by_itself() {
        let standing = Standing::default();
        let (now, span) = (Instant::now(), Duration::from_secs(10));
        standing.lead(now, span);
        assert!(standing.leads());
        // The last renewal began longer ago than the span.
        standing.lead(now - 2 * span, span);
        assert!(!standing.leads());
        // The machine slept: only the wall clock shows it.
        standing.lock().until = Some((now + span, SystemTime::now() - span));
        assert!(!standing.leads());
    }
}
