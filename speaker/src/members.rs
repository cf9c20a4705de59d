//! Which nodes have a live speaker. In this version the API server says so: a speaker Pod that is Ready and not being
//! deleted. The membership protocol will replace this file behind the same value, a set of node names.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

/// Label selector of our Pods when `--ml-labels` is not given.
pub const DEFAULT_LABELS: &str = "app.kubernetes.io/component=speaker";

/// What is kept of a speaker's Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpeakerPod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `metadata.uid`.
    pub uid: Option<String>,
    /// The node that it runs on; `None` before it is known.
    pub node: Option<String>,
    /// Ready, and not being deleted.
    pub live: bool,
    /// It has run its course and comes back no more.
    pub ended: bool,
    /// Of both families.
    pub addresses: BTreeSet<IpAddr>,
}

impl SpeakerPod {
    /// The Pod in these words.
    pub fn of(pod: &Pod) -> Self {
        let conditions = pod.status.iter().filter_map(|status| status.conditions.as_ref()).flatten();
        let ready = conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True");
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        Self {
            namespace: pod.namespace().unwrap_or_default(),
            name: pod.name_any(),
            uid: pod.uid(),
            node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
            live: ready && pod.metadata.deletion_timestamp.is_none(),
            ended: matches!(phase, Some("Succeeded" | "Failed")),
            addresses: addresses(pod).collect(),
        }
    }
}

/// `podIP` is the first of `podIPs` wherever these exist.
fn addresses(pod: &Pod) -> impl Iterator<Item = IpAddr> {
    let status = pod.status.as_ref();
    let all = status.and_then(|status| status.pod_ips.as_deref()).unwrap_or_default();
    let first = status.and_then(|status| status.pod_ip.as_deref());
    all.iter().map(|ip| ip.ip.as_str()).chain(first).filter_map(|text| text.parse().ok())
}

/// The nodes of the live ones among these speaker Pods.
pub fn members<'a>(pods: impl IntoIterator<Item = &'a SpeakerPod>) -> BTreeSet<String> {
    pods.into_iter().filter(|pod| pod.live).filter_map(|pod| pod.node.clone()).collect()
}

/// Where the speakers of other nodes can be reached: every address of every Pod among these that has not ended, Ready
/// or not. For the first contact only: who lives, the membership finds out.
pub fn peers<'a>(pods: impl IntoIterator<Item = &'a SpeakerPod>, our_node: &str) -> BTreeSet<IpAddr> {
    pods.into_iter()
        .filter(|pod| !pod.ended && pod.node.as_deref() != Some(our_node))
        .flat_map(|pod| pod.addresses.iter().copied())
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(node: Option<&str>, ready: &str, deleting: bool) -> SpeakerPod {
        let mut pod = json!({
            "metadata": { "name": "speaker" },
            "spec": { "containers": [], "nodeName": node },
            "status": { "conditions": [{ "type": "Ready", "status": ready }] },
        });
        if deleting {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        SpeakerPod::of(&serde_json::from_value(pod).unwrap())
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

    #[test]
    fn a_peer_is_every_address_of_a_pod_elsewhere_that_has_not_ended() {
        let pod = |node: &str, phase: &str, ips: &[&str]| {
            let ips: Vec<_> = ips.iter().map(|ip| json!({ "ip": ip })).collect();
            let pod: Pod = serde_json::from_value(json!({
                "metadata": { "name": "speaker", "deletionTimestamp": "2026-01-01T00:00:00Z" },
                "spec": { "containers": [{ "name": "speaker" }], "nodeName": node },
                "status": { "phase": phase, "podIP": ips.first().map(|ip| &ip["ip"]), "podIPs": ips },
            }))
            .unwrap();
            pod
        };
        let mut old = pod("d", "Running", &["192.0.2.4"]);
        old.status.as_mut().unwrap().pod_ips = None;
        let pods: Vec<SpeakerPod> = [
            pod("a", "Running", &["192.0.2.1"]),
            pod("b", "Pending", &["192.0.2.2", "2001:db8::2"]),
            pod("c", "Failed", &["192.0.2.3"]),
            old,
            pod("e", "Pending", &[]),
            pod("f", "Running", &["no address"]),
        ]
        .iter()
        .map(SpeakerPod::of)
        .collect();
        let expected = ["192.0.2.2", "192.0.2.4", "2001:db8::2"].map(|ip| ip.parse().unwrap());
        assert_eq!(peers(&pods, "a"), BTreeSet::from(expected));
    }
}
