use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{fragments, is_false, is_zero, rules};

/// A router to speak BGP with, and how.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "metallb.io",
    version = "v1beta2",
    kind = "BGPPeer",
    plural = "bgppeers",
    singular = "bgppeer",
    namespaced,
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
#[schemars(extend("required" = ["myASN"]))]
#[schemars(extend("x-kubernetes-validations" = rules::peer_v1beta2()))]
pub struct BGPPeerSpec {
    /// AS number of our end of the session.
    #[serde(default, rename = "myASN", skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0, max = 4_294_967_295u32), extend("format" = "int64"))]
    pub my_asn: i64,

    /// AS number of the peer. Either this or dynamicASN.
    #[serde(default, rename = "peerASN", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_295u32), extend("format" = "int64"))]
    pub peer_asn: Option<i64>,

    /// Which AS numbers the peer may have, when peerASN does not say it: internal (ours) or external (any other).
    #[serde(default, rename = "dynamicASN", skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["internal", "external"]))]
    pub dynamic_asn: Option<String>,

    /// AS number to show to this peer instead of myASN.
    #[serde(default, rename = "localASN", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_294_967_295u32), extend("format" = "int64"))]
    pub local_asn: Option<i64>,

    /// Address of the peer. Either this or interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::ip_address("peerAddress")))]
    pub peer_address: Option<String>,

    /// Interface on which the peer is found by its router advertisements (an unnumbered session). Either this or
    /// peerAddress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,

    /// Our address of the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::ip_address("sourceAddress")))]
    pub source_address: Option<String>,

    /// TCP port of the peer.
    #[serde(default = "bgp_port", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16384), extend("format" = "int32"))]
    pub peer_port: Option<i64>,

    /// BGP hold time as a duration (90s): 0s, or at least 3s. Three times keepaliveTime when only that is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::hold_time()))]
    pub hold_time: Option<String>,

    /// BGP keepalive time as a duration (30s), not more than holdTime. A third of holdTime when only that is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::keepalive_time()))]
    pub keepalive_time: Option<String>,

    /// How long to wait between attempts to connect, as a duration (10s), in whole seconds from 1 to 65535.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::connect_time()))]
    pub connect_time: Option<String>,

    /// BGP identifier to present, an IPv4 address.
    #[serde(default, rename = "routerID", skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::router_id()))]
    pub router_id: Option<String>,

    /// Selectors of the nodes that connect to the peer; one match is enough. Without any, all nodes do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "fragments::label_selectors")]
    pub node_selectors: Vec<LabelSelector>,

    /// TCP-MD5 key of the session. Not together with passwordSecret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,

    /// Secret of type kubernetes.io/basic-auth, in the namespace of this resource, whose key "password" holds the
    /// TCP-MD5 key. Not together with password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_secret: Option<SecretReference>,

    /// Name of the BFDProfile of the BFD session that guards this one; without it there is no BFD session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bfd_profile: Option<String>,

    /// Whether to offer graceful restart (RFC 4724). Cannot be changed.
    #[serde(default, skip_serializing_if = "is_false")]
    #[schemars(extend("x-kubernetes-validations" = json!([
        {"rule": "self == oldSelf", "message": "enableGracefulRestart cannot be changed after creation"},
    ])))]
    pub enable_graceful_restart: bool,

    /// Whether the eBGP peer is more than one hop away.
    #[serde(default, skip_serializing_if = "is_false")]
    pub ebgp_multi_hop: bool,

    /// VRF of the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vrf: Option<String>,

    /// Has no effect. Deprecated.
    #[serde(default, rename = "disableMP")]
    pub disable_mp: bool,

    /// Whether to exchange IPv4 and IPv6 routes over this one session, instead of those of its own family only.
    #[serde(default)]
    pub dual_stack_address_family: bool,
}
super::spec_may_be_absent!(BGPPeerSpec);

/// A Secret by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct SecretReference {
    /// Name of the Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,

    /// Namespace of the Secret; must be that of this resource when given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// Nothing yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BGPPeerStatus {}

impl Default for BGPPeerSpec {
    fn default() -> Self {
        Self {
            my_asn: 0,
            peer_asn: None,
            dynamic_asn: None,
            local_asn: None,
            peer_address: None,
            interface: None,
            source_address: None,
            peer_port: bgp_port(),
            hold_time: None,
            keepalive_time: None,
            connect_time: None,
            router_id: None,
            node_selectors: Vec::new(),
            password: None,
            password_secret: None,
            bfd_profile: None,
            enable_graceful_restart: false,
            ebgp_multi_hop: false,
            vrf: None,
            disable_mp: false,
            dual_stack_address_family: false,
        }
    }
}

#[allow(clippy::unnecessary_wraps)] // the default of an Option field
fn bgp_port() -> Option<i64> {
    Some(179)
}
