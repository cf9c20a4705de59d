//! Label selectors: compiled, or refused; they match what Kubernetes' documentation says, and two that are called disjoint
//! match nothing together.
#![no_main]

use std::collections::BTreeMap;

use arbitrary::{Arbitrary, Result, Unstructured};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use libfuzzer_sys::fuzz_target;
use patina_crds::selector::{Labels, Selector, any_matches, disjoint};

/// Words of which some are no keys, no values and no operators; few, so that keys meet.
const KEYS: [&str; 8] = ["a", "b", "rack", "example.com/rack", "", "/", "a b", "Example.com/x"];
const VALUES: [&str; 7] = ["a", "b", "c", "", "A.b-9", "a b", "-"];
const OPERATORS: [&str; 6] = ["In", "NotIn", "Exists", "DoesNotExist", "in", ""];

#[derive(Debug)]
struct Input {
    a: Vec<LabelSelector>,
    b: Vec<LabelSelector>,
    labels: Labels,
}

impl<'a> Arbitrary<'a> for Input {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let labels = labels(u)?;
        Ok(Self { a: selectors(u)?, b: selectors(u)?, labels })
    }
}

fn word(u: &mut Unstructured<'_>, known: &[&str]) -> Result<String> {
    if u.ratio(1, 8)? { u.arbitrary() } else { Ok((*u.choose(known)?).to_owned()) }
}

fn labels(u: &mut Unstructured<'_>) -> Result<BTreeMap<String, String>> {
    (0..u.int_in_range(0..=3)?).map(|_| Ok((word(u, &KEYS)?, word(u, &VALUES)?))).collect()
}

fn selectors(u: &mut Unstructured<'_>) -> Result<Vec<LabelSelector>> {
    (0..u.int_in_range(0..=3)?).map(|_| selector(u)).collect()
}

fn selector(u: &mut Unstructured<'_>) -> Result<LabelSelector> {
    let requirement = |u: &mut Unstructured<'_>| {
        let values = (0..u.int_in_range(0..=3)?).map(|_| word(u, &VALUES)).collect::<Result<Vec<_>>>()?;
        let values = (!values.is_empty() || u.arbitrary()?).then_some(values);
        Ok(LabelSelectorRequirement { key: word(u, &KEYS)?, operator: word(u, &OPERATORS)?, values })
    };
    let requirements = (0..u.int_in_range(0..=3)?).map(|_| requirement(u)).collect::<Result<Vec<_>>>()?;
    let match_labels = u.arbitrary::<bool>()?.then(|| labels(u)).transpose()?;
    Ok(LabelSelector { match_labels, match_expressions: u.arbitrary::<bool>()?.then_some(requirements) })
}

/// Word by word what Kubernetes' documentation says of a valid selector.
fn matches(selector: &LabelSelector, labels: &Labels) -> bool {
    let equal = selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    equal
        && selector.match_expressions.iter().flatten().all(|requirement| {
            let values = requirement.values.as_deref().unwrap_or_default();
            let value = labels.get(&requirement.key);
            match requirement.operator.as_str() {
                "In" => value.is_some_and(|value| values.contains(value)),
                "NotIn" => !value.is_some_and(|value| values.contains(value)),
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                other => panic!("the operator {other:?} was compiled"),
            }
        })
}

fuzz_target!(|input: Input| {
    let compile = |list: &[LabelSelector]| -> Vec<Selector> {
        let compiled = list.iter().filter_map(|selector| {
            let compiled =
                Selector::compile(selector).map_err(|error| assert!(!error.to_string().is_empty())).ok()?;
            assert_eq!(compiled.matches(&input.labels), matches(selector, &input.labels), "{compiled}");
            assert!(!compiled.to_string().is_empty());
            Some(compiled)
        });
        compiled.collect()
    };
    let (a, b) = (compile(&input.a), compile(&input.b));
    if disjoint(&a, &b) {
        assert!(disjoint(&b, &a));
        let both = any_matches(&a, &input.labels) && any_matches(&b, &input.labels);
        assert!(!both, "{a:?} and {b:?} both match {:?}", input.labels);
    }
});
