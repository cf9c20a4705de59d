//! Kubernetes events, said once.
//!
//! A reconcile may say the same thing a thousand times; the API server hears it once until something else is said about
//! the same object for the same reason. Callers never wait: events go through a bounded queue to one task.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, Recorder, Reporter};
use tokio::sync::mpsc::{self, error::TrySendError};

pub use kube::runtime::events::EventType;

use crate::client;
use crate::tasks::Tasks;

/// MetalLB's component names, as users filter events by them.
pub const CONTROLLER: &str = "metallb-controller";
/// See [`CONTROLLER`].
pub const SPEAKER: &str = "metallb-speaker";

/// Events that wait for the API server; more are dropped, and may be said again.
const QUEUE: usize = 1024;
/// Remembered (object, reason) pairs, 40 bytes each; the oldest is forgotten first.
const MEMORY: usize = 16 * 1024;
/// Limit of the API server for `note`.
const LONGEST_MESSAGE: usize = 1024;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Says what happens to objects. Clones share the queue and the memory.
#[derive(Clone, Debug)]
pub struct Events {
    queue: mpsc::Sender<Queued>,
    said: Arc<Mutex<Said>>,
}

/// An event on its way.
#[derive(Clone, Debug, PartialEq)]
pub struct Queued {
    /// What it is about.
    pub object: ObjectReference,
    /// Whether somebody should act.
    pub kind: EventType,
    /// MetalLB's word for it.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

/// What became of a call of [`Events::publish`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// On its way.
    Queued,
    /// Said before, nothing else since.
    Same,
    /// Dropped: the API server takes events slower than they come.
    Full,
}

impl Events {
    /// Starts the task that sends. `component` is [`CONTROLLER`] or [`SPEAKER`], `instance` the Pod's name.
    pub fn start(client: Client, component: &str, instance: &str, tasks: &mut Tasks) -> Self {
        let (events, queue) = Self::queue();
        let reporter = Reporter { controller: component.to_owned(), instance: Some(instance.to_owned()) };
        tasks.spawn("events", send_all(client, reporter, queue, Arc::clone(&events.said)));
        events
    }

    /// Without a task: who holds the receiver sees what would be sent (for tests).
    #[must_use]
    pub fn queue() -> (Self, mpsc::Receiver<Queued>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self { queue: sender, said: Arc::default() }, receiver)
    }

    /// Says `message` about `object`, unless it was the last thing said for this reason. Never waits.
    pub fn publish(
        &self,
        object: &ObjectReference,
        kind: EventType,
        reason: &str,
        message: &str,
    ) -> Published {
        let key = key(object, reason);
        let what = hash(&(kind, message));
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.last(key) == Some(what) {
            return Published::Same;
        }
        let event = Queued {
            object: object.clone(),
            kind,
            reason: reason.to_owned(),
            message: shortened(message).to_owned(),
        };
        match self.queue.try_send(event) {
            Ok(()) => {
                said.remember(key, what);
                Published::Queued
            }
            Err(TrySendError::Full(_) | TrySendError::Closed(_)) => {
                tracing::debug!(reason, name = object.name, "event dropped: the queue is full");
                Published::Full
            }
        }
    }

    /// Forgets what was said about an object that is gone.
    pub fn forget(&self, object: &ObjectReference) {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).forget_all_of(object_hash(object));
    }
}

/// Hashes of the object and of the reason.
type Key = (u64, u64);

#[derive(Debug, Default)]
struct Said {
    last: HashMap<Key, u64>,
    /// Oldest first; may name what was forgotten since.
    order: VecDeque<Key>,
    /// Every reason ever said, which are a few words: what an object could be remembered with.
    reasons: BTreeSet<u64>,
}

impl Said {
    fn last(&self, key: Key) -> Option<u64> {
        self.last.get(&key).copied()
    }

    fn remember(&mut self, key: Key, what: u64) {
        if self.last.insert(key, what).is_none() {
            self.order.push_back(key);
            self.reasons.insert(key.1);
        }
        while self.order.len() > MEMORY {
            if let Some(oldest) = self.order.pop_front() {
                self.last.remove(&oldest);
            }
        }
    }

    fn forget(&mut self, key: Key) {
        if self.last.remove(&key).is_some() {
            self.order.retain(|other| *other != key);
        }
    }

    /// Without a look at everything that is remembered: when a namespace goes, this happens thousands of times.
    fn forget_all_of(&mut self, object: u64) {
        for reason in &self.reasons {
            self.last.remove(&(object, *reason));
        }
    }
}

async fn send_all(
    client: Client,
    reporter: Reporter,
    mut queue: mpsc::Receiver<Queued>,
    said: Arc<Mutex<Said>>,
) {
    let mut failing = false;
    while let Some(event) = queue.recv().await {
        let mut pause = Duration::from_secs(1);
        loop {
            match send(&client, &reporter, &event).await {
                Ok(()) => {
                    failing = false;
                    break;
                }
                Err(failure) => {
                    if !failing {
                        tracing::warn!(reason = event.reason, "cannot send an event: {failure}");
                        failing = true;
                    }
                    if matches!(failure, Failure::Refused(_)) {
                        // Nobody heard it, so it may be said again.
                        let key = key(&event.object, &event.reason);
                        said.lock().unwrap_or_else(PoisonError::into_inner).forget(key);
                        break;
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("refused: {}", client::brief(.0))]
    Refused(kube::Error),
    #[error("will be tried again: {}", client::brief(.0))]
    Later(kube::Error),
    #[error("will be tried again: no answer within {REQUEST_TIMEOUT:?}")]
    Slow,
}

async fn send(client: &Client, reporter: &Reporter, event: &Queued) -> Result<(), Failure> {
    // A recorder of its own per event: its cache of six minutes would hold thousands of events, and its series are
    // for repetitions, which we do not send.
    let recorder = Recorder::new(client.clone(), reporter.clone());
    let kube_event = Event {
        type_: event.kind,
        reason: event.reason.clone(),
        note: Some(event.message.clone()),
        action: "Reconcile".to_owned(),
        secondary: None,
    };
    match tokio::time::timeout(REQUEST_TIMEOUT, recorder.publish(&kube_event, &event.object)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(kube::Error::Api(status))) if (400..500).contains(&status.code) && status.code != 429 => {
            Err(Failure::Refused(kube::Error::Api(status)))
        }
        Ok(Err(error)) => Err(Failure::Later(error)),
        Err(_) => Err(Failure::Slow),
    }
}

fn key(object: &ObjectReference, reason: &str) -> Key {
    (object_hash(object), hash(&reason))
}

fn object_hash(object: &ObjectReference) -> u64 {
    hash(&(&object.kind, &object.namespace, &object.name, &object.uid))
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

fn shortened(message: &str) -> &str {
    let mut end = message.len().min(LONGEST_MESSAGE);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    &message[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str) -> ObjectReference {
        ObjectReference {
            kind: Some("Service".to_owned()),
            namespace: Some("default".to_owned()),
            name: Some(name.to_owned()),
            uid: Some(format!("uid-of-{name}")),
            ..ObjectReference::default()
        }
    }

    #[tokio::test]
    async fn the_same_is_said_once_until_something_else_was_said() {
        let (events, mut queue) = Events::queue();
        let say = |name: &str, reason: &str, message: &str| {
            events.publish(&service(name), EventType::Normal, reason, message)
        };
        assert_eq!(say("web", "nodeAssigned", "node-1"), Published::Queued);
        assert_eq!(say("web", "nodeAssigned", "node-1"), Published::Same);
        assert_eq!(say("api", "nodeAssigned", "node-1"), Published::Queued, "another object");
        assert_eq!(say("web", "IPAllocated", "node-1"), Published::Queued, "another reason");
        assert_eq!(say("web", "nodeAssigned", "node-2"), Published::Queued, "it changed");
        assert_eq!(say("web", "nodeAssigned", "node-1"), Published::Queued, "it changed back");
        events.forget(&service("web"));
        assert_eq!(say("web", "nodeAssigned", "node-1"), Published::Queued, "a new object of that name");
        assert_eq!(say("api", "nodeAssigned", "node-1"), Published::Same, "others are remembered");
        drop(events);
        let mut sent = Vec::new();
        while let Some(event) = queue.recv().await {
            sent.push(event.message);
        }
        assert_eq!(sent.len(), 6);
    }

    #[test]
    fn a_full_queue_drops_and_may_say_it_again() {
        let (events, mut queue) = Events::queue();
        for i in 0..QUEUE {
            let name = format!("s{i}");
            assert_eq!(
                events.publish(&service(&name), EventType::Warning, "AllocationFailed", "no"),
                Published::Queued
            );
        }
        let late = || events.publish(&service("late"), EventType::Warning, "AllocationFailed", "no");
        assert_eq!(late(), Published::Full);
        queue.try_recv().unwrap();
        assert_eq!(late(), Published::Queued);
    }

    #[test]
    fn memory_is_bounded() {
        let mut said = Said::default();
        for i in 0..(MEMORY as u64 + 100) {
            said.remember((i, 0), 1);
            said.remember((i, 0), 2);
        }
        assert_eq!((said.last.len(), said.order.len()), (MEMORY, MEMORY));
        assert_eq!(said.last((0, 0)), None, "the oldest went");
        assert_eq!(said.last((MEMORY as u64, 0)), Some(2));
        for i in 0..(2 * MEMORY as u64) {
            said.remember((i, 1), 1);
            said.forget_all_of(i);
        }
        assert!(said.last.is_empty() && said.order.len() <= MEMORY, "what is forgotten takes no room");
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let long = "ä".repeat(600);
        assert_eq!(shortened(&long).len(), 1024);
        let odd = format!("a{long}");
        assert_eq!(shortened(&odd).len(), 1023);
    }
}
