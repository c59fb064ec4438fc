//! What is paused: workers look once a second, claim nothing of a paused queue, and put aside what would begin of a paused workflow.

use std::collections::BTreeSet;
use std::time::Duration;

use tidemill_store::{Partition, Paused, Store};
use tokio::sync::watch;

/// How often it is looked at.
const EVERY: Duration = Duration::from_secs(1);

/// What this worker knows to be paused.
#[derive(Debug)]
pub(crate) struct Pauses {
    known: watch::Sender<Known>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Known {
    workflows: BTreeSet<String>,
    queues: BTreeSet<String>,
}

impl Default for Pauses {
    fn default() -> Self {
        Self { known: watch::Sender::new(Known::default()) }
    }
}

impl Pauses {
    /// Reads it anew.
    pub(crate) async fn read(&self, home: &Partition) -> Result<(), tidemill_store::Error> {
        let Paused { workflows, queues } = home.paused().await?;
        let now = Known { workflows: workflows.into_keys().collect(), queues: queues.into_keys().collect() };
        self.known.send_if_modified(|known| {
            let is_other = *known != now;
            if is_other {
                *known = now;
            }
            is_other
        });
        Ok(())
    }

    /// Reads it again and again; the caller ends it.
    pub(crate) async fn follow(&self, store: &Store) {
        loop {
            tokio::time::sleep(EVERY).await;
            if let Err(error) = self.read(store.home()).await {
                tracing::debug!(%error, "what is paused cannot be read; what was known holds");
            }
        }
    }

    /// Whether a workflow is: `name@version`, of a block `name@version#path`.
    pub(crate) fn has_workflow(&self, reference: &str) -> bool {
        let known = self.known.borrow();
        let name = reference.split('@').next().unwrap_or(reference);
        !known.workflows.is_empty() && known.workflows.contains(name)
    }

    /// Whether a queue is.
    pub(crate) fn has_queue(&self, queue: &str) -> bool {
        let known = self.known.borrow();
        !known.queues.is_empty() && known.queues.contains(queue)
    }

    /// Waits until this queue, of those that were found paused, is not.
    pub(crate) async fn resumed(&self, queues: &[String]) {
        let is_any_open = |known: &Known| queues.iter().any(|queue| !known.queues.contains(queue));
        // the sender lives as long as this does
        drop(self.known.subscribe().wait_for(is_any_open).await);
    }
}
