//! How runs went under each execution mode: tallied here, added in Redis once a second, so that a run costs nothing there.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tidemill_protocol::ExecutionMode;
use tidemill_runtime::metrics::{Buckets, Histogram, Labelled};
use tidemill_store::{ModeTally, Store};

use crate::outcome::RunRef;
use crate::shared::RedisClock;

/// How often the tally is added.
const EVERY: Duration = Duration::from_secs(1);

/// The tally of one worker.
#[derive(Debug)]
pub(crate) struct ModeRuns {
    tally: Mutex<ModeTally>,
    /// By mode, in the order of [`ExecutionMode::ALL`].
    seconds: [Histogram; 4],
}

impl ModeRuns {
    pub(crate) fn new(seconds: &Labelled<Histogram, Buckets>) -> Self {
        Self {
            tally: Mutex::default(),
            seconds: ExecutionMode::ALL.map(|mode| seconds.with(&[mode.as_str()])),
        }
    }

    /// A run has ended with what this worker settled.
    pub(crate) fn ended(&self, clock: &RedisClock, run: &RunRef) {
        let Some(started_ms) = run.started_ms else { return };
        let took = clock.since(started_ms);
        let at = ExecutionMode::ALL.iter().position(|mode| *mode == run.mode);
        if let Some(seconds) = at.and_then(|at| self.seconds.get(at)) {
            seconds.observe(took.as_secs_f64());
        }
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).ended(run.mode, took_ms);
    }

    /// Adds what was tallied since the last time. What cannot be added is added with the next; where a reply is lost it may count twice.
    pub(crate) async fn add(&self, store: &Store) {
        let tally = std::mem::take(&mut *self.tally.lock().unwrap_or_else(PoisonError::into_inner));
        if let Err(error) = store.home().add_mode_tally(&tally).await {
            tracing::debug!(%error, "the figures of modes could not be added to; they are with the next ones");
            self.tally.lock().unwrap_or_else(PoisonError::into_inner).merge(&tally);
        }
    }

    /// Adds again and again; the caller ends it.
    pub(crate) async fn keep_adding(&self, store: &Store) {
        loop {
            tokio::time::sleep(EVERY).await;
            self.add(store).await;
        }
    }
}
