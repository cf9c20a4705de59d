//! Timers: the dialer's (ConnectRetryTimer, IdleHoldTimer) and each link's (HoldTimer, KeepaliveTimer, SendHoldTimer).

use std::time::{Duration, Instant};

use super::{Event, Fsm};
use crate::bgp::message::Notification;
use crate::bgp::peer::{Link, Output, Side, State, Why};

/// HoldTimer until the peer's OPEN comes: "a HoldTimer value of 4 minutes is suggested."
pub(super) const OPEN_HOLD: Duration = Duration::from_secs(240);
/// RFC 9687 section 4: "the larger of 8 minutes or 2 times the negotiated HoldTime".
pub(super) const SEND_HOLD: Duration = Duration::from_secs(480);
/// So long a session waits for BFD before it is given up for now (draft-ietf-idr-bgp-bfd-strict-mode).
pub(super) const BFD_HOLD: Duration = Duration::from_secs(30);
/// A session that lasted so long was a good one: its end is no failure that counts for the back-off.
pub(super) const STABLE: Duration = Duration::from_secs(60);
/// An attempt is given at least so much, for a few SYNs, and at most so much.
const ATTEMPT: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(30));
/// A short IdleHoldTime grows no further: while it runs the peer is refused, too.
const MAX_SHORT_HOLD: Duration = Duration::from_secs(30);
/// A long one, from the first failure on and at most.
const LONG_HOLD: (Duration, Duration) = (Duration::from_secs(120), Duration::from_secs(3600));

/// RFC 4271 section 10: "a random value ... uniformly distributed in the range from 0.75 to 1.0".
#[derive(Debug)]
pub(super) struct Jitter(pub(super) u64);

impl Jitter {
    pub(super) fn of(&mut self, time: Duration) -> Duration {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let share = u32::try_from((z ^ (z >> 31)) % 251).unwrap_or(0);
        time.saturating_mul(750 + share) / 1000
    }
}

/// How long the peer is left alone after a session has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Damping {
    /// It may come back at once, and we try again after the ConnectRetryTime.
    None,
    Short,
    Long,
}

/// What is done for a connection of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialer {
    /// Idle: no session is wanted.
    Off,
    /// Idle until the IdleHoldTimer expires.
    Held(Instant),
    /// Connect, until the ConnectRetryTimer expires.
    Dialing(Link, Instant),
    /// Active until the ConnectRetryTimer expires.
    Waiting(Instant),
    /// Active, and never more: the peer connects.
    Passive,
    /// A link makes an attempt of ours needless.
    Connected,
}

impl Dialer {
    pub(super) fn state(self) -> State {
        match self {
            Self::Off | Self::Held(_) => State::Idle,
            Self::Dialing(..) => State::Connect,
            Self::Waiting(_) | Self::Passive | Self::Connected => State::Active,
        }
    }

    pub(super) fn refuses(self) -> bool {
        matches!(self, Self::Off | Self::Held(_))
    }

    pub(super) fn dials(self, link: Link) -> bool {
        matches!(self, Self::Dialing(known, _) if known == link)
    }

    fn timeout(self) -> Option<Instant> {
        match self {
            Self::Held(at) | Self::Dialing(_, at) | Self::Waiting(at) => Some(at),
            Self::Off | Self::Passive | Self::Connected => None,
        }
    }
}

impl Fsm {
    /// When [`Fsm::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let links = self.links.values().filter_map(|connection| connection.timeout());
        links.chain(self.dialer.timeout()).min()
    }

    /// Time has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        for link in self.all_links() {
            self.link_timeout(now, link);
        }
        if self.dialer.timeout().is_some_and(|at| at <= now) {
            match self.dialer {
                // Event 13, then 6 or 7.
                Dialer::Held(_) => self.begin(now),
                // Event 9 in Active: "initiates a TCP connection to the other BGP peer".
                Dialer::Waiting(_) => self.dial(now),
                // Event 9 in Connect: "drops the TCP connection, restarts the ConnectRetryTimer, ... initiates a TCP connection".
                Dialer::Dialing(link, _) => {
                    self.failures = self.failures.saturating_add(1);
                    self.outputs.push_back(Output::Close(link));
                    if self.links.is_empty() {
                        self.event(Event::Down(Why::Connection("no answer".to_owned())));
                    }
                    self.dial(now);
                }
                Dialer::Off | Dialer::Passive | Dialer::Connected => {}
            }
        }
        self.show();
    }

    fn link_timeout(&mut self, now: Instant, link: Link) {
        let Some(connection) = self.links.get_mut(&link) else { return };
        let due = |timer: Option<Instant>| timer.is_some_and(|at| at <= now);
        if due(connection.hold) {
            if connection.waits_for_bfd.is_some() {
                self.end(now, link, Some(Notification::bfd_down()), Why::Bfd);
            } else {
                // Event 10: "sends a NOTIFICATION message with the error code Hold Timer Expired".
                self.refuse(now, link, Notification::hold_timer_expired());
            }
        } else if due(connection.send_hold) {
            // RFC 9687 section 4.2. The NOTIFICATION leaves if the peer wakes within the second that Close allows.
            self.refuse(now, link, Notification::send_hold_timer_expired());
        } else if due(connection.keepalive) {
            // Event 11.
            connection.queue_keepalive();
            connection.restart_keepalive(now, &mut self.jitter);
        }
    }

    /// From Idle: Connect, or Active for a passive one.
    pub(super) fn begin(&mut self, now: Instant) {
        if self.settings.passive {
            self.dialer = Dialer::Passive;
        } else {
            self.dial(now);
        }
    }

    pub(super) fn dial(&mut self, now: Instant) {
        self.dialed = self.dialed.wrapping_add(1);
        let link = Link { side: Side::Ours, number: self.dialed };
        let patience = self.retry_delay().clamp(ATTEMPT.0, ATTEMPT.1);
        self.dialer = Dialer::Dialing(link, now.checked_add(patience).unwrap_or(now));
        self.outputs.push_back(Output::Connect(link));
    }

    /// A link ended, or has come so far that no other is needed: what now of our attempts?
    pub(super) fn redial(&mut self, now: Instant, damping: Damping) {
        let confirmed = self.links.values().any(|connection| connection.state >= State::OpenConfirm);
        let needless = !self.wanted || confirmed || self.links.keys().any(|link| link.side == Side::Ours);
        if needless {
            if let Dialer::Dialing(link, _) = self.dialer {
                self.outputs.push_back(Output::Close(link));
            }
            self.dialer = if self.wanted { Dialer::Connected } else { Dialer::Off };
            return;
        }
        self.dialer = match self.dialer {
            dialing @ Dialer::Dialing(..) => dialing,
            _ if damping != Damping::None && self.links.is_empty() => {
                let hold = match damping {
                    Damping::Long => self.delay(LONG_HOLD.0, LONG_HOLD.1),
                    _ => self.retry_delay().min(MAX_SHORT_HOLD),
                };
                Dialer::Held(now.checked_add(hold).unwrap_or(now))
            }
            waiting @ (Dialer::Waiting(_) | Dialer::Held(_)) => waiting,
            _ if self.settings.passive => Dialer::Passive,
            _ => Dialer::Waiting(now.checked_add(self.retry_delay()).unwrap_or(now)),
        };
    }

    fn retry_delay(&mut self) -> Duration {
        let base = self.settings.connect_retry_time;
        self.delay(base, self.settings.connect_retry_max.max(base))
    }

    fn delay(&mut self, base: Duration, most: Duration) -> Duration {
        let doubled = base.saturating_mul(1 << self.failures.saturating_sub(1).min(16));
        self.jitter.of(doubled.min(most))
    }
}
