//! What a speaker sees of the cluster and of its own node, in our own words: no Kubernetes object comes further than
//! the shell's `watch.rs`, no netlink message further than its interface driver.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

use patina_crds::config::Config;
use patina_crds::net::{Family, from_number, to_number};
use patina_crds::selector::{LabelSet, Labels};
pub use patina_crds::service::ServiceId;

/// `spec.externalTrafficPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TrafficPolicy {
    /// Any node may take the traffic and pass it on.
    #[default]
    Cluster,
    /// Only nodes with a usable endpoint of their own.
    Local,
}

/// A Service, as far as announcing needs it. Clones share everything, and equal ones are most often the same pointers:
/// of ten thousand Services a change concerns a few.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceView {
    /// What the Service itself says; the view dereferences to it.
    pub facts: Arc<ServiceFacts>,
    /// Endpoints of all its EndpointSlices; one that is in two slices may be here twice.
    pub endpoints: Arc<[EndpointView]>,
}

impl ServiceView {
    /// Puts both together.
    #[must_use]
    pub fn new(facts: ServiceFacts, endpoints: impl IntoIterator<Item = EndpointView>) -> Self {
        Self { facts: Arc::new(facts), endpoints: endpoints.into_iter().collect() }
    }
}

impl Deref for ServiceView {
    type Target = ServiceFacts;

    fn deref(&self) -> &ServiceFacts {
        &self.facts
    }
}

/// What a Service says, without its endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceFacts {
    /// Which.
    pub id: ServiceId,
    /// `metadata.labels`; advertisements select Services by them.
    pub labels: SharedLabels,
    /// `status.loadBalancer.ingress[].ip`, in the order of the status; entries that do not parse are left out.
    pub ingress: Vec<IpAddr>,
    /// The text of the first ingress entry *as it stands in the status* (the leader hash is over this text, api 4.7).
    /// Empty when there is no entry.
    pub ingress_text: String,
    /// `spec.externalTrafficPolicy`.
    pub traffic_policy: TrafficPolicy,
    /// `spec.type` is LoadBalancer.
    pub is_load_balancer: bool,
    /// `spec.loadBalancerClass`; absent is `None`.
    pub class: Option<String>,
    /// Value of the allow-shared-ip annotation (the current prefix wins over the old one); `None`: absent.
    pub shared_key: Option<String>,
}

/// One endpoint of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointView {
    /// `nodeName`; endpoints without one never count for [`TrafficPolicy::Local`].
    pub node: Option<Arc<str>>,
    /// `ready` is absent or true, or `serving` is true ([`usable_endpoint`]).
    pub usable: bool,
}

/// Labels of which there are thousands: ordered by key, and the words may be shared with other objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SharedLabels(Box<[(Arc<str>, Arc<str>)]>);

impl FromIterator<(Arc<str>, Arc<str>)> for SharedLabels {
    fn from_iter<I: IntoIterator<Item = (Arc<str>, Arc<str>)>>(labels: I) -> Self {
        let mut labels: Vec<_> = labels.into_iter().collect();
        labels.sort_by(|(a, _), (b, _)| a.cmp(b));
        Self(labels.into_boxed_slice())
    }
}

impl From<&Labels> for SharedLabels {
    fn from(labels: &Labels) -> Self {
        labels.iter().map(|(key, value)| (Arc::from(key.as_str()), Arc::from(value.as_str()))).collect()
    }
}

impl LabelSet for SharedLabels {
    fn value(&self, key: &str) -> Option<&str> {
        let index = self.0.binary_search_by(|(other, _)| (**other).cmp(key)).ok()?;
        self.0.get(index).map(|(_, value)| &**value)
    }
}

/// Whether an endpoint with these conditions may get traffic: ready (absent means ready) or still serving.
#[must_use]
pub fn usable_endpoint(ready: Option<bool>, serving: Option<bool>) -> bool {
    ready.unwrap_or(true) || serving.unwrap_or(false)
}

/// A node, as far as announcing needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeView {
    /// Name.
    pub name: String,
    /// `metadata.labels`.
    pub labels: Labels,
    /// Condition NetworkUnavailable is True.
    pub network_unavailable: bool,
    /// Carries the annotation `patina.io/drain: "true"`: somebody wants its addresses elsewhere.
    pub draining: bool,
}

/// The live speakers by the names of their nodes, each with what it says of itself.
pub type Members = BTreeMap<String, Member>;

/// What a speaker tells all others about itself. A membership message carries it (`membership::wire`).
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Member {
    /// Of the program; empty: not known.
    pub version: String,
    /// It has not decided for the first time yet: it announces nothing, and is no candidate.
    pub starting: bool,
    /// It is about to end: it answers until a successor has announced, and is no candidate.
    pub draining: bool,
    /// Its interfaces that are not excluded. `None`: it does not say (it is known from the API server only, or has more
    /// of them than a message holds), and they are taken to be usable.
    pub interfaces: Option<Vec<MemberInterface>>,
}

/// An interface of another node, as its speaker tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct MemberInterface {
    /// Name.
    pub name: String,
    /// MAC address; frames from it are not foreign.
    pub mac: [u8; 6],
    /// Administratively up, with carrier, and nobody's port.
    pub up: bool,
    /// Speaks ARP.
    pub arp: bool,
    /// Speaks neighbour discovery.
    pub ndp: bool,
    /// It reaches none of the other speakers that have an address on this segment: a candidate of last resort.
    pub isolated: bool,
    /// Its subnets, host bits cleared: the segment.
    pub subnets: BTreeSet<(IpAddr, u8)>,
    /// Its addresses that are not link-local: speakers ping each other there, to know whether they share the segment
    /// in truth (`membership::segments`).
    pub addresses: BTreeSet<IpAddr>,
}

/// A network interface of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterfaceView {
    /// Name, as `eth0`. May change while the index stays.
    pub name: String,
    /// Kernel's index: the identity.
    pub index: u32,
    /// Its current MAC address.
    pub mac: [u8; 6],
    /// Administratively up and with carrier.
    pub up: bool,
    /// Speaks ARP: has the broadcast flag and not NOARP.
    pub arp: bool,
    /// Speaks neighbour discovery: has a link-local IPv6 address and not NOARP.
    pub ndp: bool,
    /// Has a master (bond, bridge, VRF ...): the master is the one to announce on, never both.
    pub enslaved: bool,
    /// Its addresses with prefix lengths (a later issue tells segments apart by them).
    pub addresses: BTreeSet<(IpAddr, u8)>,
}

impl InterfaceView {
    /// Why nothing of this family can be announced on it; `None`: it is usable.
    #[must_use]
    pub fn unusable(&self, family: Family) -> Option<Unusable> {
        if !self.up {
            Some(Unusable::Down)
        } else if self.enslaved {
            Some(Unusable::Enslaved)
        } else {
            match family {
                Family::V4 if !self.arp => Some(Unusable::NoArp),
                Family::V6 if !self.ndp => Some(Unusable::NoLinkLocal),
                _ => None,
            }
        }
    }
}

impl InterfaceView {
    /// As other speakers hear of it. Whether it is isolated, only the membership finds out.
    #[must_use]
    pub fn told(&self) -> MemberInterface {
        let in_subnets = || self.addresses.iter().filter(|(ip, prefix)| is_in_subnet(*ip, *prefix));
        MemberInterface {
            name: self.name.clone(),
            mac: self.mac,
            up: self.up && !self.enslaved,
            arp: self.arp,
            ndp: self.ndp,
            isolated: false,
            subnets: in_subnets().filter_map(|(ip, prefix)| subnet(*ip, *prefix)).collect(),
            addresses: in_subnets().map(|(ip, _)| *ip).collect(),
        }
    }
}

/// A link-local address is in the same subnet everywhere, and a single address in none.
fn is_in_subnet(ip: IpAddr, prefix: u8) -> bool {
    prefix < Family::of(ip).bits() && patina_crds::networks::is_telling(ip)
}

/// With the host bits cleared.
fn subnet(ip: IpAddr, prefix: u8) -> Option<(IpAddr, u8)> {
    let family = Family::of(ip);
    let host_bits = u32::from(family.bits().saturating_sub(prefix));
    let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
    Some((from_number(family, to_number(ip) & mask)?, prefix))
}

/// Why an interface cannot be announced on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unusable {
    /// Not up, or no carrier.
    Down,
    /// Part of a bond, bridge or VRF: its master speaks for it.
    Enslaved,
    /// No broadcast, or ARP switched off.
    NoArp,
    /// No link-local IPv6 address.
    NoLinkLocal,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Down => "is down",
            Self::Enslaved => "belongs to a bond, bridge or VRF",
            Self::NoArp => "does not speak ARP",
            Self::NoLinkLocal => "has no link-local IPv6 address",
        })
    }
}

/// Everything a decision is made from. All of it but `node` and `interfaces` is (eventually) the same for every
/// speaker, which is why they agree without a word exchanged.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot<'a> {
    /// Name of this node.
    pub node: &'a str,
    /// The configuration in force.
    pub config: &'a Config,
    /// All Services, each once; those that are not ours to announce get a verdict that says so.
    pub services: &'a [ServiceView],
    /// All nodes.
    pub nodes: &'a [NodeView],
    /// The live speakers, this one included.
    pub members: &'a Members,
    /// Interfaces of this node, those excluded by `excludel2.yaml` already left out.
    pub interfaces: &'a [InterfaceView],
    /// Flags.
    pub options: &'a Options,
}

/// Flags that change decisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// `--ignore-exclude-lb`: nodes labelled `exclude-from-external-load-balancers` announce nevertheless.
    pub ignore_exclude_lb: bool,
    /// `--lb-class`: `None` or empty takes only Services without a class, otherwise only exactly this class.
    pub lb_class: Option<String>,
    /// How many candidates a verdict lists (the leader is the first). All of them for ten thousand Services on a
    /// thousand nodes would be a quarter of a gigabyte.
    pub max_candidates: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { ignore_exclude_lb: false, lb_class: None, max_candidates: 8 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_tells_its_subnets_and_its_addresses_in_them() {
        let address = |text: &str, prefix| (text.parse::<IpAddr>().unwrap(), prefix);
        let view = InterfaceView {
            name: "eth0".to_owned(),
            mac: [2, 0, 0, 0, 0, 1],
            up: true,
            arp: true,
            addresses: [
                address("192.0.2.77", 26),
                address("192.0.2.78", 26),
                address("192.0.2.100", 32),
                address("10.0.0.1", 0),
                address("2001:db8:1:2:3::4", 64),
                address("fe80::1", 64),
                address("2001:db8::5", 128),
            ]
            .into(),
            ..InterfaceView::default()
        };
        let told = view.told();
        let subnets: Vec<String> = told.subnets.iter().map(|(ip, prefix)| format!("{ip}/{prefix}")).collect();
        assert_eq!(subnets, ["0.0.0.0/0", "192.0.2.64/26", "2001:db8:1:2::/64"]);
        let addresses: Vec<String> = told.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["10.0.0.1", "192.0.2.77", "192.0.2.78", "2001:db8:1:2:3::4"]);
        assert!(told.up && told.arp && !told.ndp && !told.isolated);
        assert!(!InterfaceView { enslaved: true, ..view }.told().up, "its master speaks for it");
    }
}
