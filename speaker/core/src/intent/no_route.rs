//! Why no route for a Service leaves this node: a keyword for logs and metrics, a sentence for people.

use std::fmt;
use std::sync::Arc;

use patina_crds::config::ObjectRef;
use patina_crds::keys::EXCLUDE_FROM_EXTERNAL_LB;
use patina_crds::net::Family;

use super::WhyNot;
use super::routes::Prefix;
use crate::view::ServiceId;

/// The reason. Where MetalLB has a keyword for it (api 3.6), [`NoRoute::reason`] is that keyword.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoRoute {
    /// Not ours to announce, by BGP or otherwise.
    NotOurs(WhyNot),
    /// No BGPAdvertisement covers the pool for this Service.
    NoMatchingAdvertisement {
        /// The pool of its addresses.
        pool: String,
    },
    /// No Node object of this name.
    NodeUnknown(Arc<str>),
    /// The node carries the exclude label.
    NodeLabeledExcludeBalancers(Arc<str>),
    /// The node's condition NetworkUnavailable is True.
    NodeNetworkUnavailable(Arc<str>),
    /// It has no usable endpoint at all.
    NoEndpoints,
    /// externalTrafficPolicy Local, and no usable endpoint on the node.
    NoLocalEndpoints(Arc<str>),
    /// No matching advertisement selects the node.
    NodeNotSelected(Arc<str>),
    /// None of the peers of this node is one that the advertisements go to.
    NoPeer(Arc<str>),
    /// The node has peers for it, but none whose session carries this family.
    NoSessionOfFamily {
        /// The family of the address.
        family: Family,
        /// The node.
        node: Arc<str>,
    },
    /// Two advertisements want different LOCAL_PREFs for one route to one peer.
    ConflictingAdvertisements(Box<Conflict>),
}

/// One route, two LOCAL_PREFs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The peer that would get it.
    pub peer: String,
    /// The route.
    pub prefix: Prefix,
    /// One advertisement and its value.
    pub one: (ObjectRef, Option<u32>),
    /// The other.
    pub other: (ObjectRef, Option<u32>),
    /// The Service for which the route is announced already with the value of `one`; `None`: both are for this Service.
    pub announced_for: Option<ServiceId>,
}

impl NoRoute {
    /// One word, stable, for logs, metrics and conditions.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotOurs(why_not) => why_not.reason(),
            Self::NoMatchingAdvertisement { .. } => "noMatchingAdvertisement",
            Self::NodeUnknown(_) => "nodeUnknown",
            Self::NodeLabeledExcludeBalancers(_) => "nodeLabeledExcludeBalancers",
            Self::NodeNetworkUnavailable(_) => "nodeNetworkUnavailable",
            Self::NoEndpoints => "noEndpoints",
            Self::NoLocalEndpoints(_) => "noLocalEndpoints",
            Self::NodeNotSelected(_) => "nodeNotSelected",
            Self::NoPeer(_) => "noPeer",
            Self::NoSessionOfFamily { .. } => "noSessionOfFamily",
            Self::ConflictingAdvertisements(_) => "conflictingAdvertisements",
        }
    }
}

impl fmt::Display for NoRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOurs(why_not) => why_not.fmt(f),
            Self::NoMatchingAdvertisement { pool } => {
                write!(f, "no BGPAdvertisement covers pool {pool:?} for this Service")
            }
            Self::NodeUnknown(node) => write!(f, "there is no Node object named {node}"),
            Self::NodeLabeledExcludeBalancers(node) => {
                write!(f, "node {node} carries the label {EXCLUDE_FROM_EXTERNAL_LB}")
            }
            Self::NodeNetworkUnavailable(node) => write!(f, "node {node} reports NetworkUnavailable"),
            Self::NoEndpoints => f.write_str("the Service has no usable endpoint"),
            Self::NoLocalEndpoints(node) => {
                write!(f, "externalTrafficPolicy is Local and node {node} has no usable endpoint")
            }
            Self::NodeNotSelected(node) => {
                write!(f, "no BGPAdvertisement for this Service selects node {node}")
            }
            Self::NoPeer(node) => {
                write!(f, "node {node} has no BGPPeer that the advertisements for this Service go to")
            }
            Self::NoSessionOfFamily { family, node } => write!(
                f,
                "no peer of node {node} takes {family} routes; an {family} session does, or one with \
                 dualStackAddressFamily: true"
            ),
            Self::ConflictingAdvertisements(conflict) => conflict.fmt(f),
        }
    }
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { peer, prefix, one, other, announced_for } = self;
        let value = |preference: Option<u32>| preference.unwrap_or(0);
        write!(
            f,
            "{} wants localPref {} and {} wants {} for the route {prefix} to peer {peer}",
            one.0,
            value(one.1),
            other.0,
            value(other.1)
        )?;
        match announced_for {
            Some(service) => write!(f, ", which goes out for Service {service} already"),
            None => Ok(()),
        }
    }
}
