//! The annotation `patina.io/failback` of an L2Advertisement: when a better candidate that comes back gets its addresses.

use std::fmt;
use std::time::Duration;

use super::draft::{Draft, Problems};
use super::{Failback, duration};
use crate::keys::FAILBACK;

/// A shorter delay is none, and after a day nobody remembers what is waited for.
const DELAYS: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);

/// How much of a value that is refused is shown.
const SHOWN: usize = 60;

/// What the annotation of this object says; absent is the default.
pub(super) fn read<T>(draft: &Draft<T>, problems: &mut Problems) -> Failback {
    let Some(text) = &draft.failback else { return Failback::default() };
    parse(text).unwrap_or_else(|| {
        let shown: String = text.chars().take(SHOWN).collect();
        let rest = if shown.len() < text.len() { " ..." } else { "" };
        let field = format!("metadata.annotations[{FAILBACK:?}]");
        let message = format!(
            "found {shown:?}{rest}; allowed are immediate, never, or a delay from 1s to 24h, like 30s or 5m"
        );
        problems.error(&draft.place.object, field, message);
        Failback::default()
    })
}

fn parse(text: &str) -> Option<Failback> {
    match text {
        "immediate" => Some(Failback::Immediate),
        "never" => Some(Failback::Never),
        _ => duration::parse(text).filter(|delay| DELAYS.contains(delay)).map(Failback::After),
    }
}

/// As the annotation says it.
impl fmt::Display for Failback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Immediate => f.write_str("immediate"),
            Self::After(delay) => f.write_str(&duration::show(*delay)),
            Self::Never => f.write_str("never"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_read_again() {
        for text in ["immediate", "never", "1s", "30s", "300s", "1.5s", "86400s"] {
            assert_eq!(parse(text).map(|failback| failback.to_string()).as_deref(), Some(text));
        }
        assert_eq!(parse("5m"), Some(Failback::After(Duration::from_secs(300))));
        assert_eq!(parse("24h"), Some(Failback::After(Duration::from_secs(86_400))));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "Never", " never", "no", "0", "0s", "999ms", "24h1ns", "-5s", "5", "5d", "1s,2s"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
