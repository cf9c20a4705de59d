//! BGP communities and their aliases.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::Community;
use super::draft::{AliasDraft, Problems};

/// Why a text is not a community.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommunityError {
    /// Neither `a:b` nor `large:a:b:c`.
    #[error("{0:?} is not a community; allowed are 64500:100 and large:64500:1:2")]
    Shape(String),
    /// A part of `a:b` above 65535.
    #[error(
        "{0:?}: {1:?} is not a number from 0 to 65535; a community of larger numbers is written large:a:b:c"
    )]
    Small(String, String),
    /// A part of `large:a:b:c` above 4294967295.
    #[error("{0:?}: {1:?} is not a number from 0 to 4294967295")]
    Large(String, String),
}

impl FromStr for Community {
    type Err = CommunityError;

    fn from_str(text: &str) -> Result<Self, CommunityError> {
        let small = |part: &str| number(part).ok_or_else(|| CommunityError::Small(text.into(), part.into()));
        let large = |part: &str| number(part).ok_or_else(|| CommunityError::Large(text.into(), part.into()));
        match *text.split(':').collect::<Vec<_>>().as_slice() {
            [a, b] if !a.is_empty() && !b.is_empty() => Ok(Self::Standard(small(a)?, small(b)?)),
            ["large", a, b, c] => Ok(Self::Large(large(a)?, large(b)?, large(c)?)),
            _ => Err(CommunityError::Shape(text.to_owned())),
        }
    }
}

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Standard(a, b) => write!(f, "{a}:{b}"),
            Self::Large(a, b, c) => write!(f, "large:{a}:{b}:{c}"),
        }
    }
}

/// Digits only: no sign, no space.
fn number<N: FromStr>(text: &str) -> Option<N> {
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

/// Aliases by name. `None`: the alias exists, but its value is wrong (and reported here).
pub(super) fn build(drafts: &[AliasDraft], problems: &mut Problems) -> BTreeMap<String, Option<Community>> {
    let mut aliases: BTreeMap<String, Option<Community>> = BTreeMap::new();
    let mut first: BTreeMap<&str, &AliasDraft> = BTreeMap::new();
    for draft in drafts {
        // The ConfigMap has a map from names to values, so the entry's path is the value's path.
        let field =
            |name: &str| if draft.legacy { draft.field.clone() } else { format!("{}.{name}", draft.field) };
        if draft.name.is_empty() {
            problems.error(&draft.object, field("name"), "the alias has no name; every alias needs one");
            continue;
        }
        if let Some(other) = first.get(draft.name.as_str()) {
            let message = format!(
                "the alias {:?} is defined twice ({}: {}); an alias may have one value only",
                draft.name, other.object, other.field
            );
            problems.error(&draft.object, field("name"), message);
            continue;
        }
        first.insert(&draft.name, draft);
        let value = match draft.value.parse() {
            Ok(community) => Some(community),
            Err(error) => {
                let error: CommunityError = error;
                problems.error(&draft.object, field("value"), error.to_string());
                None
            }
        };
        aliases.insert(draft.name.clone(), value);
    }
    aliases
}
