//! The driver of the layer 2 machines: sockets in, frames out, one deadline. It decides nothing.
//!
//! One task owns all sockets. Per wake-up it takes at most [`BUDGET`] frames, and sends as many, before it looks at
//! everything else again: a flood on the wire delays neither new duties nor announcements.
//!
//! **The fence.** Right before each frame that is sent the driver asks whether it may ([`Gate`]).

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use patina_speaker_core::l2::announcer::{Announcer, Input, Output, Settings, What};
use patina_speaker_core::l2::duty::{self, Duties, Duty};
use patina_speaker_core::l2::responder::{Dropped, Responder};
use patina_speaker_core::l2::wire::Mac;
use patina_speaker_core::view::InterfaceView;
use tokio::sync::{mpsc, watch};

use super::gate::Gate;
use super::links::{Change, Key, Links, family, protocol};
use super::memberships::Memberships;
use super::news::News;
use super::socket::{Frame, Protocol};
use super::{Desired, Heard};
use crate::deadline::until;
use crate::fence::Fence;
use crate::metrics::L2Metrics;

/// Frames taken, and frames sent, per wake-up.
const BUDGET: usize = 64;
/// Longer than any frame that asks for something; the rest of a longer one is padding.
const LONGEST_FRAME: usize = 2048;
/// A device whose queue is full holds up the announcements for this long; then the frame is lost, as on the wire.
const BLOCKED: Duration = Duration::from_millis(20);
/// More than a socket's memory holds: emptying its queue ends, whatever the wire brings meanwhile.
const MOST_QUEUED: usize = 4096;
/// Frames with our own MAC are warned of once in this time per interface.
const WARN: Duration = Duration::from_secs(60);

/// Sockets and machines.
#[derive(Debug)]
pub struct Driver {
    desired: watch::Receiver<Desired>,
    news: News,
    gate: Gate,
    metrics: L2Metrics,
    responder: Responder,
    announcer: Announcer,
    links: Links,
    memberships: Memberships,
    interfaces: Arc<Vec<InterfaceView>>,
    duties: Arc<Duties>,
    /// An announcement that waits for its device, and how long it does.
    blocked: Option<(Instant, Send)>,
    /// When an interface was last warned of.
    warned: BTreeMap<u32, Instant>,
}

/// A frame that nobody asked for.
#[derive(Debug)]
struct Send {
    ifindex: u32,
    ip: IpAddr,
    what: What,
    frame: Vec<u8>,
}

impl Driver {
    /// A driver that does what `desired` says, once it runs, as long as `fence` permits it.
    #[must_use]
    pub fn new(
        desired: watch::Receiver<Desired>,
        heard: mpsc::Sender<Heard>,
        fence: Fence,
        settings: Settings,
        metrics: L2Metrics,
    ) -> Self {
        Self {
            desired,
            news: News::new(heard),
            gate: Gate::new(fence),
            metrics,
            responder: Responder::default(),
            announcer: Announcer::new(settings),
            links: Links::default(),
            memberships: Memberships::default(),
            interfaces: Arc::default(),
            duties: Arc::default(),
            blocked: None,
            warned: BTreeMap::new(),
        }
    }

    /// Runs until nobody can desire anything any more. With it, all answers end.
    pub async fn run(mut self) {
        let mut buffer = vec![0; LONGEST_FRAME];
        let (mut more, mut turn) = (false, 0);
        loop {
            if self.gate.is_late() {
                self.empty_queues(&mut buffer);
            }
            let blocked = self.blocked.as_ref().map(|(until, _)| *until);
            let timers =
                [self.announcer.poll_timeout(), self.links.poll_timeout(), self.memberships.poll_timeout()];
            // Nothing is announced past one that waits.
            let timers = timers.into_iter().skip(usize::from(blocked.is_some())).flatten();
            let deadline = timers.chain(blocked).min();
            tokio::select! {
                changed = self.desired.changed() => match changed {
                    Ok(()) => self.apply(Instant::now()),
                    Err(_) => return,
                },
                (key, result) = poll_fn(|cx| self.links.poll_receive(&mut turn, cx, &mut buffer)) => {
                    self.receive(key, result, &buffer);
                    self.receive_more(&mut turn, &mut buffer);
                }
                sent = poll_fn(|cx| poll_blocked(self.blocked.as_ref(), &self.links, &self.gate, cx)) => self.unblock(sent),
                () = until(deadline) => self.handle_timeout(Instant::now()),
                () = std::future::ready(()), if more => {}
            }
            if self.gate.is_late() {
                // Now, or what is announced because the fence was opened would be taken for something older.
                self.empty_queues(&mut buffer);
            }
            more = self.send();
            tokio::task::yield_now().await;
        }
    }

    /// Makes sockets, responder and announcer what is desired.
    fn apply(&mut self, now: Instant) {
        let desired = self.desired.borrow_and_update().clone();
        let before = std::mem::replace(&mut self.duties, Arc::clone(&desired.duties));
        let answers = |duty: Option<&Duty>| duty.is_some_and(|duty| duty.mode.answers());
        let mut changed = false;
        for (ip, old, new) in duty::changes(&before, &desired.duties) {
            self.links.note(ip, old, new);
            if answers(old) && !answers(new) {
                self.metrics.forget(ip);
            }
            changed = true;
        }
        self.gate.decided(desired.opening);
        self.interfaces = desired.interfaces;
        self.responder.set(Arc::clone(&desired.duties));
        self.responder.set_own(self.interfaces.iter().map(|interface| interface.mac).collect());
        self.announcer.handle(now, Input::Duties(desired.duties));
        if changed {
            self.news.forget();
        }
        self.settle(now);
    }

    /// Sockets for what there is to do, and the announcer knows which there are.
    fn settle(&mut self, now: Instant) {
        let interfaces = Arc::clone(&self.interfaces);
        let is_up = |index| interfaces.iter().any(|interface| interface.index == index && interface.up);
        for change in self.links.settle(&self.duties, is_up) {
            if let Change::Closed((index, protocol)) = change {
                // When it is back, everything on it is announced from the start.
                self.announcer.handle(now, Input::InterfaceGone { index, family: family(protocol) });
                if protocol == Protocol::Ipv6 {
                    self.memberships.leave_interface(index);
                }
            }
        }
        for (index, protocol) in self.links.keys() {
            if let Some(mac) = self.mac(index) {
                self.announcer.handle(now, Input::Interface { index, family: family(protocol), mac });
            }
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.links.poll_timeout().is_some_and(|at| at <= now) {
            self.settle(now);
        }
        self.memberships.handle_timeout(now);
        if self.blocked.as_ref().is_some_and(|(until, _)| *until <= now) {
            self.unblock(Err(io::ErrorKind::WouldBlock.into()));
        }
        self.announcer.handle_timeout(now);
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
        let Some(mac) = self.mac(index) else { return };
        match self.responder.handle(frame, index, mac) {
            Ok(reply) => {
                self.metrics.request(reply.ip);
                if self.transmit((index, protocol(reply.ip)), &reply.frame) {
                    self.metrics.response(reply.ip);
                    self.metrics.sent("answer");
                }
            }
            Err(silence) => {
                self.metrics.dropped(silence.reason());
                match silence {
                    // A claim too many: those that matter repeat themselves on the wire.
                    Dropped::Claimed(claim) if !self.news.claim(Instant::now(), claim) => {
                        self.metrics.dropped("tooManyClaims");
                    }
                    Dropped::OwnFrame => self.warn_of_own(index),
                    _ => {}
                }
            }
        }
    }

    /// The rest of the budget, as long as frames wait.
    fn receive_more(&mut self, turn: &mut usize, buffer: &mut [u8]) {
        for _ in 1..BUDGET {
            let next = poll_fn(|cx| self.links.poll_receive(turn, cx, buffer)).now_or_never();
            let Some((key, result)) = next else { return };
            self.receive(key, result, buffer);
        }
    }

    /// Handles everything that waits, as ever, except that nothing is answered ([`Gate`]): who claimed what
    /// while we were away is news.
    fn empty_queues(&mut self, buffer: &mut [u8]) {
        let opening = self.gate.opening();
        for key in self.links.keys() {
            for _ in 0..MOST_QUEUED {
                let Some(result) = self.links.get(key).and_then(|socket| socket.receive_waiting(buffer))
                else {
                    break;
                };
                self.receive(key, result, buffer);
            }
        }
        self.gate.emptied(opening);
    }

    /// Does what the announcer has ready, within the budget. True when there is more.
    fn send(&mut self) -> bool {
        for _ in 0..BUDGET {
            if self.blocked.is_some() {
                return false;
            }
            match self.announcer.poll_output() {
                None => return false,
                Some(Output::Send { ifindex, ip, what, frame }) => {
                    self.send_unasked(Send { ifindex, ip, what, frame })
                }
                Some(Output::Join(group)) => self.memberships.join(group.ifindex, group.group),
                Some(Output::Leave(group)) => self.memberships.leave(group.ifindex, group.group),
            }
        }
        true
    }

    fn send_unasked(&mut self, send: Send) {
        if !self.gate.permits() {
            return self.metrics.dropped("fenced");
        }
        let Some(socket) = self.links.get((send.ifindex, protocol(send.ip))) else {
            return self.metrics.dropped("sendFailed");
        };
        match socket.send(&send.frame) {
            Ok(()) => self.count(send.ip, send.what),
            // A thousand addresses taken over at once are more than a device's queue holds.
            Err(error) if is_full(&error) => self.blocked = Some((Instant::now() + BLOCKED, send)),
            Err(_) => self.metrics.dropped("sendFailed"),
        }
    }

    fn unblock(&mut self, sent: io::Result<()>) {
        let Some((_, send)) = self.blocked.take() else { return };
        match sent {
            Ok(()) => self.count(send.ip, send.what),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => self.metrics.dropped("fenced"),
            Err(_) => self.metrics.dropped("sendFailed"),
        }
    }

    fn count(&self, ip: IpAddr, what: What) {
        match what {
            What::Announcement => {
                self.metrics.gratuitous(ip);
                self.metrics.sent("announcement");
            }
            What::Probe => self.metrics.sent("probe"),
        }
    }

    /// An answer goes out at once or not at all: whoever asked asks again.
    fn transmit(&self, key: Key, frame: &[u8]) -> bool {
        if !self.gate.permits() {
            self.metrics.dropped("fenced");
            return false;
        }
        let sent = self.links.get(key).is_some_and(|socket| socket.send(frame).is_ok());
        if !sent {
            self.metrics.dropped("sendFailed");
        }
        sent
    }

    fn mac(&self, index: u32) -> Option<Mac> {
        self.interfaces.iter().find(|interface| interface.index == index).map(|interface| interface.mac)
    }

    fn warn_of_own(&mut self, index: u32) {
        let now = Instant::now();
        let last = self.warned.get(&index);
        if last.is_some_and(|last| now.saturating_duration_since(*last) < WARN) {
            return;
        }
        self.warned.insert(index, now);
        let name = self.interfaces.iter().find(|interface| interface.index == index);
        let name = name.map_or("?", |interface| interface.name.as_str());
        tracing::warn!(
            interface = name,
            "frames about our addresses arrive with this interface's own MAC address: the segment has a loop, or another \
             station has the same MAC"
        );
    }
}

/// Sends what is blocked as soon as there is room; each time that it is tried the fence is asked again.
fn poll_blocked(
    blocked: Option<&(Instant, Send)>,
    links: &Links,
    gate: &Gate,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    let Some((_, send)) = blocked else { return Poll::Pending };
    let Some(socket) = links.get((send.ifindex, protocol(send.ip))) else {
        return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
    };
    if !gate.permits() {
        return Poll::Ready(Err(io::ErrorKind::PermissionDenied.into()));
    }
    socket.poll_send(cx, &send.frame)
}

/// Before what was sent has left: the socket's memory (EAGAIN) or the device's queue (ENOBUFS).
fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(libc::ENOBUFS)
}
