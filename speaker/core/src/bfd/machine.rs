//! One session: packets in, packets out, one deadline.

mod received;
mod sending;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::echo::Echo;
use super::wire::Packet;
use super::{Diagnostic, Dropped, Input, Output, Settings, State};
use sending::{Finals, Interval, Poll, Spoken};

/// Section 6.8.3: "When bfd.SessionState is not Up, the system MUST set bfd.DesiredMinTxInterval to a value of not less
/// than one second". The same is what it asks for while echo packets do the work.
const SLOW: Duration = Duration::from_secs(1);
/// Intervals of settings are not shorter; zero is reserved (section 4.1).
const SHORTEST: Duration = Duration::from_millis(1);

/// One session.
#[derive(Debug)]
pub struct Machine {
    settings: Settings,
    local_discriminator: u32,
    random: StdRng,
    state: State,
    /// bfd.LocalDiag.
    diagnostic: Diagnostic,
    remote: Remote,
    /// The last packet that counted; `None`: none within a Detection Time, so that bfd.RemoteDiscr is zero.
    heard: Option<Instant>,
    /// bfd.DesiredMinTxInterval.
    tx: Interval,
    /// bfd.RequiredMinRxInterval.
    rx: Interval,
    poll: Poll,
    /// The last packet.
    spoken: Option<Spoken>,
    finals: Finals,
    echo: Option<Echo>,
    /// AdminDown since.
    closed: Option<Instant>,
    outputs: VecDeque<Output>,
}

/// What the peer last said (the variables bfd.Remote… of section 6.8.1).
#[derive(Clone, Copy, Debug)]
struct Remote {
    discriminator: u32,
    state: State,
    diagnostic: Diagnostic,
    demand: bool,
    detect_multiplier: u8,
    desired_min_tx: Duration,
    required_min_rx: Duration,
    required_min_echo_rx: Duration,
}

impl Default for Remote {
    fn default() -> Self {
        Self {
            discriminator: 0,
            state: State::Down,
            diagnostic: Diagnostic::None,
            demand: false,
            detect_multiplier: 0,
            desired_min_tx: Duration::ZERO,
            // Section 6.8.1: "This variable MUST be initialized to 1."
            required_min_rx: Duration::from_micros(1),
            required_min_echo_rx: Duration::ZERO,
        }
    }
}

/// What a session can be asked about, for those who look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// Ours.
    pub state: State,
    /// Why it last went down.
    pub diagnostic: Diagnostic,
    /// The peer's, as it last said.
    pub remote: State,
    /// Why the peer last went down, as it last said.
    pub remote_diagnostic: Diagnostic,
    /// Zero: the peer is not heard.
    pub remote_discriminator: u32,
    /// How often we send, but for jitter; `None`: the peer wants no periodic packets.
    pub transmit_interval: Option<Duration>,
    /// So long without a packet, and the peer is down; `None`: it is not heard anyway.
    pub detection_time: Option<Duration>,
    /// Echo packets come back and decide.
    pub echo: bool,
}

impl Machine {
    /// Down; speaks at once unless passive. `discriminator` is bfd.LocalDiscr: not zero, and unique on this node; `seed`
    /// should not be known to anybody else.
    #[must_use]
    pub fn new(settings: Settings, discriminator: u32, seed: u64, now: Instant) -> Self {
        let settings = checked(settings);
        let mut machine = Self {
            local_discriminator: discriminator,
            random: StdRng::seed_from_u64(seed),
            state: State::Down,
            diagnostic: Diagnostic::None,
            remote: Remote::default(),
            heard: None,
            tx: Interval::new(settings.transmit_interval.max(SLOW)),
            rx: Interval::new(settings.receive_interval),
            poll: Poll::Idle,
            spoken: None,
            finals: Finals::new(now),
            echo: None,
            closed: None,
            outputs: VecDeque::new(),
            settings,
        };
        machine.follow(now);
        machine
    }

    /// Something happened.
    ///
    /// # Errors
    /// A packet that does not count, and why.
    pub fn handle(&mut self, now: Instant, input: Input<'_>) -> Result<(), Dropped> {
        let result = match input {
            Input::Received { packet, ttl, at } => self.received(now, at.min(now), &packet, ttl),
            Input::Echo(payload) => {
                let ours = self.local_discriminator;
                let counts = self.echo.as_mut().is_some_and(|echo| echo.returned(payload, ours));
                if counts { Ok(()) } else { Err(Dropped::Echo) }
            }
            Input::AdminDown(down) => {
                self.administer(now, down);
                Ok(())
            }
            Input::Configure(settings) => {
                self.settings = checked(*settings);
                Ok(())
            }
        };
        self.follow(now);
        result
    }

    /// Time has come. What waits in the sockets should be handled before: a packet that arrived too late, but was there
    /// before anybody looked, still counts.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.echo_deadline().is_some_and(|deadline| deadline <= now) {
            // Section 6.8.5: "the local system MUST set bfd.SessionState to Down and bfd.LocalDiag to 2 (Echo Function
            // Failed)".
            self.enter(State::Down, Diagnostic::EchoFailed);
            self.follow_values(now);
        }
        if self.detection_deadline().is_some_and(|deadline| deadline <= now) {
            // Section 6.8.4: "If Demand mode is not active, and a period of time equal to the Detection Time passes
            // without receiving a BFD Control packet from the remote system, and bfd.SessionState is Init or Up, the
            // session has gone down -- the local system MUST set bfd.SessionState to Down and bfd.LocalDiag to 1".
            if matches!(self.state, State::Init | State::Up) {
                self.enter(State::Down, Diagnostic::ControlDetectionTimeExpired);
            }
            // Section 6.8.1, bfd.RemoteDiscr: "If a period of a Detection Time passes without the receipt of a valid,
            // authenticated BFD packet from the remote system, this variable MUST be set to zero." The rest of what it
            // said is forgotten with it: one that asked for silence and died must hear from us when it is back.
            let (state, diagnostic) = (self.remote.state, self.remote.diagnostic);
            self.remote = Remote { state, diagnostic, ..Remote::default() };
            self.heard = None;
            self.poll = Poll::Idle;
        }
        self.follow(now);
        self.send_what_is_due(now);
    }

    /// When [`Machine::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let echo = self.echo.as_ref().map(|echo| echo.next);
        [self.detection_deadline(), self.echo_deadline(), self.next_packet(), echo]
            .into_iter()
            .flatten()
            .min()
    }

    /// What to do next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// What there is to know.
    #[must_use]
    pub fn view(&self) -> View {
        View {
            state: self.state,
            diagnostic: self.diagnostic,
            remote: self.remote.state,
            remote_diagnostic: self.remote.diagnostic,
            remote_discriminator: self.remote.discriminator,
            transmit_interval: (!self.remote.required_min_rx.is_zero()).then(|| self.transmit_interval()),
            detection_time: self.heard.map(|_| self.detection_time()),
            echo: self.echo.as_ref().is_some_and(|echo| echo.proven),
        }
    }

    /// A session in AdminDown may be forgotten then. Section 6.8.16: "BFD Control packets SHOULD be transmitted for at
    /// least a Detection Time after transitioning to AdminDown state in order to ensure that the remote system is aware of
    /// the state change." `None`: it is not in AdminDown.
    #[must_use]
    pub fn known_down(&self) -> Option<Instant> {
        let since = self.closed?;
        let times = u32::from(self.settings.detect_multiplier);
        Some(if self.heard.is_some() { since + self.transmit_interval() * times } else { since })
    }

    /// Section 6.8.16.
    fn administer(&mut self, now: Instant, down: bool) {
        if down && self.state != State::AdminDown {
            self.closed = Some(now);
            self.enter(State::AdminDown, Diagnostic::AdministrativelyDown);
        } else if !down && self.state == State::AdminDown {
            self.closed = None;
            self.enter(State::Down, Diagnostic::None);
        }
    }

    fn enter(&mut self, to: State, diagnostic: Diagnostic) {
        let from = std::mem::replace(&mut self.state, to);
        if to == State::Up {
            // What was asked before is overtaken: the intervals of a session that is up are told at once.
            self.poll = Poll::Idle;
        }
        // Why it went down is told until it goes down again (section 4.1: "This field allows remote systems to determine
        // the reason that the previous session failed").
        if diagnostic != Diagnostic::None {
            self.diagnostic = diagnostic;
        }
        let (remote, remote_diagnostic) = (self.remote.state, self.remote.diagnostic);
        self.outputs.push_back(Output::State { from, to, diagnostic, remote, remote_diagnostic });
    }

    /// Section 6.8.4: "the value of Detect Mult received from the remote system, multiplied by the agreed transmit interval
    /// of the remote system (the greater of bfd.RequiredMinRxInterval and the last received Desired Min TX Interval)".
    fn detection_time(&self) -> Duration {
        self.rx.used.max(self.remote.desired_min_tx) * u32::from(self.remote.detect_multiplier)
    }

    fn detection_deadline(&self) -> Option<Instant> {
        Some(self.heard? + self.detection_time())
    }

    /// Echo packets are ours: the multiplier and the interval are, too.
    fn echo_deadline(&self) -> Option<Instant> {
        let detection = self.echo_interval() * u32::from(self.settings.detect_multiplier);
        self.echo.as_ref()?.deadline(detection)
    }

    /// Section 6.8.9: "The interval between transmitted BFD Echo packets MUST NOT be less than the value advertised by the
    /// remote system in Required Min Echo RX Interval".
    fn echo_interval(&self) -> Duration {
        self.settings.echo_interval.max(self.remote.required_min_echo_rx)
    }
}

fn checked(mut settings: Settings) -> Settings {
    for interval in
        [&mut settings.transmit_interval, &mut settings.receive_interval, &mut settings.echo_interval]
    {
        *interval = (*interval).max(SHORTEST);
    }
    settings.detect_multiplier = settings.detect_multiplier.max(1);
    settings
}

/// Every field that a peer gets.
impl Machine {
    fn packet(&self, poll: bool, final_: bool) -> Packet {
        let offers_echo = self.settings.echo_mode && self.settings.loops_echo && !self.settings.multihop;
        Packet {
            diagnostic: self.diagnostic,
            state: self.state,
            poll,
            final_,
            // Our BFD ends with the speaker, while the kernel forwards on.
            control_plane_independent: false,
            authenticated: false,
            demand: false,
            detect_multiplier: self.settings.detect_multiplier,
            my_discriminator: self.local_discriminator,
            your_discriminator: self.remote.discriminator,
            desired_min_tx: self.tx.said,
            required_min_rx: self.rx.said,
            required_min_echo_rx: if offers_echo { self.settings.echo_interval } else { Duration::ZERO },
        }
    }
}
