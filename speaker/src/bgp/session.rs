//! One peer: its machine, its connections, its timer.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use patina_speaker_core::bgp::message::Ends;
use patina_speaker_core::bgp::peer::{Bfd, Event, Input, Link, Machine, Output, Side, Stop};
use patina_speaker_core::bgp::rib::Table;
use patina_speaker_core::view::InterfaceView;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::desired::{Neighbour, Secret};
use super::metrics::PeerMetrics;
use super::socket;
use super::status::Publisher;
use super::wire::Wire;
use crate::deadline::until;

/// Read at once.
const BUFFER: usize = 64 * 1024;
/// How long what is left to say may take after a session has ended.
const FAREWELL: Duration = Duration::from_secs(1);

/// What holds for a session now; the newest value is all that counts.
#[derive(Clone, Debug)]
pub(super) struct Orders {
    /// What the peer should have.
    pub(super) table: Table,
    /// For next hops.
    pub(super) interfaces: Arc<Vec<InterfaceView>>,
    /// RFC 8326.
    pub(super) draining: bool,
    /// TCP-MD5.
    pub(super) password: Option<Secret>,
    /// What BFD last said.
    pub(super) bfd: Option<Bfd>,
    /// Where the peer is, and the interface of a link-local address; `None`: it has not shown itself yet.
    pub(super) remote: Option<(IpAddr, u32)>,
    /// The session ends.
    pub(super) stop: Option<Stop>,
}

/// Runs until its orders say stop and what was left to say is said.
#[derive(Debug)]
pub(super) struct Session {
    neighbour: Arc<Neighbour>,
    machine: Machine,
    orders: watch::Receiver<Orders>,
    /// In force.
    now: Orders,
    accepted: mpsc::Receiver<TcpStream>,
    wires: BTreeMap<Link, Wire>,
    connecting: Option<Attempt>,
    /// The next number of a connection that the peer opens.
    number: u32,
    farewells: JoinSet<()>,
    metrics: PeerMetrics,
    publisher: Publisher,
    started: bool,
    /// The last part of a line of errors that are all the same is not logged again.
    last_loss: String,
}

/// A connection that is being made.
struct Attempt {
    link: Link,
    future: Pin<Box<dyn Future<Output = io::Result<TcpStream>>>>,
}

impl std::fmt::Debug for Attempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attempt").field("link", &self.link).finish_non_exhaustive()
    }
}

/// What a wire did.
enum Happened {
    Written(Link),
    Read(Link, usize),
    Failed(Link, String),
}

impl Session {
    pub(super) fn new(
        neighbour: Arc<Neighbour>,
        mut orders: watch::Receiver<Orders>,
        accepted: mpsc::Receiver<TcpStream>,
        metrics: PeerMetrics,
        publisher: Publisher,
    ) -> Self {
        let machine = Machine::new(neighbour.settings.clone());
        let now = orders.borrow_and_update().clone();
        Self {
            neighbour,
            machine,
            orders,
            now,
            accepted,
            wires: BTreeMap::new(),
            connecting: None,
            number: 0,
            farewells: JoinSet::new(),
            metrics,
            publisher,
            started: false,
            last_loss: String::new(),
        }
    }

    pub(super) async fn run(mut self) {
        let mut buffer = vec![0; BUFFER];
        let first = self.now.clone();
        self.machine.handle(Instant::now(), Input::Drain(first.draining));
        self.machine.handle(Instant::now(), Input::Want(first.table));
        if let Some(bfd) = first.bfd {
            self.machine.handle(Instant::now(), Input::Bfd(bfd));
        }
        self.start();
        loop {
            self.pump();
            if self.now.stop.is_some() {
                break;
            }
            let deadline = self.machine.poll_timeout();
            tokio::select! {
                biased;
                changed = self.orders.changed() => {
                    // Whoever gave the orders is gone: so is the reason for a session.
                    let stop = changed.is_err().then_some(Stop::Restart);
                    self.obey(stop);
                }
                // Before the deadline: what waits in a socket came in time, however busy we were.
                happened = poll_fn(|cx| poll_wires(&mut self.wires, cx, &mut buffer)) => self.take(happened, &buffer),
                () = until(deadline) => self.machine.handle_timeout(Instant::now()),
                (link, result) = poll_fn(|cx| poll_connecting(&mut self.connecting, cx)) => self.connected(link, result),
                Some(stream) = self.accepted.recv() => self.accept(stream),
            }
        }
        while self.farewells.join_next().await.is_some() {}
        self.publisher.forget();
    }

    fn start(&mut self) {
        if !self.started && self.now.remote.is_some() {
            self.started = true;
            self.machine.handle(Instant::now(), Input::Start);
        }
    }

    /// Does what is new in the orders.
    fn obey(&mut self, stop: Option<Stop>) {
        let mut orders = self.orders.borrow_and_update().clone();
        orders.stop = orders.stop.or(stop);
        let before = std::mem::replace(&mut self.now, orders);
        let now = Instant::now();
        if before.draining != self.now.draining {
            self.machine.handle(now, Input::Drain(self.now.draining));
        }
        if before.table != self.now.table {
            self.machine.handle(now, Input::Want(self.now.table.clone()));
        }
        if before.password != self.now.password {
            self.sign_again();
        }
        if before.bfd != self.now.bfd
            && let Some(bfd) = self.now.bfd
        {
            self.machine.handle(now, Input::Bfd(bfd));
        }
        if let Some(stop) = self.now.stop.clone() {
            return self.machine.handle(now, Input::Stop(stop));
        }
        if before.remote != self.now.remote && self.started {
            // The router on the interface is another one.
            self.machine.handle(now, Input::Stop(Stop::Changed));
            self.started = false;
        }
        self.start();
    }

    fn sign_again(&self) {
        let Some((remote, _)) = self.now.remote else { return };
        for wire in self.wires.values() {
            if let Err(error) = socket::sign(&wire.stream, remote, self.now.password.as_ref()) {
                tracing::warn!(peer = %self.publisher.name(), %error, "cannot change the key of the session");
            }
        }
    }

    fn accept(&mut self, stream: TcpStream) {
        let Some((remote, _)) = self.now.remote else { return };
        match socket::accepted(&stream, &self.neighbour, remote).and_then(|()| self.ends(&stream)) {
            Ok(ends) => {
                self.number = self.number.wrapping_add(1);
                let link = Link { side: Side::Theirs, number: self.number };
                self.wires.insert(link, Wire::new(stream));
                self.machine.handle(Instant::now(), Input::Connected(link, ends));
            }
            Err(error) => {
                tracing::debug!(peer = %self.publisher.name(), %error, "an incoming connection failed")
            }
        }
    }

    fn connected(&mut self, link: Link, result: io::Result<TcpStream>) {
        let now = Instant::now();
        match result.and_then(|stream| Ok((self.ends(&stream)?, stream))) {
            Ok((ends, stream)) => {
                self.wires.insert(link, Wire::new(stream));
                self.machine.handle(now, Input::Connected(link, ends));
            }
            Err(error) => self.machine.handle(now, Input::Lost(link, &error.to_string())),
        }
    }

    fn ends(&self, stream: &TcpStream) -> io::Result<Ends> {
        Ok(ends(stream.local_addr()?, stream.peer_addr()?, &self.now.interfaces))
    }

    fn take(&mut self, happened: Happened, buffer: &[u8]) {
        let now = Instant::now();
        match happened {
            Happened::Written(link) => self.machine.handle(now, Input::Sent(link)),
            Happened::Read(link, length) => {
                let bytes = buffer.get(..length).unwrap_or_default();
                self.machine.handle(now, Input::Bytes(link, bytes));
                // A peer that never stops sending does not keep us from what is due.
                if self.machine.poll_timeout().is_some_and(|at| at <= now) {
                    self.machine.handle_timeout(now);
                }
            }
            Happened::Failed(link, error) => {
                self.wires.remove(&link);
                self.machine.handle(now, Input::Lost(link, &error));
            }
        }
    }

    /// Does what the machine wants, and fills the wires.
    fn pump(&mut self) {
        let now = Instant::now();
        self.perform(now);
        for (link, wire) in &mut self.wires {
            if wire.is_empty() {
                self.machine.poll_transmit(now, *link, &mut wire.out);
            }
        }
        // What was sent is counted.
        self.perform(now);
        self.publisher.snapshot(&self.metrics, self.machine.snapshot());
    }

    fn perform(&mut self, now: Instant) {
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Connect(link) => self.connect(link),
                Output::Close(link) => self.close(now, link),
                Output::Event(event) => self.tell(event),
            }
        }
    }

    fn connect(&mut self, link: Link) {
        let Some((remote, scope)) = self.now.remote else {
            return self
                .machine
                .handle(Instant::now(), Input::Lost(link, "no router has been seen on the interface"));
        };
        let neighbour = Neighbour { password: self.now.password.clone(), ..(*self.neighbour).clone() };
        self.connecting = Some(Attempt { link, future: Box::pin(socket::connect(neighbour, remote, scope)) });
    }

    fn close(&mut self, now: Instant, link: Link) {
        if self.connecting.as_ref().is_some_and(|attempt| attempt.link == link) {
            self.connecting = None;
        }
        let Some(mut wire) = self.wires.remove(&link) else { return };
        self.machine.poll_transmit(now, link, &mut wire.out);
        self.farewells.spawn_local(farewell(wire));
        // Those that have ended are forgotten.
        while self.farewells.try_join_next().is_some() {}
    }

    fn tell(&mut self, event: Event) {
        let peer = self.publisher.name().to_owned();
        match &event {
            Event::Up(session) => {
                self.last_loss.clear();
                let families: Vec<_> = session.negotiated.families.iter().collect();
                tracing::info!(peer, remote = %session.ends.remote, asn = session.asn, router_id = %session.router_id,
                    ?families, hold_s = session.hold_time.as_secs(), "BGP session established");
            }
            Event::Down(why) => {
                let why = why.to_string();
                if why != self.last_loss {
                    tracing::warn!(peer, why, "BGP session ended");
                    self.last_loss = why;
                }
            }
            Event::Tolerated(what) => tracing::info!(peer, what, "survived an error of the peer"),
            Event::State(state) => tracing::debug!(peer, ?state, "BGP state"),
            Event::InitialDone(family) => tracing::info!(peer, ?family, "all routes are sent"),
            Event::NoNextHop(family) => {
                tracing::warn!(
                    peer,
                    ?family,
                    "the session has no next hop for routes of the family; they are not sent"
                );
            }
            Event::Unsendable(what) => tracing::warn!(peer, what, "a route cannot be sent"),
            Event::Counted(..) => {}
        }
        self.metrics.count(&event);
        self.publisher.tell(&event);
    }
}

/// Both ends, with what of our interfaces belongs to them.
fn ends(local: SocketAddr, remote: SocketAddr, interfaces: &[InterfaceView]) -> Ends {
    let local_ip = local.ip().to_canonical();
    let interface =
        interfaces.iter().find(|interface| interface.addresses.iter().any(|(ip, _)| *ip == local_ip));
    let addresses =
        || interface.into_iter().flat_map(|interface| interface.addresses.iter().map(|(ip, _)| *ip));
    let is_link_local = |ip: &IpAddr| matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    Ends {
        local: local_ip,
        link_local: addresses().find_map(|ip| match ip {
            IpAddr::V6(v6) if is_link_local(&ip) => Some(v6),
            _ => None,
        }),
        other_family: addresses().find(|ip| ip.is_ipv4() != local_ip.is_ipv4() && !is_link_local(ip)),
        remote: remote.ip().to_canonical(),
    }
}

fn poll_connecting(
    connecting: &mut Option<Attempt>,
    cx: &mut Context<'_>,
) -> Poll<(Link, io::Result<TcpStream>)> {
    let Some(attempt) = connecting else { return Poll::Pending };
    let result = std::task::ready!(attempt.future.as_mut().poll(cx));
    let link = attempt.link;
    *connecting = None;
    Poll::Ready((link, result))
}

fn poll_wires(wires: &mut BTreeMap<Link, Wire>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Happened> {
    for (link, wire) in wires {
        if !wire.is_empty() {
            match wire.poll_write(cx) {
                Poll::Ready(Ok(())) => return Poll::Ready(Happened::Written(*link)),
                Poll::Ready(Err(error)) => return Poll::Ready(Happened::Failed(*link, error.to_string())),
                Poll::Pending => {}
            }
        }
        match wire.poll_read(cx, buffer) {
            Poll::Ready(Ok(0)) => {
                let why = "the peer closed the connection".to_owned();
                return Poll::Ready(Happened::Failed(*link, why));
            }
            Poll::Ready(Ok(length)) => return Poll::Ready(Happened::Read(*link, length)),
            Poll::Ready(Err(error)) => return Poll::Ready(Happened::Failed(*link, error.to_string())),
            Poll::Pending => {}
        }
    }
    Poll::Pending
}

/// Lets the last message arrive: a socket that is closed with unread bytes resets the connection, and the reset overtakes what
/// was said.
async fn farewell(mut wire: Wire) {
    let said = async {
        poll_fn(|cx| wire.poll_write(cx)).await?;
        socket2::SockRef::from(&wire.stream).shutdown(std::net::Shutdown::Write)?;
        let mut buffer = [0; 4096];
        while poll_fn(|cx| wire.poll_read(cx, &mut buffer)).await? > 0 {}
        io::Result::Ok(())
    };
    // Gone or slow: there is nobody left to tell.
    let _ = tokio::time::timeout(FAREWELL, said).await;
}
