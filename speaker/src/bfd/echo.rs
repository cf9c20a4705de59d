//! Echo packets (RFC 5881 section 4): to ourselves, through the peer.
//!
//! Out: "the destination address MUST be chosen in such a way as to cause the remote system to forward the packet back to the
//! local system", so it is our own, and the kernel would not let such a packet out. A raw socket does: the header is ours, while
//! the route, and with it the MAC address, is that to the peer.
//!
//! Back: a packet from the node's own address is a martian to the kernel's IP; a packet socket sees it before.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};

use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::desired::Key;
use super::socket::{self, ECHO, TRAFFIC_CLASS};
use super::sys;

/// `linux/in.h`: the caller writes the IP header.
const IPPROTO_RAW: i32 = 255;
const IP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;

/// Sends the echo packets of one session.
#[derive(Debug)]
pub(super) struct EchoTalker {
    socket: Socket,
    to: SocketAddr,
}

impl EchoTalker {
    pub(super) fn open(key: &Key) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(IPPROTO_RAW)))?;
        socket.set_nonblocking(true)?;
        let device = key.interface.as_deref().or(key.vrf.as_deref());
        socket.bind_device(device.map(str::as_bytes))?;
        Ok(Self { socket, to: SocketAddr::new(key.peer, 0) })
    }

    /// `local`: our address, and the port that the session's control packets come from.
    pub(super) fn send(&self, local: SocketAddr, payload: &[u8]) -> io::Result<()> {
        let IpAddr::V4(ours) = local.ip() else { return Err(io::ErrorKind::Unsupported.into()) };
        let packet = packet(ours, local.port(), payload).ok_or(io::ErrorKind::InvalidInput)?;
        self.socket.send_to(&packet, &self.to.into()).map(drop)
    }
}

/// An IPv4 packet from us to us. Identification and checksum of the header are the kernel's (raw(7)); without a checksum of
/// its own UDP is valid (RFC 768), and the payload proves itself.
fn packet(ours: Ipv4Addr, port: u16, payload: &[u8]) -> Option<Vec<u8>> {
    let udp_length = u16::try_from(UDP_HEADER + payload.len()).ok()?;
    let total = u16::try_from(IP_HEADER).ok()?.checked_add(udp_length)?;
    let mut packet = Vec::with_capacity(total.into());
    packet.extend([0x45, TRAFFIC_CLASS]);
    packet.extend(total.to_be_bytes());
    // No identification, "don't fragment", TTL 255, UDP, no checksum.
    packet.extend([0, 0, 0x40, 0, 255, 17, 0, 0]);
    packet.extend(ours.octets());
    packet.extend(ours.octets());
    packet.extend(port.to_be_bytes());
    packet.extend(ECHO.to_be_bytes());
    packet.extend(udp_length.to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(payload);
    Some(packet)
}

/// The payload of a packet that the filter let through; what the Ethernet frame was filled up with is no part of it.
fn payload(packet: &[u8]) -> Option<&[u8]> {
    let words = usize::from(packet.first()? & 0x0f);
    let udp = packet.get(words * 4..)?;
    let length = u16::from_be_bytes([*udp.get(4)?, *udp.get(5)?]);
    udp.get(UDP_HEADER..usize::from(length))
}

/// Receives echo packets, on the interfaces where sessions send them.
#[derive(Debug, Default)]
pub(super) struct EchoListeners(BTreeMap<u32, (UdpSocket, tokio::net::UdpSocket)>);

impl EchoListeners {
    /// Whether it listens on this interface.
    pub(super) fn open(&mut self, interface: u32) -> io::Result<()> {
        if self.0.contains_key(&interface) {
            return Ok(());
        }
        let socket = Socket::new(Domain::PACKET, Type::DGRAM, None)?;
        socket.set_nonblocking(true)?;
        socket.attach_filter(&filter())?;
        sys::set_int(socket.as_fd(), libc::SOL_PACKET, sys::PACKET_IGNORE_OUTGOING, 1)?;
        sys::bind_packet(socket.as_fd(), interface)?;
        // std's type for any datagram socket: what is asked of it is a descriptor to wait on.
        let socket = UdpSocket::from(OwnedFd::from(socket));
        let readiness = socket::readiness(&socket)?;
        self.0.insert(interface, (socket, readiness));
        Ok(())
    }

    /// Closes those on other interfaces.
    pub(super) fn keep(&mut self, interfaces: &BTreeSet<u32>) {
        self.0.retain(|interface, _| interfaces.contains(interface));
    }

    /// Hands over the payloads that have come, at most `budget` of each socket. True: there may be more.
    pub(super) fn receive(&self, buffer: &mut [u8], budget: usize, mut take: impl FnMut(&[u8])) -> bool {
        let mut more = false;
        for (socket, readiness) in self.0.values() {
            let mut left = budget;
            while left > 0 {
                match sys::receive(socket.as_fd(), buffer) {
                    Ok(received) => {
                        left -= 1;
                        if let Some(payload) = payload(buffer.get(..received.length).unwrap_or_default()) {
                            take(payload);
                        }
                    }
                    Err(error) => {
                        if error.kind() == io::ErrorKind::WouldBlock {
                            let _cleared: io::Result<()> = readiness
                                .try_io(tokio::io::Interest::READABLE, || {
                                    Err(io::ErrorKind::WouldBlock.into())
                                });
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
        self.0.values().map(|(_, readiness)| readiness)
    }
}

/// Whole IPv4 packets with UDP to port 3785; the socket's packets begin with the IP header.
fn filter() -> [SockFilter; 9] {
    use libc::{
        BPF_ABS, BPF_B, BPF_H, BPF_IND, BPF_JEQ, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_LDX, BPF_MSH, BPF_RET,
    };
    let step = |code: u32, jt, jf, k| SockFilter::new(code as u16, jt, jf, k);
    [
        step(BPF_LD | BPF_B | BPF_ABS, 0, 0, 9),
        step(BPF_JMP | BPF_JEQ | BPF_K, 0, 6, libc::IPPROTO_UDP as u32),
        // "More fragments" or an offset.
        step(BPF_LD | BPF_H | BPF_ABS, 0, 0, 6),
        step(BPF_JMP | BPF_JSET | BPF_K, 4, 0, 0x3fff),
        step(BPF_LDX | BPF_B | BPF_MSH, 0, 0, 0),
        step(BPF_LD | BPF_H | BPF_IND, 0, 0, 2),
        step(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, ECHO.into()),
        step(BPF_RET | BPF_K, 0, 0, 0xffff),
        step(BPF_RET | BPF_K, 0, 0, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_read_as_it_was_written_and_filling_is_no_part_of_it() {
        let mut bytes = packet([192, 0, 2, 1].into(), 50_000, b"0123456789abcdef").unwrap();
        assert_eq!(bytes.len(), 44);
        bytes.extend([0, 0]);
        assert_eq!(payload(&bytes), Some(&b"0123456789abcdef"[..]));
        for length in 0..28 {
            assert_eq!(payload(&bytes[..length]), None, "{length}");
        }
    }
}
