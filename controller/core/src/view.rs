//! What a Service is to us.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use patina_crds::net::Family;
use patina_crds::selector::Labels;
pub use patina_crds::service::ServiceId;

/// Protocol of a Service port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// The default of Kubernetes.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// A port that a Service occupies on its addresses. Equal ports are what keeps two Services from sharing one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// Protocol.
    pub protocol: Protocol,
    /// 1 to 65535.
    pub number: u16,
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
        };
        write!(f, "{}/{protocol}", self.number)
    }
}

/// `spec.ipFamilyPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FamilyPolicy {
    /// One family, that of the cluster IP.
    #[default]
    Single,
    /// Both if possible.
    PreferDual,
    /// Both or nothing.
    RequireDual,
}

/// `spec.externalTrafficPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrafficPolicy {
    /// Any node may receive.
    #[default]
    Cluster,
    /// Only nodes that run an endpoint.
    Local,
}

/// One Service, as the API server has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceView {
    /// Which one.
    pub id: ServiceId,
    /// Changes when a Service is deleted and created again under its name.
    pub uid: String,
    /// Creation time, seconds since 1970. Older Services are served first and win over younger ones.
    pub created: i64,
    /// Labels of the Service; pools are pinned by them.
    pub labels: Labels,
    /// The annotations of both MetalLB prefixes that [`crate::request`] reads; others need not be here.
    pub annotations: BTreeMap<String, String>,
    /// `spec.type` is LoadBalancer.
    pub is_load_balancer: bool,
    /// `spec.loadBalancerClass`.
    pub class: Option<String>,
    /// `spec.loadBalancerIP`; empty when not set.
    pub load_balancer_ip: String,
    /// `spec.clusterIPs` (or `clusterIP`) without "None".
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.ipFamilies`; the first is the primary one.
    pub families: Vec<Family>,
    /// `spec.ipFamilyPolicy`.
    pub family_policy: FamilyPolicy,
    /// `spec.ports`.
    pub ports: BTreeSet<Port>,
    /// `spec.externalTrafficPolicy`.
    pub traffic_policy: TrafficPolicy,
    /// `spec.selector`.
    pub selector: Labels,
    /// `status.loadBalancer.ingress[].ip`, in its order.
    pub held: Vec<IpAddr>,
    /// Since when its condition says that it has an address (seconds since 1970).
    pub allocated_since: Option<i64>,
    /// Its status or annotations carry something that we wrote.
    pub marked: bool,
}

impl ServiceView {
    /// A single-stack IPv4 LoadBalancer without wishes; for tests and planning, where most fields do not matter.
    #[must_use]
    pub fn plain(id: ServiceId, created: i64) -> Self {
        Self {
            uid: format!("{id}@{created}"),
            id,
            created,
            labels: Labels::new(),
            annotations: BTreeMap::new(),
            is_load_balancer: true,
            class: None,
            load_balancer_ip: String::new(),
            cluster_ips: vec![IpAddr::from([10, 96, 0, 1])],
            families: vec![Family::V4],
            family_policy: FamilyPolicy::Single,
            ports: BTreeSet::from([Port { protocol: Protocol::Tcp, number: 80 }]),
            traffic_policy: TrafficPolicy::Cluster,
            selector: Labels::new(),
            held: Vec::new(),
            allocated_since: None,
            marked: false,
        }
    }

    /// The families of its cluster IPs, in their order, each once.
    #[must_use]
    pub fn cluster_families(&self) -> Vec<Family> {
        let mut families = Vec::new();
        for ip in &self.cluster_ips {
            let family = Family::of(*ip);
            if !families.contains(&family) {
                families.push(family);
            }
        }
        families
    }
}
