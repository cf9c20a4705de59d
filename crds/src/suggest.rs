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

/// Optimal string alignment: insertions, deletions, replacements, swaps of neighbours.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut rows: [Vec<usize>; 3] = [Vec::new(), Vec::new(), (0..=b.len()).collect()];
    for (i, ca) in a.iter().enumerate() {
        let [_, before, above] = rows;
        let at = |row: &[usize], j: usize| row.get(j).copied().unwrap_or(usize::MAX / 2);
        let mut row = vec![i + 1];
        for (j, cb) in b.iter().enumerate() {
            let mut best = at(&above, j) + usize::from(ca != cb);
            best = best.min(at(&above, j + 1) + 1).min(at(&row, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(cb) && b.get(j - 1) == Some(ca);
            if swapped {
                best = best.min(at(&before, j - 1) + 1);
            }
            row.push(best);
        }
        rows = [before, above, row];
    }
    let [_, _, last] = rows;
    last.last().copied().unwrap_or(0)
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
            ("peesr", Some("peers")),
            ("pools", None),
            ("", None),
        ] {
            assert_eq!(closest(word, known), meant, "{word}");
        }
    }
}
