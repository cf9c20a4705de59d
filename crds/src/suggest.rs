//! "Did you mean".

/// The word that was most likely meant, when one is close enough: the same letters in another spelling
/// (`bfdProfile` for `bfd-profile`), or a few typing errors away.
#[must_use]
pub fn closest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = fold(word);
    let (distance, best) =
        known.into_iter().map(|k| (distance(&plain, &fold(k)), k)).min_by_key(|(d, _)| *d)?;
    let allowed = match plain.len() {
        0..=3 => 0,
        4..=6 => 1,
        7..=12 => 2,
        _ => 3,
    };
    (distance <= allowed).then_some(best)
}

/// Lower case without separators.
fn fold(word: &str) -> Vec<char> {
    word.chars().filter(|c| !matches!(c, '-' | '_' | ' ')).flat_map(char::to_lowercase).take(64).collect()
}

/// Levenshtein: insertions, deletions, replacements.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.iter().enumerate() {
        let mut previous = i;
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
        let mut left = i + 1;
        for (cell, cb) in row.iter_mut().skip(1).zip(b) {
            let replaced = previous + usize::from(ca != cb);
            previous = *cell;
            *cell = replaced.min(previous + 1).min(left + 1);
            left = *cell;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_and_typing_errors_are_recognised() {
        let known = ["address-pools", "peers", "bgp-communities", "bfd-profiles", "protocol"];
        for (word, meant) in [
            ("addressPools", Some("address-pools")),
            ("adress-pools", Some("address-pools")),
            ("address_pool", Some("address-pools")),
            ("peer", Some("peers")),
            ("protocoll", Some("protocol")),
            ("pools", None),
            ("", None),
        ] {
            assert_eq!(closest(word, known), meant, "{word}");
        }
    }
}
