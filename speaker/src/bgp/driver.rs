//! Which sessions there are: starts them, tells them what is new, ends them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use patina_speaker_core::bgp::peer::{Bfd, Stop};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinSet};

use super::desired::{Desired, Ending, Neighbour, Remote, Secret};
use super::listen::Listeners;
use super::metrics::BgpMetrics;
use super::routers::Routers;
use super::session::{Orders, Session};
use super::status::{Publisher, Statuses};
use crate::deadline::until;

/// What BFD says, by the name of the peer. The newest value is all that counts.
pub type BfdSays = BTreeMap<String, Bfd>;

/// How long the sessions may take to say farewell when the process ends.
const FAREWELL: Duration = Duration::from_millis(1500);

/// Owns the sessions.
#[derive(Debug)]
pub struct Driver {
    desired: watch::Receiver<Desired>,
    bfd: watch::Receiver<BfdSays>,
    statuses: watch::Sender<Statuses>,
    metrics: BgpMetrics,
    listeners: Listeners,
    routers: Routers,
    sessions: BTreeMap<String, Running>,
    tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Running {
    neighbour: Arc<Neighbour>,
    task: Id,
    orders: watch::Sender<Orders>,
    accepted: mpsc::Sender<TcpStream>,
}

impl Driver {
    /// A driver that does what `desired` says, once it runs. `listen`: the port on which peers may connect to us.
    #[must_use]
    pub fn new(
        desired: watch::Receiver<Desired>,
        bfd: watch::Receiver<BfdSays>,
        statuses: watch::Sender<Statuses>,
        metrics: BgpMetrics,
        listen: Option<u16>,
    ) -> Self {
        Self {
            desired,
            bfd,
            statuses,
            metrics,
            listeners: Listeners::new(listen),
            routers: Routers::default(),
            sessions: BTreeMap::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Runs until the end is desired, or nobody can desire anything any more. In a `LocalSet`.
    pub async fn run(mut self) {
        let mut stale = true;
        loop {
            let desired = self.desired.borrow_and_update().clone();
            if desired.ending.is_some() {
                return self.end(&desired).await;
            }
            self.look_for_routers(&desired);
            self.settle(&desired);
            if std::mem::take(&mut stale) {
                self.listeners.settle(self.may_connect(&desired));
            }
            let retry = self.listeners.poll_timeout();
            tokio::select! {
                changed = self.desired.changed() => {
                    if changed.is_err() {
                        return self.end(&desired).await;
                    }
                    stale = true;
                }
                Ok(()) = self.bfd.changed() => {}
                Some(ended) = self.tasks.join_next_with_id() => {
                    let id = match ended { Ok((id, ())) => id, Err(error) => error.id() };
                    self.sessions.retain(|_, running| running.task != id);
                }
                (vrf, stream, from) = self.listeners.accept() => self.accepted(vrf.as_deref(), stream, from),
                () = self.routers.changed() => stale = true,
                () = until(retry) => stale = true,
            }
        }
    }

    /// Sessions for what is desired, with what they should know.
    fn settle(&mut self, desired: &Desired) {
        let says = self.bfd.borrow_and_update().clone();
        for (name, running) in &self.sessions {
            match desired.peers.get(name) {
                None => stop(running, Stop::Deconfigured),
                Some(neighbour) if !running.neighbour.goes_on_as(neighbour) => stop(running, Stop::Changed),
                Some(neighbour) => {
                    let orders = self.orders(name, neighbour, desired, &says);
                    running.orders.send_if_modified(|known| renew(known, orders));
                }
            }
        }
        for (name, neighbour) in &desired.peers {
            // One that ends is waited for: two sessions with one peer would fight.
            if !self.sessions.contains_key(name) {
                let orders = self.orders(name, neighbour, desired, &says);
                self.start(name, Arc::clone(neighbour), orders);
            }
        }
    }

    fn start(&mut self, name: &str, neighbour: Arc<Neighbour>, orders: Orders) {
        let (orders, obeyed) = watch::channel(orders);
        let (accepted, incoming) = mpsc::channel(1);
        let metrics = self.metrics.of(&neighbour);
        let publisher = Publisher::new(name, self.statuses.clone());
        let session = Session::new(Arc::clone(&neighbour), obeyed, incoming, metrics, publisher);
        let task = self.tasks.spawn_local(session.run()).id();
        self.sessions.insert(name.to_owned(), Running { neighbour, task, orders, accepted });
    }

    fn orders(&self, name: &str, neighbour: &Neighbour, desired: &Desired, says: &BfdSays) -> Orders {
        Orders {
            table: desired.tables.get(name).cloned().unwrap_or_default(),
            interfaces: Arc::clone(&desired.interfaces),
            draining: desired.draining,
            password: neighbour.password.clone(),
            bfd: says.get(name).copied(),
            remote: self.remote(neighbour, desired),
            stop: None,
        }
    }

    fn accepted(&self, vrf: Option<&str>, stream: TcpStream, from: IpAddr) {
        let is_from = |running: &&Running| {
            let neighbour = &running.neighbour;
            let remote = running.orders.borrow().remote;
            neighbour.vrf.as_deref() == vrf && remote.is_some_and(|(ip, _)| ip == from)
        };
        match self.sessions.values().find(is_from) {
            // Full: one waits already.
            Some(running) => drop(running.accepted.try_send(stream)),
            None => tracing::debug!(%from, "a BGP connection of nobody we know is refused"),
        }
    }

    /// Where the peer is; a link-local address needs its interface.
    fn remote(&self, neighbour: &Neighbour, desired: &Desired) -> Option<(IpAddr, u32)> {
        match &neighbour.remote {
            Remote::Ip(ip) => Some((*ip, 0)),
            Remote::Interface(name) => {
                let interface = desired.interfaces.iter().find(|interface| interface.name == *name)?;
                self.routers.seen(interface.index).map(|ip| (IpAddr::V6(ip), interface.index))
            }
        }
    }

    /// Who may connect to us, where, with which key.
    fn may_connect(&self, desired: &Desired) -> BTreeMap<(Option<String>, IpAddr), Option<Secret>> {
        let known = |neighbour: &Arc<Neighbour>| {
            let (ip, _) = self.remote(neighbour, desired)?;
            Some(((neighbour.vrf.clone(), ip), neighbour.password.clone()))
        };
        desired.peers.values().filter_map(known).collect()
    }

    /// Interfaces on which a router is looked for.
    fn look_for_routers(&mut self, desired: &Desired) {
        let is_meant =
            |name: &str| desired.peers.values().any(|peer| peer.remote == Remote::Interface(name.to_owned()));
        let interfaces =
            desired.interfaces.iter().filter(|interface| interface.up && is_meant(&interface.name));
        self.routers.look_on(interfaces.map(|interface| (interface.index, interface.mac)).collect());
    }

    async fn end(mut self, desired: &Desired) {
        let why = match desired.ending {
            Some(Ending::Shutdown) => Stop::Shutdown("the speaker of this node ends".to_owned()),
            Some(Ending::Restart) | None => Stop::Restart,
        };
        for running in self.sessions.values() {
            stop(running, why.clone());
        }
        let all = async { while self.tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(FAREWELL, all).await;
    }
}

fn stop(running: &Running, why: Stop) {
    running.orders.send_if_modified(|orders| {
        let first = orders.stop.is_none();
        orders.stop.get_or_insert(why);
        first
    });
}

/// Whether something is new. Tables and interfaces are the same when they are one.
fn renew(known: &mut Orders, orders: Orders) -> bool {
    let same = known.table == orders.table
        && Arc::ptr_eq(&known.interfaces, &orders.interfaces)
        && known.draining == orders.draining
        && known.password == orders.password
        && known.bfd == orders.bfd
        && known.remote == orders.remote;
    if !same && known.stop.is_none() {
        *known = orders;
        return true;
    }
    false
}
