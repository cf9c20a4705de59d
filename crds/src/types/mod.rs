//! The metallb.io API as Rust types, one file per kind.
//!
//! Three rules hold for all of them:
//! - What the schema admits must decode, whoever wrote it: numbers are `i64`, enumerations of configuration are
//!   strings, an absent `spec` is an empty one. One object that does not decode would blind a whole watch. Sense is
//!   [`crate::config::build`]'s business.
//! - Empty strings and zero numbers of optional fields mean "absent", as for the Go types that wrote them before.
//! - The schemas stay MetalLB's (a cluster can go back). [`crds`] removes what `derive` adds beside it.
#![allow(clippy::duplicated_attributes)] // clippy compares the words inside printcolumn(..) across columns

mod address_conflict;
mod address_reservation;
mod bfd_profile;
mod bgp_advertisement;
mod bgp_peer;
mod community;
mod configuration_state;
mod crd;
mod ip_address_pool;
mod l2_advertisement;
mod rules;
pub mod schema;
mod service_bgp_status;
mod service_l2_status;
pub mod v1beta1;

pub use address_conflict::{AddressConflict, AddressConflictSpec, ConflictService};
pub use address_reservation::{AddressReservation, AddressReservationSpec, ReservedFor};
pub use bfd_profile::{BFDProfile, BFDProfileSpec, BFDProfileStatus};
pub use bgp_advertisement::{BGPAdvertisement, BGPAdvertisementSpec, BGPAdvertisementStatus};
pub use bgp_peer::{BGPPeer, BGPPeerSpec, BGPPeerStatus, SecretReference};
pub use community::{Community, CommunityAlias, CommunitySpec, CommunityStatus};
pub use configuration_state::{
    ConfigurationResult, ConfigurationState, ConfigurationStateSpec, ConfigurationStateStatus,
};
pub use crd::{Crd, crds};
pub use ip_address_pool::{IPAddressPool, IPAddressPoolSpec, IPAddressPoolStatus, ServiceAllocation};
pub use l2_advertisement::{
    L2Advertisement, L2AdvertisementSpec, L2AdvertisementStatus, PreferredNodeSelector,
};
pub use service_bgp_status::{ServiceBGPStatus, ServiceBGPStatusSpec, ServiceBGPStatusStatus};
pub use service_l2_status::{InterfaceInfo, ServiceL2Status, ServiceL2StatusSpec, ServiceL2StatusStatus};

/// API group of MetalLB's kinds.
pub const GROUP: &str = "metallb.io";
/// API group of the kinds that only we have.
pub const OUR_GROUP: &str = "patina.io";

/// Lets an object without `spec` decode as one with an empty `spec`. kube's derive has no word for it; serde calls
/// `deserialize_option` on a missing field, so a type that accepts "none" there is one that may be missing. The type
/// has `#[serde(remote = "Self")]`, which makes serde's derive produce the inherent functions used here.
macro_rules! spec_may_be_absent {
    ($spec:ty) => {
        impl serde::Serialize for $spec {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                <$spec>::serialize(self, serializer)
            }
        }

        impl<'de> serde::Deserialize<'de> for $spec {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct MaybeSpec;
                impl<'de> serde::de::Visitor<'de> for MaybeSpec {
                    type Value = $spec;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("spec, an object")
                    }

                    fn visit_none<E: serde::de::Error>(self) -> Result<Self::Value, E> {
                        Ok(<$spec>::default())
                    }

                    fn visit_unit<E: serde::de::Error>(self) -> Result<Self::Value, E> {
                        Ok(<$spec>::default())
                    }

                    fn visit_some<D: serde::Deserializer<'de>>(self, d: D) -> Result<Self::Value, D::Error> {
                        <$spec>::deserialize(d)
                    }
                }
                deserializer.deserialize_option(MaybeSpec)
            }
        }
    };
}
use spec_may_be_absent;

/// For `skip_serializing_if`: a boolean whose absence means false.
#[allow(clippy::trivially_copy_pass_by_ref)] // serde calls it with a reference
fn is_false(value: &bool) -> bool {
    !*value
}

/// For `skip_serializing_if`: a number whose absence means 0.
#[allow(clippy::trivially_copy_pass_by_ref)] // serde calls it with a reference
fn is_zero(value: &i64) -> bool {
    *value == 0
}

/// Fragments of schema that schemars cannot derive.
mod fragments {
    use schemars::{Schema, SchemaGenerator, json_schema};

    /// A label selector as the API server has it: atomic for server-side apply.
    pub(super) fn label_selector(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "x-kubernetes-map-type": "atomic",
            "properties": {
                "matchExpressions": {
                    "description": "Requirements on labels; all of them must hold.",
                    "type": "array",
                    "x-kubernetes-list-type": "atomic",
                    "items": {
                        "type": "object",
                        "required": ["key", "operator"],
                        "properties": {
                            "key": {"description": "Label key.", "type": "string"},
                            "operator": {"description": "In, NotIn, Exists or DoesNotExist.", "type": "string"},
                            "values": {
                                "description": "Values for In and NotIn; empty for Exists and DoesNotExist.",
                                "type": "array",
                                "items": {"type": "string"},
                                "x-kubernetes-list-type": "atomic",
                            },
                        },
                    },
                },
                "matchLabels": {
                    "description": "Labels that must have exactly these values.",
                    "type": "object",
                    "additionalProperties": {"type": "string"},
                },
            },
        })
    }

    /// A list of label selectors.
    pub(super) fn label_selectors(generator: &mut SchemaGenerator) -> Schema {
        let items = label_selector(generator);
        json_schema!({"type": "array", "items": items})
    }
}
