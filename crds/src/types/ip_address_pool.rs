use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{fragments, rules};

/// Addresses that may be given to Services of type LoadBalancer.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "metallb.io",
    version = "v1beta1",
    kind = "IPAddressPool",
    plural = "ipaddresspools",
    singular = "ipaddresspool",
    namespaced,
    status = "IPAddressPoolStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "IPAddressPool is a pool of addresses that may be given to Services of type LoadBalancer.",
    printcolumn(name = "Auto Assign", type_ = "boolean", json_path = ".spec.autoAssign"),
    printcolumn(name = "Avoid Buggy IPs", type_ = "boolean", json_path = ".spec.avoidBuggyIPs"),
    printcolumn(name = "Addresses", type_ = "string", json_path = ".spec.addresses")
)]
#[serde(rename_all = "camelCase", remote = "Self")]
#[schemars(extend("required" = ["addresses"]))]
pub struct IPAddressPoolSpec {
    /// Addresses of the pool. Each entry is a CIDR (192.0.2.0/24, 2001:db8::/64) or a range of addresses
    /// (192.0.2.10-192.0.2.20). IPv4 and IPv6 may stand in one pool. No address may be in two pools.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "rules::pool_addresses")]
    pub addresses: Vec<String>,

    /// Whether addresses are given from this pool to Services that do not ask for it by name or by address.
    #[serde(default = "yes")]
    pub auto_assign: bool,

    /// Never give an IPv4 address that ends in .0 or .255, which some devices mistake for a network or broadcast
    /// address.
    #[serde(default, rename = "avoidBuggyIPs")]
    pub avoid_buggy_ips: bool,

    /// Which Services may use the pool, and in which order pools are tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_allocation: Option<ServiceAllocation>,
}
super::spec_may_be_absent!(IPAddressPoolSpec);

/// Which Services may use a pool, and in which order pools are tried.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAllocation {
    /// Pools that match a Service are tried from the lowest priority number up; 0, or none, comes last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i64>,

    /// Names of the namespaces whose Services may use the pool. A namespace selected here or by namespaceSelectors
    /// may.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,

    /// Selectors of the namespaces whose Services may use the pool.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "fragments::label_selectors")]
    pub namespace_selectors: Vec<LabelSelector>,

    /// Selectors of the Services that may use the pool. A Service must match one of them and, when namespaces are
    /// given too, be in one of those.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "fragments::label_selectors")]
    pub service_selectors: Vec<LabelSelector>,
}

/// How much of the pool is in use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IPAddressPoolStatus {
    /// Number of IPv4 addresses that Services hold.
    #[serde(rename = "assignedIPv4")]
    pub assigned_ipv4: i64,
    /// Number of IPv6 addresses that Services hold.
    #[serde(rename = "assignedIPv6")]
    pub assigned_ipv6: i64,
    /// Number of IPv4 addresses that are free.
    #[serde(rename = "availableIPv4")]
    pub available_ipv4: i64,
    /// Number of IPv6 addresses that are free; the largest int64 when there are more.
    #[serde(rename = "availableIPv6")]
    pub available_ipv6: i64,
}

impl Default for IPAddressPoolSpec {
    fn default() -> Self {
        Self { addresses: Vec::new(), auto_assign: true, avoid_buggy_ips: false, service_allocation: None }
    }
}

fn yes() -> bool {
    true
}
