//! One peer: the finite state machine of RFC 4271 section 8 with both connections, its timers, graceful restart, and the
//! routes that go out.
//!
//! The driver opens and closes what [`Output`] says, moves bytes, and calls at [`Machine::poll_timeout`].

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use patina_crds::config::PeerAsn;
use patina_crds::net::Family;

use super::message::{Capabilities, Ends, Notification};
use super::rib::Table;

/// How the peer is configured; from [`patina_crds::config::Peer`], resolved for this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Our AS number towards this peer (`localASN` applied).
    pub asn: u32,
    /// What the peer's must be.
    pub peer_asn: PeerAsn,
    /// Our BGP Identifier.
    pub router_id: Ipv4Addr,
    /// What we offer; zero means none, else at least 3 s. Default 90 s.
    pub hold_time: Duration,
    /// `None`: a third of the negotiated hold time.
    pub keepalive_time: Option<Duration>,
    /// ConnectRetryTime; it grows while attempts fail, up to two minutes.
    pub connect_retry_time: Duration,
    /// Families that may go over the session.
    pub families: Vec<Family>,
    /// The session is unnumbered, or `dualStackAddressFamily`: RFC 8950 is offered.
    pub extended_next_hop: bool,
    /// RFC 4724: its restart time in seconds.
    pub graceful_restart: Option<u16>,
    /// We started while routes of an earlier life may stand in the peer (R bit).
    pub restarted: bool,
    /// BFD watches this peer.
    pub bfd: bool,
    /// The session comes up only when BFD is up (draft-ietf-idr-bgp-bfd-strict-mode).
    pub bfd_strict: bool,
    /// Never connects, only accepts.
    pub passive: bool,
    /// More received prefixes than this end the session (Cease 1, RFC 4486).
    pub max_prefixes: usize,
    /// Of the jitter.
    pub seed: u64,
}

/// The two connections that can exist at once (section 6.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// We connected.
    Ours,
    /// The peer connected.
    Theirs,
}

/// Something happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input<'a> {
    /// The operator wants the session: ManualStart (event 1).
    Start,
    /// The operator does not: ManualStop (event 2), and what to tell the peer.
    Stop(Stop),
    /// The connection that [`Output::Connect`] asked for is there (event 16), or the peer's was accepted (event 17).
    Connected(Side, Ends),
    /// A connection could not be made, or ended (event 18).
    Lost(Side, &'a str),
    /// Bytes that came.
    Bytes(Side, &'a [u8]),
    /// Every byte of [`Machine::poll_transmit`] so far has left for the kernel (RFC 9687: progress).
    Sent(Side),
    /// The peer should have these routes from now on.
    Want(Table),
    /// What BFD says of the peer.
    Bfd(Bfd),
    /// Drain: routes go out again with GRACEFUL_SHUTDOWN and LOCAL_PREF 0 (RFC 8326).
    Drain(bool),
}

/// What BFD says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bfd {
    /// Up.
    Up,
    /// It was up and is not any more.
    Down,
    /// The peer took its BFD session down on purpose (AdminDown): no reason to end ours (RFC 5882 section 4.2).
    AdminDown,
}

/// Why we stop; the NOTIFICATION's subcode of Cease (RFC 4486), and its text (RFC 9003).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The speaker restarts and keeps forwarding: with graceful restart the TCP connection is closed without a word
    /// (RFC 4724 section 4), without it as `Shutdown`.
    Restart,
    /// "Administrative Shutdown" (2).
    Shutdown(String),
    /// "Peer De-configured" (3).
    Deconfigured,
    /// "Other Configuration Change" (6); a new session follows.
    Changed,
}

/// What the driver must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Open a connection to the peer.
    Connect,
    /// Close this one once its bytes have left, at the latest after a second.
    Close(Side),
    /// To be logged, counted, shown.
    Event(Event),
}

/// For people, metrics and status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The state of the session changed.
    State(State),
    /// Established, with whom.
    Up(Box<Established>),
    /// No longer, and why.
    Down(Why),
    /// A message went out or came in, by type.
    Counted(Direction, MessageType),
    /// A survived error of the peer's (RFC 7606).
    Tolerated(String),
    /// Every wanted route of the family has been sent: End-of-RIB went out.
    InitialDone(Family),
}

/// Section 8.2.2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Nothing is wanted, or the next attempt waits.
    #[default]
    Idle,
    /// Waits for TCP.
    Connect,
    /// Listens, and waits for the next attempt.
    Active,
    /// Our OPEN is out.
    OpenSent,
    /// The peer's was good.
    OpenConfirm,
    /// Routes go.
    Established,
}

/// What was agreed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Established {
    /// Over which connection.
    pub side: Side,
    /// Its ends.
    pub ends: Ends,
    /// The peer's AS.
    pub asn: u32,
    /// The peer's BGP Identifier.
    pub router_id: Ipv4Addr,
    /// Negotiated: the smaller; zero means none.
    pub hold_time: Duration,
    /// What the peer can.
    pub theirs: Capabilities,
    /// What both can.
    pub negotiated: super::codec::Negotiated,
}

/// Why a session ended or did not come up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// We told the peer.
    Sent(Notification),
    /// The peer told us.
    Received(Notification),
    /// TCP, in the words of the driver.
    Connection(String),
    /// Ours was the connection that section 6.8 closes.
    Collision,
    /// BFD (RFC 9384, Cease 10).
    Bfd,
}

/// In or out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// From the peer.
    In,
    /// To the peer.
    Out,
}

/// Section 4.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // the names are the RFC's
pub enum MessageType {
    Open,
    Update,
    Notification,
    Keepalive,
    RouteRefresh,
}

/// For `kubectl patina bgp` and the status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Now.
    pub state: State,
    /// Routes that the peer has of us, by family.
    pub sent: BTreeMap<Family, usize>,
    /// Routes that are wanted and not sent yet.
    pub pending: usize,
    /// Prefixes that the peer has announced to us and not taken back, by family.
    pub received: BTreeMap<Family, usize>,
}

/// The machine.
#[derive(Debug)]
pub struct Machine {}

impl Machine {
    /// Idle until [`Input::Start`].
    #[must_use]
    pub fn new(_settings: Settings, _now: Instant) -> Self {
        Self {}
    }

    /// Something happened.
    pub fn handle(&mut self, _now: Instant, _input: Input<'_>) {}

    /// Time has come.
    pub fn handle_timeout(&mut self, _now: Instant) {}

    /// When [`Machine::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// What to do next; `None`: nothing.
    pub fn poll_output(&mut self) -> Option<Output> {
        None
    }

    /// Appends what is to be sent on this connection, about 64 KiB at a time. Called while the driver's own buffer is empty; nothing appended: nothing to send.
    pub fn poll_transmit(&mut self, _now: Instant, _side: Side, _out: &mut Vec<u8>) {}

    /// For people.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::default()
    }
}
