//! UPDATEs of what is pending: grouped by attributes, cut where a message is full.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use patina_crds::net::Family;

use super::table::{Table, Wanted, family};
use super::{Attributes, Dress};
use crate::intent::routes::Prefix;

/// The content of one message.
#[derive(Debug)]
pub(super) enum Step {
    /// Announces routes of the goal, by their index.
    Reach { attributes: Arc<Attributes>, routes: Vec<usize> },
    /// Takes back.
    Withdraw(Vec<Prefix>),
}

/// What is still to be sent, in its order.
#[derive(Debug)]
pub(super) struct Plan {
    groups: VecDeque<Group>,
    /// How many of the first group have gone.
    taken: usize,
}

#[derive(Debug)]
enum Group {
    /// By index: half of what a prefix takes, a quarter of the pair.
    Reach(Family, Arc<Attributes>, Vec<u32>),
    Withdraw(Family, Vec<Prefix>),
}

impl Plan {
    /// As much as fits one message; `None`: that was all.
    pub(super) fn next(&mut self, goal: &Table, dress: &dyn Dress) -> Option<Step> {
        loop {
            let (step, taken, size) = match self.groups.front()? {
                Group::Reach(family, attributes, indexes) => {
                    let room = dress.room(*family, Some(attributes));
                    let left =
                        indexes.iter().skip(self.taken).filter_map(|index| usize::try_from(*index).ok());
                    let prefix = |index: &usize| goal.as_slice().get(*index).map(|(prefix, _)| *prefix);
                    let routes = fitting(left, room, prefix);
                    let taken = routes.len();
                    (Step::Reach { attributes: Arc::clone(attributes), routes }, taken, indexes.len())
                }
                Group::Withdraw(family, prefixes) => {
                    let left = prefixes.iter().skip(self.taken).copied();
                    let prefixes_fit = fitting(left, dress.room(*family, None), |prefix| Some(*prefix));
                    let taken = prefixes_fit.len();
                    (Step::Withdraw(prefixes_fit), taken, prefixes.len())
                }
            };
            self.taken += taken;
            if self.taken >= size || taken == 0 {
                self.groups.pop_front();
                self.taken = 0;
            }
            if taken > 0 {
                return Some(step);
            }
        }
    }
}

/// The first of `left` that fit: at least one, or else nothing would ever go.
fn fitting<T>(left: impl Iterator<Item = T>, room: usize, prefix: impl Fn(&T) -> Option<Prefix>) -> Vec<T> {
    let mut used = 0;
    let mut fit = Vec::new();
    for item in left {
        used += prefix(&item).map_or(0, |prefix| octets(&prefix));
        if used > room && !fit.is_empty() {
            break;
        }
        fit.push(item);
    }
    fit
}

/// RFC 4271 section 4.3: "The Length field indicates the length in bits", then "the minimum number of trailing bits needed to make
/// the end of the field fall on an octet boundary".
fn octets(prefix: &Prefix) -> usize {
    1 + usize::from(prefix.length().div_ceil(8))
}

/// A plan that is being made.
pub(super) struct Draft<'a> {
    dress: &'a dyn Dress,
    /// What a set was dressed as: the index of its group. Sets are shared, so they are known by where they are.
    dressed: BTreeMap<(Family, *const Wanted), Option<usize>>,
    by_attributes: BTreeMap<(Family, Arc<Attributes>), usize>,
    groups: Vec<Vec<u32>>,
    withdrawn: BTreeMap<Family, Vec<Prefix>>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(dress: &'a dyn Dress) -> Self {
        Self {
            dress,
            dressed: BTreeMap::new(),
            by_attributes: BTreeMap::new(),
            groups: Vec::new(),
            withdrawn: BTreeMap::new(),
        }
    }

    /// A route of the goal goes out; false: it has no next hop.
    pub(super) fn reach(&mut self, prefix: Prefix, wanted: &Arc<Wanted>, index: usize) -> bool {
        let family = family(&prefix);
        let group = match self.dressed.get(&(family, Arc::as_ptr(wanted))) {
            Some(group) => *group,
            None => {
                let group = self.dress.dress(family, wanted).map(|attributes| self.group(family, attributes));
                self.dressed.insert((family, Arc::as_ptr(wanted)), group);
                group
            }
        };
        let Some(group) = group.and_then(|group| self.groups.get_mut(group)) else { return false };
        // A table has fewer than 2^32 routes: they would not fit the memory of a node.
        group.extend(u32::try_from(index).ok());
        true
    }

    pub(super) fn withdraw(&mut self, prefix: Prefix) {
        self.withdrawn.entry(family(&prefix)).or_default().push(prefix);
    }

    pub(super) fn finish(mut self) -> Plan {
        let mut groups = VecDeque::with_capacity(self.by_attributes.len() + self.withdrawn.len());
        let mut reaches = self.by_attributes.into_iter().peekable();
        for family in [Family::V4, Family::V6] {
            while let Some(((_, attributes), group)) = reaches.next_if(|((of, _), _)| *of == family) {
                let indexes = self.groups.get_mut(group).map(std::mem::take).unwrap_or_default();
                groups.push_back(Group::Reach(family, attributes, indexes));
            }
            if let Some(prefixes) = self.withdrawn.remove(&family) {
                groups.push_back(Group::Withdraw(family, prefixes));
            }
        }
        Plan { groups, taken: 0 }
    }

    fn group(&mut self, family: Family, attributes: Attributes) -> usize {
        let fresh = self.groups.len();
        let group = *self.by_attributes.entry((family, Arc::new(attributes))).or_insert(fresh);
        if group == fresh {
            self.groups.push(Vec::new());
        }
        group
    }
}
