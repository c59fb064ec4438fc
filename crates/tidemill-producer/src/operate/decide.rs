//! Deciding about a question that a step asks.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tidemill_protocol::{StepRecord, StepState};
use tidemill_store::{Content, Delivered, Operation, Slot, StepLetter, Store};
use tidemill_workflow::orchestrate::{may_decide, question};
use tidemill_workflow::{Action, Plan};
use utoipa::ToSchema;

use super::{By, Known, bounded};
use crate::refusal::{Code, Refusal};
use crate::workflows::Workflows;

/// A step is looked at by a worker for a moment (its reminder was due): how often, and how long, that is waited for.
const TRIES: u32 = 40;
const PAUSE: Duration = Duration::from_millis(50);

/// A decision.
#[derive(Debug, Clone, Copy)]
pub struct Decision<'a> {
    /// Whether it is approved.
    pub approve: bool,
    /// Who decides.
    pub by: &'a str,
    /// The roles that the decider is known to have.
    pub roles: &'a [String],
    /// JSON text: what is to be better, for who makes it anew.
    pub feedback: Option<&'a str>,
    /// The iteration of the question that was seen; absent: whichever stands open.
    pub iteration: Option<u32>,
}

/// A decision that counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Decided {
    /// The run.
    pub run: String,
    /// The step that asked.
    pub step: String,
    /// Whether it is approved.
    pub approved: bool,
    /// Which of its questions.
    pub iteration: u32,
    /// Who decided.
    pub by: String,
}

/// What is seen of a step that may ask.
enum Seen {
    /// It asks: its record, and which question.
    Asks(String, u32),
    /// A worker looks at it just now, and this question stood open before.
    Busy(u32),
}

/// Decides about the question that a step asks. Of many who decide at once one does, and the others are refused.
///
/// # Errors
/// The run or step is unknown or has ended, the step asks nothing, somebody else may decide or has decided, the feedback is no JSON, or
/// Redis is not available.
pub async fn decide(
    store: &Store,
    workflows: &Workflows,
    (run, step): (&str, &str),
    decision: Decision<'_>,
) -> Result<Decided, Refusal> {
    let feedback: &RawValue =
        serde_json::from_str(decision.feedback.unwrap_or("null").trim()).map_err(|error| {
            Refusal::new(
                Code::InvalidJson,
                format!("the feedback is no JSON: {error}; text needs its quotes"),
            )
        })?;
    let known = Known::read(store, workflows, run).await?;
    let index = known.step(step)?;
    let id = check(&known.plan, index, &decision)?;
    if known.record.state.is_terminal() {
        return Err(known.ended());
    }
    let mut expected = decision.iteration;
    for _ in 0..TRIES {
        match look(&known, index, id).await? {
            Seen::Asks(_, iteration) | Seen::Busy(iteration)
                if expected.is_some_and(|seen| seen != iteration) =>
            {
                return Err(conflict(run, id));
            }
            Seen::Asks(seen, iteration) => {
                deliver(&known, index, (id, &seen), (&decision, feedback)).await?;
                let decided = Decided {
                    run: run.to_owned(),
                    step: id.to_owned(),
                    approved: decision.approve,
                    iteration,
                    by: bounded(decision.by),
                };
                return Ok(decided);
            }
            Seen::Busy(iteration) => expected = Some(iteration),
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(conflict(run, id))
}

/// The step's id, if it is one that asks and the decider may decide.
fn check<'p>(plan: &'p Plan, index: u32, decision: &Decision<'_>) -> Result<&'p str, Refusal> {
    let planned = plan.step(index);
    let id = planned.map_or("?", |step| &*step.id);
    let Some(Action::Approval(approval)) = planned.map(|step| &step.action) else {
        let asking: Vec<&str> = plan
            .steps
            .iter()
            .filter(|step| matches!(step.action, Action::Approval(_)))
            .map(|step| &*step.id)
            .collect();
        let hint = if asking.is_empty() {
            "none of its steps does".to_owned()
        } else {
            format!("ask for {}", asking.join(", "))
        };
        return Err(Refusal::new(Code::NotWaiting, format!("step {id:?} asks nobody for approval: {hint}")));
    };
    if may_decide(approval, decision.by, decision.roles) {
        return Ok(id);
    }
    let (by, who) = (decision.by, approval.who.join(", "));
    Err(Refusal::new(
        Code::NotAllowed,
        format!("{by:?} may not decide about step {id:?}: only {who} may (names or roles)"),
    ))
}

async fn look(known: &Known<'_>, index: u32, id: &str) -> Result<Seen, Refusal> {
    let fields = [format!("s{index}"), format!("w{index}"), "st".to_owned(), "to".to_owned()];
    let mut row = known.partition.fields_of(&known.record.id, None, &fields).await?.into_iter();
    let (record, memo) = (row.next().flatten(), row.next().flatten());
    if row.next().flatten().is_none() {
        return Err(crate::views::unknown_run(&known.record.id));
    }
    let is_ending = row.next().flatten().is_some();
    let seen = record.map(|record| String::from_utf8_lossy(&record).into_owned()).unwrap_or_default();
    let state = StepRecord::parse(&seen).map(|record| record.state);
    let asks = memo.as_deref().and_then(question);
    let not_waiting =
        |what: &str| Refusal::new(Code::NotWaiting, format!("step {id:?} does not ask now: {what}"));
    match (state, asks) {
        _ if is_ending => Err(known.ended()),
        (Some(StepState::Waiting), Some(question)) => Ok(Seen::Asks(seen, question.iteration)),
        (Some(StepState::Waiting), None) => Err(not_waiting("what was rejected is being made anew")),
        (Some(StepState::Ready | StepState::Running), Some(question)) => Ok(Seen::Busy(question.iteration)),
        (None | Some(StepState::Pending), _) => Err(not_waiting("its turn has not come")),
        (Some(state), _) if state.is_terminal() => {
            let state = state.as_str();
            Err(Refusal::new(Code::AlreadyEnded, format!("step {id:?} has ended already: {state}")))
        }
        (Some(state), _) => Err(not_waiting(&format!("it is {}", state.as_str()))),
    }
}

async fn deliver(
    known: &Known<'_>,
    index: u32,
    (id, seen): (&str, &str),
    (decision, feedback): (&Decision<'_>, &RawValue),
) -> Result<(), Refusal> {
    let run = &known.record.id;
    let at_ms = known.partition.now_ms().await?;
    let roles = serde_json::to_string(decision.roles).unwrap_or_else(|_| "[]".to_owned());
    let letter = format!(
        r#"{{"type":"decision","approve":{},"by":{},"roles":{roles},"feedback":{},"at_ms":{at_ms}}}"#,
        decision.approve,
        Value::from(bounded(decision.by)),
        feedback.get(),
    );
    let key = format!("decision.{}", uuid::Uuid::now_v7());
    let slot = Slot { run: run.clone(), step: index, item: None, name: id.to_owned() };
    let content = Content::IfUnchanged { key: &key, payload: letter.as_bytes(), seen };
    let letter =
        StepLetter { slot: &slot, workflow: &known.record.workflow, queue: known.queue_of(index), content };
    match known.partition.deliver(&[letter]).await?.first() {
        Some(Delivered::Woke) => {}
        Some(Delivered::RunGone) => return Err(crate::views::unknown_run(run)),
        Some(Delivered::Kept | Delivered::Nothing | Delivered::Unwanted) | None => {
            return Err(conflict(run, id));
        }
    }
    let by = By { who: decision.by, why: if feedback.get() == "null" { "" } else { feedback.get() } };
    let kind = if decision.approve { "approve" } else { "reject" };
    let operation = Operation { kind, subject: run, step: id, by: &bounded(by.who), why: &by.why() };
    Ok(known.partition.note_operation(&operation).await?)
}

fn conflict(run: &str, step: &str) -> Refusal {
    let detail = format!(
        "somebody else has decided about step {step:?} of run {run:?}, or its question has changed; look again"
    );
    Refusal::new(Code::Conflict, detail)
}
