//! A control packet: section 6.8.6, in its order, from where a session is known.

use std::time::Instant;

use super::super::wire::Packet;
use super::super::{Diagnostic, Dropped, State};
use super::{Machine, Remote};

impl Machine {
    pub(super) fn received(
        &mut self,
        now: Instant,
        at: Instant,
        packet: &Packet,
        ttl: u8,
    ) -> Result<(), Dropped> {
        // RFC 5881 section 5: "If BFD authentication is not in use on a session, all BFD Control packets for the session
        // MUST be sent with a Time to Live (TTL) or Hop Limit value of 255. All received BFD Control packets that are
        // demultiplexed to the session MUST be discarded if the received TTL or Hop Limit is not equal to 255."
        let least = if self.settings.multihop { self.settings.minimum_ttl } else { u8::MAX };
        if ttl < least {
            return Err(Dropped::TimeToLive);
        }
        if packet.your_discriminator == 0 {
            // "If the Your Discriminator field is zero and the State field is not Down or AdminDown, the packet MUST be
            // discarded."
            if !matches!(packet.state, State::Down | State::AdminDown) {
                return Err(Dropped::YourDiscriminatorZero);
            }
        } else if packet.your_discriminator != self.local_discriminator {
            // "If the Your Discriminator field is nonzero, it MUST be used to select the session with which this BFD packet
            // is associated. If no session is found, the packet MUST be discarded."
            return Err(Dropped::YourDiscriminatorUnknown);
        }
        // "If the A bit is set and no authentication is in use (bfd.AuthType is zero), the packet MUST be discarded."
        if packet.authenticated {
            return Err(Dropped::Authentication);
        }
        self.remote = Remote {
            discriminator: packet.my_discriminator,
            state: packet.state,
            diagnostic: packet.diagnostic,
            demand: packet.demand,
            detect_multiplier: packet.detect_multiplier,
            desired_min_tx: packet.desired_min_tx,
            required_min_rx: packet.required_min_rx,
            required_min_echo_rx: packet.required_min_echo_rx,
        };
        self.heard = self.heard.max(Some(at));
        self.mind_poll(packet.final_);
        // "If bfd.SessionState is AdminDown [...] discard the packet".
        if self.state == State::AdminDown {
            return Err(Dropped::AdminDown);
        }
        self.step(packet.state);
        self.follow_values(now);
        // "If the Poll (P) bit is set, send a BFD Control packet to the remote system with the Poll (P) bit clear, and the
        // Final (F) bit set".
        if packet.poll {
            self.answer_poll(now);
        }
        Ok(())
    }

    /// The state machine of section 6.2, as section 6.8.6 writes it down.
    fn step(&mut self, remote: State) {
        let signaled = Diagnostic::NeighborSignaledDown;
        match (self.state, remote) {
            (State::Init | State::Up, State::AdminDown) | (State::Up, State::Down) => {
                self.enter(State::Down, signaled);
            }
            (State::Down, State::Down) => self.enter(State::Init, Diagnostic::None),
            (State::Down, State::Init) | (State::Init, State::Init | State::Up) => {
                self.enter(State::Up, Diagnostic::None);
            }
            // Section 6.2: "Down state [...] is waiting for Down or Init": a peer that takes us to be up has to hear
            // that we are not; one in AdminDown holds us down.
            (State::Down, State::Up | State::AdminDown)
            | (State::Init, State::Down)
            | (State::Up, State::Init | State::Up)
            | (State::AdminDown, _) => {}
        }
    }
}
