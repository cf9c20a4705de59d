//! Label selectors, compiled once and matched often.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// Where a selector looks for labels: whoever keeps thousands of them keeps them in less than a map.
pub trait LabelSet {
    /// The label's value, if there is one of this key.
    fn value(&self, key: &str) -> Option<&str>;
}

impl LabelSet for Labels {
    fn value(&self, key: &str) -> Option<&str> {
        self.get(key).map(String::as_str)
    }
}

/// A validated label selector. All requirements must hold; none means "everything".
/// Equal selectors have equal requirements, in whatever order they were written.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector {
    requirements: BTreeSet<Requirement>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Requirement {
    In(String, BTreeSet<String>),
    NotIn(String, BTreeSet<String>),
    Exists(String),
    DoesNotExist(String),
}

/// Why a selector is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// Unknown operator.
    #[error("operator {0:?} is unknown; allowed are In, NotIn, Exists, DoesNotExist")]
    Operator(String),
    /// `In` and `NotIn` need values.
    #[error("operator {0} on key {1:?} needs at least one value")]
    MissingValues(String, String),
    /// `Exists` and `DoesNotExist` take none.
    #[error("operator {0} on key {1:?} takes no values")]
    UnexpectedValues(String, String),
    /// No object can have such a label.
    #[error(
        "{0:?} is no label key; allowed are letters, digits, - _ and . (at most 63), after a domain and / or without"
    )]
    Key(String),
    /// No label can have such a value.
    #[error("{0:?} is no label value; allowed are letters, digits, - _ and . (at most 63)")]
    Value(String),
}

impl Selector {
    /// Compiles an API selector.
    ///
    /// # Errors
    /// The first requirement that Kubernetes itself would refuse.
    pub fn compile(selector: &LabelSelector) -> Result<Self, SelectorError> {
        let mut requirements = BTreeSet::new();
        for (key, value) in selector.match_labels.iter().flatten() {
            check(key, [value])?;
            requirements.insert(Requirement::In(key.clone(), BTreeSet::from([value.clone()])));
        }
        for expression in selector.match_expressions.iter().flatten() {
            let key = expression.key.clone();
            let values: BTreeSet<String> = expression.values.iter().flatten().cloned().collect();
            let operator = expression.operator.as_str();
            let requirement = match (operator, values.is_empty()) {
                ("In", false) => Requirement::In(key, values),
                ("NotIn", false) => Requirement::NotIn(key, values),
                ("Exists", true) => Requirement::Exists(key),
                ("DoesNotExist", true) => Requirement::DoesNotExist(key),
                ("In" | "NotIn", true) => return Err(SelectorError::MissingValues(operator.to_owned(), key)),
                ("Exists" | "DoesNotExist", false) => {
                    return Err(SelectorError::UnexpectedValues(operator.to_owned(), key));
                }
                _ => return Err(SelectorError::Operator(operator.to_owned())),
            };
            check(&expression.key, expression.values.iter().flatten())?;
            requirements.insert(requirement);
        }
        Ok(Self { requirements })
    }

    /// Whether these labels satisfy every requirement.
    #[must_use]
    pub fn matches(&self, labels: &impl LabelSet) -> bool {
        self.requirements.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => labels.value(key).is_some_and(|v| values.contains(v)),
            Requirement::NotIn(key, values) => labels.value(key).is_none_or(|v| !values.contains(v)),
            Requirement::Exists(key) => labels.value(key).is_some(),
            Requirement::DoesNotExist(key) => labels.value(key).is_none(),
        })
    }

    /// No requirement at all: matches everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }
}

/// Key and values as Kubernetes allows them on objects: a selector with others would match nothing for ever.
fn check<'a>(key: &str, values: impl IntoIterator<Item = &'a String>) -> Result<(), SelectorError> {
    let (domain, name) = key.rsplit_once('/').map_or((None, key), |(domain, name)| (Some(domain), name));
    let subdomain = |domain: &str| {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let label =
            |l: &str| !l.is_empty() && l.chars().all(inner) && !l.starts_with('-') && !l.ends_with('-');
        domain.len() <= 253 && domain.split('.').all(label)
    };
    if name.is_empty() || !is_label_value(name) || !domain.is_none_or(subdomain) {
        return Err(SelectorError::Key(key.to_owned()));
    }
    match values.into_iter().find(|value| !is_label_value(value)) {
        Some(value) => Err(SelectorError::Value(value.clone())),
        None => Ok(()),
    }
}

/// Empty, or up to 63 of `[-A-Za-z0-9_.]` that begin and end with a letter or digit.
fn is_label_value(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    text.len() <= 63 && text.chars().all(inner) && edge(text.chars().next()) && edge(text.chars().last())
}

/// `selectors` are alternatives (OR); an empty list means "everything", as in every MetalLB resource.
#[must_use]
pub fn any_matches(selectors: &[Selector], labels: &impl LabelSet) -> bool {
    selectors.is_empty() || selectors.iter().any(|selector| selector.matches(labels))
}

/// Whether no object can satisfy both lists of alternatives, whatever its labels. `false` when it is not certain.
#[must_use]
pub fn disjoint(a: &[Selector], b: &[Selector]) -> bool {
    !a.is_empty() && !b.is_empty() && a.iter().all(|a| b.iter().all(|b| a.contradicts(b)))
}

impl Selector {
    /// Whether some requirement of one rules out some requirement of the other.
    fn contradicts(&self, other: &Self) -> bool {
        self.requirements.iter().any(|a| other.requirements.iter().any(|b| a.excludes(b) || b.excludes(a)))
    }
}

impl Requirement {
    fn excludes(&self, other: &Self) -> bool {
        use Requirement::{DoesNotExist, Exists, In, NotIn};
        match (self, other) {
            (In(a, these), In(b, those)) => a == b && these.is_disjoint(those),
            (In(a, these), NotIn(b, those)) => a == b && these.is_subset(those),
            (In(a, _) | Exists(a), DoesNotExist(b)) => a == b,
            _ => false,
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("<everything>");
        }
        for (i, requirement) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            let list =
                |values: &BTreeSet<String>| values.iter().map(String::as_str).collect::<Vec<_>>().join(",");
            match requirement {
                Requirement::In(key, values) => match (values.first(), values.len()) {
                    (Some(value), 1) => write!(f, "{key}={value}")?,
                    _ => write!(f, "{key} in ({})", list(values))?,
                },
                Requirement::NotIn(key, values) => write!(f, "{key} notin ({})", list(values))?,
                Requirement::Exists(key) => f.write_str(key)?,
                Requirement::DoesNotExist(key) => write!(f, "!{key}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn expression(key: &str, operator: &str, values: &[&str]) -> LabelSelector {
        LabelSelector {
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: key.to_owned(),
                operator: operator.to_owned(),
                values: (!values.is_empty()).then(|| values.iter().map(|v| (*v).to_owned()).collect()),
            }]),
            match_labels: None,
        }
    }

    #[test]
    fn operators_mean_what_kubernetes_means() {
        let web = labels(&[("app", "web")]);
        let none = labels(&[]);
        for (operator, values, on_web, on_none) in [
            ("In", &["web", "api"][..], true, false),
            ("NotIn", &["api"][..], true, true),
            ("NotIn", &["web"][..], false, true),
            ("Exists", &[][..], true, false),
            ("DoesNotExist", &[][..], false, true),
        ] {
            let selector = Selector::compile(&expression("app", operator, values)).unwrap();
            assert_eq!(selector.matches(&web), on_web, "{selector} on app=web");
            assert_eq!(selector.matches(&none), on_none, "{selector} on nothing");
        }
    }

    #[test]
    fn no_selector_means_everything_and_several_are_alternatives() {
        let a = Selector::compile(&expression("app", "In", &["a"])).unwrap();
        let b = Selector::compile(&expression("app", "In", &["b"])).unwrap();
        assert!(any_matches(&[], &labels(&[])));
        assert!(any_matches(&[a.clone(), b.clone()], &labels(&[("app", "b")])));
        assert!(!any_matches(&[a, b], &labels(&[("app", "c")])));
    }

    #[test]
    fn labels_that_no_object_can_have_are_refused() {
        for key in ["a", "A.b_c-9", "kubernetes.io/hostname", "x-1.example.com/y"] {
            assert!(Selector::compile(&expression(key, "Exists", &[])).is_ok(), "{key}");
        }
        for key in ["", "/", "a/", "/a", "-a", "a b", "Up.io/x", "a/b/c", &"x".repeat(64)] {
            let error = Selector::compile(&expression(key, "Exists", &[])).unwrap_err();
            assert!(matches!(error, SelectorError::Key(_)), "{key}: {error}");
        }
        assert!(Selector::compile(&expression("a", "In", &["", "b.c"])).is_ok());
        for value in ["a b", "-", "a/b", &"x".repeat(64)] {
            let error = Selector::compile(&expression("a", "In", &[value])).unwrap_err();
            assert!(matches!(error, SelectorError::Value(_)), "{value}: {error}");
        }
    }

    #[test]
    fn disjoint_only_when_certain() {
        let parse = |operator: &str, values: &[&str]| {
            vec![Selector::compile(&expression("rack", operator, values)).unwrap()]
        };
        let (a, b, ab) = (parse("In", &["a"]), parse("In", &["b"]), parse("In", &["a", "b"]));
        let (not_a, none, some) = (parse("NotIn", &["a"]), parse("DoesNotExist", &[]), parse("Exists", &[]));
        for (x, y) in [(&a, &b), (&a, &not_a), (&a, &none), (&some, &none)] {
            assert!(disjoint(x, y) && disjoint(y, x), "{x:?} {y:?}");
        }
        for (x, y) in [(&a, &ab), (&ab, &not_a), (&not_a, &none), (&a, &some), (&a, &a)] {
            assert!(!disjoint(x, y) && !disjoint(y, x), "{x:?} {y:?}");
        }
        assert!(!disjoint(&a, &[]), "no selector is every node");
        let either = [a[0].clone(), b[0].clone()];
        assert!(!disjoint(&either, &b));
        assert!(disjoint(&either, &none));
    }

    #[test]
    fn what_kubernetes_refuses_is_refused() {
        for (operator, values) in [("In", &[][..]), ("Exists", &["x"][..]), ("Near", &["x"][..])] {
            assert!(
                Selector::compile(&expression("app", operator, values)).is_err(),
                "{operator} {values:?}"
            );
        }
    }
}
