//! The sessions, and which of them a packet is for.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use patina_speaker_core::bfd::wire::Packet;
use patina_speaker_core::bfd::{Dropped, Machine, State, View};
use patina_speaker_core::bgp::peer::Bfd;
use ring::rand::{SecureRandom as _, SystemRandom};

use super::desired::{Key, Status, Wanted};
use super::echo::EchoTalker;
use super::listen::Door;
use super::metrics::PeerMetrics;
use super::sys::{self, Received};
use super::talker::Talker;

/// One session and what it is driven with.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) key: Key,
    pub(super) wanted: Wanted,
    pub(super) machine: Machine,
    /// The index of the key's interface.
    pub(super) interface: Option<u32>,
    /// The interface that the peer was last heard on; 0: not yet.
    pub(super) heard_on: u32,
    pub(super) talker: Option<Talker>,
    /// It did not send.
    pub(super) broken: bool,
    pub(super) echo: Option<EchoTalker>,
    pub(super) metrics: Arc<PeerMetrics>,
    /// What was last shown.
    pub(super) shown: View,
    pub(super) says: Option<Bfd>,
    pub(super) since: Instant,
    pub(super) downs: u64,
    /// Why it does not speak.
    pub(super) trouble: Option<String>,
    /// Nobody wants it any more; the peer is told.
    pub(super) leaving: bool,
}

/// Why a packet is for none of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotOurs {
    /// By RFC 5880 section 6.8.6.
    Dropped(Dropped),
    /// There is no session with this peer.
    Stranger,
}

/// All sessions, by bfd.LocalDiscr.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) sessions: BTreeMap<u32, Session>,
    pub(super) keys: BTreeMap<Key, u32>,
    /// By the peer's address, and whether it is far.
    sources: BTreeMap<(IpAddr, bool), Vec<u32>>,
}

impl Session {
    /// Opens what it speaks with; once more when that failed before, or when its interface is another than before.
    pub(super) fn open(&mut self, discriminator: u32, taken: &BTreeSet<u16>) {
        let result = self.try_open(discriminator, taken);
        let trouble = result.err().map(|error| format!("cannot send: {error}"));
        if trouble.is_some() && trouble != self.trouble {
            tracing::warn!(peer = %self.key, "bfd: {}", trouble.as_deref().unwrap_or_default());
        }
        self.trouble = trouble;
    }

    fn try_open(&mut self, discriminator: u32, taken: &BTreeSet<u16>) -> io::Result<()> {
        let interface = match &self.key.interface {
            Some(name) => match sys::index(name) {
                Ok(index) => Some(index),
                Err(error) => {
                    (self.talker, self.echo) = (None, None);
                    return Err(error);
                }
            },
            None => None,
        };
        if std::mem::take(&mut self.broken) || interface != self.interface {
            (self.talker, self.echo) = (None, None);
            self.interface = interface;
        }
        if self.talker.is_none() {
            self.talker = Some(Talker::open(&self.key, interface, taken, discriminator)?);
        }
        Ok(())
    }

    pub(super) fn status(&self, discriminator: u32, closed: &BTreeMap<Door, String>) -> Status {
        Status {
            view: self.shown,
            says: self.says,
            local_discriminator: discriminator,
            since: self.since,
            downs: self.downs,
            trouble: self.trouble.clone().or_else(|| closed.get(&Door::of(&self.key)).cloned()),
        }
    }

    /// The peer knows that we are down, or had the time to learn it.
    pub(super) fn has_left(&self, now: Instant) -> bool {
        let knows = !matches!(self.machine.view().remote, State::Up | State::Init);
        self.leaving && (knows || self.machine.known_down().is_none_or(|until| until <= now))
    }
}

impl Table {
    /// `make` gets the session's discriminator and a seed.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub(super) fn add(&mut self, key: Key, make: impl FnOnce(u32, u64) -> Session) -> io::Result<()> {
        // A discriminator that cannot be guessed: who sends one does see our packets.
        let discriminator = loop {
            let number = u32::from_be_bytes(random()?);
            if number != 0 && !self.sessions.contains_key(&number) {
                break number;
            }
        };
        let seed = u64::from_be_bytes(random()?);
        self.sources.entry((key.peer, key.multihop)).or_default().push(discriminator);
        self.keys.insert(key, discriminator);
        self.sessions.insert(discriminator, make(discriminator, seed));
        Ok(())
    }

    pub(super) fn remove(&mut self, discriminator: u32) {
        let Some(session) = self.sessions.remove(&discriminator) else { return };
        self.keys.remove(&session.key);
        let source = (session.key.peer, session.key.multihop);
        if let Some(there) = self.sources.get_mut(&source) {
            there.retain(|other| *other != discriminator);
            if there.is_empty() {
                self.sources.remove(&source);
            }
        }
    }

    /// RFC 5880 section 6.3, 6.8.6; RFC 5881 section 3, RFC 5883 section 4.
    ///
    /// # Errors
    /// It is for none.
    pub(super) fn find(&self, door: &Door, received: &Received, packet: &Packet) -> Result<u32, NotOurs> {
        if packet.your_discriminator != 0 {
            let ours = self.sessions.get(&packet.your_discriminator);
            return ours
                .filter(|session| session.key.multihop == door.multihop)
                .map(|_| packet.your_discriminator)
                .ok_or(NotOurs::Dropped(Dropped::YourDiscriminatorUnknown));
        }
        if !matches!(packet.state, State::Down | State::AdminDown) {
            return Err(NotOurs::Dropped(Dropped::YourDiscriminatorZero));
        }
        let from = received.from.ok_or(NotOurs::Stranger)?.ip();
        let there = self.sources.get(&(from, door.multihop)).ok_or(NotOurs::Stranger)?;
        let fits = |discriminator: &&u32| {
            self.sessions.get(discriminator).is_some_and(|session| {
                let key = &session.key;
                key.vrf == door.vrf
                    && (key.interface.is_none() || session.interface == Some(received.interface))
                    && (key.local.is_none() || key.local == received.to)
            })
        };
        there.iter().find(fits).copied().ok_or(NotOurs::Stranger)
    }

    pub(super) fn ports(&self) -> BTreeSet<u16> {
        let talkers = self.sessions.values().filter_map(|session| session.talker.as_ref());
        talkers.map(|talker| talker.local.port()).collect()
    }

    /// When the first of them wants to be woken.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.sessions.values().filter_map(|session| session.machine.poll_timeout()).min()
    }
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| io::Error::other("no random numbers"))?;
    Ok(bytes)
}
