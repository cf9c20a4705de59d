use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fragments;

/// Announce the addresses of pools by ARP and NDP.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "metallb.io",
    version = "v1beta1",
    kind = "L2Advertisement",
    plural = "l2advertisements",
    singular = "l2advertisement",
    namespaced,
    status = "L2AdvertisementStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "L2Advertisement announces the addresses of pools on the local network, by ARP and NDP.",
    printcolumn(name = "IPAddressPools", type_ = "string", json_path = ".spec.ipAddressPools"),
    printcolumn(
        name = "IPAddressPool Selectors",
        type_ = "string",
        json_path = ".spec.ipAddressPoolSelectors"
    ),
    printcolumn(name = "Interfaces", type_ = "string", json_path = ".spec.interfaces"),
    printcolumn(name = "Node Selectors", type_ = "string", json_path = ".spec.nodeSelectors", priority = 10)
)]
#[serde(rename_all = "camelCase", remote = "Self")]
pub struct L2AdvertisementSpec {
    /// Names of the IPAddressPools to announce, together with those of ipAddressPoolSelectors. Without either, every
    /// pool is announced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ip_address_pools: Vec<String>,

    /// Selectors of the IPAddressPools to announce, together with those of ipAddressPools.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "fragments::label_selectors")]
    pub ip_address_pool_selectors: Vec<LabelSelector>,

    /// Selectors of the nodes that may announce; one match is enough. Without any, all nodes may.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "fragments::label_selectors")]
    pub node_selectors: Vec<LabelSelector>,

    /// Names of the interfaces to announce on. Without any, all interfaces. The choice of the announcing node does
    /// not depend on it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<String>,

    /// Selectors of the Services to announce; one match is enough. Without any, all Services are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "fragments::label_selectors")]
    pub service_selectors: Vec<LabelSelector>,

    /// Nodes that should rather announce than others. The weights of all entries that match a node add up, over all
    /// advertisements; the node with the highest sum announces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub preferred_node_selectors: Vec<PreferredNodeSelector>,
}
super::spec_may_be_absent!(L2AdvertisementSpec);

/// A preference for some nodes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PreferredNodeSelector {
    /// How much a match counts, 1 to 100.
    #[schemars(range(min = 1, max = 100), extend("format" = "int32"))]
    pub weight: i64,

    /// Selector of the preferred nodes; an empty one matches all.
    #[schemars(schema_with = "fragments::label_selector")]
    pub preference: LabelSelector,
}

/// Nothing yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct L2AdvertisementStatus {}
