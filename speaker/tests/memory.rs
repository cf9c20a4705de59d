//! What a speaker holds of each Service, by an allocator that counts. In a program of its own, with one test: others would
//! be counted too.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed expectation is a failed test

#[path = "memory/api.rs"]
mod api;
#[path = "memory/counting.rs"]
mod counting;
#[path = "memory/shown.rs"]
mod shown;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use patina_crds::config::{self, Config, Resources};
use patina_crds::net::Family;
use patina_crds::types::{IPAddressPool, IPAddressPoolSpec, L2Advertisement, L2AdvertisementSpec};
use patina_runtime::flags::{METALLB_REFUSED, try_parse};
use patina_runtime::tasks::Tasks;
use patina_speaker::moves::Moves;
use patina_speaker::settings::Settings;
use patina_speaker::watch::Cluster;
use patina_speaker_core::intent::{Cache, Intent, intent_with};
use patina_speaker_core::l2::announcer::{self, Announcer};
use patina_speaker_core::l2::duty::Mode;
use patina_speaker_core::l2::ownership::{self, Input, Ownership};
use patina_speaker_core::l2::responder::Responder;
use patina_speaker_core::view::{InterfaceView, Member, NodeView, Options, Snapshot};
use tokio::sync::Notify;

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

const SERVICES: usize = 10_000;
/// For a Service with three labels and a slice with two endpoints.
const WATCHED: usize = 900;
/// While a list comes in, over what is kept of it.
const PASSING: usize = 5 << 20;
/// A verdict and what could be announced, with what the next decision needs of this one.
const DECIDED: usize = 80;
/// The same with twenty nodes, in lists of eight.
const DECIDED_OF_MANY: usize = 1050;
/// What is done for an address, for each of all Services: this node leads a third.
const DONE: usize = 150;
/// Schedules of announcements.
const WIRE: usize = 80;
/// Why what changed hands.
const MOVED: usize = 40;
/// Status objects, wanted and written, and series.
const SHOWN: usize = 260;

#[tokio::test]
async fn ten_thousand_services_are_kept_in_a_few_hundred_bytes_each() {
    let url = api::serve(SERVICES);
    let client = kube::Client::try_from(kube::Config::new(url.parse().unwrap())).unwrap();
    let args = ["patina-speaker", "--node-name=n01", "--ml-labels="].map(Into::into);
    let settings: Settings = try_parse(args, METALLB_REFUSED).unwrap();
    let (bell, mut tasks) = (Arc::new(Notify::new()), Tasks::new());

    let before = counting::live();
    counting::take_peak();
    let mut cluster = Cluster::start(&client, &settings, &bell, &mut tasks);
    let synced = async {
        while !cluster.synced() {
            bell.notified().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), synced).await.unwrap();
    assert!(cluster.refresh());
    let services = &cluster.views().services;
    assert_eq!(services.len(), SERVICES);
    assert!(services.iter().all(|service| service.endpoints.len() == 2));
    let passing = counting::take_peak() - counting::live();
    let watched = each("watched", before, WATCHED);
    println!("  {} KB more while the lists came", passing >> 10);

    let (config, options) = (config(), Options::default());
    let names = ["n01", "n02", "n03"].map(str::to_owned);
    let nodes = names.clone().map(|name| NodeView { name, ..NodeView::default() });
    let members = names.map(|name| (name, Member::default())).into();
    let interface = InterfaceView {
        name: "eth0".to_owned(),
        index: 2,
        up: true,
        arp: true,
        addresses: BTreeSet::from([([172, 25, 1, 1].into(), 16)]),
        ..InterfaceView::default()
    };
    let snapshot = Snapshot {
        node: "n01",
        config: &config,
        services,
        nodes: &nodes,
        members: &members,
        interfaces: &[interface],
        options: &options,
    };
    let before = counting::live();
    counting::take_peak();
    let mut cache = Cache::default();
    let intent = intent_with(&mut cache, &snapshot);
    let deciding = counting::take_peak() - counting::live();
    let decided = each("decided", before, DECIDED);
    println!("  {} KB more while it was decided", deciding >> 10);
    assert_eq!((intent.verdicts.len(), intent.l2.len()), (SERVICES, SERVICES));
    let led = intent.l2.values().filter(|announcement| announcement.leads).count();
    assert!((SERVICES / 4..SERVICES / 2).contains(&led), "{led}");

    let before = counting::live();
    let mut ownership = Ownership::new("n01", ownership::Settings::default());
    ownership.handle(Instant::now(), Input::Decided(Arc::clone(&intent.l2)));
    // Nobody answers for what is probed at first.
    let probed = Instant::now() + Duration::from_secs(3);
    while let Some(due) = ownership.poll_timeout().filter(|due| *due < probed) {
        ownership.handle_timeout(due);
    }
    while ownership.poll_output().is_some() {}
    let duties = ownership.duties();
    assert!(duties.len() >= led);
    assert!(duties.values().filter(|duty| duty.mode == Mode::Announce).count() >= led);
    let done = each("done for addresses", before, DONE);

    // With many nodes hardly two Services have the same order of candidates.
    let nodes: Vec<_> =
        (1..=20).map(|n| NodeView { name: format!("n{n:02}"), ..NodeView::default() }).collect();
    let members = nodes.iter().map(|node| (node.name.clone(), Member::default())).collect();
    let before = counting::live();
    counting::take_peak();
    let mut cache = Cache::default();
    let many = intent_with(&mut cache, &Snapshot { nodes: &nodes, members: &members, ..snapshot });
    let deciding = counting::take_peak() - counting::live();
    assert_eq!(many.verdicts.len(), SERVICES);
    each("decided with twenty nodes", before, DECIDED_OF_MANY);
    println!("  {} KB more while it was decided", deciding >> 10);
    drop((many, cache));

    // What the driver does on the wire, without its sockets.
    let before = counting::live();
    let now = Instant::now();
    let mut announcer = Announcer::new(announcer::Settings::default());
    let mut responder = Responder::default();
    announcer.handle(now, announcer::Input::Interface { index: 2, family: Family::V4, mac: [2; 6] });
    responder.set(Arc::clone(&duties));
    announcer.handle(now, announcer::Input::Duties(Arc::clone(&duties)));
    let mut last = now;
    while let Some(due) = announcer.poll_timeout().filter(|due| *due < now + Duration::from_secs(60)) {
        announcer.handle_timeout(due);
        while announcer.poll_output().is_some() {}
        last = due;
    }
    assert!(last > now + Duration::from_secs(5));
    let wire = each("the wire", before, WIRE);

    let before = counting::live();
    let mut moves = Moves::default();
    for last in [&Intent::default(), &intent] {
        moves.decided(&snapshot, &BTreeMap::new(), last, &intent);
    }
    let moved = each("changes of hands", before, MOVED);

    let before = counting::live();
    let shown = shown::Shown::new(&client, &intent, &bell, &mut tasks).await;
    let told = each("shown", before, SHOWN);
    drop(shown);

    println!("in all: {} bytes for each Service", watched + decided + done + wire + moved + told);
    assert!(passing <= PASSING, "{passing} bytes while the lists came");
}

/// What was put on the heap since, for each Service.
fn each(what: &str, before: usize, limit: usize) -> usize {
    let each = (counting::live() - before) / SERVICES;
    println!("{what}: {each} bytes for each Service");
    assert!(each <= limit, "{what}: {each} bytes for each Service, more than {limit}");
    each
}

fn config() -> Config {
    let addresses = vec!["172.25.0.0/16".to_owned()];
    let resources = Resources {
        pools: vec![IPAddressPool::new("all", IPAddressPoolSpec { addresses, ..Default::default() })],
        l2_advertisements: vec![L2Advertisement::new("all", L2AdvertisementSpec::default())],
        ..Resources::default()
    };
    config::build(&resources).unwrap().config
}
