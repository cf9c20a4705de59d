//! Supervised tasks: the end or panic of any of them ends the process, so that there is never half a daemon.

use std::any::Any;
use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{Id, JoinError, JoinSet};

/// Why the process must end with a failure.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// A task ended though nobody asked it to.
    #[error("task {task} ended: {reason}")]
    Ended {
        /// Its name.
        task: String,
        /// Its error with all causes, or that it just returned.
        reason: String,
    },
    /// A task panicked.
    #[error("task {task} panicked: {message}")]
    Panicked {
        /// Its name.
        task: String,
        /// The panic's message.
        message: String,
    },
    /// Tasks that had something to finish did not within the deadline.
    #[error("shutdown took longer than {deadline:?}; still busy: {}", tasks.join(", "))]
    Slow {
        /// How long they had.
        deadline: Duration,
        /// Their names.
        tasks: Vec<String>,
    },
    /// The process cannot listen for signals.
    #[error("cannot listen for signals: {0}")]
    Signals(#[from] std::io::Error),
}

/// What a task may return: nothing, or a result whose error is the reason of the process's end.
pub trait TaskOutput: Send + 'static {
    /// The error, with its causes.
    fn reason(self) -> Option<String>;
}

impl TaskOutput for () {
    fn reason(self) -> Option<String> {
        None
    }
}

impl<E: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static> TaskOutput for Result<(), E> {
    fn reason(self) -> Option<String> {
        self.err().map(|error| {
            let error = error.into();
            crate::client::with_causes(error.as_ref())
        })
    }
}

/// The signal to finish: clone it into every task that has something to finish.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<bool>);

impl Shutdown {
    /// Waits until the process was asked to end; returns at once when it was.
    pub async fn requested(&mut self) {
        // An error means that the supervisor is gone: the end as well.
        let _ = self.0.wait_for(|requested| *requested).await;
    }

    /// Whether the process was asked to end.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        *self.0.borrow()
    }
}

/// The tasks of a process.
#[derive(Debug)]
pub struct Tasks {
    set: JoinSet<Option<String>>,
    kinds: HashMap<Id, Task>,
    shutdown: watch::Sender<bool>,
}

#[derive(Debug)]
struct Task {
    name: String,
    /// Has something to finish after the signal; waited for.
    finishes: bool,
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new()
    }
}

impl Tasks {
    /// No tasks yet.
    #[must_use]
    pub fn new() -> Self {
        Self { set: JoinSet::new(), kinds: HashMap::new(), shutdown: watch::Sender::new(false) }
    }

    /// Starts a task that runs as long as the process and is cut off at its end (watches, servers).
    pub fn spawn<F>(&mut self, name: impl Into<String>, task: F)
    where
        F: Future<Output: TaskOutput> + Send + 'static,
    {
        self.start(name.into(), false, task);
    }

    /// Starts a task that watches [`Shutdown`] and has something to finish after it (release a lease, withdraw).
    /// [`Tasks::run`] waits for its end.
    pub fn spawn_finishing<F>(&mut self, name: impl Into<String>, task: F)
    where
        F: Future<Output: TaskOutput> + Send + 'static,
    {
        self.start(name.into(), true, task);
    }

    /// Like [`Tasks::spawn_finishing`], on a thread and a runtime of its own: what must not wait for a decision or for
    /// a large answer of the API server to be read. `make` runs on the new thread, so that what it opens (sockets,
    /// timers) belongs to that runtime.
    ///
    /// # Errors
    /// No thread, or no runtime on it.
    pub fn spawn_thread<M, F>(&mut self, name: &str, make: M) -> std::io::Result<()>
    where
        M: FnOnce() -> F + Send + 'static,
        F: Future<Output: TaskOutput> + 'static,
    {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (tell, told) = tokio::sync::oneshot::channel();
        let thread = std::thread::Builder::new().name(name.to_owned());
        thread.spawn(move || {
            let local = tokio::task::LocalSet::new();
            let work = || local.block_on(&runtime, async move { make().await }).reason();
            // A panic is told to the supervisor, not lost with the thread.
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            let _supervisor_gone = tell.send(ended);
        })?;
        self.start(name.to_owned(), true, async move {
            match told.await {
                Ok(Ok(None)) => Ok(()),
                Ok(Ok(Some(reason))) => Err(reason),
                Ok(Err(payload)) => std::panic::resume_unwind(payload),
                Err(_) => Err("its thread ended".to_owned()),
            }
        });
        Ok(())
    }

    /// The signal that SIGTERM, SIGINT or [`Tasks::request_shutdown`] give.
    #[must_use]
    pub fn shutdown(&self) -> Shutdown {
        Shutdown(self.shutdown.subscribe())
    }

    /// A handle with which a task can ask for the end of the process.
    #[must_use]
    pub fn request_shutdown(&self) -> ShutdownRequest {
        ShutdownRequest(self.shutdown.clone())
    }

    /// Runs until SIGTERM, SIGINT or a request, then lets finishing tasks end within `deadline`. A second signal cuts
    /// that short.
    ///
    /// # Errors
    /// A task ended or panicked before, or a finishing one failed or was too slow. `main` logs it and exits with 1.
    pub async fn run(mut self, deadline: Duration) -> Result<(), TaskError> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut shutdown = self.shutdown();
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
            () = shutdown.requested() => "request",
            Some(ended) = self.set.join_next_with_id() => return Err(self.failure(ended)),
        };
        tracing::info!(signal = name, "shutting down");
        self.shutdown.send_replace(true);
        let end = tokio::time::sleep(deadline);
        tokio::pin!(end);
        while self.kinds.values().any(|task| task.finishes) {
            tokio::select! {
                () = &mut end => {
                    let tasks = self.kinds.into_values().filter(|task| task.finishes).map(|task| task.name);
                    return Err(TaskError::Slow { deadline, tasks: tasks.collect() });
                }
                _ = terminate.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
                Some(ended) = self.set.join_next_with_id() => {
                    if let Ok((id, None)) = ended {
                        self.kinds.remove(&id);
                    } else {
                        return Err(self.failure(ended));
                    }
                }
            }
        }
        Ok(())
    }

    fn start<F>(&mut self, name: String, finishes: bool, task: F)
    where
        F: Future<Output: TaskOutput> + Send + 'static,
    {
        let handle = self.set.spawn(async move { task.await.reason() });
        self.kinds.insert(handle.id(), Task { name, finishes });
    }

    fn failure(&mut self, ended: Result<(Id, Option<String>), JoinError>) -> TaskError {
        let mut name = |id| self.kinds.remove(&id).map_or_else(|| "unknown".to_owned(), |task| task.name);
        match ended {
            Ok((id, reason)) => TaskError::Ended {
                task: name(id),
                reason: reason.unwrap_or_else(|| "it returned, which it never should".to_owned()),
            },
            Err(error) => {
                let task = name(error.id());
                match error.try_into_panic() {
                    Ok(payload) => TaskError::Panicked { task, message: panic_message(payload.as_ref()) },
                    Err(_) => TaskError::Ended { task, reason: "it was cancelled".to_owned() },
                }
            }
        }
    }
}

/// Asks for the end of the process, as SIGTERM does.
#[derive(Clone, Debug)]
pub struct ShutdownRequest(watch::Sender<bool>);

impl ShutdownRequest {
    /// Asks now.
    pub fn request(&self) {
        self.0.send_replace(true);
    }
}

fn panic_message(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn a_task_that_returns_ends_the_process_by_name() {
        let mut tasks = Tasks::new();
        tasks.spawn("rest", pending::<()>());
        tasks.spawn("watch", async {});
        let error = tasks.run(DEADLINE).await.unwrap_err();
        assert_eq!(error.to_string(), "task watch ended: it returned, which it never should");
    }

    #[tokio::test]
    async fn an_error_is_told_with_its_causes() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot bind")]
        struct Bind(#[source] std::io::Error);
        let mut tasks = Tasks::new();
        tasks.spawn("http", async { Err::<(), _>(Bind(std::io::Error::other("in use"))) });
        assert_eq!(
            tasks.run(DEADLINE).await.unwrap_err().to_string(),
            "task http ended: cannot bind: in use"
        );
    }

    #[tokio::test]
    async fn a_panic_ends_the_process_by_name() {
        let mut tasks = Tasks::new();
        tasks.spawn("allocator", async {
            let text = "seven".parse::<u8>();
            assert!(text.is_ok(), "seven");
        });
        let error = tasks.run(DEADLINE).await.unwrap_err();
        assert_eq!(error.to_string(), "task allocator panicked: seven");
    }

    #[tokio::test]
    async fn shutdown_lets_tasks_finish_and_cuts_the_rest() {
        let mut tasks = Tasks::new();
        let released = Arc::new(AtomicBool::new(false));
        let (mut shutdown, flag) = (tasks.shutdown(), Arc::clone(&released));
        tasks.spawn_finishing("lease", async move {
            shutdown.requested().await;
            flag.store(true, Ordering::SeqCst);
        });
        tasks.spawn("watch", pending::<()>());
        tasks.request_shutdown().request();
        tasks.run(DEADLINE).await.unwrap();
        assert!(released.load(Ordering::SeqCst));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_end_names_who_is_slow() {
        let mut tasks = Tasks::new();
        tasks.spawn_finishing("withdraw", pending::<()>());
        tasks.request_shutdown().request();
        let error = tasks.run(DEADLINE).await.unwrap_err();
        assert_eq!(error.to_string(), "shutdown took longer than 5s; still busy: withdraw");
    }
}
