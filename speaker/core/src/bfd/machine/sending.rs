//! When which packet goes out: intervals and who is told of them (section 6.8.3), Poll Sequences (6.5), and the rules of
//! transmission (6.8.7).

use std::time::{Duration, Instant};

use rand::RngExt as _;

use super::super::echo::Echo;
use super::super::wire::Packet;
use super::super::{Output, State};
use super::{Machine, SLOW};

/// Answers to Poll that go out at once, and how often one more may. Section 6.8.7 allows a limit if "the advertised value
/// of Desired Min TX Interval \[is\] greater than or equal to the interval between transmitted packets imposed by the rate
/// limiting function": 10 ms is the least that a BFDProfile allows.
const FINALS: u32 = 16;
const FINAL_EVERY: Duration = Duration::from_millis(5);

/// One of our two intervals.
#[derive(Clone, Copy, Debug)]
pub(super) struct Interval {
    /// In our packets.
    pub(super) said: Duration,
    /// What we count with.
    pub(super) used: Duration,
}

impl Interval {
    pub(super) fn new(interval: Duration) -> Self {
        Self { said: interval, used: interval }
    }
}

/// Section 6.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Poll {
    /// None.
    Idle,
    /// Our packets have the Poll bit until one with Final comes.
    Asking,
    /// It was answered. Section 6.8.3: "an additional BFD Control packet with the Final (F) bit *clear* MUST be received
    /// after the Poll Sequence has completed prior to the initiation of another".
    Settling,
}

/// The last packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spoken {
    at: Instant,
    /// Without Poll and Final.
    packet: Packet,
    /// Of the interval until the next: thousandths.
    jitter: u32,
    /// It asked.
    asked: bool,
}

/// How many more answers to Poll may go out at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Finals {
    left: u32,
    since: Instant,
}

impl Finals {
    pub(super) fn new(now: Instant) -> Self {
        Self { left: FINALS, since: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let more = now.saturating_duration_since(self.since).as_nanos() / FINAL_EVERY.as_nanos();
        if more > 0 {
            self.left = self.left.saturating_add(u32::try_from(more).unwrap_or(FINALS)).min(FINALS);
            self.since = now;
        }
        let taken = self.left.checked_sub(1);
        self.left = taken.unwrap_or(0);
        taken.is_some()
    }
}

impl Machine {
    /// After whatever happened: values that depend on others, and the packet that tells of them.
    pub(super) fn follow(&mut self, now: Instant) {
        self.follow_values(now);
        let Some(last) = self.spoken.filter(|_| self.may_speak()) else {
            if self.may_speak() {
                self.speak(now);
            }
            return;
        };
        // Section 6.8.7: "A BFD Control packet SHOULD be transmitted during the interval between periodic Control packet
        // transmissions when the contents of that packet would differ from that in the previously transmitted packet
        // (other than the Poll and Final bits) in order to more rapidly communicate a change in state." And a Poll
        // Sequence begins at once.
        let begins = self.poll == Poll::Asking && !last.asked;
        if begins || last.packet != self.packet(false, false) {
            self.speak(now);
        }
    }

    pub(super) fn follow_values(&mut self, now: Instant) {
        self.follow_echo(now);
        self.follow_intervals();
    }

    /// Section 6.8.9: "BFD Echo packets MUST NOT be transmitted when bfd.SessionState is not Up. BFD Echo packets MUST NOT be
    /// transmitted unless the last BFD Control packet received from the remote system contains a nonzero value in Required
    /// Min Echo RX Interval." RFC 5883 has no echo over several hops.
    fn follow_echo(&mut self, now: Instant) {
        let wanted = self.settings.echo_mode
            && !self.settings.multihop
            && self.state == State::Up
            && !self.remote.required_min_echo_rx.is_zero();
        if !wanted {
            self.echo = None;
        } else if self.echo.is_none() {
            self.echo = Some(Echo::new(now));
        }
    }

    /// Section 6.8.3.
    fn follow_intervals(&mut self) {
        let up = self.state == State::Up;
        let tx = self.settings.transmit_interval.max(if up { Duration::ZERO } else { SLOW });
        // "When the Echo function is active, a system SHOULD set bfd.RequiredMinRxInterval to a value of not less than one
        // second". It is active once we have seen that the peer does loop.
        let echo = self.echo.as_ref().is_some_and(|echo| echo.proven);
        let rx = self.settings.receive_interval.max(if echo { SLOW } else { Duration::ZERO });
        if !up {
            // "In any case other than those explicitly called out above, timing parameter changes MUST be effected
            // immediately".
            (self.tx.used, self.rx.used) = (tx, rx);
        }
        // "if multiple changes are made that require the use of a Poll Sequence [...]": one after the other.
        if (tx, rx) == (self.tx.said, self.rx.said) || (up && self.poll != Poll::Idle) {
            return;
        }
        (self.tx.said, self.rx.said) = (tx, rx);
        // "If bfd.DesiredMinTxInterval is increased and bfd.SessionState is Up, the actual transmission interval used MUST NOT
        // change until the Poll Sequence described above has terminated."
        self.tx.used = self.tx.used.min(tx);
        // "If bfd.RequiredMinRxInterval is reduced and bfd.SessionState is Up, the previous value of
        // bfd.RequiredMinRxInterval MUST be used when calculating the Detection Time for the remote system until the Poll
        // Sequence described above has terminated."
        self.rx.used = self.rx.used.max(rx);
        // "If either bfd.DesiredMinTxInterval is changed or bfd.RequiredMinRxInterval is changed, a Poll Sequence MUST be
        // initiated". Where nobody is heard nobody can answer, and whoever comes reads the new values.
        if self.heard.is_some() {
            self.poll = Poll::Asking;
        }
    }

    /// A packet came, with Final or without.
    pub(super) fn mind_poll(&mut self, final_: bool) {
        match self.poll {
            // "If a Poll Sequence is being transmitted by the local system and the Final (F) bit in the received packet is
            // set, the Poll Sequence MUST be terminated."
            Poll::Asking if final_ => {
                (self.tx.used, self.rx.used) = (self.tx.said, self.rx.said);
                self.poll = Poll::Settling;
            }
            Poll::Settling if !final_ => self.poll = Poll::Idle,
            Poll::Idle | Poll::Asking | Poll::Settling => {}
        }
    }

    /// Section 6.8.7: "as soon as practicable, without respect to the transmission timer or any other transmission
    /// limitations".
    pub(super) fn answer_poll(&mut self, now: Instant) {
        if !self.finals.take(now) {
            return;
        }
        self.outputs.push_back(Output::Send(self.packet(false, true).emit().to_vec()));
        let packet = self.packet(false, false);
        if let Some(spoken) = &mut self.spoken {
            spoken.packet = packet;
        }
    }

    /// The periodic packet and the echo packet.
    pub(super) fn send_what_is_due(&mut self, now: Instant) {
        if self.next_packet().is_some_and(|next| next <= now) {
            self.speak(now);
        }
        let pause = self.jittered(self.echo_interval());
        if let Some(echo) = self.echo.as_mut().filter(|echo| echo.next <= now) {
            let packet = echo.send(now, self.local_discriminator, &mut self.random);
            echo.next = now + pause;
            self.outputs.push_back(Output::Echo(packet));
        }
    }

    /// When the next periodic packet is due.
    pub(super) fn next_packet(&self) -> Option<Instant> {
        let spoken = self.spoken.filter(|_| self.may_speak())?;
        Some(spoken.at + self.transmit_interval() * spoken.jitter / 1000)
    }

    /// "equal to the greater of" bfd.DesiredMinTxInterval and bfd.RemoteMinRxInterval.
    pub(super) fn transmit_interval(&self) -> Duration {
        self.tx.used.max(self.remote.required_min_rx)
    }

    fn may_speak(&self) -> bool {
        // "A system MUST NOT transmit BFD Control packets if bfd.RemoteDiscr is zero and the system is taking the Passive
        // role."
        let waits = self.settings.passive && self.remote.discriminator == 0;
        // "A system MUST NOT periodically transmit BFD Control packets if bfd.RemoteMinRxInterval is zero."
        let unwanted = self.remote.required_min_rx.is_zero();
        // "A system MUST NOT periodically transmit BFD Control packets if Demand mode is active on the remote system
        // (bfd.RemoteDemandMode is 1, bfd.SessionState is Up, and bfd.RemoteSessionState is Up) and a Poll Sequence is not
        // being transmitted."
        let demand = self.remote.demand
            && self.state == State::Up
            && self.remote.state == State::Up
            && self.poll != Poll::Asking;
        !waits && !unwanted && !demand
    }

    fn speak(&mut self, now: Instant) {
        let asks = self.poll == Poll::Asking;
        self.outputs.push_back(Output::Send(self.packet(asks, false).emit().to_vec()));
        let jitter = self.jitter();
        self.spoken = Some(Spoken { at: now, packet: self.packet(false, false), jitter, asked: asks });
    }

    /// "The periodic transmission of BFD Control packets MUST be jittered on a per-packet basis by up to 25%". "If
    /// bfd.DetectMult is equal to 1, the interval between transmitted BFD Control packets MUST be no more than 90% of the
    /// negotiated transmission interval, and MUST be no less than 75%".
    fn jitter(&mut self) -> u32 {
        let most = if self.settings.detect_multiplier == 1 { 900 } else { 1000 };
        self.random.random_range(750..=most)
    }

    /// Section 6.8.9: "A 25% jitter MAY be applied to the rate of transmission".
    fn jittered(&mut self, interval: Duration) -> Duration {
        interval * self.random.random_range(750..=1000) / 1000
    }
}
