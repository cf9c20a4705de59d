//! A pod's network: a namespace of its own, one routed veth to its node (no bridge, so that every packet between
//! pods passes the node's nftables and a Service reached from a pod beside its endpoint works without br_netfilter).

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::rc::Rc;

use anyhow::{Context, Result};

use crate::lab::plan::NodePlan;
use crate::lab::topology;
use crate::netns::Netns;
use crate::rundir::RunDir;

/// The IPv6 next hop of every pod; the IPv4 one is the first address of its node's range ([`Hosts`] begins with .2).
const GATEWAY_V6: &str = "fe80::1";

/// Host numbers of one node's pods that are taken.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    taken: BTreeSet<u8>,
    last: u8,
}

impl Hosts {
    /// The next free number after the last one given, so that a new pod does not inherit the address of one that
    /// just ended.
    fn take(&mut self) -> Option<u8> {
        let order = (self.last.max(1)..=254).chain(2..=self.last.max(1));
        let host = order.skip(1).find(|h| !self.taken.contains(h))?;
        self.taken.insert(host);
        self.last = host;
        Some(host)
    }
}

/// The network of one pod. Dropping it removes namespace and veth and frees the address.
#[derive(Debug)]
pub(super) struct PodNetwork {
    netns: Netns,
    addresses: Vec<IpAddr>,
    /// `None`: the node's own network.
    own: Option<(u8, Rc<RefCell<Hosts>>)>,
}

impl PodNetwork {
    /// `hostNetwork: true`.
    #[must_use]
    pub(super) fn of_node(node: &NodePlan) -> Self {
        Self { netns: Netns::named(&node.netns), addresses: node.addresses(), own: None }
    }

    /// A namespace called `short` with addresses of the node's pod ranges.
    ///
    /// # Errors
    /// The node's range is used up, or `ip` said no.
    pub(super) fn create(
        run: &RunDir,
        node: &NodePlan,
        short: &str,
        hosts: &Rc<RefCell<Hosts>>,
    ) -> Result<Self> {
        let host =
            hosts.borrow_mut().take().with_context(|| format!("{}: no pod address is left", node.name))?;
        let (v4, v6) = node.pod_addresses(host);
        let (gateway, _) = node.pod_addresses(1);
        let netns = Netns::create(run, short)?;
        let network = Self {
            netns: netns.clone(),
            addresses: vec![v4.into(), v6.into()],
            own: Some((host, Rc::clone(hosts))),
        };
        topology::pod_sysctls(&netns)?;
        let veth = format!("veth{host}");
        let (on_node, in_pod) = (Netns::named(&node.netns), &netns);
        topology::batch(
            &on_node,
            &[
                format!("link add {veth} type veth peer name eth0 netns {}", in_pod.name()),
                format!("addr add {gateway}/32 dev {veth}"),
                format!("link set {veth} addrgenmode none"),
                format!("link set {veth} up"),
                format!("addr add {GATEWAY_V6}/64 dev {veth} nodad"),
                format!("route replace {v4}/32 dev {veth} src {}", node.v4),
                format!("route replace {v6}/128 dev {veth} src {}", node.v6),
            ],
        )?;
        topology::batch(
            in_pod,
            &[
                "link set eth0 up".into(),
                format!("addr add {v4}/32 dev eth0"),
                format!("addr add {v6}/128 dev eth0 nodad"),
                format!("route add {gateway}/32 dev eth0 scope link"),
                format!("route add default via {gateway} src {v4}"),
                format!("route add default via {GATEWAY_V6} dev eth0 src {v6}"),
            ],
        )?;
        Ok(network)
    }

    /// Where the pod's processes run.
    #[must_use]
    pub(super) fn netns(&self) -> &Netns {
        &self.netns
    }

    /// `status.podIPs`, IPv4 first.
    #[must_use]
    pub(super) fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }
}

impl Drop for PodNetwork {
    fn drop(&mut self) {
        if let Some((host, hosts)) = &self.own {
            if let Err(error) = self.netns.delete() {
                tracing::debug!("{error:#}"); // the lab is going down and was faster
            }
            hosts.borrow_mut().taken.remove(host);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_not_given_again_while_others_are_free() {
        let mut hosts = Hosts::default();
        assert_eq!(hosts.take(), Some(2));
        assert_eq!(hosts.take(), Some(3));
        hosts.taken.remove(&2);
        assert_eq!(hosts.take(), Some(4));
    }

    #[test]
    fn a_full_node_gives_none_and_then_what_is_freed() {
        let mut hosts = Hosts::default();
        assert_eq!((0..253).filter_map(|_| hosts.take()).count(), 253);
        assert_eq!(hosts.take(), None);
        hosts.taken.remove(&9);
        assert_eq!(hosts.take(), Some(9));
    }
}
