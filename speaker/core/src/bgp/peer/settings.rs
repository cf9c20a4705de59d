//! How a node speaks to a peer: what the BGPPeer says, and for the rest our defaults.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use patina_crds::config::{Peer, PeerAddress};
use patina_crds::net::Family;
use sha2::{Digest as _, Sha256};

use super::Settings;
use crate::view::InterfaceView;

/// RFC 4271 section 10 suggests 90 s, and MetalLB without FRR has it.
const HOLD_TIME: Duration = Duration::from_secs(90);
/// The first pause after an attempt that failed. RFC 4271's 120 s would be long for a router that reboots.
const CONNECT_RETRY: Duration = Duration::from_secs(5);
/// Where the back-off ends.
const CONNECT_RETRY_MAX: Duration = Duration::from_secs(120);
/// How long a peer keeps our routes while we restart (RFC 4724): an image may have to be pulled.
const RESTART_TIME: u16 = 120;
/// Nothing that a peer sends is used. More than the whole Internet has is a fault of the peer's.
const MAX_PREFIXES: usize = 2_000_000;

impl Settings {
    /// Of this peer, on this node.
    #[must_use]
    pub fn of(peer: &Peer, node: &str, interfaces: &[InterfaceView], restarted: bool) -> Self {
        let unnumbered = matches!(peer.address, PeerAddress::Interface(_));
        let families = match &peer.address {
            PeerAddress::Ip(ip) if !peer.dual_stack_address_family => vec![Family::of(*ip)],
            _ => vec![Family::V4, Family::V6],
        };
        Self {
            asn: peer.local_asn.unwrap_or(peer.my_asn),
            peer_asn: peer.peer_asn,
            router_id: peer.router_id.unwrap_or_else(|| router_id(node, interfaces)),
            hold_time: peer.hold_time.unwrap_or(HOLD_TIME),
            keepalive_time: peer.keepalive_time,
            connect_retry_time: peer.connect_time.unwrap_or(CONNECT_RETRY),
            // Whoever says how long means it.
            connect_retry_max: peer.connect_time.unwrap_or(CONNECT_RETRY_MAX),
            // IPv4 routes over an IPv6 session need it; where it is offered in vain, nothing is lost.
            extended_next_hop: unnumbered || families.len() > 1,
            families,
            graceful_restart: peer.graceful_restart.then_some(RESTART_TIME),
            restarted,
            bfd: peer.bfd_profile.is_some(),
            bfd_strict: false,
            passive: false,
            max_prefixes: MAX_PREFIXES,
            seed: number(&[node, &peer.name]),
        }
    }
}

/// One for the whole node, as RFC 4271 section 4.2 wants it ("the same for every local interface and every BGP peer"), and the
/// same after a restart: the first IPv4 address of the oldest interface that has one; without any, a hash of the node's name.
#[must_use]
pub fn router_id(node: &str, interfaces: &[InterfaceView]) -> Ipv4Addr {
    let usable = |ip: &Ipv4Addr| !ip.is_loopback() && !ip.is_link_local() && !ip.is_unspecified();
    let of = |interface: &InterfaceView| {
        let addresses = interface.addresses.iter().filter_map(|(ip, _)| match ip {
            IpAddr::V4(v4) => Some(*v4),
            IpAddr::V6(_) => None,
        });
        addresses.filter(usable).min()
    };
    let found = interfaces.iter().filter_map(|interface| Some((interface.index, of(interface)?)));
    found.min_by_key(|(index, _)| *index).map_or_else(
        || {
            // Zero is no identifier (RFC 6286).
            let [.., a, b, c, d] = number(&[node]).to_be_bytes();
            Ipv4Addr::from(u32::from_be_bytes([a, b, c, d]).max(1))
        },
        |(_, ip)| ip,
    )
}

fn number(words: &[&str]) -> u64 {
    let mut hash = Sha256::new();
    for word in words {
        hash.update(word.as_bytes());
        hash.update([0]);
    }
    let digest: [u8; 32] = hash.finalize().into();
    digest.iter().take(8).fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn interface(index: u32, addresses: &[&str]) -> InterfaceView {
        let addresses =
            addresses.iter().map(|ip| (ip.parse().unwrap(), 24)).collect::<BTreeSet<(IpAddr, u8)>>();
        InterfaceView {
            name: format!("eth{index}"),
            index,
            mac: [2, 0, 0, 0, 0, 1],
            up: true,
            arp: true,
            ndp: true,
            enslaved: false,
            addresses,
        }
    }

    #[test]
    fn a_node_has_one_router_id_that_a_restart_does_not_change() {
        let interfaces = [
            interface(3, &["10.0.0.9"]),
            interface(2, &["2001:db8::1", "192.0.2.8", "192.0.2.7", "169.254.1.1"]),
            interface(1, &["127.0.0.1"]),
        ];
        assert_eq!(router_id("node-1", &interfaces), Ipv4Addr::new(192, 0, 2, 7));
    }

    #[test]
    fn a_node_without_an_ipv4_address_takes_its_name() {
        let without = [interface(2, &["2001:db8::1"])];
        let [one, same, other] = ["a", "a", "b"].map(|node| router_id(node, &without));
        assert_eq!(one, same);
        assert_ne!(one, other);
        assert!(!one.is_unspecified());
    }
}
