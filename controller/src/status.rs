//! The only writer of Services: sends what the core's machine ([`patina_controller_core::writes`]) says, while the Lease is
//! ours, and tells it what came of it. It decides nothing.

mod render;
mod request;

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use kube::Client;
use patina_controller_core::view::ServiceId;
pub(crate) use patina_controller_core::writes::{Condition, Desired};
use patina_controller_core::writes::{End, Input, Observed, Output, Patch, Writes};

use crate::leader::Standing;

/// Patches under way at a time.
const WINDOW: usize = 24;

/// What came of something that was to be written.
#[derive(Debug)]
pub(crate) enum Written {
    /// The status shows what it should (nothing newer came up in the meantime).
    Settled(ServiceId),
    /// One attempt was made, and what came of it (a metric's label); more may follow.
    Attempted(&'static str),
    /// It failed (label, words) and will be tried again.
    Failed(ServiceId, &'static str, String),
    /// Somebody else wrote addresses into the status, which will be taken out again.
    Edited(ServiceId, Vec<IpAddr>),
    /// What an earlier leader may still have on its way can do no harm, but for these Services.
    Fenced(Vec<ServiceId>),
}

type Attempt = Pin<Box<dyn Future<Output = (u64, ServiceId, End)> + Send>>;

/// See the module. Dropping it gives up what is under way.
pub(crate) struct StatusWriter {
    client: Client,
    standing: Standing,
    machine: Writes,
    under_way: FuturesUnordered<Attempt>,
}

impl std::fmt::Debug for StatusWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StatusWriter").field("under_way", &self.under_way.len()).finish_non_exhaustive()
    }
}

impl StatusWriter {
    pub(crate) fn new(client: Client, standing: Standing) -> Self {
        Self { client, standing, machine: Writes::new(WINDOW), under_way: FuturesUnordered::new() }
    }

    /// A Service was seen.
    pub(crate) fn observe(&mut self, id: &ServiceId, observed: Observed) {
        self.machine.handle(Instant::now(), Input::Seen(id.clone(), observed));
    }

    /// What a Service should show from now on; `None`: whatever it does (not ours).
    pub(crate) fn want(&mut self, id: &ServiceId, desired: Option<Desired>) {
        self.machine.handle(Instant::now(), Input::Want(id.clone(), desired));
    }

    /// A Service is gone.
    pub(crate) fn forget(&mut self, id: &ServiceId) {
        self.machine.handle(Instant::now(), Input::Gone(id.clone()));
    }

    /// Nothing is given before [`Written::Fenced`]. How many Services that is about.
    pub(crate) fn fence(
        &mut self,
        term: &str,
        within: Duration,
        is_ours: impl Fn(&ServiceId) -> bool,
    ) -> usize {
        let services = self.machine.may_gain(is_ours);
        let count = services.len();
        let now = Instant::now();
        let (term, until) = (term.to_owned(), now + within);
        self.machine.handle(now, Input::Fence { term, services, until });
        count
    }

    /// Whether a Service shows `desired` already.
    pub(crate) fn shows(&self, id: &ServiceId, desired: &Desired) -> bool {
        self.machine.shows(id, desired)
    }

    /// Patches under way, and how many there may be.
    pub(crate) fn window(&self) -> (usize, usize) {
        self.machine.window()
    }

    /// Starts what may start, and waits until something came to an end. Never returns while there is nothing to do.
    pub(crate) async fn next(&mut self) -> Written {
        loop {
            if let Some(written) = self.start_all() {
                return written;
            }
            let deadline = self.machine.poll_timeout();
            let due = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some((attempt, id, end)) = self.under_way.next() => return self.ended(attempt, id, end),
                () = due => self.machine.handle_timeout(Instant::now()),
            }
        }
    }

    /// Lets what is under way end; starts nothing new.
    pub(crate) async fn drain(&mut self) {
        while let Some((attempt, id, end)) = self.under_way.next().await {
            self.ended(attempt, id, end);
        }
    }

    /// Nothing is under way that could be written later.
    pub(crate) fn is_drained(&self) -> bool {
        self.under_way.is_empty() && self.machine.is_certain()
    }

    fn start_all(&mut self) -> Option<Written> {
        // Asked before each: what the machine hands out has to be sent.
        while self.standing.leads() {
            match self.machine.poll_output()? {
                Output::Patch(patch) => self.under_way.push(Box::pin(attempt(self.client.clone(), patch))),
                Output::Settled(id) => return Some(Written::Settled(id)),
                Output::Edited { id, addresses } => return Some(Written::Edited(id, addresses)),
                Output::Fenced { left } => return Some(Written::Fenced(left)),
            }
        }
        None
    }

    fn ended(&mut self, attempt: u64, id: ServiceId, end: End) -> Written {
        let written = match &end {
            End::Done(_) => Written::Attempted("ok"),
            End::Conflict => Written::Attempted("conflict"),
            End::Gone => Written::Attempted("gone"),
            End::Busy(_) => Written::Attempted("busy"),
            End::Refused(why) => Written::Failed(id.clone(), "refused", why.clone()),
            End::Failed(why) => Written::Failed(id.clone(), "failed", why.clone()),
            End::Unreachable(why) => Written::Failed(id.clone(), "unreachable", why.clone()),
        };
        self.machine.handle(Instant::now(), Input::Ended { attempt, id, end });
        written
    }
}

async fn attempt(client: Client, patch: Patch) -> (u64, ServiceId, End) {
    let end = request::send(&client, &patch).await;
    (patch.attempt, patch.id, end)
}
