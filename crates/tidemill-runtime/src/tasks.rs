//! Supervised tasks: each has a name, a say in what its failure means, and an end at shutdown.
//!
//! [`Tasks`] is the only place that spawns. A task that returns an error or panics is logged with its name; if it is
//! vital, the whole process is asked to end. Shutdown cancels the token that every task watches, waits for a grace,
//! and aborts and names whatever still runs. A few tasks, such as the admin door, serve until all others have ended.

mod set;

use std::{
    any::Any,
    collections::BTreeMap,
    fmt,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::FutureExt;
use tokio::task::AbortHandle;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use set::{TaskFailure, TaskSet};

/// What the failure of a task (an error, a panic) means for the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// The process cannot do its work without it: ask it to end. Such a task runs until it is asked to end; if it ends
    /// before, even without an error, that is a failure, for a process without its reader would live and be deaf.
    ShutDown,
    /// The failure is logged and counted; the rest goes on.
    Log,
}

/// How the tasks of a process ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ended {
    /// Names of the tasks that did not end within the grace and were aborted.
    pub unfinished: Vec<&'static str>,
    /// The failure that asked the process to end, if one did: the task's name and its words.
    pub failure: Option<(&'static str, String)>,
}

/// Time that the tasks of the last watch get when all others have ended; open connections must not keep a process.
const LAST_GRACE: Duration = Duration::from_secs(1);

/// Spawns and supervises tasks. A cheap handle; all clones speak of the same tasks.
#[derive(Clone, Default)]
pub struct Tasks {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    token: CancellationToken,
    tracker: TaskTracker,
    /// For those that end when all others have.
    last_token: CancellationToken,
    last_tracker: TaskTracker,
    live: Mutex<Live>,
}

#[derive(Default)]
struct Live {
    next: u64,
    running: BTreeMap<u64, Running>,
    failure: Option<(&'static str, String)>,
    failures: u64,
}

struct Running {
    name: &'static str,
    last: bool,
    /// Absent for the instant between registering and spawning.
    abort: Option<AbortHandle>,
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks").field("running", &self.running()).finish_non_exhaustive()
    }
}

impl Tasks {
    /// No tasks yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancelled when the process is asked to end. Every task has to watch it, or live within the grace.
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        self.inner.token.clone()
    }

    /// Cancelled when the process is asked to end and all tasks but those of [`Tasks::spawn_last`] have ended.
    #[must_use]
    pub fn last_token(&self) -> CancellationToken {
        self.inner.last_token.clone()
    }

    /// Spawns a task. An error or a panic of it is logged under its name and treated as `on_failure` says.
    pub fn spawn<F, E>(&self, name: &'static str, on_failure: OnFailure, future: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: fmt::Display + Send + 'static,
    {
        self.spawn_supervised(name, on_failure, false, future);
    }

    /// Spawns a task that watches [`Tasks::last_token`]: it goes on while the others use their grace.
    pub fn spawn_last<F, E>(&self, name: &'static str, on_failure: OnFailure, future: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: fmt::Display + Send + 'static,
    {
        self.spawn_supervised(name, on_failure, true, future);
    }

    fn spawn_supervised<F, E>(&self, name: &'static str, on_failure: OnFailure, last: bool, future: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: fmt::Display + Send + 'static,
    {
        let id = self.register(name, last);
        let inner = Arc::clone(&self.inner);
        let supervised = async move {
            let outcome = AssertUnwindSafe(future).catch_unwind().await;
            let failure = match outcome {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(panic) => Some(format!("panicked: {}", panic_text(&*panic))),
            };
            inner.finish(id, name, on_failure, failure);
        };
        let tracker = if last { &self.inner.last_tracker } else { &self.inner.tracker };
        #[expect(clippy::disallowed_methods, reason = "this is the supervised spawn that the rule asks for")]
        let handle = tokio::spawn(tracker.track_future(supervised));
        if let Some(running) = self.inner.live().running.get_mut(&id) {
            running.abort = Some(handle.abort_handle());
        }
    }

    /// Names of the tasks that run now, in the order in which they were spawned.
    #[must_use]
    pub fn running(&self) -> Vec<&'static str> {
        self.inner.live().running.values().map(|running| running.name).collect()
    }

    /// How many tasks have failed so far, by error or by panic.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.inner.live().failures
    }

    /// Asks every task to end, waits for them up to `grace`, and aborts the rest; then ends the last ones.
    pub async fn shutdown(&self, grace: Duration) -> Ended {
        self.inner.token.cancel();
        self.inner.tracker.close();
        let waited = tokio::time::timeout(grace, self.inner.tracker.wait()).await;
        let unfinished = if waited.is_err() { self.inner.abort(false) } else { Vec::new() };
        self.inner.last_token.cancel();
        self.inner.last_tracker.close();
        if tokio::time::timeout(LAST_GRACE, self.inner.last_tracker.wait()).await.is_err() {
            self.inner.abort(true);
        }
        Ended { unfinished, failure: self.inner.live().failure.clone() }
    }

    fn register(&self, name: &'static str, last: bool) -> u64 {
        let mut live = self.inner.live();
        let id = live.next;
        live.next += 1;
        live.running.insert(id, Running { name, last, abort: None });
        id
    }
}

impl Inner {
    /// A panic while the lock is held leaves a plain map and counters, which stay usable.
    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Aborts the ordinary tasks or the last ones, and names them.
    fn abort(&self, last: bool) -> Vec<&'static str> {
        let live = self.live();
        let chosen = live.running.values().filter(|running| running.last == last);
        chosen
            .map(|running| {
                if let Some(abort) = &running.abort {
                    abort.abort();
                }
                running.name
            })
            .collect()
    }

    fn finish(&self, id: u64, name: &'static str, on_failure: OnFailure, failure: Option<String>) {
        let mut live = self.live();
        live.running.remove(&id);
        let unasked = on_failure == OnFailure::ShutDown && !self.token.is_cancelled();
        let failure = failure.or_else(|| unasked.then(|| "ended although nobody asked it to".to_owned()));
        let Some(reason) = failure else { return };
        live.failures += 1;
        match on_failure {
            OnFailure::Log => tracing::error!(task = name, reason, "task failed"),
            OnFailure::ShutDown => {
                tracing::error!(task = name, reason, "vital task failed, ending the process");
                live.failure.get_or_insert((name, reason));
                self.token.cancel();
            }
        }
    }
}

/// What a panic said, as far as it said it in words.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without words".to_owned())
}

#[cfg(test)]
mod tests;
