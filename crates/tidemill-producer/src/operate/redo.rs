//! Doing a run, or a part of it, again: as a new run, which is given the ends of the steps that are not done again.

use std::time::Duration;

use serde::Serialize;
use tidemill_protocol::{CHILD, check_id};
use tidemill_store::{Admission, Enqueued, Operation, Store, keys};
use utoipa::ToSchema;

use super::{By, Known, bounded};
use crate::refusal::{Code, Refusal};
use crate::workflows::Workflows;

/// How long the id of a new run is remembered at the door. Later it is known by the run itself.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// A run is done again no more often than this.
const MOST: u32 = 1_000;

/// What is done again.
#[derive(Debug, Clone, Copy)]
pub struct Redo<'a> {
    /// The step to begin with; absent: what has not ended well.
    pub from: Option<&'a str>,
    /// JSON text in place of the run's own input.
    pub input: Option<&'a str>,
    /// The new run's id; absent: `<run>.r<n>`.
    pub id: Option<&'a str>,
    /// Who and why.
    pub by: By<'a>,
}

/// The new run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Redone {
    /// Its id.
    pub id: String,
    /// The run that it does again.
    pub source: String,
    /// Its workflow: the version of the source.
    pub workflow: String,
    /// `queued`, or `duplicate`: a run of that id was asked for before.
    pub state: &'static str,
}

/// Asks for a new run that does a part of one that has ended again.
///
/// # Errors
/// The run is unknown, has not ended, or is part of another; it has nothing to be done again; its workflow refuses the input; or Redis is
/// not available.
pub async fn redo(
    store: &Store,
    workflows: &Workflows,
    run: &str,
    redo: Redo<'_>,
) -> Result<Redone, Refusal> {
    let known = Known::read(store, workflows, run).await?;
    let (record, plan) = (&known.record, &known.plan);
    if let Some((root, _)) = run.split_once(CHILD) {
        let detail = format!("run {run:?} is a part of run {root:?}: do that one again");
        return Err(Refusal::new(Code::InvalidRequest, detail));
    }
    if !record.state.is_terminal() {
        let state = record.state.as_str();
        let detail = format!(
            "run {run:?} is {state}: only what has ended is done again; cancel it first, or skip the step that holds it up"
        );
        return Err(Refusal::new(Code::StillRuns, detail));
    }
    let from = match redo.from {
        Some(step) => {
            let index = known.step(step)?;
            match plan.step(index).filter(|_| index < plan.main()) {
                Some(step) => Some(step.id.to_string()),
                None => {
                    let detail = format!("step {step:?} belongs to the run's end; name one of its own steps");
                    return Err(Refusal::new(Code::UnknownStep, detail));
                }
            }
        }
        None if record.state == tidemill_protocol::RunState::Succeeded => {
            let detail = format!("run {run:?} has succeeded: name a step to do it again from there");
            return Err(Refusal::new(Code::NothingToRetry, detail));
        }
        None => None,
    };
    if let Some(input) = redo.input {
        workflows.check_redo(&record.workflow, input).await?;
    }
    let (id, state) = ask(store, &known, from.as_deref(), &redo).await?;
    let kind = if redo.from.is_some() { "rerun" } else { "retry" };
    let (step, why, by) = (from.unwrap_or_default(), redo.by.why(), bounded(redo.by.who));
    let why = if why.is_empty() { format!("as {id}") } else { format!("as {id}: {why}") };
    let operation = Operation { kind, subject: run, step: &step, by: &by, why: &why };
    known.partition.note_operation(&operation).await?;
    Ok(Redone { id, source: run.to_owned(), workflow: record.workflow.clone(), state })
}

/// Asks for it under its own id, or the first that is free.
async fn ask(
    store: &Store,
    known: &Known<'_>,
    from: Option<&str>,
    redo: &Redo<'_>,
) -> Result<(String, &'static str), Refusal> {
    if let Some(id) = redo.id {
        check_id(id).map_err(|error| Refusal::new(Code::InvalidMember, error.to_string()))?;
        return Ok((
            id.to_owned(),
            if hand_in(store, known, (id, from), redo).await? { "queued" } else { "duplicate" },
        ));
    }
    for n in 1..=MOST {
        let id = format!("{}.r{n}", known.record.id);
        check_id(&id).map_err(|error| {
            Refusal::new(
                Code::InvalidMember,
                format!("give the new run an id: one made of this run's is none ({error})"),
            )
        })?;
        if hand_in(store, known, (&id, from), redo).await? {
            return Ok((id, "queued"));
        }
    }
    Err(Refusal::new(
        Code::Conflict,
        format!("run {:?} was done again {MOST} times; give the new run an id", known.record.id),
    ))
}

/// `false`: there is a run of that id, or one was asked for.
async fn hand_in(
    store: &Store,
    known: &Known<'_>,
    (id, from): (&str, Option<&str>),
    redo: &Redo<'_>,
) -> Result<bool, Refusal> {
    let partition = store.partition_of(id);
    if !partition.summaries(&[id.to_owned()]).await?.is_empty() {
        return Ok(false);
    }
    let record = &known.record;
    let names = ["md", "rt", "tp", "ts", "lb"].map(str::to_owned);
    let kept = known.partition.fields_of(&record.id, None, &names).await?;
    let source = from.map_or_else(|| record.id.clone(), |step| format!("{} {step}", record.id));
    let priority = record.priority.map(|priority| priority.to_string());
    let mut fields: Vec<(&str, &[u8])> = vec![
        ("workflow", record.workflow.as_bytes()),
        ("input", redo.input.map_or(&record.input[..], str::as_bytes)),
        ("id", id.as_bytes()),
        ("_source", source.as_bytes()),
    ];
    let texts = [
        ("tenant", &record.tenant),
        ("user", &record.user),
        ("priority", &priority),
        ("queue", &record.queue),
    ];
    fields.extend(texts.into_iter().filter_map(|(name, text)| Some((name, text.as_deref()?.as_bytes()))));
    let words = ["mode", "result_ttl_ms", "traceparent", "tracestate", "labels"];
    for (name, value) in words.into_iter().zip(&kept) {
        match value {
            Some(value) => fields.push((name, value)),
            // what is not there is the default, whatever the pool's is now
            None if name == "mode" => fields.push((name, b"hybrid")),
            None => {}
        }
    }
    let admission = Admission { id: Some(id), fields, ..Admission::default() };
    let answer = partition.enqueue(keys::RUNS, 0, REMEMBERED, &[admission]).await?;
    Ok(matches!(answer.first(), Some(Enqueued::Ready(_) | Enqueued::Deferred)))
}
