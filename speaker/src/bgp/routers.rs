//! Sockets for [`Discovery`]: who the routers on the interfaces of unnumbered peers are.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::num::NonZeroU32;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use patina_speaker_core::bgp::unnumbered::{ADVERTISEMENT, Discovery};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::io::ReadBuf;
use tokio::net::UdpSocket;

use crate::deadline::until;

/// "hop limit 255" (RFC 4861 section 6.1.2).
const HOP_LIMIT: u32 = 255;
/// After a socket that could not be had.
const RETRY: Duration = Duration::from_secs(5);

/// For a raw ICMPv6 socket, whose data begin with the ICMPv6 header; `SKF_NET_OFF` (linux/filter.h) counts from the IPv6 header,
/// whose eighth octet is the hop limit.
const ADVERTISEMENTS_OF_NEIGHBOURS: [SockFilter; 6] = [
    SockFilter::new(0x30, 0, 0, 0xfff0_0007),          // A = the hop limit
    SockFilter::new(0x15, 0, 3, HOP_LIMIT),            // A == 255: go on, else skip three
    SockFilter::new(0x30, 0, 0, 0),                    // A = the ICMPv6 type
    SockFilter::new(0x15, 0, 1, ADVERTISEMENT as u32), // a router advertisement: go on, else skip one
    SockFilter::new(0x06, 0, 0, 0xffff),               // the whole message
    SockFilter::new(0x06, 0, 0, 0),                    // nothing
];

/// By the index of the interface.
#[derive(Debug, Default)]
pub(super) struct Routers {
    links: BTreeMap<u32, Link>,
    wanted: BTreeMap<u32, [u8; 6]>,
    retry: Option<Instant>,
}

#[derive(Debug)]
struct Link {
    mac: [u8; 6],
    discovery: Discovery,
    /// A raw ICMPv6 socket; what tokio does with it are the system calls that both kinds have in common.
    socket: UdpSocket,
}

impl Routers {
    /// Looks on these interfaces, and on no others.
    pub(super) fn look_on(&mut self, wanted: BTreeMap<u32, [u8; 6]>) {
        if wanted == self.wanted && self.retry.is_none_or(|at| at > Instant::now()) {
            return;
        }
        self.wanted = wanted;
        self.retry = None;
        let wanted = &self.wanted;
        self.links.retain(|index, link| wanted.get(index) == Some(&link.mac));
        for (index, mac) in &self.wanted {
            if self.links.contains_key(index) {
                continue;
            }
            match open(*index) {
                Ok(socket) => {
                    let discovery = Discovery::new(*mac, Instant::now());
                    self.links.insert(*index, Link { mac: *mac, discovery, socket });
                }
                Err(error) => {
                    tracing::warn!(interface = index, %error, "cannot look for a router");
                    self.retry = Some(Instant::now() + RETRY);
                }
            }
        }
    }

    /// Who was seen.
    pub(super) fn seen(&self, index: u32) -> Option<Ipv6Addr> {
        self.links.get(&index)?.discovery.router()
    }

    /// Waits until a router is new (or a socket is to be opened again), and meanwhile sends what is due. Nothing is lost when the
    /// wait is given up.
    pub(super) async fn changed(&mut self) {
        loop {
            let now = Instant::now();
            for (index, link) in &mut self.links {
                while let Some((to, message)) = link.discovery.poll_transmit(now) {
                    let to = SocketAddr::V6(SocketAddrV6::new(to, 0, 0, *index));
                    if let Err(error) = link.socket.try_send_to(&message, to) {
                        tracing::debug!(interface = index, %error, "cannot send to the routers");
                    }
                }
            }
            let due = self.links.values().map(|link| link.discovery.poll_timeout());
            let due = due.chain(self.retry).min();
            let retry = self.retry;
            let links = &mut self.links;
            tokio::select! {
                () = until(due) => if retry.is_some_and(|at| at <= Instant::now()) { return },
                () = poll_fn(|cx| poll_receive(links, cx)) => return,
            }
        }
    }
}

fn poll_receive(links: &mut BTreeMap<u32, Link>, cx: &mut Context<'_>) -> Poll<()> {
    let mut bytes = [0; 2048];
    for link in links.values_mut() {
        let mut buffer = ReadBuf::new(&mut bytes);
        while let Poll::Ready(received) = link.socket.poll_recv_from(cx, &mut buffer) {
            // ENETDOWN, once; its end comes by netlink.
            let Ok(from) = received else { continue };
            if let IpAddr::V6(from) = from.ip()
                && link.discovery.handle(Instant::now(), from, buffer.filled())
            {
                return Poll::Ready(());
            }
            buffer.clear();
        }
    }
    Poll::Pending
}

fn open(index: u32) -> io::Result<UdpSocket> {
    let kind = Type::RAW.nonblocking().cloexec();
    let socket = Socket::new(Domain::IPV6, kind, Some(Protocol::ICMPV6))?;
    socket.attach_filter(&ADVERTISEMENTS_OF_NEIGHBOURS)?;
    socket.bind_device_by_index_v6(NonZeroU32::new(index))?;
    socket.set_multicast_hops_v6(HOP_LIMIT)?;
    socket.set_multicast_loop_v6(false)?;
    socket.set_multicast_if_v6(index)?;
    UdpSocket::from_std(socket.into())
}
