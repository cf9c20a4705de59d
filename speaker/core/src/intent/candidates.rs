//! The candidates of Services that share an address, in tiers: what goes before the hash.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use super::nodes::{Fitness, Nodes, Set, SetId};
use super::segments::{Link, Place, Reach};
use crate::l2::election::Standing;
use crate::l2::elector::{Elector, Tier};

/// A Service that wants to be announced.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Part {
    /// Its advertisements.
    pub(super) set: SetId,
    /// Where its addresses lie.
    pub(super) places: Vec<Place>,
    /// The nodes it is confined to.
    pub(super) local: Option<Vec<usize>>,
}

/// Who can announce.
#[derive(Debug)]
pub(super) struct Candidates {
    /// Best first; none is empty.
    tiers: Vec<(Standing, u32, Tier)>,
    /// By part and address: the best that any node has.
    best: Vec<Vec<Link>>,
    /// Where this node is.
    own: Option<usize>,
}

/// Those that were worked out already: most Services differ in nothing that counts here.
#[derive(Debug, Default)]
pub(super) struct Known(BTreeMap<Part, Rc<Candidates>>);

impl Known {
    pub(super) fn candidates(
        &mut self,
        nodes: &mut Nodes<'_>,
        elector: &mut Elector,
        parts: &[Part],
        union: SetId,
    ) -> Rc<Candidates> {
        let alone = match parts {
            [alone] => alone,
            _ => return Rc::new(Candidates::new(nodes, elector, parts, union)),
        };
        if let Some(known) = self.0.get(alone) {
            return Rc::clone(known);
        }
        let candidates = Rc::new(Candidates::new(nodes, elector, parts, union));
        self.0.insert(alone.clone(), Rc::clone(&candidates));
        candidates
    }
}

/// A part with what its set says.
struct Prepared<'p> {
    part: &'p Part,
    set: Rc<Set>,
    /// By address, by node.
    reaches: Vec<Rc<[Reach]>>,
    best: Vec<Link>,
}

impl Prepared<'_> {
    fn fit(&self, node: usize) -> bool {
        self.set.fitness.get(node) == Some(&Fitness::Fit) && confined_to(self.part, node)
    }

    fn reach(&self, node: usize) -> impl Iterator<Item = (Reach, Link)> {
        let reaches = self.reaches.iter().filter_map(move |reach| reach.get(node).copied());
        reaches.zip(self.best.iter().copied())
    }
}

impl Candidates {
    fn new(nodes: &mut Nodes<'_>, elector: &mut Elector, parts: &[Part], union: SetId) -> Self {
        let mut prepared = Vec::new();
        for part in parts {
            let Some(set) = nodes.set(part.set) else { continue };
            let reaches: Vec<_> = part.places.iter().map(|place| nodes.reach(part.set, *place)).collect();
            let best = vec![Link::None; reaches.len()];
            prepared.push(Prepared { part, set, reaches, best });
        }
        let possible: Vec<usize> = match parts {
            [Part { local: Some(local), .. }] => local.clone(),
            _ => (0..nodes.names().len()).collect(),
        };
        for part in &mut prepared {
            let best = part.reaches.iter().map(|reach| {
                let fit = possible.iter().filter(|node| part.fit(**node));
                fit.filter_map(|node| Some(reach.get(*node)?.link)).max().unwrap_or(Link::None)
            });
            part.best = best.collect();
        }
        let union = nodes.set(union);
        let score =
            |node: usize| union.as_ref().and_then(|set| set.scores.get(node).copied()).unwrap_or_default();
        let mut tiers: BTreeMap<(Standing, Reverse<u32>), Vec<usize>> = BTreeMap::new();
        for node in possible {
            let (mut serves, mut announces) = (0, 0);
            for part in prepared.iter().filter(|part| part.fit(node)) {
                let best = || part.reach(node).filter(|(reach, best)| reach.link == *best);
                serves += usize::from(best().next().is_some());
                announces += best().filter(|(reach, _)| !reach.isolated).count();
            }
            if serves > 0 {
                let standing = Standing {
                    leaving: nodes.leaving(node),
                    isolated: announces == 0,
                    serves: Reverse(serves),
                    announces: Reverse(announces),
                    drained: nodes.drained(node),
                };
                tiers.entry((standing, Reverse(score(node)))).or_default().push(node);
            }
        }
        let own = nodes.own();
        let own = own.and_then(|own| tiers.values().position(|nodes| nodes.contains(&own)));
        let field = |score| union.as_ref().and_then(|set| *set.fields.get(&score)?);
        let tiers = tiers
            .into_iter()
            .map(|((standing, Reverse(score)), nodes)| (standing, score, elector.tier(field(score), nodes)));
        Self { tiers: tiers.collect(), best: prepared.into_iter().map(|part| part.best).collect(), own }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.tiers.iter().map(|(_, _, tier)| tier.len()).sum()
    }

    /// The first of them.
    pub(super) fn first(
        &self,
        elector: &mut Elector,
        text: &str,
        count: usize,
    ) -> Vec<(usize, Standing, u32)> {
        let mut first = Vec::new();
        for (standing, score, tier) in &self.tiers {
            if first.len() >= count {
                break;
            }
            let nodes = elector.first(text, tier, count - first.len());
            first.extend(nodes.into_iter().map(|node| (node, *standing, *score)));
        }
        first
    }

    /// This node could do as much as the leader, whatever preferences and hashes say.
    pub(super) fn keeps_here(&self) -> bool {
        let standing = |index: usize| self.tiers.get(index).map(|(standing, _, _)| standing);
        self.own.is_some_and(|own| standing(own) == standing(0))
    }

    /// All nodes that can do as much as the leader.
    pub(super) fn keepers(&self, nodes: &Nodes<'_>) -> BTreeSet<Arc<str>> {
        let standing = self.tiers.first().map(|(standing, _, _)| standing);
        let equal = self.tiers.iter().filter(|(other, _, _)| Some(other) == standing);
        equal.flat_map(|(_, _, tier)| tier.iter()).map(|node| nodes.name(node)).collect()
    }

    /// What this node lacks that others have, for the Service of this number and these advertisements; `Fit`: nothing.
    pub(super) fn fitness_here(&self, nodes: &mut Nodes<'_>, number: usize, part: &Part) -> Fitness {
        let Some(own) = nodes.own() else { return Fitness::NoSpeaker };
        match fitness(nodes, part, own) {
            Fitness::Fit => {}
            unfit => return unfit,
        }
        let best = self.best.get(number).map(Vec::as_slice).unwrap_or_default();
        let links: Vec<Link> = part
            .places
            .iter()
            .filter_map(|place| Some(nodes.reach(part.set, *place).get(own)?.link))
            .collect();
        if !links.iter().zip(best).any(|(link, best)| link == best) {
            return match links.iter().max() {
                Some(Link::Elsewhere | Link::Here) => Fitness::OtherSegment,
                Some(Link::None) | None => Fitness::NoInterface,
            };
        }
        match self.own.and_then(|own| self.tiers.get(own)) {
            Some((standing, _, _)) if standing.leaving => Fitness::Leaving,
            Some((standing, _, _)) if standing.isolated => Fitness::Isolated,
            Some((standing, _, _)) if standing.drained => Fitness::Drained,
            _ => Fitness::Fit,
        }
    }
}

/// What stops a node whatever others can do.
pub(super) fn fitness(nodes: &Nodes<'_>, part: &Part, node: usize) -> Fitness {
    let general = nodes.set(part.set).and_then(|set| set.fitness.get(node).copied());
    match general.unwrap_or(Fitness::NotSelected) {
        Fitness::Fit if !confined_to(part, node) => Fitness::NoLocalEndpoint,
        general => general,
    }
}

fn confined_to(part: &Part, node: usize) -> bool {
    part.local.as_ref().is_none_or(|local| local.binary_search(&node).is_ok())
}
