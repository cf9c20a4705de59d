use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::rules;

/// Addresses that are kept back: for one Service, whether it exists or not, or from everybody.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "patina.io",
    version = "v1beta1",
    kind = "AddressReservation",
    plural = "addressreservations",
    singular = "addressreservation",
    namespaced,
    derive = "PartialEq",
    derive = "Default",
    doc = "AddressReservation keeps addresses of pools back: for one Service by name, or from everybody.",
    printcolumn(name = "Addresses", type_ = "string", json_path = ".spec.addresses"),
    printcolumn(name = "For Namespace", type_ = "string", json_path = ".spec.service.namespace"),
    printcolumn(name = "For Service", type_ = "string", json_path = ".spec.service.name"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".spec.reason")
)]
#[serde(rename_all = "camelCase", remote = "Self")]
#[schemars(extend("required" = ["addresses"]))]
pub struct AddressReservationSpec {
    /// The addresses. Each entry is an address (192.0.2.1), a CIDR (192.0.2.0/30) or a range (192.0.2.10-192.0.2.20), of
    /// either family. They need not be in a pool now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "rules::reserved_addresses")]
    pub addresses: Vec<String>,

    /// The Service that they are kept for: it gets the lowest that is free, however often it is deleted and created
    /// again; nobody else gets one. Without it nobody at all does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ReservedFor>,

    /// Why, for whoever asks for one of these addresses in vain.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub reason: String,
}
super::spec_may_be_absent!(AddressReservationSpec);

/// A Service by name; it need not exist.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["name", "namespace"]))]
#[schemars(extend("x-kubernetes-validations" = json!([
    {"rule": "self.name != '' && self.namespace != ''", "message": "namespace and name must both be set"},
])))]
pub struct ReservedFor {
    /// Namespace of the Service.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 63))]
    pub namespace: String,

    /// Name of the Service.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 63))]
    pub name: String,
}
