//! Sets of 32-bit words as sorted ranges, both ends included, that neither overlap nor touch.

/// The ranges of these words.
pub(super) fn of(mut words: Vec<u32>) -> Vec<(u32, u32)> {
    words.sort_unstable();
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for word in words {
        match ranges.last_mut() {
            Some((_, last)) if word <= last.saturating_add(1) => *last = word,
            _ => ranges.push((word, word)),
        }
    }
    ranges
}

/// At most `most` ranges (at least one) that cover these: the smallest gaps are closed.
pub(super) fn merged(ranges: &[(u32, u32)], most: usize) -> Vec<(u32, u32)> {
    let most = most.max(1);
    if ranges.len() <= most {
        return ranges.to_vec();
    }
    let gap = |pair: &[(u32, u32)]| match pair {
        [(_, before), (after, _)] => after - before,
        _ => 0,
    };
    // The gaps that stay open, widest first; of equally wide ones the earlier.
    let mut gaps: Vec<(u32, usize)> =
        ranges.windows(2).enumerate().map(|(at, pair)| (u32::MAX - gap(pair), at)).collect();
    gaps.sort_unstable();
    gaps.truncate(most - 1);
    let mut open: Vec<usize> = gaps.into_iter().map(|(_, at)| at).collect();
    open.sort_unstable();
    let mut merged: Vec<(u32, u32)> = Vec::with_capacity(most);
    let mut open = open.into_iter().peekable();
    let mut begins = true;
    for (at, (first, last)) in ranges.iter().enumerate() {
        match merged.last_mut() {
            Some(range) if !begins => range.1 = *last,
            _ => merged.push((*first, *last)),
        }
        begins = open.next_if_eq(&at).is_some();
    }
    merged
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn neighbours_are_one_range() {
        assert_eq!(of(vec![5, 3, 4, 9, 4, u32::MAX, 0]), [(0, 0), (3, 5), (9, 9), (u32::MAX, u32::MAX)]);
        assert_eq!(of(vec![u32::MAX, u32::MAX - 1]), [(u32::MAX - 1, u32::MAX)]);
        assert_eq!(of(vec![]), []);
    }

    #[test]
    fn the_smallest_gaps_are_closed_first() {
        let ranges = [(1, 1), (3, 4), (10, 10), (12, 12), (100, 200)];
        assert_eq!(merged(&ranges, 5), ranges);
        assert_eq!(merged(&ranges, 4), [(1, 1), (3, 4), (10, 12), (100, 200)]);
        assert_eq!(merged(&ranges, 3), [(1, 4), (10, 12), (100, 200)]);
        assert_eq!(merged(&ranges, 2), [(1, 12), (100, 200)]);
        assert_eq!(merged(&ranges, 1), [(1, 200)]);
        assert_eq!(merged(&ranges, 0), [(1, 200)]);
    }

    proptest! {
        #[test]
        fn ranges_cover_their_words(words in proptest::collection::vec(0u32..500, 0..100), most in 1usize..30) {
            let exact = of(words.clone());
            let covered = |ranges: &[(u32, u32)], word| ranges.iter().any(|(a, b)| (*a..=*b).contains(&word));
            for word in 0..500 {
                prop_assert_eq!(covered(&exact, word), words.contains(&word));
            }
            let fewer = merged(&exact, most);
            prop_assert!(fewer.len() <= most);
            prop_assert!(words.iter().all(|word| covered(&fewer, *word)));
            prop_assert!(fewer.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
        }
    }
}
