//! What a decision means for people: conditions on the Service, events, log lines.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::ObjectReference;
use patina_controller_core::allocator::{Allocator, Bar};
use patina_controller_core::coverage::{self, NotAdvertised};
use patina_controller_core::decide::{Decision, Outcome};
use patina_controller_core::reason::{Notice, request_word};
use patina_controller_core::surroundings::UsedBy;
use patina_controller_core::view::{ServiceId, ServiceView};
use patina_crds::config::Config;
use patina_crds::keys;
use patina_runtime::events::{EventType, Events, Published};

use crate::status::{Condition, Desired};

/// An event to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) warning: bool,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// Everything that follows from one decision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Consequence {
    /// `None`: leave the Service alone.
    pub(crate) desired: Option<Desired>,
    /// Now.
    pub(crate) events: Vec<Said>,
    /// Once the status shows it.
    pub(crate) when_written: Option<Said>,
    /// Word of the reason, for the metric of waiting Services.
    pub(crate) waits: Option<&'static str>,
}

pub(crate) fn consequence(view: &ServiceView, outcome: &Outcome, config: &Config) -> Consequence {
    let mut result = Consequence::default();
    if let Some(lost) = &outcome.lost {
        result.events.push(Said {
            warning: false,
            reason: "ClearAssignment",
            message: format!("released: {lost}"),
        });
    }
    // The speaker that sees the other host says so itself.
    for notice in outcome.notices.iter().filter(|notice| conflict(notice).is_none()) {
        let (warning, reason) = notice.event();
        result.events.push(Said { warning, reason, message: notice.to_string() });
    }
    match &outcome.decision {
        Decision::Ignore(_) => {}
        Decision::Release => result.desired = Some(Desired::default()),
        Decision::Wait(reason) => {
            result.waits = Some(reason.word());
            let condition = allocated(false, reason.word(), reason.to_string());
            result.desired = Some(Desired { conditions: vec![condition], ..Desired::default() });
            if let Some(event) = reason.event() {
                result.events.push(Said { warning: true, reason: event, message: reason.to_string() });
            }
        }
        Decision::Assign { addresses, pool } | Decision::Keep { addresses, pool } => {
            let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            let texts = texts.join(", ");
            let kept_despite = outcome.notices.iter().find_map(|notice| match notice {
                Notice::KeptDespite(error) => Some((request_word(error), notice.to_string())),
                _ => None,
            });
            let (reason, message) =
                kept_despite.unwrap_or_else(|| ("Allocated", format!("{texts} from pool {pool}")));
            let mut conditions = vec![allocated(true, reason, message)];
            if let Some(condition) = outcome.notices.iter().find_map(conflict) {
                conditions.push(condition);
            } else if let Some(missing) = coverage::missing(config, pool, &view.labels) {
                conditions.push(not_announced(&missing));
                result.events.push(Said {
                    warning: true,
                    reason: "notAdvertised",
                    message: missing.to_string(),
                });
            }
            result.desired =
                Some(Desired { addresses: addresses.clone(), pool: Some(pool.clone()), conditions });
            if matches!(outcome.decision, Decision::Assign { .. }) {
                let message = format!("Assigned IP {texts} from pool {pool}");
                result.when_written = Some(Said { warning: false, reason: "IPAllocated", message });
            }
        }
    }
    result
}

/// Somebody wrote these addresses into the status of `id`, and they are taken out again.
pub(crate) fn edited(id: &ServiceId, addresses: &[IpAddr], allocator: &Allocator) -> Said {
    let one = |ip: &IpAddr| {
        let holders =
            allocator.assignments().filter(|(other, held)| *other != id && held.addresses.contains(ip));
        match holders.map(|(other, _)| other).min() {
            Some(holder) => format!("{ip}, which Service {holder} has and keeps"),
            None => ip.to_string(),
        }
    };
    let texts: Vec<String> = addresses.iter().map(one).collect();
    Said {
        warning: true,
        reason: "StatusEdited",
        message: format!("somebody else wrote into the status: {}; put back", texts.join(" and ")),
    }
}

fn allocated(status: bool, reason: &'static str, message: String) -> Condition {
    Condition { type_: keys::CONDITION_ALLOCATED, status, reason, message }
}

/// Nobody announces the address, or not alone: a foreign host has it.
fn conflict(notice: &Notice) -> Option<Condition> {
    let Notice::HoldsBarred { address, bar: Bar::Network(UsedBy::Host(conflict)) } = notice else {
        return None;
    };
    let so = match conflict.before_use {
        Some(_) => "it is not announced until that host lets go of it",
        None => "the node defends it, and clients reach either of the two",
    };
    let message =
        format!("{address} is {conflict}; {so}. Take it from that host, or give the Service another address");
    Some(Condition { type_: keys::CONDITION_ANNOUNCED, status: false, reason: "AddressConflict", message })
}

fn not_announced(missing: &NotAdvertised) -> Condition {
    let (reason, message) = (missing.word(), missing.to_string());
    Condition { type_: keys::CONDITION_ANNOUNCED, status: false, reason, message }
}

/// Publishes and logs, unless it was the last thing said.
pub(crate) fn say(events: &Events, id: &ServiceId, uid: &str, said: &Said) {
    let kind = if said.warning { EventType::Warning } else { EventType::Normal };
    let published = events.publish(&reference(id, uid), kind, said.reason, &said.message);
    if published == Published::Same {
        return;
    }
    if said.warning {
        tracing::warn!(service = %id, reason = said.reason, "{}", said.message);
    } else {
        tracing::info!(service = %id, reason = said.reason, "{}", said.message);
    }
}

pub(crate) fn reference(id: &ServiceId, uid: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Service".to_owned()),
        namespace: Some(id.namespace.clone()),
        name: Some(id.name.clone()),
        uid: Some(uid.to_owned()),
        ..ObjectReference::default()
    }
}
