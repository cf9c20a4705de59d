//! One watch per kind: the objects as they are now, and a bell that rings when they change.
//!
//! Each kind has one watcher; there are no shared streams (they lose wake-ups). A consumer waits for the bell and then looks
//! at what is there: what happened in between does not matter, only what is.
//!
//! **What is kept.** [`Watched<K>`] keeps the objects. `Watched<K, V>` keeps of each object only the value that a function
//! makes of it as it arrives, page by page: a Kubernetes object in memory is many times what anybody reads of it.

mod rows;

use std::collections::hash_map::RandomState;
use std::fmt::Debug;
use std::hash::BuildHasher;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{Stream, StreamExt};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;

pub use rows::Row;
use rows::{RowWriter, Rows, key_of};

use crate::client;
use crate::tasks::Tasks;

/// A watch request ends after this many seconds and is made anew; a dead connection is noticed 5 s after it.
pub const TIMEOUT: u32 = 50;
/// Objects per answer of a list. A page is in memory as a text and as objects, many times of what is kept of it.
const PAGE: u32 = 200;
/// How long a kind that the API server does not know is left alone before it is looked for again.
pub const ABSENT_RETRY: Duration = Duration::from_secs(10);
/// A watch that has not failed again for this long after a failure works (a healthy watch may be silent).
const RECOVERED_AFTER: Duration = Duration::from_secs(12);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// kubectl's copy of the whole object.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What can be watched: a kind that is known at compile time.
pub trait Watchable:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
}
impl<K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static> Watchable
    for K
{
}

/// The objects of one kind, or what is kept of them, kept up to date by a task. Clones share everything.
#[derive(Debug)]
pub struct Watched<K: Watchable, V: Row = Arc<K>> {
    rows: Arc<Rows<V>>,
    status: Arc<Status>,
    kind: PhantomData<fn() -> K>,
}

impl<K: Watchable, V: Row> Clone for Watched<K, V> {
    fn clone(&self) -> Self {
        Self { rows: Arc::clone(&self.rows), status: Arc::clone(&self.status), kind: PhantomData }
    }
}

#[derive(Debug, Default)]
struct Status {
    synced: AtomicBool,
    absent: AtomicBool,
    refused: AtomicBool,
    generation: AtomicU64,
    error: Mutex<Option<String>>,
}

impl<K: Watchable> Watched<K> {
    /// Starts watching what `scope` selects of `api`.
    ///
    /// `prune` drops what nobody reads before an object is kept (managedFields and kubectl's copy go in any case).
    /// `bell` is rung by `notify_one` after each change, so it has one listener; many watches may share it.
    pub fn start(
        api: Api<K>,
        scope: watcher::Config,
        prune: fn(&mut K),
        bell: Arc<Notify>,
        tasks: &mut Tasks,
    ) -> Self {
        Self::start_as(api, scope, pruned(prune), bell, tasks)
    }
}

/// The object itself, without what nobody reads.
fn pruned<K: Watchable>(prune: fn(&mut K)) -> impl FnMut(K) -> Arc<K> + Send + 'static {
    move |mut object| {
        object.managed_fields_mut().clear();
        object.annotations_mut().remove(LAST_APPLIED);
        prune(&mut object);
        Arc::new(object)
    }
}

impl<K: Watchable, V: Row> Watched<K, V> {
    /// Starts watching and keeps of each object what `keep` makes of it; the object itself is dropped. A change that leaves
    /// the [same](Row::same) value is none: no bell, no new generation.
    pub fn start_as(
        api: Api<K>,
        scope: watcher::Config,
        keep: impl FnMut(K) -> V + Send + 'static,
        bell: Arc<Notify>,
        tasks: &mut Tasks,
    ) -> Self {
        Self::start_with(api, scope, keep, bell, ABSENT_RETRY, tasks)
    }

    fn start_with(
        api: Api<K>,
        scope: watcher::Config,
        keep: impl FnMut(K) -> V + Send + 'static,
        bell: Arc<Notify>,
        absent_retry: Duration,
        tasks: &mut Tasks,
    ) -> Self {
        let watched = Self { rows: Arc::default(), status: Arc::default(), kind: PhantomData };
        let status = Arc::clone(&watched.status);
        let writer = RowWriter::new(Arc::clone(&watched.rows));
        let name = format!("watch {}", K::kind(&()));
        let scope = scope.timeout(TIMEOUT).page_size(PAGE);
        let keep = Box::new(keep);
        tasks.spawn(
            name,
            Follower { api, scope, keep, bell, absent_retry, status, writer, works: false }.run(),
        );
        watched
    }

    /// Whether the first list is complete, or the kind is known to be absent.
    #[must_use]
    pub fn synced(&self) -> bool {
        self.status.synced.load(Ordering::Acquire)
    }

    /// Whether the API server does not know the kind (its CRD is not installed): empty, and looked for again.
    #[must_use]
    pub fn absent(&self) -> bool {
        self.status.absent.load(Ordering::Acquire)
    }

    /// Whether the API server forbids it (403), as of the last try. For what is good to know but not needed: it need not
    /// be waited for.
    #[must_use]
    pub fn refused(&self) -> bool {
        self.status.refused.load(Ordering::Acquire)
    }

    /// Grows with each change; equal numbers mean equal objects.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.status.generation.load(Ordering::Acquire)
    }

    /// All that is kept, in the order of namespace and name.
    #[must_use]
    pub fn state(&self) -> Vec<V> {
        self.rows.read(<[V]>::to_vec)
    }

    /// A look at all of it in that order. The watch waits meanwhile, so be quick.
    pub fn read<R>(&self, look: impl FnOnce(&[V]) -> R) -> R {
        self.rows.read(look)
    }

    /// What is kept of one object; `namespace` is empty for cluster-scoped kinds.
    #[must_use]
    pub fn get(&self, namespace: &str, name: &str) -> Option<V> {
        self.rows.get((namespace, name))
    }

    /// The error of a watch that fails right now; what is known stays as it was.
    #[must_use]
    pub fn last_error(&self) -> Option<String> {
        self.status.error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// For [`crate::http::Health`]: ready once synced, for ever after (an API server that is down changes nothing).
    ///
    /// # Errors
    /// Why not yet.
    pub fn readiness(&self) -> Result<(), String> {
        if self.synced() {
            return Ok(());
        }
        Err(self.last_error().unwrap_or_else(|| "the first list is not complete".to_owned()))
    }
}

struct Follower<K: Watchable, V: Row> {
    api: Api<K>,
    scope: watcher::Config,
    keep: Box<dyn FnMut(K) -> V + Send>,
    bell: Arc<Notify>,
    absent_retry: Duration,
    status: Arc<Status>,
    writer: RowWriter<V>,
    /// An event came since the watch was started the last time.
    works: bool,
}

/// The API server does not know the kind.
struct Absent;

impl<K: Watchable, V: Row> Follower<K, V> {
    async fn run(mut self) {
        // What was there is not forgotten for one "not found", which an API server that is being replaced may say too.
        let mut doubts = false;
        loop {
            self.works = false;
            let stream = watcher(self.api.clone(), self.scope.clone());
            let Absent = self.follow(std::pin::pin!(stream)).await;
            if (doubts && !self.works) || self.writer.is_empty() {
                self.mark_absent();
                doubts = false;
            } else {
                doubts = true;
            }
            tokio::time::sleep(self.absent_retry).await;
        }
    }

    /// Applies events until the kind turns out to be absent.
    async fn follow(
        &mut self,
        mut stream: Pin<&mut impl Stream<Item = watcher::Result<Event<K>>>>,
    ) -> Absent {
        let mut pause = FIRST_PAUSE;
        loop {
            let next = if self.error().is_some() {
                match tokio::time::timeout(RECOVERED_AFTER, stream.next()).await {
                    Ok(next) => next,
                    Err(_) => {
                        self.recovered();
                        pause = FIRST_PAUSE;
                        continue;
                    }
                }
            } else {
                stream.next().await
            };
            match next {
                Some(Ok(event)) => {
                    if self.apply(event) {
                        self.recovered();
                        pause = FIRST_PAUSE;
                    }
                }
                Some(Err(error)) if is_absent(&error) => return Absent,
                // The history we asked for is gone; the watcher lists again. Part of normal life.
                Some(Err(watcher::Error::WatchError(status))) if status.code == 410 => {
                    tracing::debug!(kind = %K::kind(&()), "listing again: {}", status.message);
                }
                Some(Err(error)) => {
                    self.failed(&error);
                    tokio::time::sleep(jittered(pause)).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                // A watcher never ends; should it, a new one is what we want.
                None => return Absent,
            }
        }
    }

    /// True when the event proves that the watch works.
    fn apply(&mut self, event: Event<K>) -> bool {
        let changed = match event {
            Event::Init => {
                self.writer.begin();
                return false;
            }
            Event::InitApply(object) => {
                self.writer.add((self.keep)(object));
                return false;
            }
            Event::InitDone => {
                let appeared = self.status.absent.swap(false, Ordering::AcqRel);
                if appeared {
                    tracing::info!(kind = %K::kind(&()), "the API server knows the kind now");
                }
                self.writer.end() || appeared || !self.status.synced.load(Ordering::Acquire)
            }
            Event::Apply(object) => self.writer.set((self.keep)(object)),
            Event::Delete(object) => self.writer.remove(key_of(object.meta())),
        };
        self.works = true;
        if changed {
            self.changed();
        }
        true
    }

    fn changed(&self) {
        self.status.generation.fetch_add(1, Ordering::AcqRel);
        self.status.synced.store(true, Ordering::Release);
        self.bell.notify_one();
    }

    fn mark_absent(&mut self) {
        if self.status.absent.swap(true, Ordering::AcqRel) {
            return;
        }
        tracing::info!(kind = %K::kind(&()), "the API server does not know the kind; treated as none");
        *self.status.error.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.writer.clear();
        self.changed();
    }

    fn error(&self) -> Option<String> {
        self.status.error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says a failure once, not at each retry.
    fn failed(&self, error: &watcher::Error) {
        let text = brief(error);
        if !self.status.refused.swap(code(error) == Some(403), Ordering::AcqRel) && self.refused() {
            self.bell.notify_one();
        }
        let mut last = self.status.error.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_ref() != Some(&text) {
            tracing::warn!(kind = %K::kind(&()), error = %text, "watching fails; what is known stays, retrying");
            *last = Some(text);
        }
    }

    fn refused(&self) -> bool {
        self.status.refused.load(Ordering::Acquire)
    }

    fn recovered(&self) {
        self.status.refused.store(false, Ordering::Release);
        if self.status.error.lock().unwrap_or_else(PoisonError::into_inner).take().is_some() {
            tracing::info!(kind = %K::kind(&()), "watching again");
        }
    }
}

fn is_absent(error: &watcher::Error) -> bool {
    code(error) == Some(404)
}

/// What the API server answered to a list or to the start of a watch.
fn code(error: &watcher::Error) -> Option<u16> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => Some(status.code),
        _ => None,
    }
}

fn brief(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(inner) => format!("cannot list: {}", client::brief(inner)),
        watcher::Error::WatchStartFailed(inner) => format!("cannot watch: {}", client::brief(inner)),
        watcher::Error::WatchFailed(inner) => format!("the watch broke: {}", client::brief(inner)),
        watcher::Error::WatchError(status) => {
            format!("the watch broke: {} ({})", status.message, status.code)
        }
        watcher::Error::NoResourceVersion => client::with_causes(error),
    }
}

/// Between half and all of `pause`, so that the watches of many processes do not come back together.
fn jittered(pause: Duration) -> Duration {
    let random = (RandomState::new().hash_one(0u8) % 1000) as u32;
    pause / 2 + pause / 2 * random / 1000
}

#[cfg(test)]
mod tests;
