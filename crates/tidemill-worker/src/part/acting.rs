//! A step that waits is looked at: what it remembers and what has happened decide what it does next.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use tidemill_protocol::{CHILD, MAX_CHILD_ID_BYTES, RunState, StepState};
use tidemill_store::{Partition, StopRun, keys};
use tidemill_workflow::orchestrate::{
    self, ChildRequest, ChildTarget, Event, Moment, Then, Turn, open_children, wanted_items,
};

use super::{Known, Readied, step};
use crate::assignment::step_end;
use crate::outcome::{Ending, Fault, Outcome, RunRef, StepEnd, WaitStep};
use crate::shared::Shared;

/// How deep runs may ask for runs.
const DEEPEST: usize = 16;

/// What a run hands on to those that it asks for.
const INHERITED: [(&str, &str); 6] = [
    ("ten", "tenant"),
    ("usr", "user"),
    ("pri", "priority"),
    ("tp", "traceparent"),
    ("ts", "tracestate"),
    ("qu", "queue"),
];

/// A letter as it stands in the mail: which members it has depends on its kind. (An enum tagged by `type` could not leave texts of
/// JSON as they are.)
#[derive(Debug, Deserialize)]
struct Letter {
    r#type: String,
    #[serde(default)]
    generation: u64,
    #[serde(default)]
    child: String,
    state: Option<RunState>,
    output: Option<Box<RawValue>>,
    error: Option<Box<RawValue>>,
    #[serde(default)]
    name: String,
    #[serde(default)]
    id: String,
    payload: Option<Box<RawValue>>,
    #[serde(default)]
    by: String,
    #[serde(default)]
    at_ms: u64,
    #[serde(default)]
    approve: bool,
    #[serde(default)]
    roles: Vec<String>,
    feedback: Option<Box<RawValue>>,
}

fn bytes(raw: Box<RawValue>) -> Bytes {
    Bytes::from(Box::<str>::from(raw).into_string())
}

fn or_null(raw: Option<Box<RawValue>>) -> Bytes {
    raw.map_or_else(|| Bytes::from_static(b"null"), bytes)
}

impl Letter {
    /// What happened; `None` for a kind that this worker does not know.
    fn event(self) -> Option<Event> {
        let Self { generation, child, state, output, error, name, id, payload, by, at_ms, .. } = self;
        Some(match &*self.r#type {
            "due" => Event::Due { generation },
            "ended" => {
                Event::Ended { child, state: state?, output: output.map(bytes), error: error.map(bytes) }
            }
            "signal" => Event::Signal { name, id, payload: or_null(payload), by, at_ms },
            "decision" => {
                let (approve, roles, feedback) = (self.approve, self.roles, or_null(self.feedback));
                Event::Decision { approve, by, roles, feedback, at_ms }
            }
            "answered" => Event::Answered { output: or_null(output) },
            _ => return None,
        })
    }
}

/// What a step has not read: the keys, and what could be read of it. A letter that cannot was written by another program; it is gone
/// with the next turn.
async fn mail(shared: &Shared, known: &Known, step: u32) -> (Vec<String>, Vec<Event>) {
    let store = &shared.store.partitions()[known.place.partition as usize];
    let letters = shared.persist("reading a step's mail", || store.mail(&known.part.run, step)).await;
    let mut read = Vec::with_capacity(letters.len());
    let mut events = Vec::with_capacity(letters.len());
    for (key, text) in letters {
        match serde_json::from_slice::<Letter>(&text).map(Letter::event) {
            Ok(Some(event)) => events.push(event),
            other => {
                let problem =
                    other.err().map_or_else(|| "of an unknown kind".to_owned(), |error| error.to_string());
                tracing::warn!(run = known.part.run, step, key, problem, "a letter to a step is dropped");
                events.extend(unreadable(&key));
            }
        }
        read.push(key);
    }
    (read, events)
}

/// That a child has ended must be heard even where what it brought cannot be read: nobody tells it again.
fn unreadable(key: &str) -> Option<Event> {
    let child = key.strip_prefix("ended.")?.to_owned();
    let message = "how it ended cannot be read: its output or error is no JSON text (any more)";
    let error = Fault::new("damaged_value", message).json();
    Some(Event::Ended { child, state: RunState::Failed, output: None, error: Some(error.into()) })
}

/// The items that the step needs now: few, and none for nearly all steps.
async fn items(shared: &Shared, known: &Known, step: u32) -> Vec<(u64, Bytes)> {
    let Some(planned) = known.run.plan.step(step) else { return Vec::new() };
    let memo = known.field(&format!("w{step}"));
    let wanted = wanted_items(planned, memo.map(|memo| &memo[..]));
    if wanted.is_empty() {
        return Vec::new();
    }
    let store = &shared.store.partitions()[known.place.partition as usize];
    let fields: Vec<String> = wanted.clone().map(|item| format!("i{item}")).collect();
    let found = shared.persist("reading items", || store.items(&known.part.run, step, &fields)).await;
    // one that is damaged is as good as lost, and is told as that
    wanted.zip(found).filter_map(|(item, text)| text.text().map(|text| (item, text))).collect()
}

pub(super) async fn ready(shared: &Arc<Shared>, known: Known, step: u32) -> Readied {
    let (read, events) = mail(shared, &known, step).await;
    let items = items(shared, &known, step).await;
    let now_ms = match shared.clock.now_ms() {
        Some(now_ms) => now_ms,
        None => {
            let store = &shared.store.partitions()[known.place.partition as usize];
            shared.persist("asking for the time", || store.now_ms()).await
        }
    };
    let (known, turn) = step::evaluate(shared, known, move |known, limits| {
        let Some(planned) = known.run.plan.step(step) else { return Ok(Turn::then(Then::Skip)) };
        let references = planned.references();
        let scope = known.scope(&references, None);
        let memo = known.field(&format!("w{step}")).map(|memo| &memo[..]);
        orchestrate::advance(
            planned,
            &Moment { now_ms, scope: &scope, limits, memo, events: &events, items: &items },
        )
    })
    .await;
    match turn {
        Ok(turn) => follow(shared, known, step, (turn, read)).await,
        Err(fault) => {
            give_up_children(shared, &known, step).await;
            Readied::Done(known.failed(fault))
        }
    }
}

/// Does what a turn says.
async fn follow(
    shared: &Arc<Shared>,
    known: Known,
    step: u32,
    (mut turn, read): (Turn, Vec<String>),
) -> Readied {
    let attempt = known.part.attempt;
    let then = std::mem::replace(&mut turn.then, Then::Wait);
    if matches!(then, Then::Wait | Then::Run { .. }) {
        let requests = match requests(&known, step, std::mem::take(&mut turn.children)) {
            Ok(requests) => requests,
            Err(fault) => {
                give_up_children(shared, &known, step).await;
                return Readied::Done(known.failed(fault));
            }
        };
        let (place, entry, run) = (known.place, known.entry.clone(), known.run.clone());
        let wait = Box::new(WaitStep {
            run,
            step,
            attempt,
            ran: Duration::ZERO,
            turn,
            requests,
            read,
            answer: None,
        });
        return match then {
            Then::Run { input } => step::assign(shared, known, (step, None), input, Some(wait)),
            _ => Readied::Done(Outcome { place, entry, ending: Ending::Wait(wait) }),
        };
    }
    let store = &shared.store.partitions()[known.place.partition as usize];
    cancel_children(shared, store, (&known.run, step), &turn.cancel).await;
    let (place, entry) = (known.place, known.entry.clone());
    let ended = |output: Bytes| {
        let end = step_end(known.run.clone(), step, StepState::Succeeded, attempt, Duration::ZERO);
        Outcome { place, entry, ending: Ending::Step(Box::new(StepEnd { output, ..end })) }
    };
    Readied::Done(match then {
        Then::End(output) => ended(output.into()),
        Then::Gather { total } => {
            let run = (&*known.part.run, step);
            crate::settler::keep(shared, store, run, (&turn, crate::settler::keep_items_ms(&known.run)))
                .await;
            match super::gather::kept(shared, &known, step, total).await {
                Ok(output) => ended(output),
                Err(fault) => known.failed(fault),
            }
        }
        Then::Fail { state, code, message } => known.ended(state, Some(Fault::new(code, message)), true),
        Then::Skip | Then::Wait | Then::Run { .. } => known.ended(StepState::Skipped, None, false),
    })
}

/// The fields of the requests for a step's children.
fn requests(
    known: &Known,
    step: u32,
    children: Vec<ChildRequest>,
) -> Result<Vec<Vec<(&'static str, Bytes)>>, Fault> {
    let name = known.run.plan.step(step).map_or("?", |step| &*step.id);
    let run = &known.run;
    if !children.is_empty() && run.id.matches(CHILD).count() >= DEEPEST {
        let message = format!("runs ask for runs {DEEPEST} levels deep; no deeper is allowed");
        return Err(Fault::new("too_deep", message));
    }
    let request = |child: ChildRequest| {
        let id = child_id(run, name, &child.key);
        if id.len() > MAX_CHILD_ID_BYTES {
            let message =
                format!("the id of a child would have {} bytes; {MAX_CHILD_ID_BYTES} are allowed", id.len());
            return Err(Fault::new("too_deep", message));
        }
        let mut fields: Vec<(&'static str, Bytes)> = Vec::with_capacity(8);
        match child.target {
            ChildTarget::Workflow(workflow) => fields.push(("workflow", workflow.into())),
            ChildTarget::Block(path) => {
                let plan = &run.plan;
                fields.push(("workflow", format!("{}@{}", plan.name, plan.version).into()));
                fields.push(("_block", path.into()));
            }
        }
        fields.push(("input", child.input.into()));
        fields.push(("_id", id.into()));
        if !child.detached {
            fields.push(("_parent", format!("{} {step} {}", run.id, child.key).into()));
        }
        fields.extend(child.locals.map(|locals| ("_locals", locals.into())));
        fields.extend(INHERITED.iter().filter_map(|(own, field)| Some((*field, known.field(own)?.clone()))));
        let mode = known.field("md").cloned().unwrap_or_else(|| Bytes::from_static(b"hybrid"));
        fields.push(("mode", mode));
        Ok(fields)
    };
    children.into_iter().map(request).collect()
}

fn child_id(run: &RunRef, step: &str, key: &str) -> String {
    format!("{}{CHILD}{step}.{key}", run.id)
}

/// Cancels children that nobody waits for any more, whether they run or are only asked for.
pub(crate) async fn cancel_children(
    shared: &Shared,
    store: &Partition,
    (run, step): (&RunRef, u32),
    open: &[String],
) {
    let Some(planned) = run.plan.step(step) else { return };
    for key in open {
        let id = child_id(run, &planned.id, key);
        // marked first: a request that is met later is dropped, and what was started before is found
        let why = "the step that asked for it does not wait for it any more";
        shared.persist("cancelling a request", || store.cancel_job(keys::RUNS, &id, why)).await;
        let stop = StopRun {
            id: &id,
            to: RunState::Cancelled,
            who: &shared.consumer,
            code: "cancelled",
            reason: why,
            only_past_deadline: false,
            spares: false,
            by_force: false,
        };
        shared.persist("cancelling a child", || store.stop_run(&stop)).await;
    }
}

/// The step ends in another way: its children have nobody who waits for them.
pub(super) async fn give_up_children(shared: &Shared, known: &Known, step: u32) {
    let Some(memo) = known.field(&format!("w{step}")) else { return };
    let open = open_children(memo);
    let store = &shared.store.partitions()[known.place.partition as usize];
    cancel_children(shared, store, (&known.run, step), &open).await;
}

#[cfg(test)]
mod tests {
    use super::{Event, Letter};

    #[test]
    fn letters_are_read_with_the_texts_that_they_carry() {
        let read = |text: &str| serde_json::from_str::<Letter>(text).ok().and_then(Letter::event);
        let due = read(r#"{"type":"due","generation":7}"#);
        assert_eq!(due, Some(Event::Due { generation: 7 }));
        let answered = read(r#"{"type":"answered","output":{"a": 1.0}}"#);
        assert_eq!(answered, Some(Event::Answered { output: r#"{"a": 1.0}"#.into() }));
        let ended = read(r#"{"type":"ended","child":"3","state":"failed","error":{"code":"x"}}"#);
        assert!(
            matches!(ended, Some(Event::Ended { child, output: None, error: Some(_), .. }) if child == "3")
        );
        let signal = read(r#"{"type":"signal","name":"n","id":"i","payload":[1],"by":"b","at_ms":5}"#);
        assert!(matches!(signal, Some(Event::Signal { payload, at_ms: 5, .. }) if &payload[..] == b"[1]"));
        let decision = read(r#"{"type":"decision","approve":true,"by":"ann","roles":["boss"]}"#);
        assert!(matches!(decision, Some(Event::Decision { approve: true, roles, .. }) if roles == ["boss"]));
        assert!(
            read(r#"{"type":"nonsense"}"#).is_none() && read(r#"{"type":"ended","child":"1"}"#).is_none()
        );
    }
}
