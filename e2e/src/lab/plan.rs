//! The lab on paper: names and addresses, nothing that exists yet.
//!
//! ```text
//!                 patina-<id>-net  br0 172.25.7.1/24 fd00:25:7::1/64   etcd, API server, controller-manager
//!        ┌──────────────────┬──────────────────┬──────────────────┐
//!  …-node1            …-node2            …-node3             …-client
//!  .11  ::11          .12  ::12          .13  ::13           .5  ::5
//!  pods 10.244.1.x    10.244.2.x         10.244.3.x          (no route to pods or Services: it is a neighbour)
//!       fd00:244:1::x fd00:244:2::x      fd00:244:3::x
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Result, bail};

/// Every node has a last octet of 10 + its number.
pub const MAX_NODES: u8 = 9;
/// Where Services' virtual addresses come from.
pub const SERVICE_CIDRS: [&str; 2] = ["10.96.0.0/16", "fd00:96::/112"];
/// What covers every pod: kube-proxy masquerades what comes from elsewhere.
pub const POD_CIDRS: [&str; 2] = ["10.244.0.0/16", "fd00:244::/32"];
/// The bridge's own address, where the API server listens.
pub const API_V4: Ipv4Addr = Ipv4Addr::new(172, 25, 7, 1);
/// The bridge's own IPv6 address.
pub const API_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x25, 7, 0, 0, 0, 0, 1);
/// The client's address.
pub const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(172, 25, 7, 5);
/// The client's IPv6 address.
pub const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x25, 7, 0, 0, 0, 0, 5);

/// One lab's names and addresses.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Lower-case letters and digits, at most 12: part of every name of the lab.
    pub id: String,
    /// Its nodes, in the order of their numbers.
    pub nodes: Vec<NodePlan>,
}

/// One node's names and addresses.
#[derive(Debug, Clone)]
pub struct NodePlan {
    /// `node1`: the Node object's name, and the bridge's port towards it.
    pub name: String,
    /// Counted from 1.
    pub number: u8,
    /// Its network namespace.
    pub netns: String,
    /// Its address on the bridge.
    pub v4: Ipv4Addr,
    /// Its IPv6 address on the bridge.
    pub v6: Ipv6Addr,
    /// The MAC address of its eth0: `02:25:07:00:00:11` for .11, so that a person reads the node in a capture.
    pub mac: [u8; 6],
}

impl Plan {
    /// A lab of `nodes` nodes.
    ///
    /// # Errors
    /// An id that cannot be part of a name, or a number of nodes outside 1 to [`MAX_NODES`].
    pub fn new(id: &str, nodes: u8) -> Result<Self> {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        if id.is_empty() || id.len() > 12 || !id.chars().all(fits) {
            bail!("the name of a lab is 1 to 12 lower-case letters and digits; {id:?} is not");
        }
        if nodes == 0 || nodes > MAX_NODES {
            bail!("a lab has 1 to {MAX_NODES} nodes, not {nodes}");
        }
        let nodes = (1..=nodes).map(|n| NodePlan::new(id, n)).collect();
        Ok(Self { id: id.to_owned(), nodes })
    }

    /// What every network namespace of this lab starts with.
    #[must_use]
    pub fn prefix(&self) -> String {
        prefix(&self.id)
    }

    /// The namespace of the bridge and the API server.
    #[must_use]
    pub fn net(&self) -> String {
        format!("{}net", self.prefix())
    }

    /// The client's namespace.
    #[must_use]
    pub fn client(&self) -> String {
        format!("{}client", self.prefix())
    }

    /// The node of that name.
    ///
    /// # Errors
    /// No such node; the text names those there are.
    pub fn node(&self, name: &str) -> Result<&NodePlan> {
        self.nodes.iter().find(|n| n.name == name).ok_or_else(|| {
            let names: Vec<&str> = self.nodes.iter().map(|n| n.name.as_str()).collect();
            anyhow::anyhow!("no node {name:?} in this lab: it has {}", names.join(", "))
        })
    }

    /// The node whose eth0 has this MAC address.
    #[must_use]
    pub fn node_of_mac(&self, mac: [u8; 6]) -> Option<&NodePlan> {
        self.nodes.iter().find(|n| n.mac == mac)
    }
}

/// What every network namespace of lab `id` starts with.
#[must_use]
pub fn prefix(id: &str) -> String {
    format!("patina-{id}-")
}

impl NodePlan {
    fn new(id: &str, number: u8) -> Self {
        let host = 10 + number;
        // Written in decimal digits, so that .11 and ::11 look alike.
        let host_v6 = u16::from(host / 10) * 0x10 + u16::from(host % 10);
        Self {
            name: format!("node{number}"),
            number,
            netns: format!("{}node{number}", prefix(id)),
            v4: Ipv4Addr::new(172, 25, 7, host),
            v6: Ipv6Addr::new(0xfd00, 0x25, 7, 0, 0, 0, 0, host_v6),
            mac: [0x02, 0x25, 0x07, 0, 0, u8::try_from(host_v6).unwrap_or(u8::MAX)],
        }
    }

    /// Both addresses, IPv4 first, as in the Node's status.
    #[must_use]
    pub fn addresses(&self) -> Vec<IpAddr> {
        vec![self.v4.into(), self.v6.into()]
    }

    /// `spec.podCIDRs` of the Node.
    #[must_use]
    pub fn pod_cidrs(&self) -> [String; 2] {
        [format!("10.244.{}.0/24", self.number), format!("fd00:244:{}::/64", self.number)]
    }

    /// Addresses of the node's `host`th pod.
    #[must_use]
    pub fn pod_addresses(&self, host: u8) -> (Ipv4Addr, Ipv6Addr) {
        let v6 = Ipv6Addr::new(0xfd00, 0x244, u16::from(self.number), 0, 0, 0, 0, u16::from(host));
        (Ipv4Addr::new(10, 244, self.number, host), v6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_read_off_its_addresses() {
        let plan = Plan::new("demo", 3).unwrap();
        let node = plan.node("node2").unwrap();
        assert_eq!(node.netns, "patina-demo-node2");
        assert_eq!(node.v4.to_string(), "172.25.7.12");
        assert_eq!(node.v6.to_string(), "fd00:25:7::12");
        assert_eq!(node.mac, [0x02, 0x25, 0x07, 0, 0, 0x12]);
        assert_eq!(plan.node_of_mac(node.mac).unwrap().name, "node2");
        assert_eq!(node.pod_cidrs(), ["10.244.2.0/24", "fd00:244:2::/64"]);
    }

    #[test]
    fn a_name_that_could_be_mistaken_for_another_labs_is_refused() {
        for id in ["", "a-b", "UPPER", "abcdefghijklm"] {
            assert!(Plan::new(id, 3).is_err(), "{id}");
        }
        assert!(Plan::new("a", 0).is_err());
        assert!(Plan::new("a", 10).is_err());
    }

    #[test]
    fn an_unknown_node_is_answered_with_those_there_are() {
        let error = Plan::new("a", 2).unwrap().node("node7").unwrap_err().to_string();
        assert!(error.contains("node1, node2"), "{error}");
    }
}
