//! One UDP socket per family, bound to the address that the others know: what we send comes from there.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;

use super::StartError;

/// Heartbeats of a thousand speakers that waited for a quarter of a second fit in.
const RECEIVE_BUFFER: usize = 1 << 20;
/// "Network control" (RFC 2474, 4.2.2.2: class selector 6): where a switch has queues, this is not behind bulk data.
const TRAFFIC_CLASS: u32 = 6 << 5;

/// The sockets. They are read and written directly; tokio only tells when there may be something.
#[derive(Debug)]
pub(super) struct Sockets {
    sockets: Vec<(SocketAddr, UdpSocket)>,
    turn: usize,
}

impl Sockets {
    pub(super) fn open(addresses: &[SocketAddr]) -> Result<Self, StartError> {
        let open = |address: &SocketAddr| {
            let socket = open(*address).map_err(|source| StartError::Bind { address: *address, source })?;
            // With port 0 (tests) the system chose one.
            let address = socket.local_addr().unwrap_or(*address);
            Ok((address, socket))
        };
        let sockets = addresses.iter().map(open).collect::<Result<_, StartError>>()?;
        Ok(Self { sockets, turn: 0 })
    }

    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().map(|(address, _)| *address).collect()
    }

    /// What tells when there is something to read; made on the thread that will wait for it.
    pub(super) fn readiness(&self) -> io::Result<Readiness> {
        let clone =
            |(_, socket): &(SocketAddr, UdpSocket)| tokio::net::UdpSocket::from_std(socket.try_clone()?);
        Ok(Readiness(self.sockets.iter().map(clone).collect::<io::Result<_>>()?))
    }

    /// The next datagram, of each socket in turn; `None` when there is none.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> Option<io::Result<(usize, SocketAddr)>> {
        for _ in 0..self.sockets.len() {
            self.turn = (self.turn + 1) % self.sockets.len();
            let Some((_, socket)) = self.sockets.get(self.turn) else { continue };
            match socket.recv_from(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return Some(other.map(|(length, from)| (length, plain(from)))),
            }
        }
        None
    }

    pub(super) fn send(&self, to: SocketAddr, datagram: &[u8]) -> io::Result<()> {
        let socket = self.sockets.iter().find(|(address, _)| address.is_ipv4() == to.is_ipv4());
        let (_, socket) = socket.ok_or(io::ErrorKind::AddrNotAvailable)?;
        socket.send_to(datagram, to).map(|_| ())
    }

    /// Whether there is a socket of this address' family, and the address is not our own.
    pub(super) fn is_peer(&self, ip: IpAddr) -> bool {
        self.sockets.iter().any(|(address, _)| address.is_ipv4() == ip.is_ipv4())
            && self.sockets.iter().all(|(address, _)| address.ip() != ip)
    }
}

/// See [`Sockets::readiness`].
#[derive(Debug)]
pub(super) struct Readiness(Vec<tokio::net::UdpSocket>);

impl Readiness {
    /// Returns when a socket may have something. Call [`Readiness::clear`] once everything was read.
    pub(super) async fn readable(&self) {
        let all = self.0.iter().map(|socket| Box::pin(socket.readable()));
        // An error (the runtime ends) is the end of waiting, too.
        let _ready = futures::future::select_all(all).await;
    }

    /// Everything was read: wait for the next datagram. One that came since then is told by the kernel anew.
    pub(super) fn clear(&self) {
        for socket in &self.0 {
            let _cleared: io::Result<()> =
                socket.try_io(Interest::READABLE, || Err(io::ErrorKind::WouldBlock.into()));
        }
    }
}

fn open(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    // The address may come a moment after us (an IPv6 address is tentative at first: RFC 4862, 5.4).
    let classed = if address.is_ipv4() {
        socket.set_freebind_v4(true)?;
        socket.set_tos_v4(TRAFFIC_CLASS)
    } else {
        socket.set_only_v6(true)?;
        socket.set_freebind_v6(true)?;
        socket.set_tclass_v6(TRAFFIC_CLASS)
    };
    // Both are wishes.
    if let Err(error) = classed.and_then(|()| socket.set_recv_buffer_size(RECEIVE_BUFFER)) {
        tracing::debug!(%address, "an option of the membership's socket was refused: {error}");
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Without the flow label, which is no part of who somebody is.
fn plain(from: SocketAddr) -> SocketAddr {
    match from {
        SocketAddr::V6(mut from) => {
            from.set_flowinfo(0);
            from.into()
        }
        from => from,
    }
}
