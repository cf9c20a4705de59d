//! What many verdicts say alike is kept once: ten thousand of them shall not cost ten thousand lists.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use patina_crds::config::Failback;
use patina_crds::net::Family;

use super::candidates::Candidates;
use super::interfaces::Selection;
use super::nodes::{Nodes, SetId};
use super::{Candidate, How, LastResort, Verdict, WhyNot};
use crate::l2::election::Standing;
use crate::view::InterfaceView;

/// The first of the candidates, by index.
pub(super) type First = [(usize, Standing, u32)];
/// Names of nodes.
type Names = Arc<BTreeSet<Arc<str>>>;

/// Where there are more orders of candidates than this, few come up again: seven nodes have 5,040.
const MANY: usize = 2048;
/// Verdicts about Services with the same candidates differ by what this node lacks.
const FEW: usize = 8;

/// The lists of one decision.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// By first candidates, and whether this node is as good as the first of them.
    orders: [BTreeMap<Box<First>, Orders>; 2],
    usable: BTreeMap<(SetId, Family), Result<Usable, WhyNot>>,
    indexes: BTreeSet<Arc<BTreeSet<u32>>>,
    /// Of one group of candidates and another: most Services have the same.
    keepers: Option<(Rc<Candidates>, Names)>,
    nobody: Names,
    /// By where interfaces, order and keepers are: each is kept alive by what is found here.
    hows: BTreeMap<([usize; 3], Failback, bool), Arc<How>>,
    /// By where the candidates are; the last few.
    verdicts: BTreeMap<usize, VecDeque<Arc<Verdict>>>,
}

/// The same candidates as verdicts and as announcements list them.
#[derive(Clone, Debug)]
pub(super) struct Orders {
    pub(super) candidates: Arc<[Candidate]>,
    /// Without those that can do less than the first; with this node if it can do as much.
    pub(super) order: Arc<[Arc<str>]>,
}

/// Interfaces of this node.
#[derive(Clone, Debug)]
pub(super) struct Usable {
    pub(super) indexes: Arc<BTreeSet<u32>>,
    pub(super) names: Arc<BTreeSet<String>>,
}

impl Shared {
    pub(super) fn orders(&mut self, nodes: &Nodes<'_>, first: &First, keeps_here: bool) -> Orders {
        let [elsewhere, here] = &mut self.orders;
        let known = if keeps_here { here } else { elsewhere };
        if let Some(known) = known.get(first) {
            return known.clone();
        }
        let candidate = |(node, standing, score): &(usize, Standing, u32)| Candidate {
            node: nodes.name(*node),
            score: *score,
            serves: standing.serves.0,
            announces: standing.announces.0,
            last_resort: last_resort(standing),
        };
        let best = first.first().map(|(_, standing, _)| *standing);
        let keepers = first.iter().filter(|(_, standing, _)| Some(*standing) == best);
        let mut order: Vec<usize> = keepers.map(|(node, _, _)| *node).collect();
        if let Some(own) = nodes.own().filter(|own| keeps_here && !order.contains(own)) {
            // There are more of them than are listed: it comes somewhere after these.
            order.truncate(first.len().saturating_sub(1).max(1));
            order.push(own);
        }
        let orders = Orders {
            candidates: first.iter().map(candidate).collect(),
            order: order.into_iter().map(|node| nodes.name(node)).collect(),
        };
        if known.len() >= MANY {
            known.clear();
        }
        known.insert(first.into(), orders.clone());
        orders
    }

    /// The interfaces of this node on which an address of the family can be announced.
    pub(super) fn usable(
        &mut self,
        set: SetId,
        selection: &Selection,
        family: Family,
        interfaces: &[InterfaceView],
    ) -> Result<Usable, WhyNot> {
        if let Some(known) = self.usable.get(&(set, family)) {
            return known.clone();
        }
        let usable = selection.usable(family, interfaces).map(|found| {
            let mut indexes = Arc::new(found.iter().map(|interface| interface.index).collect());
            match self.indexes.get(&indexes) {
                Some(known) => indexes = Arc::clone(known),
                None => {
                    self.indexes.insert(Arc::clone(&indexes));
                }
            }
            let names = Arc::new(found.iter().map(|interface| interface.name.clone()).collect());
            Usable { indexes, names }
        });
        self.usable.insert((set, family), usable.clone());
        usable
    }

    /// The same, once.
    pub(super) fn how(&mut self, how: How) -> Arc<How> {
        let places = [
            place(Arc::as_ptr(&how.interfaces)),
            place(Arc::as_ptr(&how.order)),
            place(Arc::as_ptr(&how.keepers)),
        ];
        if self.hows.len() >= MANY {
            self.hows.clear();
        }
        let known = self.hows.entry((places, how.failback, how.leads)).or_insert_with(|| Arc::new(how));
        Arc::clone(known)
    }

    /// The same, once.
    pub(super) fn verdict(&mut self, verdict: Verdict) -> Arc<Verdict> {
        if self.verdicts.len() >= MANY {
            self.verdicts.clear();
        }
        let candidates = match verdict.candidates.is_empty() {
            true => 0,
            false => place(Arc::as_ptr(&verdict.candidates)),
        };
        let known = self.verdicts.entry(candidates).or_default();
        if let Some(same) = known.iter().find(|known| ***known == verdict) {
            return Arc::clone(same);
        }
        let verdict = Arc::new(verdict);
        known.truncate(FEW - 1);
        known.push_front(Arc::clone(&verdict));
        verdict
    }

    /// Who may keep an address that it holds; nobody needs to know when failback is immediate.
    pub(super) fn keepers(
        &mut self,
        nodes: &Nodes<'_>,
        candidates: &Rc<Candidates>,
        failback: Failback,
    ) -> Names {
        if failback == Failback::Immediate {
            return Arc::clone(&self.nobody);
        }
        match &self.keepers {
            Some((known, keepers)) if Rc::ptr_eq(known, candidates) => Arc::clone(keepers),
            _ => {
                let keepers = Arc::new(candidates.keepers(nodes));
                self.keepers = Some((Rc::clone(candidates), Arc::clone(&keepers)));
                keepers
            }
        }
    }
}

/// Two lists at one place are one list.
fn place<T: ?Sized>(of: *const T) -> usize {
    of.cast::<()>().addr()
}

fn last_resort(standing: &Standing) -> Option<LastResort> {
    if standing.leaving {
        Some(LastResort::Leaving)
    } else if standing.isolated {
        Some(LastResort::Isolated)
    } else {
        standing.drained.then_some(LastResort::Drained)
    }
}
