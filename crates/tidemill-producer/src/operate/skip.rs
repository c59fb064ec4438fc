//! Giving a step an output by hand, in place of what it would have done.

use serde::Serialize;
use serde_json::value::RawValue;
use tidemill_protocol::{CHILD, EntryId, RunState, StepState};
use tidemill_store::{Dependent, Gift, Given, Mode, Operation, Slot, StepOutcome, StopRun, Store, keys};
use tidemill_workflow::Finish;
use tidemill_workflow::orchestrate::open_children;
use utoipa::ToSchema;

use super::{By, Known, bounded};
use crate::refusal::{Code, Refusal};
use crate::workflows::Workflows;

/// How long a run is kept whose record does not say, in milliseconds.
const KEPT_MS: u64 = 24 * 3600 * 1000;
/// One call dispatches no more dependents than this; the rest of a wider fan-out goes on by itself.
const WIDEST: usize = 250;

/// What a step is given.
#[derive(Debug, Clone, Copy)]
pub struct Skip<'a> {
    /// JSON text; absent: `null`.
    pub output: Option<&'a str>,
    /// Who and why.
    pub by: By<'a>,
}

/// A step that was skipped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Skipped {
    /// The run.
    pub run: String,
    /// The step.
    pub step: String,
    /// Whether the run ended with it.
    pub run_ended: bool,
}

/// Gives a step an output by hand. It has succeeded, then, and what it waited for is given up.
///
/// # Errors
/// The run or step is unknown or has ended, a worker runs the step, its turn has not come, the output is no JSON, or Redis is not available.
pub async fn skip(
    store: &Store,
    workflows: &Workflows,
    (run, step): (&str, &str),
    skip: Skip<'_>,
) -> Result<Skipped, Refusal> {
    let output: &RawValue = serde_json::from_str(skip.output.unwrap_or("null").trim())
        .map_err(|error| Refusal::new(Code::InvalidJson, format!("the output is no JSON: {error}")))?;
    let mut known = Known::read(store, workflows, run).await?;
    let fields = ["md", "rt", "rms"].map(str::to_owned);
    let mut row = known.partition.fields_of(run, None, &fields).await?.into_iter();
    let mut text = || row.next().flatten().map(|value| String::from_utf8_lossy(&value).into_owned());
    let (mode, keeps_result, retention) = (text(), text(), text());
    let mode = mode.as_deref().and_then(tidemill_protocol::ExecutionMode::parse).unwrap_or_default();
    if mode.is_sequential() {
        known.plan = known.plan.in_order();
    }
    let index = known.step(step)?;
    let slot = Slot {
        run: run.to_owned(),
        step: index,
        item: None,
        name: known.plan.step(index).map_or_else(String::new, |step| step.id.to_string()),
    };
    let (targets, mut outcome) = success(&known, &slot, output.get());
    outcome.publishes = keeps_result.is_some() || known.record.reply_to.is_some();
    outcome.retention_ms = retention.and_then(|ms| ms.parse().ok()).unwrap_or(KEPT_MS);
    let (queue, member) = (known.queue_of(index), slot.member());
    let tier = known.partition.lines_of(queue, &[member]).await?.pop().flatten();
    let (who, why, by) = (skip.by.word(), skip.by.why(), bounded(skip.by.who));
    let operation = Operation { kind: "skip", subject: run, step: &slot.name, by: &by, why: &why };
    let gift = Gift { slot: &slot, queue, tier: tier.as_deref(), who: &who, operation: &operation, outcome };
    let given = known.partition.give(&targets, &gift).await?;
    let run_ended = told(&known, &slot, given)?;
    give_up_children(&known, &slot, &who).await?;
    Ok(Skipped { run: run.to_owned(), step: slot.name, run_ended })
}

/// Its success, as a worker would settle it, and the queues of what counts it.
fn success<'a>(known: &'a Known<'_>, slot: &'a Slot, output: &'a str) -> (Vec<String>, StepOutcome<'a>) {
    let (plan, step) = (&known.plan, slot.step);
    let home = known.record.queue.as_deref().unwrap_or(&plan.queue);
    let mut targets = vec![home.to_owned()];
    let all = plan.dependents(step);
    let mut dependents = Vec::with_capacity(all.len().min(WIDEST));
    for dependent in all.iter().take(WIDEST) {
        let (Some(planned), Some(fires)) = (plan.step(*dependent), plan.fires_when(*dependent)) else {
            continue;
        };
        let queue = known.queue_of(*dependent);
        let target = targets.iter().position(|target| target == queue).unwrap_or_else(|| {
            targets.push(queue.to_owned());
            targets.len() - 1
        });
        dependents.push(Dependent {
            step: *dependent,
            name: &planned.id,
            ended: fires.ended,
            ok: fires.ok,
            target,
        });
    }
    let outcome = StepOutcome {
        entry: none(),
        run: &slot.run,
        workflow: &known.record.workflow,
        step: Some(step),
        name: &slot.name,
        to: StepState::Succeeded,
        attempt: 0,
        ran: std::time::Duration::ZERO,
        output: output.as_bytes(),
        error: "",
        code: "",
        reason: "",
        steps: plan.main() as usize,
        mode: Mode {
            success: true,
            gives_output: matches!(plan.finish, Finish::Sink(sink) if sink == step),
            did_not_run: true,
            waits: plan.waits(),
            closes: plan.closes(),
            is_closing: step >= plan.main(),
            ..Mode::default()
        },
        retention_ms: KEPT_MS,
        publishes: false,
        reply_to: known.record.reply_to.as_deref(),
        more: (all.len() > WIDEST).then(|| u32::try_from(WIDEST).unwrap_or(u32::MAX)),
        dependents,
    };
    (targets, outcome)
}

/// The entry of an outcome that has none: the function takes that which it finds.
fn none() -> &'static EntryId {
    static NONE: std::sync::LazyLock<EntryId> = std::sync::LazyLock::new(EntryId::first);
    &NONE
}

fn told(known: &Known<'_>, slot: &Slot, given: Given) -> Result<bool, Refusal> {
    let (run, step) = (&slot.run, &slot.name);
    let refuse = |code, what: &str| Err(Refusal::new(code, format!("step {step:?} of run {run:?} {what}")));
    match given {
        Given::Recorded => Ok(false),
        Given::RunEnded => Ok(true),
        Given::Runs => {
            refuse(Code::StepRuns, "is being run by a worker; skip it while it waits, or cancel the run")
        }
        Given::Ended => refuse(Code::AlreadyEnded, "has ended already"),
        Given::Pending => refuse(
            Code::StepPending,
            "has not become ready: skip what it waits for, or wait until its turn has come",
        ),
        Given::Over => Err(known.ended()),
        Given::RunGone => Err(crate::views::unknown_run(run)),
    }
}

/// Runs that it asked for have nobody who waits for them any more.
async fn give_up_children(known: &Known<'_>, slot: &Slot, who: &str) -> Result<(), Refusal> {
    let Some(memo) = known.record.memos.get(&slot.step) else { return Ok(()) };
    for key in open_children(memo) {
        let id = format!("{}{CHILD}{}.{key}", slot.run, slot.name);
        let why = "the step that asked for it was skipped";
        known.partition.cancel_job(keys::RUNS, &id, why).await?;
        let stop = StopRun {
            id: &id,
            to: RunState::Cancelled,
            who,
            code: "cancelled",
            reason: why,
            only_past_deadline: false,
            spares: false,
            by_force: false,
        };
        known.partition.stop_run(&stop).await?;
    }
    Ok(())
}
