//! YAML written by people, read so that nothing of it is lost: the only module that knows serde_yaml.
//!
//! A [`Node`] keeps what Go's YAML decoder looks at and serde's data model drops: doubled keys, the text of a plain scalar
//! (`0123`, `1e3`), and merge keys (`<<`). What a stranger writes costs no more than [`Limits`] say, however its anchors
//! repeat each other: bytes read, values and text made of them, over all documents of a text. serde_yaml itself allows 128
//! levels of nesting.

use std::cell::Cell;
use std::collections::HashSet;
use std::fmt;

use serde::de::{self, Deserialize, DeserializeSeed, MapAccess, SeqAccess, Visitor};

/// What a text may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Larger input is refused before it is looked at.
    pub bytes: usize,
    /// Values after anchors are expanded.
    pub values: usize,
    /// Bytes of text (keys and scalars) after anchors are expanded.
    pub text: usize,
}

impl Limits {
    /// What the API server would store at most, for texts that anybody may have written: no object above 1.5 MiB, and no
    /// ConfigMap above 1. A megabyte of configuration has a hundred thousand values.
    pub const OF_AN_OBJECT: Self = Self { bytes: 1 << 20, values: 1 << 18, text: 4 << 20 };
    /// For files that a user names on a command line, such as all Services of a large cluster.
    pub const OF_A_FILE: Self = Self { bytes: 1 << 28, values: 1 << 24, text: 1 << 30 };
}

/// A YAML value.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// Anything but a list and a map.
    Scalar(Scalar),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping in its order, doubled keys included; keys that are no scalars are empty strings.
    Map(Vec<(String, Node)>),
}

/// A scalar: what it resolves to, and its text.
#[derive(Clone, Debug, PartialEq)]
pub struct Scalar {
    /// Resolved by YAML 1.2's core rules.
    pub value: ScalarValue,
    /// As it was written, without quotes.
    pub text: String,
}

/// What a scalar is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ScalarValue {
    /// Nothing, `~`, `null`.
    Null,
    /// `true`, `false`.
    Bool(bool),
    /// A whole number.
    Int(i128),
    /// A number.
    Float(f64),
    /// Anything else, and everything in quotes. Whether there were quotes is not known: serde_yaml does not tell, so YAML
    /// 1.1's `yes` and `off` are texts here where kubectl, without quotes, reads booleans.
    Text,
}

impl Node {
    /// What it is, for a sentence.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::List(_) => "a list".to_owned(),
            Self::Map(_) => "a map".to_owned(),
            Self::Scalar(scalar) => match scalar.value {
                ScalarValue::Null => "nothing".to_owned(),
                ScalarValue::Bool(_) => format!("the boolean {}", scalar.text),
                ScalarValue::Int(_) | ScalarValue::Float(_) => format!("the number {}", scalar.text),
                ScalarValue::Text => format!("the text {:?}", scalar.text),
            },
        }
    }

    /// Whether it is null.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Scalar(Scalar { value: ScalarValue::Null, .. }))
    }
}

/// Path of an entry of the map at `base` (empty: the document), for a person to find it: keys that are not words in quotes.
#[must_use]
pub fn entry_path(base: &str, key: &str) -> String {
    let word = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    let key = if !key.is_empty() && key.chars().all(word) { key.to_owned() } else { format!("{key:?}") };
    if base.is_empty() { key } else { format!("{base}.{key}") }
}

/// Why a text is not YAML that we read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum YamlError {
    /// More bytes (first) than allowed (second).
    #[error("{0} bytes are too many; allowed is {1}")]
    TooLarge(usize, usize),
    /// Not YAML; the message has line and column.
    #[error("not valid YAML: {0}")]
    Syntax(String),
}

/// [`documents_within`] the limits of an object.
#[must_use]
pub fn documents(text: &str) -> Vec<Result<Node, YamlError>> {
    documents_within(text, Limits::OF_AN_OBJECT)
}

/// The documents of a text. Each stands for itself, except that after a syntax error there is no next one: where it
/// would begin is not known. An empty text has no document.
#[must_use]
pub fn documents_within(text: &str, limits: Limits) -> Vec<Result<Node, YamlError>> {
    if text.len() > limits.bytes {
        return vec![Err(YamlError::TooLarge(text.len(), limits.bytes))];
    }
    // libyaml takes it for an indentation of the first line.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    // Two passes over each document: the first finds the shape, the second takes the text of each scalar, which serde gives
    // only to those who ask for a string.
    let (shapes, texts) =
        (serde_yaml::Deserializer::from_str(text), serde_yaml::Deserializer::from_str(text));
    let budget = Budget { limits, values: Cell::new(limits.values), text: Cell::new(limits.text) };
    let mut out = Vec::new();
    for (first, second) in shapes.zip(texts) {
        let node = Shape(&budget)
            .deserialize(first)
            .and_then(|shape| WithText(&shape, &budget).deserialize(second))
            .map_err(|error| YamlError::Syntax(error.to_string()));
        // A stream without any document: serde_yaml's one error for it.
        if node == Err(YamlError::Syntax("EOF while parsing a value".to_owned())) {
            break;
        }
        let failed = node.is_err();
        out.push(node.map(merged));
        if failed {
            break;
        }
    }
    out
}

/// What is left of the limits.
struct Budget {
    limits: Limits,
    values: Cell<usize>,
    text: Cell<usize>,
}

impl Budget {
    fn value<E: de::Error>(&self) -> Result<(), E> {
        let left = self.values.get().checked_sub(1);
        let allowed = self.limits.values;
        self.values.set(left.ok_or_else(|| {
            E::custom(format!("too many values after anchors are expanded; allowed are {allowed}"))
        })?);
        Ok(())
    }

    fn text<E: de::Error>(&self, text: &str) -> Result<(), E> {
        let left = self.text.get().checked_sub(text.len());
        let allowed = self.limits.text;
        self.text.set(left.ok_or_else(|| {
            E::custom(format!("too much text after anchors are expanded; allowed are {allowed} bytes"))
        })?);
        Ok(())
    }
}

/// First pass: resolved scalars, no text yet.
struct Shape<'a>(&'a Budget);

impl<'de> DeserializeSeed<'de> for Shape<'_> {
    type Value = Node;

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        self.0.value()?;
        deserializer.deserialize_any(self)
    }
}

fn scalar<E>(value: ScalarValue) -> Result<Node, E> {
    Ok(Node::Scalar(Scalar { value, text: String::new() }))
}

impl<'de> Visitor<'de> for Shape<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value without a tag of its own")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        scalar(ScalarValue::Null)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        scalar(ScalarValue::Null)
    }

    fn visit_bool<E>(self, v: bool) -> Result<Node, E> {
        scalar(ScalarValue::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Node, E> {
        scalar(ScalarValue::Int(v.into()))
    }

    fn visit_u64<E>(self, v: u64) -> Result<Node, E> {
        scalar(ScalarValue::Int(v.into()))
    }

    fn visit_i128<E>(self, v: i128) -> Result<Node, E> {
        scalar(ScalarValue::Int(v))
    }

    fn visit_u128<E>(self, v: u128) -> Result<Node, E> {
        scalar(i128::try_from(v).map_or(ScalarValue::Text, ScalarValue::Int))
    }

    fn visit_f64<E>(self, v: f64) -> Result<Node, E> {
        scalar(ScalarValue::Float(v))
    }

    fn visit_str<E>(self, _: &str) -> Result<Node, E> {
        scalar(ScalarValue::Text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut out = Vec::new();
        while let Some(node) = seq.next_element_seed(Shape(self.0))? {
            out.push(node);
        }
        Ok(Node::List(out))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut out = Vec::new();
        while let Some(key) = map.next_key_seed(Shape(self.0))? {
            if !matches!(key, Node::Scalar(_)) {
                return Err(de::Error::custom("a key must be a scalar, not a list or a map"));
            }
            out.push((String::new(), map.next_value_seed(Shape(self.0))?));
        }
        Ok(Node::Map(out))
    }
}

/// Second pass: the same shape, with the text of every scalar.
struct WithText<'a>(&'a Node, &'a Budget);

impl<'de> DeserializeSeed<'de> for WithText<'_> {
    type Value = Node;

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        match self.0 {
            // A document without content gives no text at all.
            Node::Scalar(Scalar { value: ScalarValue::Null, .. }) => {
                de::IgnoredAny::deserialize(deserializer)?;
                scalar(ScalarValue::Null)
            }
            Node::Scalar(scalar) => {
                let text = String::deserialize(deserializer)?;
                self.1.text(&text)?;
                Ok(Node::Scalar(Scalar { value: scalar.value, text }))
            }
            Node::List(_) => deserializer.deserialize_seq(self),
            Node::Map(_) => deserializer.deserialize_map(self),
        }
    }
}

impl<'de> Visitor<'de> for WithText<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the same value as in the first pass")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let Node::List(shapes) = self.0 else { return Err(de::Error::custom("no list in the first pass")) };
        let mut out = Vec::with_capacity(shapes.len());
        for shape in shapes {
            out.extend(seq.next_element_seed(WithText(shape, self.1))?);
        }
        Ok(Node::List(out))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let Node::Map(shapes) = self.0 else { return Err(de::Error::custom("no map in the first pass")) };
        let mut out = Vec::with_capacity(shapes.len());
        for (_, shape) in shapes {
            let Some(key) = map.next_key::<String>()? else { break };
            self.1.text(&key)?;
            out.push((key, map.next_value_seed(WithText(shape, self.1))?));
        }
        Ok(Node::Map(out))
    }
}

/// YAML 1.1's merge keys, which Go's decoder knows: `<<: *base` brings the entries of `base` that are not given beside it.
fn merged(node: Node) -> Node {
    match node {
        Node::Scalar(_) => node,
        Node::List(list) => Node::List(list.into_iter().map(merged).collect()),
        Node::Map(entries) => {
            let (merges, mut own): (Vec<_>, Vec<_>) = entries
                .into_iter()
                .map(|(key, value)| (key, merged(value)))
                .partition(|(key, _)| key == "<<");
            if merges.is_empty() {
                return Node::Map(own);
            }
            let mut known: HashSet<String> = own.iter().map(|(key, _)| key.clone()).collect();
            let mut add_missing = |entries: Vec<(String, Node)>| {
                own.extend(entries.into_iter().filter(|(key, _)| known.insert(key.clone())));
            };
            let mut misused = Vec::new();
            for (key, value) in merges {
                match value {
                    Node::Map(entries) => add_missing(entries),
                    Node::List(maps) if maps.iter().all(|map| matches!(map, Node::Map(_))) => {
                        for map in maps {
                            if let Node::Map(entries) = map {
                                add_missing(entries);
                            }
                        }
                    }
                    other => misused.push((key, other)),
                }
            }
            own.extend(misused);
            Node::Map(own)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one(text: &str) -> Node {
        documents(text).remove(0).unwrap()
    }

    fn entry<'a>(node: &'a Node, key: &str) -> &'a Node {
        let Node::Map(entries) = node else { panic!("{node:?} is no map") };
        &entries.iter().find(|(k, _)| k == key).unwrap_or_else(|| panic!("no {key} in {node:?}")).1
    }

    #[test]
    fn scalars_keep_their_text() {
        let node = one("a: 1e3\nb: 0x10\nc: '7'\nd: no\ne: ~\nf: true\n");
        let texts: Vec<String> =
            ["a", "b", "c", "d", "e", "f"].map(|key| entry(&node, key).describe()).into();
        assert_eq!(
            texts,
            [
                "the number 1e3",
                "the number 0x10",
                "the text \"7\"",
                "the text \"no\"",
                "nothing",
                "the boolean true"
            ]
        );
    }

    #[test]
    fn doubled_keys_are_kept_and_anchors_expanded() {
        assert_eq!(one("a: 1\na: 2\n"), {
            let int = |n: i128| Node::Scalar(Scalar { value: ScalarValue::Int(n), text: n.to_string() });
            Node::Map(vec![("a".into(), int(1)), ("a".into(), int(2))])
        });
        let node = one("base: &b {x: 1, y: 2}\nuse:\n  <<: *b\n  y: 3\n");
        assert_eq!(entry(entry(&node, "use"), "y").describe(), "the number 3");
        assert_eq!(entry(entry(&node, "use"), "x").describe(), "the number 1");
    }

    #[test]
    fn several_documents_and_an_empty_one() {
        assert_eq!(documents("a: 1\n---\nb: 2\n").len(), 2);
        assert!(documents("").iter().all(|d| d.as_ref().is_ok_and(Node::is_null)));
        assert!(documents("# only a comment\n").iter().all(|d| d.as_ref().is_ok_and(Node::is_null)));
    }

    /// The one error of a text.
    fn refused(text: &str) -> String {
        let errors: Vec<String> =
            documents(text).into_iter().filter_map(Result::err).map(|error| error.to_string()).collect();
        assert_eq!(errors.len(), 1, "{errors:?}");
        errors.into_iter().next().unwrap()
    }

    #[test]
    fn bombs_are_refused() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let before = format!("*a{}", level - 1);
            bomb += &format!("a{level}: &a{level} [{}]\n", [before.as_str(); 10].join(", "));
        }
        let said = refused(&bomb);
        assert!(said.contains("repetition limit") || said.contains("too many values"), "{said}");
        let said = refused(&"[".repeat(100_000));
        assert!(said.contains("recursion limit"), "{said}");
        assert!(refused(&"a: ".repeat(100_000)).starts_with("not valid YAML"));
        let long = "x".repeat(Limits::OF_AN_OBJECT.bytes + 1);
        assert!(matches!(documents(&long)[..], [Err(YamlError::TooLarge(_, _))]));
    }

    /// Few values, each of them long: an anchor that repeats a text.
    #[test]
    fn a_long_text_is_not_repeated_without_end() {
        let said = refused(&format!("a: &a {}\nb: [{}]\n", "x".repeat(500_000), "*a,".repeat(100_000)));
        assert!(said.contains("too much text"), "{said}");
        let keys = format!("? &a {}\n: 1\n? *a\n: 2\n", "x".repeat(1000));
        assert_eq!(documents(&keys).len(), 1, "a key may be an alias");
    }

    /// Each document small enough, all of them not.
    #[test]
    fn the_limits_are_those_of_the_whole_text() {
        let document = format!("---\na: &a [{}]\nb: [{}]\n", "1,".repeat(900), "*a,".repeat(90));
        let said = refused(&document.repeat(10));
        assert!(said.contains("too many values"), "{said}");
        assert!(documents(&document).iter().all(Result::is_ok));
    }

    #[test]
    fn merging_large_maps_takes_no_square_of_time() {
        let entries: String = (0..30_000).map(|n| format!("  k{n}: 1\n")).collect();
        let node = one(&format!("base: &b\n{entries}use:\n  <<: *b\n  own: 2\n"));
        let Node::Map(merged) = entry(&node, "use") else { panic!("no map") };
        assert_eq!(merged.len(), 30_001);
    }

    proptest! {
        #[test]
        fn reading_is_total(text in "(?s).{0,200}") {
            let _ = documents(&text);
        }

        #[test]
        fn reading_yaml_like_text_is_total(text in "([a-z<*&!|>{}\\[\\],:#'\"\\-]|\n| |[0-9]){0,80}") {
            let _ = documents(&text);
        }
    }
}
