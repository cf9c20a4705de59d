//! Who gets which address: the controller's Reconciler, run to its end, and the statuses that it would write.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{LoadBalancerIngress, LoadBalancerStatus, Service};
use patina_controller_core::allocator::Usage;
use patina_controller_core::decide::{Decision, Outcome, Policy};
use patina_controller_core::reason::Ignored;
use patina_controller_core::reconcile::Reconciler;
use patina_controller_core::surroundings::Surroundings;
use patina_controller_core::view::ServiceId;
use patina_crds::config::Config;
use patina_crds::selector::Labels;

use super::Options;
use super::input::PlannedService;

/// What became of all Services.
#[derive(Debug, Default)]
pub(super) struct Outcomes {
    pub(super) services: BTreeMap<ServiceId, Allocated>,
    pub(super) usage: BTreeMap<String, Usage>,
}

/// What became of one.
#[derive(Debug, Default)]
pub(super) struct Allocated {
    pub(super) addresses: Vec<IpAddr>,
    pub(super) pool: Option<String>,
    pub(super) reason: Option<String>,
    pub(super) notices: Vec<String>,
}

/// Decides about all Services as a controller does that starts now, and writes the addresses into their statuses.
pub(super) fn allocate(
    services: &mut [PlannedService],
    config: &Config,
    surroundings: &Surroundings,
    namespaces: &BTreeMap<String, Labels>,
    options: &Options,
) -> Outcomes {
    let policy = Policy { class: options.class.clone(), strict_pinning: options.strict_pinning };
    let mut reconciler = Reconciler::new(policy);
    reconciler.surroundings_changed(Arc::new(surroundings.clone()));
    reconciler.config_changed(Arc::new(config.clone()));
    for (name, labels) in namespaces {
        reconciler.namespace_changed(name, labels.clone());
    }
    for service in services.iter() {
        let mut view = patina_controller::convert::view(&service.object);
        view.created = service.created;
        reconciler.service_changed(view);
    }
    reconciler.start();
    let mut decided: HashMap<ServiceId, Allocated> = HashMap::new();
    loop {
        let outcomes = reconciler.reconcile();
        if outcomes.is_empty() {
            break;
        }
        for (id, outcome) in outcomes {
            let before = decided.remove(&id);
            decided.insert(id, after(outcome, before, options));
        }
    }
    for service in services.iter_mut() {
        let allocated = decided.get(&service.id);
        write(&mut service.object, allocated.map_or(&[], |allocated| &allocated.addresses));
    }
    Outcomes {
        services: decided.into_iter().collect(),
        usage: reconciler.allocator().usage().map(|(pool, usage)| (pool.to_owned(), usage)).collect(),
    }
}

/// What becomes of them while there is no valid configuration: a controller that starts now touches none of them.
pub(super) fn nothing_in_force(services: &mut [PlannedService]) -> Outcomes {
    let reason = "ConfigurationInvalid: there are errors in the configuration, so nothing of it is in force: no Service gets \
                  an address, and who holds one keeps it as it is";
    let mut outcomes = Outcomes::default();
    for service in services {
        write(&mut service.object, &[]);
        let allocated = Allocated { reason: Some(reason.to_owned()), ..Allocated::default() };
        outcomes.services.insert(service.id.clone(), allocated);
    }
    outcomes
}

/// What a Service has after this outcome; `before`: after an earlier one.
fn after(outcome: Outcome, before: Option<Allocated>, options: &Options) -> Allocated {
    // Why it lost what it held was said once, in the outcome in which that happened.
    let lost = outcome.lost.map(|lost| format!("gives up the address it held: {lost}"));
    let mut allocated = Allocated { notices: lost.into_iter().collect(), ..Allocated::default() };
    let said = before.into_iter().flat_map(|before| before.notices);
    allocated.notices.extend(said.filter(|notice| notice.starts_with("gives up")));
    allocated.notices.extend(outcome.notices.iter().map(ToString::to_string));
    match outcome.decision {
        Decision::Assign { addresses, pool } | Decision::Keep { addresses, pool } => {
            allocated.addresses = addresses;
            allocated.pool = Some(pool);
        }
        Decision::Wait(reason) => allocated.reason = Some(format!("{}: {reason}", reason.word())),
        Decision::Ignore(Ignored::OtherClass) => {
            let served = match &options.class {
                Some(class) => format!("with loadBalancerClass {class:?}"),
                None => "without a loadBalancerClass".to_owned(),
            };
            allocated.reason =
                Some(format!("OtherLoadBalancerClass: only Services {served} are served (--lb-class)"));
        }
        Decision::Ignore(Ignored::NotLoadBalancer) | Decision::Release => {
            allocated.reason = Some("NotLoadBalancer: the Service is not of type LoadBalancer".to_owned());
        }
    }
    allocated
}

/// As the controller writes a status: not at all when it shows the addresses already.
fn write(service: &mut Service, addresses: &[IpAddr]) {
    let status = service.status.get_or_insert_default();
    let shown = status.load_balancer.iter().flat_map(|balancer| balancer.ingress.iter().flatten());
    let as_written = |entry: &LoadBalancerIngress| {
        entry.ip_mode.as_deref() == Some("VIP") && entry.hostname.is_none() && entry.ports.is_none()
    };
    let shown: Vec<Option<IpAddr>> = shown
        .map(|entry| entry.ip.as_deref().filter(|_| as_written(entry)).and_then(|text| text.parse().ok()))
        .collect();
    if shown.len() == addresses.len() && shown.iter().zip(addresses).all(|(shown, ip)| *shown == Some(*ip)) {
        return;
    }
    let entry = |ip: &IpAddr| LoadBalancerIngress {
        ip: Some(ip.to_string()),
        ip_mode: Some("VIP".to_owned()),
        ..LoadBalancerIngress::default()
    };
    let ingress = (!addresses.is_empty()).then(|| addresses.iter().map(entry).collect());
    status.load_balancer = Some(LoadBalancerStatus { ingress });
}
