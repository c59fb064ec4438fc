//! The audit of one run.

use std::sync::Arc;

use bytes::Bytes;
use tidemill_protocol::{ExecutionMode, RunState, StepRecord, StepState};
use tidemill_store::{InFlight, Overlooked, Partition, Slot, Whereabouts};
use tidemill_workflow::{Need, Plan};

use crate::Error;
use crate::context::{Context, count};

/// Fields asked for in one call.
const SLICE: usize = 1_000;
/// Steps carried on in one call.
const MOST_MENDED: usize = 500;

/// What the audit of a run found.
pub(crate) enum Audited {
    /// Something of it is in flight, or it is not there any more.
    InFlight,
    /// Nothing is, and it has not ended.
    Still {
        /// The number of its last audit record.
        seq: u64,
        /// What is known of it.
        run: Box<Run>,
    },
}

/// A run as far as the audit needs it.
pub(crate) struct Run {
    id: String,
    workflow: String,
    /// The queue that its caller asked for.
    queue: Option<String>,
    plan: Option<Arc<Plan>>,
    /// Whether its end was decided.
    is_closing: bool,
    /// Each step's record, as text and read; absent for steps that never became ready.
    records: Vec<Option<(String, StepRecord)>>,
}

/// Looks at a run and repairs what was lost of it.
pub(crate) async fn audit(context: &Context, partition: &Partition, id: &str) -> Result<Audited, Error> {
    let names = ["st", "wf", "q", "qu", "to", "md"].map(ToOwned::to_owned);
    let head: Vec<Option<String>> = texts(partition.fields_of(id, None, &names).await?);
    let [state, workflow, seq, queue, to, mode] = &head[..] else { return Ok(Audited::InFlight) };
    if state.as_deref().and_then(RunState::parse).is_none_or(RunState::is_terminal) {
        partition.drop_live(id).await?;
        return Ok(Audited::InFlight);
    }
    let workflow = workflow.clone().unwrap_or_default();
    let (queue, is_closing) = (queue.clone(), to.is_some());
    let seq = seq.as_deref().and_then(|seq| seq.parse().ok()).unwrap_or(0);
    let plan = match context.plans.of(&workflow).await {
        Ok(plan)
            if mode.as_deref().and_then(ExecutionMode::parse).is_some_and(ExecutionMode::is_sequential) =>
        {
            plan.in_order()
        }
        Ok(plan) => plan,
        Err(crate::NoPlan::Store(error)) => return Err(error.into()),
        Err(_) => {
            let run = Run { id: id.to_owned(), workflow, queue, plan: None, is_closing, records: Vec::new() };
            return Ok(Audited::Still { seq, run: Box::new(run) });
        }
    };
    let records = records(partition, id, None, count(plan.steps.len())).await?;
    let run = Run { id: id.to_owned(), workflow, queue, plan: Some(plan), is_closing, records };
    if run.check_in_flight(context, partition).await? {
        Ok(Audited::InFlight)
    } else {
        Ok(Audited::Still { seq, run: Box::new(run) })
    }
}

fn texts(values: Vec<Option<Bytes>>) -> Vec<Option<String>> {
    values.into_iter().map(|value| value.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())).collect()
}

/// The records of steps, or of the items of a step, from 0 on.
async fn records(
    partition: &Partition,
    run: &str,
    step: Option<u32>,
    total: u64,
) -> Result<Vec<Option<(String, StepRecord)>>, Error> {
    let names: Vec<String> = (0..total).map(|at| format!("s{at}")).collect();
    let mut records = Vec::with_capacity(names.len());
    for names in names.chunks(SLICE) {
        let row = texts(partition.fields_of(run, step, names).await?);
        records.extend(
            row.into_iter().map(|text| text.and_then(|text| Some((text.clone(), StepRecord::parse(&text)?)))),
        );
    }
    Ok(records)
}

impl Run {
    /// Repairs what its record says is in flight and is not. `false`: nothing is in flight.
    async fn check_in_flight(&self, context: &Context, partition: &Partition) -> Result<bool, Error> {
        let (mut plain, mut any) = (Vec::new(), false);
        for (step, (text, record)) in self.present() {
            if record.state.is_terminal() {
                continue;
            }
            any = true;
            if record.state == StepState::Running && record.entry.is_none() {
                self.check_items(context, partition, step, (text, record)).await?;
            } else {
                plain.push(InFlight {
                    slot: self.slot(step, None),
                    text: text.clone(),
                    record: record.clone(),
                });
            }
        }
        self.check(context, partition, &plain, "step").await?;
        Ok(any)
    }

    fn present(&self) -> impl Iterator<Item = (u32, &(String, StepRecord))> {
        (0_u32..).zip(&self.records).filter_map(|(step, record)| Some((step, record.as_ref()?)))
    }

    fn slot(&self, step: u32, item: Option<u64>) -> Slot {
        let id = self.plan.as_ref().and_then(|plan| plan.step(step)).map_or("", |step| &step.id);
        let name = item.map_or_else(|| id.to_owned(), |item| format!("{id}[{item}]"));
        Slot { run: self.id.clone(), step, item, name }
    }

    /// Looks for each where its record says that it is; repairs those that are not there.
    async fn check(
        &self,
        context: &Context,
        partition: &Partition,
        all: &[InFlight],
        what: &'static str,
    ) -> Result<(), Error> {
        for (one, place) in all.iter().zip(partition.whereabouts(all).await?) {
            if place == Whereabouts::Lost {
                self.repair(context, partition, one, what).await?;
            }
        }
        Ok(())
    }

    async fn repair(
        &self,
        context: &Context,
        partition: &Partition,
        lost: &InFlight,
        what: &'static str,
    ) -> Result<(), Error> {
        let queue = &lost.record.queue;
        if partition.repair(&lost.slot, &self.workflow, queue, &lost.text, &context.who).await? {
            context.counters.repaired.with(&[what]).inc();
            let (run, step) = (&self.id, &lost.slot.name);
            tracing::warn!(
                run,
                step,
                queue,
                state = lost.record.state.as_str(),
                "lost work dispatched again"
            );
        }
        Ok(())
    }

    /// How many items of a `for_each` were dispatched so far.
    async fn dispatched(&self, partition: &Partition, step: u32) -> Result<u64, Error> {
        let row = partition.fields_of(&self.id, None, &[format!("u{step}")]).await?;
        Ok(texts(row).into_iter().next().flatten().and_then(|used| used.parse().ok()).unwrap_or(0))
    }

    /// A `for_each` has items in flight, or is about to gather them.
    async fn check_items(
        &self,
        context: &Context,
        partition: &Partition,
        step: u32,
        (text, record): (&String, &StepRecord),
    ) -> Result<(), Error> {
        let used = self.dispatched(partition, step).await?;
        let records = records(partition, &self.id, Some(step), used).await?;
        let flying: Vec<InFlight> = (0_u64..)
            .zip(records)
            .filter_map(|(item, record)| {
                let (text, record) = record?;
                let slot = self.slot(step, Some(item));
                (!record.state.is_terminal()).then_some(InFlight { slot, text, record })
            })
            .collect();
        if flying.is_empty() {
            if self.dispatched(partition, step).await? != used {
                // the last one ended while we read, and another was dispatched
                return Ok(());
            }
            let gather = InFlight { slot: self.slot(step, None), text: text.clone(), record: record.clone() };
            return self.repair(context, partition, &gather, "gather").await;
        }
        self.check(context, partition, &flying, "item").await
    }

    /// Carries on a run without a step in flight. `false`: it cannot be told how.
    pub(crate) async fn carry_on(
        &self,
        context: &Context,
        partition: &Partition,
        seq: u64,
    ) -> Result<bool, Error> {
        let Some(plan) = &self.plan else { return Ok(false) };
        let overlooked = if self.is_closing { Vec::new() } else { self.overlooked(plan) };
        let complete = self.is_closing || self.records.iter().take(plan.main() as usize).all(Option::is_some);
        if !complete && overlooked.is_empty() {
            return Ok(false);
        }
        let steps = overlooked.get(..MOST_MENDED).unwrap_or(&overlooked);
        let added = partition.mend((&self.id, &self.workflow), self.home(plan), seq, steps).await?;
        if added > 0 {
            let what = if self.is_closing {
                "close"
            } else if complete {
                "finish"
            } else {
                "dispatch"
            };
            context.counters.repaired.with(&[what]).inc_by(added);
            tracing::warn!(run = self.id, what, added, "run stood still and was carried on");
        }
        Ok(true)
    }

    /// The queue of its own entries, and of steps that name none.
    fn home<'q>(&'q self, plan: &'q Plan) -> &'q str {
        self.queue.as_deref().unwrap_or(&plan.queue)
    }

    /// Steps that were never dispatched although their needs call for it.
    fn overlooked<'p>(&'p self, plan: &'p Plan) -> Vec<Overlooked<'p>> {
        let need = |step: &u32| {
            let record = self.records.get(*step as usize).and_then(Option::as_ref);
            let continues = plan.step(*step).is_some_and(|step| step.continue_on_error);
            record.map_or(Need::Pending, |(_, record)| need_of(record.state, continues))
        };
        let mut overlooked = Vec::new();
        for (index, (step, record)) in (0..plan.main()).zip(plan.steps.iter().zip(&self.records)) {
            let needs: Vec<Need> = step.dispatched_by().iter().map(need).collect();
            if record.is_none() && step.is_due(&needs) {
                let number = |wanted: fn(&Need) -> bool| {
                    u32::try_from(needs.iter().filter(|need| wanted(need)).count()).unwrap_or(u32::MAX)
                };
                overlooked.push(Overlooked {
                    step: index,
                    name: &step.id,
                    queue: step.queue.as_deref().unwrap_or_else(|| self.home(plan)),
                    ended: number(|need| *need != Need::Pending),
                    ok: number(|need| *need == Need::Succeeded),
                });
            }
        }
        overlooked
    }
}

const fn need_of(state: StepState, continues: bool) -> Need {
    match state {
        StepState::Pending
        | StepState::Ready
        | StepState::Running
        | StepState::Parked
        | StepState::Retrying
        | StepState::Waiting => Need::Pending,
        StepState::Succeeded => Need::Succeeded,
        StepState::Skipped => Need::Skipped,
        StepState::Failed | StepState::Cancelled | StepState::TimedOut if continues => Need::Continued,
        StepState::Failed | StepState::Cancelled | StepState::TimedOut => Need::Failed,
    }
}
