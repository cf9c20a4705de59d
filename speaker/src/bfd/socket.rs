//! What all sockets here have in common.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

/// RFC 5881 section 4.
pub(super) const SINGLE_HOP: u16 = 3784;
/// RFC 5883 section 5.
pub(super) const MULTIHOP: u16 = 4784;
/// RFC 5881 section 4.
pub(super) const ECHO: u16 = 3785;
/// "Network control" (RFC 2474, 4.2.2.2: class selector 6): where a switch has queues, this is not behind bulk data.
pub(super) const TRAFFIC_CLASS: u8 = 6 << 5;

/// An unbound UDP socket of the address' family, on a device where one is named.
pub(super) fn udp(family: IpAddr, device: Option<&str>) -> io::Result<Socket> {
    let domain = if family.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if family.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind_device(device.map(str::as_bytes))?;
    Ok(socket)
}

/// An address and a port; `interface` counts where the address is link-local.
pub(super) fn place(ip: IpAddr, port: u16, interface: Option<u32>) -> SocketAddr {
    match ip {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => {
            SocketAddrV6::new(v6, port, 0, interface.unwrap_or(0)).into()
        }
        ip => SocketAddr::new(ip, port),
    }
}

/// What tokio waits on. The socket itself is read directly: tokio only tells when there may be something.
pub(super) fn readiness(socket: &UdpSocket) -> io::Result<tokio::net::UdpSocket> {
    tokio::net::UdpSocket::from_std(socket.try_clone()?)
}
