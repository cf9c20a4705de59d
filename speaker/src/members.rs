//! Which nodes have a live speaker. In this version the API server says so: a speaker Pod that is Ready and not being
//! deleted. The membership protocol will replace this file behind the same value, a set of node names.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;

/// Label selector of our Pods when `--ml-labels` is not given.
pub const DEFAULT_LABELS: &str = "app.kubernetes.io/component=speaker";

/// The nodes of the live ones among these speaker Pods.
pub fn members<'a>(pods: impl IntoIterator<Item = &'a Pod>) -> BTreeSet<String> {
    pods.into_iter().filter(|pod| is_live(pod)).filter_map(node).collect()
}

fn is_live(pod: &Pod) -> bool {
    let conditions = pod.status.iter().filter_map(|status| status.conditions.as_ref()).flatten();
    pod.metadata.deletion_timestamp.is_none()
        && conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn node(pod: &Pod) -> Option<String> {
    pod.spec.as_ref()?.node_name.clone()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(node: Option<&str>, ready: &str, deleting: bool) -> Pod {
        let mut pod = json!({
            "metadata": { "name": "speaker" },
            "spec": { "containers": [], "nodeName": node },
            "status": { "conditions": [{ "type": "Ready", "status": ready }] },
        });
        if deleting {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn a_member_is_a_ready_pod_that_is_not_being_deleted() {
        let pods = [
            pod(Some("a"), "True", false),
            pod(Some("b"), "False", false),
            pod(Some("c"), "True", true),
            pod(None, "True", false),
            // A surge update: the old one leaves, the new one is ready.
            pod(Some("d"), "True", true),
            pod(Some("d"), "True", false),
        ];
        assert_eq!(members(&pods), BTreeSet::from(["a".to_owned(), "d".to_owned()]));
    }
}
