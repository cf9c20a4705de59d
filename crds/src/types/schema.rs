//! Checks YAML against a structural schema as the API server does under strict field validation: for files, which no API
//! server has seen yet. CEL rules and patterns are not run; [`crate::config::build`] knows what they say.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::suggest::closest;
use crate::yaml::{Node, Scalar, ScalarValue, entry_path};

/// What is wrong with a field: its path and a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// `spec.addresses[1]`
    pub field: String,
    /// What was found and what is allowed.
    pub message: String,
    /// Whether something that was meant is not in the value any more, so that nothing can be said of the whole.
    pub loses: bool,
    /// For an unknown field: the path of the field that was probably meant.
    pub meant: Option<String>,
}

/// The JSON that the API server would store, without defaults; nulls are dropped. Every error, not just the first.
///
/// # Errors
/// All fields that are unknown, missing, doubled, of the wrong type or out of bounds.
pub fn admit(schema: &Value, node: &Node, path: &str) -> Result<Value, Vec<FieldError>> {
    let (value, errors) = admit_with_errors(schema, node, path);
    if errors.is_empty() { Ok(value) } else { Err(errors) }
}

/// [`admit`] for those who go on after errors: the value holds all that could be kept.
#[must_use]
pub fn admit_with_errors(schema: &Value, node: &Node, path: &str) -> (Value, Vec<FieldError>) {
    let mut errors = Vec::new();
    let value = Admission { errors: &mut errors }.value(schema, node, path);
    (value, errors)
}

struct Admission<'a> {
    errors: &'a mut Vec<FieldError>,
}

impl Admission<'_> {
    /// The value stays, and is wrong.
    fn wrong(&mut self, field: &str, message: String) {
        self.errors.push(FieldError { field: field.to_owned(), message, loses: false, meant: None });
    }

    /// There is no value.
    fn lost(&mut self, field: &str, message: String) {
        self.errors.push(FieldError { field: field.to_owned(), message, loses: true, meant: None });
    }

    fn value(&mut self, schema: &Value, node: &Node, path: &str) -> Value {
        let value = match (schema.get("type").and_then(Value::as_str), node) {
            (_, node) if node.is_null() => return Value::Null,
            (Some("object"), Node::Map(entries)) => self.object(schema, entries, path),
            (Some("array"), Node::List(list)) => self.array(schema, list, path),
            (Some("boolean"), Node::Scalar(scalar)) => boolean(scalar).map(Value::Bool),
            (Some("integer"), Node::Scalar(Scalar { value: ScalarValue::Int(n), .. })) => {
                i64::try_from(*n).ok().map(Value::from)
            }
            (Some("string"), Node::Scalar(Scalar { value: ScalarValue::Text, text })) => {
                Some(Value::String(text.clone()))
            }
            _ => None,
        };
        let Some(value) = value else {
            let allowed = match schema.get("type").and_then(Value::as_str) {
                Some("object") => "a map (key: value)",
                Some("array") => "a list (lines that begin with -)",
                Some("boolean") => "true or false",
                Some("integer") => "a whole number",
                _ if matches!(node, Node::Scalar(_)) => "a text; put it in quotes",
                _ => "a text",
            };
            self.lost(path, format!("found {}; allowed is {allowed}", node.describe()));
            return Value::Null;
        };
        self.bounds(schema, &value, path);
        value
    }

    fn object(&mut self, schema: &Value, entries: &[(String, Node)], path: &str) -> Option<Value> {
        let none = Map::new();
        let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&none);
        let any = schema.get("additionalProperties");
        let mut out = Map::new();
        let mut seen = BTreeSet::new();
        for (key, node) in entries {
            let field = entry_path(path, key);
            if !seen.insert(key) {
                self.wrong(&field, format!("the key {key:?} stands twice; name it once"));
            }
            let Some(schema) = properties.get(key).or(any) else {
                let known = properties.keys().map(String::as_str);
                let meant = closest(key, known.clone());
                let advice = match meant {
                    Some(known) => format!("did you mean {known:?}?"),
                    None if properties.is_empty() => "no fields are known here".to_owned(),
                    None => format!("known here are {}", known.collect::<Vec<_>>().join(", ")),
                };
                let message = format!("unknown field {key:?}; {advice}");
                let meant = meant.map(|meant| entry_path(path, meant));
                self.errors.push(FieldError { field, message, loses: false, meant });
                continue;
            };
            let value = self.value(schema, node, &field);
            if !value.is_null() {
                out.insert(key.clone(), value);
            }
        }
        for key in
            schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
        {
            // A field that is there with a wrong value is reported as that.
            if !entries.iter().any(|(k, node)| k == key && !node.is_null()) {
                self.lost(&entry_path(path, key), "the field is missing; it is needed".to_owned());
            }
        }
        Some(Value::Object(out))
    }

    fn array(&mut self, schema: &Value, list: &[Node], path: &str) -> Option<Value> {
        let items = schema.get("items").unwrap_or(&Value::Null);
        let mut out = Vec::with_capacity(list.len());
        for (i, node) in list.iter().enumerate() {
            let field = format!("{path}[{i}]");
            if node.is_null() {
                self.lost(&field, "found nothing; every entry of a list needs a value".to_owned());
            } else {
                out.push(self.value(items, node, &field));
            }
        }
        Some(Value::Array(out))
    }

    fn bounds(&mut self, schema: &Value, value: &Value, path: &str) {
        if let Some(n) = value.as_i64() {
            let bound = |name| schema.get(name).and_then(Value::as_i64);
            let (least, most) = match schema.get("format").and_then(Value::as_str) {
                Some("int32") => (i64::from(i32::MIN), i64::from(i32::MAX)),
                _ => (i64::MIN, i64::MAX),
            };
            let (least, most) = (bound("minimum").unwrap_or(least), bound("maximum").unwrap_or(most));
            if !(least..=most).contains(&n) {
                self.wrong(path, format!("{n} is not allowed; allowed is {least} to {most}"));
            }
        }
        if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
            && !allowed.contains(value)
        {
            let allowed: Vec<&str> = allowed.iter().filter_map(Value::as_str).collect();
            self.wrong(path, format!("{value} is not allowed; allowed are {}", allowed.join(", ")));
        }
        if let Some(list) = value.as_array()
            && let Some(most) = schema.get("maxItems").and_then(Value::as_u64)
            && (list.len() as u64) > most
        {
            self.wrong(path, format!("{} entries are too many; allowed are at most {most}", list.len()));
        }
        // The API server counts Unicode code points.
        if let Some(count) = value.as_str().map(|text| text.chars().count())
            && let Some(most) = schema.get("maxLength").and_then(Value::as_u64)
            && (count as u64) > most
        {
            self.wrong(path, format!("a text of {count} characters is too long; allowed are at most {most}"));
        }
        if let Some(list) = value.as_array()
            && let Some(least) = schema.get("minItems").and_then(Value::as_u64)
            && (list.len() as u64) < least
        {
            self.wrong(path, format!("{} entries are too few; needed are at least {least}", list.len()));
        }
    }
}

/// YAML 1.1's words too: kubectl reads them as booleans.
fn boolean(scalar: &Scalar) -> Option<bool> {
    match (scalar.value, scalar.text.as_str()) {
        (ScalarValue::Bool(value), _) => Some(value),
        (ScalarValue::Text, "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON") => Some(true),
        (ScalarValue::Text, "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF") => Some(false),
        _ => None,
    }
}
