//! What became of a job, and stopping it.

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tidemill_store::{JobStatus, Partition};
use utoipa::{IntoParams, ToSchema};

use super::Door;
use super::answer::ProblemView;
use super::query::Asked;
use crate::refusal::{Code, Refusal};
use crate::views::{self, JobView};
use crate::why::{self, Why};

/// Where to look for a job.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct JobQuery {
    /// The job's queue; spares looking in all.
    queue: Option<String>,
}

/// What came of asking to stop something.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CancelledView {
    /// Its id.
    pub(super) id: String,
    /// `cancelled`: it is over; `requested`: whoever runs it was asked to stop.
    pub(super) state: &'static str,
}

/// Why something is to be stopped.
#[derive(Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct CancelRequest {
    /// The reason, for the record.
    pub(super) reason: Option<String>,
}

/// Where a job is.
///
/// A job that succeeded without `result_ttl_ms` and `reply_to` leaves nothing behind: it is then `accepted` (if it had an
/// id) or unknown.
#[utoipa::path(get, path = "/v1/jobs/{id}", tag = "jobs", operation_id = "get_job",
    params(("id" = String, Path, description = "The job's id"), JobQuery),
    responses((status = 200, description = "The job", body = JobView),
        (status = "default", description = "A problem", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn status(
    State(door): State<Door>,
    Path(id): Path<String>,
    Asked(query): Asked<JobQuery>,
) -> Result<Json<JobView>, Refusal> {
    views::job(door.store(), query.queue.as_deref(), &id).await.map(Json)
}

/// Why a job is where it is, in a sentence.
#[utoipa::path(get, path = "/v1/jobs/{id}/why", tag = "jobs", operation_id = "why_job",
    params(("id" = String, Path, description = "The job's id"), JobQuery),
    responses((status = 200, description = "The reason", body = Why),
        (status = "default", description = "A problem", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn why(
    State(door): State<Door>,
    Path(id): Path<String>,
    Asked(query): Asked<JobQuery>,
) -> Result<Json<Why>, Refusal> {
    why::job(door.store(), query.queue.as_deref(), &id).await.map(Json)
}

/// Cancels a job: at once while it waits, else by asking its worker to stop it.
#[utoipa::path(post, path = "/v1/jobs/{id}/cancel", tag = "jobs", operation_id = "cancel_job",
    params(("id" = String, Path, description = "The job's id"), JobQuery),
    request_body(content = Option<CancelRequest>),
    responses((status = 200, description = "It is cancelled", body = CancelledView),
        (status = 202, description = "Its worker was asked to stop it", body = CancelledView),
        (status = "default", description = "A problem", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn cancel(
    State(door): State<Door>,
    Path(id): Path<String>,
    Asked(query): Asked<JobQuery>,
    request: Request,
) -> Result<Response, Refusal> {
    let reason = reason_of(&door, request).await?;
    let (partition, status) = views::status_of(door.store(), query.queue.as_deref(), &id).await?;
    let gone = match status {
        JobStatus::Queued { queue, entry } => stop(partition, &queue, &entry, &id, &reason).await?,
        JobStatus::Running { queue, .. }
        | JobStatus::Deferred { queue, .. }
        | JobStatus::InLine { queue, .. } => partition.cancel_job(&queue, &id, &reason).await?,
        JobStatus::Cancelled => true,
        JobStatus::Accepted => {
            let queue = query.queue.as_deref().unwrap_or(crate::intake::DEFAULT_QUEUE);
            partition.cancel_job(queue, &id, &reason).await?
        }
        JobStatus::Ended(_) | JobStatus::Buried(_) => {
            return Err(Refusal::new(Code::AlreadyEnded, format!("job {id:?} has ended already")));
        }
        JobStatus::Unknown => {
            return Err(Refusal::new(Code::UnknownJob, format!("no job {id:?} is known")));
        }
    };
    Ok(cancelled(id, gone))
}

/// Takes a waiting entry out of its stream, and notes the id so that it is known as cancelled.
pub(super) async fn stop(
    partition: &Partition,
    queue: &str,
    entry: &str,
    id: &str,
    reason: &str,
) -> Result<bool, Refusal> {
    let gone = partition.cancel_job(queue, entry, reason).await?;
    partition.cancel_job(queue, id, reason).await?;
    Ok(gone)
}

pub(super) fn cancelled(id: String, gone: bool) -> Response {
    let (status, state) =
        if gone { (StatusCode::OK, "cancelled") } else { (StatusCode::ACCEPTED, "requested") };
    (status, Json(CancelledView { id, state })).into_response()
}

/// The reason in a body that may be empty.
pub(super) async fn reason_of(door: &Door, request: Request) -> Result<String, Refusal> {
    let settings = door.intake().settings();
    let within = std::time::Duration::from_millis(settings.body_timeout_ms);
    let body = super::body::read(request, settings.max_body_bytes, within).await?;
    if body.trim_ascii().is_empty() {
        return Ok(NO_REASON.to_owned());
    }
    let read: CancelRequest = serde_json::from_slice(&body).map_err(|error| {
        let code = if error.is_data() { Code::InvalidRequest } else { Code::InvalidJson };
        Refusal::new(code, format!("expected {{\"reason\": \"…\"}} or nothing: {error}"))
    })?;
    Ok(read.reason.map_or_else(|| NO_REASON.to_owned(), |reason| reason.chars().take(1_000).collect()))
}

const NO_REASON: &str = "cancelled over HTTP";
