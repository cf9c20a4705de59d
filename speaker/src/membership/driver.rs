//! The loop: datagrams in, datagrams out, one deadline.
//!
//! What has come is read before a deadline counts as missed: after a stall of ours the others' heartbeats wait in the
//! socket. But not for ever: a flood may take [`BUDGET`], then the deadlines are looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use patina_runtime::tasks::Shutdown;
use patina_speaker_core::membership::envelope::{Content, Envelope, KeyId, Keyring};
use patina_speaker_core::membership::{Event, Input, Membership, Output, State, further};
use patina_speaker_core::view::Member;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use super::key::Source;
use super::metrics::MembershipMetrics;
use super::socket::Sockets;
use crate::deadline::until;
use crate::fence::Fence;
use crate::priority::raise_priority;

/// Longer than any datagram of ours; the rest of a longer one is not needed to refuse it.
const LONGEST: usize = 2048;
/// Datagrams, and time, that may pass before the deadlines are looked at.
const BUDGET: usize = 2048;
const BUDGET_TIME: Duration = Duration::from_millis(5);
/// The clock is read once for so many datagrams.
const BATCH: usize = 32;
/// After the end of the process was asked for, somebody should say farewell for us. Else we do it at last.
const LAST_FAREWELL: Duration = Duration::from_millis(1500);
/// How often the sockets of further addresses are compared with what is there: one may be free now that was taken.
const LOOK: Duration = Duration::from_secs(10);

/// The machines and everything that they are driven with.
#[derive(Debug)]
pub struct Driver {
    pub(super) machine: Membership,
    pub(super) envelope: Envelope,
    pub(super) sockets: Sockets,
    /// Where it does not receive though it should: why, as the log has it.
    pub(super) unbound: BTreeMap<IpAddr, String>,
    pub(super) fence: Fence,
    pub(super) metrics: MembershipMetrics,
    pub(super) source: Source,
    /// Our node's name.
    pub(super) node: String,
    /// Interfaces of ours that reach nobody.
    pub(super) isolated: BTreeSet<String>,
    /// Those that were told to the log and the metric.
    pub(super) keys: Vec<KeyId>,
    pub(super) port: u16,
    pub(super) state: watch::Sender<State>,
    /// `None`: nobody has said yet where speakers are, which is not the same as that there are none.
    pub(super) peers: watch::Receiver<Option<BTreeSet<IpAddr>>>,
    pub(super) said: watch::Receiver<Member>,
    pub(super) hints: mpsc::Receiver<String>,
    pub(super) leaves: watch::Receiver<bool>,
}

/// What woke us, beside datagrams and deadlines.
enum Wake {
    Datagrams,
    Time,
    Peers,
    Say,
    Look,
    Hint(String),
    Keys(Keyring),
    Leave,
}

impl Driver {
    /// Runs until it is told to leave; then says farewell and ends. When it is dropped before, it is just silent, as a
    /// process that was killed.
    ///
    /// # Errors
    /// The sockets cannot be waited for.
    pub async fn run(mut self, mut shutdown: Shutdown) -> std::io::Result<()> {
        if let Err(error) = raise_priority() {
            tracing::debug!("the membership's thread has no raised priority: {error}");
        }
        let mut readiness = self.sockets.readiness()?;
        let (tell, mut keyrings) = mpsc::channel(1);
        let follower = tokio::task::spawn_local(self.source.clone().follow(tell));
        let mut buffer = vec![0; LONGEST];
        let mut end = None;
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // What is known already is not awaited: a change is told by `changed` below.
        self.peers.mark_changed();
        self.said.mark_changed();
        loop {
            let more = self.step(&mut buffer);
            if !more {
                readiness.clear();
            }
            let deadline = self.machine.poll_timeout();
            let wake = tokio::select! {
                biased;
                () = until(deadline) => Wake::Time,
                () = std::future::ready(()), if more => Wake::Datagrams,
                left = left(&mut self.leaves) => left,
                Ok(()) = self.said.changed() => Wake::Say,
                Ok(()) = self.peers.changed() => Wake::Peers,
                Some(node) = self.hints.recv() => Wake::Hint(node),
                Some(keyring) = keyrings.recv() => Wake::Keys(keyring),
                _ = looks.tick() => Wake::Look,
                () = shutdown.requested(), if end.is_none() => {
                    end = Some(Instant::now() + LAST_FAREWELL);
                    Wake::Time
                }
                () = until(end) => Wake::Leave,
                () = readiness.readable() => Wake::Datagrams,
            };
            if matches!(wake, Wake::Say | Wake::Look) && self.listen() {
                readiness = self.sockets.readiness()?;
            }
            if self.wake(wake, &mut buffer) {
                break;
            }
            // The follower of the key lives on this thread.
            tokio::task::yield_now().await;
        }
        follower.abort();
        Ok(())
    }

    /// Receives wherever our interfaces have addresses for it. True when there are other sockets than before.
    fn listen(&mut self) -> bool {
        let wanted = further(&self.said.borrow(), &self.sockets.addresses());
        let (changed, failed) = self.sockets.follow(wanted);
        for (address, error) in &failed {
            if self.unbound.get(address) != Some(&error.to_string()) {
                let port = self.port;
                tracing::warn!(
                    "cannot receive at {address}, UDP port {port}: {error}; whether that network passes frames is not known, and others do not ask there"
                );
            }
        }
        self.unbound = failed.into_iter().map(|(address, error)| (address, error.to_string())).collect();
        self.metrics.further(self.sockets.further().count(), self.unbound.len());
        if changed {
            let listening: BTreeSet<IpAddr> = self.sockets.further().collect();
            tracing::info!(addresses = ?listening, "further networks on which the other speakers are asked");
            self.machine.handle(Instant::now(), Input::Listen(listening));
        }
        changed
    }

    /// True: we have left.
    fn wake(&mut self, wake: Wake, buffer: &mut [u8]) -> bool {
        let input = match wake {
            Wake::Datagrams | Wake::Time | Wake::Look => return false,
            Wake::Peers => match self.places() {
                Some(places) => Input::Peers(places),
                None => return false,
            },
            Wake::Say => Input::Say(self.said.borrow_and_update().clone()),
            Wake::Hint(node) => Input::Hint { node },
            Wake::Leave => Input::Leave,
            Wake::Keys(keyring) => {
                self.envelope.rotate(Instant::now(), keyring);
                return false;
            }
        };
        // What came while we were away is older than this.
        self.receive(buffer);
        let leave = input == Input::Leave;
        self.machine.handle(Instant::now(), input);
        self.follow();
        leave
    }

    /// Reads what has come, then minds the deadline. True when there is more to read.
    fn step(&mut self, buffer: &mut [u8]) -> bool {
        let more = self.receive(buffer);
        let now = Instant::now();
        if self.machine.poll_timeout().is_some_and(|deadline| deadline <= now) {
            self.machine.handle_timeout(now);
        }
        self.follow();
        more
    }

    /// True when the budget ended before the datagrams did.
    fn receive(&mut self, buffer: &mut [u8]) -> bool {
        let began = Instant::now();
        let mut now = began;
        for count in 1..=BUDGET {
            let Some(received) = self.sockets.receive(buffer) else { return false };
            let Ok((length, from)) = received else { continue };
            self.metrics.received();
            let datagram = buffer.get(..length).unwrap_or_default();
            self.open(now, from, datagram);
            if count % BATCH == 0 {
                self.follow();
                now = Instant::now();
                if now.saturating_duration_since(began) > BUDGET_TIME {
                    return true;
                }
            }
        }
        true
    }

    fn open(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        match self.envelope.open(now, from, datagram) {
            Ok(opened) => {
                for reply in opened.replies {
                    self.send(from, &reply);
                }
                match opened.content {
                    Content::Message(message) => self.machine.handle(now, Input::Received { from, message }),
                    Content::Greeting => {}
                    Content::OtherStart => self.metrics.other_start(),
                }
            }
            Err(refused) => self.metrics.refused(refused),
        }
    }

    /// Does what the machine wants, and shows what it knows.
    fn follow(&mut self) {
        // First of all: a lease that is not prolonged in time is an outage.
        self.fence.set(self.machine.answer_until());
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Send { to, message } => {
                    let datagram = self.envelope.seal(Instant::now(), to, &message);
                    self.send(to, &datagram);
                }
                Output::Event(event) => {
                    say(&event);
                    self.metrics.event(&event);
                }
            }
        }
        let now = self.machine.state();
        let changed = self.state.send_if_modified(|state| {
            let changed = *state != now;
            if changed {
                *state = now;
            }
            changed
        });
        if changed {
            self.metrics.state(&self.state.borrow());
            self.show_isolated();
        }
        if !self.envelope.key_ids().eq(self.keys.iter().copied()) {
            self.keys = self.envelope.key_ids().collect();
            tracing::info!(keys = ?self.keys, "keys of the membership, the newest first");
            self.metrics.keys(self.keys.first().copied(), self.keys.iter().copied());
        }
    }

    /// Tells which of our interfaces reach nobody from now on.
    fn show_isolated(&mut self) {
        let state = self.state.borrow();
        let ours = state.members.get(&self.node).and_then(|member| member.interfaces.as_deref());
        let ours = ours.unwrap_or_default().iter().filter(|interface| interface.isolated);
        let isolated: BTreeSet<String> = ours.map(|interface| interface.name.clone()).collect();
        for interface in isolated.difference(&self.isolated) {
            tracing::warn!(interface, "it has a link, and no other speaker answers on its network");
        }
        for interface in self.isolated.difference(&isolated) {
            tracing::info!(interface, "other speakers answer on its network again, or none is there");
        }
        self.metrics.isolated(isolated.len());
        self.isolated = isolated;
    }

    fn send(&self, to: SocketAddr, datagram: &[u8]) {
        let sent = self.sockets.send(to, datagram);
        if let Err(error) = &sent {
            tracing::trace!(%to, "not sent: {error}");
        }
        self.metrics.sent(sent.is_ok());
    }

    fn places(&mut self) -> Option<BTreeSet<SocketAddr>> {
        let peers = self.peers.borrow_and_update();
        let peers = peers.as_ref()?.iter().filter(|ip| self.sockets.is_peer(**ip));
        Some(peers.map(|ip| SocketAddr::new(*ip, self.port)).collect())
    }
}

/// Returns when it is time to leave; also when nobody is left who could say so.
async fn left(leaves: &mut watch::Receiver<bool>) -> Wake {
    let _nobody = leaves.wait_for(|leave| *leave).await;
    Wake::Leave
}

fn say(event: &Event) {
    use patina_speaker_core::membership::Down;
    match event {
        Event::Up { node } => tracing::info!(node, "speaker is up"),
        Event::Down { node, cause: Down::Silent(time) } => {
            tracing::warn!(node, "speaker is down: silent for {} ms", time.as_millis());
        }
        Event::Down { node, cause: Down::Reported { by } } => {
            let by = if by.is_empty() { "several" } else { by };
            tracing::warn!(node, by, "speaker is down: reported by another speaker");
        }
        Event::Down { node, cause: Down::Left } => tracing::info!(node, "speaker has left"),
        Event::Answered { after } => tracing::trace!(?after, "answered"),
        Event::Said { node } => tracing::debug!(node, "speaker says something new of itself"),
        Event::Fenced => {
            tracing::warn!("fenced: this speaker stalled or is in a minority, and answers nothing")
        }
        Event::Unfenced => tracing::info!("no longer fenced"),
        Event::Joined => tracing::info!("the membership's first round is through"),
    }
}
