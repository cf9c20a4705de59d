use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a speaker saw: a host that is none of the speakers uses an address that the Service has.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "patina.io",
    version = "v1beta1",
    kind = "AddressConflict",
    plural = "addressconflicts",
    singular = "addressconflict",
    namespaced,
    derive = "PartialEq",
    derive = "Default",
    doc = "AddressConflict says that a foreign host uses the address of a Service. Written by the speakers, one per node and \
           address, as long as it is so.",
    printcolumn(name = "Address", type_ = "string", json_path = ".spec.address"),
    printcolumn(name = "Taken By", type_ = "string", json_path = ".spec.mac"),
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.node"),
    printcolumn(name = "Interface", type_ = "string", json_path = ".spec.interface"),
    printcolumn(name = "Service Namespace", type_ = "string", json_path = ".spec.service.namespace"),
    printcolumn(name = "Service", type_ = "string", json_path = ".spec.service.name"),
    printcolumn(name = "In Use", type_ = "boolean", json_path = ".spec.inUse"),
    printcolumn(name = "Seen", type_ = "date", json_path = ".spec.firstSeen")
)]
#[serde(rename_all = "camelCase", remote = "Self")]
pub struct AddressConflictSpec {
    /// The address.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 45))]
    pub address: String,

    /// Name of the node whose speaker saw it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 253))]
    pub node: String,

    /// The interface of that node on which it was seen.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub interface: String,

    /// MAC address of the host that uses it, as 02:00:00:00:00:01.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 17))]
    pub mac: String,

    /// The Service that has the address; of several the first by namespace and name.
    #[serde(default)]
    pub service: ConflictService,

    /// When the speaker saw it first.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(extend("format" = "date-time"))]
    pub first_seen: String,

    /// The speaker announces the address, and defends it; clients reach either of the two. False: the other host answered when
    /// the speaker asked whether the address is free, and it is not announced; the controller then gives the Service another
    /// one, if the pool chose this one and it was never in use.
    #[serde(default, skip_serializing_if = "super::is_false")]
    pub in_use: bool,
}
super::spec_may_be_absent!(AddressConflictSpec);

/// A Service by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConflictService {
    /// Namespace of the Service.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 63))]
    pub namespace: String,

    /// Name of the Service.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 63))]
    pub name: String,
}
