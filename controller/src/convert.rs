//! Kubernetes objects in the core's words. Whoever reads them (the watch, `kubectl patina plan`) reads them by this.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServiceSpec, ServiceStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::core::ObjectMeta;
use kube::{Resource, ResourceExt};
use patina_controller_core::view::{FamilyPolicy, Port, Protocol, ServiceId, ServiceView, TrafficPolicy};
use patina_crds::keys;
use patina_crds::net::Family;
use serde::{Deserialize, Deserializer};

/// A Service as it is read from the API server: without the parts of its metadata that nobody here looks at. Of each Service
/// these are more than half (managedFields), and as a tree of values they cost more time and memory than all the rest.
#[derive(Clone, Debug, Default)]
pub struct LeanService(pub Service);

impl<'de> Deserialize<'de> for LeanService {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Object {
            metadata: Metadata,
            spec: Option<ServiceSpec>,
            status: Option<ServiceStatus>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Metadata {
            name: Option<String>,
            namespace: Option<String>,
            uid: Option<String>,
            resource_version: Option<String>,
            creation_timestamp: Option<Time>,
            deletion_timestamp: Option<Time>,
            labels: Option<BTreeMap<String, String>>,
            annotations: Option<BTreeMap<String, String>>,
        }
        let Object { metadata, spec, status } = Object::deserialize(deserializer)?;
        let metadata = ObjectMeta {
            name: metadata.name,
            namespace: metadata.namespace,
            uid: metadata.uid,
            resource_version: metadata.resource_version,
            creation_timestamp: metadata.creation_timestamp,
            deletion_timestamp: metadata.deletion_timestamp,
            labels: metadata.labels,
            annotations: metadata.annotations,
            ..ObjectMeta::default()
        };
        Ok(Self(Service { metadata, spec, status }))
    }
}

impl Resource for LeanService {
    type DynamicType = ();
    type Scope = <Service as Resource>::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        <Service as Resource>::kind(&())
    }
    fn group((): &()) -> Cow<'_, str> {
        <Service as Resource>::group(&())
    }
    fn version((): &()) -> Cow<'_, str> {
        <Service as Resource>::version(&())
    }
    fn plural((): &()) -> Cow<'_, str> {
        <Service as Resource>::plural(&())
    }
    fn meta(&self) -> &ObjectMeta {
        &self.0.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.0.metadata
    }
}

/// Namespace and name.
#[must_use]
pub fn id(service: &Service) -> ServiceId {
    ServiceId::new(service.namespace().unwrap_or_default(), service.name_any())
}

/// A Service as the core sees it.
#[must_use]
pub fn view(service: &Service) -> ServiceView {
    let nothing = ServiceSpec::default();
    let spec = service.spec.as_ref().unwrap_or(&nothing);
    let annotations = service.metadata.annotations.iter().flatten();
    let status = service.status.as_ref();
    let entries = status.and_then(|status| status.load_balancer.as_ref()).and_then(|lb| lb.ingress.as_ref());
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let marked = annotations.clone().any(|(key, _)| key == keys::IP_ALLOCATED_FROM_POOL)
        || conditions.into_iter().flatten().any(|condition| is_our_condition(&condition.type_));
    ServiceView {
        id: id(service),
        uid: service.metadata.uid.clone().unwrap_or_default(),
        created: service.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
        labels: service.metadata.labels.clone().unwrap_or_default(),
        annotations: annotations
            .filter(|(key, _)| is_ours_to_read(key))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
        is_load_balancer: spec.type_.as_deref() == Some("LoadBalancer"),
        class: spec.load_balancer_class.clone(),
        load_balancer_ip: spec.load_balancer_ip.clone().unwrap_or_default(),
        cluster_ips: cluster_ips(spec),
        families: families(spec),
        family_policy: match spec.ip_family_policy.as_deref() {
            Some("PreferDualStack") => FamilyPolicy::PreferDual,
            Some("RequireDualStack") => FamilyPolicy::RequireDual,
            _ => FamilyPolicy::Single,
        },
        ports: ports(spec),
        traffic_policy: match spec.external_traffic_policy.as_deref() {
            Some("Local") => TrafficPolicy::Local,
            _ => TrafficPolicy::Cluster,
        },
        selector: spec.selector.clone().unwrap_or_default(),
        held: exact(entries.into_iter().flatten().filter_map(|entry| entry.ip.as_deref()?.parse().ok())),
        allocated_since: conditions
            .into_iter()
            .flatten()
            .find(is_allocated)
            .map(|c| c.last_transition_time.0.as_second()),
        marked,
    }
}

fn is_allocated(condition: &&Condition) -> bool {
    condition.type_ == keys::CONDITION_ALLOCATED && condition.status == "True"
}

/// A vector with no room to grow: these are kept for each Service, and most have one element.
fn exact<T>(values: impl Iterator<Item = T>) -> Vec<T> {
    let mut values: Vec<T> = values.collect();
    values.shrink_to_fit();
    values
}

fn is_ours_to_read(key: &str) -> bool {
    let Some((prefix, name)) = key.split_once('/') else { return false };
    keys::PREFIXES.contains(&prefix)
        && [keys::ADDRESS_POOL, keys::LOAD_BALANCER_IPS, keys::ALLOW_SHARED_IP].contains(&name)
}

fn cluster_ips(spec: &ServiceSpec) -> Vec<IpAddr> {
    let several = spec.cluster_ips.iter().flatten();
    let one = spec.cluster_ip.iter().filter(|_| spec.cluster_ips.as_ref().is_none_or(Vec::is_empty));
    // "None" (headless) and "" are no addresses.
    exact(several.chain(one).filter_map(|text| text.parse().ok()))
}

fn families(spec: &ServiceSpec) -> Vec<Family> {
    let parse = |text: &String| match text.as_str() {
        "IPv4" => Some(Family::V4),
        "IPv6" => Some(Family::V6),
        _ => None,
    };
    exact(spec.ip_families.iter().flatten().filter_map(parse))
}

fn ports(spec: &ServiceSpec) -> BTreeSet<Port> {
    let port = |port: &k8s_openapi::api::core::v1::ServicePort| {
        let protocol = match port.protocol.as_deref() {
            Some("UDP") => Protocol::Udp,
            Some("SCTP") => Protocol::Sctp,
            _ => Protocol::Tcp,
        };
        u16::try_from(port.port).ok().map(|number| Port { protocol, number })
    };
    spec.ports.iter().flatten().filter_map(port).collect()
}

/// Whether a condition of a Service is one that we write.
#[must_use]
pub fn is_our_condition(type_: &str) -> bool {
    [keys::CONDITION_ALLOCATED, keys::CONDITION_ANNOUNCED].contains(&type_)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_lean_service_says_what_the_whole_one_says() {
        let whole = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {
                "namespace": "shop", "name": "web", "uid": "u", "resourceVersion": "7",
                "creationTimestamp": "2026-01-02T03:04:05Z", "labels": {"a": "b"},
                "annotations": {"metallb.io/address-pool": "p", "metallb.io/ip-allocated-from-pool": "p", "other": "x"},
                "managedFields": [{"manager": "m", "operation": "Update", "fieldsV1": {"f:spec": {"f:ports": {}}}}],
                "ownerReferences": [],
            },
            "spec": {
                "type": "LoadBalancer", "clusterIPs": ["10.0.0.1", "fd00::1"], "ipFamilies": ["IPv4", "IPv6"],
                "ipFamilyPolicy": "RequireDualStack", "ports": [{"port": 53, "protocol": "UDP"}], "selector": {"k": "v"},
                "loadBalancerClass": "c", "loadBalancerIP": "192.0.2.1", "externalTrafficPolicy": "Local",
            },
            "status": {
                "loadBalancer": {"ingress": [{"ip": "192.0.2.1", "ipMode": "VIP"}]},
                "conditions": [{
                    "type": "x", "status": "True", "reason": "R", "message": "m", "lastTransitionTime": "2026-01-02T03:04:05Z",
                }],
            },
        });
        let mut service: Service = serde_json::from_value(whole.clone()).unwrap();
        let lean: LeanService = serde_json::from_value(whole).unwrap();
        assert_eq!(view(&lean.0), view(&service));
        assert_eq!(lean.resource_version(), service.resource_version());
        (service.metadata.managed_fields, service.metadata.owner_references) = (None, None);
        assert_eq!(lean.0, service, "nothing else is missing");
        let bare: LeanService = serde_json::from_value(json!({"metadata": {"name": "n"}})).unwrap();
        assert_eq!((bare.name_any(), bare.0.spec), ("n".to_owned(), None));
    }
}
