//! What every part of a worker looks at.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tidemill_store::Store;
use tidemill_tool::Registry;
use tidemill_workflow::Limits;
use tokio::time::Instant;

use crate::admission::Admission;
use crate::budget::Spending;
use crate::cache::Cache;
use crate::capacity::Capacity;
use crate::metrics::WorkerMetrics;
use crate::modes::ModeRuns;
use crate::outcome::Lane;
use crate::pausing::Pauses;
use crate::plans::Plans;
use crate::queues::Queues;
use crate::settings::Settings;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) registry: Arc<Registry>,
    pub(crate) plans: Plans,
    pub(crate) queues: Queues,
    pub(crate) settings: Settings,
    pub(crate) consumer: String,
    pub(crate) capacity: Capacity,
    pub(crate) clock: RedisClock,
    pub(crate) limits: Limits,
    pub(crate) metrics: WorkerMetrics,
    pub(crate) admission: Admission,
    pub(crate) cache: Cache,
    pub(crate) modes: ModeRuns,
    pub(crate) spending: Spending,
    pub(crate) pauses: Pauses,
    /// One for each partition and [`Lane`].
    pub(crate) backlogs: Vec<[Backlog; 2]>,
}

/// Shortest pause between two tries, doubled from try to try.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
/// Longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

impl Shared {
    /// Does something in Redis until it is done: what is claimed must be settled, however long Redis is away. Every call made
    /// through here may be made twice.
    pub(crate) async fn persist<T, F, W>(&self, what: &'static str, work: W) -> T
    where
        W: Fn() -> F,
        F: Future<Output = Result<T, tidemill_store::Error>>,
    {
        // with jitter: when Redis comes back, a pool's workers do not all ask in the same moment
        let pauses =
            ExponentialBuilder::default().with_min_delay(SHORTEST_PAUSE).with_max_delay(LONGEST_PAUSE);
        let mut pauses = pauses.with_jitter().without_max_times().build();
        loop {
            match work().await {
                Ok(done) => return done,
                Err(error) => {
                    self.metrics.fault(&error);
                    tracing::warn!(what, %error, "redis refuses; trying again");
                }
            }
            tokio::time::sleep(pauses.next().unwrap_or(LONGEST_PAUSE)).await;
        }
    }
}

/// Redis's time as this process knows it: what the last beat said, and how long ago that was. Wall clocks of workers decide
/// nothing.
#[derive(Debug, Default)]
pub(crate) struct RedisClock {
    last: Mutex<Option<(u64, Instant)>>,
}

impl RedisClock {
    pub(crate) fn set(&self, now_ms: u64) {
        *self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some((now_ms, Instant::now()));
    }

    /// Now, in Unix milliseconds; `None` before the first beat.
    pub(crate) fn now_ms(&self) -> Option<u64> {
        let last = *self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        last.map(|(at, seen)| at + u64::try_from(seen.elapsed().as_millis()).unwrap_or(0))
    }

    /// How long ago a Redis time was.
    pub(crate) fn since(&self, at_ms: u64) -> Duration {
        Duration::from_millis(self.now_ms().map_or(0, |now| now.saturating_sub(at_ms)))
    }
}

impl Shared {
    pub(crate) fn backlog(&self, partition: usize, lane: Lane) -> &Backlog {
        &self.backlogs[partition][lane as usize]
    }
}

/// A partition's outcomes on one way to Redis. They are settled in the order in which they came, so what existed at a mark is
/// settled once as many are.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    added: AtomicU64,
    settled: AtomicU64,
}

impl Backlog {
    pub(crate) fn add(&self, count: usize) {
        self.added.fetch_add(count as u64, Ordering::AcqRel);
    }

    pub(crate) fn remove(&self, count: usize) {
        self.settled.fetch_add(count as u64, Ordering::AcqRel);
    }

    pub(crate) fn mark(&self) -> u64 {
        self.added.load(Ordering::Acquire)
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> u64 {
        self.mark().saturating_sub(self.settled.load(Ordering::Acquire))
    }

    pub(crate) fn has_passed(&self, mark: u64) -> bool {
        self.settled.load(Ordering::Acquire) >= mark
    }
}

#[cfg(test)]
mod tests {
    use super::Backlog;

    #[test]
    fn a_mark_passes_although_more_always_comes_and_not_before_all_of_it_is_settled() {
        let backlog = Backlog::default();
        backlog.add(5);
        let mark = backlog.mark();
        backlog.add(100);
        backlog.remove(4);
        assert!(!backlog.has_passed(mark));
        backlog.add(100);
        backlog.remove(50);
        assert!(backlog.has_passed(mark), "151 still wait, none of them existed at the mark");
    }
}
