//! Snapshot in, intent out: what this node answers for, and for every Service who leads it and why not we.
//!
//! ```text
//! Service ── ours? address in a pool? covered by an L2Advertisement? ── no ──> WhyNot (about the Service)
//!    │ yes
//! group: Services that share an address
//!    │  fit: node selected by an advertisement, not excluded, network available, live speaker that has started,
//!    │       and an endpoint (Local: of its own; Cluster: any)
//!    │  candidates: of the fit nodes those with the best link to an address: an interface in its subnet, else any
//!    │              usable one, else (nobody has one) all
//!    │  order: who does more for the group, then preference score and hash (l2::election)
//!    └─ first is another node ──> WhyNot: what this node lacks, or NotOwner
//!          │ this node
//!          └─ its usable interfaces ── none ──> WhyNot::{InterfaceMissing, NoUsableInterface}
//!                └──> Intent::l2
//! ```
//!
//! **Services that share an address elect together**, or two nodes would answer for it. They form a group (also
//! transitively: a dual-stack Service ties the groups of its two addresses together), and
//! - the text that is hashed is the first ingress text of all that hold the addresses, taken from the one whose first
//!   address is lowest (IPv4 before IPv6). With one Service, or with Services that list the same first address, that is
//!   MetalLB's choice; it depends on who holds the addresses only, so that a change of endpoints does not move them;
//! - a candidate must be able to serve at least one of the group that has endpoints; one that can serve more of them
//!   comes first, then one that can announce more of their addresses, then score and hash. Sharing rules make their
//!   endpoints the same, except while EndpointSlices are catching up and for `Local` Services without a selector.
//!
//! **Last resorts** ([`LastResort`]) are candidates still, so that an address with one left is never without: a node that
//! drains comes after all that can do as much, one whose interfaces for the group reach no other speaker after all that
//! reach one, one whose speaker is about to end after everybody.
//!
//! **Interfaces.** Each speaker tells the others of its own; one that tells nothing is taken to have all that is needed. When
//! no candidate has the interface, the leader by score and hash stays leader, as with MetalLB, and says so
//! (`interfaceMissing`): to step back would leave nobody to say it.

mod candidates;
mod groups;
mod interfaces;
mod no_route;
mod nodes;
pub mod routes;
mod segments;
mod services;
mod shared;
mod verdict;
mod why_not;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use patina_crds::config::Failback;
use patina_crds::net::Family;

pub use verdict::{Candidate, Holders, How, Intent, L2Announcement, LastResort, Verdict};
pub use why_not::WhyNot;

use crate::l2::elector::Elector;
use crate::view::{ServiceId, ServiceView, Snapshot};
use candidates::{Candidates, Known, Part, fitness};
use nodes::{Fitness, Nodes};
use services::{Claim, Rules};
use shared::{Orders, Shared};

/// What one decision leaves for the next, so that it is sooner made. An empty one leads to the same intents.
#[derive(Debug, Default)]
pub struct Cache {
    elector: Elector,
}

/// Decides what this node announces. A function of the snapshot alone: two speakers with equal snapshots name the same
/// leader for every Service.
#[must_use]
pub fn intent(snapshot: &Snapshot<'_>) -> Intent {
    intent_with(&mut Cache::default(), snapshot)
}

/// The same, for whoever decides again and again.
#[must_use]
pub fn intent_with(cache: &mut Cache, snapshot: &Snapshot<'_>) -> Intent {
    let rules = Rules::new(snapshot.config, snapshot.options);
    let nodes = Nodes::new(snapshot);
    cache.elector.begin(nodes.names());
    let mut decision = Decision {
        snapshot,
        elector: &mut cache.elector,
        nodes,
        known: Known::default(),
        shared: Shared::default(),
        verdicts: Vec::with_capacity(snapshot.services.len()),
        l2: Vec::with_capacity(snapshot.services.len()),
        others: Vec::new(),
    };
    let mut claims = Vec::with_capacity(snapshot.services.len());
    for service in snapshot.services {
        match rules.claim(service) {
            Ok(claim) => claims.push(claim),
            Err(why_not) => decision.refuse(service, why_not),
        }
    }
    groups::group(&mut claims);
    for group in claims.chunk_by(|a, b| a.group == b.group) {
        decision.decide(group);
    }
    let intent = decision.end();
    cache.elector.end();
    intent
}

/// A decision while it is made.
struct Decision<'a, 'c> {
    snapshot: &'c Snapshot<'a>,
    elector: &'c mut Elector,
    nodes: Nodes<'a>,
    known: Known,
    shared: Shared,
    /// What the intent is made of: a map that is made of a list has no room to spare.
    verdicts: Vec<(ServiceId, Arc<Verdict>)>,
    l2: Vec<(IpAddr, L2Announcement)>,
    others: Vec<IpAddr>,
}

/// What the members of a group want of an address.
#[derive(Default)]
struct Draft {
    interfaces: Arc<BTreeSet<u32>>,
    keepers: Arc<BTreeSet<Arc<str>>>,
    leads: bool,
    failback: Failback,
    services: Vec<ServiceId>,
}

/// What the Services of a group have in common.
struct Elected {
    candidates: Rc<Candidates>,
    count: usize,
    orders: Orders,
    leader: Option<Arc<str>>,
    /// This node leads.
    leads: bool,
}

impl Decision<'_, '_> {
    /// Whatever bars it, it bars it everywhere: nobody leads it, even where the address answers for another Service.
    fn refuse(&mut self, service: &ServiceView, why_not: WhyNot) {
        let verdict = Verdict { why_not: Some(why_not), ..Verdict::default() };
        self.verdicts.push((service.id.clone(), self.shared.verdict(verdict)));
        self.others.extend(&service.ingress);
    }

    /// Elects for one group and writes the verdicts of its members.
    fn decide(&mut self, group: &[Claim<'_>]) {
        let first_ingress = groups::first_ingress(group);
        self.elector.keep(first_ingress);
        let mut active = Vec::new();
        for claim in group {
            match claim.barred.clone() {
                Some(why_not) => self.refuse(claim.service, why_not),
                None => active.push(claim),
            }
        }
        if active.is_empty() {
            return;
        }
        let parts: Vec<Part> = active.iter().map(|claim| self.part(claim)).collect();
        let elected = self.elect(first_ingress, &active, &parts);
        let mut drafts = BTreeMap::new();
        for (number, (claim, part)) in active.iter().zip(&parts).enumerate() {
            let verdict = self.verdict(&elected, number, claim, part, &mut drafts);
            self.verdicts.push((claim.service.id.clone(), self.shared.verdict(verdict)));
            self.others.extend(claim.service.ingress.iter().filter(|ip| !drafts.contains_key(*ip)));
        }
        for (ip, draft) in drafts {
            let Draft { interfaces, keepers, leads, failback, services } = draft;
            let order = Arc::clone(&elected.orders.order);
            let how = self.shared.how(How { interfaces, order, keepers, leads, failback });
            self.l2.push((ip, L2Announcement { how, services: services.into() }));
        }
    }

    fn end(mut self) -> Intent {
        let l2: BTreeMap<_, _> = self.l2.into_iter().collect();
        self.others.retain(|ip| !l2.contains_key(ip));
        self.others.sort_unstable();
        self.others.dedup();
        Intent {
            l2: Arc::new(l2),
            verdicts: self.verdicts.into_iter().collect(),
            others: self.others.into_boxed_slice(),
        }
    }

    fn part(&mut self, claim: &Claim<'_>) -> Part {
        let ingress = claim.service.ingress.iter();
        Part {
            set: self.nodes.set_id(self.elector, &claim.advertisements),
            places: ingress.map(|ip| self.nodes.segments.place(*ip)).collect(),
            local: self.nodes.local(claim.service),
        }
    }

    fn elect(&mut self, text: &str, active: &[&Claim<'_>], parts: &[Part]) -> Elected {
        // Preferences of all that share the address count.
        let union = match parts {
            [alone] => alone.set,
            _ => {
                let all = active.iter().flat_map(|claim| claim.advertisements.iter().copied());
                let mut all: Vec<usize> = all.collect();
                all.sort_unstable();
                all.dedup();
                self.nodes.set_id(self.elector, &all)
            }
        };
        let candidates = self.known.candidates(&mut self.nodes, self.elector, parts, union);
        let first = candidates.first(self.elector, text, self.snapshot.options.max_candidates.max(1));
        let leader = first.first().map(|(node, _, _)| *node);
        Elected {
            count: candidates.count(),
            orders: self.shared.orders(&self.nodes, &first, candidates.keeps_here()),
            candidates,
            leader: leader.map(|node| self.nodes.name(node)),
            leads: leader.is_some() && leader == self.nodes.own(),
        }
    }

    fn verdict(
        &mut self,
        elected: &Elected,
        number: usize,
        claim: &Claim<'_>,
        part: &Part,
        drafts: &mut BTreeMap<IpAddr, Draft>,
    ) -> Verdict {
        let mut verdict = Verdict {
            leader: elected.leader.clone(),
            candidates: Arc::clone(&elected.orders.candidates),
            candidate_count: elected.count,
            ..Verdict::default()
        };
        let Some(leader) = &elected.leader else {
            let all = 0..self.nodes.names().len();
            verdict.why_not = Some(self.nodes.closest(all.map(|node| fitness(&self.nodes, part, node))));
            return verdict;
        };
        let Some(own) = self.nodes.own() else {
            verdict.why_not = Some(WhyNot::NodeUnknown(Arc::from(self.snapshot.node)));
            return verdict;
        };
        let here = match elected.leads {
            // What others could do better did not decide.
            true => fitness(&self.nodes, part, own),
            false => elected.candidates.fitness_here(&mut self.nodes, number, part),
        };
        let leads = elected.leads && here == Fitness::Fit;
        verdict.why_not = match self.nodes.lack(own, here) {
            // Also when we lead the group for the sake of its other members.
            Some(why_not) => Some(why_not),
            None if !leads => Some(WhyNot::NotOwner(Arc::clone(leader))),
            None => None,
        };
        if leads || !elected.leads {
            self.announce(elected, leads, claim, part, &mut verdict, drafts);
        }
        verdict
    }

    /// Puts the addresses on the interfaces of this node: it leads, or may have to, or may have had to.
    fn announce(
        &mut self,
        elected: &Elected,
        leads: bool,
        claim: &Claim<'_>,
        part: &Part,
        verdict: &mut Verdict,
        drafts: &mut BTreeMap<IpAddr, Draft>,
    ) {
        let Some(selection) = self.nodes.selection_here(part.set) else { return };
        let advertisements = claim.advertisements.iter();
        let matching = advertisements.filter_map(|ad| self.snapshot.config.l2_advertisements.get(*ad));
        let failback = matching.map(|advertisement| advertisement.failback).max().unwrap_or_default();
        let keepers = self.shared.keepers(&self.nodes, &elected.candidates, failback);
        for ip in &claim.service.ingress {
            let family = Family::of(*ip);
            match self.shared.usable(part.set, &selection, family, self.snapshot.interfaces) {
                Ok(found) => {
                    let draft = drafts.entry(*ip).or_default();
                    if draft.interfaces.is_empty() {
                        draft.interfaces = found.indexes;
                    } else if draft.interfaces != found.indexes {
                        Arc::make_mut(&mut draft.interfaces).extend(found.indexes.iter());
                    }
                    draft.leads = leads;
                    if failback >= draft.failback {
                        draft.keepers = Arc::clone(&keepers);
                        draft.failback = failback;
                    }
                    draft.services.push(claim.service.id.clone());
                    if leads {
                        verdict.mine = true;
                        verdict.all_interfaces = selection.is_all();
                        verdict.interfaces = match verdict.interfaces.is_empty() {
                            true => found.names,
                            false => Arc::new(verdict.interfaces.union(&found.names).cloned().collect()),
                        };
                    }
                }
                Err(why_not) if leads => {
                    verdict.failed.insert(*ip, why_not);
                }
                Err(_) => {}
            }
        }
        if leads && !verdict.mine {
            verdict.why_not = verdict.failed.values().next().cloned();
        }
    }
}
