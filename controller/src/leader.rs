//! Who of several controllers works: one Lease, written only with its resourceVersion, expiry judged by our own clock.
//!
//! A holder that cannot renew stops working after [`RENEW_DEADLINE`], by its own monotonic clock, which counts while the
//! process is stopped; nobody takes the Lease before it saw no renewal for the whole duration. So there is never a
//! moment at which two controllers believe that they work.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};

/// Name of the Lease, in the controller's namespace.
pub(crate) const LEASE: &str = "patina-controller";
/// What others wait for after the last renewal they saw.
const DURATION: Duration = Duration::from_secs(15);
/// We stop working this long after our last successful renewal began. Less than `DURATION`.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
const RENEW_EVERY: Duration = Duration::from_secs(4);
const RETRY_EVERY: Duration = Duration::from_secs(1);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);

/// Whether we may write right now; shared with everything that writes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Standing(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    /// Working until then.
    until: Option<Instant>,
    /// Who holds the Lease, or why that is not known.
    seen: Option<Result<String, String>>,
}

impl Standing {
    pub(crate) fn leads(&self) -> bool {
        self.lock().until.is_some_and(|until| Instant::now() < until)
    }

    /// Ready is who leads, or knows who does.
    pub(crate) fn readiness(&self) -> Result<(), String> {
        match &self.lock().seen {
            Some(Ok(_)) => Ok(()),
            Some(Err(why)) => Err(why.clone()),
            None => Err("the Lease was not read yet".to_owned()),
        }
    }

    fn set(&self, until: Option<Instant>) {
        self.lock().until = until;
    }

    /// True when this is news.
    fn saw(&self, seen: Result<String, String>) -> bool {
        let mut inner = self.lock();
        let news = inner.seen.as_ref() != Some(&seen);
        inner.seen = Some(seen);
        news
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A name for this process. A Pod's name is enough: the container that had it before is dead. Without a Pod (the name
/// is the host's then) two processes may run on one host, so a random part makes them different.
pub(crate) fn identity(pod_name: &str) -> String {
    if std::env::var_os("METALLB_POD_NAME").is_some_and(|name| name == pod_name)
        || std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
    {
        return pod_name.to_owned();
    }
    let random = RandomState::new().hash_one(std::process::id());
    format!("{pod_name}_{random:016x}")
}

/// One controller's part in the election.
#[derive(Debug)]
pub(crate) struct Candidate {
    api: Api<Lease>,
    identity: String,
    standing: Standing,
    /// The Lease as last seen, and since when by our clock.
    last: Option<(Lease, Instant)>,
}

impl Candidate {
    pub(crate) fn new(client: Client, namespace: &str, identity: String, standing: Standing) -> Self {
        Self { api: Api::namespaced(client, namespace), identity, standing, last: None }
    }

    /// Waits until the Lease is ours.
    pub(crate) async fn acquire(&mut self) {
        loop {
            let began = Instant::now();
            match self.try_acquire().await {
                Ok(true) => {
                    self.standing.set(Some(began + RENEW_DEADLINE));
                    self.standing.saw(Ok(self.identity.clone()));
                    tracing::info!(identity = self.identity, "leading");
                    return;
                }
                Ok(false) => {
                    let holder = self.holder().unwrap_or_default().to_owned();
                    if self.standing.saw(Ok(holder.clone())) {
                        tracing::info!(leader = holder, "standing by");
                    }
                }
                Err(error) => {
                    if self.standing.saw(Err(error.to_string())) {
                        tracing::warn!("cannot take the Lease {LEASE}: {error}");
                    }
                }
            }
            tokio::time::sleep(RETRY_EVERY).await;
        }
    }

    /// Renews; returns when the Lease is lost.
    pub(crate) async fn hold(&mut self) {
        let mut next = RENEW_EVERY;
        let mut began = Instant::now();
        loop {
            let deadline = began + RENEW_DEADLINE;
            tokio::time::sleep_until((Instant::now() + next).min(deadline).into()).await;
            if Instant::now() >= deadline {
                tracing::warn!(
                    "the Lease {LEASE} could not be renewed within {RENEW_DEADLINE:?}; stopping work"
                );
                break;
            }
            let now = Instant::now();
            match self.renew().await {
                Ok(true) => {
                    began = now;
                    self.standing.set(Some(began + RENEW_DEADLINE));
                    next = RENEW_EVERY;
                }
                Ok(false) => {
                    let holder = self.holder().unwrap_or_default();
                    tracing::warn!(leader = holder, "the Lease {LEASE} is somebody else's; stopping work");
                    break;
                }
                Err(error) => {
                    tracing::warn!("cannot renew the Lease {LEASE}: {error}");
                    next = RETRY_EVERY;
                }
            }
        }
        self.standing.set(None);
    }

    /// Gives the Lease back, so that the next one need not wait for its expiry.
    pub(crate) async fn release(&mut self) {
        self.standing.set(None);
        let Some((lease, _)) = self.last.take().filter(|(lease, _)| self.is_ours(lease)) else { return };
        let mut released = self.with_us(&lease);
        if let Some(spec) = released.spec.as_mut() {
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
        }
        match timed(self.api.replace(LEASE, &PostParams::default(), &released)).await {
            Ok(_) => tracing::info!("gave the Lease {LEASE} back"),
            Err(error) => tracing::warn!("cannot give the Lease {LEASE} back, others wait for it: {error}"),
        }
    }

    async fn try_acquire(&mut self) -> Result<bool, LeaseError> {
        let Some(lease) = timed(self.api.get_opt(LEASE)).await? else {
            let new = self.with_us(&Lease {
                metadata: ObjectMeta { name: Some(LEASE.to_owned()), ..ObjectMeta::default() },
                spec: None,
            });
            return self.write(timed(self.api.create(&PostParams::default(), &new)).await);
        };
        self.see(&lease);
        if !(self.is_ours(&lease) || self.is_free(&lease)) {
            return Ok(false);
        }
        let ours = self.with_us(&lease);
        self.write(timed(self.api.replace(LEASE, &PostParams::default(), &ours)).await)
    }

    async fn renew(&mut self) -> Result<bool, LeaseError> {
        let Some((lease, _)) = self.last.clone().filter(|(lease, _)| self.is_ours(lease)) else {
            return Ok(false);
        };
        let ours = self.with_us(&lease);
        if self.write(timed(self.api.replace(LEASE, &PostParams::default(), &ours)).await)? {
            return Ok(true);
        }
        // Somebody wrote it: a takeover, or just an annotation.
        match timed(self.api.get_opt(LEASE)).await? {
            Some(lease) => {
                self.see(&lease);
                if !self.is_ours(&lease) {
                    return Ok(false);
                }
                let ours = self.with_us(&lease);
                self.write(timed(self.api.replace(LEASE, &PostParams::default(), &ours)).await)
            }
            None => Ok(false),
        }
    }

    /// False: somebody was faster.
    fn write(&mut self, result: Result<Lease, LeaseError>) -> Result<bool, LeaseError> {
        match result {
            Ok(lease) => {
                self.last = Some((lease, Instant::now()));
                Ok(true)
            }
            Err(LeaseError::Api(kube::Error::Api(status))) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Remembers a Lease and, if it changed, the moment.
    fn see(&mut self, lease: &Lease) {
        let same =
            |(last, _): &(Lease, Instant)| last.metadata.resource_version == lease.metadata.resource_version;
        if !self.last.as_ref().is_some_and(same) {
            self.last = Some((lease.clone(), Instant::now()));
        }
    }

    fn is_ours(&self, lease: &Lease) -> bool {
        holder(lease) == Some(&self.identity)
    }

    /// Nobody holds it, or it was not renewed for its duration while we looked.
    fn is_free(&self, lease: &Lease) -> bool {
        if holder(lease).is_none() {
            return true;
        }
        let seconds = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds);
        let duration = seconds.and_then(|n| u64::try_from(n).ok()).map_or(DURATION, Duration::from_secs);
        self.last.as_ref().is_some_and(|(_, since)| since.elapsed() >= duration)
    }

    fn holder(&self) -> Option<&str> {
        self.last.as_ref().and_then(|(lease, _)| holder(lease))
    }

    fn with_us(&self, lease: &Lease) -> Lease {
        let now = MicroTime(Timestamp::now());
        let old = lease.spec.clone().unwrap_or_default();
        let changes_hands = !self.is_ours(lease);
        let transitions =
            old.lease_transitions.unwrap_or(0) + i32::from(changes_hands && lease.spec.is_some());
        Lease {
            metadata: lease.metadata.clone(),
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
                acquire_time: if changes_hands { Some(now.clone()) } else { old.acquire_time.clone() },
                renew_time: Some(now),
                lease_transitions: Some(transitions),
                ..old
            }),
        }
    }
}

fn holder(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref().filter(|holder| !holder.is_empty())
}

#[derive(Debug, thiserror::Error)]
enum LeaseError {
    #[error("{0}")]
    Api(kube::Error),
    #[error("no answer within {REQUEST_TIMEOUT:?}")]
    Slow,
}

async fn timed<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, LeaseError> {
    match tokio::time::timeout(REQUEST_TIMEOUT, request).await {
        Ok(result) => result.map_err(LeaseError::Api),
        Err(_) => Err(LeaseError::Slow),
    }
}
