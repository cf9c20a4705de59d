//! A cluster that is a map, and what can happen to it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use patina_controller_core::decide::{Decision, Policy};
use patina_controller_core::reconcile::Reconciler;
use patina_controller_core::surroundings::{InUse, Surroundings, UsedBy};
use patina_controller_core::view::{FamilyPolicy, ServiceId, ServiceView, TrafficPolicy};
use patina_crds::config::{Config, ObjectRef, Reservation};
use patina_crds::net::{AddressRange, Family};
use patina_crds::selector::{Labels, Selector};
use proptest::prelude::*;

use crate::common::pool;
use crate::{configs, ports_of, service};

#[derive(Clone, Debug)]
pub(crate) enum Event {
    Create {
        who: u8,
        shape: Shape,
    },
    Edit {
        who: u8,
        shape: Shape,
    },
    Delete {
        who: u8,
    },
    /// Deleted and created again before the controller saw either.
    Again {
        who: u8,
        shape: Shape,
    },
    Config {
        which: u8,
    },
    Surroundings {
        which: u8,
    },
    /// A namespace gets its label, or loses it.
    Namespace {
        which: u8,
        labelled: bool,
    },
    /// Status writes fail until the next event of this kind.
    Writes {
        work: bool,
    },
    /// The controller ends, and another begins with what the statuses say.
    Restart,
}

#[derive(Clone, Debug)]
pub(crate) struct Shape {
    families: u8,
    policy: u8,
    key: u8,
    ports: u8,
    backends: u8,
    ip: Option<u8>,
    pool: Option<u8>,
    load_balancer: bool,
    other_class: bool,
}

fn shape() -> impl Strategy<Value = Shape> {
    (
        (0..3u8, 0..3u8, 0..3u8, 1..8u8, 0..4u8),
        proptest::option::weighted(0.2, 0..12u8),
        proptest::option::weighted(0.2, 0..5u8),
        proptest::bool::weighted(0.9),
        proptest::bool::weighted(0.05),
    )
        .prop_map(|((families, policy, key, ports, backends), ip, pool, load_balancer, other_class)| {
            Shape { families, policy, key, ports, backends, ip, pool, load_balancer, other_class }
        })
}

pub(crate) fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => (0..8u8, shape()).prop_map(|(who, shape)| Event::Create { who, shape }),
        3 => (0..8u8, shape()).prop_map(|(who, shape)| Event::Edit { who, shape }),
        3 => (0..8u8).prop_map(|who| Event::Delete { who }),
        1 => (0..8u8, shape()).prop_map(|(who, shape)| Event::Again { who, shape }),
        2 => (0..10u8).prop_map(|which| Event::Config { which }),
        1 => (0..3u8).prop_map(|which| Event::Surroundings { which }),
        1 => (0..2u8, any::<bool>()).prop_map(|(which, labelled)| Event::Namespace { which, labelled }),
        1 => any::<bool>().prop_map(|work| Event::Writes { work }),
        2 => Just(Event::Restart),
    ]
}

/// The plain ones, and some with reservations and pins by label.
pub(crate) fn all_configs() -> Vec<Config> {
    let plain = configs();
    let range = |text: &str| {
        let single = text.parse().ok().map(AddressRange::single);
        single.unwrap_or_else(|| text.parse().unwrap())
    };
    let reserve = |name: &str, ranges: &[&str], service: Option<u8>| Reservation {
        source: ObjectRef { kind: "AddressReservation".into(), namespace: "x".into(), name: name.into() },
        ranges: ranges.iter().map(|text| range(text)).collect(),
        service: service.map(crate::service),
        reason: String::new(),
    };
    let with = |config: &Config, reservations: Vec<Reservation>| Config { reservations, ..config.clone() };
    let nobody = reserve("nobody", &["10.0.0.252-10.0.0.253", "fd00::1"], None);
    let first = reserve("first", &["10.0.0.254", "fd00::2/127"], Some(0));
    let second = reserve("second", &["10.0.0.255-10.0.1.1", "10.0.2.0"], Some(1));
    let mut labelled = pool("l", &["10.0.0.252/31", "fd00::/127"]);
    let label = k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector {
        match_labels: Some(label()),
        match_expressions: None,
    };
    labelled.allocation.namespace_selectors = vec![Selector::compile(&label).unwrap()];
    let more = [
        with(&plain[0], vec![nobody.clone(), first.clone()]),
        with(&plain[1], vec![first.clone(), second.clone()]),
        with(&plain[2], vec![nobody, second]),
        crate::common::config([labelled, pool("o", &["10.0.0.254/31", "fd00::2/128"])]),
    ];
    plain.into_iter().chain(more).collect()
}

pub(crate) fn all_surroundings() -> Vec<Surroundings> {
    let in_use = |range: &str, by| InUse { range: range.parse().unwrap(), by };
    let node = in_use("10.0.0.253/32", UsedBy::Node("n1".into()));
    vec![
        Surroundings::default(),
        Surroundings { uses: vec![node.clone(), in_use("fd00::/128", UsedBy::Gateway("n1".into()))] },
        Surroundings { uses: vec![node, in_use("10.0.0.254-10.0.1.0", UsedBy::Pods("n2".into()))] },
    ]
}

fn label() -> Labels {
    Labels::from([("team".to_owned(), "x".to_owned())])
}

fn view(who: u8, shape: &Shape, created: i64) -> ServiceView {
    let v4: IpAddr = "10.96.0.9".parse().unwrap();
    let v6: IpAddr = "fd00:96::9".parse().unwrap();
    let cluster_ips = match (shape.families, who % 2) {
        (0, _) => vec![v4],
        (1, _) => vec![v6],
        (_, 0) => vec![v4, v6],
        _ => vec![v6, v4],
    };
    let family_policy = match (shape.policy, cluster_ips.len()) {
        (0, 2) => FamilyPolicy::PreferDual,
        (0, _) => FamilyPolicy::Single,
        (1, _) => FamilyPolicy::PreferDual,
        _ => FamilyPolicy::RequireDual,
    };
    let mut view = ServiceView::plain(service(who), created);
    view.families = cluster_ips.iter().map(|ip| Family::of(*ip)).collect();
    view.cluster_ips = cluster_ips;
    view.family_policy = family_policy;
    view.ports = ports_of(shape.ports);
    view.is_load_balancer = shape.load_balancer;
    view.class = shape.other_class.then(|| "other".to_owned());
    if shape.backends > 1 {
        view.traffic_policy = TrafficPolicy::Local;
    }
    if shape.backends % 2 == 1 {
        view.selector = Labels::from([("app".to_owned(), "a".to_owned())]);
    }
    let mut annotate = |name: &str, value: String| {
        view.annotations.insert(format!("metallb.io/{name}"), value);
    };
    if shape.key > 0 {
        annotate("allow-shared-ip", format!("k{}", shape.key));
    }
    if let Some(ip) = shape.ip {
        annotate("loadBalancerIPs", format!("10.0.0.{}", 250 + (ip % 6)));
    }
    if let Some(pool) = shape.pool {
        annotate("address-pool", ["a", "b", "c", "z", "split"][usize::from(pool % 5)].to_owned());
    }
    view
}

/// Views with the status that was last written into them, and the controller that looks at them.
pub(crate) struct World {
    pub(crate) stored: BTreeMap<ServiceId, ServiceView>,
    wanted: BTreeMap<ServiceId, Vec<IpAddr>>,
    pub(crate) namespaces: BTreeMap<String, Labels>,
    pub(crate) config: Config,
    pub(crate) surroundings: Surroundings,
    pub(crate) writes_fail: bool,
    clock: i64,
    pub(crate) reconciler: Reconciler,
    /// Everything that was decided, in order.
    pub(crate) trace: Vec<String>,
}

impl World {
    pub(crate) fn new() -> Self {
        let mut world = Self {
            stored: BTreeMap::new(),
            wanted: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            config: all_configs().swap_remove(0),
            surroundings: Surroundings::default(),
            writes_fail: false,
            clock: 0,
            reconciler: Reconciler::new(Policy::default()),
            trace: Vec::new(),
        };
        world.restart();
        world
    }

    /// False when the event does not apply; nothing happened then.
    pub(crate) fn apply(&mut self, event: &Event) -> bool {
        self.clock += 1;
        match event {
            Event::Create { who, .. } if self.stored.contains_key(&service(*who)) => return false,
            Event::Edit { who, .. } | Event::Delete { who } | Event::Again { who, .. }
                if !self.stored.contains_key(&service(*who)) =>
            {
                return false;
            }
            Event::Create { who, shape } => self.store(view(*who, shape, self.clock)),
            Event::Edit { who, shape } => {
                let old = &self.stored[&service(*who)];
                let new = view(*who, shape, old.created);
                let new = ServiceView { held: old.held.clone(), marked: old.marked, ..new };
                self.store(new);
            }
            Event::Delete { who } => {
                let id = service(*who);
                self.stored.remove(&id);
                self.wanted.remove(&id);
                self.reconciler.service_deleted(&id);
            }
            Event::Again { who, shape } => {
                self.wanted.remove(&service(*who));
                self.store(view(*who, shape, self.clock));
            }
            Event::Config { which } => {
                let mut configs = all_configs();
                let which = usize::from(*which) % configs.len();
                self.config = configs.swap_remove(which);
                self.reconciler.config_changed(Arc::new(self.config.clone()));
            }
            Event::Surroundings { which } => {
                self.surroundings = all_surroundings().swap_remove(usize::from(*which));
                self.reconciler.surroundings_changed(Arc::new(self.surroundings.clone()));
            }
            Event::Namespace { which, labelled } => {
                let name = format!("n{which}");
                let labels = if *labelled { label() } else { Labels::new() };
                self.reconciler.namespace_changed(&name, labels.clone());
                self.namespaces.insert(name, labels);
            }
            Event::Writes { work } => self.writes_fail = !work,
            Event::Restart => self.restart(),
        }
        self.settle();
        true
    }

    pub(crate) fn labels(&self, namespace: &str) -> Labels {
        self.namespaces.get(namespace).cloned().unwrap_or_default()
    }

    fn store(&mut self, view: ServiceView) {
        self.reconciler.service_changed(view.clone());
        self.stored.insert(view.id.clone(), view);
    }

    /// What was not written is forgotten.
    fn restart(&mut self) {
        self.wanted.clear();
        self.reconciler = Reconciler::new(Policy::default());
        for (name, labels) in &self.namespaces {
            self.reconciler.namespace_changed(name, labels.clone());
        }
        for view in self.stored.values() {
            self.reconciler.service_changed(view.clone());
        }
        self.reconciler.surroundings_changed(Arc::new(self.surroundings.clone()));
        self.reconciler.config_changed(Arc::new(self.config.clone()));
        assert!(self.reconciler.start());
    }

    /// Decides and writes, as the shell does: the newest wish of each Service is written, later if not now.
    fn settle(&mut self) {
        for round in 0.. {
            assert!(round < 20, "the controller does not come to rest");
            for (id, outcome) in self.reconciler.reconcile() {
                self.trace.push(format!("{id}: {outcome:?}"));
                match outcome.decision {
                    Decision::Assign { addresses, .. } | Decision::Keep { addresses, .. } => {
                        self.wanted.insert(id, addresses);
                    }
                    Decision::Wait(_) | Decision::Release => {
                        self.wanted.insert(id, Vec::new());
                    }
                    Decision::Ignore(_) => {
                        self.wanted.remove(&id);
                    }
                }
            }
            let mut written = false;
            for (id, addresses) in self.wanted.iter().filter(|_| !self.writes_fail) {
                let Some(stored) = self.stored.get_mut(id) else { continue };
                if stored.held != *addresses {
                    stored.held.clone_from(addresses);
                    stored.marked = !addresses.is_empty();
                    self.reconciler.service_changed(stored.clone());
                    written = true;
                }
            }
            if !written {
                return;
            }
        }
    }
}
