//! Who announces: the speakers' intent for layer 2 and their routes for BGP, node by node.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use patina_controller_core::view::ServiceId;
use patina_crds::config::Config;
use patina_speaker_core::intent::routes::{Announcements, NoRoute};
use patina_speaker_core::intent::{Intent, Verdict, WhyNot, intent};
use patina_speaker_core::view::{self, EndpointView, InterfaceView, ServiceView, Snapshot};

use super::input::{Input, PlannedService};
use super::progress::Progress;
use super::{Layer2, Options, Route};

/// What is announced for one Service.
#[derive(Debug, Default)]
pub(super) struct Announced {
    pub(super) layer2: Layer2,
    pub(super) routes: Vec<Route>,
    /// For people: why no route goes out.
    pub(super) no_routes: Vec<String>,
}

/// Asks the speaker of every node. The statuses are those that the controller writes.
pub(super) fn announce(
    input: &Input,
    config: &Config,
    options: &Options,
    progress: &mut Progress,
) -> BTreeMap<ServiceId, Announced> {
    let flags = view::Options {
        ignore_exclude_lb: options.ignore_exclude_lb,
        lb_class: options.class.clone(),
        max_candidates: usize::MAX,
    };
    let services: Vec<ServiceView> =
        input.services.iter().map(|service| as_speakers_see(service, input, options)).collect();
    let mut announced: BTreeMap<ServiceId, Announced> =
        services.iter().map(|service| (service.id.clone(), Announced::default())).collect();
    let stage = Stage::new(input, config, &flags);
    progress.at("electing announcers");
    for (id, verdict) in stage.verdicts(&services, progress) {
        if let Some(announced) = announced.get_mut(&id) {
            announced.layer2 = layer2(&verdict, input.nodes.is_empty());
        }
    }
    stage.routes(&services, &mut announced, progress);
    announced
}

fn as_speakers_see(service: &PlannedService, input: &Input, options: &Options) -> ServiceView {
    let endpoints = match input.endpoints.get(&service.id) {
        Some(endpoints) => endpoints.clone(),
        None if options.assume_endpoints => {
            let on = |name: &String| EndpointView { node: Some(name.as_str().into()), usable: true };
            input.nodes.iter().map(|node| on(&node.name)).collect()
        }
        None => Vec::new(),
    };
    patina_speaker::convert::service(&service.object, endpoints)
}

/// What every speaker of the plan has in common.
struct Stage<'a> {
    input: &'a Input,
    config: &'a Config,
    flags: &'a view::Options,
    /// Every node.
    members: view::Members,
    /// Every interface that an advertisement names, and one more.
    interfaces: Vec<InterfaceView>,
}

impl<'a> Stage<'a> {
    fn new(input: &'a Input, config: &'a Config, flags: &'a view::Options) -> Self {
        let mut names: BTreeSet<&str> =
            config.l2_advertisements.iter().flat_map(|ad| &ad.interfaces).map(String::as_str).collect();
        names.insert("eth0");
        let usable = |(index, name): (u32, &str)| InterfaceView {
            name: name.to_owned(),
            index,
            up: true,
            arp: true,
            ndp: true,
            ..InterfaceView::default()
        };
        let members = input.nodes.iter().map(|node| (node.name.clone(), view::Member::default())).collect();
        Self { input, config, flags, members, interfaces: (1..).zip(names).map(usable).collect() }
    }

    fn intent(&self, node: &str, services: &[ServiceView]) -> Intent {
        intent(&Snapshot {
            node,
            config: self.config,
            services,
            nodes: &self.input.nodes,
            members: &self.members,
            interfaces: &self.interfaces,
            options: self.flags,
        })
    }

    /// The verdict on each Service, from the node that leads it: it alone knows whether it can serve this Service, when it
    /// was elected for several that share an address. Of a Service that nobody leads, any node says the same.
    fn verdicts(
        &self,
        services: &[ServiceView],
        progress: &mut Progress,
    ) -> BTreeMap<ServiceId, Arc<Verdict>> {
        let anybody = self.input.nodes.first().map_or("", |node| &node.name);
        let mut verdicts = self.intent(anybody, services).verdicts;
        let shared = shared(services);
        let mut by_leader: BTreeMap<String, Vec<ServiceView>> = BTreeMap::new();
        let mut unled = Vec::new();
        for service in services {
            let leader = verdicts.get(&service.id).and_then(|verdict| verdict.leader.as_deref());
            match leader {
                Some(leader) => by_leader.entry(leader.to_owned()).or_default().push(service.clone()),
                // It counts in the election of those that it shares an address with.
                None if service.ingress.iter().any(|ip| shared.contains(ip)) => unled.push(service.clone()),
                None => {}
            }
        }
        for (leader, mut services) in by_leader {
            progress.at(&format!("asking {leader} what it announces"));
            services.extend(unled.iter().cloned());
            let own = self.intent(&leader, &services).verdicts;
            verdicts
                .extend(own.into_iter().filter(|(_, verdict)| verdict.leader.as_deref() == Some(&*leader)));
        }
        verdicts
    }

    fn routes(
        &self,
        services: &[ServiceView],
        announced: &mut BTreeMap<ServiceId, Announced>,
        progress: &mut Progress,
    ) {
        if self.config.bgp_advertisements.is_empty() {
            return;
        }
        let announcements = Announcements::new(self.config, services, &self.input.nodes, self.flags);
        for node in &self.input.nodes {
            progress.at(&format!("collecting the routes of {}", node.name));
            let told = announcements.on(&node.name);
            for (id, verdict) in told.verdicts {
                let Some(announced) = announced.get_mut(id) else { continue };
                for (peer, prefix) in verdict.routes {
                    let Some(route) = told.peers.get(peer).and_then(|prefixes| prefixes.get(&prefix)) else {
                        continue;
                    };
                    let mut communities: Vec<String> =
                        route.communities.iter().map(ToString::to_string).collect();
                    communities.sort_unstable();
                    announced.routes.push(Route {
                        peer: peer.to_owned(),
                        node: node.name.clone(),
                        prefix: prefix.to_string(),
                        communities,
                        local_pref: route.local_pref,
                    });
                }
                let why_not = verdict.why_not.iter().chain(verdict.missing.values());
                for why_not in why_not.filter(|why_not| worth_saying(why_not)) {
                    let line = format!("{}: {why_not}", why_not.reason());
                    if !announced.no_routes.contains(&line) {
                        announced.no_routes.push(line);
                    }
                }
            }
        }
        for announced in announced.values_mut() {
            announced.routes.sort_unstable();
        }
    }
}

/// The addresses that more than one Service has.
fn shared(services: &[ServiceView]) -> BTreeSet<IpAddr> {
    let mut holders: HashMap<IpAddr, usize> = HashMap::new();
    for ip in services.iter().flat_map(|service| &service.ingress) {
        *holders.entry(*ip).or_default() += 1;
    }
    holders.into_iter().filter(|(_, count)| *count > 1).map(|(ip, _)| ip).collect()
}

fn layer2(verdict: &Verdict, no_nodes: bool) -> Layer2 {
    let candidates: Vec<String> =
        verdict.candidates.iter().map(|candidate| candidate.node.to_string()).collect();
    let reason = match &verdict.why_not {
        None | Some(WhyNot::NotOwner(_)) => None,
        Some(WhyNot::NoLiveSpeaker(None) | WhyNot::NoEndpoints) if no_nodes => Some(
            "noLiveSpeaker: there are no Nodes in the files, so there is none that could announce it"
                .to_owned(),
        ),
        Some(why_not) => Some(format!("{}: {why_not}", why_not.reason())),
    };
    let announcer = verdict.leader.as_ref().filter(|_| reason.is_none()).map(|leader| leader.to_string());
    Layer2 { announcer, candidates, reason, choice: choice(&verdict.candidates) }
}

/// Why the first of the candidates.
fn choice(candidates: &[patina_speaker_core::intent::Candidate]) -> String {
    let Some((first, others)) = candidates.split_first() else { return String::new() };
    let Some(second) = others.first() else { return "the only candidate".to_owned() };
    let count = candidates.len();
    if first.serves > second.serves {
        format!("serves more of the Services that share the address than the other {}", count - 1)
    } else if first.announces > second.announces {
        format!("can announce more of the addresses than the other {}", count - 1)
    } else if second.last_resort > first.last_resort {
        format!("not draining, of {count} candidates")
    } else if first.score > second.score {
        format!("preferred by weight {}, of {count} candidates", first.score)
    } else if first.score > 0 {
        format!("first by hash of those of weight {}, of {count} candidates", first.score)
    } else {
        format!("first by hash, of {count} candidates")
    }
}

/// Where nobody could expect a route, its absence is no news.
fn worth_saying(why_not: &NoRoute) -> bool {
    !matches!(
        why_not,
        NoRoute::NotOurs(_)
            | NoRoute::NoMatchingAdvertisement { .. }
            | NoRoute::NodeNotSelected(_)
            | NoRoute::NoLocalEndpoints(_)
    )
}
