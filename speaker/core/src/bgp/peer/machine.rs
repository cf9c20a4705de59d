//! The machine over bytes: a codec around the machine over messages.

use std::collections::BTreeMap;
use std::time::Instant;

use super::fsm::{Fsm, Happening};
use super::{Input, Link, Output, Settings, Snapshot};
use crate::bgp::codec::{Negotiated, Reader, encode};

/// How much one [`Machine::poll_transmit`] appends: it stops after the message that reaches this.
const TRANSMIT: usize = 64 * 1024;

/// One peer.
#[derive(Debug)]
pub struct Machine {
    fsm: Fsm,
    readers: BTreeMap<Link, Reader>,
    /// Before the OPENs nothing is agreed.
    nothing: Negotiated,
}

impl Machine {
    /// Idle until [`Input::Start`].
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { fsm: Fsm::new(settings), readers: BTreeMap::new(), nothing: Negotiated::default() }
    }

    /// Something happened.
    pub fn handle(&mut self, now: Instant, input: Input<'_>) {
        match input {
            Input::Bytes(link, bytes) => self.read(now, link, bytes),
            Input::Start => self.fsm.handle(now, Happening::Start),
            Input::Stop(stop) => self.fsm.handle(now, Happening::Stop(stop)),
            Input::Connected(link, ends) => self.fsm.handle(now, Happening::Connected(link, ends)),
            Input::Lost(link, why) => self.fsm.handle(now, Happening::Lost(link, why.to_owned())),
            Input::Sent(link) => self.fsm.handle(now, Happening::Sent(link)),
            Input::Want(table) => self.fsm.handle(now, Happening::Want(table)),
            Input::Bfd(bfd) => self.fsm.handle(now, Happening::Bfd(bfd)),
            Input::Drain(drain) => self.fsm.handle(now, Happening::Drain(drain)),
        }
        self.readers.retain(|link, _| self.fsm.listens(*link));
    }

    /// Time has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.fsm.handle_timeout(now);
        self.readers.retain(|link, _| self.fsm.listens(*link));
    }

    /// When [`Machine::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.fsm.poll_timeout()
    }

    /// What to do next; `None`: nothing.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.fsm.poll_output()
    }

    /// Appends what is to be sent on this connection, about 64 KiB at a time. Called while the driver's own buffer is empty;
    /// nothing appended: nothing to send.
    pub fn poll_transmit(&mut self, now: Instant, link: Link, out: &mut Vec<u8>) {
        let start = out.len();
        while out.len().saturating_sub(start) < TRANSMIT {
            let Some(message) = self.fsm.poll_message(now, link) else { break };
            let negotiated = self.fsm.negotiated(link).unwrap_or(&self.nothing);
            if let Err(why) = encode(&message, negotiated, out) {
                self.fsm.unsendable(why.to_string());
            }
        }
    }

    /// For people.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.fsm.snapshot()
    }

    fn read(&mut self, now: Instant, link: Link, bytes: &[u8]) {
        if !self.fsm.listens(link) {
            return;
        }
        self.readers.entry(link).or_default().feed(bytes);
        // What is agreed changes between two messages of one read: after the OPEN.
        while self.fsm.listens(link) {
            let negotiated = self.fsm.negotiated(link).unwrap_or(&self.nothing);
            let Some(reader) = self.readers.get_mut(&link) else { return };
            match reader.next(negotiated) {
                Ok(Some(message)) => self.fsm.handle(now, Happening::Message(link, message)),
                Ok(None) => return,
                Err(notification) => self.fsm.handle(now, Happening::Malformed(link, notification)),
            }
        }
        self.readers.remove(&link);
    }
}
