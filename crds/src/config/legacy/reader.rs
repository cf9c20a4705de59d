//! A strict reader of a YAML tree: every key is known or an error, every value has the type that Go's decoder would
//! have taken, and nothing stops at the first mistake.

use std::collections::BTreeSet;

use crate::config::ObjectRef;
use crate::config::draft::Problems;
use crate::suggest::closest;
use crate::yaml::{Node, Scalar, ScalarValue, entry_path};

/// A map at a path, of which each known key is taken once; [`MapReader::finish`] reports the rest.
pub(super) struct MapReader<'a> {
    object: &'a ObjectRef,
    path: String,
    entries: &'a [(String, Node)],
    known: Vec<&'static str>,
}

impl<'a> MapReader<'a> {
    /// `None` (and an error) when `node` is no map. Nothing at all reads as a map without entries.
    pub(super) fn new(
        object: &'a ObjectRef,
        path: impl Into<String>,
        node: &'a Node,
        problems: &mut Problems,
    ) -> Option<Self> {
        let path = path.into();
        let entries: &[(String, Node)] = match node {
            Node::Map(entries) => entries,
            other if other.is_null() => &[],
            other => {
                let message = format!("found {}; allowed is a map (key: value)", other.describe());
                problems.unreadable(object, or_top(&path), message);
                return None;
            }
        };
        let mut seen = BTreeSet::new();
        for (key, _) in entries {
            if !seen.insert(key.as_str()) {
                problems.error(
                    object,
                    entry_path(&path, key),
                    format!("the key {key:?} stands twice; name it once"),
                );
            }
        }
        Some(Self { object, path, entries, known: Vec::new() })
    }

    /// Path of a key.
    pub(super) fn at(&self, key: &str) -> String {
        entry_path(&self.path, key)
    }

    /// All entries, for maps whose keys are names.
    pub(super) fn entries(&self) -> &'a [(String, Node)] {
        self.entries
    }

    /// Whether the key has a value that is not null.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|(k, node)| k == key && !node.is_null())
    }

    fn take(&mut self, key: &'static str) -> Option<&'a Node> {
        self.known.push(key);
        // Of a doubled key, which is an error already, the last counts, as in most readers of YAML.
        self.entries.iter().rev().find(|(k, _)| k == key).map(|(_, node)| node).filter(|node| !node.is_null())
    }

    /// A text; plain numbers and booleans are texts too, as in Go.
    pub(super) fn string(&mut self, key: &'static str, problems: &mut Problems) -> Option<String> {
        let node = self.take(key)?;
        string(self.object, &self.at(key), node, problems)
    }

    /// A whole number from `least` to `most`.
    pub(super) fn int(
        &mut self,
        key: &'static str,
        least: i64,
        most: i64,
        problems: &mut Problems,
    ) -> Option<i64> {
        let node = self.take(key)?;
        let value = match node {
            Node::Scalar(Scalar { value: ScalarValue::Int(n), .. }) => {
                i64::try_from(*n).ok().filter(|n| (least..=most).contains(n))
            }
            _ => None,
        };
        if value.is_none() {
            let hint = match node {
                Node::Scalar(Scalar { value: ScalarValue::Text, text }) if text.parse::<i64>().is_ok() => {
                    " without quotes"
                }
                _ => "",
            };
            let message =
                format!("found {}; allowed is a whole number from {least} to {most}{hint}", node.describe());
            problems.unreadable(self.object, self.at(key), message);
        }
        value
    }

    /// A boolean, YAML 1.1's words included.
    pub(super) fn boolean(&mut self, key: &'static str, problems: &mut Problems) -> Option<bool> {
        let node = self.take(key)?;
        let value = match node {
            Node::Scalar(Scalar { value: ScalarValue::Bool(value), .. }) => Some(*value),
            Node::Scalar(Scalar { value: ScalarValue::Text, text }) => match text.as_str() {
                "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some(true),
                "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Some(false),
                _ => None,
            },
            _ => None,
        };
        if value.is_none() {
            let message = format!("found {}; allowed is true or false", node.describe());
            problems.unreadable(self.object, self.at(key), message);
        }
        value
    }

    /// The entries of a list, with their paths.
    pub(super) fn list(&mut self, key: &'static str, problems: &mut Problems) -> Vec<(String, &'a Node)> {
        let path = self.at(key);
        self.known.push(key);
        let mut out = Vec::new();
        // A doubled key is an error already; what its lists hold is looked at all the same.
        for (_, node) in self.entries.iter().filter(|(k, node)| k == key && !node.is_null()) {
            match node {
                Node::List(list) => out.extend(list),
                other => {
                    let message =
                        format!("found {}; allowed is a list (lines that begin with -)", other.describe());
                    problems.unreadable(self.object, path.clone(), message);
                }
            }
        }
        out.into_iter().enumerate().map(|(i, node)| (format!("{path}[{i}]"), node)).collect()
    }

    /// A list of texts.
    pub(super) fn strings(&mut self, key: &'static str, problems: &mut Problems) -> Vec<String> {
        let list = self.list(key, problems);
        // What is no text stays in the list as an empty one, so that the paths of the others stay true.
        list.into_iter()
            .map(|(path, node)| string(self.object, &path, node, problems).unwrap_or_default())
            .collect()
    }

    /// The value of a key that holds a map.
    pub(super) fn map(&mut self, key: &'static str, problems: &mut Problems) -> Option<MapReader<'a>> {
        let node = self.take(key)?;
        MapReader::new(self.object, self.at(key), node, problems)
    }

    /// Reports every key that nobody asked for.
    pub(super) fn finish(self, problems: &mut Problems) {
        for (key, _) in self.entries.iter().filter(|(key, _)| !self.known.contains(&key.as_str())) {
            let meant = closest(key, self.known.iter().copied());
            let advice = match meant {
                Some(known) => format!("did you mean {known:?}?"),
                None => format!("known here are {}", self.known.join(", ")),
            };
            let field = entry_path(&self.path, key);
            problems.error(self.object, field, format!("unknown key {key:?}; {advice}"));
            // That the right one is missing follows from that.
            if let Some(meant) = meant.filter(|meant| !self.has(meant)) {
                problems.silence(self.object, self.at(meant));
            }
        }
    }
}

fn string(object: &ObjectRef, path: &str, node: &Node, problems: &mut Problems) -> Option<String> {
    match node {
        Node::Scalar(scalar) if scalar.value == ScalarValue::Null => None,
        Node::Scalar(scalar) => Some(scalar.text.clone()),
        other => {
            problems.unreadable(object, path, format!("found {}; allowed is a text", other.describe()));
            None
        }
    }
}

/// The document itself has no path.
fn or_top(path: &str) -> &str {
    if path.is_empty() { "data.config" } else { path }
}
