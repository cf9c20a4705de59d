//! A door into a namespace: a port on the machine's loopback whose connections go to an address inside the namespace.
//! With it, kubectl and a [`kube::Client`] on the machine reach an API server that only the namespace has.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::mpsc;

use anyhow::{Context, Result};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::netns::Netns;

/// Relays until it is dropped.
#[derive(Debug)]
pub(super) struct Relay {
    address: SocketAddr,
    _stop: oneshot::Sender<()>,
}

impl Relay {
    pub(super) fn start(netns: &Netns, to: SocketAddr) -> Result<Relay> {
        // Opened here, so it belongs to the machine; the thread below then moves into the namespace, and what it
        // opens belongs there.
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("open the relay's port")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = mpsc::channel();
        let netns = netns.clone();
        std::thread::spawn(move || {
            let entered = netns.enter_this_thread().and_then(|()| {
                Ok(tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?)
            });
            match entered {
                Ok(runtime) => {
                    let _ = ready.send(Ok(())); // the starter waits below
                    runtime.block_on(relay(listener, to, stopped));
                }
                Err(e) => drop(ready.send(Err(e))),
            }
        });
        is_ready.recv().context("the relay's thread ended")??;
        Ok(Relay { address, _stop: stop })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn relay(listener: TcpListener, to: SocketAddr, mut stopped: oneshot::Receiver<()>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = &mut stopped => return,
        };
        let Ok((mut outside, _)) = accepted else { continue };
        tokio::spawn(async move {
            // A refused connection inside is a closed one outside; an API server that is down looks like that too.
            if let Ok(mut inside) = TcpStream::connect(to).await {
                let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
            }
        });
    }
}
