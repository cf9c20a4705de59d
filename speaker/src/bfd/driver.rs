//! The loop: datagrams in, datagrams out, one deadline.
//!
//! What has come is read before a deadline counts as missed: after a stall of ours the peers' packets wait in the socket, each
//! with the kernel's stamp. A flood of strangers may take [`BUDGET`] of a socket, which is more than the socket holds: whatever waited when
//! the look began was read when the deadlines are minded.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use patina_runtime::tasks::Shutdown;
use patina_speaker_core::bfd::wire::Packet;
use patina_speaker_core::bfd::{Input, Machine, Output, Settings, State, echo_discriminator};
use patina_speaker_core::bgp::peer::Bfd;
use tokio::sync::watch;

use super::desired::{Desired, Key, Statuses, Wanted};
use super::echo::{EchoListeners, EchoTalker};
use super::listen::{Door, Listeners};
use super::metrics::{BfdMetrics, Count};
use super::table::{NotOurs, Session, Table};
use crate::deadline::until;
use crate::priority::raise_priority;

/// Longer than any control packet; the rest of a longer one is not needed.
const LONGEST: usize = 512;
const BUDGET: usize = 4096;
/// How often what could not be opened is tried again, and interfaces are looked up.
const TEND: Duration = Duration::from_secs(1);
/// How long the peers may take to hear that the process ends.
const FAREWELL: Duration = Duration::from_secs(1);

/// The machines and everything that they are driven with.
#[derive(Debug)]
pub struct Driver {
    desired: watch::Receiver<Desired>,
    statuses: watch::Sender<Statuses>,
    metrics: BfdMetrics,
    table: Table,
    listeners: Listeners,
    echoes: EchoListeners,
    /// This node loops what is sent through it.
    forwards: bool,
    /// Something changed that the statuses show.
    changed: bool,
}

impl Driver {
    /// No session yet.
    #[must_use]
    pub fn new(
        desired: watch::Receiver<Desired>,
        statuses: watch::Sender<Statuses>,
        metrics: BfdMetrics,
    ) -> Self {
        Self {
            desired,
            statuses,
            metrics,
            table: Table::default(),
            listeners: Listeners::default(),
            echoes: EchoListeners::default(),
            forwards: false,
            changed: false,
        }
    }

    /// Runs until the process ends, or nobody can want anything any more; then tells the peers that this is no failure
    /// (AdminDown).
    pub async fn run(mut self, mut shutdown: Shutdown) {
        if let Err(error) = raise_priority() {
            tracing::debug!("the thread of BFD has no raised priority: {error}");
        }
        let mut buffer = vec![0; LONGEST];
        let mut tend = Instant::now();
        let mut end = None;
        self.desired.mark_changed();
        while !self.is_over(end) {
            let more = self.step(&mut buffer);
            if tend <= Instant::now() {
                self.tend();
                tend = Instant::now() + TEND;
            }
            self.publish();
            let next_tend = (!self.table.sessions.is_empty()).then_some(tend);
            let deadline = [self.table.deadline(), next_tend, end].into_iter().flatten().min();
            tokio::select! {
                biased;
                () = until(deadline) => {}
                () = std::future::ready(()), if more => {}
                wanted = self.desired.changed(), if end.is_none() => match wanted {
                    Ok(()) => self.follow_desired(),
                    Err(_) => end = Some(self.leave()),
                },
                () = shutdown.requested(), if end.is_none() => end = Some(self.leave()),
                () = readable(&self.listeners, &self.echoes) => {}
            }
        }
        self.publish();
    }

    fn is_over(&self, end: Option<Instant>) -> bool {
        let now = Instant::now();
        end.is_some_and(|end| end <= now || self.table.sessions.values().all(|session| session.has_left(now)))
    }

    /// Reads what has come, then minds the deadlines. True when there may be more to read.
    fn step(&mut self, buffer: &mut [u8]) -> bool {
        let Self { table, listeners, echoes, metrics, changed, .. } = self;
        let mut touched = Vec::new();
        let mut more = listeners.receive(buffer, BUDGET, |door, at, received, payload| {
            let found = Packet::parse(payload)
                .map_err(NotOurs::Dropped)
                .and_then(|packet| Ok((table.find(door, received, &packet)?, packet)));
            let (discriminator, packet) = match found {
                Ok(found) => found,
                Err(NotOurs::Dropped(why)) => return metrics.dropped(why),
                Err(NotOurs::Stranger) => return metrics.stranger(),
            };
            let Some(session) = table.sessions.get_mut(&discriminator) else { return };
            session.metrics.count(Count::ControlIn);
            let input = Input::Received { packet, ttl: received.ttl, at };
            match session.machine.handle(Instant::now(), input) {
                Ok(()) => session.heard_on = received.interface,
                Err(why) => metrics.dropped(why),
            }
            // An answer to Poll is due at once, and what is queued does not grow with what comes.
            *changed |= follow(session);
            if session.heard_on != 0 && session.wanted.settings.echo_mode {
                touched.push(session.heard_on);
            }
        });
        touched.dedup();
        for interface in touched {
            if let Err(error) = echoes.open(interface) {
                tracing::debug!(interface, "bfd: cannot receive echo packets: {error}");
            }
        }
        more |= echoes.receive(buffer, BUDGET, |payload| {
            let session = echo_discriminator(payload).and_then(|number| table.sessions.get_mut(&number));
            let Some(session) = session else { return metrics.stranger() };
            match session.machine.handle(Instant::now(), Input::Echo(payload)) {
                Ok(()) => session.metrics.count(Count::EchoIn),
                Err(why) => metrics.dropped(why),
            }
            *changed |= follow(session);
        });
        let now = Instant::now();
        for session in table.sessions.values_mut() {
            if session.machine.poll_timeout().is_some_and(|deadline| deadline <= now) {
                session.machine.handle_timeout(now);
                *changed |= follow(session);
            }
        }
        more
    }

    fn follow_desired(&mut self) {
        let desired = self.desired.borrow_and_update().clone();
        self.forwards = forwards();
        let now = Instant::now();
        for (key, wanted) in &desired {
            match self.table.keys.get(key).and_then(|number| self.table.sessions.get_mut(number)) {
                Some(session) => {
                    session.leaving = false;
                    session.wanted = wanted.clone();
                    configure(session, now, self.forwards);
                }
                None => self.add(key, wanted, now),
            }
        }
        for session in self.table.sessions.values_mut().filter(|session| !desired.contains_key(&session.key))
        {
            leave(session, now);
        }
        self.tend();
    }

    fn add(&mut self, key: &Key, wanted: &Wanted, now: Instant) {
        let metrics = self.metrics.of(key);
        metrics.state(State::Down, State::Down);
        let forwards = self.forwards;
        let added = self.table.add(key.clone(), |discriminator, seed| {
            let machine = Machine::new(settings(key, wanted, forwards), discriminator, seed, now);
            let mut session = Session {
                key: key.clone(),
                wanted: wanted.clone(),
                shown: machine.view(),
                machine,
                interface: None,
                heard_on: 0,
                talker: None,
                broken: false,
                echo: None,
                metrics,
                says: None,
                since: now,
                downs: 0,
                trouble: None,
                leaving: false,
            };
            if wanted.admin_down {
                configure(&mut session, now, forwards);
            }
            session
        });
        if let Err(error) = added {
            tracing::error!(peer = %key, "bfd: no session: {error}");
        }
    }

    /// What is to be done once in a while.
    fn tend(&mut self) {
        let now = Instant::now();
        let forwards = forwards();
        let gone: Vec<u32> = self
            .table
            .sessions
            .iter()
            .filter(|(_, session)| session.has_left(now))
            .map(|(number, _)| *number)
            .collect();
        for number in gone {
            self.table.remove(number);
        }
        let doors: BTreeSet<Door> =
            self.table.sessions.values().map(|session| Door::of(&session.key)).collect();
        let before = self.listeners.closed.clone();
        self.listeners.follow(doors);
        for trouble in self.listeners.closed.iter().filter(|(door, text)| before.get(door) != Some(*text)) {
            tracing::warn!("bfd: {}", trouble.1);
        }
        let mut taken = self.table.ports();
        for (number, session) in &mut self.table.sessions {
            session.open(*number, &taken);
            taken.extend(session.talker.as_ref().map(|talker| talker.local.port()));
            if forwards != self.forwards {
                configure(session, now, forwards);
            }
            follow(session);
        }
        self.forwards = forwards;
        let echoing = self.table.sessions.values().filter(|session| session.wanted.settings.echo_mode);
        self.echoes.keep(&echoing.map(|session| session.heard_on).collect());
        self.changed = true;
    }

    /// The process ends.
    fn leave(&mut self) -> Instant {
        let now = Instant::now();
        self.table.sessions.values_mut().for_each(|session| leave(session, now));
        now + FAREWELL
    }

    fn publish(&mut self) {
        if !std::mem::take(&mut self.changed) {
            return;
        }
        let sessions = self.table.sessions.iter().filter(|(_, session)| !session.leaving);
        let statuses: Statuses = sessions
            .map(|(number, session)| (session.key.clone(), session.status(*number, &self.listeners.closed)))
            .collect();
        self.statuses.send_if_modified(|shown| {
            let differs = *shown != statuses;
            if differs {
                *shown = statuses;
            }
            differs
        });
    }
}

/// Returns when a socket may have something.
async fn readable(listeners: &Listeners, echoes: &EchoListeners) {
    let all: Vec<_> =
        listeners.readiness().chain(echoes.readiness()).map(|socket| Box::pin(socket.readable())).collect();
    if all.is_empty() {
        std::future::pending::<()>().await;
    }
    // An error (the runtime ends) is the end of waiting, too.
    let _ready = futures::future::select_all(all).await;
}

/// Does what the machine wants. True when there is something new to show.
fn follow(session: &mut Session) -> bool {
    while let Some(output) = session.machine.poll_output() {
        match output {
            Output::Send(packet) => {
                let sent = send(session, &packet);
                session.metrics.count(if sent { Count::ControlOut } else { Count::SendFailed });
            }
            Output::Echo(packet) => {
                let sent = send_echo(session, &packet).is_ok();
                session.metrics.count(if sent { Count::EchoOut } else { Count::SendFailed });
            }
            Output::State { from, to, diagnostic, remote, remote_diagnostic } => {
                session.metrics.state(from, to);
                session.since = Instant::now();
                let peer = &session.key;
                if to == State::Up {
                    session.says = Some(Bfd::Up);
                    tracing::info!(%peer, "bfd: up");
                } else if from != State::Up {
                    tracing::debug!(%peer, ?from, ?to, ?remote, "bfd");
                } else if to == State::AdminDown || remote == State::AdminDown {
                    session.downs += 1;
                    session.says = Some(Bfd::AdminDown);
                    tracing::info!(%peer, ?to, ?remote, "bfd: taken down on purpose");
                } else {
                    session.downs += 1;
                    session.says = Some(Bfd::Down);
                    tracing::warn!(%peer, ?diagnostic, ?remote, ?remote_diagnostic, "bfd: down");
                }
            }
        }
    }
    let view = session.machine.view();
    let changed = view != session.shown;
    session.shown = view;
    changed
}

fn send(session: &mut Session, packet: &[u8]) -> bool {
    let Some(talker) = &session.talker else { return false };
    let sent = talker.send(packet);
    if let Err(error) = &sent {
        tracing::trace!(peer = %session.key, "bfd: not sent: {error}");
        // The address or the route may have gone, and the socket with it.
        session.broken |= error.kind() != std::io::ErrorKind::WouldBlock;
    }
    sent.is_ok()
}

fn send_echo(session: &mut Session, packet: &[u8]) -> std::io::Result<()> {
    let local = session.talker.as_ref().ok_or(std::io::ErrorKind::NotConnected)?.local;
    let echo = match &mut session.echo {
        Some(echo) => echo,
        none => none.insert(EchoTalker::open(&session.key)?),
    };
    echo.send(local, packet)
}

fn configure(session: &mut Session, now: Instant, forwards: bool) {
    let settings = settings(&session.key, &session.wanted, forwards);
    let _always_works = session.machine.handle(now, Input::Configure(Box::new(settings)));
    let _always_works = session.machine.handle(now, Input::AdminDown(session.wanted.admin_down));
    follow(session);
}

fn leave(session: &mut Session, now: Instant) {
    session.leaving = true;
    let _always_works = session.machine.handle(now, Input::AdminDown(true));
    follow(session);
}

/// Echo is for IPv4 on one hop here: nothing could be sent through an IPv6 peer without a raw socket of another kind, and the
/// configuration does not allow it.
fn settings(key: &Key, wanted: &Wanted, forwards: bool) -> Settings {
    Settings {
        multihop: key.multihop,
        echo_mode: wanted.settings.echo_mode && key.peer.is_ipv4(),
        loops_echo: forwards && key.peer.is_ipv4(),
        ..wanted.settings.clone()
    }
}

/// Whether this node forwards IPv4; of the namespace that the thread is in.
fn forwards() -> bool {
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").is_ok_and(|text| text.trim() == "1")
}
