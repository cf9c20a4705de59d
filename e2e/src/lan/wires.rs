//! A bridge, and what is plugged into it.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};

use crate::lab::topology::{batch, mac_text, sysctls};
use crate::neighbour::Mac;
use crate::netns::Netns;
use crate::rundir::RunDir;

/// Where the API server listens: the bridge's own address.
pub const API: Ipv4Addr = Ipv4Addr::new(172, 25, 0, 1);
/// The client's address.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(172, 25, 0, 5);
/// What Services get.
pub(super) const POOL: &str = "172.25.128.0/17";
/// The client's address on the second network.
pub const CLIENT_THERE: Ipv4Addr = Ipv4Addr::new(172, 26, 0, 5);
/// What Services get when there is a second network.
pub(super) const POOL_THERE: &str = "172.26.128.0/17";

/// The namespace of the bridges: `br0`, where everybody is, and `br1`, where nobody is until the network splits.
///
/// # Errors
/// Not root, or a kernel that lacks bridges.
pub(super) fn bridge(run: &RunDir) -> Result<Netns> {
    let net = Netns::create(run, "net")?;
    sysctls(&net, &[])?;
    let bridge =
        |name: &str| format!("link add {name} type bridge forward_delay 0 stp_state 0 mcast_snooping 0");
    let up = |name: &str| format!("link set {name} up");
    batch(&net, &[bridge("br0"), bridge("br1"), format!("addr add {API}/16 dev br0"), up("br0"), up("br1")])?;
    Ok(net)
}

/// A namespace with one cable: eth0 in it, a port called `name` on `br0`.
///
/// # Errors
/// As [`bridge`].
pub(super) fn plug(run: &RunDir, net: &Netns, name: &str, mac: Mac, address: Ipv4Addr) -> Result<Netns> {
    let netns = Netns::create(run, name)?;
    sysctls(&netns, &[])?;
    cable(net, &netns, ["br0", name, "eth0"], mac, address)?;
    Ok(netns)
}

/// The bridge of the second network, `br2`, and its client, who has one cable, into that.
///
/// # Errors
/// As [`bridge`].
pub(super) fn second_bridge(run: &RunDir, net: &Netns) -> Result<Netns> {
    let bridge = "link add br2 type bridge forward_delay 0 stp_state 0 mcast_snooping 0";
    batch(net, &[bridge.into(), "link set br2 up".into()])?;
    let client = Netns::create(run, "client2")?;
    sysctls(&client, &[])?;
    cable(net, &client, ["br2", "client2", "eth0"], [0x02, 0x26, 0, 0, 0, 5], CLIENT_THERE)?;
    Ok(client)
}

/// A second cable for a node: eth1 in it, into `br2`.
///
/// # Errors
/// As [`bridge`].
pub(super) fn plug_second(net: &Netns, netns: &Netns, name: &str, mac: Mac, address: Ipv4Addr) -> Result<()> {
    cable(net, netns, ["br2", &second_port(name), "eth1"], mac, address)
}

/// The port of a node's second cable.
pub(super) fn second_port(name: &str) -> String {
    format!("{name}-2")
}

fn cable(
    net: &Netns,
    netns: &Netns,
    [bridge, port, end]: [&str; 3],
    mac: Mac,
    address: Ipv4Addr,
) -> Result<()> {
    let (mac, name) = (mac_text(mac), netns.name());
    batch(
        net,
        &[
            format!("link add {port} type veth peer name {end} address {mac} netns {name}"),
            format!("link set {port} master {bridge}"),
            format!("link set {port} up"),
        ],
    )?;
    batch(netns, &[format!("addr add {address}/16 dev {end}"), format!("link set {end} up")])
}

/// Makes room in the kernel's table of neighbours for so many nodes that all talk to each other. The kernel counts the entries of
/// all namespaces together (`gc_thresh3`, 1024 by default): thirty-three nodes fill it, and then nobody finds anybody, the API
/// server included. The room stays when the LAN ends; an unused entry costs nothing.
///
/// # Errors
/// Not permitted: the text has what to set.
pub(super) fn room_for(nodes: usize) -> Result<()> {
    // Twice what a full mesh needs: addresses of Services and of strangers come on top.
    let wanted = (nodes + 10).pow(2) * 2;
    for family in ["ipv4", "ipv6"] {
        // The greatest first: the kernel does not mind the order, who reads them meanwhile may.
        for limit in ["gc_thresh3", "gc_thresh2", "gc_thresh1"] {
            let path = format!("/proc/sys/net/{family}/neigh/default/{limit}");
            let Ok(text) = std::fs::read_to_string(&path) else { continue }; // a kernel without IPv6
            if text.trim().parse::<usize>().is_ok_and(|has| has < wanted) {
                std::fs::write(&path, wanted.to_string()).with_context(|| {
                    format!("{nodes} nodes need sysctl net.{family}.neigh.default.{limit}={wanted}")
                })?;
            }
        }
    }
    Ok(())
}

/// How a cable is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The other end goes down: the node sees that its carrier is gone.
    Carrier,
    /// The switch forgets the port: the node sees nothing, and no frame arrives.
    Silent,
    /// The port is on another switch now, with whoever else was moved there.
    Moved,
}

/// Breaks the cable of a port.
///
/// # Errors
/// No such port.
pub(super) fn cut(net: &Netns, port: &str, how: Cut) -> Result<()> {
    match how {
        Cut::Carrier => net.ip(&["link", "set", port, "down"]),
        Cut::Silent => net.ip(&["link", "set", port, "nomaster"]),
        Cut::Moved => net.ip(&["link", "set", port, "master", "br1"]),
    }
    .map(drop)
}

/// Makes whole what [`cut`] broke: the port is on this bridge again.
///
/// # Errors
/// No such port.
pub(super) fn mend(net: &Netns, port: &str, bridge: &str) -> Result<()> {
    batch(net, &[format!("link set {port} master {bridge}"), format!("link set {port} up")])
}
