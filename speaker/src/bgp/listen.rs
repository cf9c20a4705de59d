//! Connections that peers open. Off unless a port is set: a routing daemon of the node (Calico's BIRD, say) may want port 179.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};

use super::desired::Secret;
use super::socket;

/// After a port that could not be had.
const RETRY: Duration = Duration::from_secs(10);

/// A VRF device, or none.
type Vrf = Option<String>;

/// One listener per family and VRF.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    port: Option<u16>,
    open: BTreeMap<(Vrf, bool), TcpListener>,
    /// Which keys a listener has.
    signed: BTreeMap<(Vrf, IpAddr), Option<Secret>>,
    wanted: BTreeSet<Vrf>,
    retry: Option<Instant>,
    /// What failed last, so that it is said once.
    complaint: String,
}

impl Listeners {
    pub(super) fn new(port: Option<u16>) -> Self {
        Self { port, ..Self::default() }
    }

    /// Listens where these peers may come in, with their keys.
    pub(super) fn settle(&mut self, peers: BTreeMap<(Vrf, IpAddr), Option<Secret>>) {
        let Some(port) = self.port else { return };
        self.wanted = peers.keys().map(|(vrf, _)| vrf.clone()).collect();
        let wanted = &self.wanted;
        self.open.retain(|(vrf, _), _| wanted.contains(vrf));
        let open = &self.open;
        self.signed.retain(|(vrf, ip), _| open.contains_key(&(vrf.clone(), ip.is_ipv6())));
        self.retry = None;
        let mut complaints = Vec::new();
        for vrf in &self.wanted {
            for any in [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)] {
                let key = (vrf.clone(), any.is_ipv6());
                if self.open.contains_key(&key) {
                    continue;
                }
                match socket::listen(SocketAddr::new(any, port), vrf.as_deref()) {
                    Ok(listener) => drop(self.open.insert(key, listener)),
                    Err(error) => complaints.push(format!("{any}: {error}")),
                }
            }
        }
        if !complaints.is_empty() {
            self.retry = Some(Instant::now() + RETRY);
        }
        let complaint = complaints.join(", ");
        if complaint != self.complaint && !complaint.is_empty() {
            tracing::warn!(
                port,
                complaint,
                "cannot listen for BGP; peers that connect are not heard, those that we connect to are"
            );
        }
        self.complaint = complaint;
        self.sign(&peers);
    }

    fn sign(&mut self, peers: &BTreeMap<(Vrf, IpAddr), Option<Secret>>) {
        let gone = self.signed.keys().filter(|key| !peers.contains_key(key)).cloned().collect::<Vec<_>>();
        let none = gone.into_iter().map(|key| (key, None));
        let all = peers.iter().map(|(key, secret)| (key.clone(), secret.clone())).chain(none);
        for (key, secret) in all.collect::<Vec<_>>() {
            if self.signed.get(&key).unwrap_or(&None) == &secret {
                continue;
            }
            let Some(listener) = self.open.get(&(key.0.clone(), key.1.is_ipv6())) else { continue };
            match socket::sign(listener, key.1, secret.as_ref()) {
                Ok(()) => drop(self.signed.insert(key, secret)),
                Err(error) => {
                    tracing::warn!(peer = %key.1, %error, "cannot set the key for incoming connections")
                }
            }
        }
    }

    /// When [`Listeners::settle`] wants to be called again.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.retry
    }

    /// The next connection, its VRF and who it is from.
    pub(super) async fn accept(&mut self) -> (Vrf, TcpStream, IpAddr) {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<(Vrf, TcpStream, IpAddr)> {
        for ((vrf, _), listener) in &self.open {
            while let Poll::Ready(accepted) = listener.poll_accept(cx) {
                // Errors are those of a connection that is gone already, or of a lack that passes (accept(2)).
                if let Ok((stream, from)) = accepted {
                    return Poll::Ready((vrf.clone(), stream, from.ip().to_canonical()));
                }
            }
        }
        Poll::Pending
    }
}
