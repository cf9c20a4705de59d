//! The Adj-RIB-Out against a model of the peer: whatever happens in whatever order, the UPDATEs make the peer's table what it
//! should be, say nothing that the peer knows already, and are as few as they can be.
#![allow(clippy::unwrap_used)] // a failed expectation is a failed test

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use patina_crds::config::Community;
use patina_crds::net::Family;
use patina_speaker_core::bgp::message::{Attributes, NextHop, Update};
use patina_speaker_core::bgp::rib::{AdjRibOut, Dress, Table, Tables, Wanted, table};
use patina_speaker_core::intent::routes::{Prefix, Route};
use proptest::prelude::*;

const BOTH: [Family; 2] = [Family::V4, Family::V6];
/// Octets of NLRI; a bit less than a message of 4096 takes.
const ROOM: usize = 4000;

/// A session to another AS, to our own, or one without a next hop for a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Session {
    internal: bool,
    drained: bool,
    homeless: Option<Family>,
    room: usize,
}

impl Session {
    fn external() -> Self {
        Self { internal: false, drained: false, homeless: None, room: ROOM }
    }
}

impl Dress for Session {
    fn dress(&self, family: Family, wanted: &Wanted) -> Option<Attributes> {
        if self.homeless == Some(family) {
            return None;
        }
        let next_hop = match family {
            Family::V4 => NextHop::V4("192.0.2.1".parse().unwrap()),
            Family::V6 => NextHop::V6("2001:db8::1".parse().unwrap(), None),
        };
        let mut communities = wanted.communities.clone();
        communities.extend(self.drained.then_some(Community::Standard(65535, 0)));
        let local_pref = self.internal.then(|| wanted.local_pref.unwrap_or(100));
        Some(Attributes { as_path: vec![64500], next_hop, local_pref, communities })
    }

    fn room(&self, _: Family, _: Option<&Attributes>) -> usize {
        self.room
    }
}

/// What the peer has.
#[derive(Debug, Default)]
struct Peer {
    routes: BTreeMap<Prefix, Arc<Attributes>>,
    ended: Vec<Family>,
    updates: usize,
    /// Prefixes that may come again although the peer has them.
    owed: BTreeSet<Prefix>,
}

impl Peer {
    fn take(&mut self, update: Update, room: usize) {
        self.updates += 1;
        match update {
            Update::Reach { attributes, prefixes } => {
                fits(&prefixes, room);
                for prefix in prefixes {
                    let had = self.routes.insert(prefix, Arc::clone(&attributes));
                    let owed = self.owed.remove(&prefix);
                    assert!(owed || had.as_ref() != Some(&attributes), "{prefix} was known: {attributes:?}");
                }
            }
            Update::Withdraw(prefixes) => {
                fits(&prefixes, room);
                for prefix in prefixes {
                    assert!(self.routes.remove(&prefix).is_some(), "{prefix} was never announced");
                }
            }
            Update::EndOfRib(family) => {
                assert!(!self.ended.contains(&family), "a second End-of-RIB of {family}");
                self.ended.push(family);
            }
        }
    }
}

fn fits(prefixes: &[Prefix], room: usize) {
    let families: BTreeSet<Family> = prefixes.iter().map(family).collect();
    assert_eq!(families.len(), 1, "one family in a message: {prefixes:?}");
    let octets: usize = prefixes.iter().map(|prefix| 1 + usize::from(prefix.length().div_ceil(8))).sum();
    assert!(octets <= room || prefixes.len() == 1, "{octets} octets in {room}");
}

fn family(prefix: &Prefix) -> Family {
    Family::of(prefix.address())
}

fn drain(rib: &mut AdjRibOut, dress: &Session, peer: &mut Peer) {
    while let Some(update) = rib.next(dress) {
        peer.take(update, dress.room);
    }
}

fn prefix(text: &str) -> Prefix {
    let (ip, length) = text.split_once('/').unwrap();
    Prefix::containing(ip.parse().unwrap(), length.parse().unwrap())
}

fn wanted(community: u16) -> Arc<Wanted> {
    let communities = BTreeSet::from([Community::Standard(64500, community)]);
    Arc::new(Wanted { communities, local_pref: None })
}

fn of(routes: &[(&str, u16)]) -> Table {
    routes.iter().map(|(text, community)| (prefix(text), wanted(*community))).collect()
}

/// `count` host routes of IPv4, from 10.0.0.0 on.
fn hosts(count: u32, wanted: impl Fn(u32) -> Arc<Wanted>) -> Table {
    let host = |n: u32| Prefix::containing(std::net::Ipv4Addr::from_bits(0x0a00_0000 + n).into(), 32);
    (0..count).map(|n| (host(n), wanted(n))).collect()
}

fn up(families: &[Family]) -> AdjRibOut {
    let mut rib = AdjRibOut::default();
    rib.session_up(&families.iter().copied().collect());
    rib
}

fn said(rib: &mut AdjRibOut, dress: &Session) -> Vec<String> {
    let text = |prefixes: &[Prefix]| prefixes.iter().map(Prefix::to_string).collect::<Vec<_>>().join(" ");
    std::iter::from_fn(|| rib.next(dress))
        .map(|update| match update {
            Update::Reach { prefixes, .. } => format!("reach {}", text(&prefixes)),
            Update::Withdraw(prefixes) => format!("withdraw {}", text(&prefixes)),
            Update::EndOfRib(family) => format!("end {family}"),
        })
        .collect()
}

#[test]
fn a_new_session_gets_everything_and_one_end_of_rib_per_family() {
    let mut rib = up(&BOTH);
    rib.want(of(&[("192.0.2.1/32", 1), ("192.0.2.2/32", 2), ("192.0.2.3/32", 1), ("2001:db8::1/128", 1)]));
    let first = [
        "reach 192.0.2.1/32 192.0.2.3/32",
        "reach 192.0.2.2/32",
        "end IPv4",
        "reach 2001:db8::1/128",
        "end IPv6",
    ];
    assert_eq!(said(&mut rib, &Session::external()), first);
    rib.want(of(&[("192.0.2.1/32", 1)]));
    let change = ["withdraw 192.0.2.2/32 192.0.2.3/32", "withdraw 2001:db8::1/128"];
    assert_eq!(said(&mut rib, &Session::external()), change);
}

#[test]
fn no_end_of_rib_before_anybody_has_said_what_is_wanted() {
    let mut rib = up(&[Family::V4]);
    rib.refresh(Family::V4);
    assert_eq!(rib.next(&Session::external()), None);
    assert_eq!(rib.poll_refreshed(), None);
    rib.want(Table::default());
    assert_eq!(said(&mut rib, &Session::external()), ["end IPv4"]);
    assert_eq!(rib.poll_refreshed(), Some(Family::V4));
    assert_eq!(rib.poll_refreshed(), None);
}

#[test]
fn what_changes_back_before_it_is_sent_is_not_sent() {
    let dress = Session::external();
    let (one, two) = (of(&[("192.0.2.1/32", 1)]), of(&[("192.0.2.1/32", 1), ("192.0.2.2/32", 1)]));
    let mut rib = up(&[Family::V4]);
    rib.want(one.clone());
    said(&mut rib, &dress);
    for other in [&two, &Table::default(), &of(&[("192.0.2.1/32", 7)])] {
        rib.want(other.clone());
        assert_ne!(rib.pending(), 0);
        rib.want(of(&[("192.0.2.1/32", 1)]));
        assert_eq!((rib.pending(), rib.next(&dress)), (0, None));
    }
}

#[test]
fn what_changes_twice_before_it_is_sent_goes_once() {
    let dress = Session::external();
    let mut rib = up(&[Family::V4]);
    rib.want(of(&[("192.0.2.1/32", 1)]));
    said(&mut rib, &dress);
    for community in [2, 3, 4] {
        rib.want(of(&[("192.0.2.1/32", community)]));
    }
    assert_eq!(said(&mut rib, &dress), ["reach 192.0.2.1/32"]);
}

#[test]
fn an_aggregate_comes_before_its_parts_go() {
    let dress = Session::external();
    let mut rib = up(&[Family::V4]);
    rib.want(of(&[("192.0.2.1/32", 1), ("192.0.2.2/32", 1)]));
    said(&mut rib, &dress);
    rib.want(of(&[("192.0.2.0/24", 1)]));
    assert_eq!(said(&mut rib, &dress), ["reach 192.0.2.0/24", "withdraw 192.0.2.1/32 192.0.2.2/32"]);
}

#[test]
fn a_refresh_sends_one_family_again_and_says_when_it_is_done() {
    let dress = Session::external();
    let mut rib = up(&BOTH);
    rib.want(of(&[("192.0.2.1/32", 1), ("2001:db8::1/128", 1)]));
    said(&mut rib, &dress);
    rib.refresh(Family::V6);
    assert_eq!(rib.poll_refreshed(), None);
    assert_eq!(said(&mut rib, &dress), ["reach 2001:db8::1/128"]);
    assert_eq!(rib.poll_refreshed(), Some(Family::V6));
}

#[test]
fn what_is_owed_to_a_refresh_goes_even_if_it_changes_and_changes_back() {
    let dress = Session::external();
    let mut rib = up(&[Family::V4]);
    let table = of(&[("192.0.2.1/32", 1)]);
    rib.want(table.clone());
    said(&mut rib, &dress);
    for meanwhile in [Table::default(), of(&[("192.0.2.1/32", 2)])] {
        rib.refresh(Family::V4);
        rib.want(meanwhile.clone());
        rib.want(table.clone());
        assert_eq!(said(&mut rib, &dress), ["reach 192.0.2.1/32"]);
        // The other way round: the change is pending when the refresh comes.
        rib.want(meanwhile);
        rib.refresh(Family::V4);
        rib.want(table.clone());
        assert_eq!(said(&mut rib, &dress), ["reach 192.0.2.1/32"]);
    }
}

#[test]
fn a_family_without_a_next_hop_stays_home_until_it_has_one() {
    let homeless = Session { homeless: Some(Family::V6), ..Session::external() };
    let mut rib = up(&BOTH);
    rib.want(of(&[("192.0.2.1/32", 1), ("2001:db8::1/128", 1)]));
    assert_eq!(said(&mut rib, &homeless), ["end IPv6", "reach 192.0.2.1/32", "end IPv4"]);
    assert_eq!((rib.withheld(), rib.pending()), (1, 0));
    rib.redress();
    let all = ["reach 192.0.2.1/32", "reach 2001:db8::1/128"];
    assert_eq!(said(&mut rib, &Session::external()), all);
    rib.redress();
    assert_eq!(said(&mut rib, &homeless), ["reach 192.0.2.1/32", "withdraw 2001:db8::1/128"]);
    assert_eq!(rib.sent(), BTreeMap::from([(Family::V4, 1), (Family::V6, 0)]));
}

#[test]
fn a_family_that_the_session_does_not_carry_is_never_mentioned() {
    let mut rib = up(&[Family::V4]);
    rib.want(of(&[("192.0.2.1/32", 1), ("2001:db8::1/128", 1)]));
    rib.refresh(Family::V6);
    assert_eq!(rib.poll_refreshed(), None);
    rib.redress();
    assert_eq!(said(&mut rib, &Session::external()), ["reach 192.0.2.1/32", "end IPv4"]);
    assert_eq!(rib.withheld(), 1);
    rib.want(of(&[("2001:db8::1/128", 2)]));
    assert_eq!(said(&mut rib, &Session::external()), ["withdraw 192.0.2.1/32"]);
}

#[test]
fn sets_that_differ_but_look_the_same_to_the_peer_share_a_message() {
    let pref = |local_pref| Arc::new(Wanted { local_pref, ..Wanted::default() });
    let table: Table = [("192.0.2.1/32", Some(10)), ("192.0.2.2/32", Some(20)), ("192.0.2.3/32", None)]
        .map(|(text, local_pref)| (prefix(text), pref(local_pref)))
        .into_iter()
        .collect();
    let mut rib = up(&[Family::V4]);
    rib.want(table.clone());
    let outside = said(&mut rib, &Session::external());
    assert_eq!(outside, ["reach 192.0.2.1/32 192.0.2.2/32 192.0.2.3/32", "end IPv4"]);
    rib.session_up(&BTreeSet::from([Family::V4]));
    let inside = said(&mut rib, &Session { internal: true, ..Session::external() });
    assert_eq!(inside.len(), 4, "{inside:?}");
}

#[test]
fn a_hundred_thousand_routes_are_as_few_messages_as_hold_them() {
    let dress = Session::external();
    let sets: Vec<Arc<Wanted>> = (0..3).map(wanted).collect();
    let table = hosts(100_000, |n| Arc::clone(&sets[n as usize % 3]));
    let mut rib = up(&[Family::V4]);
    rib.want(table.clone());
    let mut peer = Peer::default();
    drain(&mut rib, &dress, &mut peer);
    // A host route takes 5 octets, so 800 fit; 33,334 and twice 33,333 routes; and End-of-RIB.
    assert_eq!((peer.routes.len(), peer.updates), (100_000, 3 * 42 + 1));

    // A Service more and a Service less among them: that much goes, and no more.
    let changed = table.iter().filter(|(at, _)| *at != prefix("10.0.1.0/32")).cloned();
    rib.want(changed.chain([(prefix("10.200.0.1/32"), Arc::clone(&sets[0]))]).collect());
    assert_eq!(rib.pending(), 2);
    assert_eq!(said(&mut rib, &dress), ["reach 10.200.0.1/32", "withdraw 10.0.1.0/32"]);
}

#[test]
fn peers_that_get_the_same_hold_one_table() {
    let route = |n: u32| {
        let communities = BTreeSet::from([Community::Standard(64500, (n % 4) as u16)]);
        Route { communities, local_pref: None, services: BTreeSet::new() }
    };
    let host = |n: u32| Prefix::containing(std::net::Ipv4Addr::from_bits(0x0a00_0000 + n).into(), 32);
    let routes: BTreeMap<Prefix, Route> = (0..100).map(|n| (host(n), route(n))).collect();
    let mut tables = Tables::default();
    let (one, other) = (tables.table(&routes), tables.table(&routes));
    assert!(std::ptr::eq(one.iter().as_slice(), other.iter().as_slice()), "one memory");
    let sets: BTreeSet<*const Wanted> = one.iter().map(|(_, wanted)| Arc::as_ptr(wanted)).collect();
    assert_eq!(sets.len(), 4, "equal sets are one");

    let less: BTreeMap<Prefix, Route> =
        routes.iter().skip(1).map(|(at, route)| (*at, route.clone())).collect();
    let third = tables.table(&less);
    assert!(third.iter().all(|(_, wanted)| sets.contains(&Arc::as_ptr(wanted))), "and one across tables");
    assert_eq!(one, table(&routes));
    assert_ne!(one, third);
}

/// What happens to a peer's state.
#[derive(Clone, Debug)]
enum Happens {
    /// By prefix (of a small world) the set it goes with.
    Want(BTreeMap<usize, u16>),
    /// So many messages leave.
    Send(usize),
    Refresh(Family),
    Redress {
        drained: bool,
        homeless: Option<Family>,
    },
    Lost,
    Up {
        families: BTreeSet<Family>,
        internal: bool,
    },
}

/// Aggregates, their parts, and both families.
fn world() -> Vec<Prefix> {
    let v4 = ["10.0.0.0/24", "10.0.0.1/32", "10.0.0.2/32", "10.0.0.3/32", "10.0.1.0/30", "0.0.0.0/0"];
    let v6 = ["2001:db8::/64", "2001:db8::1/128", "2001:db8::2/128", "2001:db8::3/128"];
    v4.into_iter().chain(v6).map(prefix).collect()
}

fn happens() -> impl Strategy<Value = Happens> {
    let one_family = prop::sample::select(BOTH.to_vec());
    let want = proptest::collection::btree_map(0..world().len(), 0u16..3, 0..world().len());
    let families = prop::sample::subsequence(BOTH.to_vec(), 1..=2);
    prop_oneof![
        5 => want.prop_map(Happens::Want),
        5 => (1usize..4).prop_map(Happens::Send),
        1 => one_family.clone().prop_map(Happens::Refresh),
        1 => (any::<bool>(), proptest::option::of(one_family))
            .prop_map(|(drained, homeless)| Happens::Redress { drained, homeless }),
        1 => Just(Happens::Lost),
        1 => (families, any::<bool>())
            .prop_map(|(families, internal)| Happens::Up { families: families.into_iter().collect(), internal }),
    ]
}

/// The peer's table when everything has been sent.
fn expected(
    table: &Table,
    families: &BTreeSet<Family>,
    dress: &Session,
) -> BTreeMap<Prefix, Arc<Attributes>> {
    let carried = table.iter().filter(|(prefix, _)| families.contains(&family(prefix)));
    carried.filter_map(|(at, wanted)| Some((*at, Arc::new(dress.dress(family(at), wanted)?)))).collect()
}

fn count(peer: &Peer, families: &BTreeSet<Family>) -> BTreeMap<Family, usize> {
    let of = |wanted: &Family| peer.routes.keys().filter(|prefix| family(prefix) == *wanted).count();
    families.iter().map(|family| (*family, of(family))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_peer_ends_with_what_is_wanted(
        steps in proptest::collection::vec(happens(), 1..40),
        room in prop::sample::select(vec![1usize, 7, 20, 4000]),
    ) {
        let world = world();
        let mut dress = Session { room, ..Session::external() };
        let mut rib = AdjRibOut::default();
        let mut peer = Peer::default();
        let mut families = BTreeSet::new();
        let mut wanted_table = None;
        for step in steps {
            match step {
                Happens::Want(routes) => {
                    let table: Table = routes.into_iter().map(|(at, set)| (world[at], wanted(set))).collect();
                    wanted_table = Some(table.clone());
                    rib.want(table);
                }
                Happens::Send(messages) => {
                    for update in (0..messages).map_while(|_| rib.next(&dress)) {
                        peer.take(update, room);
                    }
                }
                Happens::Refresh(again) => {
                    rib.refresh(again);
                    peer.owed.extend(peer.routes.keys().filter(|prefix| family(prefix) == again));
                }
                Happens::Redress { drained, homeless } => {
                    dress = Session { drained, homeless, ..dress };
                    rib.redress();
                    peer.owed.extend(peer.routes.keys());
                }
                Happens::Lost => {
                    rib.session_down();
                    (peer, families) = (Peer::default(), BTreeSet::new());
                }
                Happens::Up { families: these, internal } => {
                    dress = Session { internal, ..dress };
                    rib.session_up(&these);
                    (peer, families) = (Peer::default(), these);
                }
            }
            prop_assert_eq!(rib.sent(), count(&peer, &families));
        }
        drain(&mut rib, &dress, &mut peer);
        let Some(table) = wanted_table else {
            prop_assert!(peer.routes.is_empty() && peer.ended.is_empty());
            return Ok(());
        };
        prop_assert_eq!(&peer.routes, &expected(&table, &families, &dress));
        prop_assert_eq!(peer.ended.iter().copied().collect::<BTreeSet<_>>(), families.clone());
        prop_assert_eq!(rib.sent(), count(&peer, &families));
        if families.is_empty() {
            prop_assert_eq!(rib.pending(), table.len());
        } else {
            prop_assert_eq!((rib.pending(), rib.withheld()), (0, table.len() - peer.routes.len()));
            prop_assert!(peer.owed.iter().all(|prefix| !peer.routes.contains_key(prefix)), "owed: {:?}", peer.owed);
        }
        // Equal content in other memory: nothing to say.
        rib.want(table.iter().map(|(at, wanted)| (*at, Arc::new(Wanted::clone(wanted)))).collect());
        prop_assert_eq!(rib.next(&dress), None);
    }

    #[test]
    fn from_cold_there_are_as_few_messages_as_hold_the_routes(
        routes in proptest::collection::vec((any::<u32>(), 8u8..=32, 0u16..4), 1..400),
        room in 5usize..200,
    ) {
        let table: Table = routes
            .into_iter()
            .map(|(address, length, set)| {
                (Prefix::containing(std::net::Ipv4Addr::from_bits(address).into(), length), wanted(set))
            })
            .collect();
        let mut octets: BTreeMap<&Wanted, Vec<usize>> = BTreeMap::new();
        for (at, wanted) in table.iter() {
            octets.entry(wanted).or_default().push(1 + usize::from(at.length().div_ceil(8)));
        }
        // In the order of the prefixes, each message filled until the next one does not fit.
        let messages = |sizes: &Vec<usize>| {
            let fill = |(full, used): (usize, usize), size: &usize| {
                if used + size > room { (full + 1, *size) } else { (full, used + size) }
            };
            sizes.iter().fold((1, 0), fill).0
        };
        let fewest: usize = octets.values().map(messages).sum();
        let dress = Session { room, ..Session::external() };
        let mut rib = up(&[Family::V4]);
        rib.want(table);
        let mut peer = Peer::default();
        drain(&mut rib, &dress, &mut peer);
        prop_assert_eq!(peer.updates, fewest + 1);
    }
}
