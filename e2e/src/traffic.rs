//! Steady traffic from the client through a Service's address: a thousand datagrams a second, each answered by an echo in a
//! pod behind kube-proxy. UDP, because nothing sends a lost one again: what has no answer is lost.
//!
//! A client's kernel remembers a MAC address for half a minute and would hide a gap in which nobody answers ARP. This client
//! forgets it ten times a second.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};

use crate::netns::Netns;
use crate::prober::make_urgent;

/// An answer that takes longer is none: whoever asked has given up, or (TCP) waits for its first retransmission.
pub const PATIENCE: Duration = Duration::from_millis(900);
/// Between two moments at which the client forgets the MAC address.
const FORGET: Duration = Duration::from_millis(100);
/// Sockets, each with a port: for kube-proxy each is a connection.
const FLOWS: usize = 100;

/// Answers every datagram with itself until it is dropped.
#[derive(Debug)]
pub struct Echo {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    /// On `port`, both families, in a pod's namespace: as if the pod did it.
    ///
    /// # Errors
    /// The port is taken there.
    pub fn start(pod: &Netns, port: u16) -> Result<Self> {
        let socket = pod.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)))?.context("bind the echo")?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("echo".into()).spawn(move || {
            make_urgent();
            let mut buffer = [0_u8; 64];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((n, from)) = socket.recv_from(&mut buffer) {
                    let _lost = socket.send_to(buffer.get(..n).unwrap_or_default(), from);
                }
            }
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// What became of the requests.
#[derive(Debug, Clone, Default)]
pub struct Counted {
    /// Sent, and old enough to be judged.
    pub sent: usize,
    /// When those were sent that were not answered within [`PATIENCE`].
    pub lost: Vec<SystemTime>,
    /// The longest that an answer took.
    pub slowest: Duration,
}

/// Asks until [`Traffic::finish`].
#[derive(Debug)]
pub struct Traffic {
    stop: Arc<AtomicBool>,
    shared: Arc<Mutex<Open>>,
    threads: Vec<JoinHandle<Result<()>>>,
}

#[derive(Debug, Default)]
struct Open {
    /// By number.
    waiting: BTreeMap<u64, SystemTime>,
    sent: u64,
    slowest: Duration,
}

impl Traffic {
    /// `per_second` requests to `at` from `client`.
    ///
    /// # Errors
    /// No sockets there.
    pub fn start(client: &Netns, at: SocketAddr, per_second: u32) -> Result<Self> {
        let open = |_| -> Result<UdpSocket> {
            let any: IpAddr = if at.is_ipv4() { [0, 0, 0, 0].into() } else { Ipv6Addr::UNSPECIFIED.into() };
            let socket = UdpSocket::bind((any, 0))?;
            // It looks for the neighbour only when something is sent.
            socket.connect(at)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        let sockets: Vec<UdpSocket> = client.run(|| (0..FLOWS).map(open).collect::<Result<_>>())??;
        let sockets = Arc::new(sockets);
        let stop = Arc::new(AtomicBool::new(false));
        let shared = Arc::new(Mutex::new(Open::default()));
        let (stopped, ours, all) = (Arc::clone(&stop), Arc::clone(&shared), Arc::clone(&sockets));
        let ask = std::thread::Builder::new().name("ask".into()).spawn(move || {
            make_urgent();
            ask(&all, &ours, &stopped, Duration::from_secs(1) / per_second)
        })?;
        let stopped = Arc::clone(&stop);
        let netns = client.clone();
        let forget = std::thread::Builder::new().name("forget".into()).spawn(move || {
            let at = at.ip().to_string();
            while !stopped.load(Ordering::Relaxed) {
                // One that is not there is forgotten already.
                let _not_there = netns.ip(&["neigh", "del", &at, "dev", "eth0"]);
                std::thread::sleep(FORGET);
            }
            Ok(())
        })?;
        Ok(Self { stop, shared, threads: vec![ask, forget] })
    }

    /// Requests sent so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        lock(&self.shared).sent
    }

    /// Stops, waits for the last answers, and counts.
    ///
    /// # Errors
    /// A part of it had to stop early.
    pub fn finish(mut self) -> Result<Counted> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in std::mem::take(&mut self.threads) {
            thread.join().map_err(|_| anyhow::anyhow!("a thread of the traffic panicked"))??;
        }
        let open = lock(&self.shared);
        Ok(Counted {
            sent: usize::try_from(open.sent)?,
            lost: open.waiting.values().copied().collect(),
            slowest: open.slowest,
        })
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn ask(sockets: &[UdpSocket], shared: &Mutex<Open>, stopped: &AtomicBool, every: Duration) -> Result<()> {
    let mut due = Instant::now();
    let mut last_answers = None;
    loop {
        if stopped.load(Ordering::Relaxed) {
            let until = *last_answers.get_or_insert_with(|| Instant::now() + PATIENCE);
            if Instant::now() >= until {
                return Ok(());
            }
        } else {
            while due <= Instant::now() {
                let mut open = lock(shared);
                let number = open.sent;
                open.sent += 1;
                open.waiting.insert(number, SystemTime::now());
                drop(open);
                let socket = sockets.get(usize::try_from(number)? % sockets.len()).context("no socket")?;
                // An error (nobody answered ARP) leaves it unanswered.
                let _lost = socket.send(&number.to_be_bytes());
                due += every;
            }
        }
        answers(sockets, shared);
        std::thread::sleep(
            due.saturating_duration_since(Instant::now())
                .clamp(Duration::from_micros(200), Duration::from_millis(2)),
        );
    }
}

fn answers(sockets: &[UdpSocket], shared: &Mutex<Open>) {
    let mut buffer = [0_u8; 64];
    for socket in sockets {
        while let Ok(n) = socket.recv(&mut buffer) {
            let Some(number) = buffer.get(..n).and_then(|b| b.try_into().ok()).map(u64::from_be_bytes) else {
                continue;
            };
            let mut open = lock(shared);
            if let Some(asked) = open.waiting.get(&number).copied() {
                let took = asked.elapsed().unwrap_or_default();
                open.slowest = open.slowest.max(took);
                if took <= PATIENCE {
                    open.waiting.remove(&number);
                }
            }
        }
    }
}

fn lock(mutex: &Mutex<Open>) -> std::sync::MutexGuard<'_, Open> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
