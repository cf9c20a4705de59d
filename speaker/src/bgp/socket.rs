//! TCP sockets as BGP wants them: bound to a device and an address, signed, with a TTL of 255.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::fd::AsFd;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::desired::{Neighbour, Secret};
use super::sys;

/// The largest, so that a peer that demands it (RFC 5082) has it; a router further away is reached as well.
const TTL: u32 = 255;
/// "Internetwork control" (RFC 4271 appendix E, RFC 2474 CS6), so that a full queue does not end the session.
const CS6: u32 = 0xc0;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;

/// Connects to the peer at `remote`; `scope` is the interface of a link-local address.
pub(super) async fn connect(neighbour: Neighbour, remote: IpAddr, scope: u32) -> io::Result<TcpStream> {
    let domain = domain(remote);
    let socket = Socket::new(domain, Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    dress(&socket, remote)?;
    if let Some(vrf) = &neighbour.vrf {
        socket.bind_device(Some(vrf.as_bytes())).map_err(|error| named(&error, &format!("vrf {vrf}")))?;
    }
    if let Some(ttl) = neighbour.minimum_ttl {
        sys::set_minimum_ttl(socket.as_fd(), remote, ttl)?;
    }
    sign(&socket, remote, neighbour.password.as_ref())?;
    if let Some(source) = neighbour.source {
        let bound = socket.bind(&SocketAddr::new(source, 0).into());
        bound.map_err(|error| named(&error, &format!("source address {source}")))?;
    }
    let address = match remote {
        IpAddr::V6(ip) => SocketAddr::V6(SocketAddrV6::new(ip, neighbour.port, 0, scope)),
        IpAddr::V4(_) => SocketAddr::new(remote, neighbour.port),
    };
    TcpSocket::from_std_stream(socket.into()).connect(address).await
}

/// Accepts connections to `address`, in `vrf`. Who may connect is decided when one does.
pub(super) fn listen(address: SocketAddr, vrf: Option<&str>) -> io::Result<TcpListener> {
    let socket =
        Socket::new(domain(address.ip()), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    dress(&socket, address.ip())?;
    if let Some(vrf) = vrf {
        socket.bind_device(Some(vrf.as_bytes()))?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Uses this key with this peer from now on; `None`: no key.
pub(super) fn sign(socket: &impl AsFd, peer: IpAddr, key: Option<&Secret>) -> io::Result<()> {
    let key = key.map_or("", |secret| secret.0.as_str());
    sys::set_md5(socket.as_fd(), peer, key.as_bytes()).map_err(|error| named(&error, "TCP-MD5"))
}

/// What an accepted connection does not get from its listener.
pub(super) fn accepted(stream: &TcpStream, neighbour: &Neighbour, remote: IpAddr) -> io::Result<()> {
    stream.set_nodelay(true)?;
    match neighbour.minimum_ttl {
        Some(ttl) => sys::set_minimum_ttl(stream.as_fd(), remote, ttl),
        None => Ok(()),
    }
}

fn dress(socket: &Socket, ip: IpAddr) -> io::Result<()> {
    let socket = SockRef::from(socket);
    // UPDATEs are written whole; a KEEPALIVE shall not wait for an acknowledgement.
    socket.set_tcp_nodelay(true)?;
    match ip {
        IpAddr::V4(_) => {
            socket.set_ttl_v4(TTL)?;
            socket.set_tos_v4(CS6)
        }
        IpAddr::V6(_) => {
            socket.set_unicast_hops_v6(TTL)?;
            socket.set_tclass_v6(CS6)
        }
    }
}

fn domain(ip: IpAddr) -> Domain {
    if ip.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 }
}

fn named(error: &io::Error, what: &str) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}
