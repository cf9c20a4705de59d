//! The difference between what a status should show and what it shows, as a JSON merge patch.

use patina_crds::keys;
use serde_json::{Map, Value, json};

use super::Desired;
use crate::watch::{Ingress, Observed, SeenCondition};

/// The patch that makes `observed` show `desired`; `None` when it does. `now` (RFC 3339) dates changed conditions.
pub(super) fn patch(desired: &Desired, observed: &Observed, now: &str) -> Option<Value> {
    let mut metadata = Map::new();
    let mut status = Map::new();
    if observed.pool != desired.pool {
        metadata.insert("annotations".into(), json!({ keys::IP_ALLOCATED_FROM_POOL: desired.pool }));
    }
    if !shows(&observed.ingress, desired) {
        let entries: Vec<Value> =
            desired.addresses.iter().map(|ip| json!({ "ip": ip.to_string(), "ipMode": "VIP" })).collect();
        let entries = if entries.is_empty() { Value::Null } else { Value::Array(entries) };
        status.insert("loadBalancer".into(), json!({ "ingress": entries }));
    }
    if !same_conditions(desired, &observed.ours) {
        // A merge patch replaces the whole list: those of others go in as they are. The version guards them.
        let mut all = observed.foreign.clone();
        all.extend(desired.conditions.iter().map(|condition| {
            let status = if condition.status { "True" } else { "False" };
            let before = observed.ours.iter().find(|seen| seen.type_ == condition.type_);
            let since = before.filter(|seen| seen.status == status).map_or(now, |seen| &seen.last_transition);
            json!({
                "type": condition.type_,
                "status": status,
                "reason": condition.reason,
                "message": condition.message,
                "lastTransitionTime": since,
            })
        }));
        let all = if all.is_empty() { Value::Null } else { Value::Array(all) };
        status.insert("conditions".into(), all);
    }
    if metadata.is_empty() && status.is_empty() {
        return None;
    }
    metadata.insert("resourceVersion".into(), observed.resource_version.clone().into());
    metadata.insert("uid".into(), observed.uid.clone().into());
    let mut body = json!({ "metadata": metadata });
    if !status.is_empty() {
        body["status"] = Value::Object(status);
    }
    Some(body)
}

fn shows(ingress: &[Ingress], desired: &Desired) -> bool {
    ingress.len() == desired.addresses.len()
        && ingress
            .iter()
            .zip(&desired.addresses)
            .all(|(entry, ip)| entry.as_we_write && entry.ip == Some(*ip))
}

fn same_conditions(desired: &Desired, seen: &[SeenCondition]) -> bool {
    seen.len() == desired.conditions.len()
        && desired.conditions.iter().all(|condition| {
            seen.iter().any(|seen| {
                seen.type_ == condition.type_
                    && seen.status == if condition.status { "True" } else { "False" }
                    && seen.reason == condition.reason
                    && seen.message == condition.message
            })
        })
}

#[cfg(test)]
mod tests {
    use super::super::Condition;
    use super::*;

    fn condition(status: bool, message: &str) -> Condition {
        let type_ = keys::CONDITION_ALLOCATED;
        Condition { type_, status, reason: "Allocated", message: message.to_owned() }
    }

    fn seen(status: &str, message: &str) -> SeenCondition {
        SeenCondition {
            type_: keys::CONDITION_ALLOCATED.into(),
            status: status.into(),
            reason: "Allocated".into(),
            message: message.into(),
            last_transition: "then".into(),
        }
    }

    fn base() -> Observed {
        Observed { uid: "u".into(), resource_version: "7".into(), ..Observed::default() }
    }

    #[test]
    fn everything_is_in_one_conditional_patch() {
        let desired = Desired {
            addresses: vec!["10.0.0.1".parse().unwrap()],
            pool: Some("a".into()),
            conditions: vec![condition(true, "m")],
        };
        let body = patch(&desired, &base(), "now").unwrap();
        assert_eq!(
            body,
            json!({
                "metadata": {
                    "resourceVersion": "7", "uid": "u",
                    "annotations": {"metallb.io/ip-allocated-from-pool": "a"},
                },
                "status": {
                    "loadBalancer": {"ingress": [{"ip": "10.0.0.1", "ipMode": "VIP"}]},
                    "conditions": [{
                        "type": "patina.io/Allocated", "status": "True", "reason": "Allocated", "message": "m",
                        "lastTransitionTime": "now",
                    }],
                },
            })
        );
    }

    #[test]
    fn what_is_shown_already_is_not_written() {
        let desired = Desired {
            addresses: vec!["10.0.0.1".parse().unwrap()],
            pool: Some("a".into()),
            conditions: vec![condition(true, "m")],
        };
        let shown = Observed {
            ingress: vec![Ingress { ip: desired.addresses.first().copied(), as_we_write: true }],
            pool: Some("a".into()),
            ours: vec![seen("True", "m")],
            foreign: vec![json!({"type": "other"})],
            ..base()
        };
        assert_eq!(patch(&desired, &shown, "now"), None);
        // As MetalLB wrote it, without ipMode: written once.
        let theirs = vec![Ingress { ip: desired.addresses.first().copied(), as_we_write: false }];
        let body = patch(&desired, &Observed { ingress: theirs, ..shown.clone() }, "now").unwrap();
        assert!(body["status"].get("conditions").is_none(), "{body}");
        // Only the message changed: the condition keeps its date, those of others stay.
        let body =
            patch(&desired, &Observed { ours: vec![seen("True", "old")], ..shown.clone() }, "now").unwrap();
        assert_eq!(body["status"]["conditions"][0], json!({"type": "other"}));
        assert_eq!(body["status"]["conditions"][1]["lastTransitionTime"], "then");
        let body = patch(&desired, &Observed { ours: vec![seen("False", "m")], ..shown }, "now").unwrap();
        assert_eq!(body["status"]["conditions"][1]["lastTransitionTime"], "now");
    }

    #[test]
    fn nothing_of_ours_is_left_after_a_release() {
        let shown = Observed {
            ingress: vec![Ingress { ip: Some("10.0.0.1".parse().unwrap()), as_we_write: true }],
            pool: Some("a".into()),
            ours: vec![seen("True", "m")],
            ..base()
        };
        let body = patch(&Desired::default(), &shown, "now").unwrap();
        assert_eq!(body["status"], json!({"loadBalancer": {"ingress": null}, "conditions": null}));
        assert_eq!(body["metadata"]["annotations"], json!({"metallb.io/ip-allocated-from-pool": null}));
        assert_eq!(patch(&Desired::default(), &base(), "now"), None);
    }
}
