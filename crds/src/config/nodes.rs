//! Whether two lists of node selectors can choose the same node.

use std::collections::BTreeMap;

use crate::selector::{Labels, Selector, any_matches, disjoint};

/// No node has both: because no labels could satisfy both, or because none of the nodes that are known does. What is not
/// known counts as shared.
pub(super) fn apart(a: &[Selector], b: &[Selector], nodes: Option<&BTreeMap<String, Labels>>) -> bool {
    let both = |labels: &Labels| any_matches(a, labels) && any_matches(b, labels);
    disjoint(a, b) || nodes.is_some_and(|nodes| !nodes.values().any(both))
}
