//! The CustomResourceDefinitions, from the types.

use kube::core::CustomResourceExt;
use kube::core::crd::merge_crds;
use serde_json::{Map, Value, json};

/// A CustomResourceDefinition ready for the API server.
#[derive(Clone, Debug, PartialEq)]
pub struct Crd {
    /// Kind that it defines.
    pub kind: String,
    /// Plural name, which also names its file.
    pub plural: String,
    /// The whole object, keys sorted.
    pub object: Value,
}

/// All nine, in the order of their names.
///
/// # Errors
/// A type whose schema is not JSON; the tests of this crate would have seen it.
pub fn crds() -> Result<Vec<Crd>, serde_json::Error> {
    // v1beta1 is a subset of v1beta2 with the same JSON, so `strategy: None` (the default) converts: the API server only
    // rewrites apiVersion. It prunes nothing that is stored, but a client that reads and writes v1beta1 loses what v1beta1
    // cannot say. The conversion webhook that keeps it is a later issue.
    let peers = [super::BGPPeer::crd(), super::v1beta1::BGPPeer::crd()];
    let peers =
        merge_crds(peers.to_vec(), "v1beta2").map_err(<serde_json::Error as serde::ser::Error>::custom)?;
    let mut all = [
        super::BFDProfile::crd(),
        super::BGPAdvertisement::crd(),
        peers,
        super::Community::crd(),
        super::ConfigurationState::crd(),
        super::IPAddressPool::crd(),
        super::L2Advertisement::crd(),
        super::ServiceBGPStatus::crd(),
        super::ServiceL2Status::crd(),
    ]
    .into_iter()
    .map(|crd| {
        let names = &crd.spec.names;
        let mut object = serde_json::to_value(&crd)?;
        tidy(&mut object);
        for version in
            object.pointer_mut("/spec/versions").and_then(Value::as_array_mut).into_iter().flatten()
        {
            finish_version(version, &names.kind);
        }
        Ok(Crd { kind: names.kind.clone(), plural: names.plural.clone(), object })
    })
    .collect::<Result<Vec<_>, serde_json::Error>>()?;
    all.sort_by(|a, b| a.plural.cmp(&b.plural));
    Ok(all)
}

/// Kinds whose objects may come without `spec`: all but the one that has a required field from the beginning.
const SPEC_REQUIRED: &str = "IPAddressPool";

fn finish_version(version: &mut Value, kind: &str) {
    let Some(schema) = version.pointer_mut("/schema/openAPIV3Schema").and_then(Value::as_object_mut) else {
        return;
    };
    if kind != SPEC_REQUIRED {
        schema.remove("required");
    }
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        // Optional in the schema, enforced by the API server: every object has them, so a strict reader knows them.
        properties.insert("apiVersion".to_owned(), json!({"type": "string"}));
        properties.insert("kind".to_owned(), json!({"type": "string"}));
        properties.insert("metadata".to_owned(), json!({"type": "object"}));
    }
}

/// Removes what the derives add and MetalLB's schemas do not have: `nullable`, empty lists of names, floats for bounds.
fn tidy(value: &mut Value) {
    match value {
        Value::Object(map) => {
            drop_nullable(map);
            map.retain(|key, v| !(matches!(key.as_str(), "shortNames" | "categories") && is_empty_list(v)));
            map.values_mut().for_each(tidy);
        }
        Value::Array(list) => list.iter_mut().for_each(tidy),
        Value::Number(number) => {
            // Bounds pass through f64 in JSONSchemaProps; all of ours are whole and small.
            if let Some(float) = number.as_f64().filter(|f| f.fract() == 0.0 && f.abs() < 1e15)
                && number.is_f64()
            {
                *value = Value::from(float as i64);
            }
        }
        _ => {}
    }
}

/// In a schema only (`properties.nullable` would be a field of that name).
fn drop_nullable(map: &mut Map<String, Value>) {
    if map.get("nullable").is_some_and(Value::is_boolean) {
        map.remove("nullable");
    }
}

fn is_empty_list(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty)
}
