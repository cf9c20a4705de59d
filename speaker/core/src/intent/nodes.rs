//! Which nodes are fit to announce a Service, and what the others lack.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use patina_crds::config::L2Advertisement;
use patina_crds::keys::EXCLUDE_FROM_EXTERNAL_LB;
use patina_crds::selector::any_matches;

use super::WhyNot;
use super::interfaces::Selection;
use super::segments::{Place, Reach, Segments};
use crate::l2::elector::{Elector, FieldId};
use crate::view::{NodeView, Options, ServiceView, Snapshot, TrafficPolicy};

/// How far a node comes on its way to leading: each value says what stops it there. From [`Fitness::NoInterface`] on it
/// could announce, and others are better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fitness {
    NotSelected,
    Excluded,
    NetworkUnavailable,
    NoSpeaker,
    Starting,
    NoLocalEndpoint,
    NoInterface,
    OtherSegment,
    Leaving,
    Isolated,
    Drained,
    Fit,
}

/// What its Node object says against announcing anything from it, by layer 2 or by BGP; `Fit`: nothing.
pub(super) fn standing(node: &NodeView, options: &Options) -> Fitness {
    if node.labels.contains_key(EXCLUDE_FROM_EXTERNAL_LB) && !options.ignore_exclude_lb {
        Fitness::Excluded
    } else if node.network_unavailable {
        Fitness::NetworkUnavailable
    } else {
        Fitness::Fit
    }
}

/// Names a set of advertisements that match some Service.
pub(super) type SetId = usize;

/// What a set of advertisements says, node by node.
#[derive(Debug)]
pub(super) struct Set {
    /// What stops the node whatever the Service, or `Fit`.
    pub(super) fitness: Vec<Fitness>,
    /// Preference score: weights add up within an advertisement and over all that select the node.
    pub(super) scores: Vec<u32>,
    /// By score: all nodes that are selected, fit or not.
    pub(super) fields: BTreeMap<u32, Option<FieldId>>,
    /// Which interfaces they select there.
    selections: Vec<Rc<Selection>>,
}

/// The nodes of a snapshot, by index, with everything that does not depend on the Service worked out once.
#[derive(Debug)]
pub(super) struct Nodes<'a> {
    own: &'a str,
    views: &'a [NodeView],
    names: Vec<Arc<str>>,
    by_name: BTreeMap<&'a str, usize>,
    /// Per node: what stops it whatever the Service, or `Fit`.
    general: Vec<Fitness>,
    /// Per node: its speaker is about to end.
    leaving: Vec<bool>,
    advertisements: &'a [L2Advertisement],
    /// Per advertisement, per node: whether it selects the node, and the sum of the preferences the node matches.
    selected: Vec<Vec<Option<u32>>>,
    pub(super) segments: Segments<'a>,
    set_ids: BTreeMap<Vec<usize>, SetId>,
    sets: Vec<Rc<Set>>,
    reaches: BTreeMap<(SetId, Place), Rc<[Reach]>>,
}

impl<'a> Nodes<'a> {
    pub(super) fn new(snapshot: &Snapshot<'a>) -> Self {
        let nodes = snapshot.nodes;
        let member = |node: &NodeView| snapshot.members.get(&node.name);
        let general = |node: &NodeView| match (standing(node, snapshot.options), member(node)) {
            (Fitness::Fit, None) => Fitness::NoSpeaker,
            (Fitness::Fit, Some(member)) if member.starting => Fitness::Starting,
            (standing, _) => standing,
        };
        let advertisements = snapshot.config.l2_advertisements.as_slice();
        let selects = |advertisement: &L2Advertisement, node: &NodeView| {
            let preferred = advertisement.preferred_nodes.iter();
            any_matches(&advertisement.node_selectors, &node.labels).then(|| {
                preferred
                    .filter(|preferred| preferred.selector.matches(&node.labels))
                    .fold(0u32, |sum, preferred| sum.saturating_add(preferred.weight))
            })
        };
        Self {
            own: snapshot.node,
            views: nodes,
            names: nodes.iter().map(|node| Arc::from(node.name.as_str())).collect(),
            by_name: nodes.iter().enumerate().map(|(index, node)| (node.name.as_str(), index)).collect(),
            general: nodes.iter().map(general).collect(),
            leaving: nodes.iter().map(|node| member(node).is_some_and(|member| member.draining)).collect(),
            advertisements,
            selected: advertisements
                .iter()
                .map(|advertisement| nodes.iter().map(|node| selects(advertisement, node)).collect())
                .collect(),
            segments: Segments::new(snapshot),
            set_ids: BTreeMap::new(),
            sets: Vec::new(),
            reaches: BTreeMap::new(),
        }
    }

    pub(super) fn names(&self) -> &[Arc<str>] {
        &self.names
    }

    /// The shared copy of a name.
    pub(super) fn name(&self, index: usize) -> Arc<str> {
        self.names.get(index).cloned().unwrap_or_else(|| Arc::from(""))
    }

    /// Index of this node; `None` while its Node object is not known.
    pub(super) fn own(&self) -> Option<usize> {
        self.by_name.get(self.own).copied()
    }

    /// Somebody wants the node's addresses elsewhere.
    pub(super) fn drained(&self, index: usize) -> bool {
        self.views.get(index).is_some_and(|node| node.draining)
    }

    /// The node's speaker is about to end.
    pub(super) fn leaving(&self, index: usize) -> bool {
        self.leaving.get(index).is_some_and(|leaving| *leaving)
    }

    /// The set of these advertisements, which are in order.
    pub(super) fn set_id(&mut self, elector: &mut Elector, advertisements: &[usize]) -> SetId {
        if let Some(id) = self.set_ids.get(advertisements) {
            return *id;
        }
        let id = self.sets.len();
        self.sets.push(Rc::new(self.work_out(elector, advertisements)));
        self.set_ids.insert(advertisements.to_vec(), id);
        id
    }

    pub(super) fn set(&self, id: SetId) -> Option<Rc<Set>> {
        self.sets.get(id).cloned()
    }

    fn work_out(&self, elector: &mut Elector, advertisements: &[usize]) -> Set {
        let mut set =
            Set { fitness: Vec::new(), scores: Vec::new(), fields: BTreeMap::new(), selections: Vec::new() };
        let mut distinct: BTreeMap<Vec<usize>, Rc<Selection>> = BTreeMap::new();
        let mut fields: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (index, general) in self.general.iter().enumerate() {
            let selection = |ad: &usize| Some((*ad, (*self.selected.get(*ad)?.get(index)?)?));
            let selecting: Vec<(usize, u32)> = advertisements.iter().filter_map(selection).collect();
            let score = selecting.iter().map(|(_, score)| *score).fold(0, u32::saturating_add);
            set.scores.push(score);
            if selecting.is_empty() {
                set.fitness.push(Fitness::NotSelected);
            } else {
                set.fitness.push(*general);
                fields.entry(score).or_default().push(index);
            }
            // What a node that is selected no more still answers for, until others do, was on some of these.
            let here: Vec<usize> = match selecting.is_empty() {
                true => advertisements.to_vec(),
                false => selecting.iter().map(|(ad, _)| *ad).collect(),
            };
            let selection = distinct.entry(here).or_insert_with_key(|here| {
                Rc::new(Selection::of(here.iter().filter_map(|ad| self.advertisements.get(*ad))))
            });
            set.selections.push(Rc::clone(selection));
        }
        set.fields =
            fields.into_iter().map(|(score, nodes)| (score, elector.field(nodes.into_iter()))).collect();
        set
    }

    /// How well each node can announce what lies there.
    pub(super) fn reach(&mut self, id: SetId, place: Place) -> Rc<[Reach]> {
        if let Some(known) = self.reaches.get(&(id, place)) {
            return Rc::clone(known);
        }
        let selections = self.sets.get(id).map(|set| set.selections.as_slice()).unwrap_or_default();
        let nodes = selections.iter().enumerate();
        let reach: Rc<[Reach]> =
            nodes.map(|(index, selection)| self.segments.reach(index, selection, place)).collect();
        self.reaches.insert((id, place), Rc::clone(&reach));
        reach
    }

    /// The interfaces that these advertisements select on this node.
    pub(super) fn selection_here(&self, id: SetId) -> Option<Rc<Selection>> {
        self.sets.get(id)?.selections.get(self.own()?).cloned()
    }

    /// The nodes, in order, to which its traffic policy and endpoints confine a Service; `None`: nothing does. That it has a
    /// usable endpoint somewhere was asked before (`Claim::barred`).
    pub(super) fn local(&self, service: &ServiceView) -> Option<Vec<usize>> {
        let usable = service.endpoints.iter().filter(|endpoint| endpoint.usable);
        let indexes = usable.filter_map(|endpoint| self.by_name.get(endpoint.node.as_deref()?).copied());
        match service.traffic_policy {
            TrafficPolicy::Cluster => None,
            TrafficPolicy::Local => Some(indexes.collect::<BTreeSet<_>>().into_iter().collect()),
        }
    }

    /// Why nobody announces: what stops the node that comes furthest, the first of them by index.
    pub(super) fn closest(&self, fitness: impl Iterator<Item = Fitness>) -> WhyNot {
        let mut best: Option<(usize, Fitness)> = None;
        for (index, fitness) in fitness.enumerate() {
            if best.is_none_or(|(_, best)| fitness > best) {
                best = Some((index, fitness));
            }
        }
        best.and_then(|(index, fitness)| self.lack(index, fitness)).unwrap_or(WhyNot::NoLiveSpeaker(None))
    }

    /// What a node lacks; `None`: nothing.
    pub(super) fn lack(&self, index: usize, fitness: Fitness) -> Option<WhyNot> {
        let name = Arc::clone(self.names.get(index)?);
        match fitness {
            Fitness::Fit => None,
            Fitness::NotSelected => Some(WhyNot::NodeNotSelected(name)),
            Fitness::Excluded => Some(WhyNot::NodeLabeledExcludeBalancers(name)),
            Fitness::NetworkUnavailable => Some(WhyNot::NodeNetworkUnavailable(name)),
            Fitness::NoSpeaker => Some(WhyNot::NoLiveSpeaker(Some(name))),
            Fitness::Starting => Some(WhyNot::SpeakerStarting(name)),
            Fitness::NoLocalEndpoint => Some(WhyNot::NoLocalEndpoints(name)),
            Fitness::NoInterface => Some(WhyNot::NoInterfaceForIt(name)),
            Fitness::OtherSegment => Some(WhyNot::OtherSegment(name)),
            Fitness::Leaving => Some(WhyNot::SpeakerLeaving(name)),
            Fitness::Isolated => Some(WhyNot::InterfaceIsolated(name)),
            Fitness::Drained => Some(WhyNot::NodeDraining(name)),
        }
    }
}
