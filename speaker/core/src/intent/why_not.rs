//! Why this node does not announce a Service: a keyword for logs and metrics, a sentence for people.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use patina_crds::config::ObjectRef;
use patina_crds::keys::{DRAIN, EXCLUDE_FROM_EXTERNAL_LB};
use patina_crds::net::Family;

use crate::view::Unusable;

/// The reason. Where MetalLB has a keyword for it (api 3.6), [`WhyNot::reason`] is that keyword.
///
/// A reason that names a node is about that node: this one when somebody else leads, otherwise the one that came
/// closest to leading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WhyNot {
    /// `spec.type` is something else.
    NotLoadBalancer,
    /// `spec.loadBalancerClass` is not the one we serve.
    OtherClass {
        /// The class we serve.
        ours: Option<Box<str>>,
        /// The Service's class.
        found: Option<Box<str>>,
    },
    /// No address in its status yet.
    NoIpAllocated,
    /// The address in its status is not one.
    InvalidIp(String),
    /// No pool of the configuration contains all its addresses.
    IpNotAllowed(Vec<IpAddr>),
    /// No L2Advertisement covers the pool for this Service.
    NoMatchingAdvertisement {
        /// The pool of its addresses.
        pool: String,
        /// A BGPAdvertisement covers the pool.
        bgp: bool,
    },
    /// It may share its address, and an advertisement with `serviceSelectors` matches it.
    SharedIpWithServiceSelector(Box<ObjectRef>),
    /// It has no usable endpoint at all.
    NoEndpoints,
    /// No Node object of this name; only about this node.
    NodeUnknown(Arc<str>),
    /// No matching advertisement selects the node.
    NodeNotSelected(Arc<str>),
    /// The node carries the exclude label.
    NodeLabeledExcludeBalancers(Arc<str>),
    /// The node's condition NetworkUnavailable is True.
    NodeNetworkUnavailable(Arc<str>),
    /// No live speaker on the node; `None`: no node that could have one.
    NoLiveSpeaker(Option<Arc<str>>),
    /// The speaker on the node has not decided for the first time yet.
    SpeakerStarting(Arc<str>),
    /// The speaker on the node is about to end, and another node leads.
    SpeakerLeaving(Arc<str>),
    /// The node carries the drain annotation, and another node leads.
    NodeDraining(Arc<str>),
    /// The node has no usable interface for it among those that the advertisements select, and another node has.
    NoInterfaceForIt(Arc<str>),
    /// The node has no interface in the subnet of the address, and another node has.
    OtherSegment(Arc<str>),
    /// The node reaches no other speaker through its interfaces for it, and another node leads.
    InterfaceIsolated(Arc<str>),
    /// externalTrafficPolicy Local, and no usable endpoint on the node.
    NoLocalEndpoints(Arc<str>),
    /// Another node leads; all is well.
    NotOwner(Arc<str>),
    /// This node leads, but has none of the interfaces that the advertisements name.
    InterfaceMissing(BTreeSet<String>),
    /// This node leads, but no interface (of those named) is usable for the family.
    NoUsableInterface {
        /// The family of the address.
        family: Family,
        /// Each interface that was considered, with what is wrong with it.
        interfaces: BTreeMap<String, Unusable>,
    },
}

impl WhyNot {
    /// One word, stable, for logs, metrics and conditions.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotLoadBalancer => "notLoadBalancer",
            Self::OtherClass { .. } => "otherLoadBalancerClass",
            Self::NoIpAllocated => "noIPAllocated",
            Self::InvalidIp(_) => "invalidIP",
            Self::IpNotAllowed(_) => "ipNotAllowed",
            Self::NoMatchingAdvertisement { .. } => "noMatchingAdvertisement",
            Self::SharedIpWithServiceSelector(_) => "sharedIPWithServiceSelector",
            Self::NoEndpoints => "noEndpoints",
            Self::NodeUnknown(_) => "nodeUnknown",
            Self::NodeNotSelected(_) => "nodeNotSelected",
            Self::NodeLabeledExcludeBalancers(_) => "nodeLabeledExcludeBalancers",
            Self::NodeNetworkUnavailable(_) => "nodeNetworkUnavailable",
            Self::NoLiveSpeaker(_) => "noLiveSpeaker",
            Self::SpeakerStarting(_) => "speakerStarting",
            Self::SpeakerLeaving(_) => "speakerLeaving",
            Self::NodeDraining(_) => "nodeDraining",
            Self::NoInterfaceForIt(_) => "noInterfaceForIt",
            Self::OtherSegment(_) => "otherSegment",
            Self::InterfaceIsolated(_) => "interfaceIsolated",
            Self::NoLocalEndpoints(_) => "noLocalEndpoints",
            Self::NotOwner(_) => "notOwner",
            Self::InterfaceMissing(_) => "interfaceMissing",
            Self::NoUsableInterface { .. } => "noUsableInterface",
        }
    }
}

impl fmt::Display for WhyNot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLoadBalancer => f.write_str("the Service is not of type LoadBalancer"),
            Self::OtherClass { ours, found } => {
                let name = |class: &Option<Box<str>>| match class {
                    Some(class) => format!("loadBalancerClass {class:?}"),
                    None => "no loadBalancerClass".to_owned(),
                };
                write!(
                    f,
                    "the Service has {}, and this speaker serves those with {}",
                    name(found),
                    name(ours)
                )
            }
            Self::NoIpAllocated => f.write_str("the Service has no address in its status yet"),
            Self::InvalidIp(text) => write!(f, "{text:?} in the Service's status is not an IP address"),
            Self::IpNotAllowed(ips) => {
                let all = if ips.len() > 1 { "all of " } else { "" };
                write!(f, "no configured pool contains {all}{}; the controller will see to it", list(ips))
            }
            Self::NoMatchingAdvertisement { pool, bgp: false } => {
                write!(f, "no L2Advertisement covers pool {pool:?} for this Service")
            }
            Self::NoMatchingAdvertisement { pool, bgp: true } => {
                write!(
                    f,
                    "pool {pool:?} is covered by a BGPAdvertisement, but by no L2Advertisement for this Service"
                )
            }
            Self::SharedIpWithServiceSelector(object) => write!(
                f,
                "the Service carries the allow-shared-ip annotation and {object} selects it by serviceSelectors; \
                 Services that share an address would be announced differently"
            ),
            Self::NoEndpoints => f.write_str("the Service has no usable endpoint"),
            Self::NodeUnknown(node) => write!(f, "there is no Node object named {node}"),
            Self::NodeNotSelected(node) => write!(f, "no advertisement for this Service selects node {node}"),
            Self::NodeLabeledExcludeBalancers(node) => {
                write!(f, "node {node} carries the label {EXCLUDE_FROM_EXTERNAL_LB}")
            }
            Self::NodeNetworkUnavailable(node) => write!(f, "node {node} reports NetworkUnavailable"),
            Self::NoLiveSpeaker(Some(node)) => write!(f, "node {node} has no live speaker"),
            Self::NoLiveSpeaker(None) => f.write_str("no node with a speaker is known"),
            Self::SpeakerStarting(node) => {
                write!(f, "the speaker on node {node} has just started and not seen everything yet")
            }
            Self::SpeakerLeaving(node) => write!(f, "the speaker on node {node} is about to end"),
            Self::NodeDraining(node) => write!(f, "node {node} carries the annotation {DRAIN}"),
            Self::NoInterfaceForIt(node) => {
                write!(f, "node {node} has no usable interface for it, and other nodes have")
            }
            Self::OtherSegment(node) => {
                write!(f, "node {node} has no interface in the subnet of the address, and other nodes have")
            }
            Self::InterfaceIsolated(node) => {
                write!(f, "node {node} reaches no other speaker through its interfaces for it")
            }
            Self::NoLocalEndpoints(node) => {
                write!(f, "externalTrafficPolicy is Local and node {node} has no usable endpoint")
            }
            Self::NotOwner(leader) => write!(f, "node {leader} announces it"),
            Self::InterfaceMissing(names) => {
                write!(f, "this node leads, but has no interface {}", list(names))
            }
            Self::NoUsableInterface { family, interfaces } if interfaces.is_empty() => {
                write!(f, "this node leads, but has no interface for {family}")
            }
            Self::NoUsableInterface { family, interfaces } => {
                write!(f, "this node leads, but has no usable interface for {family}:")?;
                for (i, (name, why)) in interfaces.iter().enumerate() {
                    write!(f, "{} {name} {why}", if i > 0 { "," } else { "" })?;
                }
                Ok(())
            }
        }
    }
}

fn list<T: fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}
