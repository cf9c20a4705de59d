//! Who answers for an address on the lab's bridge: ARP requests and neighbour solicitations from the client, sent and
//! read as frames, so that the answer is what went over the wire and not what a kernel made of it. The frames are
//! written out here once more, apart from the speaker's own, which they test.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrLike as _, bind, recv, send,
    socket,
};

use crate::lab::plan::{CLIENT_V4, CLIENT_V6};
use crate::netns::Netns;

/// How long an answer may take; an announcer takes well under a millisecond.
pub const ANSWER: Duration = Duration::from_millis(300);

/// A MAC address.
pub type Mac = [u8; 6];

/// Somebody answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The sender's MAC address.
    pub mac: Mac,
    /// When the frame was read.
    pub at: Instant,
}

/// Asks once and waits for all who answer within `patience`.
///
/// # Errors
/// No raw socket in the client's namespace. Nobody answering is an empty list.
pub fn who_has(client: &Netns, ip: IpAddr, patience: Duration) -> Result<Vec<Claim>> {
    client.run(|| {
        let asker = Asker::open(ip)?;
        asker.ask()?;
        let deadline = Instant::now() + patience;
        let mut claims = Vec::new();
        while let Some(claim) = asker.answer(deadline)? {
            claims.push(claim);
        }
        Ok(claims)
    })?
}

/// Asks again and again from a thread of its own.
#[derive(Debug)]
pub struct Watch {
    claims: mpsc::Receiver<Result<Claim>>,
    stop: Arc<AtomicBool>,
}

impl Watch {
    /// Asks for `ip` each `every`, whether it is answered or not.
    #[must_use]
    pub fn start(client: &Netns, ip: IpAddr, every: Duration) -> Self {
        let (tell, claims) = mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let (netns, stopped) = (client.clone(), Arc::clone(&stop));
        std::thread::spawn(move || {
            let result = netns.enter_this_thread().and_then(|()| ask_on(ip, every, &stopped, &tell));
            if let Err(error) = result {
                drop(tell.send(Err(error))); // nobody watches any more
            }
        });
        Self { claims, stop }
    }

    /// The next answer that was read after `since` and came from a MAC that `wanted` takes.
    ///
    /// # Errors
    /// None came before `patience` was over.
    pub fn next(&self, since: Instant, patience: Duration, wanted: impl Fn(Mac) -> bool) -> Result<Claim> {
        let deadline = Instant::now() + patience;
        let mut others = 0_usize;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let claim = self.claims.recv_timeout(left);
            let claim = claim
                .with_context(|| format!("nobody else answered in {patience:?} ({others} old answers)"))??;
            if claim.at >= since && wanted(claim.mac) {
                return Ok(claim);
            }
            others += 1;
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn ask_on(
    ip: IpAddr,
    every: Duration,
    stopped: &AtomicBool,
    tell: &mpsc::Sender<Result<Claim>>,
) -> Result<()> {
    let asker = Asker::open(ip)?;
    while !stopped.load(Ordering::Relaxed) {
        asker.ask()?;
        let next = Instant::now() + every;
        while let Some(claim) = asker.answer(next)? {
            if tell.send(Ok(claim)).is_err() {
                return Ok(()); // nobody watches any more
            }
        }
    }
    Ok(())
}

/// A raw socket on the client's eth0 and the question.
struct Asker {
    fd: OwnedFd,
    mac: Mac,
    ip: IpAddr,
}

impl Asker {
    fn open(ip: IpAddr) -> Result<Self> {
        let link = eth0()?;
        let mac = link.addr().context("eth0 has no MAC address")?;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)
            .context("raw socket")?;
        bind(fd.as_raw_fd(), &link).context("bind the raw socket to eth0")?;
        Ok(Self { fd, mac, ip })
    }

    fn ask(&self) -> Result<()> {
        let frame = match self.ip {
            IpAddr::V4(ip) => arp_request(self.mac, CLIENT_V4, ip),
            IpAddr::V6(ip) => solicitation(self.mac, CLIENT_V6, ip),
        };
        send(self.fd.as_raw_fd(), &frame, MsgFlags::empty()).context("send")?;
        Ok(())
    }

    /// The next answer before `deadline`.
    fn answer(&self, deadline: Instant) -> Result<Option<Claim>> {
        let mut buffer = [0u8; 256];
        loop {
            match recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(n) => {
                    let frame = buffer.get(..n.min(buffer.len())).unwrap_or_default();
                    let mac = match self.ip {
                        IpAddr::V4(ip) => arp_reply(frame, self.mac, ip),
                        IpAddr::V6(ip) => advertisement(frame, self.mac, ip),
                    };
                    if let Some(mac) = mac {
                        return Ok(Some(Claim { mac, at: Instant::now() }));
                    }
                }
                Err(Errno::EAGAIN) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Ok(None);
                    }
                    let left = PollTimeout::try_from(left.max(Duration::from_millis(1)))?;
                    poll(&mut [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)], left)?;
                }
                // The link went down and up again: nothing was lost that would not be asked again.
                Err(Errno::ENETDOWN) => {}
                Err(errno) => bail!("receive: {errno}"),
            }
        }
    }
}

/// A raw socket for ARP on the eth0 of the calling thread's namespace, that does not block, and the interface's address.
///
/// # Errors
/// No eth0, or no permission.
pub(crate) fn arp_socket() -> Result<(socket2::Socket, Mac)> {
    const ETHERTYPE_ARP: u16 = 0x0806;
    let mac = eth0()?.addr().context("eth0 has no MAC address")?;
    Ok((packet_socket("eth0", ETHERTYPE_ARP)?, mac))
}

/// A raw socket that does not block, for frames of one EtherType (0: it only sends), on an interface of the calling thread's
/// namespace; on all of them when the name is empty.
///
/// # Errors
/// No such interface, or no permission.
pub(crate) fn packet_socket(interface: &str, ethertype: u16) -> Result<socket2::Socket> {
    let protocol = socket2::Protocol::from(i32::from(ethertype.to_be()));
    let socket = socket2::Socket::new(socket2::Domain::PACKET, socket2::Type::RAW, Some(protocol))
        .context("raw socket")?;
    socket.set_nonblocking(true)?;
    // The kernel gives what it allows (net.core.rmem_max).
    let _smaller = socket.set_recv_buffer_size(4 << 20);
    if !interface.is_empty() {
        bind(socket.as_raw_fd(), &link(interface)?).context("bind the raw socket")?;
    }
    Ok(socket)
}

fn eth0() -> Result<LinkAddr> {
    link("eth0")
}

fn link(name: &str) -> Result<LinkAddr> {
    let all = getifaddrs()?;
    let mut links = all.filter(|i| i.interface_name == name).filter_map(|i| i.address);
    let link =
        links.find(|a| a.family() == Some(AddressFamily::Packet)).and_then(|a| a.as_link_addr().copied());
    link.with_context(|| format!("there is no {name} here"))
}

/// RFC 826: Ethernet header, then hardware type 1, protocol 0x0800, lengths 6 and 4, operation 1.
pub(crate) fn arp_request(mac: Mac, from: Ipv4Addr, about: Ipv4Addr) -> Vec<u8> {
    let mut frame = Vec::with_capacity(42);
    frame.extend([0xff; 6]);
    frame.extend(mac);
    frame.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1]);
    frame.extend(mac);
    frame.extend(from.octets());
    frame.extend([0; 6]);
    frame.extend(about.octets());
    frame
}

/// The sender's MAC of an ARP reply to `us` about `ip`.
fn arp_reply(frame: &[u8], us: Mac, ip: Ipv4Addr) -> Option<Mac> {
    let is_reply = frame.get(12..22)? == [0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 2];
    let about = frame.get(28..32)? == ip.octets();
    let to_us = frame.get(32..38)? == us;
    (is_reply && about && to_us).then(|| frame.get(22..28)?.try_into().ok()).flatten()
}

/// RFC 4861 4.3, to the solicited-node group of `about`, with the source link-layer address option.
fn solicitation(mac: Mac, from: Ipv6Addr, about: Ipv6Addr) -> Vec<u8> {
    let [.., a, b, c] = about.octets();
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
    let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
    message.extend(about.octets());
    message.extend([1, 1]);
    message.extend(mac);
    let sum = checksum(from, group, &message).to_be_bytes();
    message.splice(2..4, sum);
    let mut frame = vec![0x33, 0x33, 0xff, a, b, c];
    frame.extend(mac);
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, 58, 255]);
    frame.extend(from.octets());
    frame.extend(group.octets());
    frame.extend(message);
    frame
}

/// The sender's MAC of a neighbour advertisement (RFC 4861 4.4) to `us` about `ip`.
fn advertisement(frame: &[u8], us: Mac, ip: Ipv6Addr) -> Option<Mac> {
    let to_us = frame.get(..6)? == us;
    let is_one =
        frame.get(12..14)? == [0x86, 0xdd] && frame.get(20..22)? == [58, 255] && *frame.get(54)? == 136;
    let about = frame.get(62..78)? == ip.octets();
    (to_us && is_one && about).then(|| frame.get(6..12)?.try_into().ok()).flatten()
}

/// RFC 4443 2.3: over the pseudo-header and the message.
fn checksum(from: Ipv6Addr, to: Ipv6Addr, message: &[u8]) -> u16 {
    let mut bytes = Vec::new();
    bytes.extend(from.octets());
    bytes.extend(to.octets());
    bytes.extend(u32::try_from(message.len()).unwrap_or(0).to_be_bytes());
    bytes.extend([0, 0, 0, 58]);
    bytes.extend(message);
    let words = bytes.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w.get(1).copied().unwrap_or(0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Mac = [2, 0, 0, 0, 0, 5];
    const THEM: Mac = [2, 0, 0, 0, 0, 0x11];

    #[test]
    fn a_reply_is_told_from_a_request_and_from_one_about_another() {
        let ip = Ipv4Addr::new(172, 25, 7, 100);
        let mut frame = arp_request(THEM, ip, CLIENT_V4);
        assert_eq!(arp_reply(&frame, US, ip), None);
        frame[21] = 2;
        frame[32..38].copy_from_slice(&US);
        assert_eq!(arp_reply(&frame, US, ip), Some(THEM));
        assert_eq!(arp_reply(&frame, US, Ipv4Addr::new(172, 25, 7, 101)), None);
        assert_eq!(arp_reply(&frame[..20], US, ip), None);
    }

    #[test]
    fn a_solicitation_sums_to_zero_with_its_checksum() {
        let about: Ipv6Addr = "fd00:25:7::100".parse().unwrap();
        let frame = solicitation(US, CLIENT_V6, about);
        let group: Ipv6Addr = "ff02::1:ff00:100".parse().unwrap();
        assert_eq!(frame[38..54], group.octets());
        assert_eq!(checksum(CLIENT_V6, group, &frame[54..]), 0);
        assert_eq!(frame.len(), 14 + 40 + 32);
    }
}
