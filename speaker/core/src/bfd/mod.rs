//! BFD (RFC 5880, 5881, 5883): whether a router still forwards, in milliseconds.
//!
//! A driver owns the sockets and one [`Machine`] per session; it stamps what it receives with the kernel's time.
//!
//! ```text
//!  UDP 3784/4784 ──> wire::Packet::parse ──┐
//!  UDP 3785, what the peer sent back ──────┼──> Machine ──> control packets, echo packets, State
//!  the driver's clock ─────────────────────┘
//! ```
//!
//! Asynchronous mode, both roles, Poll Sequences, the echo function; Demand mode is honoured and never asked for. A
//! BFDProfile holds no keys, so a packet with an authentication section is dropped, as section 6.8.6 has it where none is in
//! use. Whom this talks to decides how fast it talks: all intervals are agreed on.

mod echo;
mod machine;
pub mod wire;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use patina_crds::config::BfdProfile;

pub use echo::discriminator as echo_discriminator;
pub use machine::{Machine, View};

/// Of one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// bfd.DesiredMinTxInterval once the session is up.
    pub transmit_interval: Duration,
    /// bfd.RequiredMinRxInterval.
    pub receive_interval: Duration,
    /// bfd.DetectMult.
    pub detect_multiplier: u8,
    /// Required Min Echo RX Interval that we offer, and the interval of our own echo, where `echo_mode`.
    pub echo_interval: Duration,
    /// We send echo packets when the peer loops them back, and offer the same.
    pub echo_mode: bool,
    /// What the peer sends to its own address through us comes back to it: this node forwards. Else we offer no echo,
    /// whatever `echo_mode` says.
    pub loops_echo: bool,
    /// We say nothing until the peer has spoken (RFC 5880 section 6.1).
    pub passive: bool,
    /// Not a neighbour on the same link (RFC 5883).
    pub multihop: bool,
    /// Multihop: packets with a smaller TTL are dropped.
    pub minimum_ttl: u8,
}

impl Settings {
    /// What a profile says, and our defaults where it does not: 300 ms each way, three packets; echo 50 ms; a TTL of 254.
    #[must_use]
    pub fn new(profile: &BfdProfile, multihop: bool) -> Self {
        Self {
            transmit_interval: profile.transmit_interval.unwrap_or(Duration::from_millis(300)),
            receive_interval: profile.receive_interval.unwrap_or(Duration::from_millis(300)),
            detect_multiplier: profile.detect_multiplier.unwrap_or(3),
            echo_interval: profile.echo_interval.unwrap_or(Duration::from_millis(50)),
            echo_mode: profile.echo_mode,
            loops_echo: false,
            passive: profile.passive_mode,
            multihop,
            minimum_ttl: profile.minimum_ttl.unwrap_or(254),
        }
    }
}

/// RFC 5880 section 4.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // the names are the RFC's
pub enum State {
    AdminDown,
    #[default]
    Down,
    Init,
    Up,
}

/// Something happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input<'a> {
    /// A control packet that the driver matched to this session.
    Received {
        /// What the UDP payload says.
        packet: wire::Packet,
        /// Of the IP header: 255 on a single hop (RFC 5881 section 5).
        ttl: u8,
        /// When it arrived, which may have been a while ago: it waited in the socket.
        at: Instant,
    },
    /// One of our own echo packets came back.
    Echo(&'a [u8]),
    /// The operator takes the session down (AdminDown), or up again.
    AdminDown(bool),
    /// Other intervals; by Poll Sequence (section 6.5).
    Configure(Box<Settings>),
}

/// What the driver must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this control packet, TTL 255.
    Send(Vec<u8>),
    /// Send this echo packet to UDP 3785, addressed to ourselves through the peer (RFC 5881 section 4).
    Echo(Vec<u8>),
    /// The state changed.
    State {
        /// From.
        from: State,
        /// To.
        to: State,
        /// Why; `None` on the way up.
        diagnostic: Diagnostic,
        /// The peer's state, as it last said.
        remote: State,
        /// Why the peer last went down, as it last said.
        remote_diagnostic: Diagnostic,
    },
}

/// RFC 5880 section 4.1, `Diag`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // the names are the RFC's
pub enum Diagnostic {
    #[default]
    None,
    ControlDetectionTimeExpired,
    EchoFailed,
    NeighborSignaledDown,
    ForwardingPlaneReset,
    PathDown,
    ConcatenatedPathDown,
    AdministrativelyDown,
    ReverseConcatenatedPathDown,
    Other(u8),
}

/// Why a packet was dropped (section 6.8.6, in its order).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // says itself
pub enum Dropped {
    TimeToLive,
    Version,
    Length,
    DetectMultiplierZero,
    Multipoint,
    MyDiscriminatorZero,
    YourDiscriminatorUnknown,
    YourDiscriminatorZero,
    Authentication,
    AdminDown,
    /// An echo packet that is not one of ours, or came back before.
    Echo,
}

impl Dropped {
    /// All there are.
    pub const ALL: [Self; 11] = [
        Self::TimeToLive,
        Self::Version,
        Self::Length,
        Self::DetectMultiplierZero,
        Self::Multipoint,
        Self::MyDiscriminatorZero,
        Self::YourDiscriminatorUnknown,
        Self::YourDiscriminatorZero,
        Self::Authentication,
        Self::AdminDown,
        Self::Echo,
    ];

    /// One word, for a metric.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::TimeToLive => "timeToLive",
            Self::Version => "version",
            Self::Length => "length",
            Self::DetectMultiplierZero => "detectMultiplierZero",
            Self::Multipoint => "multipoint",
            Self::MyDiscriminatorZero => "myDiscriminatorZero",
            Self::YourDiscriminatorUnknown => "yourDiscriminatorUnknown",
            Self::YourDiscriminatorZero => "yourDiscriminatorZero",
            Self::Authentication => "authentication",
            Self::AdminDown => "adminDown",
            Self::Echo => "echo",
        }
    }
}

/// Which session a packet belongs to, before any is found by its discriminator: the packet's source.
pub type Source = IpAddr;
