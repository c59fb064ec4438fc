//! Taking jobs and runs in.

use std::borrow::Cow;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request as HttpRequest, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tidemill_store::Durability;
use utoipa::{IntoParams, ToSchema};

use super::answer::ProblemView;
use super::body::{self, BodyType};
use super::query::Asked;
use super::{Door, batch};
use crate::intake::{Accepted, AcceptedAs, Kind, Request, is_traceparent};
use crate::refusal::{Code, Refusal};

/// How work is taken in.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct SubmitQuery {
    /// How safe the work must be before the answer: `fast`, `replicated` or `fsync`. Default: the queue's.
    #[param(value_type = Option<String>)]
    pub(super) durability: Option<Durability>,
}

/// A job to be done. Members of your own begin with `x-`.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct JobRequest {
    /// The tool to call: `name` or `name@version`.
    tool: String,
    #[serde(flatten)]
    rest: RequestMembers,
}

/// A run to be started. Members of your own begin with `x-`.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RunRequest {
    /// The workflow to run: `name` (its newest active version), `name@version`, or `name@version-draft` where a draft will do.
    workflow: String,
    /// How its steps are carried out, in place of what the workflow and the pool say: `classic`, `state_machine`, `optimized` or `hybrid`.
    mode: Option<String>,
    /// What it is found by: at most 32 names, each with text, a number or a truth value. They go before the workflow's own of the same name.
    labels: Option<std::collections::BTreeMap<String, serde_json::Value>>,
    #[serde(flatten)]
    rest: RequestMembers,
}

/// What jobs and runs have in common.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RequestMembers {
    /// Any JSON; default `{}`.
    #[schema(value_type = Option<Object>)]
    input: Option<serde_json::Value>,
    /// Your idempotency id: a second one with the same id is answered with `duplicate`.
    id: Option<String>,
    /// Owner for limits and fairness.
    tenant: Option<String>,
    /// For whom it is done; owner for limits.
    user: Option<String>,
    /// Place in a line for a limit, 0 to 9 (default 5); 9 goes first.
    #[schema(minimum = 0, maximum = 9)]
    priority: Option<u8>,
    /// Queue of the job, or of the run's steps.
    queue: Option<String>,
    /// Wait before it may begin, in milliseconds.
    delay_ms: Option<u64>,
    /// Not before this time, in Unix milliseconds.
    run_at_ms: Option<u64>,
    /// Longest time of one attempt (of the whole run), in milliseconds.
    timeout_ms: Option<u64>,
    /// Nothing starts later than this, in milliseconds.
    deadline_ms: Option<u64>,
    /// Attempts in all.
    max_attempts: Option<u32>,
    /// Keep the result for this long, in milliseconds.
    result_ttl_ms: Option<u64>,
    /// A stream that gets the result.
    reply_to: Option<String>,
    /// W3C trace context; the header of this name counts where it is absent.
    traceparent: Option<String>,
    /// W3C trace state.
    tracestate: Option<String>,
}

/// Work that was taken in.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AcceptedView {
    /// Its id.
    id: String,
    /// `queued`, `deferred` or `duplicate`.
    state: &'static str,
    /// The level that was reached: `fast`, `replicated`, `fsync`; `unknown` when no confirmation came in time.
    durability: &'static str,
    /// Why it is not the level that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    durability_reason: Option<String>,
    /// What is worth knowing: the version of the workflow is deprecated, or a draft.
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<String>,
}

/// Enqueues a job, or a batch of jobs.
///
/// One JSON object is one job. With the content type `application/x-ndjson`, each line is a job, and the answer has one
/// line for each, in order: a bad line is refused and the others are taken in all the same.
#[utoipa::path(post, path = "/v1/jobs", tag = "jobs", operation_id = "post_jobs",
    params(SubmitQuery, ("Idempotency-Key" = Option<String>, Header, description = "The job's id, for a single job")),
    request_body(content((JobRequest = "application/json"), (String = "application/x-ndjson"))),
    responses((status = 202, description = "Taken in", body = AcceptedView),
        (status = 200, description = "Taken in before (`duplicate`), or the lines of a batch", body = AcceptedView),
        (status = "default", description = "A problem", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn post_jobs(
    State(door): State<Door>,
    Asked(query): Asked<SubmitQuery>,
    request: HttpRequest,
) -> Result<Response, Refusal> {
    post(&door, Kind::Job, query, request).await
}

/// Asks for a run, or a batch of runs.
///
/// The input is checked against the workflow's schema before the run is queued. Batches are as for jobs.
#[utoipa::path(post, path = "/v1/runs", tag = "runs", operation_id = "post_runs",
    params(SubmitQuery, ("Idempotency-Key" = Option<String>, Header, description = "The run's id, for a single run")),
    request_body(content((RunRequest = "application/json"), (String = "application/x-ndjson"))),
    responses((status = 202, description = "Taken in", body = AcceptedView),
        (status = 200, description = "Taken in before (`duplicate`), or the lines of a batch", body = AcceptedView),
        (status = "default", description = "A problem", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn post_runs(
    State(door): State<Door>,
    Asked(query): Asked<SubmitQuery>,
    request: HttpRequest,
) -> Result<Response, Refusal> {
    post(&door, Kind::Run, query, request).await
}

async fn post(
    door: &Door,
    kind: Kind,
    query: SubmitQuery,
    request: HttpRequest,
) -> Result<Response, Refusal> {
    let settings = door.intake().settings();
    let within = Duration::from_millis(settings.body_timeout_ms);
    let headers = request.headers().clone();
    if body::type_of(&headers, &[BodyType::Json, BodyType::Lines])? == BodyType::Lines {
        if headers.contains_key(IDEMPOTENCY_KEY) {
            let detail =
                "the header Idempotency-Key names one job: in a batch, give each line a member \"id\"";
            return Err(Refusal::new(Code::InvalidRequest, detail));
        }
        return batch::post(door, kind, query.durability, request).await;
    }
    let body = body::read(request, settings.max_body_bytes, within).await?;
    let parsed = with_headers(Request::parse(kind, body::text(&body)?), &headers);
    match parsed {
        Ok(parsed) => {
            door.intake().submit(&parsed, query.durability).await.map(|accepted| answer(kind, accepted))
        }
        Err(refusal) => {
            door.intake().meters().refused(kind, refusal.code);
            Err(refusal)
        }
    }
}

const IDEMPOTENCY_KEY: &str = "idempotency-key";

fn with_headers<'a>(
    parsed: Result<Request<'a>, Refusal>,
    headers: &HeaderMap,
) -> Result<Request<'a>, Refusal> {
    let mut parsed = parsed?;
    if let Some(key) = headers.get(IDEMPOTENCY_KEY) {
        // the header's own form is a quoted string; bare words are common
        let key = key.to_str().unwrap_or_default().trim();
        let key = key.strip_prefix('"').and_then(|key| key.strip_suffix('"')).unwrap_or(key);
        if parsed.id.as_deref().is_some_and(|id| id != key) {
            let detail = "the header Idempotency-Key and the member \"id\" differ: give one of them";
            return Err(Refusal::new(Code::InvalidRequest, detail));
        }
        parsed.id = Some(Cow::Owned(key.to_owned()));
    }
    add_trace(&mut parsed, headers);
    Ok(parsed)
}

/// Continues the caller's trace where the request does not name one; a malformed header is ignored, as its standard asks.
pub(super) fn add_trace(request: &mut Request<'_>, headers: &HeaderMap) {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if request.traceparent.is_none()
        && let Some(parent) = header("traceparent").filter(|text| is_traceparent(text))
    {
        request.traceparent = Some(Cow::Owned(parent.to_owned()));
        if request.tracestate.is_none() {
            request.tracestate = header("tracestate").map(|state| Cow::Owned(state.to_owned()));
        }
    }
}

fn answer(kind: Kind, accepted: Accepted) -> Response {
    let status = match accepted.state {
        AcceptedAs::Duplicate => StatusCode::OK,
        AcceptedAs::Queued | AcceptedAs::Deferred => StatusCode::ACCEPTED,
    };
    let place = match kind {
        Kind::Job => "jobs",
        Kind::Run => "runs",
    };
    // the only character of an id that would end a segment
    let location = format!("/v1/{place}/{}", accepted.id.replace('/', "%2F"));
    let view = AcceptedView {
        id: accepted.id,
        state: accepted.state.as_str(),
        durability: accepted.assurance.as_str(),
        durability_reason: accepted.assurance.reason,
        warning: accepted.warning,
    };
    (status, [(header::LOCATION, location)], Json(view)).into_response()
}
