//! Expirer: ends runs at their deadline.

use tidemill_protocol::RunState;
use tidemill_runtime::duty::{Duty, Tick};
use tidemill_store::{Partition, StopRun};

use crate::Error;
use crate::context::Context;

/// Runs per partition and look.
const MOST: usize = 100;

/// See the module.
pub(crate) struct Expirer {
    context: Context,
}

impl Expirer {
    pub(crate) const fn new(context: Context) -> Self {
        Self { context }
    }

    /// `true`: there may be more.
    async fn expire(&self, partition: &Partition) -> Result<bool, Error> {
        let now_ms = partition.now_ms().await?;
        let overdue = partition.overdue_runs(now_ms, MOST).await?;
        let mut ended = 0;
        for run in &overdue {
            let stop = StopRun {
                id: run,
                to: RunState::TimedOut,
                who: &self.context.who,
                code: "timeout",
                reason: "the run did not end by its deadline",
                only_past_deadline: true,
                spares: false,
                by_force: false,
            };
            // otherwise another scheduler was faster, or it has just ended
            if partition.stop_run(&stop).await? == Some(true) {
                ended += 1;
                self.context.counters.expired.inc();
                tracing::info!(run, "run timed out");
            }
        }
        // those that did not end now will not do so at once; without progress there is no hurry
        Ok(overdue.len() == MOST && ended > 0)
    }
}

impl Duty for Expirer {
    const NAME: &'static str = "expirer";
    type Error = Error;

    async fn tick(&mut self) -> Result<Tick, Error> {
        let mut more = false;
        for partition in self.context.partitions() {
            more |= self.expire(partition).await?;
        }
        Ok(if more { Tick::Again } else { Tick::Done })
    }
}
