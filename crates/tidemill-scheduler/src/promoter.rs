//! Promoter: makes ready what was put aside and is due: retries, delays, parked calls, delayed runs.
//!
//! It sleeps until the next due time that it knows of, and never longer than `promote_idle_ms`, because work can be put aside
//! for less than it sleeps.

use std::time::Duration;

use tidemill_runtime::crash::{self, Point};
use tidemill_runtime::duty::{Duty, Tick};
use tidemill_store::{Partition, keys};

use crate::Error;
use crate::context::{Context, count};
use crate::waits;

/// Calls per queue and tick; a queue with more does not keep the others waiting.
const MOST_CALLS: usize = 10;

/// See the module.
pub(crate) struct Promoter {
    context: Context,
}

/// What one partition had to promote.
struct Found {
    promoted: u64,
    /// Until the next is due, as far as is known.
    wait_ms: Option<u64>,
}

impl Promoter {
    pub(crate) const fn new(context: Context) -> Self {
        Self { context }
    }

    async fn promote(&self, partition: &Partition) -> Result<Found, Error> {
        let mut queues = partition.queues().await?;
        queues.extend([keys::RUNS, keys::WAITS].map(str::to_owned));
        let (now_ms, next) = tokio::join!(partition.now_ms(), partition.next_due(&queues));
        let (now_ms, next) = (now_ms?, next?);
        let mut found = Found { promoted: 0, wait_ms: None };
        for (queue, next) in queues.iter().zip(next) {
            let Some(next) = next else { continue };
            let wait_ms = next.saturating_sub(now_ms);
            if wait_ms == 0 {
                found.promoted += self.promote_queue(partition, queue, now_ms).await?;
            } else {
                found.wait_ms = Some(found.wait_ms.map_or(wait_ms, |known| known.min(wait_ms)));
            }
        }
        Ok(found)
    }

    async fn promote_queue(&self, partition: &Partition, queue: &str, now_ms: u64) -> Result<u64, Error> {
        let most = self.context.settings.promote_batch;
        let counter = self.context.counters.promoted.with(&[queue]);
        let mut promoted = 0;
        for _ in 0..MOST_CALLS {
            let members = partition.due(queue, now_ms, most).await?;
            if members.is_empty() {
                break;
            }
            let won = if queue == keys::WAITS {
                waits::wake_due(partition, &members).await?
            } else {
                crash::before(Point::SchedulerPromote);
                let won = partition.promote(queue, &members).await?;
                crash::after(Point::SchedulerPromote);
                count(won.iter().filter(|won| **won).count())
            };
            counter.inc_by(won);
            promoted += won;
            if members.len() < most {
                break;
            }
        }
        if promoted > 0 {
            tracing::debug!(queue, promoted, partition = partition.index(), "promoted");
        }
        Ok(promoted)
    }
}

impl Duty for Promoter {
    const NAME: &'static str = "promoter";
    type Error = Error;

    async fn tick(&mut self) -> Result<Tick, Error> {
        let partitions = self.context.partitions();
        let found = futures_util::future::join_all(partitions.iter().map(|one| self.promote(one))).await;
        let settings = &self.context.settings;
        let (mut promoted, mut wait_ms, mut failure) = (0, settings.promote_idle_ms, None);
        for found in found {
            match found {
                Ok(found) => {
                    promoted += found.promoted;
                    wait_ms = wait_ms.min(found.wait_ms.unwrap_or(u64::MAX));
                }
                // one partition that cannot be reached does not keep the others waiting
                Err(error) => failure = Some(error),
            }
        }
        if let Some(error) = failure {
            return Err(error);
        }
        if promoted > 0 {
            wait_ms = wait_ms.min(settings.promote_busy_ms);
        }
        Ok(Tick::After(Duration::from_millis(wait_ms.max(1))))
    }
}
