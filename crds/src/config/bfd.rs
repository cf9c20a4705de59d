//! BFD profiles.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::draft::{Draft, Problems};
use super::{BfdProfile, BgpAdvertisement, Peer, Pool};
use crate::net::Family;
use crate::types;

/// Intervals that the schema allows, in milliseconds. The ConfigMap has no schema, so they are checked here.
const INTERVAL: RangeInclusive<i64> = 10..=60_000;
const MULTIPLIER: RangeInclusive<i64> = 2..=255;
const TTL: RangeInclusive<i64> = 1..=254;

/// Checks every profile.
pub(super) fn build(
    drafts: &[Draft<types::BFDProfileSpec>],
    problems: &mut Problems,
) -> BTreeMap<String, BfdProfile> {
    drafts.iter().map(|draft| (draft.name.clone(), one(draft, problems))).collect()
}

fn one(draft: &Draft<types::BFDProfileSpec>, problems: &mut Problems) -> BfdProfile {
    let spec = &draft.spec;
    let mut number = |name: &str, value: Option<i64>, allowed: RangeInclusive<i64>, unit: &str| {
        // 0 was how the ConfigMap said "default".
        let value = value.filter(|value| *value != 0 || !draft.place.legacy)?;
        if allowed.contains(&value) {
            return Some(value);
        }
        let message = format!(
            "{value}{unit} is not allowed; allowed is {} to {}{unit}",
            allowed.start(),
            allowed.end()
        );
        problems.error(&draft.place.object, draft.place.field(name), message);
        None
    };
    let small = |value: i64| u8::try_from(value).ok();
    let millis = |value: i64| u64::try_from(value).ok().map(Duration::from_millis);
    BfdProfile {
        source: draft.place.object.clone(),
        receive_interval: number("receiveInterval", spec.receive_interval, INTERVAL, " ms").and_then(millis),
        transmit_interval: number("transmitInterval", spec.transmit_interval, INTERVAL, " ms")
            .and_then(millis),
        detect_multiplier: number("detectMultiplier", spec.detect_multiplier, MULTIPLIER, "").and_then(small),
        echo_interval: number("echoInterval", spec.echo_interval, INTERVAL, " ms").and_then(millis),
        echo_mode: spec.echo_mode.unwrap_or(false),
        passive_mode: spec.passive_mode.unwrap_or(false),
        minimum_ttl: number("minimumTtl", spec.minimum_ttl, TTL, "").and_then(small),
    }
}

/// BFD has the echo function for IPv4 single-hop sessions only, so a peer that uses it cannot be told IPv6 pools.
pub(super) fn check_echo(
    profiles: &BTreeMap<String, BfdProfile>,
    peers: &[Peer],
    drafts: &[Draft<types::BGPPeerSpec>],
    advertisements: &[BgpAdvertisement],
    pools: &BTreeMap<String, Pool>,
    problems: &mut Problems,
) {
    let has_v6 = |name: &&String| {
        pools.get(*name).is_some_and(|pool| pool.ranges.iter().any(|range| range.family() == Family::V6))
    };
    for peer in peers {
        let Some((name, profile)) = peer
            .bfd_profile
            .as_ref()
            .and_then(|name| profiles.get_key_value(name))
            .filter(|(_, p)| p.echo_mode)
        else {
            continue;
        };
        let v6: BTreeSet<&String> = advertisements
            .iter()
            .filter(|ad| ad.peers.is_empty() || ad.peers.contains(&peer.name))
            .flat_map(|ad| ad.pools.iter().filter(has_v6))
            .collect();
        if let Some(pool) = v6.first() {
            let message = format!(
                "the profile {name:?} ({}) uses echo mode, which is for IPv4 only, but pool {pool:?} has IPv6 addresses and is \
                 announced to this peer; turn echo mode off, or leave the pool out of what this peer is told",
                profile.source
            );
            let place = drafts.iter().find(|draft| draft.name == peer.name).map(|draft| &draft.place);
            let field = place.map_or_else(String::new, |place| place.field("bfdProfile"));
            problems.error(&peer.source, field, message);
        }
    }
}
