//! Kubernetes objects in the core's words. Whoever reads them (the watch, `kubectl patina plan`) reads them by this.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use kube::ResourceExt;
use patina_controller_core::view::{FamilyPolicy, Port, Protocol, ServiceId, ServiceView, TrafficPolicy};
use patina_crds::keys;
use patina_crds::net::Family;

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
        held: entries.into_iter().flatten().filter_map(|entry| entry.ip.as_deref()?.parse().ok()).collect(),
        marked,
    }
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
    several.chain(one).filter_map(|text| text.parse().ok()).collect()
}

fn families(spec: &ServiceSpec) -> Vec<Family> {
    let parse = |text: &String| match text.as_str() {
        "IPv4" => Some(Family::V4),
        "IPv6" => Some(Family::V6),
        _ => None,
    };
    spec.ip_families.iter().flatten().filter_map(parse).collect()
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
