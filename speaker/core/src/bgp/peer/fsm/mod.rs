//! The finite state machine of RFC 4271 section 8, over messages.
//!
//! ```text
//!        the dialer, one per peer                          each link, at most three
//!   Off ── Start ──> Dialing ── Connected ──────────> OpenSent ── OPEN ──> OpenConfirm ── KEEPALIVE ──> Established
//!                    │    ^                              ^
//!             failed v    │ ConnectRetryTimer            │ Connected(Theirs): the peer's connection
//!                   Waiting                            (refused while Off or Held)
//!                         ^ IdleHoldTimer
//!                   Held ─┘ <── an error that would come again
//! ```
//!
//! The RFC gives each connection an FSM of its own; here the states before a TCP connection exists (Idle: Off and Held,
//! Connect: Dialing, Active: Waiting) are the peer's and the others are each link's. What people see is the farthest of all.
//!
//! * **Not implemented**: DelayOpen (events 9, 12, 20; optional: it saves a collision, we resolve it), and AutomaticStop (event 8),
//!   which nothing here asks for but the limit of prefixes, a Cease of its own.
//! * **After a connection that was lost** the RFC goes to Idle and starts automatically (events 3 to 7) at our discretion: we do so
//!   at once, into Active, so that a peer that comes back is not refused. Only errors that would come again are damped.
//! * **Retrying** waits for the ConnectRetryTime, doubled with each failure; a connection the peer begins needs no waiting.

mod connection;
mod ending;
mod heard;
mod open;
mod speaking;
mod timing;

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

pub(super) use self::connection::Agreed;
use self::connection::Connection;
use self::timing::{Damping, Dialer, Jitter};
use super::{Bfd, Event, Link, Output, Settings, Side, Snapshot, State, Stop, Why};
use crate::bgp::codec::Negotiated;
use crate::bgp::message::{Ends, Message, Notification};
use crate::bgp::rib::{AdjRibOut, Table};

/// What happens; [`super::Input`] with the bytes read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // as in `Input`
pub enum Happening {
    Start,
    Stop(Stop),
    Connected(Link, Ends),
    Lost(Link, String),
    /// A message came.
    Message(Link, Message),
    /// What came was no message: what the codec wants the peer to be told.
    Malformed(Link, Notification),
    Sent(Link),
    Want(Table),
    Bfd(Bfd),
    Drain(bool),
}

/// One peer.
#[derive(Debug)]
pub struct Fsm {
    settings: Settings,
    jitter: Jitter,
    /// The operator wants the session.
    wanted: bool,
    dialer: Dialer,
    /// So many attempts of ours so far.
    dialed: u32,
    /// ConnectRetryCounter.
    failures: u32,
    /// The R bit goes out: no session since we started has told the peer everything.
    restarted: bool,
    bfd: Option<Bfd>,
    draining: bool,
    rib: AdjRibOut,
    links: BTreeMap<Link, Connection>,
    /// What the driver has still to take for links that are closed.
    farewells: VecDeque<(Link, VecDeque<Message>)>,
    shown: State,
    outputs: VecDeque<Output>,
}

/// Whose driver takes no farewells loses the oldest.
const MAX_FAREWELLS: usize = 8;

impl Fsm {
    /// Idle until [`Happening::Start`].
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            jitter: Jitter(settings.seed),
            restarted: settings.restarted,
            settings,
            wanted: false,
            dialer: Dialer::Off,
            dialed: 0,
            failures: 0,
            bfd: None,
            draining: false,
            rib: AdjRibOut::default(),
            links: BTreeMap::new(),
            farewells: VecDeque::new(),
            shown: State::Idle,
            outputs: VecDeque::new(),
        }
    }

    /// Something happened.
    pub fn handle(&mut self, now: Instant, happening: Happening) {
        match happening {
            Happening::Start => self.start(now),
            Happening::Stop(stop) => self.stop(now, &stop),
            Happening::Connected(link, ends) => self.connected(now, link, ends),
            Happening::Lost(link, why) => self.lost(now, link, why),
            Happening::Message(link, message) => self.heard(now, link, message),
            // Events 21, 22, 24, 28: the codec knows which.
            Happening::Malformed(link, notification) => self.refuse(now, link, notification),
            Happening::Sent(link) => {
                if let Some(connection) = self.links.get_mut(&link) {
                    connection.send_hold = None;
                }
            }
            Happening::Want(table) => self.rib.want(table),
            Happening::Bfd(bfd) => self.bfd(now, bfd),
            Happening::Drain(draining) => {
                if std::mem::replace(&mut self.draining, draining) != draining {
                    self.rib.redress();
                }
            }
        }
        self.show();
    }

    /// What to do next; `None`: nothing.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// What was agreed on a link, once its OPEN has come.
    #[must_use]
    pub fn negotiated(&self, link: Link) -> Option<&Negotiated> {
        Some(&self.links.get(&link)?.agreed.as_ref()?.with.negotiated)
    }

    /// What comes on this link matters.
    #[must_use]
    pub fn listens(&self, link: Link) -> bool {
        self.links.contains_key(&link)
    }

    /// Now: the farthest of all links, else the dialer's.
    #[must_use]
    pub fn state(&self) -> State {
        self.links.values().map(|connection| connection.state).max().unwrap_or_else(|| self.dialer.state())
    }

    /// For people.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let received = self.links.values().find(|connection| connection.state == State::Established);
        Snapshot {
            state: self.state(),
            sent: self.rib.sent(),
            pending: self.rib.pending(),
            received: received.map(Connection::received_by_family).unwrap_or_default(),
        }
    }

    /// Events 1 and 4.
    fn start(&mut self, now: Instant) {
        // "The start events (Events 1, 3-7) are ignored" in every state but Idle.
        if !std::mem::replace(&mut self.wanted, true) {
            self.failures = 0;
            self.begin(now);
        }
    }

    /// Event 2. "The ManualStop event ... ignored in the Idle state."
    fn stop(&mut self, now: Instant, stop: &Stop) {
        self.wanted = false;
        for link in self.all_links() {
            let told = self.stop_notification(link, stop);
            let why = told.clone().map_or(Why::Restart, Why::Sent);
            self.end(now, link, told, why);
        }
        self.redial(now, Damping::None);
    }

    /// Events 16 and 17.
    fn connected(&mut self, now: Instant, link: Link, ends: Ends) {
        let expected = match link.side {
            Side::Ours => self.dialer.dials(link),
            // Idle: "BGP FSM refuses all incoming BGP connections for this peer."
            Side::Theirs => !self.dialer.refuses() && !self.links.contains_key(&link),
        };
        if !expected {
            if !self.links.contains_key(&link) {
                self.outputs.push_back(Output::Close(link));
            }
            return;
        }
        if link.side == Side::Theirs {
            // The peer has one attempt at a time: one of which we have heard nothing is an earlier one's remains.
            let stale = |(known, connection): (&Link, &Connection)| {
                (known.side == Side::Theirs && connection.state == State::OpenSent).then_some(*known)
            };
            if let Some(stale) = self.links.iter().find_map(stale) {
                self.end(now, stale, Some(Notification::collision()), Why::Collision);
            }
        }
        let open = open::ours(&self.settings, self.restarted);
        self.links.insert(link, Connection::new(now, ends, open));
        if link.side == Side::Ours {
            self.dialer = Dialer::Connected;
        }
    }

    /// Event 18.
    fn lost(&mut self, now: Instant, link: Link, why: String) {
        if self.links.contains_key(&link) {
            self.end(now, link, None, Why::Connection(why));
        } else if self.dialer.dials(link) {
            self.failures = self.failures.saturating_add(1);
            self.dialer = Dialer::Connected;
            self.redial(now, Damping::None);
            if self.links.is_empty() {
                self.event(Event::Down(Why::Connection(why)));
            }
        }
    }

    fn bfd(&mut self, now: Instant, bfd: Bfd) {
        if !self.settings.bfd {
            return;
        }
        let before = self.bfd.replace(bfd);
        match bfd {
            Bfd::Up => {
                for link in self.all_links() {
                    self.confirm(now, link);
                }
                // The peer is there: no reason to wait for the timer, or for the SYN that TCP sends ever more rarely.
                if before != Some(Bfd::Up) {
                    match self.dialer {
                        Dialer::Dialing(link, _) => {
                            self.outputs.push_back(Output::Close(link));
                            self.dial(now);
                        }
                        Dialer::Waiting(_) => self.dial(now),
                        Dialer::Off | Dialer::Held(_) | Dialer::Passive | Dialer::Connected => {}
                    }
                }
            }
            Bfd::Down if before == Some(Bfd::Up) => {
                for link in self.all_links() {
                    if self.links.get(&link).is_some_and(|known| known.state >= State::OpenConfirm) {
                        self.end(now, link, Some(Notification::bfd_down()), Why::Bfd);
                    }
                }
            }
            // It was not up; or the peer does not want BFD, which says nothing of the path (RFC 5882 section 4.2).
            Bfd::Down | Bfd::AdminDown => {}
        }
    }

    fn all_links(&self) -> Vec<Link> {
        self.links.keys().copied().collect()
    }

    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    fn show(&mut self) {
        let state = self.state();
        if std::mem::replace(&mut self.shown, state) != state {
            self.event(Event::State(state));
        }
    }
}
