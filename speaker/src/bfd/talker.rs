//! The socket that a session sends from.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use super::desired::Key;
use super::socket::{self, MULTIHOP, SINGLE_HOP, TRAFFIC_CLASS};

/// RFC 5881 section 4: "The source port MUST be in the range 49152 through 65535. The same UDP source port number MUST be used
/// for all BFD Control packets associated with a particular session. The source port number SHOULD be unique among all BFD
/// sessions on the system."
const FIRST_PORT: u16 = 49152;
const PORTS: u16 = 16384;
/// Others use ports of this range, too.
const TRIES: u16 = 256;

/// Sends the control packets of one session.
#[derive(Debug)]
pub(super) struct Talker {
    socket: UdpSocket,
    /// Where it sends from.
    pub(super) local: SocketAddr,
}

impl Talker {
    /// `taken`: the ports of other sessions. `wish`: any number; where the search for a port begins.
    pub(super) fn open(
        key: &Key,
        interface: Option<u32>,
        taken: &BTreeSet<u16>,
        wish: u32,
    ) -> io::Result<Self> {
        let mut error = io::ErrorKind::AddrInUse.into();
        for n in 0..TRIES {
            let offset = (wish % u32::from(PORTS)) as u16;
            let port = FIRST_PORT + (offset + n) % PORTS;
            if taken.contains(&port) {
                continue;
            }
            match Self::on_port(key, interface, port) {
                Err(in_use) if in_use.kind() == io::ErrorKind::AddrInUse => error = in_use,
                result => return result,
            }
        }
        Err(error)
    }

    fn on_port(key: &Key, interface: Option<u32>, port: u16) -> io::Result<Self> {
        let socket = socket::udp(key.peer, key.interface.as_deref().or(key.vrf.as_deref()))?;
        let any = match key.peer {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        // RFC 5881 section 5, and RFC 5883 section 5 for several hops.
        if key.peer.is_ipv4() {
            socket.set_ttl_v4(255)?;
            socket.set_tos_v4(TRAFFIC_CLASS.into())?;
        } else {
            socket.set_unicast_hops_v6(255)?;
            socket.set_tclass_v6(TRAFFIC_CLASS.into())?;
        }
        socket.bind(&socket::place(key.local.unwrap_or(any), port, interface).into())?;
        let to = if key.multihop { MULTIHOP } else { SINGLE_HOP };
        // The kernel chooses our address now, and keeps to it.
        socket.connect(&socket::place(key.peer, to, interface).into())?;
        let socket = UdpSocket::from(socket);
        Ok(Self { local: socket.local_addr()?, socket })
    }

    /// Sends one. Never waits.
    pub(super) fn send(&self, packet: &[u8]) -> io::Result<()> {
        match self.socket.send(packet) {
            // That nobody listened to the packet before (ICMP "port unreachable") is told instead of sending this one.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => self.socket.send(packet),
            result => result,
        }
        .map(drop)
    }
}
