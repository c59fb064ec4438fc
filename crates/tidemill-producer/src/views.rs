//! What people and programs are shown about jobs and runs: read from the store, named as the API names it.

mod history;
mod jobs;
mod lines;
mod runs;

use serde::Serialize;
use serde_json::value::RawValue;
use tidemill_store::Letter;
use utoipa::ToSchema;

pub use history::{DurationsView, HistoryView, StepHistoryView, history};
pub use jobs::job;
pub(crate) use jobs::status_of;
pub(crate) use lines::line_views;
pub(crate) use runs::{exists as run_exists, unknown as unknown_run};
pub use runs::{run, run_result, step};

/// A job and where it is.
#[derive(Debug, Serialize, ToSchema)]
pub struct JobView {
    /// Its id.
    pub id: String,
    /// `queued`, `running`, `deferred`, `parked` (in a line), `accepted` (taken in, and nothing more is known: it left no result), or how it
    /// ended: `succeeded`, `failed`, `timed_out`, `cancelled`.
    pub state: String,
    /// Its queue, while it is in one.
    pub queue: Option<String>,
    /// Its entry in the queue's stream now.
    pub entry: Option<String>,
    /// The worker that runs it.
    pub worker: Option<String>,
    /// For how long that worker has held it, in milliseconds.
    pub held_ms: Option<u64>,
    /// When it is due, in Unix milliseconds.
    pub due_at_ms: Option<u64>,
    /// Where it waits for its turn, while it is parked.
    pub line: Option<LineView>,
    /// Why it waits.
    pub why: Option<String>,
    /// Its result, if one is kept.
    #[schema(value_type = Option<Object>)]
    pub result: Option<Box<RawValue>>,
    /// Why it could not be done.
    pub dead_letter: Option<LetterView>,
}

/// A place in a line. With several partitions it is an estimate: each has a line of its own, and they move on together.
#[derive(Debug, Serialize, ToSchema)]
pub struct LineView {
    /// The tier of limits that it waits for, such as `openai` or `openai/tenant:acme`.
    pub tier: String,
    /// Its place: 1 is next.
    pub place: u64,
    /// How many wait there in all.
    pub length: u64,
    /// Since when it waits, in Unix milliseconds.
    pub since_ms: Option<u64>,
    /// What holds the line up: `limit:<unit>`, `concurrency`, `breaker` or `pause`.
    pub bound_by: Option<String>,
    /// In about how many milliseconds its turn comes, if that can be told.
    pub expected_in_ms: Option<u64>,
    /// Whether somebody calls up from this line: a scheduler must run.
    pub is_paced: bool,
}

/// A dead letter.
#[derive(Debug, Serialize, ToSchema)]
pub struct LetterView {
    /// Its id.
    pub letter: String,
    /// Stable word: why.
    pub code: String,
    /// A sentence: why.
    pub reason: String,
    /// Where the work stood.
    pub stream: String,
    /// The work's first entry.
    pub entry: String,
    /// Attempts made.
    pub attempts: u32,
    /// When it died, in Unix milliseconds.
    pub at_ms: u64,
    /// The original fields as text; bytes that are no UTF-8 are replaced.
    #[schema(value_type = Object)]
    pub fields: serde_json::Map<String, serde_json::Value>,
}

/// What was used of a budget; nothing where there is none.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct SpentView {
    /// Steps, items and rounds that have ended.
    pub steps: u64,
    /// What calls said that they cost, in millionths.
    pub cost_micros: u64,
}

/// A run with its steps.
#[derive(Debug, Serialize, ToSchema)]
pub struct RunView {
    /// Its id.
    pub id: String,
    /// Where it stands; `queued` before it has started, `deferred` while it waits for its time.
    pub state: String,
    /// Its workflow as `name@version`; absent before it has started.
    pub workflow: Option<String>,
    /// When it started, in Unix milliseconds.
    pub started_at_ms: Option<u64>,
    /// When it ended.
    pub ended_at_ms: Option<u64>,
    /// When it is due, if it waits for its time.
    pub due_at_ms: Option<u64>,
    /// Its owner.
    pub tenant: Option<String>,
    /// How its steps are carried out: `classic`, `state_machine`, `optimized` or `hybrid`; absent before it has started.
    pub mode: Option<&'static str>,
    /// Its W3C trace context.
    pub traceparent: Option<String>,
    /// The run that asked for it.
    pub parent: Option<String>,
    /// Who has paused it, when and why: `by`, `why`, `at_ms`.
    #[schema(value_type = Option<Object>)]
    pub paused: Option<Box<RawValue>>,
    /// The run that it does again, or a part of it.
    pub source: Option<String>,
    /// What it is found by.
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    pub labels: tidemill_protocol::Labels,
    /// The group that it belongs to, `workflow:key`.
    pub group: Option<String>,
    /// Where it stands in its group, while it waits there for its turn.
    pub place: Option<crate::groups::GroupPlace>,
    /// What was used of its budget by it and all that it started.
    pub spent: SpentView,
    /// Steps that have ended.
    pub steps_done: u64,
    /// Its input.
    #[schema(value_type = Option<Object>)]
    pub input: Option<Box<RawValue>>,
    /// Its output, when it has succeeded.
    #[schema(value_type = Option<Object>)]
    pub output: Option<Box<RawValue>>,
    /// Why it did not succeed: `code` and `message`.
    #[schema(value_type = Option<Object>)]
    pub error: Option<Box<RawValue>>,
    /// Its steps, in the order of the definition.
    pub steps: Vec<StepView>,
}

/// A step of a run.
#[derive(Debug, Serialize, ToSchema)]
pub struct StepView {
    /// Its position in the definition, from 0.
    pub index: u32,
    /// Its id; absent when the definition cannot be read.
    pub id: Option<String>,
    /// Where it stands.
    pub state: String,
    /// The attempt under way, or the last one; 0 before the first.
    pub attempt: u32,
    /// Its queue.
    pub queue: Option<String>,
    /// When it became ready, in Unix milliseconds.
    pub ready_at_ms: Option<u64>,
    /// When its last attempt began.
    pub started_at_ms: Option<u64>,
    /// When it ended.
    pub ended_at_ms: Option<u64>,
    /// When it is due, if it was put aside until a time.
    pub due_at_ms: Option<u64>,
    /// Where it waits for its turn, while it is parked in a line.
    pub line: Option<LineView>,
    /// What it waits for, while it is `waiting`.
    pub why: Option<String>,
    /// Who runs it, or ran it last.
    pub worker: Option<String>,
    /// Its error: `code` and `message`.
    #[schema(value_type = Option<Object>)]
    pub error: Option<Box<RawValue>>,
    /// Its items, if it is a `for_each`.
    pub items: Option<ItemsView>,
    /// The steps that it waits for.
    pub needs: Vec<String>,
}

/// How far a `for_each` is.
#[derive(Debug, Serialize, ToSchema)]
pub struct ItemsView {
    /// All items.
    pub total: u64,
    /// Those that were handed out.
    pub dispatched: u64,
    /// Those that have ended.
    pub ended: u64,
    /// Those that have failed.
    pub failed: u64,
}

/// A step with what it gave.
#[derive(Debug, Serialize, ToSchema)]
pub struct StepOutputView {
    /// The run.
    pub run: String,
    /// The step.
    #[serde(flatten)]
    pub step: StepView,
    /// What it gave; `null` until it has succeeded.
    #[schema(value_type = Option<Object>)]
    pub output: Option<Box<RawValue>>,
}

impl From<Letter> for LetterView {
    fn from(letter: Letter) -> Self {
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned().into();
        Self {
            fields: letter.fields.iter().map(|(name, value)| (name.clone(), text(value))).collect(),
            letter: letter.letter,
            code: letter.code,
            reason: letter.reason,
            stream: letter.stream,
            entry: letter.entry,
            attempts: letter.attempts,
            at_ms: letter.at_ms,
        }
    }
}

/// Stored JSON text as it stands; what is no JSON is shown as a string.
pub(crate) fn raw(text: impl Into<String>) -> Option<Box<RawValue>> {
    let text = text.into();
    match RawValue::from_string(text) {
        Ok(raw) => Some(raw),
        Err(error) => {
            let shown = format!("(stored text is not JSON: {error})");
            serde_json::value::to_raw_value(&shown).ok()
        }
    }
}

pub(crate) fn raw_bytes(bytes: &[u8]) -> Option<Box<RawValue>> {
    raw(String::from_utf8_lossy(bytes))
}
