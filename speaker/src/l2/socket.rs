//! A raw socket for one protocol on one interface, with a kernel filter, and the IPv6 groups of an interface.
//!
//! The order of the calls is the point: the socket is deaf (protocol 0) until a filter is in place. The filter can be
//! replaced, and is, in one step, whenever the addresses change; `SO_LOCK_FILTER` would forbid that
//! (docs/decisions/0021-kernel-filters.md). CAP_NET_RAW is all it needs.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv6Addr;
use std::os::fd::AsFd as _;
use std::task::{Context, Poll, ready};

use socket2::{Domain, SockFilter, Socket, Type};
use tokio::io::unix::AsyncFd;

use super::sys::{self, Received};

/// What a socket listens to. The value is the EtherType.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum Protocol {
    /// RFC 826.
    Arp = 0x0806,
    /// For neighbour discovery, RFC 4861.
    Ipv6 = 0x86dd,
}

/// One step that failed while a socket was being made. Nothing is left open.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} for {protocol:?} on interface {ifindex}: {cause}{}", hint(.cause))]
pub struct SocketError {
    step: &'static str,
    protocol: Protocol,
    ifindex: u32,
    #[source]
    cause: io::Error,
}

fn hint(cause: &io::Error) -> &'static str {
    if cause.kind() == io::ErrorKind::PermissionDenied { " (the speaker needs CAP_NET_RAW)" } else { "" }
}

/// What one look at a socket brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// This many bytes at the start of the buffer, beginning with the Ethernet header.
    Bytes(usize),
    /// It carried a VLAN tag: it belongs to the VLAN's segment, not to this interface's.
    Tagged,
    /// Its destination MAC is another host's.
    ForOther,
}

impl From<Received> for Frame {
    fn from(received: Received) -> Self {
        if received.tagged {
            Self::Tagged
        } else if received.for_other {
            Self::ForOther
        } else {
            Self::Bytes(received.len)
        }
    }
}

/// Frames of one protocol, in and out, on one interface.
#[derive(Debug)]
pub struct FrameSocket {
    fd: AsyncFd<Socket>,
}

impl FrameSocket {
    /// Opens, filters, then binds.
    ///
    /// # Errors
    /// The step that the kernel refused.
    pub fn open(ifindex: u32, protocol: Protocol, filter: &[SockFilter]) -> Result<Self, SocketError> {
        let at = |step| move |cause| SocketError { step, protocol, ifindex, cause };
        let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking(), None)
            .map_err(at("open an AF_PACKET socket"))?;
        let fd = socket.as_fd();
        socket.attach_filter(filter).map_err(at("attach the kernel filter"))?;
        sys::set_int(fd, libc::SOL_PACKET, sys::PACKET_AUXDATA, 1).map_err(at("ask for VLAN tags"))?;
        sys::set_int(fd, libc::SOL_PACKET, sys::PACKET_IGNORE_OUTGOING, 1)
            .map_err(at("ignore our own frames"))?;
        sys::bind_packet(fd, protocol as u16, ifindex).map_err(at("bind"))?;
        Ok(Self { fd: sys::register(socket).map_err(at("register with the reactor"))? })
    }

    /// Replaces the filter. Frames that the old one let through and that nobody has taken yet stay.
    ///
    /// # Errors
    /// Those of SO_ATTACH_FILTER: ENOMEM when it is longer than the socket's memory allows (net.core.optmem_max, which
    /// has to hold the old one, too). The old one stays then.
    pub fn filter(&self, filter: &[SockFilter]) -> io::Result<()> {
        self.fd.get_ref().attach_filter(filter)
    }

    /// The next frame.
    ///
    /// # Errors
    /// Those of recvmsg(2). None of them ends the socket: the interface list says when it is of no more use.
    pub fn poll_receive(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<Frame>> {
        loop {
            let mut guard = ready!(self.fd.poll_read_ready(cx))?;
            match guard.try_io(|fd| sys::receive(fd.get_ref().as_fd(), buffer)) {
                Ok(result) => return Poll::Ready(result.map(Frame::from)),
                Err(_would_block) => {}
            }
        }
    }

    /// The next frame, when one waits.
    ///
    /// # Errors
    /// Those of recvmsg(2).
    pub fn receive_waiting(&self, buffer: &mut [u8]) -> Option<io::Result<Frame>> {
        match sys::receive(self.fd.get_ref().as_fd(), buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            result => Some(result.map(Frame::from)),
        }
    }

    /// Sends one whole frame, once the socket has room for it.
    ///
    /// # Errors
    /// Those of send(2).
    pub fn poll_send(&self, cx: &mut Context<'_>, frame: &[u8]) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.fd.poll_write_ready(cx))?;
            if let Ok(result) = guard.try_io(|fd| fd.get_ref().send(frame)) {
                return Poll::Ready(result.map(drop));
            }
        }
    }

    /// Sends one whole frame. Never waits.
    ///
    /// # Errors
    /// Those of send(2); `WouldBlock`: what was sent before waits for the device.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.fd.get_ref().send(frame).map(drop)
    }
}

/// The IPv6 multicast groups that we are a member of, on all interfaces.
///
/// A real membership of the IPv6 stack, not `PACKET_ADD_MEMBERSHIP`: it opens the device's multicast filter just as
/// well, and the kernel reports it by MLD (RFC 3810), without which a snooping switch does not forward the group.
/// The kernel keeps it while the interface goes down and up; it ends with the device or with the socket.
#[derive(Debug, Default)]
pub struct Groups {
    /// The sockets that hold the memberships of an interface; more than one when the kernel's option memory
    /// (net.core.optmem_max, some hundreds of groups) is used up.
    sockets: BTreeMap<u32, Vec<Socket>>,
    /// Index into `sockets[ifindex]`.
    joined: BTreeMap<(u32, Ipv6Addr), usize>,
}

impl Groups {
    /// Joins; nothing happens when we are a member already.
    ///
    /// # Errors
    /// Those of IPV6_JOIN_GROUP; ENODEV when the interface has no IPv6.
    pub fn join(&mut self, ifindex: u32, group: Ipv6Addr) -> io::Result<()> {
        if self.joined.contains_key(&(ifindex, group)) {
            return Ok(());
        }
        let sockets = self.sockets.entry(ifindex).or_default();
        if let Some(last) = sockets.last() {
            match last.join_multicast_v6(&group, ifindex) {
                Ok(()) => {
                    self.joined.insert((ifindex, group), sockets.len() - 1);
                    return Ok(());
                }
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOMEM | libc::ENOBUFS)) => {}
                Err(error) => return Err(error),
            }
        }
        let fresh = Socket::new(Domain::IPV6, Type::DGRAM.nonblocking(), None)?;
        fresh.join_multicast_v6(&group, ifindex)?;
        sockets.push(fresh);
        self.joined.insert((ifindex, group), sockets.len() - 1);
        Ok(())
    }

    /// Leaves; nothing happens when we are not a member. The kernel's refusal means that the device is gone, and the
    /// membership with it.
    pub fn leave(&mut self, ifindex: u32, group: Ipv6Addr) {
        if let Some(at) = self.joined.remove(&(ifindex, group))
            && let Some(socket) = self.sockets.get(&ifindex).and_then(|sockets| sockets.get(at))
        {
            let _gone_with_the_device = socket.leave_multicast_v6(&group, ifindex);
        }
    }

    /// Leaves every group of an interface.
    pub fn leave_interface(&mut self, ifindex: u32) {
        self.sockets.remove(&ifindex);
        self.joined.retain(|(index, _), _| *index != ifindex);
    }

    /// How many memberships there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.joined.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.joined.is_empty()
    }
}
