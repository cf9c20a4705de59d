//! On which interfaces of this node a Service is announced.

use std::collections::{BTreeMap, BTreeSet};

use patina_crds::config::L2Advertisement;
use patina_crds::net::Family;

use super::WhyNot;
use crate::view::InterfaceView;

/// The interfaces that advertisements select: the union of their lists, all as soon as one of them lists none (api 4.8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Selection {
    All,
    Named(BTreeSet<String>),
}

impl Selection {
    /// The union over the advertisements that match node and Service.
    pub(super) fn of<'a>(advertisements: impl IntoIterator<Item = &'a L2Advertisement>) -> Self {
        let mut names = BTreeSet::new();
        for advertisement in advertisements {
            if advertisement.interfaces.is_empty() {
                return Self::All;
            }
            names.extend(advertisement.interfaces.iter().cloned());
        }
        Self::Named(names)
    }

    pub(super) fn is_all(&self) -> bool {
        *self == Self::All
    }

    /// The selected interfaces on which addresses of the family can be announced; never an empty list.
    pub(super) fn usable<'v>(
        &self,
        family: Family,
        interfaces: &'v [InterfaceView],
    ) -> Result<Vec<&'v InterfaceView>, WhyNot> {
        let mut usable = Vec::new();
        let mut unusable = BTreeMap::new();
        for interface in interfaces.iter().filter(|interface| self.selects(&interface.name)) {
            match interface.unusable(family) {
                None => usable.push(interface),
                Some(why) => {
                    unusable.insert(interface.name.clone(), why);
                }
            }
        }
        match self {
            _ if !usable.is_empty() => Ok(usable),
            Self::Named(names) if unusable.is_empty() => Err(WhyNot::InterfaceMissing(names.clone())),
            _ => Err(WhyNot::NoUsableInterface { family, interfaces: unusable }),
        }
    }

    /// Whether it is one of them.
    pub(super) fn selects(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Named(names) => names.contains(name),
        }
    }
}
