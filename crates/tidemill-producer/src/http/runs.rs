//! Runs: shown, audited, stopped.

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use tidemill_protocol::{AuditRecord, RunState};
use tidemill_store::{JobStatus, Operation, Partition, StopRun, keys};
use utoipa::{IntoParams, ToSchema};

use super::Door;
use super::answer::ProblemView;
use super::jobs::{CancelRequest, CancelledView, cancelled, reason_of, stop};
use super::query::Asked;
use super::services::Asker;
use crate::refusal::{Code, Refusal};
use crate::views::{self, RunView, StepOutputView};
use crate::why::{self, Why};

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

/// How a run is cancelled.
#[derive(Debug, Default, Clone, Copy, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct CancelQuery {
    /// Whether what it did is undone, where its workflow says how (default true). What comes at its end whatever it is, comes in any case.
    compensate: Option<bool>,
    /// Ends it at once even if it is ending already: what is left to be done at its end is given up.
    force: bool,
}

/// Cancels a run: no step begins any more, and those that run are stopped. Where its workflow says how, what it did is undone.
#[utoipa::path(post, path = "/v1/runs/{id}/cancel", tag = "runs", operation_id = "cancel_run",
    params(("id" = String, Path, description = "The run's id"), CancelQuery),
    request_body(content = Option<CancelRequest>),
    responses((status = 200, description = "It is cancelled", body = CancelledView),
        (status = "default", description = "A problem", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn cancel(
    State(door): State<Door>,
    Path(id): Path<String>,
    Asked(query): Asked<CancelQuery>,
    asker: Asker,
    request: Request,
) -> Result<Response, Refusal> {
    let reason = reason_of(&door, request).await?;
    let partition = door.store().partition_of(&id);
    // a run that is just being started is in neither place for a moment
    for _ in 0..20 {
        if let Some(ended) = end(partition, &id, &reason, query).await? {
            if ended {
                door.intake().meters().operated("cancel");
                let by = asker.who();
                let operation =
                    Operation { kind: "cancel", subject: &id, by, why: &reason, ..Operation::default() };
                partition.note_operation(&operation).await?;
            }
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

async fn end(
    partition: &Partition,
    id: &str,
    reason: &str,
    query: CancelQuery,
) -> Result<Option<bool>, Refusal> {
    let stop = StopRun {
        id,
        to: RunState::Cancelled,
        who: "http",
        code: "cancelled",
        reason,
        only_past_deadline: false,
        spares: !query.compensate.unwrap_or(true),
        by_force: query.force,
    };
    Ok(partition.stop_run(&stop).await?)
}
