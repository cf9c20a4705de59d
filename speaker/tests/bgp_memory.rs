//! What twenty peers with ten thousand routes hold, by an allocator that counts. In a program of its own, with one test: others
//! would be counted too.
#![allow(clippy::unwrap_used)] // a failed expectation is a failed test

#[path = "memory/counting.rs"]
#[allow(dead_code)] // memory.rs needs more of it
mod counting;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use patina_crds::config::Community;
use patina_crds::net::Family;
use patina_speaker_core::bgp::message::{Attributes, NextHop};
use patina_speaker_core::bgp::rib::{AdjRibOut, Dress, Tables, Wanted};
use patina_speaker_core::intent::routes::{Prefix, Route};

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

const PEERS: usize = 20;
const ROUTES: u32 = 10_000;
/// The table that all peers share, for each route: a prefix and a pointer.
const SHARED: usize = 40;
/// What a peer holds for each of its routes.
const EACH: usize = 2;
/// While the peers are told from cold, for each route of each peer: its place in the plan.
const COLD: usize = 16;

struct External;

impl Dress for External {
    fn dress(&self, _: Family, wanted: &Wanted) -> Option<Attributes> {
        let next_hop = NextHop::V4(Ipv4Addr::LOCALHOST);
        Some(Attributes {
            as_path: vec![64500],
            next_hop,
            local_pref: None,
            communities: wanted.communities.clone(),
        })
    }

    fn room(&self, _: Family, _: Option<&Attributes>) -> usize {
        4000
    }
}

fn routes() -> BTreeMap<Prefix, Route> {
    let route = |n: u32| {
        let prefix = Prefix::containing(Ipv4Addr::from_bits(0x0a00_0000 + n).into(), 32);
        let communities = BTreeSet::from([Community::Standard(64500, u16::from(n.is_multiple_of(2)))]);
        (prefix, Route { communities, local_pref: None, services: BTreeSet::new() })
    };
    (0..ROUTES).map(route).collect()
}

#[test]
fn twenty_peers_with_ten_thousand_routes_hold_one_table_and_a_byte_each() {
    let routes = routes();
    let route_count = ROUTES as usize;
    let mut tables = Tables::default();

    let before = counting::live();
    let table = tables.table(&routes);
    let shared = counting::live() - before;
    let mut ribs: Vec<AdjRibOut> = (0..PEERS).map(|_| AdjRibOut::default()).collect();
    let before = counting::live();
    counting::take_peak();
    let mut updates = 0;
    for rib in &mut ribs {
        rib.want(tables.table(&routes));
        rib.session_up(&BTreeSet::from([Family::V4]));
        while rib.next(&External).is_some() {
            updates += 1;
        }
    }
    let (each, cold) = (counting::live() - before, counting::take_peak() - before);
    println!("shared {shared} bytes; {PEERS} peers {each} bytes, at most {cold}; {updates} UPDATEs");
    drop(table);

    assert!(shared < SHARED * route_count, "{shared} bytes of what is shared");
    assert!(each < EACH * PEERS * route_count, "{each} bytes of the peers");
    assert!(cold < each + COLD * route_count, "{cold} bytes while one of them is told");
    // Two sets of communities, 800 host routes in a message, and End-of-RIB.
    assert_eq!(updates, PEERS * (2 * 7 + 1));
}
