//! Auditor: walks the live runs and makes sure that everything in flight is somewhere.
//!
//! A step that is ready must have its entry, one that is put aside must be among the work put aside, a `for_each` must have items in
//! flight or be about to gather them, and a run must have a step in flight. What is not (lost with the tail of a failover, deleted by
//! hand) is dispatched again and counted. Every repair is one function that looks again, so a run that moves on meanwhile is left
//! alone. The walk is paced: so many runs a second, then a pause.

mod by_hand;
mod run;

use std::collections::HashMap;
use std::time::Duration;

use tidemill_runtime::clock::Instant;
use tidemill_runtime::duty::{Duty, Tick};
use tidemill_store::Partition;

use crate::Error;
use crate::context::Context;
pub use by_hand::RunRepair;
use run::{Audited, audit};

/// Runs per tick.
const STRETCH: usize = 50;

/// See the module.
pub(crate) struct Auditor {
    context: Context,
    /// Which partition, and how far in it.
    partition: usize,
    offset: usize,
    /// Runs without a step in flight: the number of their last audit record, and since when.
    still: HashMap<String, Still>,
    round: u64,
}

struct Still {
    seq: u64,
    since: Instant,
    /// The round that saw it last.
    round: u64,
    /// Whether it was told that it cannot be carried on.
    told: bool,
}

impl Auditor {
    pub(crate) fn new(context: Context) -> Self {
        Self { context, partition: 0, offset: 0, still: HashMap::new(), round: 0 }
    }

    async fn look_at(&mut self, partition: &Partition, id: &str) -> Result<(), Error> {
        let (seq, run) = match audit(&self.context, partition, id).await? {
            Audited::InFlight => {
                self.still.remove(id);
                return Ok(());
            }
            Audited::Still { seq, run } => (seq, run),
        };
        let (now, round) = (Instant::now(), self.round);
        let fresh = || Still { seq, since: now, round, told: false };
        let still = self.still.entry(id.to_owned()).or_insert_with(fresh);
        if still.seq != seq {
            *still = fresh();
        }
        still.round = round;
        let stood = now.saturating_duration_since(still.since);
        if stood < Duration::from_millis(self.context.settings.stalled_after_ms) {
            return Ok(());
        }
        if run.carry_on(&self.context, partition, seq).await? {
            *still = fresh();
        } else if !std::mem::replace(&mut still.told, true) {
            tracing::error!(
                run = id,
                "run stands still and cannot be carried on; cancel it, or look at its steps"
            );
        }
        Ok(())
    }

    /// The next stretch of runs. `true`: the round is complete.
    async fn stretch(&mut self) -> Result<bool, Error> {
        let Some(partition) = self.context.partitions().get(self.partition).cloned() else { return Ok(true) };
        let runs = partition.live_runs(self.offset, STRETCH).await?;
        for id in &runs {
            self.look_at(&partition, id).await?;
        }
        self.offset += runs.len();
        if runs.len() < STRETCH {
            self.partition += 1;
            self.offset = 0;
        }
        Ok(self.partition >= self.context.partitions().len())
    }

    fn end_round(&mut self) {
        let round = self.round;
        self.still.retain(|_, still| still.round == round);
        let stuck = self.still.values().filter(|still| still.told).count();
        self.context.counters.stuck.set(i64::try_from(stuck).unwrap_or(i64::MAX));
        (self.partition, self.offset, self.round) = (0, 0, round + 1);
    }
}

impl Duty for Auditor {
    const NAME: &'static str = "auditor";
    type Error = Error;

    async fn tick(&mut self) -> Result<Tick, Error> {
        if self.stretch().await? {
            self.end_round();
            return Ok(Tick::After(Duration::from_millis(self.context.settings.audit_every_ms)));
        }
        let pause = Duration::from_secs(1)
            .mul_f64(STRETCH as f64 / f64::from(self.context.settings.audit_runs_per_second));
        Ok(Tick::After(pause))
    }
}
