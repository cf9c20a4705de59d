//! The network's own addresses, from what the cluster says of itself: nodes, ServiceCIDRs, and what the speakers see of
//! their nodes' networks. Pure: whoever has the objects (the watch, `kubectl patina plan`) gets the same answer.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::ResourceExt;
use patina_controller_core::surroundings::{InUse, Surroundings, UsedBy};
use patina_crds::config::Pool;
use patina_crds::keys;
use patina_crds::net::{AddressRange, from_number};
use patina_crds::networks::{Networks, broadcast_address, network_address};
use patina_crds::types::ConfigurationState;

/// A speaker's ConfigurationState is called so, followed by the node's name.
const SPEAKER: &str = "speaker-";

/// Everything that the network uses itself, as far as these objects tell. In the order of addresses; where several
/// nodes say the same (a common gateway), the first by name is named. `networks`: by node; of nodes that exist only.
#[must_use]
pub fn surroundings<'a>(
    nodes: impl IntoIterator<Item = &'a Node>,
    service_cidrs: impl IntoIterator<Item = &'a ServiceCIDR>,
    networks: &BTreeMap<String, Networks>,
) -> Surroundings {
    let mut uses = Uses::default();
    for node in nodes {
        let name = node.name_any();
        for ip in addresses(node) {
            uses.add(AddressRange::single(ip), UsedBy::Node(name.clone()));
        }
        for range in pod_cidrs(node) {
            uses.add(range, UsedBy::Pods(name.clone()));
        }
        if let Some(networks) = networks.get(&name) {
            uses.add_networks(&name, networks);
        }
    }
    for cidr in service_cidrs {
        let cidrs = cidr.spec.iter().flat_map(|spec| spec.cidrs.iter().flatten());
        for range in cidrs.filter_map(|text| text.parse().ok()) {
            uses.add(range, UsedBy::ClusterIps);
        }
    }
    Surroundings { uses: uses.0.into_iter().map(|((range, _), by)| InUse { range, by }).collect() }
}

/// The node that a ConfigurationState speaks for, and what it says of the node's networks. `None`: it says nothing of
/// them, or nothing that can be read.
#[must_use]
pub fn networks(state: &ConfigurationState) -> Option<(String, Networks)> {
    let name = state.name_any();
    let node = name.strip_prefix(SPEAKER)?;
    let text = state.annotations().get(keys::NETWORKS)?;
    match Networks::parse(text) {
        Ok(networks) => Some((node.to_owned(), networks)),
        Err(why) => {
            tracing::debug!(node, "annotation {} of ConfigurationState {name}: {why}", keys::NETWORKS);
            None
        }
    }
}

/// The addresses of a pool that the network uses itself: what does not leave it unasked. In the order of addresses.
#[must_use]
pub fn in_pool(pool: &Pool, surroundings: &Surroundings) -> Vec<InUse> {
    let mut found = Vec::new();
    for used in &surroundings.uses {
        let barred = |range: &&AddressRange| range.overlaps(&used.range) && used.by.bars(range.len() == 1);
        for range in pool.ranges.iter().filter(barred) {
            let first = range.first_number().max(used.range.first_number());
            let last = range.last_number().min(used.range.last_number());
            let end = |number| from_number(range.family(), number);
            if let (Some(first), Some(last)) = (end(first), end(last))
                && let Ok(range) = AddressRange::new(first, last)
            {
                found.push(InUse { range, by: used.by.clone() });
            }
        }
    }
    found.sort_by_key(|used| used.range);
    found
}

/// By what is used and what for (a number for each kind of use); of equal ones the first name stays.
#[derive(Default)]
struct Uses(BTreeMap<(AddressRange, u8), UsedBy>);

impl Uses {
    fn add(&mut self, range: AddressRange, by: UsedBy) {
        let kind = match &by {
            UsedBy::Host(_) => 0,
            UsedBy::Node(_) => 1,
            UsedBy::Gateway(_) => 2,
            UsedBy::NetworkAddress(_) => 3,
            UsedBy::BroadcastAddress(_) => 4,
            UsedBy::Pods(_) => 5,
            UsedBy::ClusterIps => 6,
        };
        let named = self.0.entry((range, kind)).or_insert_with(|| by.clone());
        if name(&by) < name(named) {
            *named = by;
        }
    }

    fn add_networks(&mut self, node: &str, networks: &Networks) {
        for &(ip, prefix) in &networks.addresses {
            self.add(AddressRange::single(ip), UsedBy::Node(node.to_owned()));
            if let Some(ip) = network_address(ip, prefix) {
                self.add(AddressRange::single(ip), UsedBy::NetworkAddress(node.to_owned()));
            }
            if let Some(ip) = broadcast_address(ip, prefix) {
                self.add(AddressRange::single(ip), UsedBy::BroadcastAddress(node.to_owned()));
            }
        }
        for ip in &networks.gateways {
            self.add(AddressRange::single(*ip), UsedBy::Gateway(node.to_owned()));
        }
    }
}

fn name(by: &UsedBy) -> &str {
    match by {
        UsedBy::Host(conflict) => &conflict.node,
        UsedBy::Node(node)
        | UsedBy::Pods(node)
        | UsedBy::Gateway(node)
        | UsedBy::NetworkAddress(node)
        | UsedBy::BroadcastAddress(node) => node,
        UsedBy::ClusterIps => "",
    }
}

/// Of every type; what is no address (a host name) is left out.
fn addresses(node: &Node) -> impl Iterator<Item = IpAddr> {
    let all = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    all.filter_map(|address| address.address.parse().ok())
}

fn pod_cidrs(node: &Node) -> impl Iterator<Item = AddressRange> {
    let several = node.spec.iter().flat_map(|spec| spec.pod_cidrs.iter().flatten());
    let one = node.spec.iter().filter_map(|spec| spec.pod_cidr.as_ref());
    several.chain(one).filter_map(|text| text.parse().ok())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{NodeAddress, NodeSpec, NodeStatus};
    use k8s_openapi::api::networking::v1::ServiceCIDRSpec;
    use patina_crds::config::{Resources, build};
    use patina_crds::types::IPAddressPool;

    use super::*;

    fn node(name: &str, addresses: &[&str], pod_cidrs: &[&str]) -> Node {
        let mut node = Node::default();
        node.metadata.name = Some(name.to_owned());
        let address =
            |text: &&str| NodeAddress { address: (*text).to_owned(), type_: "InternalIP".to_owned() };
        let addresses = Some(addresses.iter().map(address).collect());
        node.status = Some(NodeStatus { addresses, ..NodeStatus::default() });
        node.spec = Some(NodeSpec {
            pod_cidr: pod_cidrs.first().map(|text| (*text).to_owned()),
            pod_cidrs: Some(pod_cidrs.iter().map(|text| (*text).to_owned()).collect()),
            ..NodeSpec::default()
        });
        node
    }

    fn shown(uses: &[InUse]) -> Vec<String> {
        uses.iter().map(|used| format!("{} is {}", used.range, used.by)).collect()
    }

    #[test]
    fn nodes_pods_cluster_ips_and_what_speakers_see() {
        let nodes = [
            node("b", &["192.0.2.5", "b.example", "2001:db8::5"], &["10.244.1.0/24", "fd00:244:1::/64"]),
            node("a", &["192.0.2.4"], &["nonsense"]),
        ];
        let cidrs = Some(vec!["10.96.0.0/16".to_owned(), "x".to_owned()]);
        let cidr = ServiceCIDR { spec: Some(ServiceCIDRSpec { cidrs }), ..ServiceCIDR::default() };
        let seen =
            Networks::parse(r#"{"addresses":["192.0.2.4/24","198.51.100.9/31"],"gateways":["192.0.2.1"]}"#)
                .unwrap();
        let networks = BTreeMap::from([
            ("a".to_owned(), seen.clone()),
            ("b".to_owned(), seen.clone()),
            ("gone".to_owned(), seen),
        ]);
        let found = surroundings(&nodes, [&cidr], &networks);
        assert_eq!(
            shown(&found.uses),
            [
                "10.96.0.0/16 is in the range of the cluster IPs",
                "10.244.1.0/24 is in the Pod network of node b",
                "192.0.2.0/32 is the network address of a subnet of node a",
                "192.0.2.1/32 is the gateway of node a",
                "192.0.2.4/32 is an address of node a",
                "192.0.2.5/32 is an address of node b",
                "192.0.2.255/32 is the broadcast address of a subnet of node a",
                "198.51.100.9/32 is an address of node a",
                "2001:db8::5/128 is an address of node b",
                "fd00:244:1::/64 is in the Pod network of node b",
            ]
        );
    }

    #[test]
    fn only_what_lies_in_the_pool_is_named_of_ranges_and_cidrs() {
        let mut pool = IPAddressPool::new("p", Default::default());
        pool.spec.addresses = vec!["192.0.2.1-192.0.2.10".to_owned(), "10.244.1.128/24".to_owned()];
        let config = build(&Resources { pools: vec![pool], ..Resources::default() }).unwrap().config;
        let nodes = [node("a", &["192.0.2.10", "192.0.2.11"], &["10.244.0.0/16"])];
        let found = in_pool(&config.pools["p"], &surroundings(&nodes, [], &BTreeMap::new()));
        assert_eq!(
            shown(&found),
            ["10.244.1.0/24 is in the Pod network of node a", "192.0.2.10/32 is an address of node a"]
        );
    }

    #[test]
    fn a_state_speaks_for_the_node_in_its_name() {
        let mut state = ConfigurationState::new("speaker-a.b", Default::default());
        assert_eq!(networks(&state), None);
        state.annotations_mut().insert(keys::NETWORKS.to_owned(), r#"{"gateways":["192.0.2.1"]}"#.to_owned());
        assert_eq!(networks(&state).unwrap().0, "a.b");
        state.annotations_mut().insert(keys::NETWORKS.to_owned(), "[".to_owned());
        assert_eq!(networks(&state), None);
        let controller = ConfigurationState::new("controller", Default::default());
        assert_eq!(networks(&controller), None);
    }
}
