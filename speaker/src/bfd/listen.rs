//! The sockets that receive: one for each family, port and VRF that a session needs, so that a node without sessions leaves the
//! ports to others.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant, SystemTime};

use super::desired::Key;
use super::socket::{self, MULTIHOP, SINGLE_HOP};
use super::sys::{self, Received};

/// What waits while this thread is not scheduled: a second of some hundred sessions.
const RECEIVE_BUFFER: usize = 1 << 20;

/// Which socket.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Door {
    pub(super) v4: bool,
    pub(super) multihop: bool,
    pub(super) vrf: Option<String>,
}

impl Door {
    pub(super) fn of(key: &Key) -> Self {
        Self { v4: key.peer.is_ipv4(), multihop: key.multihop, vrf: key.vrf.clone() }
    }
}

/// Those that are open.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    open: BTreeMap<Door, Listener>,
    /// Why some are not.
    pub(super) closed: BTreeMap<Door, String>,
}

#[derive(Debug)]
struct Listener {
    socket: UdpSocket,
    readiness: tokio::net::UdpSocket,
    /// It was empty then: what it holds came later.
    empty: Instant,
}

impl Listeners {
    /// Opens what is needed, closes what is not. Call it again when one could not be opened.
    pub(super) fn follow(&mut self, needed: BTreeSet<Door>) {
        self.open.retain(|door, _| needed.contains(door));
        self.closed.retain(|door, _| needed.contains(door));
        for door in needed {
            if self.open.contains_key(&door) {
                continue;
            }
            match Listener::open(&door) {
                Ok(listener) => {
                    self.closed.remove(&door);
                    self.open.insert(door, listener);
                }
                Err(error) => {
                    let port = if door.multihop { MULTIHOP } else { SINGLE_HOP };
                    self.closed.insert(door, format!("cannot listen on UDP port {port}: {error}"));
                }
            }
        }
    }

    /// Hands over what has come, at most `budget` datagrams of each socket. True: there may be more.
    pub(super) fn receive(
        &mut self,
        buffer: &mut [u8],
        budget: usize,
        mut take: impl FnMut(&Door, Instant, &Received, &[u8]),
    ) -> bool {
        let mut more = false;
        for (door, listener) in &mut self.open {
            let mut left = budget;
            while left > 0 {
                // Before the look, not after it: a datagram may come in between.
                let now = Instant::now();
                match sys::receive(listener.socket.as_fd(), buffer) {
                    Ok(received) => {
                        left -= 1;
                        let at = arrival(&received, now, listener.empty);
                        take(door, at, &received, buffer.get(..received.length).unwrap_or_default());
                    }
                    Err(error) => {
                        if error.kind() == io::ErrorKind::WouldBlock {
                            listener.empty = now;
                            listener.clear();
                        }
                        break;
                    }
                }
            }
            more |= left == 0;
        }
        more
    }

    pub(super) fn readiness(&self) -> impl Iterator<Item = &tokio::net::UdpSocket> {
        self.open.values().map(|listener| &listener.readiness)
    }
}

impl Listener {
    fn open(door: &Door) -> io::Result<Self> {
        let any: IpAddr = if door.v4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = socket::udp(any, door.vrf.as_deref())?;
        let fd = socket.as_fd();
        let options = if door.v4 {
            [(libc::IPPROTO_IP, libc::IP_RECVTTL), (libc::IPPROTO_IP, libc::IP_PKTINFO)]
        } else {
            [(libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT), (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)]
        };
        for (level, name) in options.into_iter().chain([(libc::SOL_SOCKET, libc::SO_TIMESTAMPNS)]) {
            sys::set_int(fd, level, name, 1)?;
        }
        // A wish.
        let _default_size = socket.set_recv_buffer_size(RECEIVE_BUFFER);
        let port = if door.multihop { MULTIHOP } else { SINGLE_HOP };
        socket.bind(&SocketAddr::new(any, port).into())?;
        let socket = UdpSocket::from(socket);
        Ok(Self { readiness: socket::readiness(&socket)?, socket, empty: Instant::now() })
    }

    /// Everything was read: wait for the next datagram. One that came since then is told by the kernel anew.
    fn clear(&self) {
        let _cleared: io::Result<()> =
            self.readiness.try_io(tokio::io::Interest::READABLE, || Err(io::ErrorKind::WouldBlock.into()));
    }
}

/// When a datagram came, by the kernel's stamp; but not before the socket was last seen empty, nor after now, however the wall
/// clock was set meanwhile.
fn arrival(received: &Received, now: Instant, empty: Instant) -> Instant {
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let age = received.stamp.map_or(Duration::ZERO, |stamp| wall.saturating_sub(stamp));
    let least = empty.min(now);
    now.checked_sub(age).map_or(least, |at| at.max(least))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamped(stamp: Option<Duration>) -> Received {
        Received { length: 24, from: None, to: None, interface: 0, ttl: 255, stamp }
    }

    #[test]
    fn a_packet_counts_at_its_arrival_however_the_wall_clock_was_set() {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let second = Duration::from_secs(1);
        let empty = Instant::now();
        let now = empty + 10 * second;
        let age = |stamp| now - arrival(&stamped(stamp), now, empty);
        let near = |age: Duration, expected: Duration| age.abs_diff(expected) < Duration::from_millis(500);
        assert!(near(age(Some(wall - 3 * second)), 3 * second), "it waited for three seconds");
        assert_eq!(age(Some(wall - 3600 * second)), 10 * second, "the clock was set forward");
        assert_eq!(age(Some(wall + 3600 * second)), Duration::ZERO, "the clock was set back");
        assert_eq!(age(None), Duration::ZERO, "no stamp");
    }
}
