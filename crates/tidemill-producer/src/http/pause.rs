//! Pausing and resuming.

use axum::Json;
use axum::extract::{Path, Request, State};
use serde::Deserialize;
use utoipa::ToSchema;

use super::Door;
use super::answer::ProblemView;
use super::mode::{read, who};
use super::services::Asker;
use crate::operate::{self, By, PauseView, PausedView, What};
use crate::refusal::Refusal;

/// Why.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct PauseRequest {
    /// Why; a pause wants a reason.
    reason: String,
    /// Who; the client's address is added.
    by: Option<String>,
}

async fn act(
    door: &Door,
    what: (What<'_>, bool),
    asker: &Asker,
    request: Request,
) -> Result<Json<PauseView>, Refusal> {
    let asked: PauseRequest = read(door, request, "{\"reason\": \"…\"}").await?;
    let by = who(asker, asked.by.as_deref());
    let by = By { who: &by, why: &asked.reason };
    let view = operate::pause(door.store(), door.workflows(), what, by).await?;
    door.intake().meters().operated(if what.1 { "pause" } else { "resume" });
    Ok(Json(view))
}

/// The workflows and queues that are paused, with who, when and why.
#[utoipa::path(get, path = "/v1/paused", tag = "pool", operation_id = "list_paused",
    responses((status = 200, description = "What is paused", body = PausedView),
        (status = "default", description = "A problem", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn show(State(door): State<Door>) -> Result<Json<PausedView>, Refusal> {
    operate::paused(door.store()).await.map(Json)
}

/// Pauses a run: what runs goes on to its end, and nothing begins until it is resumed.
#[utoipa::path(post, path = "/v1/runs/{id}/pause", tag = "runs", operation_id = "pause_run",
    params(("id" = String, Path, description = "The run's id")),
    request_body(content = PauseRequest),
    responses((status = 200, description = "It is so now", body = PauseView),
        (status = "default", description = "A problem", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn pause_run(
    State(door): State<Door>,
    Path(name): Path<String>,
    asker: Asker,
    request: Request,
) -> Result<Json<PauseView>, Refusal> {
    act(&door, (What::Run(&name), true), &asker, request).await
}

/// Pauses a workflow: nothing of its runs begins, and none starts, until it is resumed.
#[utoipa::path(post, path = "/v1/workflows/{name}/pause", tag = "workflows", operation_id = "pause_workflow",
    params(("name" = String, Path, description = "The workflow's name")),
    request_body(content = PauseRequest),
    responses((status = 200, description = "It is so now", body = PauseView),
        (status = "default", description = "A problem", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn pause_workflow(
    State(door): State<Door>,
    Path(name): Path<String>,
    asker: Asker,
    request: Request,
) -> Result<Json<PauseView>, Refusal> {
    act(&door, (What::Workflow(&name), true), &asker, request).await
}

/// Pauses a queue: workers claim nothing of it until it is resumed.
#[utoipa::path(post, path = "/v1/queues/{name}/pause", tag = "pool", operation_id = "pause_queue",
    params(("name" = String, Path, description = "The queue's name")),
    request_body(content = PauseRequest),
    responses((status = 200, description = "It is so now", body = PauseView),
        (status = "default", description = "A problem", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn pause_queue(
    State(door): State<Door>,
    Path(name): Path<String>,
    asker: Asker,
    request: Request,
) -> Result<Json<PauseView>, Refusal> {
    act(&door, (What::Queue(&name), true), &asker, request).await
}

/// Resumes a run.
#[utoipa::path(post, path = "/v1/runs/{id}/resume", tag = "runs", operation_id = "resume_run",
    params(("id" = String, Path, description = "The run's id")),
    request_body(content = PauseRequest),
    responses((status = 200, description = "It is so now", body = PauseView),
        (status = "default", description = "A problem", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn resume_run(
    State(door): State<Door>,
    Path(name): Path<String>,
    asker: Asker,
    request: Request,
) -> Result<Json<PauseView>, Refusal> {
    act(&door, (What::Run(&name), false), &asker, request).await
}

/// Resumes a workflow.
#[utoipa::path(post, path = "/v1/workflows/{name}/resume", tag = "workflows", operation_id = "resume_workflow",
    params(("name" = String, Path, description = "The workflow's name")),
    request_body(content = PauseRequest),
    responses((status = 200, description = "It is so now", body = PauseView),
        (status = "default", description = "A problem", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn resume_workflow(
    State(door): State<Door>,
    Path(name): Path<String>,
    asker: Asker,
    request: Request,
) -> Result<Json<PauseView>, Refusal> {
    act(&door, (What::Workflow(&name), false), &asker, request).await
}

/// Resumes a queue.
#[utoipa::path(post, path = "/v1/queues/{name}/resume", tag = "pool", operation_id = "resume_queue",
    params(("name" = String, Path, description = "The queue's name")),
    request_body(content = PauseRequest),
    responses((status = 200, description = "It is so now", body = PauseView),
        (status = "default", description = "A problem", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn resume_queue(
    State(door): State<Door>,
    Path(name): Path<String>,
    asker: Asker,
    request: Request,
) -> Result<Json<PauseView>, Refusal> {
    act(&door, (What::Queue(&name), false), &asker, request).await
}
