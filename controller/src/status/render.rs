//! A patch as JSON merge patch.

use patina_controller_core::writes::{Patch, SeenCondition};
use patina_crds::keys;
use serde_json::{Map, Value, json};

/// The body. `now` (RFC 3339) dates conditions that change.
pub(super) fn body(patch: &Patch, now: &str) -> Value {
    let mut metadata = Map::new();
    // The server writes it only if both are still so.
    metadata.insert("uid".into(), patch.uid.clone().into());
    metadata.insert("resourceVersion".into(), patch.resource_version.clone().into());
    if let Some(pool) = &patch.change.pool {
        metadata.insert("annotations".into(), json!({ keys::IP_ALLOCATED_FROM_POOL: pool }));
    }
    let mut status = Map::new();
    if let Some(addresses) = &patch.change.addresses {
        let entries: Vec<Value> =
            addresses.iter().map(|ip| json!({ "ip": ip.to_string(), "ipMode": "VIP" })).collect();
        status.insert("loadBalancer".into(), json!({ "ingress": or_null(entries) }));
    }
    if let Some(conditions) = &patch.change.conditions {
        let all: Vec<Value> = conditions.iter().map(|condition| render(condition, now)).collect();
        status.insert("conditions".into(), or_null(all));
    }
    let mut body = json!({ "metadata": metadata });
    if !status.is_empty() {
        body["status"] = Value::Object(status);
    }
    body
}

fn or_null(list: Vec<Value>) -> Value {
    if list.is_empty() { Value::Null } else { Value::Array(list) }
}

fn render(condition: &SeenCondition, now: &str) -> Value {
    let mut value = json!({
        "type": condition.type_,
        "status": condition.status,
        "reason": condition.reason,
        "message": condition.message,
        "lastTransitionTime": condition.since.as_deref().unwrap_or(now),
    });
    if let Some(generation) = condition.observed_generation {
        value["observedGeneration"] = generation.into();
    }
    value
}

#[cfg(test)]
mod tests {
    use patina_controller_core::view::ServiceId;
    use patina_controller_core::writes::Change;

    use super::*;

    fn patch(change: Change) -> Patch {
        let id = ServiceId::new("n", "s");
        Patch { attempt: 0, id, uid: "u".into(), resource_version: "7".into(), change }
    }

    #[test]
    fn everything_is_in_one_conditional_patch() {
        let condition = SeenCondition {
            type_: keys::CONDITION_ALLOCATED.into(),
            status: "True".into(),
            reason: "Allocated".into(),
            message: "m".into(),
            ..SeenCondition::default()
        };
        let foreign = SeenCondition {
            type_: "other".into(),
            since: Some("then".into()),
            observed_generation: Some(3),
            ..SeenCondition::default()
        };
        let change = Change {
            addresses: Some(vec!["10.0.0.1".parse().unwrap()]),
            pool: Some(Some("a".into())),
            conditions: Some(vec![foreign, condition]),
        };
        assert_eq!(
            body(&patch(change), "now"),
            json!({
                "metadata": {
                    "resourceVersion": "7", "uid": "u",
                    "annotations": {"metallb.io/ip-allocated-from-pool": "a"},
                },
                "status": {
                    "loadBalancer": {"ingress": [{"ip": "10.0.0.1", "ipMode": "VIP"}]},
                    "conditions": [
                        {
                            "type": "other", "status": "", "reason": "", "message": "",
                            "lastTransitionTime": "then", "observedGeneration": 3,
                        },
                        {
                            "type": "patina.io/Allocated", "status": "True", "reason": "Allocated", "message": "m",
                            "lastTransitionTime": "now",
                        },
                    ],
                },
            })
        );
    }

    #[test]
    fn what_goes_is_null() {
        let change = Change { addresses: Some(vec![]), pool: Some(None), conditions: Some(vec![]) };
        let body = body(&patch(change), "now");
        assert_eq!(body["status"], json!({"loadBalancer": {"ingress": null}, "conditions": null}));
        assert_eq!(body["metadata"]["annotations"], json!({"metallb.io/ip-allocated-from-pool": null}));
    }
}
