//! Runs: shown, listed, audited, stopped.

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use tidemill_protocol::{AuditRecord, RunState};
use tidemill_store::{EndRun, JobStatus, Partition, RunSummary, keys};
use utoipa::{IntoParams, ToSchema};

use super::Door;
use super::answer::ProblemView;
use super::jobs::{CancelRequest, CancelledView, cancelled, reason_of, stop};
use super::query::Asked;
use crate::refusal::{Code, Refusal};
use crate::views::{self, RunView, StepOutputView};
use crate::why::{self, Why};

/// Runs looked at for one page; filters that match few give short pages with a cursor.
const LOOKED_AT: usize = 2_000;
const MAX_PAGE: usize = 500;

/// Which runs.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RunsQuery {
    /// Only runs in this state.
    state: Option<String>,
    /// Only runs of this workflow: `name` or `name@version`.
    workflow: Option<String>,
    /// Where the page before ended.
    cursor: Option<String>,
    /// Most runs of the page (default 50, at most 500).
    limit: Option<usize>,
}

/// Runs: those that have not ended by their deadline, then those that have, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RunsView {
    runs: Vec<RunLine>,
    /// Give it as `cursor` for the next page; absent after the last.
    next: Option<String>,
}

/// One line about a run.
#[derive(Debug, Serialize, ToSchema)]
struct RunLine {
    /// Its id.
    id: String,
    /// Where it stands.
    state: &'static str,
    /// Its workflow as `name@version`.
    workflow: String,
    /// When it started, in Unix milliseconds.
    started_at_ms: u64,
    /// When it ended.
    ended_at_ms: Option<u64>,
}

impl From<RunSummary> for RunLine {
    fn from(run: RunSummary) -> Self {
        Self {
            id: run.id,
            state: run.state.as_str(),
            workflow: run.workflow,
            started_at_ms: run.started_ms,
            ended_at_ms: run.ended_ms,
        }
    }
}

/// Lists runs. Runs that change while pages are read may be missed or shown twice.
#[utoipa::path(get, path = "/v1/runs", tag = "runs", operation_id = "list_runs", params(RunsQuery),
    responses((status = 200, description = "A page of runs", body = RunsView),
        (status = "default", description = "A problem", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn list(
    State(door): State<Door>,
    Asked(query): Asked<RunsQuery>,
) -> Result<Json<RunsView>, Refusal> {
    let wanted = query.state.as_deref().map(wanted_state).transpose()?;
    let limit = query.limit.unwrap_or(50).clamp(1, MAX_PAGE);
    let mut place = query.cursor.as_deref().map_or_else(|| Ok(Place::default()), Place::read)?;
    if wanted.is_some_and(RunState::is_terminal) {
        place.ended = true;
    }
    let fits = |run: &RunSummary| {
        let name = run.workflow.split_once('@').map_or(run.workflow.as_str(), |(name, _)| name);
        wanted.is_none_or(|state| run.state == state)
            && query.workflow.as_deref().is_none_or(|asked| asked == name || asked == run.workflow)
    };
    let (mut runs, mut looked_at) = (Vec::new(), 0);
    while runs.len() < limit && looked_at < LOOKED_AT {
        let Some(partition) = door.store().partitions().get(place.partition) else {
            if place.ended || wanted.is_some_and(|state| !state.is_terminal()) {
                return Ok(Json(RunsView { runs, next: None }));
            }
            place = Place { ended: true, partition: 0, offset: 0 };
            continue;
        };
        // never more than what is missing, so that the cursor stands right behind the last run shown
        let chunk = limit - runs.len();
        let ids = page(partition, &place, chunk).await?;
        looked_at += ids.len().max(1);
        let full = ids.len() == chunk;
        let found = partition.summaries(&ids).await?;
        runs.extend(found.into_iter().filter(fits).map(RunLine::from));
        if full {
            place.offset += chunk;
        } else {
            place = Place { partition: place.partition + 1, offset: 0, ..place };
        }
    }
    Ok(Json(RunsView { runs, next: Some(place.to_string()) }))
}

async fn page(partition: &Partition, place: &Place, limit: usize) -> Result<Vec<String>, Refusal> {
    let ids = if place.ended {
        partition.ended_runs(place.offset, limit).await?
    } else {
        partition.live_runs(place.offset, limit).await?
    };
    Ok(ids)
}

fn wanted_state(word: &str) -> Result<RunState, Refusal> {
    RunState::parse(word).ok_or_else(|| {
        let known = RunState::ALL.map(RunState::as_str).join(", ");
        Refusal::new(Code::InvalidQuery, format!("the state {word:?} is unknown; known are {known}"))
    })
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Place {
    ended: bool,
    partition: usize,
    offset: usize,
}

impl Place {
    fn read(cursor: &str) -> Result<Self, Refusal> {
        let mut parts = cursor.splitn(3, '.');
        let ended = match parts.next() {
            Some("live") => Some(false),
            Some("ended") => Some(true),
            _ => None,
        };
        let mut number = || parts.next().and_then(|part| part.parse::<u32>().ok()).map(|n| n as usize);
        match (ended, number(), number()) {
            (Some(ended), Some(partition), Some(offset)) => Ok(Self { ended, partition, offset }),
            _ => Err(Refusal::new(Code::InvalidQuery, "the cursor is not one that a page gave as \"next\"")),
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let phase = if self.ended { "ended" } else { "live" };
        write!(f, "{phase}.{}.{}", self.partition, self.offset)
    }
}

/// A run with its steps, their times and their workers.
#[utoipa::path(get, path = "/v1/runs/{id}", tag = "runs", operation_id = "get_run",
    params(("id" = String, Path, description = "The run's id")),
    responses((status = 200, description = "The run", body = RunView),
        (status = "default", description = "A problem", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn show(State(door): State<Door>, Path(id): Path<String>) -> Result<Json<RunView>, Refusal> {
    views::run(door.store(), door.workflows(), &id).await.map(Json)
}

/// Why a run is where it is, in a sentence.
#[utoipa::path(get, path = "/v1/runs/{id}/why", tag = "runs", operation_id = "why_run",
    params(("id" = String, Path, description = "The run's id")),
    responses((status = 200, description = "The reason", body = Why),
        (status = "default", description = "A problem", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn why(State(door): State<Door>, Path(id): Path<String>) -> Result<Json<Why>, Refusal> {
    why::run(door.store(), door.workflows(), &id).await.map(Json)
}

/// A step of a run with its output.
#[utoipa::path(get, path = "/v1/runs/{id}/steps/{step}", tag = "runs", operation_id = "get_step",
    params(("id" = String, Path, description = "The run's id"),
        ("step" = String, Path, description = "The step's id or index; `id[n]` for an item of a `for_each`")),
    responses((status = 200, description = "The step", body = StepOutputView),
        (status = "default", description = "A problem", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn step(
    State(door): State<Door>,
    Path((id, step)): Path<(String, String)>,
) -> Result<Json<StepOutputView>, Refusal> {
    views::step(door.store(), door.workflows(), &id, &step).await.map(Json)
}

/// Which audit records.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct AuditQuery {
    /// Only records after this sequence number.
    after: Option<u64>,
    /// Most records (default 1,000, at most 10,000).
    limit: Option<usize>,
}

/// Every transition of a run and its steps, in order.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AuditView {
    #[schema(value_type = Vec<Object>)]
    records: Vec<AuditRecord>,
    /// Give it as `after` for the next records; absent after the last.
    next: Option<u64>,
}

/// The audit of a run: who moved what from where to where, and when.
#[utoipa::path(get, path = "/v1/runs/{id}/audit", tag = "runs", operation_id = "get_audit",
    params(("id" = String, Path, description = "The run's id"), AuditQuery),
    responses((status = 200, description = "The records", body = AuditView),
        (status = "default", description = "A problem", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn audit(
    State(door): State<Door>,
    Path(id): Path<String>,
    Asked(query): Asked<AuditQuery>,
) -> Result<Json<AuditView>, Refusal> {
    let limit = query.limit.unwrap_or(1_000).clamp(1, 10_000);
    let partition = door.store().partition_of(&id);
    let mut records = partition.audit(&id, query.after.unwrap_or(0), limit + 1).await?;
    if records.is_empty() {
        // unknown, not started, or nothing new: the run itself tells which
        views::run(door.store(), door.workflows(), &id).await?;
    }
    let more = records.len() > limit;
    records.truncate(limit);
    let next = records.last().map(|record| record.seq).filter(|_| more);
    Ok(Json(AuditView { records, next }))
}

/// Cancels a run: no step begins any more, and those that run are stopped.
#[utoipa::path(post, path = "/v1/runs/{id}/cancel", tag = "runs", operation_id = "cancel_run",
    params(("id" = String, Path, description = "The run's id")),
    request_body(content = Option<CancelRequest>),
    responses((status = 200, description = "It is cancelled", body = CancelledView),
        (status = "default", description = "A problem", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn cancel(
    State(door): State<Door>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    let reason = reason_of(&door, request).await?;
    let partition = door.store().partition_of(&id);
    // a run that is just being started is in neither place for a moment
    for _ in 0..20 {
        if let Some(ended) = end(partition, &id, &reason).await? {
            return if ended { Ok(cancelled(id, true)) } else { Err(over(&id)) };
        }
        match partition.job_status(Some(keys::RUNS), &id).await? {
            JobStatus::Queued { queue, entry } => {
                if stop(partition, &queue, &entry, &id, &reason).await? {
                    return Ok(cancelled(id, true));
                }
            }
            JobStatus::Deferred { queue, .. } | JobStatus::InLine { queue, .. } => {
                if partition.cancel_job(&queue, &id, &reason).await? {
                    return Ok(cancelled(id, true));
                }
            }
            JobStatus::Running { .. } => {}
            JobStatus::Cancelled => return Ok(cancelled(id, true)),
            JobStatus::Ended(_) | JobStatus::Buried(_) => return Err(over(&id)),
            JobStatus::Accepted | JobStatus::Unknown => break,
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    Err(views::unknown_run(&id))
}

fn over(id: &str) -> Refusal {
    Refusal::new(Code::AlreadyEnded, format!("run {id:?} has ended already"))
}

async fn end(partition: &Partition, id: &str, reason: &str) -> Result<Option<bool>, Refusal> {
    let wanted = [(partition.keys().run(id), vec!["rp".to_owned()])];
    let fields = partition.run_fields(&wanted).await?;
    let reply_to = fields.into_iter().flatten().next().flatten();
    let reply_to = reply_to.map(|stream| String::from_utf8_lossy(&stream).into_owned());
    let end = EndRun {
        id,
        to: RunState::Cancelled,
        who: "http",
        code: "cancelled",
        reason,
        only_past_deadline: false,
        reply_to: reply_to.as_deref(),
    };
    Ok(partition.end_run(&end).await?)
}

#[cfg(test)]
mod tests {
    use super::Place;

    #[test]
    fn a_cursor_reads_back_and_nonsense_does_not() {
        let place = Place { ended: true, partition: 3, offset: 50 };
        assert_eq!(Place::read(&place.to_string()).unwrap(), place);
        for bad in ["", "live", "live.1", "live.x.2", "dead.1.2", "live.1.-2", "live.1.2.3"] {
            assert!(Place::read(bad).is_err(), "{bad:?}");
        }
    }
}
