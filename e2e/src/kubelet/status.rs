//! A pod's status, as a kubelet writes it.

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::PodAddresses;
use super::container::{Condition, State};

/// Now, in whole seconds, as the API has it.
#[must_use]
pub(super) fn now() -> String {
    format!("{:.0}", jiff::Timestamp::now())
}

/// Everything that the lab knows about one pod; written whole, so that what somebody else changed is changed back.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Report {
    /// Its addresses; empty before it has a network.
    pub pod_ips: Vec<String>,
    /// Its node's.
    pub host_ips: Vec<String>,
    /// One per container.
    pub containers: Vec<State>,
    /// When the lab first saw it.
    pub started: String,
    /// Why nothing runs yet.
    pub waiting_for: Option<String>,
    /// Since when [`Report::ready`] is what it is.
    pub since: String,
}

impl Report {
    pub(super) fn new(addresses: &PodAddresses, pod: &Pod) -> Self {
        let host_ips = addresses.host.iter().map(ToString::to_string).collect();
        let spec_containers = pod.spec.iter().flat_map(|s| &s.containers);
        let containers = spec_containers.map(State::waiting).collect();
        Self { pod_ips: Vec::new(), host_ips, containers, started: now(), waiting_for: None, since: now() }
    }

    /// Every container runs and is ready.
    pub(super) fn ready(&self) -> bool {
        !self.containers.is_empty() && self.containers.iter().all(|c| c.ready)
    }

    /// Whether `pod` says the same in what others read: Ready and the addresses.
    pub(super) fn is_in(&self, pod: &Pod) -> bool {
        let Some(status) = &pod.status else { return false };
        let ready = status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
        let ips = status.pod_ips.iter().flatten().map(|p| p.ip.as_str());
        ready == self.ready() && ips.eq(self.pod_ips.iter().map(String::as_str))
    }

    /// The merge patch.
    pub(super) fn patch(&self, uid: &str) -> Value {
        let ready = self.ready();
        let runs = self.containers.iter().any(|c| !matches!(c.condition, Condition::Waiting { .. }));
        let condition = |kind: &str, holds: bool| {
            let status = if holds { "True" } else { "False" };
            let mut condition = json!({"type": kind, "status": status, "lastTransitionTime": self.since});
            if !holds {
                let not_ready = self.containers.iter().filter(|c| !c.ready).map(|c| c.name.as_str());
                let names = not_ready.collect::<Vec<_>>().join(" ");
                let reason = self.waiting_for.clone();
                condition["reason"] = json!("ContainersNotReady");
                condition["message"] =
                    json!(reason.unwrap_or(format!("containers with unready status: [{names}]")));
            }
            condition
        };
        let containers: Vec<Value> = self.containers.iter().map(State::status).collect();
        let ips = |list: &[String]| list.iter().map(|ip| json!({"ip": ip})).collect::<Vec<_>>();
        json!({
            "metadata": {"uid": uid},
            "status": {
                "phase": if runs { "Running" } else { "Pending" },
                "startTime": self.started,
                "hostIP": self.host_ips.first(), "hostIPs": ips(&self.host_ips),
                "podIP": self.pod_ips.first(), "podIPs": ips(&self.pod_ips),
                "containerStatuses": containers,
                "conditions": [
                    condition("PodScheduled", true),
                    condition("Initialized", true),
                    condition("ContainersReady", ready),
                    condition("Ready", ready),
                ],
            },
        })
    }
}
