//! The sockets, one for each protocol on each interface that has something to do, and their kernel filters.
//!
//! A filter is made of the addresses of its interface, whatever is to be done for them, so that a takeover changes none.
//! When there are more addresses the filter has to be wide enough before the first frame about a new one: a program
//! that lets all of the protocol through costs nothing to make. The exact one follows at once, or after a rest, when
//! the last one took its time: a rollout of ten thousand Services does not become ten thousand programs.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use patina_crds::net::Family;
use patina_speaker_core::l2::duty::{Duties, Duty};
use patina_speaker_core::l2::filter::{self, Instruction};
use socket2::SockFilter;

use super::socket::{Frame, FrameSocket, Protocol};

/// After a socket could not be opened (the interface was about to vanish, or a permission is missing).
const REOPEN: Duration = Duration::from_secs(1);
/// After an exact filter that took t to make and to attach, the next one waits this many times t.
const REST: u32 = 20;
/// The longest such rest.
const LONGEST_REST: Duration = Duration::from_secs(2);
/// The shortest program that is tried where memory for longer ones is missing.
const SHORTEST: usize = 128;

/// An interface and what is spoken on it.
pub(super) type Key = (u32, Protocol);

/// What became of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It is there now.
    Opened(Key),
    /// It was, and is no more.
    Closed(Key),
}

/// All sockets.
#[derive(Debug, Default)]
pub(super) struct Links {
    open: BTreeMap<Key, Link>,
    /// How many addresses there are for each.
    addresses: BTreeMap<Key, usize>,
    /// Those that could not be opened, with the error that was logged: tried again.
    failed: BTreeMap<Key, String>,
    reopen: Option<Instant>,
}

#[derive(Debug)]
struct Link {
    socket: FrameSocket,
    filter: Filter,
    /// No other filter before.
    rest: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filter {
    /// Made of the present addresses.
    Current,
    /// Made of more than those.
    Wide,
    /// There are addresses that it does not know.
    Narrow,
}

impl Links {
    /// The duty for one address differs. To be followed by [`Links::settle`].
    pub(super) fn note(&mut self, ip: IpAddr, old: Option<&Duty>, new: Option<&Duty>) {
        let is_in = |duty: Option<&Duty>, index| duty.is_some_and(|duty| duty.interfaces.contains(index));
        for index in old.iter().flat_map(|duty| duty.interfaces.iter()).filter(|index| !is_in(new, index)) {
            let key = (*index, protocol(ip));
            if let Some(count) = self.addresses.get_mut(&key) {
                *count -= 1;
                if *count == 0 {
                    self.addresses.remove(&key);
                }
            }
            self.outdate(key, Filter::Wide);
        }
        for index in new.iter().flat_map(|duty| duty.interfaces.iter()).filter(|index| !is_in(old, index)) {
            let key = (*index, protocol(ip));
            *self.addresses.entry(key).or_default() += 1;
            self.outdate(key, Filter::Narrow);
        }
    }

    fn outdate(&mut self, key: Key, to: Filter) {
        if let Some(link) = self.open.get_mut(&key)
            && link.filter != Filter::Narrow
        {
            link.filter = to;
        }
    }

    /// Opens what is missing, closes what is no longer of use, and brings the filters up to date.
    pub(super) fn settle(&mut self, duties: &Duties, is_up: impl Fn(u32) -> bool) -> Vec<Change> {
        let now = Instant::now();
        let useful =
            |addresses: &BTreeMap<Key, usize>, key: &Key| addresses.contains_key(key) && is_up(key.0);
        let mut changes = Vec::new();
        self.open.retain(|key, _| {
            let stays = useful(&self.addresses, key);
            changes.extend((!stays).then_some(Change::Closed(*key)));
            stays
        });
        self.failed.retain(|key, _| useful(&self.addresses, key));
        let missing: Vec<Key> = self
            .addresses
            .keys()
            .filter(|key| is_up(key.0) && !self.open.contains_key(key))
            .copied()
            .collect();
        self.reopen = None;
        for key in missing {
            changes.extend(self.try_to_open(now, key));
        }
        self.refilter(now, duties);
        changes
    }

    /// When to call [`Links::settle`] next, though nothing changed.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let stale = self.open.values().filter(|link| link.filter != Filter::Current).map(|link| link.rest);
        stale.chain(self.reopen).min()
    }

    /// The next frame of any socket. `turn`: where the round over the sockets starts, so that none starves.
    pub(super) fn poll_receive(
        &self,
        turn: &mut usize,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<(Key, io::Result<Frame>)> {
        let start = *turn % self.open.len().max(1);
        for (key, link) in self.open.iter().skip(start).chain(self.open.iter().take(start)) {
            if let Poll::Ready(result) = link.socket.poll_receive(cx, buffer) {
                *turn = turn.wrapping_add(1);
                return Poll::Ready((*key, result));
            }
        }
        Poll::Pending
    }

    /// The sockets that are open.
    pub(super) fn keys(&self) -> Vec<Key> {
        self.open.keys().copied().collect()
    }

    pub(super) fn get(&self, key: Key) -> Option<&FrameSocket> {
        self.open.get(&key).map(|link| &link.socket)
    }

    /// A failure is said once, and the other protocol of the interface is none the worse for it.
    fn try_to_open(&mut self, now: Instant, key: Key) -> Option<Change> {
        let (index, protocol) = key;
        match FrameSocket::open(index, protocol, &kernel(&filter::whole(family(protocol)))) {
            Ok(socket) => {
                tracing::debug!(ifindex = index, ?protocol, "listening");
                self.failed.remove(&key);
                self.open.insert(key, Link { socket, filter: Filter::Wide, rest: now });
                Some(Change::Opened(key))
            }
            Err(error) => {
                let error = error.to_string();
                if self.failed.get(&key) != Some(&error) {
                    tracing::error!(ifindex = index, ?protocol, "{error}; will retry");
                    self.failed.insert(key, error);
                }
                self.reopen = Some(now + REOPEN);
                None
            }
        }
    }

    fn refilter(&mut self, now: Instant, duties: &Duties) {
        for (key, link) in self.open.iter_mut().filter(|(_, link)| link.filter != Filter::Current) {
            if now < link.rest {
                if link.filter == Filter::Narrow {
                    link.widen(*key);
                }
                continue;
            }
            let began = Instant::now();
            link.narrow(*key, &words(duties, *key));
            link.rest = now + (began.elapsed() * REST).min(LONGEST_REST);
        }
    }
}

impl Link {
    /// The program for exactly these addresses, or the closest to it for which the kernel has memory.
    fn narrow(&mut self, key: Key, words: &[u32]) {
        let mut most = filter::MOST;
        loop {
            let program = filter::exact(family(key.1), words.to_vec(), most);
            match self.socket.filter(&kernel(&program)) {
                Ok(()) => break,
                // The old program counts as long as the new one is not in its place (net.core.optmem_max).
                Err(error) if out_of_memory(&error) && most > SHORTEST => {
                    self.widen(key);
                    most = if most == filter::MOST { most - 1 } else { most / 2 };
                }
                Err(error) => {
                    tracing::warn!(ifindex = key.0, protocol = ?key.1, "cannot attach a kernel filter: {error}");
                    self.widen(key);
                    break;
                }
            }
        }
        self.filter = Filter::Current;
    }

    /// Lets everything of the protocol through.
    fn widen(&mut self, key: Key) {
        match self.socket.filter(&kernel(&filter::whole(family(key.1)))) {
            Ok(()) => self.filter = Filter::Wide,
            Err(error) => {
                tracing::error!(ifindex = key.0, protocol = ?key.1, "cannot attach a kernel filter: {error}");
            }
        }
    }
}

/// What the filter compares: the last 32 bits of each address.
fn words(duties: &Duties, (index, wanted): Key) -> Vec<u32> {
    let here =
        duties.iter().filter(|(ip, duty)| protocol(**ip) == wanted && duty.interfaces.contains(&index));
    here.map(|(ip, _)| match ip {
        IpAddr::V4(ip) => u32::from(*ip),
        IpAddr::V6(ip) => (u128::from(*ip) & u128::from(u32::MAX)) as u32,
    })
    .collect()
}

fn kernel(program: &[Instruction]) -> Vec<SockFilter> {
    program.iter().map(|i| SockFilter::new(i.code, i.jt, i.jf, i.k)).collect()
}

fn out_of_memory(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOMEM | libc::ENOBUFS))
}

pub(super) fn protocol(ip: IpAddr) -> Protocol {
    match Family::of(ip) {
        Family::V4 => Protocol::Arp,
        Family::V6 => Protocol::Ipv6,
    }
}

pub(super) fn family(protocol: Protocol) -> Family {
    match protocol {
        Protocol::Arp => Family::V4,
        Protocol::Ipv6 => Family::V6,
    }
}
