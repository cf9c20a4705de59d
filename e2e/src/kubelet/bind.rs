//! Which node a pod goes to: the least that a scheduler must do. DaemonSet pods name their node in their affinity;
//! others go where the fewest of their siblings are, among the nodes that their nodeSelector takes.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Result, anyhow};
use k8s_openapi::api::core::v1::{Binding, NodeSelectorTerm, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Status};
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt as _};

/// The node for `pod` among those that are `alive`, or `None` while there is none that fits.
#[must_use]
pub(super) fn choose(pod: &Pod, alive: &[String], placed: &BTreeMap<String, Arc<Pod>>) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    if spec.scheduling_gates.as_ref().is_some_and(|g| !g.is_empty())
        || pod.metadata.deletion_timestamp.is_some()
    {
        return None;
    }
    let named = named_in_affinity(pod);
    let hostname = spec.node_selector.as_ref().and_then(|s| s.get("kubernetes.io/hostname"));
    let fits = |node: &&String| {
        named.as_ref().is_none_or(|names| names.contains(node)) && hostname.is_none_or(|h| h == *node)
    };
    let load = |node: &String| {
        let on_it =
            || placed.values().filter(|p| p.spec.as_ref().and_then(|s| s.node_name.as_ref()) == Some(node));
        let siblings = on_it().filter(|p| owner(p).is_some() && owner(p) == owner(pod)).count();
        (siblings, on_it().count(), node.clone())
    };
    alive.iter().filter(fits).min_by_key(|node| load(node)).cloned()
}

/// Tells the API.
///
/// # Errors
/// The pod is gone or bound already.
pub(super) async fn bind(client: &Client, pod: &Pod, node: &str) -> Result<()> {
    let name = pod.name_any();
    let binding = Binding {
        metadata: ObjectMeta { name: Some(name.clone()), ..Default::default() },
        target: ObjectReference { kind: Some("Node".into()), name: Some(node.into()), ..Default::default() },
    };
    let pods = Api::<Pod>::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    let _accepted: Status = pods
        .create_subresource("binding", &name, &PostParams::default(), &binding)
        .await
        .map_err(|error| anyhow!("{error}"))?;
    Ok(())
}

fn owner(pod: &Pod) -> Option<&str> {
    pod.metadata.owner_references.as_ref()?.first().map(|o| o.uid.as_str())
}

/// The nodes that a DaemonSet's pod may go to: `metadata.name` in its required affinity.
fn named_in_affinity(pod: &Pod) -> Option<Vec<String>> {
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let terms = &affinity.required_during_scheduling_ignored_during_execution.as_ref()?.node_selector_terms;
    let names: Vec<String> = terms.iter().flat_map(names_of).collect();
    (!names.is_empty()).then_some(names)
}

fn names_of(term: &NodeSelectorTerm) -> Vec<String> {
    let fields =
        term.match_fields.iter().flatten().filter(|f| f.key == "metadata.name" && f.operator == "In");
    fields.flat_map(|f| f.values.clone().unwrap_or_default()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::PodSpec;

    fn pod(json: serde_json::Value) -> Arc<Pod> {
        Arc::new(serde_json::from_value(json).unwrap())
    }

    fn of_set(name: &str, node: Option<&str>) -> Arc<Pod> {
        pod(serde_json::json!({
            "metadata": {"name": name, "uid": name, "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "uid": "rs"}]},
            "spec": {"containers": [], "nodeName": node},
        }))
    }

    fn nodes() -> Vec<String> {
        (1..=3).map(|n| format!("node{n}")).collect()
    }

    #[test]
    fn three_pods_of_one_set_go_to_three_nodes() {
        let mut placed = BTreeMap::new();
        for name in ["a", "b", "c"] {
            let node = choose(&of_set(name, None), &nodes(), &placed).unwrap();
            placed.insert(name.to_owned(), of_set(name, Some(&node)));
        }
        let used: std::collections::BTreeSet<_> =
            placed.values().map(|p| p.spec.clone().unwrap().node_name.unwrap()).collect();
        assert_eq!(used.len(), 3);
    }

    #[test]
    fn a_daemon_sets_pod_goes_to_the_node_of_its_affinity_and_waits_while_it_is_off() {
        let affine = pod(serde_json::json!({
            "metadata": {"name": "speaker", "uid": "s"},
            "spec": {"containers": [], "affinity": {"nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                    {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node2"]}]}]}}}},
        }));
        assert_eq!(choose(&affine, &nodes(), &BTreeMap::new()).as_deref(), Some("node2"));
        assert_eq!(choose(&affine, &["node1".to_owned()], &BTreeMap::new()), None);
    }

    #[test]
    fn a_node_selector_by_host_name_is_kept() {
        let mut wants = Pod { spec: Some(PodSpec::default()), ..Default::default() };
        let selector = BTreeMap::from([("kubernetes.io/hostname".to_owned(), "node3".to_owned())]);
        wants.spec.as_mut().unwrap().node_selector = Some(selector);
        assert_eq!(choose(&wants, &nodes(), &BTreeMap::new()).as_deref(), Some("node3"));
    }
}
