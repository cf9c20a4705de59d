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
    batch(
        net,
        &[
            format!(
                "link add {name} type veth peer name eth0 address {} netns {}",
                mac_text(mac),
                netns.name()
            ),
            format!("link set {name} master br0"),
            format!("link set {name} up"),
        ],
    )?;
    batch(&netns, &[format!("addr add {address}/16 dev eth0"), "link set eth0 up".into()])?;
    Ok(netns)
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

/// Makes whole what [`cut`] broke.
///
/// # Errors
/// No such port.
pub(super) fn mend(net: &Netns, port: &str) -> Result<()> {
    batch(net, &[format!("link set {port} master br0"), format!("link set {port} up")])
}
