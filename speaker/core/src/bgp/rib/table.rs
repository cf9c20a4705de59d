//! What a peer should get.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};

use patina_crds::config::Community;
use patina_crds::net::Family;

use crate::intent::routes::{Prefix, Route};

/// Of a route, before a session gives it AS_PATH and next hop.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wanted {
    /// RFC 1997, RFC 8092.
    pub communities: BTreeSet<Community>,
    /// To peers of our own AS.
    pub local_pref: Option<u32>,
}

/// What a peer should get: prefixes in their order, and what of the configuration goes with each. A clone is a pointer: peers that
/// should get the same share it, and so does what a peer has got already.
#[derive(Clone, Debug, Default)]
pub struct Table {
    routes: Arc<Routes>,
}

type Routes = [(Prefix, Arc<Wanted>)];

impl Table {
    /// How many routes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// No route.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// Of a prefix.
    #[must_use]
    pub fn get(&self, prefix: &Prefix) -> Option<&Arc<Wanted>> {
        self.routes.get(self.position(prefix)?).map(|(_, wanted)| wanted)
    }

    /// In the order of the prefixes.
    pub fn iter(&self) -> std::slice::Iter<'_, (Prefix, Arc<Wanted>)> {
        self.routes.iter()
    }

    /// Of a prefix, in the order.
    pub(super) fn position(&self, prefix: &Prefix) -> Option<usize> {
        self.routes.binary_search_by(|(known, _)| known.cmp(prefix)).ok()
    }

    /// The same memory: equal without a look.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.routes, &other.routes)
    }

    pub(super) fn as_slice(&self) -> &Routes {
        &self.routes
    }
}

impl PartialEq for Table {
    fn eq(&self, other: &Self) -> bool {
        self.is(other)
            || (self.len() == other.len()
                && self.iter().zip(other.iter()).all(|(a, b)| a.0 == b.0 && same(&a.1, &b.1)))
    }
}

impl Eq for Table {}

/// In any order; of a prefix that comes twice the last one counts.
impl FromIterator<(Prefix, Arc<Wanted>)> for Table {
    fn from_iter<I: IntoIterator<Item = (Prefix, Arc<Wanted>)>>(routes: I) -> Self {
        let routes: BTreeMap<Prefix, Arc<Wanted>> = routes.into_iter().collect();
        Self { routes: routes.into_iter().collect() }
    }
}

/// Equal content; usually seen by the pointer.
pub(super) fn same(a: &Arc<Wanted>, b: &Arc<Wanted>) -> bool {
    Arc::ptr_eq(a, b) || a == b
}

pub(super) fn family(prefix: &Prefix) -> Family {
    Family::of(prefix.address())
}

/// A prefix of two tables.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pair<'a> {
    /// In the left one only.
    Left(Prefix, &'a Arc<Wanted>),
    /// In the right one only.
    Right(Prefix, &'a Arc<Wanted>),
    /// In both.
    Both(Prefix, &'a Arc<Wanted>, &'a Arc<Wanted>),
}

/// The prefixes of two tables, in their order.
pub(super) fn walk<'a>(left: &'a Table, right: &'a Table) -> impl Iterator<Item = Pair<'a>> {
    let (mut left, mut right) = (left.iter().peekable(), right.iter().peekable());
    std::iter::from_fn(move || {
        let order = match (left.peek(), right.peek()) {
            (Some((a, _)), Some((b, _))) => a.cmp(b),
            (Some(_), None) => Ordering::Less,
            (None, _) => Ordering::Greater,
        };
        match order {
            Ordering::Less => left.next().map(|(prefix, wanted)| Pair::Left(*prefix, wanted)),
            Ordering::Greater => right.next().map(|(prefix, wanted)| Pair::Right(*prefix, wanted)),
            Ordering::Equal => {
                left.next().zip(right.next()).map(|((prefix, a), (_, b))| Pair::Both(*prefix, a, b))
            }
        }
    })
}

/// The table of one peer. [`Tables`] shares memory between peers, and between decisions.
#[must_use]
pub fn table(routes: &BTreeMap<Prefix, Route>) -> Table {
    Tables::default().table(routes)
}

/// Makes tables, and what is equal in them only once: the tables of 20 peers that get the same are one.
#[derive(Debug, Default)]
pub struct Tables {
    wanted: BTreeSet<Arc<Wanted>>,
    known: Vec<Weak<Routes>>,
}

impl Tables {
    /// The table of one peer; one that somebody still holds when an equal one is among them.
    pub fn table(&mut self, routes: &BTreeMap<Prefix, Route>) -> Table {
        self.known.retain(|known| known.strong_count() > 0);
        for known in self.known.iter().filter_map(Weak::upgrade) {
            if is_table_of(&known, routes) {
                return Table { routes: known };
            }
        }
        // What no table holds any more is held by the set alone.
        self.wanted.retain(|wanted| Arc::strong_count(wanted) > 1);
        let made: Arc<[_]> = routes.iter().map(|(prefix, route)| (*prefix, self.intern(route))).collect();
        self.known.push(Arc::downgrade(&made));
        Table { routes: made }
    }

    fn intern(&mut self, route: &Route) -> Arc<Wanted> {
        let wanted = Wanted { communities: route.communities.clone(), local_pref: route.local_pref };
        if let Some(known) = self.wanted.get(&wanted) {
            return Arc::clone(known);
        }
        let wanted = Arc::new(wanted);
        self.wanted.insert(Arc::clone(&wanted));
        wanted
    }
}

fn is_table_of(known: &Routes, routes: &BTreeMap<Prefix, Route>) -> bool {
    let equal = |(a, b): (&(Prefix, Arc<Wanted>), (&Prefix, &Route))| {
        a.0 == *b.0 && a.1.local_pref == b.1.local_pref && a.1.communities == b.1.communities
    };
    known.len() == routes.len() && known.iter().zip(routes).all(equal)
}
