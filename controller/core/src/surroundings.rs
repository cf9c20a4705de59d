//! The network's own addresses: what must never be given to a Service, whatever the pools say.
//!
//! They are skipped, not refused: a node that joins must not make a configuration invalid that was good a minute ago. Who
//! holds such an address already keeps it (and hears of it); who asks for one by name is refused with the reason.

use std::fmt;

use patina_crds::net::AddressRange;

/// Everything that the network uses itself. Ranges may overlap each other and need not be in a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// In no particular order.
    pub uses: Vec<InUse>,
}

/// Addresses, and what they are used for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InUse {
    /// Which.
    pub range: AddressRange,
    /// What for.
    pub by: UsedBy,
}

/// What the network uses an address for. Of several uses of one address the first in this order is the one that is told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum UsedBy {
    /// A host that a speaker saw on the wire, and that is no speaker: an AddressConflict.
    Host(Conflict),
    /// An address of a node (`status.addresses`).
    Node(String),
    /// The router that a node sends to.
    Gateway(String),
    /// The network address of a subnet that a node is in.
    NetworkAddress(String),
    /// The broadcast address of a subnet that a node is in.
    BroadcastAddress(String),
    /// The Pods of a node (`spec.podCIDRs`).
    Pods(String),
    /// The cluster IPs of Services (a ServiceCIDR).
    ClusterIps,
}

/// A host on the network that uses an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conflict {
    /// Its MAC address.
    pub mac: String,
    /// The node whose speaker saw it.
    pub node: String,
    /// It was found before the address was announced for the first time, then (seconds since 1970). `None`: the address was
    /// in use by its Service already.
    pub before_use: Option<i64>,
}

impl Conflict {
    /// The first announcement, and with it the probes, follows the allocation within seconds. What is found later was not
    /// found before the first use, whatever a speaker says that was started anew and remembers nothing.
    const SOON: i64 = 600;

    /// Whether a Service that has an address since then (seconds since 1970; `None`: longer than anybody knows) has not used
    /// it yet.
    #[must_use]
    pub fn precedes_use(&self, allocated_since: Option<i64>) -> bool {
        match (self.before_use, allocated_since) {
            (Some(found), Some(since)) => found.saturating_sub(since) <= Self::SOON,
            _ => false,
        }
    }
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "in use by another host on the network, MAC {}, as node {} sees", self.mac, self.node)
    }
}

impl UsedBy {
    /// Whether this use keeps Services off an address, which may be `alone` in the entry of the pool that lists it
    /// (`203.0.113.5/32`). Then a node's own address is there on purpose: a machine that has only one shares it with its
    /// Services.
    #[must_use]
    pub fn bars(&self, alone: bool) -> bool {
        !(alone && matches!(self, Self::Node(_)))
    }
}

impl fmt::Display for UsedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(conflict) => conflict.fmt(f),
            Self::Node(node) => write!(f, "an address of node {node}"),
            Self::Pods(node) => write!(f, "in the Pod network of node {node}"),
            Self::ClusterIps => f.write_str("in the range of the cluster IPs"),
            Self::Gateway(node) => write!(f, "the gateway of node {node}"),
            Self::NetworkAddress(node) => write!(f, "the network address of a subnet of node {node}"),
            Self::BroadcastAddress(node) => write!(f, "the broadcast address of a subnet of node {node}"),
        }
    }
}
