//! A step, or one item of a `for_each`, before its tool runs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidemill_protocol::{Payload, StepState};
use tidemill_store::ItemText;
use tidemill_tool::{Call, Context, Feedback};
use tidemill_workflow::{Action, Decision, ExprError, Limits, PlanStep};

use super::{Known, Readied, acting};
use crate::assignment::{Assignment, Owner, Progress, Standing, Target, step_end};
use crate::outcome::{Ending, Expand, Fault, Outcome, StepEnd, WaitStep};
use crate::shared::Shared;

/// Fuel for expressions that are evaluated where they stand; heavier ones go to a thread that may block.
const LIGHT_FUEL: u64 = 20_000;

/// What the expressions of a step decide.
enum Verdict {
    Skip,
    Expand(Vec<Bytes>),
    Run(Vec<u8>),
    /// It calls nothing and has this output.
    Decided(Vec<u8>),
    /// It waits for something, and what it remembers decides.
    Act,
}

pub(super) async fn ready(shared: &Arc<Shared>, known: Known, step: u32) -> Readied {
    let Some(planned) = known.run.plan.step(step) else {
        let message = format!("the plan of {} has no step {step}", known.run.workflow);
        return Readied::Done(known.failed(Fault::new("unknown_step", message)));
    };
    match planned.decide(&known.needs(step)) {
        Decision::Skip => return Readied::Done(known.ended(StepState::Skipped, None, false)),
        Decision::Wait | Decision::Run => {}
    }
    if planned.is_orchestrated() && known.field(&format!("w{step}")).is_some() {
        return acting::ready(shared, known, step).await;
    }
    let (known, verdict) = evaluate(shared, known, move |known, limits| judge(known, step, limits)).await;
    match verdict {
        Ok(Verdict::Act) => acting::ready(shared, known, step).await,
        Ok(Verdict::Skip) => Readied::Done(known.ended(StepState::Skipped, None, false)),
        Ok(Verdict::Expand(items)) => {
            let attempt = known.part.attempt;
            let expand = Expand { run: known.run, step, attempt, items };
            Readied::Done(Outcome {
                place: known.place,
                entry: known.entry,
                ending: Ending::Expand(Box::new(expand)),
            })
        }
        Ok(Verdict::Run(input)) => assign(shared, known, (step, None), input, None),
        Ok(Verdict::Decided(output)) => Readied::Done(decided(known, step, output)),
        Err(fault) => Readied::Done(known.failed(fault)),
    }
}

pub(super) async fn ready_item(shared: &Arc<Shared>, known: Known, step: u32, item: u64) -> Readied {
    let store = &shared.store.partitions()[known.place.partition as usize];
    let field = [format!("i{item}")];
    let text = shared
        .persist("reading an item", || store.items(&known.part.run, step, &field))
        .await
        .pop()
        .unwrap_or(ItemText::Missing);
    let text = match text {
        ItemText::Text(text) => text,
        ItemText::Missing => {
            let fault = Fault::new("lost_item", "the item's input is not in Redis any more");
            return Readied::Done(known.ended(StepState::Failed, Some(fault), true));
        }
        ItemText::Damaged => {
            let fault = super::damaged("the item's input");
            return Readied::Done(known.ended(StepState::Failed, Some(fault), true));
        }
    };
    let (known, input) = evaluate(shared, known, move |known, limits| {
        let Some(planned) = known.run.plan.step(step) else { return Ok(Vec::new()) };
        planned.with.render(&known.scope(planned.with.references(), Some((item, &text))), limits)
    })
    .await;
    match input {
        Ok(input) => assign(shared, known, (step, Some(item)), input, None),
        Err(fault) => Readied::Done(known.failed(fault)),
    }
}

fn judge(known: &Known, step: u32, limits: &Limits) -> Result<Verdict, ExprError> {
    let Some(planned @ PlanStep { when, with, for_each, action, .. }) = known.run.plan.step(step) else {
        return Ok(Verdict::Skip);
    };
    if let Some(when) = when
        && !when.is_true(&known.scope(when.references(), None), limits)?
    {
        return Ok(Verdict::Skip);
    }
    if planned.is_orchestrated() {
        return Ok(Verdict::Act);
    }
    if let Some(for_each) = for_each {
        let items = for_each.items(&known.scope(for_each.items.references(), None), limits)?;
        let owned =
            |item: Box<serde_json::value::RawValue>| Bytes::from(Box::<str>::from(item).into_string());
        return Ok(Verdict::Expand(items.into_iter().map(owned).collect()));
    }
    let rendered = with.render(&known.scope(with.references(), None), limits);
    rendered.map(if matches!(action, Action::Decide) { Verdict::Decided } else { Verdict::Run })
}

fn decided(known: Known, step: u32, output: Vec<u8>) -> Outcome {
    let end = step_end(known.run, step, StepState::Succeeded, known.part.attempt, Duration::ZERO);
    let ending = Ending::Step(Box::new(StepEnd { output: output.into(), ..end }));
    Outcome { place: known.place, entry: known.entry, ending }
}

/// Evaluates expressions: light ones here, heavy ones on a thread that may block.
pub(super) async fn evaluate<T, F>(shared: &Arc<Shared>, known: Known, judge: F) -> (Known, Result<T, Fault>)
where
    T: Send + 'static,
    F: Fn(&Known, &Limits) -> Result<T, ExprError> + Send + 'static,
{
    let limits = shared.limits;
    match guarded(&known, &judge, &limits.with_fuel(LIGHT_FUEL.min(limits.fuel))) {
        Ok(Err(error)) if error.is_out_of_fuel() && limits.fuel > LIGHT_FUEL => {}
        verdict => return (known, told(verdict)),
    }
    let heavy = tokio::task::spawn_blocking(move || {
        let verdict = told(guarded(&known, &judge, &limits));
        (known, verdict)
    });
    match heavy.await {
        Ok(done) => done,
        // it cannot panic, so the runtime is ending; the batch is given up, and found again by whoever is left
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// A panic inside the interpreter is the fault of this expression, and must not take the rest of the batch with it.
fn guarded<T, F>(known: &Known, judge: &F, limits: &Limits) -> Result<Result<T, ExprError>, Fault>
where
    F: Fn(&Known, &Limits) -> Result<T, ExprError>,
{
    catch_unwind(AssertUnwindSafe(|| judge(known, limits))).map_err(|_| {
        Fault::new("expression", "the interpreter panicked over this expression; the log says where")
    })
}

fn told<T>(verdict: Result<Result<T, ExprError>, Fault>) -> Result<T, Fault> {
    verdict.and_then(|verdict| verdict.map_err(|error| expression_fault(&error)))
}

fn expression_fault(error: &ExprError) -> Fault {
    Fault::new("expression", error.to_string())
}

pub(super) fn assign(
    shared: &Shared,
    known: Known,
    (step, item): (u32, Option<u64>),
    input: Vec<u8>,
    then: Option<Box<WaitStep>>,
) -> Readied {
    let Some(planned) = known.run.plan.step(step) else {
        return Readied::Done(known.ended(StepState::Skipped, None, false));
    };
    let Action::Tool { tool } = &planned.action else {
        return Readied::Done(
            known.failed(Fault::new("unsupported", "this worker is too old for this step")),
        );
    };
    let name = tool.split('@').next().unwrap_or(tool);
    let Some(entry) = shared.registry.get(name) else {
        let message = shared.registry.find(name).err().map(|error| error.to_string()).unwrap_or_default();
        return Readied::Done(known.failed(Fault::new("unknown_tool", message)));
    };
    let target = Target::of(entry);
    let timeout = planned.timeout_ms.map_or(entry.timeout, Duration::from_millis);
    let audit_name: Arc<str> = match item {
        None => Arc::clone(&planned.id),
        Some(item) => format!("{}[{item}]", planned.id).into(),
    };
    let text = |name: &str| known.text(name).map(Arc::from);
    let attempt = known.part.attempt;
    let context = Context {
        id: Arc::clone(&known.run.id),
        step: Some(audit_name),
        iteration: then.as_ref().and_then(|then| tidemill_workflow::orchestrate::iteration(&then.turn.memo)),
        attempt,
        tenant: text("ten"),
        traceparent: text("tp"),
        feedback: Feedback::default(),
    };
    let (first_ms, deaths) = (known.part.first_attempt_ms, known.part.deaths);
    let standing = Standing {
        user: known.text("usr").map(str::to_owned),
        priority: known.text("pri").and_then(|priority| priority.parse().ok()),
        tickets: known.part.tickets.clone(),
    };
    // as if it had been: this run's calls are its own
    let progress = Progress { was_looked_up: !known.run.mode.shares_calls(), ..Progress::default() };
    let owner = match item {
        None => Owner::Step { run: known.run, step, first_ms, then },
        Some(item) => Owner::Item { run: known.run, step, item, first_ms },
    };
    let call = Call { input: Payload::json(input), context };
    let (place, entry) = (known.place, known.entry);
    Readied::Run(Box::new(Assignment {
        place,
        entry,
        target,
        standing: standing.boxed(),
        progress,
        call,
        timeout,
        attempt,
        deaths,
        owner,
    }))
}
