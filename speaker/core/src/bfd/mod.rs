//! BFD (RFC 5880, 5881, 5883): whether a router still forwards, in milliseconds.
//!
//! A driver owns the sockets and one [`Machine`] per session; it stamps what it receives with the kernel's time.

use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Of one session; from [`patina_crds::config::BfdProfile`] with our defaults in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// bfd.DesiredMinTxInterval once the session is up.
    pub transmit_interval: Duration,
    /// bfd.RequiredMinRxInterval.
    pub receive_interval: Duration,
    /// bfd.DetectMult.
    pub detect_multiplier: u8,
    /// Required Min Echo RX Interval that we offer; and the interval of our own echo, where `echo_mode`.
    pub echo_interval: Duration,
    /// We send echo packets when the peer loops them back.
    pub echo_mode: bool,
    /// We say nothing until the peer has spoken (RFC 5880 section 6.1).
    pub passive: bool,
    /// Not a neighbour on the same link (RFC 5883).
    pub multihop: bool,
    /// Multihop: packets with a smaller TTL are dropped.
    pub minimum_ttl: u8,
    /// bfd.LocalDiscr; not zero, unique on this node.
    pub local_discriminator: u32,
    /// Of the jitter.
    pub seed: u64,
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
        /// The UDP payload.
        payload: &'a [u8],
        /// Of the IP header: 255 on a single hop (RFC 5881 section 5).
        ttl: u8,
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
        /// Why.
        diagnostic: Diagnostic,
        /// The peer's state, as it last said.
        remote: State,
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
}

/// One session.
#[derive(Debug)]
pub struct Machine {}

/// Which session a packet belongs to, before any is found by its discriminator: the packet's source.
pub type Source = IpAddr;

impl Machine {
    /// Down; speaks at once unless passive.
    #[must_use]
    pub fn new(_settings: Settings, _now: Instant) -> Self {
        Self {}
    }

    /// Something happened.
    ///
    /// # Errors
    /// A packet that does not count, and why.
    pub fn handle(&mut self, _now: Instant, _input: Input<'_>) -> Result<(), Dropped> {
        Ok(())
    }

    /// Time has come.
    pub fn handle_timeout(&mut self, _now: Instant) {}

    /// When [`Machine::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// What to do next.
    pub fn poll_output(&mut self) -> Option<Output> {
        None
    }
}
