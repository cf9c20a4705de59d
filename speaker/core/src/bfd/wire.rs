//! The control packet (RFC 5880 section 4.1).
//!
//! ```text
//!   0                   1                   2                   3
//!   0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//!  +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//!  |Vers |  Diag   |Sta|P|F|C|A|D|M|  Detect Mult  |    Length     |
//!  +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//!  |                       My Discriminator                        |
//!  |                      Your Discriminator                       |
//!  |                    Desired Min TX Interval                    |
//!  |                   Required Min RX Interval                    |
//!  |                 Required Min Echo RX Interval                 |
//!  +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```

use std::time::Duration;

use super::{Diagnostic, Dropped, State};

/// Without an authentication section.
pub const LENGTH: usize = 24;
/// The shortest with one: its type and its length.
const LENGTH_WITH_AUTHENTICATION: usize = 26;
const VERSION: u8 = 1;

const POLL: u8 = 0x20;
const FINAL: u8 = 0x10;
const CONTROL_PLANE_INDEPENDENT: u8 = 0x08;
const AUTHENTICATION: u8 = 0x04;
const DEMAND: u8 = 0x02;
const MULTIPOINT: u8 = 0x01;

/// What a packet says. Intervals are whole microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Why the sender's session last changed.
    pub diagnostic: Diagnostic,
    /// The sender's state.
    pub state: State,
    /// P: the sender asks for an answer at once.
    pub poll: bool,
    /// F: this is the answer.
    pub final_: bool,
    /// C: BFD does not share fate with the sender's control plane.
    pub control_plane_independent: bool,
    /// A: there is an authentication section.
    pub authenticated: bool,
    /// D: the sender wants no periodic packets while both are up.
    pub demand: bool,
    /// Never zero in what was received.
    pub detect_multiplier: u8,
    /// The sender's; never zero in what was received.
    pub my_discriminator: u32,
    /// The receiver's; zero: the sender does not know it.
    pub your_discriminator: u32,
    /// How often the sender would like to send.
    pub desired_min_tx: Duration,
    /// How often it can receive; zero: it wants no periodic packets.
    pub required_min_rx: Duration,
    /// How often it can loop echo packets back; zero: it cannot.
    pub required_min_echo_rx: Duration,
}

impl Packet {
    /// The checks of section 6.8.6 that need no session, in its order. Bytes behind the packet are no part of it.
    ///
    /// # Errors
    /// Which of them it failed.
    pub fn parse(payload: &[u8]) -> Result<Self, Dropped> {
        // "If the version number is not correct (1), the packet MUST be discarded."
        let first = *payload.first().ok_or(Dropped::Length)?;
        if first >> 5 != VERSION {
            return Err(Dropped::Version);
        }
        let Some(([_, flags, detect_multiplier, length], words)) = payload.split_first_chunk::<4>() else {
            return Err(Dropped::Length);
        };
        // "If the Length field is less than the minimum correct value (24 if the A bit is clear, or 26 if the A bit is
        // set), the packet MUST be discarded."
        let authenticated = flags & AUTHENTICATION != 0;
        let least = if authenticated { LENGTH_WITH_AUTHENTICATION } else { LENGTH };
        // "If the Length field is greater than the payload of the encapsulating protocol, the packet MUST be discarded."
        if !(least..=payload.len()).contains(&usize::from(*length)) {
            return Err(Dropped::Length);
        }
        // "If the Detect Mult field is zero, the packet MUST be discarded."
        if *detect_multiplier == 0 {
            return Err(Dropped::DetectMultiplierZero);
        }
        // "If the Multipoint (M) bit is nonzero, the packet MUST be discarded."
        if flags & MULTIPOINT != 0 {
            return Err(Dropped::Multipoint);
        }
        let (words, _) = words.as_chunks::<4>();
        let &[mine, yours, tx, rx, echo, ..] = words else { return Err(Dropped::Length) };
        // "If the My Discriminator field is zero, the packet MUST be discarded."
        let my_discriminator = u32::from_be_bytes(mine);
        if my_discriminator == 0 {
            return Err(Dropped::MyDiscriminatorZero);
        }
        Ok(Self {
            diagnostic: Diagnostic::of_code(first & 0x1f),
            state: State::of_code(flags >> 6),
            poll: flags & POLL != 0,
            final_: flags & FINAL != 0,
            control_plane_independent: flags & CONTROL_PLANE_INDEPENDENT != 0,
            authenticated,
            demand: flags & DEMAND != 0,
            detect_multiplier: *detect_multiplier,
            my_discriminator,
            your_discriminator: u32::from_be_bytes(yours),
            desired_min_tx: interval(tx),
            required_min_rx: interval(rx),
            required_min_echo_rx: interval(echo),
        })
    }

    /// The bytes; without an authentication section, whatever `authenticated` says.
    #[must_use]
    pub fn emit(&self) -> [u8; LENGTH] {
        let mut flags = self.state.code() << 6;
        for (is_set, bit) in [
            (self.poll, POLL),
            (self.final_, FINAL),
            (self.control_plane_independent, CONTROL_PLANE_INDEPENDENT),
            (self.demand, DEMAND),
        ] {
            flags |= if is_set { bit } else { 0 };
        }
        let mut bytes = [0; LENGTH];
        let words = [
            [VERSION << 5 | self.diagnostic.code(), flags, self.detect_multiplier, LENGTH as u8],
            self.my_discriminator.to_be_bytes(),
            self.your_discriminator.to_be_bytes(),
            microseconds(self.desired_min_tx),
            microseconds(self.required_min_rx),
            microseconds(self.required_min_echo_rx),
        ];
        for (to, word) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(words) {
            *to = word;
        }
        bytes
    }
}

fn interval(bytes: [u8; 4]) -> Duration {
    Duration::from_micros(u32::from_be_bytes(bytes).into())
}

/// More than the field holds, 71 minutes, is as much as it holds.
fn microseconds(interval: Duration) -> [u8; 4] {
    u32::try_from(interval.as_micros()).unwrap_or(u32::MAX).to_be_bytes()
}

impl State {
    fn of_code(code: u8) -> Self {
        match code {
            0 => Self::AdminDown,
            1 => Self::Down,
            2 => Self::Init,
            _ => Self::Up,
        }
    }

    fn code(self) -> u8 {
        match self {
            Self::AdminDown => 0,
            Self::Down => 1,
            Self::Init => 2,
            Self::Up => 3,
        }
    }
}

impl Diagnostic {
    fn of_code(code: u8) -> Self {
        match code {
            0 => Self::None,
            1 => Self::ControlDetectionTimeExpired,
            2 => Self::EchoFailed,
            3 => Self::NeighborSignaledDown,
            4 => Self::ForwardingPlaneReset,
            5 => Self::PathDown,
            6 => Self::ConcatenatedPathDown,
            7 => Self::AdministrativelyDown,
            8 => Self::ReverseConcatenatedPathDown,
            other => Self::Other(other),
        }
    }

    fn code(self) -> u8 {
        match self {
            Self::None => 0,
            Self::ControlDetectionTimeExpired => 1,
            Self::EchoFailed => 2,
            Self::NeighborSignaledDown => 3,
            Self::ForwardingPlaneReset => 4,
            Self::PathDown => 5,
            Self::ConcatenatedPathDown => 6,
            Self::AdministrativelyDown => 7,
            Self::ReverseConcatenatedPathDown => 8,
            Self::Other(other) => other & 0x1f,
        }
    }
}
