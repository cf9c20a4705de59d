//! What the API server and the kubelet add to what people write, as far as a plan needs it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use k8s_openapi::api::core::v1::{Node, Service, ServiceSpec};
use patina_crds::net::Family;
use patina_crds::selector::Labels;

/// Label that the API server puts on every namespace.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";
/// Label that the kubelet puts on its node.
const HOSTNAME: &str = "kubernetes.io/hostname";

/// Cluster IPs for Services that have none: only their families matter. Of documentation ranges (RFC 5737, RFC 3849).
const CLUSTER_IP_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const CLUSTER_IP_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));

/// Gives a Service the cluster IPs and families that it would have in a cluster of these families, the primary one first.
/// What it has of its own stays. Answers what its author should know.
pub(super) fn service(service: &mut Service, cluster: &[Family]) -> Vec<String> {
    let spec = service.spec.get_or_insert_default();
    let mut notices = Vec::new();
    let given = cluster_ips(spec);
    let wanted = spec.ip_families.iter().flatten().filter_map(|text| parse(text)).collect::<Vec<_>>();
    if spec.ip_family_policy.is_none() && (wanted.len() > 1 || given.len() > 1) {
        spec.ip_family_policy = Some("RequireDualStack".to_owned());
        notices.push(
            "two IP families without spec.ipFamilyPolicy: the API server would refuse that; planned as \
             RequireDualStack"
                .to_owned(),
        );
    }
    if given.is_empty() {
        let families = families(spec.ip_family_policy.as_deref(), &wanted, cluster);
        spec.cluster_ips = Some(families.iter().map(|family| cluster_ip(*family).to_string()).collect());
        spec.ip_families = Some(families.iter().map(Family::to_string).collect());
    } else if wanted.is_empty() {
        let addresses = given.iter().filter_map(|text| text.parse().ok());
        spec.ip_families = Some(addresses.map(|ip: IpAddr| Family::of(ip).to_string()).collect());
    }
    notices
}

/// Gives a node the label that it would have.
pub(super) fn node(node: &mut Node) {
    let name = node.metadata.name.clone().unwrap_or_default();
    let labels = node.metadata.labels.get_or_insert_default();
    labels.entry(HOSTNAME.to_owned()).or_insert(name);
}

/// Gives a namespace the label that it would have.
pub(super) fn namespace(name: &str, labels: &mut Labels) {
    labels.insert(NAMESPACE_NAME.to_owned(), name.to_owned());
}

/// As written, "None" included.
fn cluster_ips(spec: &ServiceSpec) -> Vec<String> {
    let several = spec.cluster_ips.iter().flatten();
    let given: Vec<String> = several.filter(|text| !text.is_empty()).cloned().collect();
    if given.is_empty() {
        spec.cluster_ip.iter().filter(|text| !text.is_empty()).cloned().collect()
    } else {
        given
    }
}

/// The families that the API server chooses: those asked for, and the cluster's where nothing or not enough is.
fn families(policy: Option<&str>, wanted: &[Family], cluster: &[Family]) -> Vec<Family> {
    let dual = matches!(policy, Some("PreferDualStack" | "RequireDualStack"));
    let mut families: Vec<Family> = Vec::new();
    for family in wanted.iter().chain(cluster) {
        if !families.contains(family) {
            families.push(*family);
        }
    }
    families.truncate(if dual { 2 } else { 1 });
    families
}

fn cluster_ip(family: Family) -> IpAddr {
    match family {
        Family::V4 => CLUSTER_IP_V4,
        Family::V6 => CLUSTER_IP_V6,
    }
}

fn parse(text: &str) -> Option<Family> {
    match text {
        "IPv4" => Some(Family::V4),
        "IPv6" => Some(Family::V6),
        _ => None,
    }
}
