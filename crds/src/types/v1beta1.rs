//! The older version of BGPPeer: served, deprecated. Its fields are a subset of v1beta2's with the same JSON; what it cannot
//! say travels in an annotation ([`crate::convert`]).

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{is_false, is_zero, rules};

/// A router to speak BGP with, as v1beta1 has it.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "metallb.io",
    version = "v1beta1",
    kind = "BGPPeer",
    plural = "bgppeers",
    singular = "bgppeer",
    namespaced,
    storage = false,
    deprecated = "metallb.io/v1beta1 BGPPeer is deprecated, use metallb.io/v1beta2 BGPPeer",
    status = "BGPPeerStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "BGPPeer is a router to speak BGP with.",
    printcolumn(name = "Address", type_ = "string", json_path = ".spec.peerAddress"),
    printcolumn(name = "ASN", type_ = "string", json_path = ".spec.peerASN"),
    printcolumn(name = "BFD Profile", type_ = "string", json_path = ".spec.bfdProfile"),
    printcolumn(name = "Multi Hops", type_ = "string", json_path = ".spec.ebgpMultiHop")
)]
#[serde(rename_all = "camelCase", remote = "Self")]
#[schemars(extend("required" = ["myASN", "peerASN", "peerAddress"]))]
#[schemars(extend("x-kubernetes-validations" = rules::peer_v1beta1()))]
pub struct BGPPeerSpec {
    /// AS number of our end of the session.
    #[serde(default, rename = "myASN", skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0, max = 4_294_967_295u32), extend("format" = "int64"))]
    pub my_asn: i64,

    /// AS number of the peer.
    #[serde(default, rename = "peerASN", skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0, max = 4_294_967_295u32), extend("format" = "int64"))]
    pub peer_asn: i64,

    /// Address of the peer.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(extend("x-kubernetes-validations" = rules::ip_address("peerAddress")))]
    pub peer_address: String,

    /// Our address of the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::ip_address("sourceAddress")))]
    pub source_address: Option<String>,

    /// TCP port of the peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 16384), extend("format" = "int32"))]
    pub peer_port: Option<i64>,

    /// BGP hold time as a duration (90s): 0s, or at least 3s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::hold_time()))]
    pub hold_time: Option<String>,

    /// BGP keepalive time as a duration (30s), not more than holdTime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::keepalive_time()))]
    pub keepalive_time: Option<String>,

    /// BGP identifier to present, an IPv4 address.
    #[serde(default, rename = "routerID", skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::router_id()))]
    pub router_id: Option<String>,

    /// Selectors of the nodes that connect to the peer; one match is enough. Without any, all nodes do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub node_selectors: Vec<NodeSelector>,

    /// TCP-MD5 key of the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,

    /// Name of the BFDProfile of the BFD session that guards this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bfd_profile: Option<String>,

    /// Whether the eBGP peer is more than one hop away.
    #[serde(default, skip_serializing_if = "is_false")]
    pub ebgp_multi_hop: bool,
}
super::spec_may_be_absent!(BGPPeerSpec);

/// A selector of nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeSelector {
    /// Labels that must have exactly these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,

    /// Requirements on labels; all of them must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<MatchExpression>,
}

/// A requirement on a label.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["key", "operator", "values"]))]
pub struct MatchExpression {
    /// Label key.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub key: String,

    /// In, NotIn, Exists or DoesNotExist.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub operator: String,

    /// Values for In and NotIn.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1))]
    pub values: Vec<String>,
}

/// Nothing yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BGPPeerStatus {}
