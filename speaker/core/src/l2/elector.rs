//! The order of [`election`](super::election), without hashing every node for every address again.
//!
//! The hash of a node and an address never changes; what changes is which nodes are candidates. So the elector keeps, for
//! each address text, the first [`KEPT`] of a *field* of nodes: all that advertisements select with one preference
//! score, dead or alive. A death takes a node out of the answer, not out of the field. Nodes that come to a field or leave
//! it are worked into what is kept.
//!
//! What is kept is a cache: an elector that has forgotten everything gives the same answers, later.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::election::Prepared;

/// How many are kept per address: twice what a verdict lists, so that a rack may die before anything is hashed.
const KEPT: usize = 16;
/// Fields up to this size are not worth keeping.
const SMALL: usize = 3;
/// Names that no field uses are kept up to this many; then everything is forgotten.
const STRAY_NAMES: usize = 1000;

/// A node by its number in [`Elector::names`]; more than 65,535 nodes are never cached.
type Id = u16;

/// Keeps hashes' orders between decisions. Memory: about 80 bytes per address, whatever the number of nodes.
#[derive(Debug, Default)]
pub struct Elector {
    ids: BTreeMap<Arc<str>, Id>,
    names: Vec<Arc<str>>,
    prepared: Vec<Prepared>,
    /// Of this decision: its nodes, their numbers, and back.
    present: Vec<Arc<str>>,
    nodes: Vec<Option<Id>>,
    places: Vec<Option<usize>>,
    fields: Vec<Field>,
    /// Sorted by text and field.
    entries: Vec<Entry>,
    /// Computed since [`Elector::begin`], unsorted.
    fresh: Vec<Entry>,
}

/// A set of nodes, most often those that some advertisements select.
#[derive(Debug)]
struct Field {
    /// Sorted.
    nodes: Arc<[Id]>,
    /// The present decision uses it.
    current: bool,
    /// What it was before: the field of then, and who left and who came. Only while it is new.
    was: Option<(FieldId, BTreeSet<Id>, Vec<Id>)>,
}

/// Names a field during one decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FieldId(usize);

/// What is kept about one address in one field.
#[derive(Debug)]
struct Entry {
    text: Box<str>,
    /// Index into the fields.
    field: u16,
    /// The present decision may ask for it.
    live: bool,
    known: Known,
}

/// The first of a field by hash, without a gap.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// How many of them count.
    count: u8,
    first: [Id; KEPT],
}

impl Known {
    fn new(ids: impl Iterator<Item = Id>) -> Self {
        let mut known = Self { count: 0, first: [0; KEPT] };
        for (slot, id) in known.first.iter_mut().zip(ids) {
            *slot = id;
            known.count += 1;
        }
        known
    }

    fn ids(&self) -> impl Iterator<Item = Id> {
        self.first.iter().take(usize::from(self.count)).copied()
    }
}

/// Some nodes of a field, by their places in the list of the decision.
#[derive(Clone, Debug)]
pub struct Tier {
    field: Option<FieldId>,
    nodes: Vec<usize>,
    /// The same, a bit for each number; empty when it is not asked.
    bits: Vec<u64>,
}

impl Tier {
    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// None at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Their places.
    pub fn iter(&self) -> impl Iterator<Item = usize> {
        self.nodes.iter().copied()
    }

    fn has(&self, id: Id) -> bool {
        self.bits.get(usize::from(id / 64)).is_some_and(|word| word & (1 << (id % 64)) != 0)
    }
}

impl Elector {
    /// A decision over these nodes begins.
    pub fn begin(&mut self, nodes: &[Arc<str>]) {
        let used = self.fields.iter().map(|field| field.nodes.len()).max().unwrap_or_default();
        if self.names.len() > used.max(nodes.len()).saturating_add(STRAY_NAMES) {
            *self = Self::default();
        }
        for field in &mut self.fields {
            (field.current, field.was) = (false, None);
        }
        for entry in &mut self.entries {
            entry.live = false;
        }
        self.present = nodes.to_vec();
        self.nodes = nodes.iter().map(|node| self.id(node)).collect();
        self.places = vec![None; self.names.len()];
        for (place, id) in self.nodes.iter().enumerate() {
            let known = id.and_then(|id| self.places.get_mut(usize::from(id)));
            if let Some(known) = known {
                *known = Some(place);
            }
        }
    }

    /// Announces a field: the places of its nodes, in any order. `None`: it is not one to keep anything about.
    pub fn field(&mut self, nodes: impl Iterator<Item = usize>) -> Option<FieldId> {
        let mut ids: Vec<Id> = nodes.map(|node| *self.nodes.get(node)?).collect::<Option<_>>()?;
        ids.sort_unstable();
        if ids.len() <= SMALL || self.fields.len() >= usize::from(u16::MAX) {
            return None;
        }
        if let Some(index) = self.fields.iter().position(|field| *field.nodes == *ids) {
            self.fields.get_mut(index)?.current = true;
            return Some(FieldId(index));
        }
        let was = self.predecessor(&ids);
        self.fields.push(Field { nodes: ids.into(), current: true, was });
        Some(FieldId(self.fields.len() - 1))
    }

    /// Some nodes of a field.
    #[must_use]
    pub fn tier(&self, field: Option<FieldId>, nodes: Vec<usize>) -> Tier {
        // A few nodes of a large field are hashed sooner than the field.
        let large = |field: &FieldId| self.fields.get(field.0).is_some_and(|field| field.nodes.len() > KEPT);
        let field = field.filter(|field| nodes.len() > 1 && !(large(field) && nodes.len() <= KEPT));
        let mut bits = Vec::new();
        if field.is_some() {
            bits.resize(self.names.len().div_ceil(64), 0);
            for id in nodes.iter().filter_map(|node| *self.nodes.get(*node)?) {
                if let Some(word) = bits.get_mut(usize::from(id / 64)) {
                    *word |= 1u64 << (id % 64);
                }
            }
        }
        Tier { field, nodes, bits }
    }

    /// Announces that the address still exists: what is kept about it may be asked for at the next decision.
    pub fn keep(&mut self, text: &str) {
        let from = self.entries.partition_point(|entry| *entry.text < *text);
        let of_text = self.entries.iter_mut().skip(from).take_while(|entry| *entry.text == *text);
        for entry in of_text {
            entry.live = true;
        }
    }

    /// The first `count` of the tier by hash, then name; in that order.
    pub fn first(&mut self, text: &str, tier: &Tier, count: usize) -> Vec<usize> {
        let wanted = count.min(tier.len());
        if let Some(field) = tier.field.filter(|_| wanted > 0)
            && let Some(known) = self.known(text, field)
        {
            let kept = known.ids().filter(|id| tier.has(*id));
            let first: Vec<usize> =
                kept.filter_map(|id| *self.places.get(usize::from(id))?).take(wanted).collect();
            if first.len() == wanted {
                return first;
            }
        }
        let mut first = First::new(wanted);
        for node in &tier.nodes {
            let Some(name) = self.present.get(*node) else { continue };
            let id = self.nodes.get(*node).copied().flatten();
            let hash = match id.and_then(|id| self.prepared.get(usize::from(id))) {
                Some(prepared) => prepared.hash(name, text),
                None => Prepared::new(name).hash(name, text),
            };
            first.offer((hash, name, *node));
        }
        first.ranked.into_iter().map(|(_, _, node)| node).collect()
    }

    /// A decision ends: what it could not have asked for is forgotten.
    pub fn end(&mut self) {
        let fields = &self.fields;
        let current = |entry: &Entry| fields.get(usize::from(entry.field)).is_some_and(|field| field.current);
        self.entries.retain(|entry| entry.live && current(entry));
        if !self.fresh.is_empty() {
            self.entries.append(&mut self.fresh);
            self.entries.sort_by(|a, b| (&a.text, a.field).cmp(&(&b.text, b.field)));
        }
        self.fresh.shrink_to_fit();
        self.entries.shrink_to_fit();
        self.drop_fields();
    }

    /// Numbers the current fields anew, without the others.
    fn drop_fields(&mut self) {
        if self.fields.iter().all(|field| field.current) {
            return;
        }
        let mut next = 0u16;
        let numbers: Vec<u16> = self
            .fields
            .iter()
            .map(|field| {
                let number = next;
                next += u16::from(field.current);
                number
            })
            .collect();
        self.fields.retain(|field| field.current);
        for entry in &mut self.entries {
            // The order of the numbers stays, and with it the order of the entries.
            entry.field = numbers.get(usize::from(entry.field)).copied().unwrap_or(entry.field);
        }
    }

    fn id(&mut self, node: &str) -> Option<Id> {
        if let Some(id) = self.ids.get(node) {
            return Some(*id);
        }
        let id = Id::try_from(self.names.len()).ok()?;
        let name: Arc<str> = Arc::from(node);
        self.names.push(Arc::clone(&name));
        self.prepared.push(Prepared::new(node));
        self.ids.insert(name, id);
        Some(id)
    }

    /// The field of an earlier decision that is most like this one, if hashing the difference is less work than all.
    fn predecessor(&self, ids: &[Id]) -> Option<(FieldId, BTreeSet<Id>, Vec<Id>)> {
        let earlier = self.fields.iter().enumerate().filter(|(_, field)| field.was.is_none());
        let differences = earlier.map(|(index, field)| {
            let left = field.nodes.iter().filter(|id| ids.binary_search(id).is_err()).copied().collect();
            let came: Vec<Id> =
                ids.iter().filter(|id| field.nodes.binary_search(id).is_err()).copied().collect();
            (FieldId(index), left, came)
        });
        let cost = |(_, left, came): &(FieldId, BTreeSet<Id>, Vec<Id>)| left.len() + came.len();
        differences.min_by_key(cost).filter(|difference| cost(difference) <= ids.len() / 2)
    }

    /// What is kept, or is from now on.
    fn known(&mut self, text: &str, field: FieldId) -> Option<Known> {
        if let Some(known) = self.find(text, field) {
            return Some(known);
        }
        let number = u16::try_from(field.0).ok()?;
        let known = self.adapted(text, field).or_else(|| self.computed(text, field))?;
        self.fresh.push(Entry { text: text.into(), field: number, live: true, known });
        Some(known)
    }

    fn find(&self, text: &str, field: FieldId) -> Option<Known> {
        let order = |entry: &Entry| (&*entry.text, usize::from(entry.field)).cmp(&(text, field.0));
        if let Ok(index) = self.entries.binary_search_by(order) {
            return self.entries.get(index).map(|entry| entry.known);
        }
        let mut fresh = self.fresh.iter().rev().take_while(|entry| *entry.text == *text);
        fresh.find(|entry| usize::from(entry.field) == field.0).map(|entry| entry.known)
    }

    /// Out of what is known about the field that this one was before.
    fn adapted(&self, text: &str, field: FieldId) -> Option<Known> {
        let now = self.fields.get(field.0)?;
        let (before, left, came) = now.was.as_ref()?;
        let known = self.find(text, *before)?;
        let complete = usize::from(known.count) == self.fields.get(before.0)?.nodes.len();
        // Behind the last that is known there may be others that are not: who comes behind it has no known place.
        let last = known.ids().last();
        let mut ranked: Vec<([u32; 8], &str, Id)> = known
            .ids()
            .filter(|id| !left.contains(id) || Some(*id) == last)
            .chain(came.iter().copied())
            .filter_map(|id| self.ranked(text, id))
            .collect();
        ranked.sort_unstable();
        if !complete && let Some(end) = ranked.iter().position(|(_, _, id)| Some(*id) == last) {
            ranked.truncate(end + 1);
        }
        ranked.retain(|(_, _, id)| !left.contains(id));
        let enough = KEPT.min(now.nodes.len()).div_ceil(2);
        (ranked.len() >= enough).then(|| Known::new(ranked.iter().map(|(_, _, id)| *id)))
    }

    fn computed(&self, text: &str, field: FieldId) -> Option<Known> {
        let nodes = self.fields.get(field.0)?.nodes.iter();
        let mut first = First::new(KEPT);
        nodes.filter_map(|id| self.ranked(text, *id)).for_each(|ranked| first.offer(ranked));
        Some(Known::new(first.ranked.iter().map(|(_, _, id)| *id)))
    }

    fn ranked(&self, text: &str, id: Id) -> Option<([u32; 8], &str, Id)> {
        let name: &str = self.names.get(usize::from(id))?;
        Some((self.prepared.get(usize::from(id))?.hash(name, text), name, id))
    }
}

/// The first few of many, sorted: of a thousand that are offered all but some dozens are behind the last already.
struct First<T> {
    count: usize,
    ranked: Vec<T>,
}

impl<T: Ord> First<T> {
    fn new(count: usize) -> Self {
        Self { count, ranked: Vec::with_capacity(count.min(64) + 1) }
    }

    fn offer(&mut self, one: T) {
        if self.ranked.len() >= self.count && self.ranked.last().is_none_or(|last| *last <= one) {
            return;
        }
        let place = self.ranked.partition_point(|other| *other < one);
        self.ranked.insert(place, one);
        self.ranked.truncate(self.count);
    }
}
