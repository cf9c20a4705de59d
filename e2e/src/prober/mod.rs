//! A client that asks for many addresses by ARP, at a steady pace, and writes down who answers and who announces.
//!
//! The frames are written out here apart from the speaker's own, which they test. Times are the kernel's: when a frame
//! reached the client's interface, not when this program got round to reading it.

pub mod timeline;

use std::collections::BTreeSet;
use std::io::IoSliceMut;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::sockopt::{RcvBufForce, ReceiveTimestampns};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt};
use socket2::SockFilter;

use crate::neighbour::{Mac, arp_request, arp_socket};
use crate::netns::Netns;
use crate::wait::{self, Seen};
use timeline::{Asked, Heard, How, Timeline};

/// Asks until it is dropped.
#[derive(Debug)]
pub struct Prober {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    timeline: Mutex<Timeline>,
    /// Nanoseconds between two questions about the same address.
    every: AtomicU64,
    targets: Mutex<Arc<[Ipv4Addr]>>,
    trouble: Mutex<Option<String>>,
}

impl Prober {
    /// Asks for each of `targets` once in `every`, from `client`'s eth0 with the sender address `from`.
    ///
    /// # Errors
    /// No raw socket in the namespace.
    pub fn start(client: &Netns, from: Ipv4Addr, targets: &[Ipv4Addr], every: Duration) -> Result<Self> {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            timeline: Mutex::default(),
            every: AtomicU64::new(nanos(every)),
            targets: Mutex::new(targets.into()),
            trouble: Mutex::default(),
        });
        let (socket, mac) = client.run(arp_socket)??;
        setsockopt(&socket, ReceiveTimestampns, &true).context("SO_TIMESTAMPNS")?;
        // A flood of requests must not push the answers out of our queue.
        socket.attach_filter(&ANSWERS).context("SO_ATTACH_FILTER")?;
        // Thousands announce at once, and a thread may wait for a CPU: what does not fit would look like silence. Without the
        // permission it stays at what the system allows everybody.
        let _smaller = setsockopt(&socket, RcvBufForce, &(32 << 20));
        let asker = Asker { socket, mac, from, shared: Arc::clone(&shared) };
        let thread = std::thread::Builder::new().name("prober".into()).spawn(move || {
            make_urgent();
            if let Err(error) = asker.run() {
                *lock(&asker.shared.trouble) = Some(format!("{error:#}"));
            }
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Asks for others from now on.
    pub fn ask_for(&self, targets: &[Ipv4Addr], every: Duration) {
        *lock(&self.shared.targets) = targets.into();
        self.shared.every.store(nanos(every), Ordering::Relaxed);
    }

    /// What was asked and heard since the last [`Prober::forget`].
    ///
    /// # Errors
    /// The prober had to stop: the text says why.
    pub fn timeline(&self) -> Result<Timeline> {
        self.trouble()?;
        Ok(lock(&self.shared.timeline).clone())
    }

    /// Forgets what was heard so far.
    pub fn forget(&self) {
        *lock(&self.shared.timeline) = Timeline::default();
    }

    /// The first frame heard at `since` or later that `wanted` takes.
    ///
    /// # Errors
    /// None within `patience`, or the prober had to stop.
    pub fn wait(
        &self,
        since: SystemTime,
        patience: Duration,
        wanted: impl Fn(&Heard) -> bool,
    ) -> Result<Heard> {
        let deadline = Instant::now() + patience;
        let mut looked = 0;
        loop {
            self.trouble()?;
            {
                let timeline = lock(&self.shared.timeline);
                let new = timeline.heard.get(looked..).unwrap_or_default();
                if let Some(found) = new.iter().find(|heard| heard.at >= since && wanted(heard)) {
                    return Ok(*found);
                }
                looked = timeline.heard.len();
            }
            if Instant::now() >= deadline {
                bail!("no such frame in {patience:?} ({looked} others)");
            }
            std::thread::sleep(Duration::from_millis(2)); // the times are the kernel's, not ours
        }
    }

    /// Waits until exactly one station has answered for `ip` for a whole `span`, and says which.
    ///
    /// # Errors
    /// The deadline passed; the text has who answers.
    pub fn sole_owner(&self, ip: Ipv4Addr, span: Duration, deadline: Duration) -> Result<Mac> {
        wait::until_blocking(&format!("one station answers for {ip}, for {span:?}"), deadline, || {
            self.trouble()?;
            let from = SystemTime::now().checked_sub(span).context("clock")?;
            let timeline = lock(&self.shared.timeline);
            let long_enough = timeline.asked.iter().find(|a| a.ip == ip).is_some_and(|a| a.at <= from);
            let recent = timeline.heard.iter().rev().take_while(|h| h.at >= from);
            let macs: BTreeSet<Mac> = recent.filter(|h| h.ip == ip).map(|h| h.mac).collect();
            let only = macs.iter().next().copied().filter(|_| macs.len() == 1 && long_enough);
            Ok(only.map_or_else(|| Seen::Not(format!("{macs:02x?}")), Seen::Done))
        })
    }

    fn trouble(&self) -> Result<()> {
        lock(&self.shared.trouble)
            .as_ref()
            .map_or(Ok(()), |words| Err(anyhow!("the prober stopped: {words}")))
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

struct Asker {
    socket: socket2::Socket,
    mac: Mac,
    from: Ipv4Addr,
    shared: Arc<Shared>,
}

impl Asker {
    fn run(&self) -> Result<()> {
        let mut next = 0_usize;
        let mut due = Instant::now();
        while !self.shared.stop.load(Ordering::Relaxed) {
            let targets = Arc::clone(&lock(&self.shared.targets));
            let every = Duration::from_nanos(self.shared.every.load(Ordering::Relaxed));
            let step = every / u32::try_from(targets.len().max(1))?;
            let now = Instant::now();
            // A pause of ours is not made up for by a burst.
            due = due.max(now.checked_sub(every).unwrap_or(now));
            let mut asked = Vec::new();
            while due <= now && !targets.is_empty() && asked.len() < 64 {
                let Some(ip) = targets.get(next % targets.len()).copied() else { break };
                asked.push(Asked { at: SystemTime::now(), ip });
                self.ask(ip)?;
                next = (next + 1) % targets.len();
                due += step;
            }
            if targets.is_empty() {
                due = now + every.max(Duration::from_millis(1));
            }
            let heard = self.heard()?;
            if !asked.is_empty() || !heard.is_empty() {
                let mut timeline = lock(&self.shared.timeline);
                timeline.asked.extend(asked);
                timeline.heard.extend(heard);
            }
            let left = due.saturating_duration_since(Instant::now()).min(Duration::from_millis(100));
            if left >= Duration::from_micros(500) {
                // Whole milliseconds, rounded up: a millisecond late is nothing to the kernel's time of the answer.
                let left = PollTimeout::try_from(left + Duration::from_micros(999))?;
                poll(&mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)], left)?;
            }
        }
        Ok(())
    }

    fn ask(&self, ip: Ipv4Addr) -> Result<()> {
        match self.socket.send(&arp_request(self.mac, self.from, ip)) {
            Ok(_) => Ok(()),
            // The queue is full, or the link is down for a moment: the next question is soon.
            Err(error)
                if matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::ENETDOWN | libc::EAGAIN)) =>
            {
                Ok(())
            }
            Err(error) => Err(error).context("send"),
        }
    }

    /// Everything that waits to be read.
    fn heard(&self) -> Result<Vec<Heard>> {
        let mut all = Vec::new();
        let mut buffer = [0_u8; 128];
        let mut control = nix::cmsg_space!(nix::sys::time::TimeSpec);
        for _ in 0..4096 {
            let mut slices = [IoSliceMut::new(&mut buffer)];
            let fd = self.socket.as_raw_fd();
            let (bytes, at) = match recvmsg::<()>(fd, &mut slices, Some(&mut control), MsgFlags::MSG_DONTWAIT)
            {
                Ok(message) => {
                    let stamp = message.cmsgs()?.find_map(|c| match c {
                        ControlMessageOwned::ScmTimestampns(at) => Some(Duration::from(at)),
                        _ => None,
                    });
                    (message.bytes, stamp.map(|since| SystemTime::UNIX_EPOCH + since))
                }
                Err(Errno::EAGAIN) => break,
                Err(Errno::ENETDOWN | Errno::EINTR) => continue,
                Err(errno) => bail!("receive: {errno}"),
            };
            let frame = buffer.get(..bytes).unwrap_or_default();
            let at = at.context("a frame without a time")?;
            all.extend(said(frame, self.mac).map(|(ip, mac, how)| Heard { at, ip, mac, how }));
        }
        Ok(all)
    }
}

/// A kernel filter for ARP (linux/filter.h): replies, and requests whose sender and target address are the same.
const ANSWERS: [SockFilter; 8] = [
    SockFilter::new(LD_HALF, 0, 0, 20),     // operation
    SockFilter::new(JUMP_EQUAL, 5, 0, 2),   // reply: take it
    SockFilter::new(LD_WORD, 0, 0, 38),     // target address
    SockFilter::new(TO_X, 0, 0, 0),         //
    SockFilter::new(LD_WORD, 0, 0, 28),     // sender address
    SockFilter::new(JUMP_EQUAL_X, 1, 0, 0), // the same: take it
    SockFilter::new(RETURN, 0, 0, 0),       //
    SockFilter::new(RETURN, 0, 0, 128),     //
];
const LD_HALF: u16 = 0x28; // BPF_LD | BPF_H | BPF_ABS
const LD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const TO_X: u16 = 0x07; // BPF_MISC | BPF_TAX
const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const JUMP_EQUAL_X: u16 = 0x1d; // BPF_JMP | BPF_JEQ | BPF_X
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// Which address a frame says its sender has: a reply to `us`, or a gratuitous ARP (RFC 5227 3: sender and target address are
/// the same; as request or as reply). An ARP probe has no sender address and says nothing.
fn said(frame: &[u8], us: Mac) -> Option<(Ipv4Addr, Mac, How)> {
    let arp = frame.get(12..20)? == [0x08, 0x06, 0, 1, 0x08, 0, 6, 4];
    let operation = *frame.get(21)?;
    let mac: Mac = frame.get(22..28)?.try_into().ok()?;
    let sender: [u8; 4] = frame.get(28..32)?.try_into().ok()?;
    let target: [u8; 4] = frame.get(38..42)?.try_into().ok()?;
    let to_us = frame.get(32..38)? == us;
    if !arp || mac == us {
        return None;
    }
    if sender == target && sender != [0; 4] {
        return Some((sender.into(), mac, How::Gratuitous));
    }
    (operation == 2 && to_us).then_some((sender.into(), mac, How::Reply))
}

/// Puts this thread before everything that shares the machine with it, where that is permitted: who measures must not be
/// what is slow. Without it the pace suffers under load, the kernel's times do not.
pub fn make_urgent() {
    let tid = nix::unistd::gettid().to_string();
    let mut chrt = Command::new("chrt");
    let quiet = chrt
        .args(["--fifo", "--pid", "5", &tid])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if !quiet.status().is_ok_and(|status| status.success()) {
        tracing::debug!("the prober runs with the priority of everybody");
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Mac = [2, 0, 0, 0, 0, 5];
    const THEM: Mac = [2, 0, 0, 0, 0, 0x11];
    const IP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

    #[test]
    fn a_reply_and_an_announcement_are_told_apart_and_a_question_is_neither() {
        let mut frame = arp_request(THEM, IP, Ipv4Addr::new(192, 0, 2, 5));
        assert_eq!(said(&frame, US), None);
        frame[21] = 2;
        frame[32..38].copy_from_slice(&US);
        assert_eq!(said(&frame, US), Some((IP, THEM, How::Reply)));
        assert_eq!(said(&frame, [9; 6]), None, "a reply to somebody else");
        assert_eq!(said(&arp_request(THEM, IP, IP), US), Some((IP, THEM, How::Gratuitous)));
        assert_eq!(said(&arp_request(THEM, Ipv4Addr::UNSPECIFIED, IP), US), None, "an ARP probe");
        assert_eq!(said(&frame[..30], US), None);
    }
}
