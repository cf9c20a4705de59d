//! The validated configuration: what the controller and the speaker work with, whatever it was written in.
//!
//! References are resolved where they can be (pool selectors to pool names, community aliases to values); selectors on
//! nodes, namespaces and Services stay selectors, because those objects change without the configuration changing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::{ObjectRef, Pools};
use crate::net::AddressRange;
use crate::selector::{Labels, Selector};
use crate::service::ServiceId;

/// Everything that was configured, complete and consistent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// By name.
    pub pools: Pools,
    /// In the order of their names.
    pub l2_advertisements: Vec<L2Advertisement>,
    /// In the order of their names.
    pub bgp_advertisements: Vec<BgpAdvertisement>,
    /// In the order of their names.
    pub peers: Vec<Peer>,
    /// By name.
    pub bfd_profiles: BTreeMap<String, BfdProfile>,
    /// In the order of their names. Those for different users never overlap.
    pub reservations: Vec<Reservation>,
}

impl Config {
    /// The pool that contains `ip`. Pools never overlap, so there is at most one.
    #[must_use]
    pub fn pool_of(&self, ip: IpAddr) -> Option<&Pool> {
        self.pools.of_address(ip)
    }
}

/// A pool of addresses (IPAddressPool, or `address-pools[]` of the ConfigMap).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Name, unique in a Config.
    pub name: String,
    /// Where it was written.
    pub source: ObjectRef,
    /// Labels of the resource (empty from a ConfigMap); advertisements select pools by them.
    pub labels: Labels,
    /// At least one, disjoint, in the order they were declared.
    pub ranges: Vec<AddressRange>,
    /// False: only by explicit pool annotation or explicit address.
    pub auto_assign: bool,
    /// Skip IPv4 addresses that end in .0 or .255.
    pub avoid_buggy_ips: bool,
    /// Who may use it, and in which order it is tried.
    pub allocation: ServiceAllocation,
}

impl Pool {
    /// Whether `ip` lies in one of the ranges (whatever `avoid_buggy_ips` says).
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(ip))
    }
}

/// Addresses kept back (AddressReservation of patina.io).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// Where it was written.
    pub source: ObjectRef,
    /// At least one, disjoint, in the order they were declared. They need not be in a pool.
    pub ranges: Vec<AddressRange>,
    /// Who alone may have them; `None`: nobody.
    pub service: Option<ServiceId>,
    /// Why, in its author's words; may be empty.
    pub reason: String,
}

/// `spec.serviceAllocation`. With all lists empty the pool serves everybody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceAllocation {
    /// Lower wins; `None` (0 or unset) comes after every set value.
    pub priority: Option<u32>,
    /// Namespaces by name; united with those that `namespace_selectors` match.
    pub namespaces: BTreeSet<String>,
    /// Namespaces by label.
    pub namespace_selectors: Vec<Selector>,
    /// Services by label; alternatives.
    pub service_selectors: Vec<Selector>,
}

impl ServiceAllocation {
    /// Whether the pool is pinned to some namespaces or Services.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        !(self.namespaces.is_empty()
            && self.namespace_selectors.is_empty()
            && self.service_selectors.is_empty())
    }

    /// Whether a Service with these labels, in this namespace, may use the pool: (names OR namespace selectors) AND
    /// Service selectors, an empty side allowing all.
    #[must_use]
    pub fn permits(&self, namespace: &str, namespace_labels: &Labels, service_labels: &Labels) -> bool {
        let any_namespace = self.namespaces.is_empty() && self.namespace_selectors.is_empty();
        let namespace_matches = any_namespace
            || self.namespaces.contains(namespace)
            || self.namespace_selectors.iter().any(|selector| selector.matches(namespace_labels));
        namespace_matches && crate::selector::any_matches(&self.service_selectors, service_labels)
    }
}

/// Announce by ARP and NDP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct L2Advertisement {
    /// Where it was written; its name for people.
    pub source: ObjectRef,
    /// Names of the pools it covers, resolved from names and selectors.
    pub pools: BTreeSet<String>,
    /// Alternatives; empty means all nodes.
    pub node_selectors: Vec<Selector>,
    /// Exact interface names; empty means all.
    pub interfaces: BTreeSet<String>,
    /// Alternatives; empty means all Services.
    pub service_selectors: Vec<Selector>,
    /// Soft preferences among the nodes that `node_selectors` allow.
    pub preferred_nodes: Vec<PreferredNodes>,
    /// When a better candidate that comes back gets its addresses (annotation `patina.io/failback`).
    pub failback: Failback,
}

/// When a better candidate that comes back gets an address that another node announces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Failback {
    /// At once, as MetalLB does.
    #[default]
    Immediate,
    /// When it has been a candidate for this long.
    After(std::time::Duration),
    /// When the one that announces is no candidate any more.
    Never,
}

/// One `preferredNodeSelectors` entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreferredNodes {
    /// 1 to 100; the weights of all matching entries add up.
    pub weight: u32,
    /// Which nodes; an empty selector matches all.
    pub selector: Selector,
}

/// Announce by BGP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BgpAdvertisement {
    /// Where it was written; its name for people.
    pub source: ObjectRef,
    /// Names of the pools it covers, resolved from names and selectors.
    pub pools: BTreeSet<String>,
    /// Alternatives; empty means all nodes.
    pub node_selectors: Vec<Selector>,
    /// Alternatives; empty means all Services.
    pub service_selectors: Vec<Selector>,
    /// Prefix length announced for IPv4, 1 to 32.
    pub aggregation_length: u8,
    /// Prefix length announced for IPv6, 1 to 128.
    pub aggregation_length_v6: u8,
    /// LOCAL_PREF on iBGP sessions.
    pub local_pref: Option<u32>,
    /// Resolved communities.
    pub communities: BTreeSet<Community>,
    /// Names of the peers; empty means all.
    pub peers: BTreeSet<String>,
}

/// A BGP community.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Community {
    /// RFC 1997, `a:b` with 16 bits each.
    Standard(u16, u16),
    /// RFC 8092, `large:a:b:c` with 32 bits each.
    Large(u32, u32, u32),
}

/// A router to speak BGP with.
#[derive(Clone, PartialEq, Eq)]
pub struct Peer {
    /// Name, by which advertisements mean it: that of the resource, or `peer1` and on for the ConfigMap's.
    pub name: String,
    /// Where it was written.
    pub source: ObjectRef,
    /// Our AS number.
    pub my_asn: u32,
    /// The peer's AS number.
    pub peer_asn: PeerAsn,
    /// AS number that we show to this peer instead of `my_asn`.
    pub local_asn: Option<u32>,
    /// Whom to connect to.
    pub address: PeerAddress,
    /// TCP port of the peer.
    pub port: u16,
    /// Local address of the session.
    pub source_address: Option<IpAddr>,
    /// RFC 4271 hold time; zero means none. `None`: our default.
    pub hold_time: Option<Duration>,
    /// RFC 4271 keepalive time. `None`: a third of the hold time.
    pub keepalive_time: Option<Duration>,
    /// RFC 4271 ConnectRetryTime.
    pub connect_time: Option<Duration>,
    /// BGP identifier.
    pub router_id: Option<Ipv4Addr>,
    /// Alternatives; empty means all nodes.
    pub node_selectors: Vec<Selector>,
    /// TCP-MD5 key (RFC 2385). Never logged: `Debug` hides it.
    pub password: Option<String>,
    /// Name of a BFD profile.
    pub bfd_profile: Option<String>,
    /// RFC 4724.
    pub graceful_restart: bool,
    /// The peer is not on a connected network.
    pub ebgp_multi_hop: bool,
    /// VRF device of the session.
    pub vrf: Option<String>,
    /// Both families over one session.
    pub dual_stack_address_family: bool,
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer")
            .field("name", &self.name)
            .field("source", &self.source)
            .field("my_asn", &self.my_asn)
            .field("peer_asn", &self.peer_asn)
            .field("address", &self.address)
            .field("password", &self.password.as_ref().map(|_| "<hidden>"))
            .finish_non_exhaustive()
    }
}

/// The AS number that a peer must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerAsn {
    /// Exactly this one.
    Number(u32),
    /// The same as ours (`dynamicASN: internal`).
    Internal,
    /// Any but ours (`dynamicASN: external`).
    External,
}

/// Where a peer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerAddress {
    /// At this address.
    Ip(IpAddr),
    /// Unnumbered: whoever sends router advertisements on this interface.
    Interface(String),
}

impl std::fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Interface(name) => write!(f, "interface {name}"),
        }
    }
}

/// RFC 5880 timers and modes. `None` means our default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BfdProfile {
    /// Where it was written.
    pub source: ObjectRef,
    /// Required Min RX Interval.
    pub receive_interval: Option<Duration>,
    /// Desired Min TX Interval.
    pub transmit_interval: Option<Duration>,
    /// Detect multiplier.
    pub detect_multiplier: Option<u8>,
    /// Required Min Echo RX Interval.
    pub echo_interval: Option<Duration>,
    /// Whether to use the echo function.
    pub echo_mode: bool,
    /// Wait for the peer to start.
    pub passive_mode: bool,
    /// Smallest TTL accepted on a multihop session.
    pub minimum_ttl: Option<u8>,
}
