//! From facts to findings. Pure: the same facts give the same answer.

use k8s_openapi::api::core::v1::ServiceSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use patina_crds::config::Config;
use patina_crds::keys;
use serde::Serialize;

use super::facts::Facts;
use crate::cluster::{is_component, is_ready};

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// `namespace/name`.
    pub service: String,
    /// It has an address and somebody announces it.
    pub works: bool,
    /// In the order of the status.
    pub addresses: Vec<Address>,
    /// In the order of their nodes.
    pub announcers: Vec<Announcer>,
    /// In the order in which a person would read them.
    pub findings: Vec<Finding>,
}

/// An address of the Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Address {
    /// As the status has it.
    pub ip: String,
    /// Where it came from, if the controller said so.
    pub pool: Option<String>,
}

/// A node that announces the Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Announcer {
    /// Its name.
    pub node: String,
    /// `layer 2` or `BGP`.
    pub protocol: String,
    /// Interfaces or peers; empty means all.
    pub through: Vec<String>,
}

/// One thing that is so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is about.
    pub about: About,
    /// False: this is, or may be, why it does not work.
    pub ok: bool,
    /// One word, stable.
    pub reason: String,
    /// One or two sentences.
    pub message: String,
    /// What to do, when that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// The step on the way to reachability that a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum About {
    /// Whether we serve it at all.
    Service,
    /// Giving an address.
    Allocation,
    /// Telling the network.
    Announcement,
    /// Pools and advertisements.
    Configuration,
    /// Our own Pods.
    Components,
}

/// Says what is, and why not.
#[must_use]
pub fn explain(facts: &Facts) -> Explanation {
    let mut findings = Findings(Vec::new());
    let mut explanation = Explanation {
        service: service_name(facts),
        works: false,
        addresses: addresses(facts),
        announcers: announcers(facts),
        findings: Vec::new(),
    };
    let spec = facts.service.spec.clone().unwrap_or_default();
    let kind = spec.type_.as_deref().unwrap_or("ClusterIP");
    if kind != "LoadBalancer" {
        findings.no(
            About::Service,
            "notLoadBalancer",
            format!("It is of type {kind}. Only Services of type LoadBalancer get an address."),
            Some("set spec.type to LoadBalancer if it should be reachable from outside".to_owned()),
        );
        explanation.findings = findings.0;
        return explanation;
    }
    let decided = allocation(facts, &spec, &explanation.addresses, &mut findings);
    let announced =
        !explanation.addresses.is_empty() && announcement(facts, &explanation.announcers, &mut findings);
    configuration(facts, &explanation.addresses, announced, &mut findings);
    if !decided || (!explanation.addresses.is_empty() && !announced) {
        components(facts, decided, &mut findings);
    }
    explanation.works = announced;
    explanation.findings = findings.0;
    explanation
}

struct Findings(Vec<Finding>);

impl Findings {
    fn yes(&mut self, about: About, reason: &str, message: String) {
        self.0.push(Finding { about, ok: true, reason: reason.to_owned(), message, remedy: None });
    }
    fn no(&mut self, about: About, reason: &str, message: String, remedy: Option<String>) {
        self.0.push(Finding { about, ok: false, reason: reason.to_owned(), message, remedy });
    }
}

/// True when a controller has looked at the Service.
fn allocation(facts: &Facts, spec: &ServiceSpec, addresses: &[Address], findings: &mut Findings) -> bool {
    let condition = condition(facts, keys::CONDITION_ALLOCATED);
    if !addresses.is_empty() {
        let list: Vec<_> = addresses.iter().map(|address| address.ip.as_str()).collect();
        let pool = addresses.iter().find_map(|address| address.pool.as_deref());
        let from = pool.map_or_else(
            || ", but no pool is noted on it: another load balancer may have given it".to_owned(),
            |pool| format!(" from pool {pool}"),
        );
        let noun = if list.len() == 1 { "address" } else { "addresses" };
        findings.yes(
            About::Allocation,
            "allocated",
            format!("It has the {noun} {}{from}.", list.join(" and ")),
        );
        // "Allocated" says no more than the line above; any other word is about a wish that was not granted.
        let objection =
            |condition: &&Condition| condition.status == "False" || condition.reason != "Allocated";
        if let Some(condition) = condition.filter(objection) {
            findings.no(About::Allocation, &condition.reason, sentence(&condition.message), None);
        }
        return true;
    }
    match (condition, spec.load_balancer_class.as_deref()) {
        (Some(condition), _) => {
            findings.no(
                About::Allocation,
                &condition.reason,
                format!("It has no address: {}", sentence(&condition.message)),
                None,
            );
            true
        }
        (None, Some(class)) => {
            findings.no(
                About::Allocation,
                "otherClass",
                format!("It has no address. It asks for loadBalancerClass {class}, and nobody answered to that."),
                Some(format!(
                    "start the controller and the speakers with --lb-class={class}, or make the Service anew without \
                     spec.loadBalancerClass"
                )),
            );
            true
        }
        (None, None) => {
            let message = "It has no address, and no controller has said anything about it.".to_owned();
            findings.no(About::Allocation, "noDecision", message, None);
            false
        }
    }
}

/// True when somebody announces it.
fn announcement(facts: &Facts, announcers: &[Announcer], findings: &mut Findings) -> bool {
    for announcer in announcers {
        let through = match (announcer.through.as_slice(), announcer.protocol.as_str()) {
            ([], "BGP") => "to all peers".to_owned(),
            (peers, "BGP") => format!("to {}", peers.join(", ")),
            ([], _) => "on all its interfaces".to_owned(),
            (interfaces, _) => format!("on {}", interfaces.join(", ")),
        };
        let message = format!("{} announces it by {}, {through}.", announcer.node, announcer.protocol);
        findings.yes(About::Announcement, "announced", message);
    }
    match condition(facts, keys::CONDITION_ANNOUNCED) {
        Some(condition) if condition.status == "False" => {
            findings.no(About::Announcement, &condition.reason, sentence(&condition.message), None);
            false
        }
        Some(condition) if condition.status == "True" && announcers.is_empty() => {
            findings.yes(About::Announcement, &condition.reason, sentence(&condition.message));
            true
        }
        _ if announcers.is_empty() => {
            let message = match (&facts.l2, usable_endpoints(facts)) {
                (Err(why), _) => format!("Who announces it cannot be seen: {why}."),
                (_, Some(0)) => {
                    "No speaker announces it: it has no ready endpoint, so there would be nobody to answer."
                        .to_owned()
                }
                _ => "No speaker announces it.".to_owned(),
            };
            let remedy = (usable_endpoints(facts) == Some(0)).then(|| {
                "check the Pods that spec.selector selects: do they exist, are they ready?".to_owned()
            });
            findings.no(About::Announcement, "notAnnounced", message, remedy);
            false
        }
        _ => true,
    }
}

fn configuration(facts: &Facts, addresses: &[Address], announced: bool, findings: &mut Findings) {
    let config = match &facts.config {
        Ok(Ok(config)) => config,
        Ok(Err(errors)) => {
            findings.no(
                About::Configuration,
                "configRefused",
                format!("The newest configuration is refused, an older one is in force:\n{errors}"),
                None,
            );
            return;
        }
        Err(why) => {
            if !announced {
                let message = format!("The configuration cannot be read: {why}.");
                findings.no(About::Configuration, "configUnknown", message, None);
            }
            return;
        }
    };
    if config.pools.is_empty() {
        findings.no(
            About::Configuration,
            "noPools",
            format!("There is no pool of addresses in namespace {}.", facts.system_namespace),
            Some("make an IPAddressPool and an L2Advertisement there".to_owned()),
        );
    }
    if condition(facts, keys::CONDITION_ANNOUNCED).is_some() {
        return; // the controller has said what is missing, if something is
    }
    for pool in addresses.iter().filter_map(|address| pool_of(config, address)) {
        if !is_advertised(config, pool) {
            findings.no(
                About::Configuration,
                "noAdvertisement",
                format!(
                    "No L2Advertisement or BGPAdvertisement covers pool {pool}: its addresses reach nobody."
                ),
                Some(format!(
                    "make an L2Advertisement with spec.ipAddressPools: [{pool}], or without, for all pools"
                )),
            );
            return;
        }
    }
}

fn components(facts: &Facts, decided: bool, findings: &mut Findings) {
    let pods = match &facts.pods {
        Ok(pods) => pods,
        Err(why) => {
            let message = format!("Whether Patina runs cannot be seen: {why}.");
            findings.no(About::Components, "podsUnknown", message, None);
            return;
        }
    };
    let who = if decided { "speaker" } else { "controller" };
    let all: Vec<_> = pods.iter().filter(|pod| is_component(pod, who)).collect();
    let ready = all.iter().filter(|pod| is_ready(pod)).count();
    let namespace = &facts.system_namespace;
    if all.is_empty() {
        findings.no(
            About::Components,
            "notInstalled",
            format!("There is no {who} Pod in namespace {namespace}."),
            Some("install the chart, or name the namespace of Patina with --system-namespace".to_owned()),
        );
    } else if ready == 0 {
        findings.no(
            About::Components,
            "notReady",
            format!("No {who} Pod in namespace {namespace} is ready; there are {}.", all.len()),
            Some(format!("kubectl -n {namespace} describe pods; kubectl -n {namespace} logs POD")),
        );
    }
}

fn service_name(facts: &Facts) -> String {
    let metadata = &facts.service.metadata;
    format!(
        "{}/{}",
        metadata.namespace.as_deref().unwrap_or("default"),
        metadata.name.as_deref().unwrap_or_default()
    )
}

fn addresses(facts: &Facts) -> Vec<Address> {
    let annotations = facts.service.metadata.annotations.as_ref();
    let pool = annotations.and_then(|all| all.get(keys::IP_ALLOCATED_FROM_POOL)).cloned();
    let status = facts.service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = status.and_then(|balancer| balancer.ingress.as_deref()).unwrap_or_default();
    ingress.iter().filter_map(|entry| entry.ip.clone()).map(|ip| Address { ip, pool: pool.clone() }).collect()
}

fn announcers(facts: &Facts) -> Vec<Announcer> {
    let metadata = &facts.service.metadata;
    let ours = |name: &Option<String>, namespace: &Option<String>| {
        *name == metadata.name && *namespace == metadata.namespace
    };
    let mut all = Vec::new();
    for status in facts.l2.iter().flatten().filter_map(|object| object.status.as_ref()) {
        if let Some(node) =
            status.node.clone().filter(|_| ours(&status.service_name, &status.service_namespace))
        {
            let through = status.interfaces.iter().filter_map(|interface| interface.name.clone()).collect();
            all.push(Announcer { node, protocol: "layer 2".to_owned(), through });
        }
    }
    for status in facts.bgp.iter().flatten().filter_map(|object| object.status.as_ref()) {
        if let Some(node) =
            status.node.clone().filter(|_| ours(&status.service_name, &status.service_namespace))
        {
            all.push(Announcer { node, protocol: "BGP".to_owned(), through: status.peers.clone() });
        }
    }
    all.sort();
    all
}

fn condition<'a>(facts: &'a Facts, kind: &str) -> Option<&'a Condition> {
    let conditions = facts.service.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// Ready or serving endpoints, as the speakers count them; `None` when they cannot be seen.
fn usable_endpoints(facts: &Facts) -> Option<usize> {
    let slices = facts.endpoints.as_ref().ok()?;
    let usable = slices.iter().flat_map(|slice| &slice.endpoints).filter(|endpoint| {
        endpoint.conditions.as_ref().is_none_or(|c| c.ready.unwrap_or(true) || c.serving == Some(true))
    });
    Some(usable.count())
}

fn pool_of<'a>(config: &'a Config, address: &Address) -> Option<&'a str> {
    Some(config.pool_of(address.ip.parse().ok()?)?.name.as_str())
}

fn is_advertised(config: &Config, pool: &str) -> bool {
    config.l2_advertisements.iter().any(|ad| ad.pools.contains(pool))
        || config.bgp_advertisements.iter().any(|ad| ad.pools.contains(pool))
}

/// With a full stop, whatever the writer of a condition did.
fn sentence(message: &str) -> String {
    let message = message.trim();
    let stop = if message.is_empty() || message.ends_with(['.', '!', '?']) { "" } else { "." };
    format!("{message}{stop}")
}
