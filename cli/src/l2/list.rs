//! From facts to a listing. Pure: the same facts give the same answer.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use anyhow::{Result, bail};
use k8s_openapi::api::core::v1::Service;
use patina_crds::config::Config;
use patina_crds::keys;
use patina_crds::types::{AddressConflict, ServiceL2Status};
use patina_speaker::convert;
use patina_speaker_core::intent::{Verdict, WhyNot, intent};
use patina_speaker_core::view::{Member, Members, NodeView, Options, ServiceId, ServiceView, Snapshot};
use serde::Serialize;

use super::Facts;
use crate::cluster::{is_component, is_ready};

/// Which Services are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    namespace: Option<String>,
    name: Option<String>,
}

impl Filter {
    /// `service` is `NAME` or `NAMESPACE/NAME`. Without it, everything in the namespace, if one is given, or everything.
    ///
    /// # Errors
    /// Two different namespaces.
    pub fn of(service: Option<&str>, namespace: Option<&str>, otherwise: &str) -> Result<Self> {
        let Some(service) = service else {
            return Ok(Self { namespace: namespace.map(str::to_owned), name: None });
        };
        let service = service.trim_start_matches("service/").trim_start_matches("svc/");
        let (found, name) = match service.split_once('/') {
            Some((found, name)) => (Some(found), name),
            None => (None, service),
        };
        if let (Some(found), Some(namespace)) = (found, namespace)
            && found != namespace
        {
            bail!("the Service is said to be in namespace {found} and, by -n, in {namespace}");
        }
        let namespace = found.or(namespace).unwrap_or(otherwise);
        Ok(Self { namespace: Some(namespace.to_owned()), name: Some(name.to_owned()) })
    }

    /// The one Service that is asked for.
    #[must_use]
    pub fn one(&self) -> Option<(&str, &str)> {
        Some((self.namespace.as_deref()?, self.name.as_deref()?))
    }

    /// Whether it is asked for.
    #[must_use]
    pub fn takes(&self, service: &Service) -> bool {
        let metadata = &service.metadata;
        (self.namespace.is_none() || self.namespace == metadata.namespace)
            && (self.name.is_none() || self.name == metadata.name)
    }
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Listing {
    /// By address, then Service.
    pub items: Vec<Row>,
    /// What somebody should look at, one sentence each.
    pub warnings: Vec<String>,
    /// What could not be read, and what is therefore not known.
    pub unknown: Vec<String>,
}

/// An address of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// As the status has it.
    pub address: String,
    /// Of the Service.
    pub namespace: String,
    /// Of the Service.
    pub name: String,
    /// Who says that it announces; more than one is a handover, or a mistake.
    pub announcers: Vec<Announcer>,
    /// The first of those that could, in order, as the speakers order them; from what the API server knows.
    pub candidates: Vec<Candidate>,
    /// How many there are in all.
    pub candidate_count: usize,
    /// Without a candidate: why.
    pub reason: Option<String>,
    /// Hosts that use it and are not ours.
    pub conflicts: Vec<Conflict>,
}

/// A node that announces.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Announcer {
    /// Its name.
    pub node: String,
    /// On which interfaces; empty means all.
    pub interfaces: Vec<String>,
    /// RFC 3339; null: a speaker that does not say.
    pub since: Option<String>,
    /// One word: why it took over.
    pub cause: Option<String>,
    /// From which node.
    pub from: Option<String>,
}

/// A node that could.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Candidate {
    /// Its name.
    pub node: String,
    /// Sum of the weights of the preferences that it matches.
    pub score: u32,
    /// Why it comes after others: `draining`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_resort: Option<String>,
}

/// A foreign host that uses the address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Conflict {
    /// The host's MAC address.
    pub mac: String,
    /// The node that saw it.
    pub node: String,
    /// On which interface.
    pub interface: String,
    /// RFC 3339.
    pub first_seen: String,
    /// We announce the address nevertheless.
    pub in_use: bool,
}

impl Listing {
    /// Every address has one announcer and no other user.
    #[must_use]
    pub fn is_well(&self) -> bool {
        let well = |row: &Row| row.announcers.len() == 1 && row.conflicts.is_empty();
        self.unknown.is_empty() && self.items.iter().all(well)
    }
}

/// Lists the addresses that are, or should be, announced by layer 2.
#[must_use]
pub fn list(facts: &Facts, filter: &Filter, options: &Options) -> Listing {
    let mut listing = Listing { items: Vec::new(), warnings: Vec::new(), unknown: unknown(facts) };
    let announcers = announcers(facts);
    let mut verdicts = verdicts(facts, options);
    for service in facts.services.iter().filter(|service| filter.takes(service)) {
        let id = convert::service_id(service);
        let verdict = verdicts.remove(&id);
        let announcers = announcers.get(&id).cloned().unwrap_or_default();
        let ours = verdict.as_ref().is_none_or(|verdict| is_for_layer2(verdict));
        if announcers.is_empty() && !ours && filter.one().is_none() {
            continue;
        }
        for address in addresses(service) {
            let row = row(address, &id, &announcers, verdict.as_deref(), facts);
            warn(&row, facts.l2.is_ok(), &mut listing.warnings);
            listing.items.push(row);
        }
    }
    let key = |row: &Row| (row.address.parse::<IpAddr>().ok(), row.namespace.clone(), row.name.clone());
    listing.items.sort_by_cached_key(key);
    listing
}

fn row(
    address: String,
    id: &ServiceId,
    announcers: &[Announcer],
    verdict: Option<&Verdict>,
    facts: &Facts,
) -> Row {
    let candidates = verdict.map(|verdict| verdict.candidates.iter()).into_iter().flatten();
    let candidate = |candidate: &patina_speaker_core::intent::Candidate| Candidate {
        node: candidate.node.to_string(),
        score: candidate.score,
        last_resort: candidate.last_resort.map(|why| why.to_string()),
    };
    let reason =
        verdict.filter(|verdict| verdict.leader.is_none()).and_then(|verdict| verdict.why_not.as_ref());
    let conflicts = facts.conflicts.iter().flatten().filter(|conflict| conflict.spec.address == address);
    let mut conflicts: Vec<Conflict> = conflicts.map(conflict).collect();
    conflicts.sort();
    Row {
        namespace: id.namespace.clone(),
        name: id.name.clone(),
        announcers: announcers.to_vec(),
        candidates: candidates.map(candidate).collect(),
        candidate_count: verdict.map_or(0, |verdict| verdict.candidate_count),
        reason: reason.map(|why_not| format!("{}: {why_not}", why_not.reason())),
        conflicts,
        address,
    }
}

fn conflict(object: &AddressConflict) -> Conflict {
    let spec = &object.spec;
    Conflict {
        mac: spec.mac.clone(),
        node: spec.node.clone(),
        interface: spec.interface.clone(),
        first_seen: spec.first_seen.clone(),
        in_use: spec.in_use,
    }
}

fn warn(row: &Row, announcers_known: bool, warnings: &mut Vec<String>) {
    let Row { address, namespace, name, announcers, .. } = row;
    let nodes: Vec<&str> = announcers.iter().map(|announcer| announcer.node.as_str()).collect();
    if nodes.len() > 1 {
        warnings.push(format!(
            "{address} ({namespace}/{name}): {} all say that they announce it. For a moment that is a handover; if it lasts, \
             they do not hear each other",
            nodes.join(", ")
        ));
    } else if nodes.is_empty() && announcers_known {
        let why = row.reason.clone().unwrap_or_else(|| "nobody says why; see kubectl patina why".to_owned());
        warnings.push(format!("{address} ({namespace}/{name}): nobody announces it: {why}"));
    }
    for conflict in &row.conflicts {
        let ours = if conflict.in_use { "and we announce it too" } else { "so we do not announce it" };
        warnings.push(format!(
            "{address} ({namespace}/{name}): {} uses it, {ours}; seen by {} on {} since {}",
            conflict.mac, conflict.node, conflict.interface, conflict.first_seen
        ));
    }
}

fn unknown(facts: &Facts) -> Vec<String> {
    let mut unknown = Vec::new();
    let mut note = |what: &str, why: Option<&String>| {
        unknown.extend(why.map(|why| format!("{what} cannot be read: {why}")));
    };
    note("EndpointSlices", facts.endpoints.as_ref().err());
    note("Nodes", facts.nodes.as_ref().err());
    note("the speakers' Pods", facts.pods.as_ref().err());
    note("who announces (ServiceL2Statuses)", facts.l2.as_ref().err());
    note("conflicts (AddressConflicts)", facts.conflicts.as_ref().err());
    note("the configuration", facts.config.as_ref().err());
    if let Ok(Err(errors)) = &facts.config {
        unknown.push(format!("the newest configuration is refused, an older one is in force:\n{errors}"));
    }
    unknown
}

/// By Service, in the order of the nodes.
fn announcers(facts: &Facts) -> BTreeMap<ServiceId, Vec<Announcer>> {
    let mut all: BTreeMap<ServiceId, Vec<Announcer>> = BTreeMap::new();
    for (id, announcer) in facts.l2.iter().flatten().filter_map(announcer) {
        all.entry(id).or_default().push(announcer);
    }
    all.values_mut().for_each(|announcers| announcers.sort());
    all
}

fn announcer(object: &ServiceL2Status) -> Option<(ServiceId, Announcer)> {
    let status = object.status.as_ref()?;
    let id = ServiceId::new(status.service_namespace.clone()?, status.service_name.clone()?);
    let annotation = |key: &str| object.metadata.annotations.as_ref()?.get(key).cloned();
    let interfaces = status.interfaces.iter().filter_map(|interface| interface.name.clone());
    let announcer = Announcer {
        node: status.node.clone()?,
        interfaces: interfaces.collect(),
        since: annotation(keys::SINCE),
        cause: annotation(keys::CAUSE),
        from: annotation(keys::FROM),
    };
    Some((id, announcer))
}

/// What a speaker that knows only the API server would decide. Empty when not enough can be read.
fn verdicts(facts: &Facts, options: &Options) -> BTreeMap<ServiceId, Arc<Verdict>> {
    let (Ok(Ok(config)), Ok(slices), Ok(nodes), Ok(pods)) =
        (&facts.config, &facts.endpoints, &facts.nodes, &facts.pods)
    else {
        return BTreeMap::new();
    };
    let config: &Config = config;
    let mut endpoints = convert::endpoints(slices);
    let services: Vec<ServiceView> = facts
        .services
        .iter()
        .map(|service| {
            let id = convert::service_id(service);
            convert::service(service, endpoints.remove(&id).unwrap_or_default())
        })
        .collect();
    let nodes: Vec<NodeView> = nodes.iter().map(convert::node).collect();
    let speakers = pods.iter().filter(|pod| is_component(pod, "speaker") && is_ready(pod));
    let hosts = speakers.filter_map(|pod| pod.spec.as_ref()?.node_name.clone());
    let members: Members = hosts.map(|node| (node, Member::default())).collect();
    let intent = intent(&Snapshot {
        // Nobody's view: what is the same for all.
        node: "",
        config,
        services: &services,
        nodes: &nodes,
        members: &members,
        interfaces: &[],
        options,
    });
    intent.verdicts
}

fn is_for_layer2(verdict: &Verdict) -> bool {
    !matches!(
        verdict.why_not,
        Some(
            WhyNot::NotLoadBalancer
                | WhyNot::OtherClass { .. }
                | WhyNot::NoIpAllocated
                | WhyNot::IpNotAllowed(_)
                | WhyNot::NoMatchingAdvertisement { .. }
        )
    )
}

fn addresses(service: &Service) -> Vec<String> {
    let spec = service.spec.as_ref();
    if spec.and_then(|spec| spec.type_.as_deref()) != Some("LoadBalancer") {
        return Vec::new();
    }
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = status.and_then(|balancer| balancer.ingress.as_deref()).unwrap_or_default();
    ingress.iter().filter_map(|entry| entry.ip.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(service: Option<&str>, namespace: Option<&str>) -> Option<(Option<String>, Option<String>)> {
        Filter::of(service, namespace, "here").ok().map(|filter| (filter.namespace, filter.name))
    }

    #[test]
    fn a_service_is_named_in_three_ways() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(filter(None, None), Some((None, None)));
        assert_eq!(filter(None, Some("shop")), Some((some("shop"), None)));
        assert_eq!(filter(Some("web"), None), Some((some("here"), some("web"))));
        assert_eq!(filter(Some("svc/web"), Some("shop")), Some((some("shop"), some("web"))));
        assert_eq!(filter(Some("shop/web"), None), Some((some("shop"), some("web"))));
        assert_eq!(filter(Some("shop/web"), Some("shop")), Some((some("shop"), some("web"))));
        assert_eq!(filter(Some("shop/web"), Some("other")), None);
    }
}
