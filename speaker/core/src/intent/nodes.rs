//! Which nodes are fit to announce a Service, and what the others lack.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use patina_crds::config::L2Advertisement;
use patina_crds::keys::EXCLUDE_FROM_EXTERNAL_LB;
use patina_crds::selector::any_matches;

use super::WhyNot;
use super::services::Claim;
use crate::view::{NodeView, Options, Snapshot, TrafficPolicy};

/// How far a node comes on its way to being a candidate: each value says what stops it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fitness {
    NotSelected,
    Excluded,
    NetworkUnavailable,
    NoSpeaker,
    NoLocalEndpoint,
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

/// The nodes of a snapshot, by index, with everything that does not depend on the Service worked out once.
#[derive(Debug)]
pub(super) struct Nodes<'a> {
    own: &'a str,
    names: Vec<Arc<str>>,
    by_name: BTreeMap<&'a str, usize>,
    /// Per node: what stops it whatever the Service, or `Fit`.
    general: Vec<Fitness>,
    advertisements: &'a [L2Advertisement],
    /// Per advertisement, per node: whether it selects the node, and the sum of the preferences the node matches.
    selected: Vec<Vec<Option<u32>>>,
}

impl<'a> Nodes<'a> {
    pub(super) fn new(snapshot: &Snapshot<'a>) -> Self {
        let nodes = snapshot.nodes;
        let general = nodes
            .iter()
            .map(|node| match standing(node, snapshot.options) {
                Fitness::Fit if !snapshot.members.contains_key(&node.name) => Fitness::NoSpeaker,
                standing => standing,
            })
            .collect();
        let advertisements = snapshot.config.l2_advertisements.as_slice();
        let selected = advertisements
            .iter()
            .map(|advertisement| {
                nodes
                    .iter()
                    .map(|node| {
                        any_matches(&advertisement.node_selectors, &node.labels).then(|| {
                            advertisement
                                .preferred_nodes
                                .iter()
                                .filter(|preferred| preferred.selector.matches(&node.labels))
                                .fold(0u32, |sum, preferred| sum.saturating_add(preferred.weight))
                        })
                    })
                    .collect()
            })
            .collect();
        Self {
            own: snapshot.node,
            names: nodes.iter().map(|node| Arc::from(node.name.as_str())).collect(),
            by_name: nodes.iter().enumerate().map(|(index, node)| (node.name.as_str(), index)).collect(),
            general,
            advertisements,
            selected,
        }
    }

    /// Index and name of every node.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &str)> {
        self.names.iter().map(|name| &**name).enumerate()
    }

    /// The shared copy of a name.
    pub(super) fn name(&self, name: &str) -> Arc<str> {
        let known = self.by_name.get(name).and_then(|index| self.names.get(*index));
        known.cloned().unwrap_or_else(|| Arc::from(name))
    }

    /// Index of this node; `None` while its Node object is not known.
    fn own_index(&self) -> Option<usize> {
        self.by_name.get(self.own).copied()
    }

    /// How far each node comes for this Service.
    pub(super) fn fitness(&self, claim: &Claim<'_>) -> Vec<Fitness> {
        let endpoints = claim.service.endpoints.iter().filter(|endpoint| endpoint.usable);
        let local: Option<BTreeSet<usize>> = match claim.service.traffic_policy {
            // That it has a usable endpoint somewhere was asked before (`Claim::barred`).
            TrafficPolicy::Cluster => None,
            TrafficPolicy::Local => Some(
                endpoints
                    .filter_map(|endpoint| endpoint.node.as_deref())
                    .filter_map(|node| self.by_name.get(node).copied())
                    .collect(),
            ),
        };
        self.general
            .iter()
            .enumerate()
            .map(|(index, general)| {
                if !claim.advertisements.iter().any(|ad| self.selection(*ad, index).is_some()) {
                    Fitness::NotSelected
                } else if *general == Fitness::Fit
                    && local.as_ref().is_some_and(|local| !local.contains(&index))
                {
                    Fitness::NoLocalEndpoint
                } else {
                    *general
                }
            })
            .collect()
    }

    /// The preference score of a node: weights add up within an advertisement and over all that select the node.
    pub(super) fn score(&self, index: usize, advertisements: &BTreeSet<usize>) -> u32 {
        advertisements
            .iter()
            .filter_map(|advertisement| self.selection(*advertisement, index))
            .fold(0, u32::saturating_add)
    }

    /// Those of the advertisements that select this node.
    pub(super) fn advertisements_here(&self, advertisements: &[usize]) -> Vec<&'a L2Advertisement> {
        let Some(own) = self.own_index() else { return Vec::new() };
        let here =
            advertisements.iter().filter(|advertisement| self.selection(**advertisement, own).is_some());
        here.filter_map(|advertisement| self.advertisements.get(*advertisement)).collect()
    }

    /// What stops this node; `None`: nothing.
    pub(super) fn unfit_here(&self, fitness: &[Fitness]) -> Option<WhyNot> {
        match self.own_index() {
            Some(index) => self.unfit(index, fitness),
            None => Some(WhyNot::NodeUnknown(Arc::from(self.own))),
        }
    }

    /// Why nobody announces: what stops the node that comes furthest, the first of them by index.
    pub(super) fn closest(&self, fitness: &[Fitness]) -> WhyNot {
        let best = (0..fitness.len()).rev().max_by_key(|index| fitness.get(*index));
        best.and_then(|index| self.unfit(index, fitness)).unwrap_or(WhyNot::NoLiveSpeaker(None))
    }

    /// What stops a node; `None`: nothing.
    fn unfit(&self, index: usize, fitness: &[Fitness]) -> Option<WhyNot> {
        let name = Arc::clone(self.names.get(index)?);
        match fitness.get(index)? {
            Fitness::Fit => None,
            Fitness::NotSelected => Some(WhyNot::NodeNotSelected(name)),
            Fitness::Excluded => Some(WhyNot::NodeLabeledExcludeBalancers(name)),
            Fitness::NetworkUnavailable => Some(WhyNot::NodeNetworkUnavailable(name)),
            Fitness::NoSpeaker => Some(WhyNot::NoLiveSpeaker(Some(name))),
            Fitness::NoLocalEndpoint => Some(WhyNot::NoLocalEndpoints(name)),
        }
    }

    fn selection(&self, advertisement: usize, node: usize) -> Option<u32> {
        *self.selected.get(advertisement)?.get(node)?
    }
}
