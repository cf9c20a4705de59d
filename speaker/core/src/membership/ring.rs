//! Who watches whom: a pure function of the live names, so that all who know the same speakers agree without a word.
//!
//! Names are hashed to points on a ring. Each speaker is watched by the next few live ones that follow it. One that
//! comes or goes changes the watchers of its few predecessors only, however many there are.

use std::collections::BTreeSet;
use std::ops::Bound;

/// A speaker's place on the ring, and what messages call it.
pub(crate) type Key = u64;

/// The place of a name. FNV-1a, then mixed so that `node-1` and `node-2` are no neighbours. Nobody gains by choosing a name: they
/// come from Kubernetes, and a collision (of 5,000: one in 10^12) is refused, not mixed up.
pub(crate) fn key(name: &str) -> Key {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in name.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// The `count` members that follow `of`: those who watch it.
pub(crate) fn after(members: &BTreeSet<Key>, of: Key, count: usize) -> impl Iterator<Item = Key> + '_ {
    let later = members.range((Bound::Excluded(of), Bound::Unbounded));
    later.chain(members.range(..of)).copied().take(count)
}

/// Whether `other`, were it a member, would be one of the `count` after `of`.
pub(crate) fn is_after(members: &BTreeSet<Key>, of: Key, other: Key, count: usize) -> bool {
    let between = after(members, of, count).take_while(|key| key.wrapping_sub(of) < other.wrapping_sub(of));
    between.count() < count
}

/// The `count` members before `of`: those whom it watches.
pub(crate) fn before(members: &BTreeSet<Key>, of: Key, count: usize) -> impl Iterator<Item = Key> + '_ {
    let earlier = members.range(..of).rev();
    earlier.chain(members.range((Bound::Excluded(of), Bound::Unbounded)).rev()).copied().take(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> BTreeSet<Key> {
        (0..count).map(|i| key(&format!("node-{i}"))).collect()
    }

    #[test]
    fn i_watch_exactly_those_whom_i_follow() {
        for count in [1, 2, 3, 4, 5, 50] {
            let all = names(count);
            for &watcher in &all {
                for &watched in &all {
                    let others =
                        |of: Key| all.iter().copied().filter(|key| *key != of).collect::<BTreeSet<_>>();
                    let follows = after(&others(watched), watched, 3).any(|key| key == watcher);
                    let watches = before(&others(watcher), watcher, 3).any(|key| key == watched);
                    assert_eq!(follows, watches, "{count} members");
                }
            }
        }
    }

    #[test]
    fn one_that_comes_changes_the_watchers_of_its_three_predecessors_only() {
        let mut all = names(1000);
        let watchers = |all: &BTreeSet<Key>, of: Key| after(all, of, 3).collect::<Vec<_>>();
        let before_it: Vec<_> = all.iter().map(|&key| (key, watchers(&all, key))).collect();
        all.insert(key("the-new-one"));
        let changed = before_it.iter().filter(|(key, was)| watchers(&all, *key) != *was).count();
        assert_eq!(changed, 3);
    }

    #[test]
    fn similar_names_are_spread() {
        let all = names(1000);
        assert_eq!(all.len(), 1000);
        for sixteenth in 0..16_u64 {
            let share = all.iter().filter(|key| *key >> 60 == sixteenth).count();
            assert!((30..100).contains(&share), "{share} of 1000 in a sixteenth");
        }
    }
}
