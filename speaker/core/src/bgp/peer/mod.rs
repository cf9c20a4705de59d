//! One peer: the finite state machine of RFC 4271 section 8 with both connections, its timers, graceful restart, and the
//! routes that go out.
//!
//! ```text
//! bytes ──> Machine: one codec::Reader per link ──> Message ──> fsm::Fsm ──> Message ──> codec::encode ──> bytes
//! ```
//!
//! The driver opens and closes what [`Output`] says, moves bytes, and calls at [`Machine::poll_timeout`]. It hands over bytes
//! that wait in a socket before it minds a deadline: a hold timer must not expire because we were busy.
//!
//! After each input and each deadline it takes all outputs, then what [`Machine::poll_transmit`] has for each link whose earlier
//! bytes have left, then the outputs again (what was sent is counted), and says [`Input::Sent`] when all has left.
//!
//! **Links.** Two connections can exist at once (RFC 4271 section 6.8), and a third one for the moment in which a restarted peer
//! connects anew (RFC 4724 section 4.2). So each has a number: ours are numbered by the machine in [`Output::Connect`], those of
//! the peer by the driver, which never uses a number twice. After [`Output::Close`] of a link the driver takes what
//! [`Machine::poll_transmit`] has for it once more (a NOTIFICATION), and may forget it: what it says of it later is ignored.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use patina_crds::config::PeerAsn;
use patina_crds::net::Family;

pub use self::machine::Machine;
use super::message::{Capabilities, Ends, Notification};
use super::rib::Table;

mod dress;
pub mod fsm;
mod machine;
pub mod settings;

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
    /// ConnectRetryTime: from a failed attempt to the next one. It doubles while attempts fail.
    pub connect_retry_time: Duration,
    /// Up to this; equal to `connect_retry_time`: it does not grow.
    pub connect_retry_max: Duration,
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
    /// More received prefixes, of all families, than this end the session (Cease 1, RFC 4486).
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

/// One connection to the peer, or an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Link {
    /// Who began it.
    pub side: Side,
    /// Counts the links of a side.
    pub number: u32,
}

/// Something happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input<'a> {
    /// The operator wants the session: ManualStart (event 1).
    Start,
    /// The operator does not: ManualStop (event 2), and what to tell the peer.
    Stop(Stop),
    /// The connection that [`Output::Connect`] asked for is there (event 16), or the peer's was accepted (event 17).
    Connected(Link, Ends),
    /// A connection could not be made, or ended (event 18).
    Lost(Link, &'a str),
    /// Bytes that came.
    Bytes(Link, &'a [u8]),
    /// Every byte of [`Machine::poll_transmit`] so far has left for the kernel (RFC 9687: progress).
    Sent(Link),
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
    Connect(Link),
    /// Close this one once its bytes have left, at the latest after a second; or give the attempt up.
    Close(Link),
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
    /// The session has no next hop for routes of the family: they stay home.
    NoNextHop(Family),
    /// A route that no message to this peer can carry; it was withdrawn in its place.
    Unsendable(String),
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
    pub link: Link,
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
    /// It was the connection that section 6.8 closes; we told the peer.
    Collision,
    /// BFD (RFC 9384, Cease 10).
    Bfd,
    /// The peer restarted and connected anew (RFC 4724 section 4.2).
    Replaced,
    /// We restart (RFC 4724): closed without a word.
    Restart,
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sent(notification) => write!(f, "we ended the session: {notification}"),
            Self::Received(notification) => write!(f, "the peer ended the session: {notification}"),
            Self::Connection(why) => write!(f, "TCP: {why}"),
            Self::Collision => f.write_str("the peer's other connection was kept"),
            Self::Bfd => f.write_str("BFD says that the peer is down"),
            Self::Replaced => f.write_str("the peer restarted and connected anew"),
            Self::Restart => f.write_str("this speaker restarts; the peer keeps the routes meanwhile"),
        }
    }
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

impl MessageType {
    /// On the wire (section 4.1; RFC 2918).
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Open => 1,
            Self::Update => 2,
            Self::Notification => 3,
            Self::Keepalive => 4,
            Self::RouteRefresh => 5,
        }
    }
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
