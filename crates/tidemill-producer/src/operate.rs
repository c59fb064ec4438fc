//! What people do to runs by hand: signals, decisions, skipping, doing again, pausing. The command line and the HTTP API both stand on
//! this.
//!
//! Whatever is done is noted with who and why: in the stream of operations of the run's partition, in the same atomic call where the
//! run moves by it.

mod bulk;
mod cancel;
mod decide;
mod pause;
mod questions;
mod redo;
mod signal;
mod skip;

use std::sync::Arc;

use serde::Serialize;
use tidemill_store::{OperationRecord, Partition, RunRecord, Store};
use tidemill_workflow::Plan;
use utoipa::ToSchema;

pub use bulk::{Act, Bulk, BulkDone, BulkRefusal, bulk};
pub use cancel::{Cancel, cancel};
pub use decide::{Decided, Decision, decide};
pub use pause::{PauseView, PausedView, What, pause, paused};
pub use questions::{QuestionPage, QuestionView, questions};
pub use redo::{Redo, Redone, redo};
pub use signal::{Sent, Signal, signal};
pub use skip::{Skip, Skipped, skip};

use crate::refusal::{Code, Refusal, nearest};
use crate::views;
use crate::workflows::Workflows;

/// Longest reason and name kept, in characters.
const LONGEST: usize = 1_000;

/// Who does something, and why.
#[derive(Debug, Clone, Copy)]
pub struct By<'a> {
    /// Who.
    pub who: &'a str,
    /// Why.
    pub why: &'a str,
}

impl By<'_> {
    /// As the audit of a run names it: one word.
    fn word(&self) -> String {
        let plain = |c: char| if c.is_whitespace() || c.is_control() { '-' } else { c };
        self.who.chars().take(100).map(plain).collect()
    }

    fn why(&self) -> String {
        bounded(self.why)
    }
}

fn bounded(text: &str) -> String {
    text.trim().chars().take(LONGEST).collect()
}

/// A run that has started, with its plan.
struct Known<'s> {
    partition: &'s Partition,
    record: RunRecord,
    plan: Arc<Plan>,
}

impl<'s> Known<'s> {
    async fn read(store: &'s Store, workflows: &Workflows, id: &str) -> Result<Self, Refusal> {
        if tidemill_protocol::check_any_id(id).is_err() {
            return Err(views::unknown_run(id));
        }
        let own = store.partition_of(id);
        // an id that Redis made stands where it was asked for
        let others = store.partitions().iter().filter(|other| other.index() != own.index());
        for partition in std::iter::once(own).chain(others) {
            if let Some(record) = partition.run(id).await? {
                let plan = workflows.plan(&record.workflow).await?;
                return Ok(Self { partition, record, plan });
            }
        }
        views::run_exists(store, id).await?;
        let detail = format!("run {id:?} is asked for and has not started: wait until it has, and ask again");
        Err(Refusal::new(Code::NotWaiting, detail))
    }

    /// The step of an id, or of an index.
    fn step(&self, name: &str) -> Result<u32, Refusal> {
        let by_index = || name.parse().ok().filter(|step| *step < self.plan.main());
        if let Some(step) = self.plan.step_index(name).or_else(by_index) {
            return Ok(step);
        }
        let near = nearest(name, self.plan.steps.iter().map(|step| &*step.id));
        let hint = near.map_or_else(String::new, |near| format!("; did you mean {near:?}?"));
        let (id, workflow) = (&self.record.id, &self.record.workflow);
        Err(Refusal::new(Code::UnknownStep, format!("run {id:?} of {workflow} has no step {name:?}{hint}")))
    }

    /// The queue of a step: where it stands, else where it would.
    fn queue_of(&self, step: u32) -> &str {
        let stands = self.record.steps.get(&step).map(|record| tidemill_store::keys::base_of(&record.queue));
        let own = || self.plan.step(step).and_then(|step| step.queue.as_deref());
        stands.or_else(own).or(self.record.queue.as_deref()).unwrap_or(&self.plan.queue)
    }

    fn ended(&self) -> Refusal {
        let (id, state) = (&self.record.id, self.record.state.as_str());
        Refusal::new(Code::AlreadyEnded, format!("run {id:?} has ended, or is ending: {state}"))
    }
}

/// Something done by hand.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct OperationView {
    /// Where it is kept.
    pub id: String,
    /// When, in Unix milliseconds.
    pub at_ms: u64,
    /// What: `skip`, `retry`, `rerun`, `approve`, `reject`, `signal`, `cancel`, …
    pub kind: String,
    /// To what: a run's id.
    pub subject: String,
    /// The step, where it was one.
    pub step: Option<String>,
    /// Who.
    pub by: String,
    /// Why.
    pub why: String,
}

/// What was done by hand, the newest first; with `subject` only what was done to that.
///
/// # Errors
/// Redis is not available.
pub async fn operations(
    store: &Store,
    subject: Option<&str>,
    limit: usize,
) -> Result<Vec<OperationView>, Refusal> {
    let mut all = Vec::new();
    let most = if subject.is_some() { 10_000 } else { limit };
    for partition in store.partitions() {
        all.extend(partition.operations(most).await?);
    }
    all.retain(|operation| subject.is_none_or(|subject| operation.subject == subject));
    all.sort_by_key(|operation| std::cmp::Reverse(operation.at_ms));
    all.truncate(limit);
    let view = |operation: OperationRecord| {
        let OperationRecord { id, at_ms, kind, subject, step, by, why } = operation;
        OperationView { id, at_ms, kind, subject, step: Some(step).filter(|step| !step.is_empty()), by, why }
    };
    Ok(all.into_iter().map(view).collect())
}
