//! Who waits for what, so that a freed address costs a look at those whom it could help, not at everybody.
//!
//! Services with the same need stand in one lane, in the order of their age. What does not help the first of a lane helps
//! nobody in it, so a look at a lane ends with the first in vain; and whoever was served is followed by the next. Two things
//! could help another than the first: room on an address of a sharing group, which is why the members of a group stand in
//! rows of their own besides; and nothing else.
//!
//! Nobody starves. A freed address is offered to every lane that could use it, and of those who are offered something the
//! oldest decides first ([`crate::reconcile`]). That alone would let a Service that needs two families wait for ever: each
//! time one address frees, a younger Service that needs only one could take it. So the oldest Service that needs both
//! families of a pool stands at the *door* of that pool, the first of its pools that has both: younger Services leave one
//! address of each family there. At most one address of a pool is idle for that, and only while the other family is full.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use patina_crds::net::Family;

use crate::allocator::{Allocator, Freed, Group, PoolId, Sharing};
use crate::view::{Port, ServiceId, ServiceView};

/// Age first, then name: the order in which Services are served, and in which they win.
pub(crate) type Turn = (i64, ServiceId);

/// The turn of a Service.
pub(crate) fn turn(view: &ServiceView) -> Turn {
    (view.created, view.id.clone())
}

/// What would help a Service that has not all it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// An address, or two, of one of these pools.
    Automatic {
        /// What else with the same needs has in common.
        lane: Lane,
        /// With whom it could share.
        sharing: Sharing,
        /// The pool at whose door it stands.
        door: Option<PoolId>,
    },
    /// Exactly these addresses.
    Addresses(Vec<IpAddr>),
}

/// A need, without whom to share with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Lane {
    /// Whose it is, if something is reserved for it: nobody else has this need.
    pub(crate) own: Option<ServiceId>,
    /// In the order in which they are tried.
    pub(crate) pools: Vec<PoolId>,
    /// Ascending.
    pub(crate) families: Vec<Family>,
    /// One of the families is better than nothing.
    pub(crate) any: bool,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Queue {
    entries: HashMap<ServiceId, (Turn, Place)>,
    lanes: HashMap<Arc<Lane>, Members>,
    by_pool: HashMap<PoolId, HashSet<Arc<Lane>>>,
    by_group: HashMap<Group, HashSet<Arc<Lane>>>,
    by_address: HashMap<IpAddr, BTreeSet<Turn>>,
    doors: HashMap<PoolId, BTreeSet<Turn>>,
}

/// Where somebody stands.
#[derive(Clone, Debug)]
enum Place {
    Lane { lane: Arc<Lane>, sharing: Sharing, door: Option<PoolId> },
    Addresses(Vec<IpAddr>),
}

#[derive(Clone, Debug, Default)]
struct Members {
    all: BTreeSet<Turn>,
    /// Those with a sharing key once more, by what they could share.
    rows: HashMap<Group, HashMap<BTreeSet<Port>, BTreeSet<Turn>>>,
}

impl Queue {
    /// Nobody waits. Necessary when pools get other numbers.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// How many addresses of a family of `pool` are not for a Service of this turn, and for whom they are.
    pub(crate) fn set_aside(&self, pool: PoolId, turn: &Turn) -> Option<&ServiceId> {
        let first = self.doors.get(&pool)?.first()?;
        (first < turn).then_some(&first.1)
    }

    /// What `turn` waits for now; `None`: nothing. Who was behind it, if it does not stand where it stood, is added to `next`.
    pub(crate) fn put(
        &mut self,
        turn: &Turn,
        want: Option<Want>,
        allocator: &mut Allocator,
        next: &mut BTreeSet<Turn>,
    ) {
        let before = self.entries.get(&turn.1).map(|(_, place)| place);
        if before.zip(want.as_ref()).is_some_and(|(place, want)| place == want) {
            return;
        }
        self.remove(&turn.1, allocator, next);
        let Some(want) = want else { return };
        let place = match want {
            Want::Addresses(addresses) => {
                for ip in &addresses {
                    self.by_address.entry(*ip).or_default().insert(turn.clone());
                }
                Place::Addresses(addresses)
            }
            Want::Automatic { lane, sharing, door } => {
                if let Some(pool) = door {
                    self.doors.entry(pool).or_default().insert(turn.clone());
                }
                Place::Lane { lane: self.join(turn, lane, &sharing), sharing, door }
            }
        };
        self.entries.insert(turn.1.clone(), (turn.clone(), place));
    }

    /// `id` waits for nothing any more, or is gone.
    pub(crate) fn remove(&mut self, id: &ServiceId, allocator: &mut Allocator, next: &mut BTreeSet<Turn>) {
        let Some((turn, place)) = self.entries.remove(id) else { return };
        match place {
            Place::Addresses(addresses) => {
                for ip in addresses {
                    remove_from(&mut self.by_address, &ip, &turn);
                }
            }
            Place::Lane { lane, sharing, door } => {
                if let Some(pool) = door {
                    remove_from(&mut self.doors, &pool, &turn);
                    // What was set aside for it is for others now.
                    allocator.reopen(pool);
                }
                self.leave(&turn, &lane, &sharing, next);
            }
        }
    }

    /// Adds to `next` whoever has to look again because of `freed`.
    pub(crate) fn wake(&self, freed: &Freed, next: &mut BTreeSet<Turn>) {
        match freed {
            Freed::Open(pool, family) => {
                for lane in self.by_pool.get(pool).into_iter().flatten() {
                    let Some(members) = self.lanes.get(lane) else { continue };
                    if !lane.families.contains(family) {
                        continue;
                    }
                    next.extend(members.all.first().cloned());
                    // Who needs two may share the one and get the other: that says nothing about who is in another group.
                    if lane.families.len() > 1 {
                        let rows = members.rows.values().flat_map(HashMap::values);
                        next.extend(rows.filter_map(|row| row.first().cloned()));
                    }
                }
            }
            Freed::Group(group) => {
                for lane in self.by_group.get(group).into_iter().flatten() {
                    let rows = self.lanes.get(lane).and_then(|members| members.rows.get(group));
                    let rows = rows.into_iter().flat_map(HashMap::values);
                    next.extend(rows.filter_map(|row| row.first().cloned()));
                }
            }
            // Here everybody looks: what they are told, who has the address, may have changed.
            Freed::Address(ip) => next.extend(self.by_address.get(ip).into_iter().flatten().cloned()),
            Freed::Kept(id) => next.extend(self.entries.get(id).map(|(turn, _)| turn.clone())),
        }
    }

    fn join(&mut self, turn: &Turn, lane: Lane, sharing: &Sharing) -> Arc<Lane> {
        let lane = match self.lanes.get_key_value(&lane) {
            Some((known, _)) => Arc::clone(known),
            None => {
                let lane = Arc::new(lane);
                for pool in &lane.pools {
                    self.by_pool.entry(*pool).or_default().insert(Arc::clone(&lane));
                }
                lane
            }
        };
        let members = self.lanes.entry(Arc::clone(&lane)).or_default();
        members.all.insert(turn.clone());
        if let Some(group) = &sharing.group {
            let rows = members.rows.entry(group.clone()).or_default();
            rows.entry(sharing.ports.clone()).or_default().insert(turn.clone());
            self.by_group.entry(group.clone()).or_default().insert(Arc::clone(&lane));
        }
        lane
    }

    fn leave(&mut self, turn: &Turn, lane: &Arc<Lane>, sharing: &Sharing, next: &mut BTreeSet<Turn>) {
        let Some(members) = self.lanes.get_mut(lane) else { return };
        members.all.remove(turn);
        next.extend(members.all.first().cloned());
        if let Some(group) = &sharing.group
            && let Some(rows) = members.rows.get_mut(group)
        {
            if let Some(row) = rows.get_mut(&sharing.ports) {
                row.remove(turn);
                next.extend(row.first().cloned());
                if row.is_empty() {
                    rows.remove(&sharing.ports);
                }
            }
            if rows.is_empty() {
                members.rows.remove(group);
                if let Some(lanes) = self.by_group.get_mut(group) {
                    lanes.remove(lane);
                    if lanes.is_empty() {
                        self.by_group.remove(group);
                    }
                }
            }
        }
        if members.all.is_empty() {
            self.lanes.remove(lane);
            for pool in &lane.pools {
                if let Some(lanes) = self.by_pool.get_mut(pool) {
                    lanes.remove(lane);
                }
            }
        }
    }
}

impl PartialEq<Want> for Place {
    fn eq(&self, want: &Want) -> bool {
        match (self, want) {
            (Self::Addresses(a), Want::Addresses(b)) => a == b,
            (Self::Lane { lane, sharing, door }, Want::Automatic { lane: l, sharing: s, door: d }) => {
                **lane == *l && sharing == s && door == d
            }
            _ => false,
        }
    }
}

fn remove_from<K: std::hash::Hash + Eq>(map: &mut HashMap<K, BTreeSet<Turn>>, key: &K, turn: &Turn) {
    if let Some(turns) = map.get_mut(key) {
        turns.remove(turn);
        if turns.is_empty() {
            map.remove(key);
        }
    }
}
