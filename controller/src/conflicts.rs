//! Addresses that a foreign host uses, as the speakers' AddressConflicts say. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use patina_controller_core::surroundings::{Conflict, InUse, UsedBy};
use patina_crds::net::AddressRange;
use patina_crds::types::AddressConflict;

/// One per address, in their order. Where several nodes see a host, the first by name is told; and where one of them had
/// announced the address, it was in use. An object without an address, or with one that cannot be read, says nothing.
#[must_use]
pub fn conflicts<'a>(objects: impl IntoIterator<Item = &'a AddressConflict>) -> Vec<InUse> {
    let mut found: BTreeMap<IpAddr, Conflict> = BTreeMap::new();
    for object in objects {
        let Ok(ip) = object.spec.address.parse() else {
            tracing::debug!(address = object.spec.address, "an AddressConflict without an address");
            continue;
        };
        // The API server's clock, as that of the condition that it is compared with is the controller's: no node's.
        let created = object.metadata.creation_timestamp.as_ref().map(|time| time.0.as_second());
        let seen = Conflict {
            mac: object.spec.mac.clone(),
            node: object.spec.node.clone(),
            before_use: created.filter(|_| !object.spec.in_use),
        };
        let told = found.entry(ip).or_insert_with(|| seen.clone());
        let before_use = told.before_use.min(seen.before_use); // None is less than any
        if seen.node < told.node {
            *told = seen;
        }
        told.before_use = before_use;
    }
    let in_use = |(ip, conflict)| InUse { range: AddressRange::single(ip), by: UsedBy::Host(conflict) };
    found.into_iter().map(in_use).collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use patina_crds::types::AddressConflictSpec;

    use super::*;

    fn seen(address: &str, node: &str, in_use: bool, created: i64) -> AddressConflict {
        let spec = AddressConflictSpec {
            address: address.to_owned(),
            node: node.to_owned(),
            mac: "02:00:00:00:00:66".to_owned(),
            in_use,
            ..AddressConflictSpec::default()
        };
        let mut object = AddressConflict::new("x", spec);
        object.metadata.creation_timestamp =
            Some(Time(k8s_openapi::jiff::Timestamp::from_second(created).unwrap()));
        object
    }

    #[test]
    fn one_per_address_and_what_one_node_used_is_in_use() {
        let objects = [
            seen("192.0.2.2", "b", false, 7),
            seen("192.0.2.2", "a", false, 9),
            seen("192.0.2.1", "a", false, 5),
            seen("192.0.2.1", "b", true, 6),
            seen("what", "b", true, 6),
            seen("", "b", true, 6),
        ];
        let shown: Vec<String> = conflicts(&objects)
            .iter()
            .map(|used| match &used.by {
                UsedBy::Host(conflict) => {
                    format!("{} {} {:?}", used.range, conflict.node, conflict.before_use)
                }
                other => format!("{other:?}"),
            })
            .collect();
        assert_eq!(shown, ["192.0.2.1/32 a None", "192.0.2.2/32 a Some(7)"]);
    }
}
