//! How a run went: its steps' states over time.

use std::collections::HashMap;

use serde::Serialize;
use tidemill_protocol::{Span, StepRecord, Timeline, Track, item_of};
use tidemill_store::{AuditPage, Partition, Store, keys};
use utoipa::ToSchema;

use super::{RunView, StepView};
use crate::refusal::Refusal;
use crate::workflows::Workflows;

/// Stream entries of the audit in one read.
const PAGE: usize = 1_000;
/// Of more steps than this it is not asked since when they run.
const MOST_HELD: usize = 200;

/// How a run went, or has gone so far.
#[derive(Debug, Serialize, ToSchema)]
pub struct HistoryView {
    /// The run's id.
    pub run: String,
    /// Where it stands.
    pub state: String,
    /// Its workflow as `name@version`; absent before it has started.
    pub workflow: Option<String>,
    /// When it started, in Unix milliseconds.
    pub started_at_ms: Option<u64>,
    /// When it ended.
    pub ended_at_ms: Option<u64>,
    /// From its start to its last transition, or until now while it lives, in milliseconds.
    pub took_ms: u64,
    /// How many transitions there were.
    pub transitions: u64,
    /// The run's own states: each with `state`, `from_ms`, `to_ms` (absent for the last), `attempt` and `who`.
    #[schema(value_type = Vec<Object>)]
    pub spans: Vec<Span>,
    /// Its steps in the order in which they began.
    pub steps: Vec<StepHistoryView>,
}

/// How a step went, or an item.
#[derive(Debug, Serialize, ToSchema)]
pub struct StepHistoryView {
    /// The step's id (`order`), or an item's (`order[3]`).
    pub id: String,
    /// Where it stands.
    pub state: String,
    /// The attempt under way, or the last one.
    pub attempts: u32,
    /// How long it was in each state.
    pub durations_ms: DurationsView,
    /// Its states, as the run's.
    #[schema(value_type = Vec<Object>)]
    pub spans: Vec<Span>,
}

impl StepHistoryView {
    /// What a track tells until a time.
    #[must_use]
    pub fn of(track: Track, until_ms: u64) -> Self {
        Self {
            state: track.state().to_owned(),
            attempts: track.attempt(),
            durations_ms: DurationsView::of(&track, until_ms),
            id: track.subject,
            spans: track.spans,
        }
    }
}

/// Times in milliseconds, all attempts together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct DurationsView {
    /// In its queue.
    pub ready: u64,
    /// With a worker.
    pub running: u64,
    /// Put aside until a limit, a breaker or a pause let it go.
    pub parked: u64,
    /// Between two attempts.
    pub retrying: u64,
}

impl DurationsView {
    fn of(track: &Track, until_ms: u64) -> Self {
        let [ready, running, parked, retrying] =
            ["ready", "running", "parked", "retrying"].map(|state| track.total_ms(state, until_ms));
        Self { ready, running, parked, retrying }
    }

    /// All of them.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.ready.saturating_add(self.running).saturating_add(self.parked).saturating_add(self.retrying)
    }
}

/// How a run went; with `items`, the items of its `for_each` steps, too. An attempt under way is told from who holds it, for the audit
/// learns of it when it has ended.
///
/// # Errors
/// The run is unknown, or Redis is not available.
pub async fn history(
    store: &Store,
    workflows: &Workflows,
    id: &str,
    items: bool,
) -> Result<HistoryView, Refusal> {
    let run = super::run(store, workflows, id).await?;
    let partition = store.partition_of(id);
    let (timeline, transitions) = timeline(partition, id, items).await?;
    let now_ms = partition.now_ms().await?;
    let held = held(partition, &run, now_ms).await?;
    let mut tracks: Vec<Track> = timeline.tracks().cloned().collect();
    for track in tracks.iter_mut().filter(|track| track.state() == "ready") {
        if let Some((since_ms, worker)) = held.get(&track.subject) {
            track.goes_on("running", *since_ms, Some(worker.clone()));
        }
    }
    let began_ms = run.started_at_ms.unwrap_or(now_ms);
    // steps of an ended run may end after it
    let last_ms = tracks.iter().map(Track::last_ms).max().unwrap_or(0);
    let until_ms = run.ended_at_ms.map_or(now_ms, |ended| ended.max(last_ms)).max(began_ms);
    Ok(HistoryView {
        run: run.id,
        state: run.state,
        workflow: run.workflow,
        started_at_ms: run.started_at_ms,
        ended_at_ms: run.ended_at_ms,
        took_ms: until_ms - began_ms,
        transitions,
        spans: timeline.run().map(|track| track.spans.clone()).unwrap_or_default(),
        steps: tracks.into_iter().map(|track| StepHistoryView::of(track, until_ms)).collect(),
    })
}

async fn timeline(partition: &Partition, id: &str, items: bool) -> Result<(Timeline, u64), Refusal> {
    let (mut timeline, mut transitions, mut page) = (Timeline::default(), 0, AuditPage::default());
    loop {
        let before = page.cursor.clone();
        page = partition.audit_page(id, before.as_deref(), PAGE).await?;
        for record in std::mem::take(&mut page.records) {
            transitions += 1;
            if items || item_of(&record.subject).is_none() {
                timeline.add(record);
            }
        }
        if page.cursor == before {
            return Ok((timeline, transitions));
        }
    }
}

/// Since when, and by whom, steps are held whose attempts are under way.
async fn held(
    partition: &Partition,
    run: &RunView,
    now_ms: u64,
) -> Result<HashMap<String, (u64, String)>, Refusal> {
    let running: Vec<&StepView> =
        run.steps.iter().filter(|step| step.state == "running").take(MOST_HELD).collect();
    let names: Vec<String> = running.iter().map(|step| format!("s{}", step.index)).collect();
    let records = partition.fields_of(&run.id, None, &names).await?;
    let mut held = HashMap::new();
    for (step, value) in running.into_iter().zip(records) {
        let record = value.and_then(|value| StepRecord::parse(&String::from_utf8_lossy(&value)));
        let (Some(id), Some(record)) = (&step.id, record) else { continue };
        let Some(entry) = record.entry else { continue };
        let stream = partition.keys().jobs(&record.queue);
        if let Some((worker, held_ms)) = partition.holder(&stream, keys::WORKERS, &entry).await? {
            held.insert(id.clone(), (now_ms.saturating_sub(held_ms), worker));
        }
    }
    Ok(held)
}
