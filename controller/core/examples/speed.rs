//! How long the core takes, without an API server: `cargo run --release -p patina-controller-core --example speed`.
//! Wall time of one thread that does nothing else. The benchmark of the whole controller is `make bench`.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::panic)] // a benchmark reads the clock and stops at the first lie

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use patina_controller_core::decide::{Decision, Policy};
use patina_controller_core::reconcile::Reconciler;
use patina_controller_core::surroundings::{InUse, Surroundings, UsedBy};
use patina_controller_core::view::{Port, Protocol, ServiceId, ServiceView};
use patina_crds::config::{Config, ObjectRef, Pool, ServiceAllocation};
use patina_crds::net::Family;

const MANY: u32 = 10_000;

fn main() {
    fill("10,000 from a /16", &["10.0.0.0/16".to_owned()], |_| {});
    fill("10,000 from a /64", &["fd00::/64".to_owned()], v6);
    let small: Vec<String> = (0..200).map(|n| format!("10.{n}.0.0/26")).collect();
    fill("10,000 from 200 small pools", &small, |_| {});
    fill("10,000 with one key, one port", &["10.0.0.0/16".to_owned()], |view| share(view, 80));
    fill("10,000 with one key, 100 ports", &["10.0.0.0/16".to_owned()], |view| {
        let n = view.created as u16 % 100;
        share(view, n);
    });
    fill("10,000 with one key, a port each", &["10.0.0.0/16".to_owned()], |view| {
        let n = view.created as u16;
        share(view, n);
    });
    fill("10,000 with one key, 80 and a port each", &["10.0.0.0/16".to_owned()], |view| {
        share(view, 80);
        let number = 1000 + view.created as u16;
        view.ports.insert(Port { protocol: Protocol::Tcp, number });
    });
    waiting("5,000 frees while 5,000 wait", |_| {});
    waiting("5,000 frees while 5,000 wait, a key each", |view| {
        let key = view.created.to_string();
        view.annotations.insert("metallb.io/allow-shared-ip".into(), key);
    });
    changes();
}

fn v6(view: &mut ServiceView) {
    view.families = vec![Family::V6];
    view.cluster_ips = vec!["fd00:96::1".parse::<IpAddr>().unwrap()];
}

fn share(view: &mut ServiceView, number: u16) {
    view.annotations.insert("metallb.io/allow-shared-ip".into(), "key".into());
    view.ports = [Port { protocol: Protocol::Tcp, number }].into();
}

fn view(n: u32) -> ServiceView {
    ServiceView::plain(ServiceId::new(format!("ns{}", n % 50), format!("s{n}")), i64::from(n))
}

fn config(ranges: &[String]) -> Arc<Config> {
    let pool = |(n, range): (usize, &String)| {
        let name = format!("p{n:04}");
        let source = ObjectRef { kind: "IPAddressPool".into(), namespace: "x".into(), name: name.clone() };
        let pool = Pool {
            name: name.clone(),
            source,
            labels: BTreeMap::new(),
            ranges: vec![range.parse().unwrap()],
            auto_assign: true,
            avoid_buggy_ips: false,
            allocation: ServiceAllocation::default(),
        };
        (name, pool)
    };
    Arc::new(Config { pools: ranges.iter().enumerate().map(pool).collect(), ..Config::default() })
}

fn started(config: &Arc<Config>) -> Reconciler {
    let mut reconciler = Reconciler::new(Policy::default());
    reconciler.config_changed(Arc::clone(config));
    assert!(reconciler.start());
    reconciler
}

fn timed<T>(what: &str, run: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = run();
    println!("{what:45} {:9.1} ms", start.elapsed().as_secs_f64() * 1000.0);
    result
}

/// One Service after the other, as they are created in a running cluster.
fn fill(what: &str, ranges: &[String], shape: impl Fn(&mut ServiceView)) {
    let mut reconciler = started(&config(ranges));
    timed(what, || {
        for n in 0..MANY {
            let mut view = view(n);
            shape(&mut view);
            reconciler.service_changed(view);
            let outcomes = reconciler.reconcile();
            assert!(
                matches!(outcomes.as_slice(), [(_, outcome)] if matches!(outcome.decision, Decision::Assign { .. }))
            );
        }
    });
    assert_eq!(reconciler.allocator().assignments().count(), MANY as usize);
}

/// 5,000 hold, 5,000 wait, and those who hold go one by one.
fn waiting(what: &str, shape: impl Fn(&mut ServiceView)) {
    let mut reconciler = started(&config(&["10.0.0.0-10.0.19.135".to_owned()]));
    for n in 0..MANY {
        let mut view = view(n);
        shape(&mut view);
        reconciler.service_changed(view);
    }
    reconciler.reconcile();
    assert_eq!(reconciler.waiting(), 5_000);
    timed(what, || {
        for n in 0..5_000 {
            reconciler.service_deleted(&view(n).id);
            reconciler.reconcile();
        }
    });
    assert_eq!(reconciler.waiting(), 0);
}

/// What 10,000 Services cost besides.
fn changes() {
    let mut reconciler = started(&config(&["10.0.0.0/16".to_owned()]));
    for n in 0..MANY {
        reconciler.service_changed(view(n));
    }
    reconciler.reconcile();
    let node = |n: u32, ip: &str| InUse { range: ip.parse().unwrap(), by: UsedBy::Node(format!("n{n}")) };
    let elsewhere: Vec<InUse> =
        (0..1000).map(|n| node(n, &format!("192.168.{}.{}/32", n / 250, n % 250))).collect();
    timed("1,000 nodes, none in a pool", || {
        reconciler.surroundings_changed(Arc::new(Surroundings { uses: elsewhere.clone() }));
        assert!(reconciler.reconcile().is_empty());
    });
    let touching = [elsewhere, vec![node(0, "10.0.0.7/32")]].concat();
    timed("a node in a pool: 10,000 looked at", || {
        reconciler.surroundings_changed(Arc::new(Surroundings { uses: touching }));
        assert_eq!(reconciler.reconcile().len(), MANY as usize);
    });
    timed("another pool: 10,000 looked at", || {
        reconciler.config_changed(config(&["10.0.0.0/16".to_owned(), "10.1.0.0/16".to_owned()]));
        assert_eq!(reconciler.reconcile().len(), MANY as usize);
    });
}
