//! What a host that means no good, or is broken, puts on the wire: frames at a steady rate, and frames of others once more.

use std::net::Ipv4Addr;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::socket::{MsgFlags, recv};

use crate::neighbour::{Mac, arp_request, packet_socket};
use crate::netns::Netns;

/// The membership's port.
pub const MEMBERSHIP: u16 = 7946;

/// Sends frames round and round until it is dropped.
#[derive(Debug)]
pub struct Injector {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    began: Instant,
    thread: Option<JoinHandle<()>>,
}

impl Injector {
    /// Sends `frames` one after another from the eth0 of `netns`, `per_second` of them, or as many as go.
    ///
    /// # Errors
    /// No frames, or no raw socket.
    pub fn start(netns: &Netns, frames: Vec<Vec<u8>>, per_second: Option<u32>) -> Result<Self> {
        if frames.is_empty() {
            bail!("no frames to send");
        }
        let socket = netns.run(|| packet_socket("eth0", 0))??;
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&sent));
        let began = Instant::now();
        let thread = std::thread::Builder::new().name("injector".into()).spawn(move || {
            for frame in frames.iter().cycle() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                // A full queue: the next one may have room.
                if socket.send(frame).is_ok() {
                    count.fetch_add(1, Ordering::Relaxed);
                }
                if let Some(rate) = per_second {
                    keep_pace(began, count.load(Ordering::Relaxed), rate);
                }
            }
        })?;
        Ok(Self { stop, sent, began, thread: Some(thread) })
    }

    /// Frames sent so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Frames per second since the start.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.sent() as f64 / self.began.elapsed().as_secs_f64()
    }
}

/// Sleeps when we are more than a millisecond early: a sleep for each frame would be too coarse for high rates.
fn keep_pace(began: Instant, sent: u64, rate: u32) {
    let due = began + Duration::from_secs_f64(sent as f64 / f64::from(rate));
    let early = due.saturating_duration_since(Instant::now());
    if early > Duration::from_millis(1) {
        std::thread::sleep(early);
    }
}

impl Drop for Injector {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// Requests from `mac` for `count` addresses from `first` on.
#[must_use]
pub fn requests(mac: Mac, from: Ipv4Addr, first: Ipv4Addr, count: u32) -> Vec<Vec<u8>> {
    (0..count).map(|i| arp_request(mac, from, Ipv4Addr::from(u32::from(first).wrapping_add(i)))).collect()
}

/// Gratuitous ARP, as request and as reply: `mac` has `ip`.
#[must_use]
pub fn claims(mac: Mac, ip: Ipv4Addr) -> [Vec<u8>; 2] {
    let request = arp_request(mac, ip, ip);
    let mut reply = request.clone();
    reply.splice(20..22, [0, 2]);
    reply.splice(32..38, mac);
    [request, reply]
}

/// Datagrams between speakers, as frames, collected on the bridge's side of all cables for `time`, at most `limit`.
///
/// # Errors
/// No raw socket.
pub fn eavesdrop(net: &Netns, time: Duration, limit: usize) -> Result<Vec<Vec<u8>>> {
    const EVERYTHING: u16 = 0x0003; // ETH_P_ALL
    net.run(|| {
        let socket = packet_socket("", EVERYTHING)?;
        socket.set_nonblocking(false)?;
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        let deadline = Instant::now() + time;
        let mut frames = Vec::new();
        let mut buffer = [0_u8; 2048];
        while Instant::now() < deadline && frames.len() < limit {
            let Ok(n) = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) else { continue }; // 20 ms of nothing
            let frame = buffer.get(..n).unwrap_or_default();
            if is_membership(frame) {
                frames.push(frame.to_vec());
            }
        }
        Ok(frames)
    })?
}

fn is_membership(frame: &[u8]) -> bool {
    let udp = frame.get(12..15) == Some(&[0x08, 0x00, 0x45]) && frame.get(23) == Some(&17);
    udp && frame.get(36..38) == Some(&MEMBERSHIP.to_be_bytes())
}

/// The frame from another station, with a payload that `change` was at: everything else is made to fit.
///
/// # Errors
/// It is not a frame of [`eavesdrop`].
pub fn forged(frame: &[u8], mac: Mac, change: impl FnOnce(&mut Vec<u8>)) -> Result<Vec<u8>> {
    const HEADERS: usize = 14 + 20 + 8;
    let length = usize::from(u16::from_be_bytes(frame.get(16..18).context("short")?.try_into()?));
    let mut payload = frame.get(HEADERS..14 + length).context("short")?.to_vec();
    change(&mut payload);
    let mut out = frame.get(..HEADERS).context("short")?.to_vec();
    out.splice(6..12, mac);
    let udp = u16::try_from(8 + payload.len())?;
    out.splice(16..18, (20 + udp).to_be_bytes());
    out.splice(24..26, [0, 0]);
    let header: Vec<u16> = out
        .get(14..34)
        .context("short")?
        .chunks_exact(2)
        .map(|w| u16::from(w[0]) << 8 | u16::from(w[1]))
        .collect();
    let sum = header.into_iter().fold(0_u32, |sum, word| sum + u32::from(word));
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    out.splice(24..26, (!u16::try_from(sum)?).to_be_bytes());
    out.splice(38..40, udp.to_be_bytes());
    // RFC 768: no checksum. What was captured on a virtual cable has none that is right.
    out.splice(40..42, [0, 0]);
    out.extend(payload);
    Ok(out)
}

/// A frame with a UDP datagram to the membership's port.
///
/// # Errors
/// The payload is too long for a frame.
pub fn datagram(mac: Mac, from: Ipv4Addr, to_mac: Mac, to: Ipv4Addr, payload: Vec<u8>) -> Result<Vec<u8>> {
    let mut frame = Vec::from(to_mac);
    frame.extend(mac);
    frame.extend([0x08, 0, 0x45, 0, 0, 28, 0, 0, 0x40, 0, 64, 17, 0, 0]);
    frame.extend(from.octets());
    frame.extend(to.octets());
    frame.extend(MEMBERSHIP.to_be_bytes());
    frame.extend(MEMBERSHIP.to_be_bytes());
    frame.extend([0, 8, 0, 0]);
    forged(&frame, mac, |empty| *empty = payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Mac = [2, 0, 0, 0, 0, 5];
    const THEM: Mac = [2, 0, 0, 0, 0, 0x11];

    fn sum(header: &[u8]) -> u32 {
        let sum = header.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum::<u32>();
        (sum & 0xffff) + (sum >> 16)
    }

    #[test]
    fn a_forged_frame_fits_its_payload() {
        let (from, to) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2));
        let frame = datagram(US, from, THEM, to, vec![7; 100]).unwrap();
        assert!(is_membership(&frame));
        assert_eq!(frame.len(), 14 + 20 + 8 + 100);
        assert_eq!(sum(&frame[14..34]), 0xffff, "the IPv4 header's checksum");
        let short = forged(&frame, THEM, |payload| payload.truncate(3)).unwrap();
        assert_eq!(short.len(), 14 + 20 + 8 + 3);
        assert_eq!((&short[6..12], &short[16..18], &short[38..40]), (&THEM[..], &[0, 31][..], &[0, 11][..]));
        assert_eq!(sum(&short[14..34]), 0xffff);
    }

    #[test]
    fn a_claim_is_sent_in_both_forms() {
        let [request, reply] = claims(THEM, Ipv4Addr::new(192, 0, 2, 1));
        assert_eq!((request[21], reply[21]), (1, 2));
        assert_eq!(request[28..32], request[38..42]);
        assert_eq!(reply[22..28], THEM);
    }
}
