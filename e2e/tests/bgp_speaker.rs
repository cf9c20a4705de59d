//! The whole way: BGPPeer and BGPAdvertisement on a real API server, our speakers, a real router.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // a failed expectation is a failed test

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use anyhow::Result;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use patina_crds::types::ServiceBGPStatus;
use patina_e2e::lan::{Lan, Programs};
use patina_e2e::routers::{Bfd, Family, Kind, Neighbor, Router, RouterConfig, State};
use patina_e2e::rundir::RunDir;
use patina_e2e::wait::{self, Seen, secs};
use serde_json::json;

/// The client of the LAN is the router.
const ROUTER: Ipv4Addr = patina_e2e::lan::CLIENT;
const US: u32 = 64500;
const THEM: u32 = 64501;
const PASSWORD: &str = "correct-horse";

fn objects() -> String {
    let meta = |name: &str| json!({"name": name, "namespace": "metallb-system"});
    [
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": meta("tor"), "type": "kubernetes.io/basic-auth",
            "stringData": {"username": "nobody", "password": PASSWORD}}),
        json!({"apiVersion": "metallb.io/v1beta1", "kind": "BFDProfile", "metadata": meta("fast"),
            "spec": {"receiveInterval": 50, "transmitInterval": 50, "detectMultiplier": 3}}),
        json!({"apiVersion": "metallb.io/v1beta2", "kind": "BGPPeer", "metadata": meta("tor"), "spec": {
            "myASN": US, "peerASN": THEM, "peerAddress": ROUTER, "holdTime": "90s", "connectTime": "1s",
            "bfdProfile": "fast", "passwordSecret": {"name": "tor", "namespace": "metallb-system"}}}),
        json!({"apiVersion": "metallb.io/v1beta1", "kind": "BGPAdvertisement", "metadata": meta("lan"),
            "spec": {"communities": ["64500:7"]}}),
    ]
    .map(|object| object.to_string())
    .join("\n---\n")
}

/// Next hops of the router's routes to this address alone.
fn next_hops(router: &dyn Router, vip: Ipv4Addr) -> Result<BTreeSet<IpAddr>> {
    let prefix = format!("{vip}/32");
    let routes = router.routes(Family::V4)?;
    Ok(routes
        .iter()
        .filter(|route| route.prefix == prefix)
        .flat_map(|route| route.next_hops.clone())
        .collect())
}

/// Waits until the router has exactly these next hops; how long that took.
fn until(router: &dyn Router, lan: &Lan, what: &str, vip: Ipv4Addr, wanted: &[Ipv4Addr]) -> Duration {
    let began = Instant::now();
    let wanted: BTreeSet<IpAddr> = wanted.iter().copied().map(IpAddr::from).collect();
    let waited = wait::until_blocking(what, secs(30), || {
        let has = next_hops(router, vip)?;
        Ok(Seen::when(has == wanted, has))
    });
    waited.unwrap_or_else(|error| panic!("{error:#}\n{}\n{}", router.show(), lan.log_tails()));
    began.elapsed()
}

#[tokio::test]
async fn a_service_is_a_route_to_every_node_and_a_dead_node_none() {
    let run = std::sync::Arc::new(RunDir::create().unwrap());
    let mut lan = Lan::start(Programs::debug().unwrap()).await.unwrap();
    lan.grow(2).await.unwrap();
    let nodes: Vec<Ipv4Addr> = lan.nodes().iter().map(|node| node.v4).collect();
    let mut config = RouterConfig::new(THEM, Ipv4Addr::new(192, 0, 2, 250));
    for node in &nodes {
        let mut neighbor = Neighbor::new((*node).into(), US);
        neighbor.local = Some(ROUTER.into());
        neighbor.password = Some(PASSWORD.to_owned());
        neighbor.bfd = Some(Bfd { tx: 50, rx: 50, multiplier: 3 });
        neighbor.hold_time = 90;
        config = config.neighbor(neighbor);
    }
    let router = Kind::Bird.start(&run, "tor", lan.client_netns(), &config).unwrap();
    let router = router.as_ref();
    lan.plane.apply(&objects()).await.unwrap();

    let vip = lan.services(0..1).await.unwrap()[0];
    until(router, &lan, "both nodes announce the address", vip, &nodes);
    let route =
        router.routes(Family::V4).unwrap().into_iter().find(|route| route.prefix == format!("{vip}/32"));
    let route = route.unwrap();
    assert_eq!((route.as_path, route.communities), (vec![US], BTreeSet::from(["64500:7".to_owned()])));

    // Who says so: the metric, and the status objects.
    for node in lan.nodes() {
        assert_eq!(node.metric("metallb_bgp_session_up", "").unwrap(), Some(1.0), "{}", node.name);
        assert_eq!(
            node.metric("metallb_bgp_announced_prefixes_total", "").unwrap(),
            Some(1.0),
            "{}",
            node.name
        );
    }
    let statuses: Api<ServiceBGPStatus> = Api::namespaced(lan.api(), "metallb-system");
    wait::until("each node says to whom it announces", secs(20), || {
        let statuses = statuses.clone();
        async move {
            let all = statuses.list(&ListParams::default()).await?.items;
            let said: BTreeSet<(String, Vec<String>)> = all
                .into_iter()
                .filter_map(|object| object.status)
                .map(|status| (status.node.unwrap_or_default(), status.peers))
                .collect();
            let wanted = BTreeSet::from(["n01", "n02"].map(|node| (node.to_owned(), vec!["tor".to_owned()])));
            Ok(Seen::when(said == wanted, said))
        }
    })
    .await
    .unwrap();

    // A second Service is one more route; the session does not notice.
    let second = lan.services(1..2).await.unwrap()[0];
    until(router, &lan, "the second address is announced", second, &nodes);

    // Without an endpoint there is nothing to route to.
    let slices: Api<EndpointSlice> = Api::namespaced(lan.api(), "default");
    slices.delete("lan-00001-1", &DeleteParams::default()).await.unwrap();
    until(router, &lan, "an address without endpoints is withdrawn", second, &[]);
    until(router, &lan, "the other one stays", vip, &nodes);
    let flaps: u64 = router.sessions().unwrap().iter().map(|session| session.flaps).sum();
    assert_eq!(flaps, 0, "no session ended");

    wait::until_blocking("BFD is up with both nodes", secs(20), || {
        let sessions = router.sessions()?;
        let up = sessions.iter().filter(|session| session.bfd_up == Some(true)).count();
        Ok(Seen::when(up == nodes.len(), sessions))
    })
    .unwrap();
    // A node that dies without a word, whose kernel does not even say that the connection is gone: BFD sees it.
    lan.cut(0, patina_e2e::lan::Cut::Silent).unwrap();
    let took = until(router, &lan, "the routes of a node that is cut off are gone", vip, &nodes[1..]);
    eprintln!("routes of a node that was cut off were gone after {took:?}");
    assert!(took < secs(5), "{took:?}, with a hold time of 90 s");
    lan.mend(0).unwrap();
    until(router, &lan, "it is back", vip, &nodes);

    // One that ends says so.
    assert!(lan.node_mut(1).unwrap().terminate(secs(5)));
    until(router, &lan, "the routes of a speaker that ended are gone", vip, &nodes[..1]);
    let up = router.sessions().unwrap().iter().filter(|session| session.state == State::Established).count();
    assert_eq!(up, 1);
}
