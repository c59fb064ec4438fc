//! What people do to runs: signals, decisions, doing again, skipping.

use axum::Json;
use axum::extract::{Path, Request, State};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tidemill_store::RunCursor;
use utoipa::{IntoParams, ToSchema};

use super::Door;
use super::answer::ProblemView;
use super::mode::{read, who};
use super::query::Asked;
use super::services::Asker;
use crate::operate::{
    self, By, Decided, Decision, OperationView, QuestionPage, Redo, Redone, Sent, Signal, Skip, Skipped,
};
use crate::refusal::{Code, Refusal};

/// Questions and operations told at once, unless asked otherwise, and at most.
const TOLD: (usize, usize) = (100, 1_000);

/// A signal.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct SignalRequest {
    /// What the step that waits gets as its output (default `null`).
    #[schema(value_type = Object)]
    payload: Option<Box<RawValue>>,
    /// Your id of it, without spaces: a second one of the same id changes nothing.
    id: Option<String>,
    /// Who sends it; the client's address is added.
    by: Option<String>,
}

/// A decision.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DecisionRequest {
    /// Whether it is approved.
    approve: bool,
    /// Who decides: compared with those whom the step names.
    by: String,
    /// What is to be better.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    feedback: Option<Box<RawValue>>,
    /// The roles of who decides. Whoever can reach this API can name any: put a door before it that knows people.
    #[serde(default)]
    roles: Vec<String>,
    /// The iteration of the question that was seen: another one is not decided.
    #[serde(default)]
    iteration: Option<u32>,
}

/// Why a run is done again, and how.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RetryRequest {
    /// The new run's id (default: the run's with `.r1`, `.r2`, …).
    id: Option<String>,
    /// Why.
    reason: Option<String>,
    /// Who; the client's address is added.
    by: Option<String>,
}

/// From where a run is done again.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RerunRequest {
    /// The step to begin with; it and all behind it are done again.
    from: String,
    /// An input in place of the run's own.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    input: Option<Box<RawValue>>,
    /// The new run's id (default: the run's with `.r1`, `.r2`, …).
    #[serde(default)]
    id: Option<String>,
    /// Why.
    #[serde(default)]
    reason: Option<String>,
    /// Who; the client's address is added.
    #[serde(default)]
    by: Option<String>,
}

/// What a step is given.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SkipRequest {
    /// The step's output (default `null`).
    #[serde(default)]
    #[schema(value_type = Object)]
    output: Option<Box<RawValue>>,
    /// Why.
    reason: String,
    /// Who; the client's address is added.
    #[serde(default)]
    by: Option<String>,
}

/// Which questions.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct QuestionsQuery {
    /// Only those of runs of this workflow: `name` or `name@version`.
    workflow: Option<String>,
    /// Where the page before ended.
    cursor: Option<String>,
    /// About so many (default 100, at most 1,000).
    limit: Option<usize>,
}

/// Which operations.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct OperationsQuery {
    /// Only what was done to this: a run's id.
    subject: Option<String>,
    /// At most so many (default 100, at most 1,000).
    limit: Option<usize>,
}

/// What was done by hand.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OperationsView {
    /// The newest first.
    operations: Vec<OperationView>,
}

fn text(json: Option<&RawValue>) -> Option<&str> {
    json.map(RawValue::get)
}

/// Sends a signal to a run. One that comes before a step listens is kept for it.
#[utoipa::path(post, path = "/v1/runs/{id}/signals/{name}", tag = "runs", operation_id = "signal_run",
    params(("id" = String, Path, description = "The run's id"), ("name" = String, Path, description = "The signal's name")),
    request_body(content = SignalRequest),
    responses((status = 200, description = "A step has it, or it is kept for one", body = Sent),
        (status = "default", description = "A problem", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn signal(
    State(door): State<Door>,
    Path((id, name)): Path<(String, String)>,
    asker: Asker,
    request: Request,
) -> Result<Json<Sent>, Refusal> {
    let asked: SignalRequest = read(&door, request, "{\"payload\": …}").await?;
    let by = who(&asker, asked.by.as_deref());
    let payload = text(asked.payload.as_deref()).unwrap_or("null");
    let signal = Signal { name: &name, payload, id: asked.id.as_deref(), by: &by };
    let sent = operate::signal(door.store(), door.workflows(), &id, signal).await?;
    door.intake().meters().operated("signal");
    Ok(Json(sent))
}

/// Decides about the question that a step asks. Of many who decide at once one does; the others get 409 `conflict`.
#[utoipa::path(post, path = "/v1/runs/{id}/steps/{step}/decision", tag = "runs", operation_id = "decide",
    params(("id" = String, Path, description = "The run's id"), ("step" = String, Path, description = "The step's id")),
    request_body(content = DecisionRequest),
    responses((status = 200, description = "It is decided so", body = Decided),
        (status = "default", description = "A problem", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn decide(
    State(door): State<Door>,
    Path((id, step)): Path<(String, String)>,
    request: Request,
) -> Result<Json<Decided>, Refusal> {
    let asked: DecisionRequest = read(&door, request, "{\"approve\": true, \"by\": \"…\"}").await?;
    if asked.by.trim().is_empty() {
        return Err(Refusal::new(
            Code::MissingMember,
            "a decision wants to know whose it is: the member \"by\"",
        ));
    }
    let decision = Decision {
        approve: asked.approve,
        by: asked.by.trim(),
        roles: &asked.roles,
        feedback: text(asked.feedback.as_deref()),
        iteration: asked.iteration,
    };
    let decided = operate::decide(door.store(), door.workflows(), (&id, &step), decision).await?;
    door.intake().meters().operated(if asked.approve { "approve" } else { "reject" });
    Ok(Json(decided))
}

/// The questions that stand open.
#[utoipa::path(get, path = "/v1/approvals", tag = "runs", operation_id = "list_approvals", params(QuestionsQuery),
    responses((status = 200, description = "A page of questions", body = QuestionPage),
        (status = "default", description = "A problem", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn questions(
    State(door): State<Door>,
    Asked(asked): Asked<QuestionsQuery>,
) -> Result<Json<QuestionPage>, Refusal> {
    let limit = asked.limit.unwrap_or(TOLD.0).clamp(1, TOLD.1);
    let cursor = asked.cursor.as_deref().map(|text| {
        let wrong = || Refusal::new(Code::InvalidQuery, "the cursor is not one that a page gave as \"next\"");
        RunCursor::parse(text).ok_or_else(wrong)
    });
    let page = (cursor.transpose()?, limit);
    operate::questions(door.store(), door.workflows(), asked.workflow, page).await.map(Json)
}

/// Does a run that has not ended well again, as a new run that keeps the outputs of the steps that have.
#[utoipa::path(post, path = "/v1/runs/{id}/retry", tag = "runs", operation_id = "retry_run",
    params(("id" = String, Path, description = "The run's id")),
    request_body(content = RetryRequest),
    responses((status = 200, description = "The new run is asked for", body = Redone),
        (status = "default", description = "A problem", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn retry(
    State(door): State<Door>,
    Path(id): Path<String>,
    asker: Asker,
    request: Request,
) -> Result<Json<Redone>, Refusal> {
    let asked: RetryRequest = read(&door, request, "{\"reason\": \"…\"}").await?;
    let by = who(&asker, asked.by.as_deref());
    let by = By { who: &by, why: asked.reason.as_deref().unwrap_or_default() };
    let redo = Redo { from: None, input: None, id: asked.id.as_deref(), by };
    let redone = operate::redo(door.store(), door.workflows(), &id, redo).await?;
    door.intake().meters().operated("retry");
    Ok(Json(redone))
}

/// Does a run that has ended again from one of its steps on, as a new run that keeps the outputs of the others.
#[utoipa::path(post, path = "/v1/runs/{id}/rerun", tag = "runs", operation_id = "rerun_run",
    params(("id" = String, Path, description = "The run's id")),
    request_body(content = RerunRequest),
    responses((status = 200, description = "The new run is asked for", body = Redone),
        (status = "default", description = "A problem", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn rerun(
    State(door): State<Door>,
    Path(id): Path<String>,
    asker: Asker,
    request: Request,
) -> Result<Json<Redone>, Refusal> {
    let asked: RerunRequest = read(&door, request, "{\"from\": \"<step>\", \"reason\": \"…\"}").await?;
    let by = who(&asker, asked.by.as_deref());
    let by = By { who: &by, why: asked.reason.as_deref().unwrap_or_default() };
    let input = text(asked.input.as_deref());
    let redo = Redo { from: Some(&asked.from), input, id: asked.id.as_deref(), by };
    let redone = operate::redo(door.store(), door.workflows(), &id, redo).await?;
    door.intake().meters().operated("rerun");
    Ok(Json(redone))
}

/// Gives a step an output by hand, in place of what it would have done.
#[utoipa::path(post, path = "/v1/runs/{id}/steps/{step}/skip", tag = "runs", operation_id = "skip_step",
    params(("id" = String, Path, description = "The run's id"), ("step" = String, Path, description = "The step's id")),
    request_body(content = SkipRequest),
    responses((status = 200, description = "The step has succeeded", body = Skipped),
        (status = "default", description = "A problem", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn skip(
    State(door): State<Door>,
    Path((id, step)): Path<(String, String)>,
    asker: Asker,
    request: Request,
) -> Result<Json<Skipped>, Refusal> {
    let asked: SkipRequest = read(&door, request, "{\"output\": …, \"reason\": \"…\"}").await?;
    let by = who(&asker, asked.by.as_deref());
    let skip = Skip { output: text(asked.output.as_deref()), by: By { who: &by, why: &asked.reason } };
    let skipped = operate::skip(door.store(), door.workflows(), (&id, &step), skip).await?;
    door.intake().meters().operated("skip");
    Ok(Json(skipped))
}

/// What was done by hand, with who and why.
#[utoipa::path(get, path = "/v1/operations", tag = "pool", operation_id = "list_operations", params(OperationsQuery),
    responses((status = 200, description = "The operations", body = OperationsView),
        (status = "default", description = "A problem", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn operations(
    State(door): State<Door>,
    Asked(asked): Asked<OperationsQuery>,
) -> Result<Json<OperationsView>, Refusal> {
    let limit = asked.limit.unwrap_or(TOLD.0).clamp(1, TOLD.1);
    let operations = operate::operations(door.store(), asked.subject.as_deref(), limit).await?;
    Ok(Json(OperationsView { operations }))
}
