//! Who of several controllers works: one Lease, written only with its resourceVersion, expiry judged by our own clock.
//!
//! A holder that cannot renew stops working after two thirds of the Lease's duration, by its own monotonic clock, which
//! counts while the process is stopped (and by the wall clock, which counts while the machine is); nobody takes the Lease
//! before it saw no renewal for the whole duration. So there is never a moment at which two controllers believe that they
//! work. What a controller sent before it stopped may arrive later all the same; that is what [`Before`] is for.

mod standing;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use patina_runtime::client::brief;

pub(crate) use self::standing::Standing;

/// Name of the Lease, in the controller's namespace.
pub(crate) const LEASE: &str = "patina-controller";

/// The pace of the election; everything follows from the Lease's duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pace {
    /// What others wait for after the last renewal they saw.
    pub(crate) duration: Duration,
    /// We stop working this long after our last successful renewal began. Less than `duration`.
    renew_deadline: Duration,
    renew_every: Duration,
    retry_every: Duration,
    request_timeout: Duration,
}

impl Pace {
    /// With 15 s: 10 s, 4 s, 1 s, 4 s.
    pub(crate) fn of(duration: Duration) -> Self {
        let quarter = duration * 4 / 15;
        Self {
            duration,
            renew_deadline: duration * 2 / 3,
            renew_every: quarter,
            retry_every: duration / 15,
            request_timeout: quarter,
        }
    }
}

/// How the Lease came to us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Takeover {
    /// Different for each time that it changes hands.
    pub(crate) term: String,
    pub(crate) before: Before,
}

/// Who had the Lease before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    /// Somebody who gave it back, and had nothing under way then.
    Released,
    /// There was no Lease: nobody ever had it, or somebody deleted it.
    Absent,
    /// Somebody (perhaps ourselves) who may still have something under way.
    Unfinished,
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
    pace: Pace,
    /// The Lease as last seen, and since when by our clock.
    last: Option<(Lease, Instant)>,
}

impl Candidate {
    pub(crate) fn new(
        client: Client,
        namespace: &str,
        identity: String,
        standing: Standing,
        pace: Pace,
    ) -> Self {
        Self { api: Api::namespaced(client, namespace), identity, standing, pace, last: None }
    }

    /// Waits until the Lease is ours.
    pub(crate) async fn acquire(&mut self) -> Takeover {
        loop {
            let began = Instant::now();
            match self.try_acquire().await {
                Ok(Some(takeover)) => {
                    self.standing.lead(began, self.pace.renew_deadline);
                    self.standing.saw(Ok(self.identity.clone()));
                    tracing::info!(
                        identity = self.identity,
                        term = takeover.term,
                        before = ?takeover.before,
                        "leading"
                    );
                    return takeover;
                }
                Ok(None) => {
                    let holder = self.holder().unwrap_or_default().to_owned();
                    if self.standing.saw(Ok(holder.clone())) {
                        tracing::info!(leader = holder, "standing by");
                    }
                }
                Err(error) => {
                    if self.standing.saw(Err(format!("cannot take the Lease {LEASE}: {error}"))) {
                        tracing::warn!("cannot take the Lease {LEASE}: {error}");
                    }
                }
            }
            tokio::time::sleep(self.pace.retry_every).await;
        }
    }

    /// Renews; returns when the Lease is lost.
    pub(crate) async fn hold(&mut self) {
        let Pace { renew_deadline, renew_every, retry_every, .. } = self.pace;
        let mut next = renew_every;
        let mut began = Instant::now();
        loop {
            let deadline = began + renew_deadline;
            tokio::time::sleep_until((Instant::now() + next).min(deadline).into()).await;
            if Instant::now() >= deadline {
                tracing::warn!(
                    "the Lease {LEASE} could not be renewed within {renew_deadline:?}; stopping work"
                );
                break;
            }
            let now = Instant::now();
            match self.renew().await {
                Ok(true) => {
                    began = now;
                    self.standing.lead(began, renew_deadline);
                    self.standing.saw(Ok(self.identity.clone()));
                    next = renew_every;
                }
                Ok(false) => {
                    let holder = self.holder().unwrap_or_default();
                    tracing::warn!(leader = holder, "the Lease {LEASE} is somebody else's; stopping work");
                    break;
                }
                Err(error) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    let why = format!("cannot renew the Lease {LEASE}: {error}");
                    tracing::warn!("{why}; work stops in {:.1} s", left.as_secs_f64());
                    self.standing.saw(Err(why));
                    next = retry_every;
                }
            }
        }
        self.standing.stop();
    }

    /// Gives the Lease back, so that the next one need not wait for its expiry. Only for who has nothing under way.
    pub(crate) async fn release(&mut self) {
        self.standing.stop();
        let Some((lease, _)) = self.last.take().filter(|(lease, _)| self.is_ours(lease)) else { return };
        let mut released = self.with_us(&lease);
        if let Some(spec) = released.spec.as_mut() {
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
        }
        match self.timed(self.api.replace(LEASE, &PostParams::default(), &released)).await {
            Ok(_) => tracing::info!("gave the Lease {LEASE} back"),
            Err(error) => tracing::warn!("cannot give the Lease {LEASE} back, others wait for it: {error}"),
        }
    }

    async fn try_acquire(&mut self) -> Result<Option<Takeover>, LeaseError> {
        let Some(lease) = self.timed(self.api.get_opt(LEASE)).await? else {
            let new = self.with_us(&Lease {
                metadata: ObjectMeta { name: Some(LEASE.to_owned()), ..ObjectMeta::default() },
                spec: None,
            });
            let created = self.timed(self.api.create(&PostParams::default(), &new)).await;
            return self.takeover(created, Before::Absent);
        };
        self.see(&lease);
        if !(self.is_ours(&lease) || self.is_free(&lease)) {
            return Ok(None);
        }
        let before = if holder(&lease).is_none() { Before::Released } else { Before::Unfinished };
        let ours = self.with_us(&lease);
        let replaced = self.timed(self.api.replace(LEASE, &PostParams::default(), &ours)).await;
        self.takeover(replaced, before)
    }

    fn takeover(
        &mut self,
        result: Result<Lease, LeaseError>,
        before: Before,
    ) -> Result<Option<Takeover>, LeaseError> {
        if !self.write(result)? {
            return Ok(None);
        }
        let spec = self.last.as_ref().and_then(|(lease, _)| lease.spec.as_ref());
        let number = spec.and_then(|spec| spec.lease_transitions).unwrap_or(0);
        Ok(Some(Takeover { term: format!("term {number} of {}", self.identity), before }))
    }

    async fn renew(&mut self) -> Result<bool, LeaseError> {
        let Some((lease, _)) = self.last.clone().filter(|(lease, _)| self.is_ours(lease)) else {
            return Ok(false);
        };
        let ours = self.with_us(&lease);
        let replaced = self.timed(self.api.replace(LEASE, &PostParams::default(), &ours)).await;
        if self.write(replaced)? {
            return Ok(true);
        }
        // Somebody wrote it (a takeover, or just an annotation) or deleted it.
        match self.timed(self.api.get_opt(LEASE)).await? {
            Some(lease) => {
                self.see(&lease);
                if !self.is_ours(&lease) {
                    return Ok(false);
                }
                let ours = self.with_us(&lease);
                let replaced = self.timed(self.api.replace(LEASE, &PostParams::default(), &ours)).await;
                self.write(replaced)
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
            Err(LeaseError::Api(kube::Error::Api(status))) if [404, 409].contains(&status.code) => Ok(false),
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
        let duration =
            seconds.and_then(|n| u64::try_from(n).ok()).map_or(self.pace.duration, Duration::from_secs);
        self.last.as_ref().is_some_and(|(_, since)| since.elapsed() >= duration)
    }

    async fn timed<T>(&self, request: impl Future<Output = kube::Result<T>>) -> Result<T, LeaseError> {
        let limit = self.pace.request_timeout;
        match tokio::time::timeout(limit, request).await {
            Ok(result) => result.map_err(LeaseError::Api),
            Err(_) => Err(LeaseError::Slow(limit)),
        }
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
                lease_duration_seconds: i32::try_from(self.pace.duration.as_secs()).ok(),
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
    #[error("{}", brief(.0))]
    Api(kube::Error),
    #[error("no answer within {0:?}")]
    Slow(Duration),
}
