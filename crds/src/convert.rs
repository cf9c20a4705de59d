//! BGPPeer between its two versions, without loss: what the conversion webhook answers with.
//!
//! v1beta1 has no words for some fields of v1beta2. On the way down they go into the annotation [`KEPT_V1BETA2`], as JSON; on
//! the way up they come back and the annotation goes. So a client that knows v1beta1 only may read, edit and write a
//! peer, and what it never saw is still there. Three rules:
//!
//! - **The edit of the old client wins.** v1beta1 has a field `peerASN` where v1beta2 may say `dynamicASN` instead; likewise
//!   `peerAddress` and `interface`, `password` and `passwordSecret`. The annotation says what v1beta2 had in the first of
//!   each pair ([`ALTERNATIVES`]); when the old client wrote something else there, the kept second goes.
//! - **Nonsense in the annotation costs the nonsense only.** Whoever edits it by hand loses the entries that v1beta2 could not
//!   have had. The API server does not validate what a conversion returns, so an entry of a wrong type would else be
//!   stored and break every reader.
//! - **Absent stays absent.** A timer that is not there does not become `0s` (which would mean: never give the peer up).
//!
//! The other way round there is one value: port 0, which v1beta1 allows for "the default" and v1beta2 does not. It becomes
//! 179, and [`KEPT_V1BETA1`] remembers it, so that a tool that compares what it wrote with what it reads finds it again.

use serde_json::{Map, Value, json};

use crate::config::duration;
use crate::types::{BGPPeerSpec, GROUP};

/// Annotation on a v1beta1 object: the fields of v1beta2 that v1beta1 cannot say.
pub const KEPT_V1BETA2: &str = "patina.io/v1beta2-fields";
/// Annotation on a v1beta2 object: the values of v1beta1 that v1beta2 cannot say.
pub const KEPT_V1BETA1: &str = "patina.io/v1beta1-fields";

/// The fields of v1beta1's spec; they mean the same in v1beta2.
const COMMON: [&str; 12] = [
    "bfdProfile",
    "ebgpMultiHop",
    "holdTime",
    "keepaliveTime",
    "myASN",
    "nodeSelectors",
    "password",
    "peerASN",
    "peerAddress",
    "peerPort",
    "routerID",
    "sourceAddress",
];

/// Fields of v1beta2 that the API server fills in when they are absent. These values are not worth an annotation on every
/// peer that is read in v1beta1.
const DEFAULTS: [(&str, Value); 2] =
    [("disableMP", Value::Bool(false)), ("dualStackAddressFamily", Value::Bool(false))];

/// A common field, and the field of v1beta2 that excludes it.
const ALTERNATIVES: [(&str, &str); 3] =
    [("peerASN", "dynamicASN"), ("peerAddress", "interface"), ("password", "passwordSecret")];

/// Why an object cannot be converted. The object is as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// Not a BGPPeer.
    #[error("kind: found {found}; only a BGPPeer of {GROUP} has two versions")]
    Kind {
        /// What it is.
        found: String,
    },
    /// The object is of a version that is not known.
    #[error("apiVersion: found {found}; allowed are {GROUP}/v1beta1 and {GROUP}/v1beta2")]
    Version {
        /// What it says.
        found: String,
    },
    /// A version is asked for that is not known.
    #[error("desiredAPIVersion: found {found:?}; allowed are {GROUP}/v1beta1 and {GROUP}/v1beta2")]
    Desired {
        /// What is asked for.
        found: String,
    },
    /// A part that every object has as a map is something else.
    #[error("{field}: found {found}; allowed is a map")]
    Shape {
        /// Which part.
        field: &'static str,
        /// What stands there.
        found: String,
    },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    V1beta1,
    V1beta2,
}

impl Version {
    fn of(api_version: &str) -> Option<Self> {
        match api_version.strip_prefix(GROUP)?.strip_prefix('/')? {
            "v1beta1" => Some(Self::V1beta1),
            "v1beta2" => Some(Self::V1beta2),
            _ => None,
        }
    }
}

/// The same BGPPeer in the version `desired_api_version` (`metallb.io/v1beta1` or `metallb.io/v1beta2`). Of the metadata
/// nothing changes but the two annotations of this module, as the API server demands of a conversion.
///
/// # Errors
/// The object is no BGPPeer, a version is unknown, or `metadata` or `spec` is no map.
pub fn convert(object: &Value, desired_api_version: &str) -> Result<Value, ConvertError> {
    let field = |name: &str| object.get(name).unwrap_or(&Value::Null);
    if field("kind") != "BGPPeer" {
        return Err(ConvertError::Kind { found: shown(field("kind")) });
    }
    let from = field("apiVersion")
        .as_str()
        .and_then(Version::of)
        .ok_or_else(|| ConvertError::Version { found: shown(field("apiVersion")) })?;
    let to = Version::of(desired_api_version)
        .ok_or_else(|| ConvertError::Desired { found: desired_api_version.to_owned() })?;
    if from == to {
        return Ok(object.clone());
    }
    let mut metadata = map("metadata", field("metadata"))?;
    let mut spec = match field("spec") {
        Value::Null => None,
        spec => Some(map("spec", spec)?),
    };
    match to {
        Version::V1beta1 => to_v1beta1(&mut metadata, spec.as_mut()),
        Version::V1beta2 => to_v1beta2(&mut metadata, spec.as_mut()),
    }
    let mut out = map("object", object)?;
    out.insert("apiVersion".to_owned(), Value::from(desired_api_version));
    out.insert("metadata".to_owned(), Value::Object(metadata));
    if let Some(spec) = spec {
        out.insert("spec".to_owned(), Value::Object(spec));
    }
    Ok(Value::Object(out))
}

fn to_v1beta1(metadata: &mut Map<String, Value>, spec: Option<&mut Map<String, Value>>) {
    let port_was_zero =
        take_annotation(metadata, KEPT_V1BETA1).is_some_and(|kept| kept.get("peerPort") == Some(&json!(0)));
    // Left over from somewhere else: on a v1beta2 object it means nothing.
    take_annotation(metadata, KEPT_V1BETA2);
    let Some(spec) = spec else { return };
    let mut kept: Map<String, Value> = spec
        .iter()
        .filter(|(key, _)| !COMMON.contains(&key.as_str()))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    spec.retain(|key, _| COMMON.contains(&key.as_str()));
    for (common, other) in ALTERNATIVES {
        // null: it was absent. A password is a secret; whether there was one is not.
        let value = spec.get(common).filter(|value| common != "password" || **value == "");
        let absent = !spec.contains_key(common);
        if kept.contains_key(other) && (absent || value.is_some()) {
            kept.insert(common.to_owned(), value.cloned().unwrap_or(Value::Null));
        }
        // v1beta1 requires these two; a client could not write back what it read without them.
        if absent && let Some(placeholder) = placeholder(common) {
            kept.insert(common.to_owned(), Value::Null);
            spec.insert(common.to_owned(), placeholder);
        }
    }
    for (key, default) in &DEFAULTS {
        if kept.get(*key) == Some(default) {
            kept.remove(*key);
        } else {
            kept.entry(*key).or_insert(Value::Null);
        }
    }
    if port_was_zero && spec.get("peerPort").is_none_or(|port| *port == 179) {
        spec.insert("peerPort".to_owned(), json!(0));
    }
    put_annotation(metadata, KEPT_V1BETA2, kept);
}

fn to_v1beta2(metadata: &mut Map<String, Value>, spec: Option<&mut Map<String, Value>>) {
    let kept = take_annotation(metadata, KEPT_V1BETA2).unwrap_or_default();
    take_annotation(metadata, KEPT_V1BETA1);
    let Some(spec) = spec else { return };
    for (key, default) in DEFAULTS.into_iter().filter(|(key, _)| !kept.contains_key(*key)) {
        spec.entry(key).or_insert(default);
    }
    let mut dropped = Vec::new();
    for (common, other) in ALTERNATIVES {
        let Some(before) = kept.get(common) else { continue };
        let shown = if before.is_null() { placeholder(common) } else { Some(before.clone()) };
        let now = spec.get(common);
        if now == shown.as_ref() {
            if before.is_null() {
                spec.remove(common);
            }
        } else if now.is_some_and(|now| !is_unset(now)) {
            // The old client wrote something there: that is what it wants, and the alternative excludes it.
            dropped.push(other);
        }
    }
    for (key, value) in kept {
        let ours = !COMMON.contains(&key.as_str()) && !dropped.contains(&key.as_str());
        // A field that the old client wrote itself (it should not know it) counts more than our memory of it.
        if ours && !spec.contains_key(&key) && is_possible(&key, &value) {
            spec.insert(key, value);
        }
    }
    if spec.get("peerPort") == Some(&json!(0)) {
        spec.insert("peerPort".to_owned(), json!(179));
        put_annotation(metadata, KEPT_V1BETA1, Map::from_iter([("peerPort".to_owned(), json!(0))]));
    }
}

/// What v1beta1 demands where v1beta2 may have nothing; Go's clients write the same.
fn placeholder(field: &str) -> Option<Value> {
    match field {
        "peerASN" => Some(json!(0)),
        "peerAddress" => Some(json!("")),
        _ => None,
    }
}

/// What Go's types mean by "not set".
fn is_unset(value: &Value) -> bool {
    value.is_null() || *value == 0 || *value == ""
}

/// Whether v1beta2 could have had this value: anybody can edit an annotation. Fields that we do not know pass; the API
/// server drops those that it does not know either.
fn is_possible(key: &str, value: &Value) -> bool {
    let decodes = |spec: Value| serde_json::from_value::<BGPPeerSpec>(spec).is_ok();
    let allowed = match key {
        "dynamicASN" => *value == "internal" || *value == "external",
        "connectTime" => value.as_str().and_then(duration::parse).is_some(),
        "localASN" => value.as_i64().is_some_and(|asn| (1..=i64::from(u32::MAX)).contains(&asn)),
        _ => !value.is_null(),
    };
    allowed && decodes(json!({key: value}))
}

/// Removes an annotation. `None`: it was not there, or is not a JSON map.
fn take_annotation(metadata: &mut Map<String, Value>, name: &str) -> Option<Map<String, Value>> {
    let annotations = metadata.get_mut("annotations")?.as_object_mut()?;
    let text = annotations.remove(name)?;
    // The API server has no empty maps of annotations.
    if annotations.is_empty() {
        metadata.remove("annotations");
    }
    match serde_json::from_str(text.as_str()?) {
        Ok(Value::Object(map)) => Some(map),
        _ => None,
    }
}

fn put_annotation(metadata: &mut Map<String, Value>, name: &str, kept: Map<String, Value>) {
    if kept.is_empty() {
        return;
    }
    let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
    if annotations.is_null() {
        *annotations = json!({});
    }
    if let Some(annotations) = annotations.as_object_mut() {
        // Sorted, so that the same peer always has the same annotation.
        let mut kept = Value::Object(kept);
        kept.sort_all_objects();
        annotations.insert(name.to_owned(), Value::String(kept.to_string()));
    }
}

fn map(field: &'static str, value: &Value) -> Result<Map<String, Value>, ConvertError> {
    value.as_object().cloned().ok_or_else(|| ConvertError::Shape { field, found: shown(value) })
}

fn shown(value: &Value) -> String {
    if value.is_null() { "nothing".to_owned() } else { value.to_string() }
}
