//! One UDP socket per family, bound to the address that the others know: what we send comes from there. And one per further
//! address at which speakers ask each other whether a segment is whole: bound to its interface as well, so that what is
//! asked there goes out there, whatever the routes say.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use patina_speaker_core::membership::{Further, contains};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::Interest;

use super::StartError;

/// Heartbeats of a thousand speakers that waited for a quarter of a second fit in.
const RECEIVE_BUFFER: usize = 1 << 20;
/// "Network control" (RFC 2474, 4.2.2.2: class selector 6): where a switch has queues, this is not behind bulk data.
const TRAFFIC_CLASS: u32 = 6 << 5;

/// The sockets. They are read and written directly; tokio only tells when there may be something.
#[derive(Debug)]
pub(super) struct Sockets {
    /// The membership's own, one per family.
    own: Vec<(SocketAddr, UdpSocket)>,
    further: Vec<(Further, UdpSocket)>,
    turn: usize,
}

impl Sockets {
    pub(super) fn open(addresses: &[SocketAddr]) -> Result<Self, StartError> {
        let open = |address: &SocketAddr| {
            let socket =
                open(*address, None).map_err(|source| StartError::Bind { address: *address, source })?;
            // With port 0 (tests) the system chose one.
            let address = socket.local_addr().unwrap_or(*address);
            Ok((address, socket))
        };
        let own = addresses.iter().map(open).collect::<Result<_, StartError>>()?;
        Ok(Self { own, further: Vec::new(), turn: 0 })
    }

    /// Where the membership receives.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.own.iter().map(|(address, _)| *address).collect()
    }

    /// The further addresses at which it receives.
    pub(super) fn further(&self) -> impl Iterator<Item = IpAddr> {
        self.further.iter().map(|(further, _)| further.address)
    }

    /// Receives at these further addresses from now on, and at no others. True when there are other sockets than before; why
    /// it does not at some of them.
    pub(super) fn follow(&mut self, wanted: Vec<Further>) -> (bool, BTreeMap<IpAddr, io::Error>) {
        let Some(port) = self.own.first().map(|(address, _)| address.port()) else {
            return (false, BTreeMap::new());
        };
        let before = self.further.len();
        // One whose interface was made anew is bound to what is not there any more.
        self.further
            .retain(|(further, socket)| wanted.contains(further) && is_on(socket, &further.interface));
        let mut changed = self.further.len() != before;
        let mut failed = BTreeMap::new();
        for further in wanted {
            if self.further.iter().any(|(open, _)| *open == further) {
                continue;
            }
            match open(SocketAddr::new(further.address, port), Some(&further.interface)) {
                Ok(socket) => {
                    self.further.push((further, socket));
                    changed = true;
                }
                Err(error) => {
                    failed.insert(further.address, error);
                }
            }
        }
        (changed, failed)
    }

    /// What tells when there is something to read; made on the thread that will wait for it, and anew when
    /// [`Sockets::follow`] says so.
    pub(super) fn readiness(&self) -> io::Result<Readiness> {
        let clone = |socket: &UdpSocket| tokio::net::UdpSocket::from_std(socket.try_clone()?);
        Ok(Readiness(self.all().map(clone).collect::<io::Result<_>>()?))
    }

    /// The next datagram, of each socket in turn; `None` when there is none.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> Option<io::Result<(usize, SocketAddr)>> {
        let count = self.own.len() + self.further.len();
        for _ in 0..count {
            self.turn = (self.turn + 1) % count;
            let Some(socket) = self.all().nth(self.turn) else { continue };
            match socket.recv_from(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return Some(other.map(|(length, from)| (length, plain(from)))),
            }
        }
        None
    }

    /// From the further address that is in the receiver's subnet; else from the membership's own.
    pub(super) fn send(&self, to: SocketAddr, datagram: &[u8]) -> io::Result<()> {
        let near = |further: &Further| further.subnets.iter().any(|subnet| contains(*subnet, to.ip()));
        let further = self.further.iter().find(|(further, _)| near(further)).map(|(_, socket)| socket);
        let own = || self.own.iter().find(|(address, _)| address.is_ipv4() == to.is_ipv4());
        let socket = further.or_else(|| own().map(|(_, socket)| socket));
        socket.ok_or(io::ErrorKind::AddrNotAvailable)?.send_to(datagram, to).map(|_| ())
    }

    /// Whether there is a socket of this address' family, and the address is not our own.
    pub(super) fn is_peer(&self, ip: IpAddr) -> bool {
        self.own.iter().any(|(address, _)| address.is_ipv4() == ip.is_ipv4())
            && self.own.iter().all(|(address, _)| address.ip() != ip)
    }

    fn all(&self) -> impl Iterator<Item = &UdpSocket> {
        let own = self.own.iter().map(|(_, socket)| socket);
        own.chain(self.further.iter().map(|(_, socket)| socket))
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

fn open(address: SocketAddr, interface: Option<&str>) -> io::Result<UdpSocket> {
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
    socket.bind_device(interface.map(str::as_bytes))?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Whether a socket is bound to the interface that has this name now.
fn is_on(socket: &UdpSocket, interface: &str) -> bool {
    SockRef::from(socket).device().is_ok_and(|device| device.as_deref() == Some(interface.as_bytes()))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn further(address: &str, interface: &str) -> Further {
        let subnets = vec![("127.77.0.0".parse().unwrap(), 16)];
        Further { address: address.parse().unwrap(), interface: interface.to_owned(), subnets }
    }

    #[test]
    fn what_goes_into_the_subnet_of_a_further_address_comes_from_there() {
        let mut sockets = Sockets::open(&["127.76.0.1:0".parse().unwrap()]).unwrap();
        let (changed, failed) = sockets.follow(vec![further("127.77.0.1", "lo")]);
        assert!(changed && failed.is_empty(), "{failed:?}");
        assert!(!sockets.follow(vec![further("127.77.0.1", "lo")]).0, "it is there already");
        let other = UdpSocket::bind("0.0.0.0:0").unwrap();
        let port = other.local_addr().unwrap().port();
        for (to, from) in [("127.77.0.9", "127.77.0.1"), ("127.78.0.9", "127.76.0.1")] {
            sockets.send(SocketAddr::new(to.parse().unwrap(), port), b"x").unwrap();
            let at = other.recv_from(&mut [0]).unwrap().1;
            assert_eq!(at, SocketAddr::new(from.parse().unwrap(), sockets.addresses()[0].port()), "to {to}");
        }
        assert!(sockets.follow(Vec::new()).0 && sockets.further().next().is_none());
    }

    #[test]
    fn an_address_that_cannot_be_bound_is_told_and_tried_again() {
        let mut sockets = Sockets::open(&["127.76.0.2:0".parse().unwrap()]).unwrap();
        let taken = SocketAddr::new("127.77.0.2".parse().unwrap(), sockets.addresses()[0].port());
        let other = UdpSocket::bind(taken).unwrap();
        let wanted = vec![further("127.77.0.2", "lo"), further("127.77.0.3", "nowhere0")];
        let (changed, failed) = sockets.follow(wanted.clone());
        let kinds: Vec<_> = failed.values().map(io::Error::raw_os_error).collect();
        assert_eq!((changed, kinds), (false, vec![Some(libc::EADDRINUSE), Some(libc::ENODEV)]));
        drop(other);
        let (changed, failed) = sockets.follow(wanted);
        assert_eq!((changed, failed.len(), sockets.further().count()), (true, 1, 1));
    }
}
