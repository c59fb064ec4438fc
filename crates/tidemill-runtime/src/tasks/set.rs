//! Many short tasks with results.

use std::fmt;

use tokio::task::{AbortHandle, JoinSet};

use super::panic_text;

/// Why a task of a set gave no result.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TaskFailure {
    /// It panicked; its words.
    #[error("a task of `{set}` panicked: {text}")]
    Panicked {
        /// The set's name.
        set: &'static str,
        /// What the panic said.
        text: String,
    },
    /// It was aborted.
    #[error("a task of `{set}` was aborted")]
    Aborted {
        /// The set's name.
        set: &'static str,
    },
}

/// Many short tasks whose results one loop collects, such as the jobs of a worker. They belong to the owner of this
/// value, who decides at shutdown what to await; what is left is aborted when it is dropped.
pub struct TaskSet<T> {
    name: &'static str,
    tasks: JoinSet<T>,
}

impl<T> fmt::Debug for TaskSet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskSet").field("name", &self.name).field("len", &self.tasks.len()).finish()
    }
}

impl<T: Send + 'static> TaskSet<T> {
    /// An empty set; its name stands in failures.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self { name, tasks: JoinSet::new() }
    }

    /// Spawns a task; the handle aborts it alone.
    pub fn spawn(&mut self, future: impl Future<Output = T> + Send + 'static) -> AbortHandle {
        self.tasks.spawn(future)
    }

    /// The next result, in the order of ending; `None` when the set is empty. Cancel safe.
    pub async fn join_next(&mut self) -> Option<Result<T, TaskFailure>> {
        let joined = self.tasks.join_next().await?;
        Some(self.told(joined))
    }

    /// A result that is there already.
    pub fn try_join_next(&mut self) -> Option<Result<T, TaskFailure>> {
        let joined = self.tasks.try_join_next()?;
        Some(self.told(joined))
    }

    /// How many run or wait to be joined.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Whether none runs or waits to be joined.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Aborts all; they are still to be joined.
    pub fn abort_all(&mut self) {
        self.tasks.abort_all();
    }

    fn told(&self, joined: Result<T, tokio::task::JoinError>) -> Result<T, TaskFailure> {
        joined.map_err(|error| match error.try_into_panic() {
            Ok(panic) => TaskFailure::Panicked { set: self.name, text: panic_text(&*panic) },
            Err(_) => TaskFailure::Aborted { set: self.name },
        })
    }
}
