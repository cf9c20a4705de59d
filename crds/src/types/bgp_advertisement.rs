use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{fragments, rules};

/// Announce the addresses of pools by BGP.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "metallb.io",
    version = "v1beta1",
    kind = "BGPAdvertisement",
    plural = "bgpadvertisements",
    singular = "bgpadvertisement",
    namespaced,
    status = "BGPAdvertisementStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "BGPAdvertisement announces the addresses of pools to BGP peers.",
    printcolumn(name = "IPAddressPools", type_ = "string", json_path = ".spec.ipAddressPools"),
    printcolumn(
        name = "IPAddressPool Selectors",
        type_ = "string",
        json_path = ".spec.ipAddressPoolSelectors"
    ),
    printcolumn(name = "Peers", type_ = "string", json_path = ".spec.peers"),
    printcolumn(name = "Node Selectors", type_ = "string", json_path = ".spec.nodeSelectors", priority = 10)
)]
#[serde(rename_all = "camelCase", remote = "Self")]
// An aggregate covers Services that a selector may not match, so selectors demand host routes.
#[schemars(extend("x-kubernetes-validations" = json!([{
    "rule": "!has(self.serviceSelectors) || size(self.serviceSelectors) == 0 || \
             ((!has(self.aggregationLength) || self.aggregationLength == 32) && \
             (!has(self.aggregationLengthV6) || self.aggregationLengthV6 == 128))",
    "message": "serviceSelectors is only allowed with aggregationLength 32 and aggregationLengthV6 128",
}])))]
pub struct BGPAdvertisementSpec {
    /// Prefix length of the IPv4 routes that are announced; addresses are aggregated up to it. Not shorter than the
    /// prefix of the addresses in the pools.
    #[serde(default = "host_v4", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend("format" = "int32"), extend("x-kubernetes-validations" = rules::prefix_length("aggregationLength", 32)))]
    pub aggregation_length: Option<i64>,

    /// Prefix length of the IPv6 routes that are announced.
    #[serde(default = "host_v6", skip_serializing_if = "Option::is_none", rename = "aggregationLengthV6")]
    #[schemars(extend("format" = "int32"), extend("x-kubernetes-validations" = rules::prefix_length("aggregationLengthV6", 128)))]
    pub aggregation_length_v6: Option<i64>,

    /// LOCAL_PREF of the routes on iBGP sessions; the highest wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "int32"), extend("x-kubernetes-validations" = rules::local_pref()))]
    pub local_pref: Option<i64>,

    /// Communities of the routes: 64500:100, large:64500:1:2, or the name of an alias from a Community resource.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub communities: Vec<String>,

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

    /// Names of the BGPPeers to announce to. Without any, all peers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<String>,

    /// Selectors of the Services to announce; one match is enough. Without any, all Services are. Only with
    /// aggregationLength 32 and aggregationLengthV6 128.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "fragments::label_selectors")]
    pub service_selectors: Vec<LabelSelector>,
}
super::spec_may_be_absent!(BGPAdvertisementSpec);

impl Default for BGPAdvertisementSpec {
    fn default() -> Self {
        Self {
            aggregation_length: host_v4(),
            aggregation_length_v6: host_v6(),
            local_pref: None,
            communities: Vec::new(),
            ip_address_pools: Vec::new(),
            ip_address_pool_selectors: Vec::new(),
            node_selectors: Vec::new(),
            peers: Vec::new(),
            service_selectors: Vec::new(),
        }
    }
}

/// Nothing yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BGPAdvertisementStatus {}

#[allow(clippy::unnecessary_wraps)] // the default of an Option field
fn host_v4() -> Option<i64> {
    Some(32)
}

#[allow(clippy::unnecessary_wraps)] // the default of an Option field
fn host_v6() -> Option<i64> {
    Some(128)
}
