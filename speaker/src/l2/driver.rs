//! The driver of the layer 2 machines: sockets in, frames out, one deadline. It decides nothing.
//!
//! One task owns all sockets. Per wake-up it takes at most [`BUDGET`] frames, and sends as many, before it lets the other
//! tasks run: a flood on the wire cannot starve the decisions.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use patina_crds::net::Family;
use patina_speaker_core::intent::L2Announcement;
use patina_speaker_core::l2::announcer::{Announcer, Input, Output, Settings};
use patina_speaker_core::l2::duty::{Claim, ClaimKind, Duties, Duty, Mode};
use patina_speaker_core::l2::filter;
use patina_speaker_core::l2::responder::{Dropped, Responder};
use patina_speaker_core::l2::wire::Mac;
use patina_speaker_core::view::InterfaceView;
use socket2::SockFilter;
use tokio::sync::{mpsc, watch};

use super::socket::{Frame, FrameSocket, Groups, Protocol};
use super::{Desired, Heard};
use crate::deadline::until;
use crate::metrics::L2Metrics;

/// Frames taken, and frames sent, per wake-up.
const BUDGET: usize = 64;
/// After a socket could not be opened (the interface was about to vanish, or a permission is missing).
const REOPEN: Duration = Duration::from_secs(1);
/// Longer than any frame that asks for something; the rest of a longer one is padding.
const LONGEST_FRAME: usize = 2048;

type Key = (u32, Protocol);

/// Sockets and machines.
#[derive(Debug)]
pub struct Driver {
    desired: watch::Receiver<Desired>,
    heard: mpsc::Sender<Heard>,
    metrics: L2Metrics,
    responder: Responder,
    announcer: Announcer,
    sockets: BTreeMap<Key, FrameSocket>,
    groups: Groups,
    /// Interfaces that the announcer knows.
    known: BTreeSet<u32>,
    /// The present MAC of every interface.
    macs: BTreeMap<u32, Mac>,
    /// Sockets that could not be opened: tried again.
    failed: BTreeSet<Key>,
    /// Groups that could not be joined: tried again. Everything else on the interface goes on.
    unjoined: BTreeSet<(u32, Ipv6Addr)>,
    /// The last error of each that was logged.
    said: BTreeMap<Key, String>,
    reopen: Option<Instant>,
    /// Where the next round over the sockets starts, so that none starves.
    turn: usize,
}

impl Driver {
    /// A driver that does what `desired` says, once it runs.
    #[must_use]
    pub fn new(
        desired: watch::Receiver<Desired>,
        heard: mpsc::Sender<Heard>,
        refresh: Option<Duration>,
        metrics: L2Metrics,
    ) -> Self {
        Self {
            desired,
            heard,
            metrics,
            responder: Responder::default(),
            announcer: Announcer::new(Settings { refresh }),
            sockets: BTreeMap::new(),
            groups: Groups::default(),
            known: BTreeSet::new(),
            macs: BTreeMap::new(),
            failed: BTreeSet::new(),
            unjoined: BTreeSet::new(),
            said: BTreeMap::new(),
            reopen: None,
            turn: 0,
        }
    }

    /// Runs until nobody can desire anything any more. With it, all answers end.
    pub async fn run(mut self) {
        let mut buffer = vec![0; LONGEST_FRAME];
        let mut more = false;
        loop {
            let deadline = [self.announcer.poll_timeout(), self.reopen].into_iter().flatten().min();
            tokio::select! {
                changed = self.desired.changed() => match changed {
                    Ok(()) => self.apply(Instant::now()),
                    Err(_) => return,
                },
                (key, result) = poll_fn(|cx| poll_frames(&self.sockets, &mut self.turn, cx, &mut buffer)) => {
                    self.receive(key, result, &buffer);
                    self.receive_more(&mut buffer);
                }
                () = until(deadline) => {
                    let now = Instant::now();
                    if self.reopen.is_some_and(|at| at <= now) {
                        self.apply(now);
                    }
                    self.announcer.handle_timeout(now);
                }
                () = std::future::ready(()), if more => {}
            }
            more = self.send();
            tokio::task::yield_now().await;
        }
    }

    /// Makes sockets, responder and announcer what is desired.
    fn apply(&mut self, now: Instant) {
        let desired = self.desired.borrow_and_update().clone();
        let up: BTreeMap<u32, &InterfaceView> = desired
            .interfaces
            .iter()
            .filter(|interface| interface.up)
            .map(|interface| (interface.index, interface))
            .collect();
        let (addresses, quiet) = by_mode(&desired.duties);
        let needed: BTreeSet<Key> = addresses
            .iter()
            .flat_map(|(ip, announcement)| {
                announcement.interfaces.iter().map(|index| (*index, protocol(*ip)))
            })
            .filter(|(index, _)| up.contains_key(index))
            .collect();

        let lost: Vec<u32> = self.known.iter().copied().filter(|index| !up.contains_key(index)).collect();
        for index in lost {
            self.lose(now, index);
        }
        self.responder.set(&addresses);
        for input in self.announcer.diff_with_quiet(&addresses, &quiet) {
            if let Input::Release { ip } = &input {
                self.metrics.forget(*ip);
            }
            self.announcer.handle(now, input);
        }
        self.sockets.retain(|key, _| needed.contains(key));
        self.failed.retain(|key| needed.contains(key));
        self.said.retain(|key, _| needed.contains(key));
        for key in &needed {
            self.open(now, *key);
        }
        for (index, interface) in up {
            let usable = |protocol| {
                let key = (index, protocol);
                !needed.contains(&key) || self.sockets.contains_key(&key)
            };
            if usable(Protocol::Arp) && usable(Protocol::Ipv6) {
                self.known.insert(index);
                self.announcer.handle(now, Input::Interface { index, mac: interface.mac });
            }
        }
        self.macs = desired.interfaces.iter().map(|interface| (interface.index, interface.mac)).collect();
        self.reopen = (!self.failed.is_empty()).then(|| now + REOPEN);
        for (index, group) in self.unjoined.clone() {
            self.join(index, group);
        }
    }

    /// The interface is down or gone: when it is back, everything on it is announced from the start.
    fn lose(&mut self, now: Instant, index: u32) {
        self.known.remove(&index);
        self.sockets.retain(|(at, _), _| *at != index);
        self.groups.leave_interface(index);
        self.unjoined.retain(|(at, _)| *at != index);
        self.announcer.handle(now, Input::InterfaceGone { index });
    }

    fn open(&mut self, now: Instant, key: Key) {
        if self.sockets.contains_key(&key) {
            return;
        }
        let (index, protocol) = key;
        let program = match protocol {
            Protocol::Arp => filter::ARP_REQUESTS.as_slice(),
            Protocol::Ipv6 => filter::NEIGHBOUR_SOLICITATIONS.as_slice(),
        };
        let program: Vec<SockFilter> =
            program.iter().map(|i| SockFilter::new(i.code, i.jt, i.jf, i.k)).collect();
        match FrameSocket::open(index, protocol, &program) {
            Ok(socket) => {
                tracing::debug!(ifindex = index, ?protocol, "listening");
                self.failed.remove(&key);
                self.sockets.insert(key, socket);
            }
            Err(error) => self.fail(now, key, error.to_string()),
        }
    }

    /// Tried again after [`REOPEN`]; said once.
    fn fail(&mut self, now: Instant, key: Key, error: String) {
        if self.said.get(&key) != Some(&error) {
            tracing::error!(ifindex = key.0, protocol = ?key.1, "{error}; will retry");
            self.said.insert(key, error);
        }
        self.lose(now, key.0);
        self.failed.insert(key);
        self.reopen = Some(now + REOPEN);
    }

    /// Handles a frame that is in `buffer`.
    fn receive(&mut self, (index, _): Key, result: io::Result<Frame>, buffer: &[u8]) {
        self.metrics.frames.inc();
        let frame = match result {
            Ok(Frame::Bytes(length)) => buffer.get(..length).unwrap_or_default(),
            Ok(Frame::Tagged) => return self.metrics.dropped("taggedFrame"),
            Ok(Frame::ForOther) => return self.metrics.dropped("otherStation"),
            // ENETDOWN, once, when the interface went down; its end comes by netlink.
            Err(_) => return self.metrics.dropped("receiveFailed"),
        };
        let Some(mac) = self.macs.get(&index) else { return };
        match self.responder.handle(frame, index, *mac) {
            Ok(reply) => {
                self.metrics.request(reply.ip);
                if self.transmit((index, protocol(reply.ip)), &reply.frame) {
                    self.metrics.response(reply.ip);
                }
            }
            Err(silence) => {
                self.metrics.dropped(silence.reason());
                if let Dropped::Claimed(ip) = silence {
                    let mac = buffer.get(6..12).and_then(|mac| Mac::try_from(mac).ok()).unwrap_or_default();
                    let claim = Claim { ip, ifindex: index, mac, kind: ClaimKind::Announcement };
                    // A full queue holds enough news; this one repeats itself on the wire.
                    let _full = self.heard.try_send(Heard::Claim(claim));
                }
            }
        }
    }

    /// The rest of the budget, as long as frames wait.
    fn receive_more(&mut self, buffer: &mut [u8]) {
        for _ in 1..BUDGET {
            let next = poll_fn(|cx| poll_frames(&self.sockets, &mut self.turn, cx, buffer)).now_or_never();
            let Some((key, result)) = next else { return };
            self.receive(key, result, buffer);
        }
    }

    /// Does what the announcer has ready, within the budget. True when there is more.
    fn send(&mut self) -> bool {
        for _ in 0..BUDGET {
            match self.announcer.poll_output() {
                None => return false,
                Some(Output::Send { ifindex, ip, frame }) => {
                    if self.transmit((ifindex, protocol(ip)), &frame) {
                        self.metrics.gratuitous(ip);
                    }
                }
                Some(Output::Join(group)) => self.join(group.ifindex, group.group),
                Some(Output::Leave(group)) => {
                    self.unjoined.remove(&(group.ifindex, group.group));
                    self.groups.leave(group.ifindex, group.group);
                }
            }
        }
        true
    }

    /// A group that cannot be joined silences its IPv6 addresses only, and is tried again; said once per group.
    fn join(&mut self, index: u32, group: Ipv6Addr) {
        match self.groups.join(index, group) {
            Ok(()) => {
                self.unjoined.remove(&(index, group));
            }
            Err(error) => {
                if self.unjoined.insert((index, group)) {
                    tracing::error!(ifindex = index, "cannot join {group}: {error}; will retry");
                }
                self.reopen = Some(Instant::now() + REOPEN);
            }
        }
    }

    fn transmit(&self, key: Key, frame: &[u8]) -> bool {
        let sent = self.sockets.get(&key).is_some_and(|socket| socket.send(frame).is_ok());
        if !sent {
            self.metrics.dropped("sendFailed");
        }
        sent
    }
}

/// The addresses to answer for, and those of them that are not announced.
fn by_mode(duties: &Duties) -> (BTreeMap<IpAddr, L2Announcement>, BTreeSet<IpAddr>) {
    let answered = || duties.iter().filter(|(_, duty)| matches!(duty.mode, Mode::Answer | Mode::Announce));
    let announcement = |duty: &Duty| L2Announcement {
        interfaces: Arc::clone(&duty.interfaces),
        ..L2Announcement::default()
    };
    let addresses = answered().map(|(ip, duty)| (*ip, announcement(duty))).collect();
    let quiet = answered().filter(|(_, duty)| duty.mode == Mode::Answer).map(|(ip, _)| *ip).collect();
    (addresses, quiet)
}

fn protocol(ip: IpAddr) -> Protocol {
    match Family::of(ip) {
        Family::V4 => Protocol::Arp,
        Family::V6 => Protocol::Ipv6,
    }
}

/// The next frame of any socket, in turn.
fn poll_frames(
    sockets: &BTreeMap<Key, FrameSocket>,
    turn: &mut usize,
    cx: &mut Context<'_>,
    buffer: &mut [u8],
) -> Poll<(Key, io::Result<Frame>)> {
    let start = *turn % sockets.len().max(1);
    for (key, socket) in sockets.iter().skip(start).chain(sockets.iter().take(start)) {
        if let Poll::Ready(result) = socket.poll_receive(cx, buffer) {
            *turn = turn.wrapping_add(1);
            return Poll::Ready((*key, result));
        }
    }
    Poll::Pending
}
