//! Durations as Go writes them: `90s`, `1m30s`, `1.5h`, `0`.

use std::time::Duration;

/// Parses a duration that is not negative. `None` for anything else, and for more than a century.
pub(crate) fn parse(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut total: u128 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').filter(|end| *end > 0)?;
        let (number, tail) = rest.split_at(end);
        let (unit, nanos) = UNITS.iter().find(|(unit, _)| tail.starts_with(unit))?;
        total = total.checked_add(scaled(number, *nanos)?)?;
        rest = tail.strip_prefix(unit)?;
    }
    let longest = Duration::from_secs(100 * 365 * 24 * 3600);
    u64::try_from(total).ok().map(Duration::from_nanos).filter(|duration| *duration <= longest)
}

/// As a person would write it: in seconds, or in milliseconds below one.
pub(crate) fn show(duration: Duration) -> String {
    if duration.is_zero() { "0s".to_owned() } else { format!("{duration:?}") }
}

/// Longest first where one begins another.
const UNITS: [(&str, u128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// `number`, digits with at most one point, times `nanos`.
fn scaled(number: &str, nanos: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    // Below a nanosecond nothing counts, and 18 digits are below it for every unit.
    let fraction = fraction.get(..18.min(fraction.len()))?;
    let part = match u32::try_from(fraction.len()) {
        Ok(0) | Err(_) => 0,
        Ok(digits) => fraction.parse::<u128>().ok()?.checked_mul(nanos)? / 10u128.checked_pow(digits)?,
    };
    whole.checked_mul(nanos)?.checked_add(part)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn go_durations_are_read() {
        for (text, millis) in [
            ("90s", 90_000),
            ("1m30s", 90_000),
            ("1.5h", 5_400_000),
            ("0", 0),
            ("0s", 0),
            ("0h0m0s", 0),
            ("250ms", 250),
            (".5s", 500),
            ("1.s", 1000),
            ("+3s", 3000),
        ] {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(parse("1.000000001s"), Some(Duration::from_nanos(1_000_000_001)));
    }

    #[test]
    fn what_go_refuses_is_refused() {
        for text in ["", "90", "s", ".s", "1..5s", "-3s", "3 s", "3d", "1s ", "9999999999999999999h", "+"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn parsing_is_total(text in ".{0,40}") {
            let _ = parse(&text);
        }

        #[test]
        fn seconds_round_trip(seconds in 0u64..100_000) {
            prop_assert_eq!(parse(&format!("{seconds}s")), Some(Duration::from_secs(seconds)));
        }
    }
}
