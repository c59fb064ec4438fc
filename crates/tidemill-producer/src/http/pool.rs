//! The pool: queues, workers, dead letters.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use tidemill_store::{Member, QueueDepth, keys};
use tokio::time::Instant;
use utoipa::{IntoParams, ToSchema};

use super::Door;
use super::answer::ProblemView;
use super::query::Asked;
use crate::refusal::{Code, Refusal};
use crate::views::LetterView;

/// How deep the queues are.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct QueuesView {
    /// Each queue, over all partitions.
    queues: Vec<DepthView>,
    /// Runs that are asked for and have not started.
    requested_runs: DepthView,
    /// Runs that have not ended.
    live_runs: u64,
    /// Runs that have ended and are kept.
    ended_runs: u64,
    /// Dead letters.
    dead_letters: u64,
}

/// How deep a queue is.
#[derive(Debug, Default, Serialize, ToSchema)]
struct DepthView {
    /// The queue.
    queue: String,
    /// Entries that nobody has claimed.
    ready: u64,
    /// Entries that workers hold.
    running: u64,
    /// Work put aside until a time: delays, retries.
    deferred: u64,
    /// Work parked in lines, where it waits for limits.
    parked: u64,
    /// When the oldest entry was made, in Unix milliseconds.
    oldest_at_ms: Option<u64>,
}

impl DepthView {
    fn add(&mut self, depth: QueueDepth) {
        self.queue = depth.queue;
        self.ready += depth.ready;
        self.running += depth.running;
        self.deferred += depth.deferred;
        self.parked += depth.parked;
        self.oldest_at_ms = match (self.oldest_at_ms, depth.oldest_ms) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
}

/// How deep the queues are, and how many runs and dead letters there are.
#[utoipa::path(get, path = "/v1/queues", tag = "pool", operation_id = "list_queues",
    responses((status = 200, description = "The queues", body = QueuesView),
        (status = "default", description = "A problem", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn queues(State(door): State<Door>) -> Result<Json<QueuesView>, Refusal> {
    let mut depths: BTreeMap<String, DepthView> = BTreeMap::new();
    let mut view = QueuesView {
        queues: Vec::new(),
        requested_runs: DepthView::default(),
        live_runs: 0,
        ended_runs: 0,
        dead_letters: 0,
    };
    for partition in door.store().partitions() {
        for queue in partition.queues().await? {
            let depth = partition.depth(&queue).await?;
            depths.entry(queue).or_default().add(depth);
        }
        view.requested_runs.add(partition.depth(keys::RUNS).await?);
        let (live, ended) = partition.run_counts().await?;
        view.live_runs += live;
        view.ended_runs += ended;
        view.dead_letters += partition.letter_count().await?;
    }
    "runs".clone_into(&mut view.requested_runs.queue);
    view.queues = depths.into_values().collect();
    Ok(Json(view))
}

/// The processes of the pool.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WorkersView {
    workers: Vec<WorkerView>,
}

/// A process of the pool.
#[derive(Debug, Serialize, ToSchema)]
struct WorkerView {
    /// Its name, unique per start.
    consumer: String,
    /// `worker`, `scheduler` or another program's word.
    role: String,
    /// Its machine.
    host: String,
    /// Its process id.
    pid: u32,
    /// Its version.
    version: String,
    /// The queues that it serves.
    queues: Vec<String>,
    /// How many tools it runs at once.
    slots: u32,
    /// When it started, in Unix milliseconds.
    started_at_ms: u64,
    /// Whether it gives signs of life.
    alive: bool,
}

/// The last change of each process's counter that was seen here. Only a watcher with its own clock can tell who lives.
#[derive(Debug, Default)]
pub(super) struct Liveness {
    seen: Mutex<HashMap<String, Seen>>,
}

#[derive(Debug, Clone)]
struct Seen {
    counter: String,
    changed: Option<Instant>,
}

/// A process renews its counter each second; a change this young means that it lives.
const YOUNG: Duration = Duration::from_secs(3);
/// Somebody who renews each second has surely done so after this long.
const BEAT: Duration = Duration::from_millis(1_300);

impl Liveness {
    /// Takes counters in and tells whether each process is known to live.
    fn observe(&self, beats: &HashMap<String, String>) -> HashMap<String, bool> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|consumer, _| beats.contains_key(consumer));
        let now = Instant::now();
        let mut lives = HashMap::new();
        for (consumer, counter) in beats {
            let fresh = || Seen { counter: counter.clone(), changed: None };
            let known = seen.entry(consumer.clone()).or_insert_with(fresh);
            if known.counter != *counter {
                *known = Seen { counter: counter.clone(), changed: Some(now) };
            }
            let young = known.changed.is_some_and(|changed| now.duration_since(changed) < YOUNG);
            lives.insert(consumer.clone(), young);
        }
        lives
    }
}

/// The workers and schedulers of the pool.
#[utoipa::path(get, path = "/v1/workers", tag = "pool", operation_id = "list_workers",
    responses((status = 200, description = "The processes", body = WorkersView),
        (status = "default", description = "A problem", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn workers(State(door): State<Door>) -> Result<Json<WorkersView>, Refusal> {
    let mut members: BTreeMap<String, Member> = BTreeMap::new();
    for partition in door.store().partitions() {
        for member in partition.members().await? {
            members.entry(member.consumer.clone()).or_insert(member);
        }
    }
    let mut lives = door.inner.liveness.observe(&beats(&door).await?);
    if members.keys().any(|consumer| !lives.get(consumer).copied().unwrap_or(false)) {
        tokio::time::sleep(BEAT).await;
        lives = door.inner.liveness.observe(&beats(&door).await?);
    }
    let workers = members.into_values().map(|member| WorkerView {
        alive: lives.get(&member.consumer).copied().unwrap_or(false),
        consumer: member.consumer,
        role: member.role,
        host: member.host,
        pid: member.pid,
        version: member.version,
        queues: member.queues,
        slots: member.slots,
        started_at_ms: member.started_at_ms,
    });
    Ok(Json(WorkersView { workers: workers.collect() }))
}

/// The counters of all partitions, joined: a change in one of them is a sign of life.
async fn beats(door: &Door) -> Result<HashMap<String, String>, Refusal> {
    let mut all: HashMap<String, String> = HashMap::new();
    for partition in door.store().partitions() {
        for (consumer, counter) in partition.beats().await? {
            let joined = all.entry(consumer).or_default();
            joined.push_str(&counter);
            joined.push(' ');
        }
    }
    Ok(all)
}

/// Which dead letters.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DeadQuery {
    /// Where the page before ended.
    cursor: Option<String>,
    /// Most letters of the page (default 50, at most 500).
    limit: Option<usize>,
}

/// Dead letters, oldest first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DeadView {
    letters: Vec<LetterView>,
    /// Give it as `cursor` for the next page; absent after the last.
    next: Option<String>,
}

/// Lists dead letters: what could not be done, with the reason and the original fields.
#[utoipa::path(get, path = "/v1/dead", tag = "pool", operation_id = "list_dead", params(DeadQuery),
    responses((status = 200, description = "A page of dead letters", body = DeadView),
        (status = "default", description = "A problem", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn dead(
    State(door): State<Door>,
    Asked(query): Asked<DeadQuery>,
) -> Result<Json<DeadView>, Refusal> {
    let limit = query.limit.unwrap_or(50).clamp(1, 500);
    let bad = || Refusal::new(Code::InvalidQuery, "the cursor is not one that a page gave as \"next\"");
    let (mut partition, mut after) = match query.cursor.as_deref() {
        None => (0, None),
        Some(cursor) => {
            let (partition, letter) = cursor.split_once('.').ok_or_else(bad)?;
            tidemill_protocol::EntryId::parse(letter.to_owned()).map_err(|_| bad())?;
            (partition.parse::<usize>().map_err(|_| bad())?, Some(letter.to_owned()))
        }
    };
    let mut letters: Vec<LetterView> = Vec::new();
    while let Some(place) = door.store().partitions().get(partition) {
        let missing = limit - letters.len();
        let found = place.letters(after.as_deref(), missing).await?;
        let full = found.len() == missing;
        letters.extend(found.into_iter().map(LetterView::from));
        if full {
            let next = letters.last().map(|last| format!("{partition}.{}", last.letter));
            return Ok(Json(DeadView { letters, next }));
        }
        (partition, after) = (partition + 1, None);
    }
    Ok(Json(DeadView { letters, next: None }))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::{Liveness, YOUNG};

    #[tokio::test(start_paused = true)]
    async fn alive_is_whose_counter_changes() {
        let liveness = Liveness::default();
        let beats =
            |n: u32| HashMap::from([("w1".to_owned(), n.to_string()), ("w2".to_owned(), "7".to_owned())]);
        assert!(!liveness.observe(&beats(1))["w1"], "one look tells nothing");
        let lives = liveness.observe(&beats(2));
        assert!(lives["w1"] && !lives["w2"]);
        assert!(liveness.observe(&beats(2))["w1"], "the change is still young");
        tokio::time::advance(YOUNG).await;
        assert!(!liveness.observe(&beats(2))["w1"]);
    }
}
