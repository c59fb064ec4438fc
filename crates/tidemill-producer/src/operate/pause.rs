//! Pausing and resuming runs, workflows and queues.
//!
//! What runs goes on to its end, and timers go on; what would begin is put aside at no cost, and comes back when it is resumed. Workers
//! learn within about a second what is paused.

use std::collections::BTreeMap;

use serde::Serialize;
use tidemill_store::{Operation, Partition, PauseAnswer, PauseNote, PauseOf, Store};
use utoipa::ToSchema;

use super::{By, bounded};
use crate::refusal::{Code, Refusal};
use crate::views;
use crate::workflows::Workflows;

/// What is paused or resumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What<'a> {
    /// A run, with the runs that it has asked for, and theirs: what begins in one of them looks at all that it is a part of.
    Run(&'a str),
    /// A workflow: its runs, and those that would start.
    Workflow(&'a str),
    /// A queue.
    Queue(&'a str),
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct PauseView {
    /// What: a run's id, `workflow <name>` or `queue <name>`.
    pub subject: String,
    /// Whether it is paused now.
    pub paused: bool,
    /// Whether anything is different now.
    pub changed: bool,
    /// How much work that was put aside for it is due now.
    pub woken: u64,
}

/// The workflows and queues that are paused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct PausedView {
    /// By name.
    #[schema(value_type = BTreeMap<String, Object>)]
    pub workflows: BTreeMap<String, PauseNote>,
    /// By name.
    #[schema(value_type = BTreeMap<String, Object>)]
    pub queues: BTreeMap<String, PauseNote>,
}

/// The workflows and queues that are paused. A paused run says so itself.
///
/// # Errors
/// Redis is not available.
pub async fn paused(store: &Store) -> Result<PausedView, Refusal> {
    let tidemill_store::Paused { workflows, queues } = store.home().paused().await?;
    Ok(PausedView { workflows, queues })
}

/// Pauses, or resumes what is paused.
///
/// # Errors
/// The run has ended or is unknown, so is the workflow, no reason is given for a pause, or Redis is not available.
pub async fn pause(
    store: &Store,
    workflows: &Workflows,
    (what, pauses): (What<'_>, bool),
    by: By<'_>,
) -> Result<PauseView, Refusal> {
    let why = by.why();
    if pauses && why.is_empty() {
        let detail = "a pause wants a reason, for who finds it later";
        return Err(Refusal::new(Code::MissingMember, detail));
    }
    let at_ms = store.home().now_ms().await?;
    let root = match what {
        What::Run(id) => id.to_owned(),
        What::Workflow(_) | What::Queue(_) => String::new(),
    };
    let note = PauseNote { by: bounded(by.who), why: why.clone(), at_ms, run: root };
    let (of, partition) = match what {
        What::Run(id) => (PauseOf::Run(id), of_run(store, id).await?),
        What::Workflow(name) => {
            if pauses {
                // one that nobody has published is a misspelt one
                workflows.plan(name).await?;
            }
            (PauseOf::Workflow(name), store.home())
        }
        What::Queue(name) => {
            tidemill_protocol::check_queue(name)
                .map_err(|error| Refusal::new(Code::InvalidMember, error.to_string()))?;
            (PauseOf::Queue(name), store.home())
        }
    };
    let subject = of.subject();
    let kind = if pauses { "pause" } else { "resume" };
    let operation = Operation { kind, subject: &subject, step: "", by: &note.by, why: &why };
    let answer = partition.pause(of, pauses.then_some(&note), &operation).await?;
    let changed = match answer {
        PauseAnswer::Done => true,
        PauseAnswer::Already => false,
        PauseAnswer::RunEnded => {
            let detail =
                format!("run {subject:?} has ended, or is ending: what is done at its end is not held up");
            return Err(Refusal::new(Code::AlreadyEnded, detail));
        }
        PauseAnswer::RunGone => return Err(views::unknown_run(&subject)),
    };
    let mut woken = 0;
    if !pauses {
        for partition in store.partitions() {
            woken += partition.wake_noted(&of.reason()).await?;
        }
    }
    Ok(PauseView { subject, paused: pauses, changed, woken })
}

async fn of_run<'s>(store: &'s Store, id: &str) -> Result<&'s Partition, Refusal> {
    let own = store.partition_of(id);
    let others = store.partitions().iter().filter(|other| other.index() != own.index());
    for partition in std::iter::once(own).chain(others) {
        if !partition.summaries(&[id.to_owned()]).await?.is_empty() {
            return Ok(partition);
        }
    }
    views::run_exists(store, id).await?;
    let detail = format!(
        "run {id:?} is asked for and has not started: pause its workflow, or wait until it has started"
    );
    Err(Refusal::new(Code::NotWaiting, detail))
}
