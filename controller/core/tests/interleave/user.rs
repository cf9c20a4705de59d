//! What users do to Services.

use std::net::IpAddr;

use patina_controller_core::view::{FamilyPolicy, Port, Protocol, ServiceId, ServiceView};
use patina_controller_core::writes::{Ingress, Observed};
use patina_crds::net::Family;

use crate::Dice;
use crate::server::{Object, Server};

const NAMES: usize = 8;

pub(crate) fn service(n: usize) -> ServiceId {
    ServiceId::new(if n.is_multiple_of(3) { "n1" } else { "n2" }, format!("s{n}"))
}

/// One thing that somebody does. The Service that it was done to, and what it was.
pub(crate) fn act(
    dice: &mut Dice,
    server: &mut Server,
    created: i64,
    status_edits: bool,
) -> (ServiceId, &'static str) {
    let id = service(dice.below(NAMES));
    let Some(object) = server.objects.get(&id).cloned() else {
        create(dice, server, &id, created);
        return (id, "create");
    };
    // The API server takes no load balancer status for another type.
    match dice.below(if status_edits && object.view.is_load_balancer { 12 } else { 8 }) {
        0 | 1 => {
            server.delete(&id);
            (id, "delete")
        }
        2 => {
            server.delete(&id);
            create(dice, server, &id, created);
            (id, "delete and create again")
        }
        3..=7 => {
            let mut object = object;
            shape(dice, &mut object.view);
            server.put(object);
            (id, "edit")
        }
        8 => {
            let mut object = object;
            object.observed.ours.clear();
            object.observed.pool = Some("wrong".to_owned());
            server.put(object);
            (id, "edit the annotation and the conditions")
        }
        9 => {
            let mut object = object;
            object.observed.ingress.clear();
            server.put(object);
            (id, "empty the status")
        }
        _ => {
            // Somebody else's address, or a free one.
            let others: Vec<IpAddr> =
                server.objects.values().flat_map(|other| other.observed.addresses()).collect();
            let free = IpAddr::from([10, 0, 0, dice.below(6) as u8]);
            let ip = if dice.one_in(3) { free } else { dice.pick(&others).copied().unwrap_or(free) };
            let mut object = object;
            object.observed.ingress = vec![Ingress { ip: Some(ip), as_we_write: dice.one_in(2) }];
            server.put(object);
            (id, "write an address into the status")
        }
    }
}

fn create(dice: &mut Dice, server: &mut Server, id: &ServiceId, created: i64) {
    let mut view = ServiceView::plain(id.clone(), created);
    let version = server.next_version();
    view.uid = format!("uid-{version}");
    // What makes two Services share stays as long as they live: whether a pair may share is then beyond doubt.
    if dice.one_in(4) {
        view.annotations.insert("metallb.io/allow-shared-ip".to_owned(), "key".to_owned());
        let number = 80 + dice.below(3) as u16;
        view.ports = [Port { protocol: Protocol::Tcp, number }].into();
    }
    let dual = dice.one_in(3);
    if dual {
        view.cluster_ips = vec!["10.96.0.1".parse().unwrap(), "fd00:96::1".parse().unwrap()];
        view.families = vec![Family::V4, Family::V6];
    }
    shape(dice, &mut view);
    let observed = Observed { uid: view.uid.clone(), ..Observed::default() };
    server.put(Object { view, observed });
}

/// What people edit.
fn shape(dice: &mut Dice, view: &mut ServiceView) {
    view.is_load_balancer = !dice.one_in(6);
    view.family_policy = match (view.cluster_ips.len(), dice.below(2)) {
        (1, _) => FamilyPolicy::Single,
        (_, 0) => FamilyPolicy::PreferDual,
        _ => FamilyPolicy::RequireDual,
    };
    view.annotations.remove("metallb.io/loadBalancerIPs");
    view.annotations.remove("metallb.io/address-pool");
    match dice.below(5) {
        0 => {
            let ip = format!("10.0.0.{}", dice.below(6));
            view.annotations.insert("metallb.io/loadBalancerIPs".to_owned(), ip);
        }
        1 => {
            let pool = if dice.one_in(2) { "a" } else { "b" };
            view.annotations.insert("metallb.io/address-pool".to_owned(), pool.to_owned());
        }
        _ => {}
    }
}
