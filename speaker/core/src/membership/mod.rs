//! Who is alive, and what each speaker says of itself.
//!
//! ```text
//!  datagram ──> Envelope::open ──> Membership::handle(Received) ──> who is up, who is down, and why
//!  datagram <── Envelope::seal <── Membership::poll_output (Send)
//!                                     │ gossip    foca (SWIM): the list, its spread, joins, the slow net under everything
//!                                     │ liveness  heartbeats to a few watchers on a ring of names: death within 300 ms
//!                                     │ segments do we reach the others where VIPs are, and not only where the messages go?
//!                                     │ news      what a speaker says of itself, to everybody at once, until acknowledged
//!                                     └ fence     a speaker that stalled answers nothing until it has heard from the others
//! ```
//!
//! Two sans-IO machines: [`Membership`] knows nothing of keys, [`envelope::Envelope`] nothing of members.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::view::{Member, Members};

pub mod envelope;
mod fallen;
mod gossip;
mod machine;
mod outbox;
mod places;
mod ring;
mod roster;
mod segments;
mod wire;

pub use self::segments::{Further, contains, further};

/// What can be set.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of our node.
    pub node: String,
    /// Where we receive, one per family, the preferred one first. Others learn it from us.
    pub addresses: Vec<SocketAddr>,
    /// Between heartbeats to a watcher.
    pub heartbeat: Duration,
    /// A watched speaker that was silent for this long, to us and to all whom we asked, is dead. More than 200 ms.
    pub detect: Duration,
    /// How many watch each speaker.
    pub watchers: usize,
    /// `fencing: quorum`: a minority of the speakers that are known answers nothing.
    pub quorum: bool,
    /// Makes two starts of one node different; from the clock, so that a later one usually has a greater number.
    pub incarnation: u64,
    /// Of the random choices within.
    pub seed: u64,
}

/// Something happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A message came, opened by the envelope.
    Received {
        /// Where from.
        from: SocketAddr,
        /// Its bytes; parsed here, totally.
        message: Vec<u8>,
    },
    /// Where speakers are said to be (the API server's list of Pods, without us): whom to join. A stale list is harmless.
    Peers(BTreeSet<SocketAddr>),
    /// What we say of ourselves from now on. Told to everybody at once.
    Say(Member),
    /// Further addresses of our interfaces at which we receive ([`further`] says which to choose), at the port of the membership;
    /// what is sent into their subnets goes out from them. Speakers ask each other there whether their segments are whole.
    /// What is not named here is not asked, and the others do not hear of it.
    Listen(BTreeSet<IpAddr>),
    /// A frame on the wire shows that this node lives: ask it, if it is taken to be dead.
    Hint {
        /// Its name.
        node: String,
    },
    /// We end. Everybody is told; afterwards nothing is sent any more.
    Leave,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Seal and send.
    Send {
        /// Where to.
        to: SocketAddr,
        /// The plain message.
        message: Vec<u8>,
    },
    /// News about another speaker; [`Membership::state`] says it already.
    Event(Event),
}

/// What became of a speaker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It is there. Also after it was restarted so fast that nobody missed it.
    Up {
        /// Its node.
        node: String,
    },
    /// It is not there any more.
    Down {
        /// Its node.
        node: String,
        /// Why we think so.
        cause: Down,
    },
    /// It says something new of itself.
    Said {
        /// Its node.
        node: String,
    },
    /// It answered a question after this time: the round trip.
    Answered {
        /// How long it took.
        after: Duration,
    },
    /// We stalled, or are in a minority under `quorum`: answer nothing. [`Membership::answer_until`] says it too.
    Fenced,
    /// The others know us: answer again.
    Unfenced,
    /// The first round is through: whoever was there has answered, or did not within a second.
    Joined,
}

/// Why a speaker is taken to be dead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Down {
    /// It was silent for this long, to us.
    Silent(Duration),
    /// Another speaker says so.
    Reported {
        /// Which; empty: by the gossip of several.
        by: String,
    },
    /// It said farewell.
    Left,
}

/// A snapshot for the shell, cheap to share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The live speakers, this one included.
    pub members: Arc<Members>,
    /// MAC addresses of all speakers ever heard of, the dead ones too, and the nodes they belong to. Not our own.
    pub stations: Arc<BTreeMap<[u8; 6], Arc<str>>>,
    /// Those that went down and did not come back, with the last cause (the most recent hundred).
    pub down: Arc<BTreeMap<String, Down>>,
    /// The first round is through.
    pub joined: bool,
    /// Answer nothing.
    pub fenced: bool,
}

impl Default for Down {
    fn default() -> Self {
        Self::Reported { by: String::new() }
    }
}

/// The machine.
#[derive(Debug)]
pub struct Membership {
    machine: machine::Machine,
}

impl Membership {
    /// One that knows nobody yet.
    #[must_use]
    pub fn new(now: Instant, settings: Settings) -> Self {
        Self { machine: machine::Machine::new(now, settings) }
    }

    /// Something happened at `now`. A call that comes late counts as a stall, before the input is looked at.
    pub fn handle(&mut self, now: Instant, input: Input) {
        self.machine.handle(now, input);
    }

    /// The deadline has passed. Late and repeated calls do no harm (a late one may fence).
    pub fn handle_timeout(&mut self, now: Instant) {
        self.machine.handle_timeout(now);
    }

    /// When to call [`Membership::handle_timeout`] next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.machine.poll_timeout()
    }

    /// The next thing to do; poll until there is none.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.machine.poll_output()
    }

    /// What is known now; the `Arc`s change only when what is in them does.
    #[must_use]
    pub fn state(&self) -> State {
        self.machine.state()
    }

    /// The names of the live speakers, this one included, in no order: what [`Membership::state`] says, without a copy.
    pub fn alive(&self) -> impl ExactSizeIterator<Item = &str> {
        self.machine.alive()
    }

    /// The lease: frames may be answered until then, unless it is prolonged. `None`: nothing may be answered. The driver
    /// copies it to where the wire looks before each frame, so that a process that was stopped and woken is silent before
    /// any of its threads has run.
    #[must_use]
    pub fn answer_until(&self) -> Option<Instant> {
        self.machine.answer_until()
    }
}
