//! Results, waited for.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tidemill_protocol::ResultDocument;
use tidemill_store::{JobStatus, keys};
use tokio::time::Instant;
use utoipa::{IntoParams, ToSchema};

use super::Door;
use super::answer::{ProblemView, json_text};
use super::query::Asked;
use crate::refusal::{Code, Refusal};
use crate::views;

/// Longest wait, in milliseconds.
const MAX_WAIT_MS: u64 = 60_000;
/// Pause between two looks; it grows to the longest.
const SHORTEST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// How long to wait.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ResultQuery {
    /// Wait up to this long for the result, in milliseconds (default 0, at most 60,000).
    wait_ms: u64,
    /// The job's queue; spares looking in all.
    queue: Option<String>,
}

/// A result.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ResultView {
    /// The job's or run's id.
    id: String,
    /// How it ended: `succeeded`, `failed`, `cancelled`, `timed_out`.
    state: String,
    /// What it gave; `null` unless it succeeded.
    #[schema(value_type = Option<Object>)]
    output: serde_json::Value,
    /// Why it did not succeed: `code` and `message`.
    #[schema(value_type = Option<Object>)]
    error: serde_json::Value,
    /// Attempts made.
    attempts: u32,
    /// Only where something else answered in place of a service: `service`, `answered_by`, `code`, `reason`.
    #[schema(value_type = Option<Object>)]
    degraded: Option<serde_json::Value>,
    /// When it ended, in Unix milliseconds.
    finished_at_ms: u64,
}

/// Where it stands instead.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct NotYetView {
    /// The job's or run's id.
    id: String,
    /// Where it stands.
    state: String,
}

/// The result of a job or run, waited for if asked.
///
/// A job has a result if it was asked for with `result_ttl_ms`, or if it failed (from its dead letter); a run has one for
/// its retention.
#[utoipa::path(get, path = "/v1/results/{id}", tag = "results", operation_id = "get_result",
    params(("id" = String, Path, description = "The job's or run's id"), ResultQuery),
    responses((status = 200, description = "The result", body = ResultView),
        (status = 202, description = "It has not ended yet", body = NotYetView),
        (status = "default", description = "A problem", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn result(
    State(door): State<Door>,
    Path(id): Path<String>,
    Asked(query): Asked<ResultQuery>,
) -> Result<Response, Refusal> {
    if query.wait_ms > MAX_WAIT_MS {
        let detail = format!("wait_ms is {}; at most {MAX_WAIT_MS}: ask again for more", query.wait_ms);
        return Err(Refusal::new(Code::InvalidQuery, detail));
    }
    let deadline = Instant::now() + Duration::from_millis(query.wait_ms);
    let mut state = match look(&door, query.queue.as_deref(), &id).await? {
        Look::There(text) => return Ok(json_text(StatusCode::OK, text)),
        Look::NotYet(state) => state,
    };
    let mut pause = SHORTEST_PAUSE;
    while Instant::now() < deadline {
        tokio::select! {
            () = tokio::time::sleep_until((Instant::now() + pause).min(deadline)) => {}
            () = door.ending().cancelled() => break,
        }
        pause = (pause * 3 / 2).min(LONGEST_PAUSE);
        if let Some(text) = quick_look(&door, &id).await? {
            return Ok(json_text(StatusCode::OK, text));
        }
    }
    if query.wait_ms > 0 {
        match look(&door, query.queue.as_deref(), &id).await? {
            Look::There(text) => return Ok(json_text(StatusCode::OK, text)),
            Look::NotYet(now) => state = now,
        }
    }
    Ok((StatusCode::ACCEPTED, Json(NotYetView { id, state })).into_response())
}

enum Look {
    There(String),
    NotYet(String),
}

/// Two cheap reads: a kept result, or a run that has ended.
async fn quick_look(door: &Door, id: &str) -> Result<Option<String>, Refusal> {
    let partition = door.store().partition_of(id);
    let ids = [id.to_owned()];
    let (kept, summaries) = tokio::join!(partition.result(id), partition.summaries(&ids));
    if let Some(text) = kept? {
        return Ok(Some(text));
    }
    match summaries?.first() {
        Some(summary) => Ok(views::run_result(partition, summary).await?.ok()),
        None => Ok(None),
    }
}

async fn look(door: &Door, queue: Option<&str>, id: &str) -> Result<Look, Refusal> {
    if let Some(text) = quick_look(door, id).await? {
        return Ok(Look::There(text));
    }
    let partition = door.store().partition_of(id);
    if let Some(summary) = partition.summaries(&[id.to_owned()]).await?.first() {
        return Ok(Look::NotYet(summary.state.as_str().to_owned()));
    }
    let (_, mut status) = views::status_of(door.store(), queue, id).await?;
    if matches!(status, JobStatus::Accepted | JobStatus::Unknown) && queue.is_none() {
        status = partition.job_status(Some(keys::RUNS), id).await?;
    }
    Ok(match status {
        JobStatus::Ended(text) => Look::There(text),
        JobStatus::Queued { .. } => Look::NotYet("queued".to_owned()),
        JobStatus::Running { .. } => Look::NotYet("running".to_owned()),
        JobStatus::Deferred { .. } => Look::NotYet("deferred".to_owned()),
        JobStatus::InLine { .. } => Look::NotYet("parked".to_owned()),
        JobStatus::Accepted => Look::NotYet("accepted".to_owned()),
        JobStatus::Cancelled => Look::There(ending(id, "cancelled", ("cancelled", "it was cancelled"), 0, 0)),
        JobStatus::Buried(letter) => {
            let error = (letter.code.as_str(), letter.reason.as_str());
            Look::There(ending(id, "failed", error, letter.attempts, letter.at_ms))
        }
        JobStatus::Unknown => {
            let detail =
                format!("neither a job nor a run {id:?} is known, or its result is not kept any more");
            return Err(Refusal::new(Code::UnknownJob, detail));
        }
    })
}

/// The result document of work that left only a trace of its end.
fn ending(id: &str, state: &str, error: (&str, &str), attempts: u32, finished_at_ms: u64) -> String {
    let document = ResultDocument {
        id: id.to_owned(),
        state: state.to_owned(),
        output: serde_json::value::RawValue::NULL.to_owned(),
        error: Some(tidemill_protocol::ErrorBody { code: error.0.to_owned(), message: error.1.to_owned() }),
        attempts,
        degraded: None,
        finished_at_ms,
    };
    serde_json::to_string(&document).unwrap_or_default()
}
