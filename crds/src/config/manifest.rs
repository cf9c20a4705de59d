//! Manifests, as people keep them in files, into [`Resources`]: what `kubectl apply` and the API server would make of
//! them, without either.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::LazyLock;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::{ConfigError, LegacyConfigMap, ObjectRef, Resources, SecretView};
use crate::suggest::closest;
use crate::types::schema::{FieldError, admit_with_errors};
use crate::types::{self, Crd, GROUP, OUR_GROUP};
use crate::yaml::{self, Limits, Node, Scalar, ScalarValue};

/// What to look for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Namespace of objects that name none, and the one that the configuration is read from.
    pub namespace: String,
    /// Name of the legacy ConfigMap.
    pub legacy_name: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            namespace: crate::keys::DEFAULT_NAMESPACE.to_owned(),
            legacy_name: crate::keys::LEGACY_CONFIG.to_owned(),
        }
    }
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Manifest {
    /// The configuration in it.
    pub resources: Resources,
    /// What was passed over, and what is deprecated; one sentence each.
    pub notes: Vec<String>,
}

/// What is wrong in one document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestError {
    /// Number of the document, from 1.
    pub document: usize,
    /// The object, once it is known which.
    pub object: Option<ObjectRef>,
    /// Path of the field; empty for the document as a whole.
    pub field: String,
    /// What was found and what is allowed.
    pub message: String,
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "document {}: ", self.document)?;
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

/// Every error of a text, never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestErrors(pub Vec<ManifestError>);

impl fmt::Display for ManifestErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for ManifestErrors {}

/// All that could be read, beside all that could not.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// The objects that can be judged, and notes on the others.
    pub manifest: Manifest,
    /// What is wrong in the documents.
    pub errors: Vec<ManifestError>,
    /// What the errors leave out of the manifest.
    pub gaps: Gaps,
    /// What is no configuration; there is a note about each.
    pub others: Vec<Other>,
}

/// What is not in a [`Manifest`] although somebody wrote it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gaps {
    /// Objects of which nothing is there.
    objects: BTreeSet<ObjectRef>,
    /// Fields about which an error has been told, or that were meant by an unknown field.
    fields: BTreeSet<(ObjectRef, String)>,
    /// A document of which not even the kind is known.
    anything: bool,
}

impl Gaps {
    /// Whether the error only follows from what is not there.
    #[must_use]
    pub fn explain(&self, error: &ConfigError) -> bool {
        if self.fields.contains(&(error.object.clone(), error.field.clone())) {
            return true;
        }
        let Some(missing) = &error.missing else { return false };
        let any_name = |name: &str| name.is_empty() || name == NO_NAME;
        let same = |lost: &ObjectRef| {
            (&lost.kind, &lost.namespace) == (&missing.kind, &missing.namespace)
                && (any_name(&lost.name) || any_name(&missing.name) || lost.name == missing.name)
        };
        self.anything || self.objects.iter().any(same)
    }

    /// Adds those of another text of the same configuration.
    pub fn extend(&mut self, other: Self) {
        self.objects.extend(other.objects);
        self.fields.extend(other.fields);
        self.anything |= other.anything;
    }
}

/// Stands for the name of an object that has none.
const NO_NAME: &str = "(no name)";

/// The kinds there are, made once: a file has many objects.
static CRDS: LazyLock<Vec<Crd>> = LazyLock::new(|| types::crds().unwrap_or_default());

/// An object that is no configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Other {
    /// Number of its document, from 1.
    pub document: usize,
    /// As written; the namespace is empty when it names none.
    pub object: ObjectRef,
    /// As written; empty for the kinds of our own that only programs write.
    pub api_version: String,
    /// The whole.
    pub value: Value,
    /// The note about it, for those who do not look at it.
    pub note: String,
}

/// Reads YAML (or JSON) of any number of documents. Objects that are not configuration are passed over with a note.
///
/// # Errors
/// All of them: documents that are not YAML, objects that the API server would refuse, each with the number of its document.
pub fn read(text: &str, options: &Options) -> Result<Manifest, ManifestErrors> {
    let reading = read_all(text, options, Limits::OF_AN_OBJECT);
    if reading.errors.is_empty() { Ok(reading.manifest) } else { Err(ManifestErrors(reading.errors)) }
}

/// As [`read`], with all that is good beside all that is not.
#[must_use]
pub fn read_all(text: &str, options: &Options, limits: Limits) -> Reading {
    let mut reader = Reader { options, reading: Reading::default(), document: 0 };
    reader.reading.manifest.resources.namespace.clone_from(&options.namespace);
    for document in yaml::documents_within(text, limits) {
        reader.document += 1;
        match document {
            Ok(node) if node.is_null() => {}
            Ok(node) => reader.object(&node),
            Err(error) => reader.unknown("", error.to_string()),
        }
    }
    reader.reading
}

struct Reader<'a> {
    options: &'a Options,
    reading: Reading,
    document: usize,
}

impl Reader<'_> {
    fn error(&mut self, object: Option<&ObjectRef>, field: &str, message: impl Into<String>) {
        let (document, object) = (self.document, object.cloned());
        self.reading.errors.push(ManifestError {
            document,
            object,
            field: field.to_owned(),
            message: message.into(),
        });
    }

    /// An error by which an object is not read at all.
    fn refuse(&mut self, object: &ObjectRef, field: &str, message: impl Into<String>) {
        self.error(Some(object), field, message);
        self.reading.gaps.objects.insert(object.clone());
    }

    /// An error by which nobody knows what was there.
    fn unknown(&mut self, field: &str, message: impl Into<String>) {
        self.error(None, field, message);
        self.reading.gaps.anything = true;
    }

    fn note(&mut self, object: &ObjectRef, message: &str) {
        self.reading.manifest.notes.push(format!("document {}: {object}: {message}", self.document));
    }

    fn pass_over(&mut self, object: ObjectRef, api_version: &str, value: Value, why: &str) {
        self.note(&object, why);
        let note = self.reading.manifest.notes.last().cloned().unwrap_or_default();
        let (document, api_version) = (self.document, api_version.to_owned());
        self.reading.others.push(Other { document, object, api_version, value, note });
    }

    fn object(&mut self, node: &Node) {
        let Node::Map(_) = node else {
            let found = node.describe();
            self.unknown("", format!("found {found}; allowed is an object (apiVersion, kind, metadata)"));
            return;
        };
        let (api_version, kind) = (text(node, "apiVersion"), text(node, "kind"));
        let (Some(api_version), Some(kind)) = (api_version, kind) else {
            for (name, value) in [("apiVersion", api_version), ("kind", kind)] {
                if value.is_none() {
                    self.unknown(name, "the field is missing or no text; it is needed");
                }
            }
            return;
        };
        if let (true, Some(Node::List(items))) = (kind.ends_with("List"), get(node, "items")) {
            items.iter().for_each(|item| self.object(item));
            return;
        }
        let metadata = get(node, "metadata");
        let source = ObjectRef {
            kind: kind.to_owned(),
            namespace: metadata
                .and_then(|m| text(m, "namespace"))
                .unwrap_or(&self.options.namespace)
                .to_owned(),
            name: metadata.and_then(|m| text(m, "name")).unwrap_or(NO_NAME).to_owned(),
        };
        match (api_version, kind) {
            ("v1", "ConfigMap") if source.name == self.options.legacy_name => self.config_map(&source, node),
            ("v1", "Secret") if source.namespace == self.options.namespace => self.secret(&source, node),
            _ => match api_version.split_once('/') {
                Some((group @ (GROUP | OUR_GROUP), version)) => self.resource(&source, group, version, node),
                _ => {
                    // It may be cluster-scoped: only what it says itself counts.
                    let namespace =
                        metadata.and_then(|m| text(m, "namespace")).unwrap_or_default().to_owned();
                    let object = ObjectRef { namespace, ..source };
                    self.pass_over(object, api_version, to_json(node), "is not configuration, passed over");
                }
            },
        }
    }

    fn config_map(&mut self, source: &ObjectRef, node: &Node) {
        if source.namespace != self.options.namespace {
            let namespace = format!("is not in the namespace {:?}, passed over", self.options.namespace);
            self.note(source, &namespace);
            return;
        }
        let Some(map) = self.decode::<ConfigMap>(source, node) else { return };
        if self.reading.manifest.resources.legacy.is_some() {
            self.error(Some(source), "metadata.name", "there is another ConfigMap of this name above");
            return;
        }
        self.reading.manifest.resources.legacy = Some(LegacyConfigMap {
            namespace: source.namespace.clone(),
            name: source.name.clone(),
            data: map.data.unwrap_or_default().remove(crate::keys::LEGACY_CONFIG),
        });
    }

    fn secret(&mut self, source: &ObjectRef, node: &Node) {
        let Some(secret) = self.decode::<Secret>(source, node) else { return };
        let plain = secret.string_data.unwrap_or_default().remove("password");
        let bytes = secret.data.unwrap_or_default().remove("password");
        let password = plain.or_else(|| bytes.map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned()));
        let view = SecretView { type_: secret.type_.unwrap_or_else(|| "Opaque".to_owned()), password };
        self.reading.manifest.resources.secrets.insert(source.name.clone(), view);
    }

    /// An object whose schema we do not carry.
    fn decode<T: DeserializeOwned>(&mut self, source: &ObjectRef, node: &Node) -> Option<T> {
        match serde_json::from_value(to_json(node)) {
            Ok(object) => Some(object),
            Err(error) => {
                self.refuse(source, "", format!("cannot be read: {error}"));
                None
            }
        }
    }

    fn resource(&mut self, source: &ObjectRef, group: &str, version: &str, node: &Node) {
        let Some(crd) = CRDS.iter().find(|crd| crd.group == group && crd.kind == source.kind) else {
            let message = if source.kind == "AddressPool" {
                "AddressPool is gone since MetalLB 0.14.2; write an IPAddressPool, and an L2Advertisement or a \
                 BGPAdvertisement for it"
                    .to_owned()
            } else {
                let known: Vec<&str> =
                    CRDS.iter().filter(|crd| crd.group == group).map(|crd| crd.kind.as_str()).collect();
                let advice = match closest(&source.kind, known.iter().copied()) {
                    Some(kind) => format!("did you mean {kind}?"),
                    None => format!("known are {}", known.join(", ")),
                };
                format!("unknown kind {:?} of {group}; {advice}", source.kind)
            };
            self.refuse(source, "kind", message);
            // Which kind was meant is a guess.
            self.reading.gaps.anything = true;
            return;
        };
        let versions =
            || crd.object.pointer("/spec/versions").and_then(Value::as_array).into_iter().flatten();
        let name = |v: &Value| v.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let Some(found) = versions().find(|v| name(v) == version) else {
            let known: Vec<String> = versions().map(|v| format!("{group}/{}", name(v))).collect();
            let message = format!(
                "\"{group}/{version}\" is no version of {}; allowed is {}",
                source.kind,
                known.join(" or ")
            );
            self.refuse(source, "apiVersion", message);
            return;
        };
        let warning = found.get("deprecationWarning").and_then(Value::as_str).map(str::to_owned);
        let schema = with_metadata(found.pointer("/schema/openAPIV3Schema").unwrap_or(&Value::Null));
        if let Some(warning) = warning {
            self.note(source, &warning);
        }
        let (value, mut errors) = admit_with_errors(&schema, node, "");
        errors.extend(name_error(&source.name));
        if errors.iter().any(|error| error.loses) {
            self.reading.gaps.objects.insert(source.clone());
        } else {
            self.store(source, value);
        }
        for FieldError { field, message, meant, .. } in errors {
            self.error(Some(source), &field, message);
            let told = [Some(field), meant].into_iter().flatten();
            self.reading.gaps.fields.extend(told.map(|field| (source.clone(), field)));
        }
    }

    fn store(&mut self, source: &ObjectRef, mut value: Value) {
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert("namespace".to_owned(), Value::String(source.namespace.clone()));
            // Text in a schema without formats; nobody here looks at the times of a manifest.
            metadata.retain(|key, _| matches!(key.as_str(), "name" | "namespace" | "labels" | "annotations"));
        }
        let resources = &mut self.reading.manifest.resources;
        let stored = match source.kind.as_str() {
            "IPAddressPool" => push(&mut resources.pools, value),
            "L2Advertisement" => push(&mut resources.l2_advertisements, value),
            "BGPAdvertisement" => push(&mut resources.bgp_advertisements, value),
            // What v1beta1 cannot say may stand in an annotation.
            "BGPPeer" => crate::convert::convert(&value, "metallb.io/v1beta2")
                .map_err(serde::de::Error::custom)
                .and_then(|value| push(&mut resources.peers, value)),
            "BFDProfile" => push(&mut resources.bfd_profiles, value),
            "Community" => push(&mut resources.communities, value),
            "AddressReservation" => push(&mut resources.reservations, value),
            _ => {
                let why = "is written by the controller and the speakers, passed over";
                self.pass_over(source.clone(), "", value, why);
                Ok(())
            }
        };
        if let Err(error) = stored {
            self.refuse(source, "", format!("cannot be read: {error}"));
        }
    }
}

fn push<T: DeserializeOwned>(list: &mut Vec<T>, value: Value) -> Result<(), serde_json::Error> {
    serde_json::from_value(value).map(|object| list.push(object))
}

/// CRDs leave metadata to the API server; this is what it allows people to write.
fn with_metadata(schema: &Value) -> Value {
    let mut schema = schema.clone();
    let text = || json!({"type": "string"});
    let texts = || json!({"type": "object", "additionalProperties": {"type": "string"}});
    let mut properties: Map<String, Value> =
        ["name", "generateName", "namespace", "uid", "resourceVersion", "selfLink"]
            .into_iter()
            .chain(["creationTimestamp", "deletionTimestamp"])
            .map(|name| (name.to_owned(), text()))
            .collect();
    properties.insert("labels".to_owned(), texts());
    properties.insert("annotations".to_owned(), texts());
    properties.insert("generation".to_owned(), json!({"type": "integer"}));
    properties.insert("deletionGracePeriodSeconds".to_owned(), json!({"type": "integer"}));
    properties.insert("finalizers".to_owned(), json!({"type": "array", "items": {"type": "string"}}));
    let references = ["apiVersion", "kind", "name", "uid"].map(|name| (name.to_owned(), text()));
    let mut reference: Map<String, Value> = references.into_iter().collect();
    reference.insert("controller".to_owned(), json!({"type": "boolean"}));
    reference.insert("blockOwnerDeletion".to_owned(), json!({"type": "boolean"}));
    let references = json!({"type": "array", "items": {"type": "object", "properties": reference}});
    properties.insert("ownerReferences".to_owned(), references);
    if let Some(known) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        known.insert("metadata".to_owned(), json!({"type": "object", "properties": properties}));
    }
    schema
}

/// RFC 1123 subdomain, as the API server wants the names of custom resources.
pub(super) fn is_name(name: &str) -> bool {
    let label = |label: &str| {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        !label.is_empty() && label.chars().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

fn name_error(name: &str) -> Option<FieldError> {
    let message = if name == NO_NAME || name.is_empty() {
        "the field is missing; it is needed".to_owned()
    } else if !is_name(name) {
        format!("{name:?} is no name; allowed are lower case letters, digits, - and . (at most 253)")
    } else {
        return None;
    };
    Some(FieldError { field: "metadata.name".to_owned(), message, loses: name == NO_NAME, meant: None })
}

fn get<'a>(node: &'a Node, key: &str) -> Option<&'a Node> {
    match node {
        Node::Map(entries) => entries.iter().find(|(k, _)| k == key).map(|(_, node)| node),
        _ => None,
    }
}

fn text<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    match get(node, key) {
        Some(Node::Scalar(Scalar { value: ScalarValue::Text, text })) => Some(text),
        _ => None,
    }
}

fn to_json(node: &Node) -> Value {
    match node {
        Node::List(list) => Value::Array(list.iter().map(to_json).collect()),
        Node::Map(entries) => entries.iter().map(|(key, node)| (key.clone(), to_json(node))).collect(),
        Node::Scalar(scalar) => match scalar.value {
            ScalarValue::Null => Value::Null,
            ScalarValue::Bool(value) => Value::Bool(value),
            ScalarValue::Int(n) => i64::try_from(n).map_or(Value::String(scalar.text.clone()), Value::from),
            ScalarValue::Float(n) => Value::from(n),
            ScalarValue::Text => Value::String(scalar.text.clone()),
        },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn reading_is_total(text in "(?s).{0,200}") {
            let _ = read(&text, &Options::default());
        }

        #[test]
        fn objects_of_any_shape_are_read_or_refused(
            kind in "(IPAddressPool|L2Advertisement|BGPPeer|ConfigMap|Secret|List|Community)",
            version in "(v1|metallb.io/v1beta1|metallb.io/v1beta2)",
            spec in "([a-z\\[\\]{},:\"0-9 -]|\n  ){0,60}",
        ) {
            let text = format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: config}}\nspec:\n  {spec}\n");
            if let Ok(manifest) = read(&text, &Options::default()) {
                let _ = super::super::build(&manifest.resources);
            }
        }
    }
}
