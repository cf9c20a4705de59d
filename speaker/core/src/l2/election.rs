//! Who announces: an order of the candidates that every speaker computes alone, from values that all share.
//!
//! Bit-exact with MetalLB (api 4.7) where MetalLB knows as much as we do, so that a cluster in the middle of a migration
//! agrees: preference score descending, then SHA-256(node name `#` text of the first ingress address) ascending; the first
//! leads. What MetalLB does not know comes first ([`Standing`]).
//!
//! [`order`] says what the order is. [`Elector`](super::elector::Elector) knows it without hashing everything again.

use std::cmp::Reverse;

use sha2::block_api::compress256;
use sha2::{Digest, Sha256};

/// A node that could announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contender<'a> {
    /// Name of the node.
    pub node: &'a str,
    /// What it can do at all.
    pub standing: Standing,
    /// Sum of the weights of the preferences it matches.
    pub score: u32,
}

/// What goes before preferences: contenders are compared field after field, and the smaller is the better one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Standing {
    /// Its speaker is about to end. Whatever it alone can do, it cannot for long.
    pub leaving: bool,
    /// It has interfaces for the addresses, and reaches nobody through them: what it announces is heard by nobody.
    pub isolated: bool,
    /// How many of the Services that share the address it can serve; the same number for all contenders of a Service
    /// that shares nothing, where it therefore decides nothing. More comes first: an address is answered by one node,
    /// and a node without an endpoint of a `Local` Service would leave that one dark.
    pub serves: Reverse<usize>,
    /// How many of their addresses it can announce on the segment that they belong to. More comes first: of a dual stack
    /// Service both rather than one.
    pub announces: Reverse<usize>,
    /// Somebody wants its addresses elsewhere. After the counts: a drain does not leave an address dark.
    pub drained: bool,
}

impl Standing {
    /// Of a node that can serve a Service which shares nothing, and has one address.
    pub const PLAIN: Self =
        Self { leaving: false, isolated: false, serves: Reverse(1), announces: Reverse(1), drained: false };
}

/// Sorts the contenders: the leader first, its successors after it.
///
/// `first_ingress` is the text of the first ingress entry as it stands in the status, not a reformatted address.
/// The order is total (ends with the name) and does not depend on the order of the input. Removing a contender leaves
/// the others in place: only what the leader had moves when it dies.
pub fn order<'a>(first_ingress: &str, contenders: &mut [Contender<'a>]) {
    // Hashes are computed once per contender, not once per comparison.
    contenders.sort_by_cached_key(|contender| {
        let Contender { node, standing, score } = *contender;
        (standing, Reverse(score), hash(node, first_ingress), node)
    });
}

/// SHA-256 over node name, `#` and address text.
#[must_use]
pub fn hash(node: &str, first_ingress: &str) -> [u8; 32] {
    let mut sha = Sha256::new();
    sha.update(node.as_bytes());
    sha.update(b"#");
    sha.update(first_ingress.as_bytes());
    sha.finalize().into()
}

/// Initial hash value (FIPS 180-4 section 5.3.3).
const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// What of a node goes into its hashes: a first decision of a large cluster needs millions of them.
#[derive(Clone, Debug)]
pub(super) struct Prepared {
    /// The name and `#`, if they and an address may fit into one block.
    block: [u8; 64],
    used: usize,
}

impl Prepared {
    pub(super) fn new(node: &str) -> Self {
        let (mut block, mut used) = ([0; 64], 0);
        for (slot, byte) in block.iter_mut().zip(node.bytes().chain([b'#'])) {
            *slot = byte;
            used += 1;
        }
        Self { block, used: if used == node.len() + 1 { used } else { usize::MAX } }
    }

    /// [`hash`], as the words of which the bytes are big-endian: they have the same order. `node` is the name that it was
    /// prepared for.
    pub(super) fn hash(&self, node: &str, first_ingress: &str) -> [u32; 8] {
        let mut block = self.block;
        let end = self.used.saturating_add(first_ingress.len());
        // Padding (section 5.1.1): a bit, zeros, and the length in bits as 64 of them.
        if end <= 55
            && let Some(place) = block.get_mut(self.used..end)
        {
            place.copy_from_slice(first_ingress.as_bytes());
            if let Some(bit) = block.get_mut(end) {
                *bit = 0x80;
            }
            let bits = u64::try_from(end * 8).unwrap_or_default();
            if let Some(length) = block.last_chunk_mut() {
                *length = bits.to_be_bytes();
            }
            let mut state = INITIAL;
            compress256(&mut state, &[block]);
            return state;
        }
        let mut words = [0; 8];
        for (word, bytes) in words.iter_mut().zip(hash(node, first_ingress).as_chunks::<4>().0) {
            *word = u32::from_be_bytes(*bytes);
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// Computed without our code, by coreutils: `printf %s 'node-a#172.25.7.100' | sha256sum`
    const HASHES: [(&str, &str, &str); 4] = [
        ("node-a", "172.25.7.100", "d1a1bb27cbc9098e5db704b9daa380b802d1b2b749c85f46f43cca7dc4f894d5"),
        (
            "worker-1.example.com",
            "172.25.7.101",
            "4ce0326c8a68e652dac7774f7fd61daa29722888806cd0272597ca230a283cfb",
        ),
        ("node-b", "fd00:25:7::100", "c93b28f18a4a410641c9f393f17c859114e3651a646783d1b8f27cceeffa4dda"),
        ("node-c", "2001:db8::1", "bb833059784d34c0c3dfacf003bec741b65be19b7102e7316af458b26d6ed31a"),
    ];

    /// Likewise: `for n in node-a node-b node-c node-d node-e; do
    /// printf '%s %s\n' $(printf %s "$n#192.0.2.1" | sha256sum | cut -d' ' -f1) $n; done | sort`
    /// The last two are one address in two spellings: the text counts.
    const ORDERS: [(&str, [&str; 5]); 4] = [
        ("192.0.2.1", ["node-c", "node-e", "node-a", "node-d", "node-b"]),
        ("192.0.2.2", ["node-b", "node-e", "node-c", "node-a", "node-d"]),
        ("2001:db8::1", ["node-d", "node-b", "node-a", "node-c", "node-e"]),
        ("2001:DB8:0::1", ["node-b", "node-e", "node-a", "node-c", "node-d"]),
    ];

    fn plain(node: &str) -> Contender<'_> {
        Contender { node, standing: Standing::PLAIN, score: 0 }
    }

    fn names(contenders: &[Contender<'_>]) -> Vec<String> {
        contenders.iter().map(|c| c.node.to_owned()).collect()
    }

    #[test]
    fn hashes_are_those_of_sha256sum() {
        for (node, ip, expected) in HASHES {
            let hex: String = hash(node, ip).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, expected, "{node}#{ip}");
        }
    }

    #[test]
    fn a_prepared_hash_is_the_same_however_long_the_name() {
        for length in 1..=80 {
            let node = "n".repeat(length);
            let prepared = Prepared::new(&node);
            for ip in ["::", "192.0.2.1", "255.255.255.255", "2001:db8:1111:2222:3333:4444:5555:6666"] {
                let words = prepared.hash(&node, ip).map(u32::to_be_bytes);
                assert_eq!(words.as_flattened(), hash(&node, ip), "{node}#{ip}");
            }
        }
    }

    #[test]
    fn without_preferences_the_hash_decides() {
        for (ip, expected) in ORDERS {
            let mut contenders = ["node-a", "node-b", "node-c", "node-d", "node-e"].map(plain);
            order(ip, &mut contenders);
            assert_eq!(names(&contenders), expected, "{ip}");
        }
    }

    #[test]
    fn a_preference_goes_before_the_hash() {
        let mut contenders = ["node-a", "node-b", "node-c", "node-d", "node-e"].map(plain);
        contenders[1].score = 10;
        contenders[3].score = 10;
        contenders[0].score = 9;
        order("192.0.2.1", &mut contenders);
        assert_eq!(names(&contenders), ["node-d", "node-b", "node-a", "node-c", "node-e"]);
    }

    #[test]
    fn a_node_that_serves_more_of_the_sharing_services_goes_before_a_preferred_one() {
        let mut contenders = ["node-a", "node-b"].map(plain);
        contenders[1].score = 100;
        contenders[0].standing.serves = Reverse(2);
        order("192.0.2.1", &mut contenders);
        assert_eq!(names(&contenders), ["node-a", "node-b"]);
    }

    #[test]
    fn who_is_about_to_end_or_heard_by_nobody_comes_last_and_a_drain_leaves_nothing_dark() {
        let plain = Standing::PLAIN;
        let both = Reverse(2);
        let expected = [
            Standing { announces: both, ..plain },
            Standing { announces: both, drained: true, ..plain },
            plain,
            Standing { drained: true, ..plain },
            Standing { isolated: true, announces: both, ..plain },
            Standing { leaving: true, announces: both, ..plain },
        ];
        let mut sorted = expected;
        sorted.reverse();
        sorted.sort_unstable();
        assert_eq!(sorted, expected);
    }

    fn some_nodes() -> impl Strategy<Value = Vec<(String, u32)>> {
        proptest::collection::btree_map("[a-z]{1,8}", 0u32..3, 1..20)
            .prop_map(|map| map.into_iter().collect())
    }

    fn ordered(ip: &str, nodes: &[(String, u32)]) -> Vec<String> {
        let mut contenders: Vec<_> = nodes
            .iter()
            .map(|(node, score)| Contender { node, standing: Standing::PLAIN, score: *score })
            .collect();
        order(ip, &mut contenders);
        names(&contenders)
    }

    proptest! {
        #[test]
        fn total_and_independent_of_the_input_order(nodes in some_nodes(), ip in any::<u32>(), turn in any::<usize>()) {
            let ip = std::net::Ipv4Addr::from(ip).to_string();
            let mut turned = nodes.clone();
            turned.rotate_left(turn % nodes.len());
            let one = ordered(&ip, &nodes);
            prop_assert_eq!(&one, &ordered(&ip, &turned));
            let all: BTreeSet<&String> = one.iter().collect();
            prop_assert_eq!(all.len(), nodes.len());
        }

        #[test]
        fn a_death_moves_only_what_the_dead_node_had(nodes in some_nodes(), ip in any::<u32>(), dead in any::<usize>()) {
            let ip = std::net::Ipv4Addr::from(ip).to_string();
            let before = ordered(&ip, &nodes);
            let mut survivors = nodes.clone();
            let (dead, _) = survivors.remove(dead % nodes.len());
            let expected: Vec<String> = before.into_iter().filter(|node| *node != dead).collect();
            prop_assert_eq!(ordered(&ip, &survivors), expected);
        }
    }

    #[test]
    fn addresses_spread_over_the_nodes() {
        let mut led = std::collections::BTreeMap::<String, usize>::new();
        for i in 0..1000u32 {
            let mut contenders = ["node-a", "node-b", "node-c"].map(plain);
            order(&std::net::Ipv4Addr::from(0xC000_0200 + i).to_string(), &mut contenders);
            *led.entry(contenders[0].node.to_owned()).or_default() += 1;
        }
        assert!(led.values().all(|n| (270..400).contains(n)), "{led:?}");
    }
}
