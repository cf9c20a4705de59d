//! Kubernetes objects in the core's words.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::ResourceExt as _;
use patina_crds::keys;
use patina_speaker_core::view::{
    EndpointView, NodeView, ServiceFacts, ServiceId, ServiceView, TrafficPolicy, usable_endpoint,
};

use crate::watch::words::Words;

/// The Service in the core's words.
pub fn service(service: &Service, endpoints: Vec<EndpointView>) -> ServiceView {
    ServiceView::new(facts(service, &mut Words::default()), endpoints)
}

/// The Service in the core's words, without its endpoints.
pub fn facts(service: &Service, words: &mut Words) -> ServiceFacts {
    let spec = service.spec.as_ref();
    let ingress: Vec<&str> = service
        .status
        .iter()
        .filter_map(|status| status.load_balancer.as_ref())
        .flat_map(|balancer| balancer.ingress.iter().flatten())
        .filter_map(|ingress| ingress.ip.as_deref())
        .collect();
    let shared_key = keys::PREFIXES
        .iter()
        .find_map(|prefix| service.annotations().get(&format!("{prefix}/{}", keys::ALLOW_SHARED_IP)));
    ServiceFacts {
        id: service_id(service),
        labels: words.labels(service.labels()),
        ingress_text: ingress.first().map(|text| (*text).to_owned()).unwrap_or_default(),
        ingress: ingress.iter().filter_map(|text| text.parse().ok()).collect(),
        traffic_policy: match spec.and_then(|spec| spec.external_traffic_policy.as_deref()) {
            Some("Local") => TrafficPolicy::Local,
            _ => TrafficPolicy::Cluster,
        },
        is_load_balancer: spec.and_then(|spec| spec.type_.as_deref()) == Some("LoadBalancer"),
        class: spec.and_then(|spec| spec.load_balancer_class.clone()),
        shared_key: shared_key.cloned(),
    }
}

/// The Service's identity.
pub fn service_id(service: &Service) -> ServiceId {
    ServiceId::new(service.namespace().unwrap_or_default(), service.name_any())
}

/// The name of the Service that a slice belongs to; `None` when it belongs to none.
pub fn slice_service(slice: &EndpointSlice) -> Option<&str> {
    slice.labels().get(keys::SERVICE_NAME).map(String::as_str)
}

/// The distinct kinds of endpoint of each Service: which nodes have one, usable or not.
pub fn endpoints<'a>(
    slices: impl IntoIterator<Item = &'a EndpointSlice>,
) -> BTreeMap<ServiceId, Vec<EndpointView>> {
    let mut words = Words::default();
    let mut found: BTreeMap<ServiceId, Vec<EndpointView>> = BTreeMap::new();
    for slice in slices {
        let Some(service) = slice_service(slice) else { continue };
        let owner = ServiceId::new(slice.namespace().unwrap_or_default(), service);
        found.entry(owner).or_default().extend(slice_endpoints(slice, &mut words));
    }
    for endpoints in found.values_mut() {
        endpoints.sort_unstable();
        endpoints.dedup();
    }
    found
}

/// The endpoints of one slice, as they stand there.
pub fn slice_endpoints(slice: &EndpointSlice, words: &mut Words) -> Vec<EndpointView> {
    let view = |endpoint: &Endpoint| {
        let conditions = endpoint.conditions.as_ref();
        EndpointView {
            node: endpoint.node_name.as_deref().map(|node| words.text(node)),
            usable: usable_endpoint(conditions.and_then(|c| c.ready), conditions.and_then(|c| c.serving)),
        }
    };
    slice.endpoints.iter().map(view).collect()
}

/// The node in the core's words.
pub fn node(node: &Node) -> NodeView {
    let conditions = node.status.iter().filter_map(|status| status.conditions.as_ref()).flatten();
    NodeView {
        name: node.name_any(),
        labels: node.labels().clone(),
        network_unavailable: conditions
            .into_iter()
            .any(|condition| condition.type_ == "NetworkUnavailable" && condition.status == "True"),
        draining: node.annotations().get(keys::DRAIN).is_some_and(|value| value == "true"),
    }
}

#[cfg(test)]
mod tests {
    use patina_crds::selector::LabelSet as _;
    use serde_json::{Value, json};

    use super::*;

    fn service_of(value: Value) -> ServiceView {
        let object: Service = serde_json::from_value(value).unwrap();
        service(&object, Vec::new())
    }

    #[test]
    fn a_load_balancer_comes_over_whole() {
        let view = service_of(json!({
            "metadata": {
                "namespace": "shop", "name": "web", "labels": { "app": "web" },
                "annotations": {
                    "metallb.universe.tf/allow-shared-ip": "old", "metallb.io/allow-shared-ip": "", "other": "x",
                },
            },
            "spec": { "type": "LoadBalancer", "externalTrafficPolicy": "Local", "loadBalancerClass": "c" },
            "status": { "loadBalancer": { "ingress": [
                { "ip": "2001:DB8::1" }, { "hostname": "h.example" }, { "ip": "192.0.2.7" },
            ] } },
        }));
        assert_eq!(view.id, ServiceId::new("shop", "web"));
        assert_eq!(
            view.ingress_text, "2001:DB8::1",
            "as it stands in the status: the leader hash is over it"
        );
        assert_eq!(view.ingress, ["2001:db8::1".parse::<std::net::IpAddr>().unwrap(), [192, 0, 2, 7].into()]);
        assert_eq!(view.traffic_policy, TrafficPolicy::Local);
        assert!(view.is_load_balancer);
        assert_eq!(view.class.as_deref(), Some("c"));
        assert_eq!(view.shared_key.as_deref(), Some(""), "the current prefix wins, even when empty");
        assert_eq!(view.labels.value("app"), Some("web"));
    }

    #[test]
    fn another_type_is_no_load_balancer() {
        let view = service_of(json!({
            "metadata": { "namespace": "default", "name": "kubernetes" }, "spec": { "type": "ClusterIP" },
        }));
        assert!(!view.is_load_balancer && view.ingress.is_empty() && view.ingress_text.is_empty());
        assert_eq!((&view.class, &view.shared_key), (&None, &None));
    }

    #[test]
    fn endpoints_of_all_slices_of_a_service_come_together() {
        let slice = |name: &str, endpoints: Value| -> EndpointSlice {
            serde_json::from_value(json!({
                "metadata": { "namespace": "d", "name": name, "labels": { "kubernetes.io/service-name": "web" } },
                "addressType": "IPv4", "endpoints": endpoints,
            }))
            .unwrap()
        };
        let slices = [
            slice(
                "one",
                json!([
                    { "addresses": ["10.0.0.1"], "nodeName": "a", "conditions": { "ready": true } },
                    { "addresses": ["10.0.0.2"], "nodeName": "a", "conditions": {} },
                    { "addresses": ["10.0.0.3"], "nodeName": "b", "conditions": { "ready": false, "serving": true } },
                ]),
            ),
            slice(
                "two",
                json!([
                    { "addresses": ["10.0.0.4"], "nodeName": "c", "conditions": { "ready": false, "serving": false } },
                    { "addresses": ["10.0.0.5"] },
                ]),
            ),
        ];
        let all = endpoints(&slices);
        let found: Vec<_> =
            all[&ServiceId::new("d", "web")].iter().map(|e| (e.node.as_deref(), e.usable)).collect();
        assert_eq!(found, [(None, true), (Some("a"), true), (Some("b"), true), (Some("c"), false)]);
    }

    #[test]
    fn a_node_comes_with_labels_and_its_network() {
        let node_of = |status: &str| {
            let object: Node = serde_json::from_value(json!({
                "metadata": { "name": "a", "labels": { "rack": "1" } },
                "status": { "conditions": [
                    { "type": "Ready", "status": "True" }, { "type": "NetworkUnavailable", "status": status },
                ] },
            }))
            .unwrap();
            node(&object)
        };
        assert!(node_of("True").network_unavailable);
        assert!(!node_of("False").network_unavailable);
        assert_eq!(node_of("False").labels["rack"], "1");
    }
}
