//! The only writer of Services: one patch on `services/status` per change, with addresses, conditions and the pool
//! annotation in it, on condition that the Service is still the one that was decided about.
//!
//! What a Service should show ([`Desired`]) and what it shows ([`Observed`]) come in; a difference is written, up to
//! [`WINDOW`] Services at a time. A failure is tried again later and holds up nobody else; what fails is remembered by
//! the allocator all the same. A Service that changed in between is looked at again first (409).

mod render;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::Service;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use patina_controller_core::view::ServiceId;
use serde_json::Value;

use self::render::patch;
use crate::leader::Standing;
use crate::watch::{Observed, observed};

/// Patches under way at a time.
const WINDOW: usize = 24;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// After a conflict the watch brings what is newer; if it does not, try again anyway.
const AFTER_CONFLICT: Duration = Duration::from_secs(1);
const FIELD_MANAGER: &str = "patina-controller";

/// What a Service's status should show. Without addresses and conditions: nothing of ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Desired {
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) pool: Option<String>,
    pub(crate) conditions: Vec<Condition>,
}

/// A condition to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Condition {
    pub(crate) type_: &'static str,
    pub(crate) status: bool,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// The end of an attempt.
#[derive(Debug)]
pub(crate) enum Written {
    /// The status shows what it should (nothing newer came up in the meantime).
    Settled(ServiceId),
    /// One attempt was made, and what came of it (a metric's label); more may follow.
    Attempted(&'static str),
    /// It failed and will be tried again.
    Failed(ServiceId, String),
}

#[derive(Debug, Default)]
struct Entry {
    observed: Observed,
    desired: Option<Desired>,
    in_flight: bool,
    queued: bool,
    failures: u32,
    retry_at: Option<Instant>,
}

type Attempt = Pin<Box<dyn Future<Output = (ServiceId, String, Outcome)> + Send>>;

#[derive(Debug)]
enum Outcome {
    Done(Box<Observed>),
    Conflict,
    Gone,
    Failed(String),
}

/// See the module.
pub(crate) struct StatusWriter {
    client: Client,
    standing: Standing,
    entries: HashMap<ServiceId, Entry>,
    queue: VecDeque<ServiceId>,
    retries: BTreeSet<(Instant, ServiceId)>,
    in_flight: FuturesUnordered<Attempt>,
}

impl std::fmt::Debug for StatusWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StatusWriter").field("queued", &self.queue.len()).finish_non_exhaustive()
    }
}

impl StatusWriter {
    pub(crate) fn new(client: Client, standing: Standing) -> Self {
        Self {
            client,
            standing,
            entries: HashMap::new(),
            queue: VecDeque::new(),
            retries: BTreeSet::new(),
            in_flight: FuturesUnordered::new(),
        }
    }

    /// A Service was seen. Older than what is known (a watch may lag behind our own write) changes nothing.
    pub(crate) fn observe(&mut self, id: &ServiceId, observed: Observed) {
        let entry = self.entries.entry(id.clone()).or_default();
        if entry.observed.uid == observed.uid && is_older(&observed, &entry.observed) {
            return;
        }
        let changed = entry.observed.resource_version != observed.resource_version;
        if entry.observed.uid != observed.uid {
            entry.desired = None;
        }
        entry.observed = observed;
        if changed {
            self.unschedule(id);
            self.enqueue(id);
        }
    }

    /// What a Service should show from now on; `None`: whatever it does (not ours).
    pub(crate) fn want(&mut self, id: &ServiceId, desired: Option<Desired>) {
        let entry = self.entries.entry(id.clone()).or_default();
        if entry.desired != desired {
            entry.desired = desired;
            entry.failures = 0;
            self.unschedule(id);
        }
        self.enqueue(id);
    }

    /// A Service is gone.
    pub(crate) fn forget(&mut self, id: &ServiceId) {
        self.unschedule(id);
        self.entries.remove(id);
    }

    /// Whether a Service shows `desired` already.
    pub(crate) fn shows(&self, id: &ServiceId, desired: &Desired) -> bool {
        self.entries.get(id).is_some_and(|entry| patch(desired, &entry.observed, "").is_none())
    }

    /// Starts what may start, and waits until something came to an end. Never returns while there is nothing to do.
    pub(crate) async fn next(&mut self) -> Written {
        loop {
            if let Some(settled) = self.start_some() {
                return settled;
            }
            let timer = self.retries.first().map(|(at, _)| *at);
            let due = async {
                match timer {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some((id, version, outcome)) = self.in_flight.next() => return self.ended(id, &version, outcome),
                () = due => {
                    if let Some((_, id)) = self.retries.pop_first() {
                        if let Some(entry) = self.entries.get_mut(&id) {
                            entry.retry_at = None;
                        }
                        self.enqueue(&id);
                    }
                }
            }
        }
    }

    /// Lets what is under way end; starts nothing new.
    pub(crate) async fn drain(&mut self) {
        while self.in_flight.next().await.is_some() {}
    }

    fn start_some(&mut self) -> Option<Written> {
        while self.in_flight.len() < WINDOW {
            if !self.standing.leads() {
                return None;
            }
            let id = self.queue.pop_front()?;
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            entry.queued = false;
            if entry.in_flight || entry.retry_at.is_some() {
                continue;
            }
            let Some(desired) = &entry.desired else { continue };
            let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
            let Some(body) = patch(desired, &entry.observed, &now) else {
                entry.failures = 0;
                return Some(Written::Settled(id));
            };
            entry.in_flight = true;
            let version = entry.observed.resource_version.clone();
            let attempt = attempt(self.client.clone(), id, version, body);
            self.in_flight.push(Box::pin(attempt));
        }
        None
    }

    fn ended(&mut self, id: ServiceId, version: &str, outcome: Outcome) -> Written {
        let Some(entry) = self.entries.get_mut(&id) else { return Written::Attempted("gone") };
        entry.in_flight = false;
        match outcome {
            Outcome::Done(new) => {
                entry.failures = 0;
                if new.uid == entry.observed.uid && !is_older(&new, &entry.observed) {
                    entry.observed = *new;
                }
                self.enqueue(&id);
                Written::Attempted("ok")
            }
            Outcome::Conflict => {
                // If the watch brought something newer meanwhile, it is worth another look at once.
                let pause =
                    if entry.observed.resource_version == version { AFTER_CONFLICT } else { Duration::ZERO };
                self.schedule(&id, pause);
                Written::Attempted("conflict")
            }
            Outcome::Gone => Written::Attempted("gone"),
            Outcome::Failed(why) => {
                let pause = FIRST_PAUSE.saturating_mul(1 << entry.failures.min(9)).min(LONGEST_PAUSE);
                entry.failures += 1;
                self.schedule(&id, pause);
                Written::Failed(id, why)
            }
        }
    }

    fn enqueue(&mut self, id: &ServiceId) {
        if let Some(entry) = self.entries.get_mut(id)
            && !entry.queued
            && !entry.in_flight
            && entry.desired.is_some()
        {
            entry.queued = true;
            self.queue.push_back(id.clone());
        }
    }

    fn schedule(&mut self, id: &ServiceId, pause: Duration) {
        self.unschedule(id);
        if pause.is_zero() {
            return self.enqueue(id);
        }
        if let Some(entry) = self.entries.get_mut(id) {
            let at = Instant::now() + pause;
            entry.retry_at = Some(at);
            self.retries.insert((at, id.clone()));
        }
    }

    fn unschedule(&mut self, id: &ServiceId) {
        if let Some(at) = self.entries.get_mut(id).and_then(|entry| entry.retry_at.take()) {
            self.retries.remove(&(at, id.clone()));
        }
    }
}

/// Versions of one cluster's objects grow; where they are not numbers nothing is older.
fn is_older(a: &Observed, b: &Observed) -> bool {
    let number = |observed: &Observed| observed.resource_version.parse::<u64>().ok();
    matches!((number(a), number(b)), (Some(a), Some(b)) if a < b)
}

async fn attempt(
    client: Client,
    id: ServiceId,
    version: String,
    body: Value,
) -> (ServiceId, String, Outcome) {
    let api: Api<Service> = Api::namespaced(client, &id.namespace);
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let body = Patch::Merge(body);
    let request = api.patch_status(&id.name, &params, &body);
    let outcome = match tokio::time::timeout(REQUEST_TIMEOUT, request).await {
        Ok(Ok(service)) => Outcome::Done(Box::new(observed(&service))),
        Ok(Err(kube::Error::Api(status))) if status.code == 409 => Outcome::Conflict,
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Outcome::Gone,
        Ok(Err(error)) => Outcome::Failed(error.to_string()),
        Err(_) => Outcome::Failed(format!("no answer within {REQUEST_TIMEOUT:?}")),
    };
    (id, version, outcome)
}
