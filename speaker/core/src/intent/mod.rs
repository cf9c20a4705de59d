//! Snapshot in, intent out: what this node answers for, and for every Service who leads it and why not we.
//!
//! ```text
//! Service ── ours? address in a pool? covered by an L2Advertisement? ── no ──> WhyNot (about the Service)
//!    │ yes
//! group: Services that share an address
//!    │  candidates: node selected by an advertisement, not excluded, network available, live speaker,
//!    │              and an endpoint (Local: of its own; Cluster: any)
//!    └─ order (l2::election) ── first is another node ──> WhyNot::NotOwner
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
//!   comes first, then score and hash. Sharing rules make their endpoints the same, except while EndpointSlices are
//!   catching up and for `Local` Services without a selector.
//!
//! **Interfaces.** A speaker knows its own only. Those of other nodes are taken to be usable: a leader without the
//! interface stays leader, here as on all others, and says so (`interfaceMissing`), because to step back alone would
//! leave the address without anybody. When membership carries each node's segments (issue 5), the interface becomes one
//! more stage of a node's fitness in `nodes.rs`, and nothing else changes.

mod groups;
mod interfaces;
mod no_route;
mod nodes;
pub mod routes;
mod services;
mod verdict;
mod why_not;

use std::sync::Arc;

pub use verdict::{Candidate, Intent, L2Announcement, Verdict};
pub use why_not::WhyNot;

use crate::l2::election::{self, Contender};
use crate::view::{ServiceView, Snapshot};
use groups::Group;
use nodes::{Fitness, Nodes};
use services::{Claim, Rules};

/// Decides what this node announces. A function of the snapshot alone: two speakers with equal snapshots name the same
/// leader for every Service.
#[must_use]
pub fn intent(snapshot: &Snapshot<'_>) -> Intent {
    let rules = Rules::new(snapshot.config, snapshot.options);
    let nodes = Nodes::new(snapshot);
    let mut intent = Intent::default();
    let mut claims = Vec::new();
    for service in snapshot.services {
        match rules.claim(service) {
            Ok(claim) => claims.push(claim),
            Err(why_not) => {
                let verdict = Verdict { why_not: Some(why_not), ..verdict_of(service) };
                intent.verdicts.insert(service.id.clone(), verdict);
            }
        }
    }
    for group in groups::groups(claims) {
        decide(snapshot, &nodes, group, &mut intent);
    }
    intent
}

/// Elects for one group and writes the verdicts of its members.
fn decide(snapshot: &Snapshot<'_>, nodes: &Nodes<'_>, group: Group<'_>, intent: &mut Intent) {
    let mut barred = Vec::new();
    let mut active = Vec::new();
    for claim in group.claims {
        match claim.barred.clone() {
            Some(why_not) => barred.push((claim, why_not)),
            None => {
                let fitness = nodes.fitness(&claim);
                active.push((claim, fitness));
            }
        }
    }

    let advertisements = active.iter().flat_map(|(claim, _)| claim.advertisements.iter().copied()).collect();
    let mut contenders: Vec<Contender<'_>> = Vec::new();
    for (index, node) in nodes.iter() {
        let serves = active.iter().filter(|(_, fitness)| fitness.get(index) == Some(&Fitness::Fit)).count();
        if serves > 0 {
            contenders.push(Contender { node, score: nodes.score(index, &advertisements), serves });
        }
    }
    election::order(&group.first_ingress, &mut contenders);
    let leader: Option<Arc<str>> = contenders.first().map(|contender| nodes.name(contender.node));
    let candidates: Vec<Candidate> = contenders
        .iter()
        .take(snapshot.options.max_candidates)
        .map(|c| Candidate { node: nodes.name(c.node), score: c.score, serves: c.serves })
        .collect();
    let elected = |service: &ServiceView| Verdict {
        leader: leader.clone(),
        candidates: candidates.clone(),
        candidate_count: contenders.len(),
        ..verdict_of(service)
    };

    for (claim, why_not) in barred {
        // Whatever bars it, it bars it everywhere: nobody leads it, even where the address answers for another Service.
        let verdict = Verdict { why_not: Some(why_not), ..verdict_of(claim.service) };
        intent.verdicts.insert(claim.service.id.clone(), verdict);
    }
    for (claim, fitness) in active {
        let mut verdict = elected(claim.service);
        match &leader {
            None => verdict.why_not = Some(nodes.closest(&fitness)),
            Some(leader) => match nodes.unfit_here(&fitness) {
                // Also when we lead the group for the sake of its other members.
                Some(why_not) => verdict.why_not = Some(why_not),
                None => {
                    let leads = **leader == *snapshot.node;
                    if !leads {
                        verdict.why_not = Some(WhyNot::NotOwner(Arc::clone(leader)));
                    }
                    announce(snapshot, nodes, &claim, leads, &mut verdict, intent);
                }
            },
        }
        intent.verdicts.insert(claim.service.id.clone(), verdict);
    }
}

/// This node is a candidate and can serve: puts the addresses on its interfaces, for now (it leads) or for later.
fn announce(
    snapshot: &Snapshot<'_>,
    nodes: &Nodes<'_>,
    claim: &Claim<'_>,
    leads: bool,
    verdict: &mut Verdict,
    intent: &mut Intent,
) {
    let here = nodes.advertisements_here(&claim.advertisements);
    let failback = here.iter().map(|advertisement| advertisement.failback).max().unwrap_or_default();
    let selection = interfaces::Selection::of(here);
    let mut order: Vec<Arc<str>> = verdict.candidates.iter().map(|c| Arc::clone(&c.node)).collect();
    if !order.iter().any(|node| **node == *snapshot.node) {
        order.truncate(snapshot.options.max_candidates.saturating_sub(1));
        order.push(nodes.name(snapshot.node));
    }
    let order: Arc<[Arc<str>]> = order.into();
    for ip in &claim.service.ingress {
        match selection.usable(*ip, snapshot.interfaces) {
            Ok(found) => {
                let announcement = Arc::make_mut(&mut intent.l2).entry(*ip).or_default();
                let interfaces = found.iter().map(|interface| interface.index);
                Arc::make_mut(&mut announcement.interfaces).extend(interfaces);
                announcement.order = Arc::clone(&order);
                announcement.leads = leads;
                announcement.failback = announcement.failback.max(failback);
                announcement.services.insert(claim.service.id.clone());
                if leads {
                    verdict.mine = true;
                    verdict.all_interfaces = selection.is_all();
                    verdict.interfaces.extend(found.iter().map(|interface| interface.name.clone()));
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

fn verdict_of(service: &ServiceView) -> Verdict {
    Verdict { addresses: service.ingress.clone(), ..Verdict::default() }
}
