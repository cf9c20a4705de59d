//! A megabyte of configuration from somebody who means no good: judged in seconds, with a bounded list of errors.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed expectation is a failed test
#![allow(clippy::disallowed_methods)] // measures how long it takes

use std::time::{Duration, Instant};

use patina_crds::config::{self, LegacyConfigMap, Resources};
use patina_crds::yaml::Limits;

/// Ours is far below it even on a slow and busy machine; what takes the square of a megabyte is far above.
const PATIENCE: Duration = Duration::from_secs(60);

/// `head`, and as many entries as there is room for.
fn filled(head: &str, entry: impl Fn(usize) -> String) -> String {
    let mut text = head.to_owned();
    for n in 0.. {
        let entry = entry(n);
        if text.len() + entry.len() + 100 > Limits::OF_AN_OBJECT.bytes {
            break;
        }
        text.push_str(&entry);
    }
    text
}

fn judge(name: &str, text: String, tail: &str) -> usize {
    let text = text + tail;
    assert!(text.len() > 500_000 && text.len() <= Limits::OF_AN_OBJECT.bytes, "{name}: {} bytes", text.len());
    let (namespace, name_of_map) = ("metallb-system".to_owned(), "config".to_owned());
    let legacy = LegacyConfigMap { namespace, name: name_of_map, data: Some(text) };
    let start = Instant::now();
    let result = config::build(&Resources { legacy: Some(legacy), ..Resources::default() });
    let took = start.elapsed();
    let (count, said) = match &result {
        Ok(loaded) => (0, loaded.notices.iter().map(|notice| notice.message.len()).sum::<usize>()),
        Err(errors) => (errors.0.len(), errors.to_string().len()),
    };
    println!("{name}: {took:?}, {count} errors, {said} bytes of words");
    assert!(took < PATIENCE, "{name} took {took:?}");
    assert!(count <= 1000 && said < 4 << 20, "{name}: {count} errors, {said} bytes of words");
    count
}

#[test]
fn long_lists_take_no_square_of_time() {
    let pool = "address-pools:\n- name: a\n  protocol: bgp\n";
    let list = format!("{pool}  addresses:\n");
    assert_eq!(judge("bad addresses", filled(&list, |_| "  - x\n".to_owned()), ""), 1000);
    let single = |n: usize| format!("  - 10.{}.{}.{}/32\n", n >> 16, n >> 8 & 255, n & 255);
    assert_eq!(judge("addresses", filled(&list, single), ""), 0);
    assert_eq!(judge("overlaps", filled(&list, |_| "  - 10.0.0.0/8\n".to_owned()), ""), 1000);
    let ads = format!("{pool}  addresses: [10.0.0.0/24]\n  bgp-advertisements:\n");
    assert!(judge("advertisements", filled(&ads, |n| format!("  - localpref: {}\n", n % 2)), "") > 0);
    assert!(judge("other advertisements", filled(&ads, |n| format!("  - localpref: {n}\n")), "") > 0);
    let lengths = |n: usize| {
        format!("  - {{aggregation-length: {}, aggregation-length-v6: {}}}\n", 24 + n % 9, 1 + n / 9 % 128)
    };
    judge("advertisements of all lengths", filled(&ads, lengths), "");
    let unknown = format!("{pool}  addresses: [10.0.0.0/24]\n  bgp-advertisements:\n  - communities:\n");
    assert_eq!(judge("unknown aliases", filled(&unknown, |n| format!("    - a{n}\n")), ""), 1000);
}

#[test]
fn many_objects_take_no_square_of_time() {
    let pools = |n: usize| {
        format!("- {{name: p{n}, protocol: layer2, addresses: [10.{}.{}.0/24]}}\n", n >> 8, n & 255)
    };
    assert_eq!(judge("pools", filled("address-pools:\n", pools), ""), 0);
    let twins = |_| "- {name: p, protocol: layer2, addresses: [10.0.0.0/24]}\n".to_owned();
    assert_eq!(judge("pools of one name", filled("address-pools:\n", twins), ""), 1000);
    let peers =
        |n: usize| format!("- {{my-asn: 1, peer-asn: 2, peer-address: 10.0.{}.{}}}\n", n >> 8, n & 255);
    assert_eq!(judge("peers", filled("peers:\n", peers), ""), 0);
    let profiles = |n: usize| format!("- {{name: p{n}}}\n");
    assert_eq!(judge("BFD profiles", filled("bfd-profiles:\n", profiles), ""), 0);
    let aliases = |n: usize| format!("  a{n}: 1:1\n");
    let bad = "address-pools:\n- name: a\n  protocol: bgp\n  addresses: [10.0.0.0/24]\n  bgp-advertisements:\n  - communities: \
               [x,x,x,x,x,x,x,x]\n";
    let room = filled("bgp-communities:\n", aliases);
    let cut = room.len() - room.len() / 10;
    let cut = room[..cut].rfind('\n').unwrap() + 1;
    assert!(judge("aliases", room[..cut].to_owned(), bad) > 0);
}

#[test]
fn odd_maps_take_no_square_of_time() {
    assert_eq!(judge("unknown keys", filled("", |n| format!("adres-pools{n}: 1\n")), ""), 1000);
    assert!(judge("doubled keys", filled("", |_| "peers: []\n".to_owned()), "") > 0);
    let merged = filled("x: &x\n", |n| format!("  k{n}: 1\n"));
    assert!(judge("a large merge", merged, "peers:\n- <<: *x\n") > 0);
    let labels = filled(
        "peers:\n- my-asn: 1\n  peer-asn: 2\n  peer-address: 10.0.0.1\n  node-selectors:\n  - match-labels:\n",
        |n| format!("      k{n}: v\n"),
    );
    assert_eq!(judge("labels", labels, ""), 0);
    let selectors =
        filled("peers:\n- my-asn: 1\n  peer-asn: 2\n  peer-address: 10.0.0.1\n  node-selectors:\n", |n| {
            format!("  - match-labels: {{k: v{n}}}\n")
        });
    let half = selectors.len() / 2;
    let half = selectors[..half].rfind('\n').unwrap() + 1;
    let twice = selectors[..half].to_owned() + selectors[..half].strip_prefix("peers:\n").unwrap();
    judge("selectors that meet each other", twice, "");
    assert!(
        judge("aliases of a long list", filled("a: &a [1,2,3,4,5,6,7,8]\npeers:\n", |_| "- *a\n".into()), "")
            > 0
    );
}
