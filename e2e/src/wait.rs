//! Waiting for a condition, never for a time.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(50);

/// What one look at the world gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen<T> {
    /// The condition holds; this is what it was waited for.
    Done(T),
    /// It does not hold; this is what a person should be told when it never does.
    Not(String),
}

impl<T> Seen<T> {
    /// `Done(value)` when `holds`, else `Not` with the value printed.
    pub fn when(holds: bool, value: T) -> Seen<T>
    where
        T: Debug,
    {
        if holds { Seen::Done(value) } else { Seen::Not(format!("{value:?}")) }
    }
}

/// Looks until the condition holds. An error counts as "not yet": the API may be down for a moment.
///
/// ```text
/// let ip = wait::until("web has an address", secs(10), || async {
///     let svc = services.get("web").await?;
///     Ok(match ingress(&svc) { Some(ip) => Seen::Done(ip), None => Seen::Not(format!("{:?}", svc.status)) })
/// }).await?;
/// ```
///
/// # Errors
/// The deadline passed; the text has `what`, the deadline and what was seen last.
pub async fn until<T, F, Fut>(what: &str, deadline: Duration, mut look: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<Seen<T>>>,
{
    let started = Instant::now();
    let mut last = "nothing yet".to_owned();
    loop {
        let left = deadline.saturating_sub(started.elapsed());
        match tokio::time::timeout(left.max(POLL), look()).await {
            Ok(Ok(Seen::Done(value))) => return Ok(value),
            Ok(Ok(Seen::Not(seen))) => last = seen,
            Ok(Err(e)) => last = format!("{e:#}"),
            Err(_) => last = format!("no answer; before that: {last}"),
        }
        if started.elapsed() >= deadline {
            return Err(gave_up(what, deadline, &last));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Like [`until`], for a condition that is looked at without waiting (a file, a process).
///
/// # Errors
/// As [`until`].
pub fn until_blocking<T>(
    what: &str,
    deadline: Duration,
    mut look: impl FnMut() -> Result<Seen<T>>,
) -> Result<T> {
    let started = Instant::now();
    loop {
        let last = match look() {
            Ok(Seen::Done(value)) => return Ok(value),
            Ok(Seen::Not(seen)) => seen,
            Err(e) => format!("{e:#}"),
        };
        if started.elapsed() >= deadline {
            return Err(gave_up(what, deadline, &last));
        }
        std::thread::sleep(POLL);
    }
}

/// Holds for the whole `span`: the opposite question ("nothing else happens"), asked over and over.
///
/// # Errors
/// The condition broke; the text says after how long and what was seen. An error of `look` breaks it too.
pub async fn holds<F, Fut>(what: &str, span: Duration, mut look: F) -> Result<()>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<Seen<()>>>,
{
    let started = Instant::now();
    while started.elapsed() < span {
        if let Seen::Not(seen) = look().await? {
            return Err(anyhow!("{what}: broken after {:.1?}; seen: {seen}", started.elapsed()));
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// Seconds, for deadlines that read well.
pub const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn gave_up(what: &str, deadline: Duration, last: &str) -> anyhow::Error {
    anyhow!("gave up after {deadline:?} waiting until {what}; last seen: {last}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn giving_up_says_what_was_seen_last() {
        let mut n = 0;
        let result = until::<(), _, _>("n is 9", Duration::from_millis(120), || {
            n += 1;
            async move { Ok(Seen::Not(format!("n = {n}"))) }
        })
        .await;
        let text = result.unwrap_err().to_string();
        assert!(text.starts_with("gave up after 120ms waiting until n is 9; last seen: n = "), "{text}");
    }

    #[tokio::test]
    async fn a_look_that_hangs_does_not_outlast_the_deadline() {
        let result = until::<(), _, _>("it answers", Duration::from_millis(60), std::future::pending).await;
        assert!(result.unwrap_err().to_string().contains("no answer"));
    }

    #[test]
    fn an_error_is_not_yet() {
        let mut looks = vec![Ok(Seen::Done(7)), Err(anyhow!("refused"))];
        let got = until_blocking("it is there", secs(5), || looks.pop().unwrap());
        assert_eq!(got.unwrap(), 7);
    }
}
