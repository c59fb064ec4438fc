//! What became of the kept runs of a workflow, step by step.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use serde_json::{Value, json};
use tidemill_protocol::{StepRecord, StepState, check_target};
use tidemill_scheduler::{NoPlan, Plans};
use tidemill_store::{Partition, RunSummary};
use tidemill_workflow::Plan;

use crate::context::Context;
use crate::error::{Error, Outcome};
use crate::moment::{duration, moment};
use crate::progress;
use crate::table::{Cell, Style, Table};

/// Runs asked for in one go.
const PAGE: usize = 500;
/// Fields read in one round trip.
const FIELDS: usize = 5_000;
/// How wide a step's share is drawn.
const BAR: usize = 20;

pub(super) async fn run(context: &Context, workflow: &str, since: Option<u64>) -> Outcome {
    check_target(workflow)?;
    let now_ms = context.store.home().now_ms().await?;
    let since_ms = since.map_or(0, |since| now_ms.saturating_sub(since));
    let plans = Plans::new(context.store.home().clone());
    let newest = match plans.of(workflow).await {
        Ok(plan) => plan,
        Err(NoPlan::Store(error)) => return Err(error.into()),
        Err(
            error @ (NoPlan::Unknown(_)
            | NoPlan::Invalid { .. }
            | NoPlan::NotStartable { .. }
            | NoPlan::Damaged(_)),
        ) => {
            return Err(Error::failed("no_workflow", error.to_string()));
        }
    };
    let mut funnel = Funnel::new(workflow, &newest, since_ms);
    let mut total = 0;
    for partition in context.store.partitions() {
        let (live, ended) = partition.run_counts().await?;
        total += live + ended;
    }
    let bar = progress::bar(context.output, "reading runs", total);
    for partition in context.store.partitions() {
        let mut seen = HashSet::new();
        for is_ended in [false, true] {
            let mut offset = 0;
            loop {
                let mut ids = if is_ended {
                    partition.ended_since(since_ms, offset, PAGE).await?
                } else {
                    partition.live_runs(offset, PAGE).await?
                };
                let count = ids.len();
                // one that ended meanwhile is met in both
                ids.retain(|id| seen.insert(id.clone()));
                funnel.take(partition, &plans, &ids).await?;
                bar.inc(count as u64);
                offset += count;
                if count < PAGE {
                    break;
                }
            }
        }
    }
    bar.finish_and_clear();
    if context.output.is_json() {
        context.output.document(&funnel.document());
    } else {
        funnel.show(context);
    }
    Ok(())
}

/// What was gathered of the runs.
struct Funnel {
    workflow: String,
    since_ms: u64,
    states: BTreeMap<&'static str, u64>,
    took: Times,
    steps: Vec<StepCounts>,
    /// Places of the steps' ids in `steps`.
    places: HashMap<Arc<str>, usize>,
}

/// Durations in milliseconds; longer ones than seven weeks count as that.
#[derive(Debug, Default)]
struct Times(Vec<u32>);

impl Times {
    fn add(&mut self, from: Option<u64>, to: Option<u64>) {
        if let (Some(from), Some(to)) = (from, to) {
            self.0.push(u32::try_from(to.saturating_sub(from)).unwrap_or(u32::MAX));
        }
    }

    /// The value that so many of a hundred do not exceed (nearest rank).
    fn percentile(&mut self, of_hundred: usize) -> Option<u64> {
        let last = self.0.len().checked_sub(1)?;
        let at = (self.0.len() * of_hundred).div_ceil(100).saturating_sub(1).min(last);
        Some(u64::from(*self.0.select_nth_unstable(at).1))
    }

    fn document(&mut self) -> Value {
        json!({ "p50": self.percentile(50), "p99": self.percentile(99) })
    }
}

#[derive(Debug, Default)]
struct StepCounts {
    id: String,
    /// Runs in which it was to run: neither skipped nor never dispatched.
    reached: u64,
    succeeded: u64,
    /// Failed or timed out.
    failed: u64,
    skipped: u64,
    cancelled: u64,
    /// Not ended.
    open: u64,
    /// Tried more than once.
    retried: u64,
    waited: Times,
    ran: Times,
}

impl StepCounts {
    fn take(&mut self, record: &StepRecord) {
        match record.state {
            StepState::Skipped => self.skipped += 1,
            StepState::Succeeded => self.succeeded += 1,
            StepState::Failed | StepState::TimedOut => self.failed += 1,
            StepState::Cancelled => self.cancelled += 1,
            StepState::Pending
            | StepState::Ready
            | StepState::Running
            | StepState::Parked
            | StepState::Retrying
            | StepState::Waiting => self.open += 1,
        }
        if record.state == StepState::Skipped {
            return;
        }
        self.reached += 1;
        self.retried += u64::from(record.attempt > 1);
        self.waited.add(record.ready_ms, record.started_ms);
        if record.state.is_terminal() {
            self.ran.add(record.started_ms, record.ended_ms);
        }
    }
}

impl Funnel {
    fn new(workflow: &str, plan: &Plan, since_ms: u64) -> Self {
        let mut funnel = Self {
            workflow: workflow.to_owned(),
            since_ms,
            states: BTreeMap::new(),
            took: Times::default(),
            steps: Vec::new(),
            places: HashMap::new(),
        };
        for step in &plan.steps {
            funnel.place(&step.id);
        }
        funnel
    }

    /// Where a step is counted; versions of a workflow may differ in their steps.
    fn place(&mut self, id: &Arc<str>) -> usize {
        let next = self.steps.len();
        let place = *self.places.entry(Arc::clone(id)).or_insert(next);
        if place == next {
            self.steps.push(StepCounts { id: id.to_string(), ..StepCounts::default() });
        }
        place
    }

    fn wants(&self, run: &RunSummary) -> bool {
        let name = run.workflow.rsplit_once('@').map_or(&*run.workflow, |(name, _)| name);
        run.started_ms >= self.since_ms && (self.workflow == run.workflow || self.workflow == name)
    }

    async fn take(&mut self, partition: &Partition, plans: &Plans, ids: &[String]) -> Outcome {
        let runs = partition.summaries(ids).await?;
        let mut by_version: BTreeMap<String, Vec<RunSummary>> = BTreeMap::new();
        for run in runs.into_iter().filter(|run| self.wants(run)) {
            by_version.entry(run.workflow.clone()).or_default().push(run);
        }
        for (version, runs) in by_version {
            for run in &runs {
                *self.states.entry(run.state.as_str()).or_default() += 1;
                self.took.add(Some(run.started_ms), run.ended_ms);
            }
            match plans.of(&version).await {
                Ok(plan) => self.take_steps(partition, &plan, &runs).await?,
                Err(NoPlan::Store(error)) => return Err(error.into()),
                // its runs are counted; which of their steps is which cannot be told any more
                Err(
                    NoPlan::Unknown(_)
                    | NoPlan::Invalid { .. }
                    | NoPlan::NotStartable { .. }
                    | NoPlan::Damaged(_),
                ) => {}
            }
        }
        Ok(())
    }

    async fn take_steps(&mut self, partition: &Partition, plan: &Plan, runs: &[RunSummary]) -> Outcome {
        let places: Vec<usize> = plan.steps.iter().map(|step| self.place(&step.id)).collect();
        let names: Vec<String> = (0..places.len()).map(|step| format!("s{step}")).collect();
        for runs in runs.chunks((FIELDS / names.len().max(1)).max(1)) {
            let wanted: Vec<_> =
                runs.iter().map(|run| (partition.keys().run(&run.id), names.clone())).collect();
            for row in partition.run_fields(&wanted).await? {
                for (place, value) in places.iter().zip(row) {
                    if let Some(record) = value.as_deref().and_then(read) {
                        self.steps[*place].take(&record);
                    }
                }
            }
        }
        Ok(())
    }

    fn total(&self) -> u64 {
        self.states.values().sum()
    }

    fn document(&mut self) -> Value {
        let total = self.total();
        let steps: Vec<Value> = self
            .steps
            .iter_mut()
            .map(|step| {
                json!({
                    "id": step.id,
                    "reached": step.reached,
                    "succeeded": step.succeeded,
                    "failed": step.failed,
                    "skipped": step.skipped,
                    "cancelled": step.cancelled,
                    "open": step.open,
                    "retried": step.retried,
                    "waited_ms": step.waited.document(),
                    "ran_ms": step.ran.document(),
                })
            })
            .collect();
        json!({
            "workflow": self.workflow,
            "since_ms": self.since_ms,
            "runs": total,
            "states": self.states,
            "took_ms": self.took.document(),
            "steps": steps,
        })
    }

    fn show(&mut self, context: &Context) {
        let output = context.output;
        let total = self.total();
        let since = if self.since_ms == 0 {
            String::new()
        } else {
            format!(" begun since {}", moment(self.since_ms))
        };
        let states = self.states.iter().map(|(state, count)| format!("{count} {state}"));
        let states = states.collect::<Vec<_>>().join(", ");
        if total == 0 {
            output.line(format!("no run of {}{since} is kept", self.workflow));
            return;
        }
        output.line(format!("workflow {}, {total} runs{since}: {states}", self.workflow));
        if let (Some(p50), Some(p99)) = (self.took.percentile(50), self.took.percentile(99)) {
            output.line(format!("took p50 {}, p99 {}", duration(p50), duration(p99)));
        }
        output.line("");
        output.table(&self.table(total));
    }

    fn table(&mut self, total: u64) -> Table {
        let head = ["STEP", ">REACHED", "", ">OK", ">FAILED", ">SKIPPED", ">CANCELLED", ">OPEN", ">RETRIED"];
        let times = [">WAIT P50", ">WAIT P99", ">RAN P50", ">RAN P99"];
        let mut table = Table::new(&[&head[..], &times[..]].concat());
        for step in &mut self.steps {
            let mut times = Vec::new();
            for time in [&mut step.waited, &mut step.ran] {
                times.extend(
                    [50, 99].map(|of| Cell::new(time.percentile(of).map(duration).unwrap_or_default())),
                );
            }
            let bad = if step.failed > 0 { Style::Bad } else { Style::Plain };
            let mut row = vec![
                Cell::new(&step.id),
                step.reached.into(),
                Cell::new(share(step.reached, total)).style(Style::Busy),
                step.succeeded.into(),
                Cell::from(step.failed).style(bad),
                step.skipped.into(),
                step.cancelled.into(),
                step.open.into(),
                step.retried.into(),
            ];
            row.extend(times);
            table.row(row);
        }
        table
    }
}

/// A bar that is as full as the share; never empty for what is there, never full for what is not all.
fn share(part: u64, total: u64) -> String {
    let full = usize::try_from(part * BAR as u64 / total.max(1)).unwrap_or(BAR);
    let full = if part > 0 { full.max(1) } else { 0 };
    format!("{}{}", "█".repeat(full), "·".repeat(BAR - full.min(BAR)))
}

fn read(value: &[u8]) -> Option<StepRecord> {
    StepRecord::parse(std::str::from_utf8(value).ok()?)
}

#[cfg(test)]
mod tests {
    use tidemill_protocol::StepRecord;

    use super::{StepCounts, Times, share};

    #[test]
    fn percentiles_are_those_of_the_nearest_rank() {
        let mut times = Times((1..=200).rev().collect());
        assert_eq!((times.percentile(50), times.percentile(99)), (Some(100), Some(198)));
        assert_eq!(Times(vec![7]).percentile(99), Some(7));
        assert_eq!(Times::default().percentile(50), None);
    }

    #[test]
    fn a_step_counts_where_it_ended_and_a_skipped_one_was_not_reached() {
        let mut counts = StepCounts::default();
        for text in [
            "succeeded 2 100 110 150 w1 - default",
            "failed 1 100 120 130 w1 - default",
            "timed_out 1 100 120 130 w1 - default",
            "skipped 1 100 - 100 w1 - default",
            "ready 1 100 - - - 5-0 default",
        ] {
            counts.take(&StepRecord::parse(text).unwrap());
        }
        let ends =
            [counts.reached, counts.succeeded, counts.failed, counts.skipped, counts.open, counts.retried];
        assert_eq!(ends, [4, 1, 2, 1, 1, 1]);
        assert_eq!((counts.waited.percentile(99), counts.ran.percentile(50)), (Some(20), Some(10)));
    }

    #[test]
    fn a_share_is_never_empty_for_what_is_there() {
        assert_eq!(share(1, 1_000).chars().filter(|c| *c == '█').count(), 1);
        assert_eq!((share(0, 9), share(9, 9)), ("·".repeat(20), "█".repeat(20)));
    }
}
