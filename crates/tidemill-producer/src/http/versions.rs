//! The versions of a workflow: listed, compared, moved through their life, with what happened to them.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Request, State};
use serde::{Deserialize, Serialize};
use tidemill_store::{VersionChange, VersionState};
use tidemill_workflow::Change;
use utoipa::{IntoParams, ToSchema};

use super::Door;
use super::answer::ProblemView;
use super::body;
use super::query::Asked;
use super::services::Asker;
use crate::refusal::{Code, Refusal};
use crate::workflows::{Moved, Moving, VersionLine};

/// Changes told at once, unless asked otherwise, and at most.
const CHANGES: (usize, usize) = (100, 1_000);

/// The versions of a workflow.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct VersionsView {
    /// The workflow's name.
    name: String,
    /// The oldest first.
    versions: Vec<VersionLine>,
}

/// Which changes.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ChangesQuery {
    /// At most so many (default 100, at most 1,000).
    limit: Option<usize>,
}

/// What happened to the versions of a workflow.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct VersionChangesView {
    /// The newest first.
    changes: Vec<VersionChangeView>,
}

/// Something that happened to a version.
#[derive(Debug, Serialize, ToSchema)]
struct VersionChangeView {
    /// The workflow's name.
    workflow: String,
    /// The version.
    version: u32,
    /// Its state before; `-` when it was published.
    from: String,
    /// Its state since; the same when a damaged text was mended.
    to: String,
    /// Why.
    why: String,
    /// Who did it.
    by: String,
    /// When, in Unix milliseconds.
    at_ms: u64,
}

impl From<VersionChange> for VersionChangeView {
    fn from(change: VersionChange) -> Self {
        let VersionChange { entry: _, workflow, version, from, to, why, by, at_ms } = change;
        Self { workflow, version, from, to, why, by, at_ms }
    }
}

/// With what a version is compared.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DiffQuery {
    /// The other: `name` or `name@version`.
    to: String,
}

/// What differs between two versions.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DiffView {
    /// `name@version`.
    from: String,
    /// `name@version`.
    to: String,
    /// Whether nothing differs.
    equal: bool,
    /// Each difference: `step`, `path`, `kind` (`added`, `removed`, `changed`, `reordered`), `from`, `to`, and `breaks`: for whom it may break
    /// something (`callers`, `readers`, `runs`, `workers`).
    #[schema(value_type = Vec<Object>)]
    changes: Vec<Change>,
}

/// Why a version is moved, and by whom.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MoveRequest {
    /// Why, for the audit.
    reason: String,
    /// Who, for the audit; the client's address is added.
    #[serde(default)]
    by: Option<String>,
    /// The state that you saw: if the version stands otherwise by now, it is not moved.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    from: Option<VersionState>,
    /// `archive` alone: although runs of it are under way; they go on.
    #[serde(default)]
    force: bool,
}

/// The versions of a workflow, where each stands in its life, and how many live runs it has.
#[utoipa::path(get, path = "/v1/workflows/{name}/versions", tag = "workflows", operation_id = "list_versions",
    params(("name" = String, Path, description = "The workflow's name")),
    responses((status = 200, description = "The versions", body = VersionsView),
        (status = "default", description = "A problem", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn list(
    State(door): State<Door>,
    Path(name): Path<String>,
) -> Result<Json<VersionsView>, Refusal> {
    let versions = door.workflows().versions(&name).await?;
    Ok(Json(VersionsView { name, versions }))
}

/// What happened to the versions of a workflow: who published and moved which, and why.
#[utoipa::path(get, path = "/v1/workflows/{name}/changes", tag = "workflows", operation_id = "list_version_changes",
    params(("name" = String, Path, description = "The workflow's name"), ChangesQuery),
    responses((status = 200, description = "The changes", body = VersionChangesView),
        (status = "default", description = "A problem", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn changes(
    State(door): State<Door>,
    Path(name): Path<String>,
    Asked(query): Asked<ChangesQuery>,
) -> Result<Json<VersionChangesView>, Refusal> {
    let limit = query.limit.unwrap_or(CHANGES.0).clamp(1, CHANGES.1);
    let changes = door.workflows().changes(Some(&name), limit).await?;
    Ok(Json(VersionChangesView { changes: changes.into_iter().map(Into::into).collect() }))
}

/// What differs between two versions, member by member, and for whom it may break something.
#[utoipa::path(get, path = "/v1/workflows/{name}/diff", tag = "workflows", operation_id = "diff_workflows",
    params(("name" = String, Path, description = "`name` or `name@version`"), DiffQuery),
    responses((status = 200, description = "The differences", body = DiffView),
        (status = "default", description = "A problem", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn diff(
    State(door): State<Door>,
    Path(name): Path<String>,
    Asked(query): Asked<DiffQuery>,
) -> Result<Json<DiffView>, Refusal> {
    let (from, to, diff) = door.workflows().diff(&name, &query.to).await?;
    Ok(Json(DiffView { from, to, equal: diff.is_empty(), changes: diff.changes }))
}

/// Moves a version in its life: `activate`, `deprecate` or `archive`.
///
/// Of many who do so at once one succeeds; the others get 409 `conflict`. Runs under way go on with their version, wherever it stands.
#[utoipa::path(post, path = "/v1/workflows/{name}/{action}", tag = "workflows", operation_id = "move_version",
    params(("name" = String, Path, description = "`name@version`"),
        ("action" = String, Path, description = "`activate`, `deprecate` or `archive`")),
    request_body(content = MoveRequest),
    responses((status = 200, description = "It is moved", body = Moved),
        (status = "default", description = "A problem", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn act(
    State(door): State<Door>,
    Path((target, action)): Path<(String, String)>,
    asker: Asker,
    request: Request,
) -> Result<Json<Moved>, Refusal> {
    let to = match action.as_str() {
        "activate" => VersionState::Active,
        "deprecate" => VersionState::Deprecated,
        "archive" => VersionState::Archived,
        unknown => {
            let detail =
                format!("a version knows no action {unknown:?}; there are activate, deprecate, archive");
            return Err(Refusal::new(Code::InvalidRequest, detail));
        }
    };
    let settings = door.intake().settings();
    let within = Duration::from_millis(settings.body_timeout_ms);
    let body = body::read(request, settings.max_body_bytes, within).await?;
    let asked: MoveRequest = serde_json::from_slice(&body).map_err(|error| {
        let code = if error.is_data() { Code::InvalidRequest } else { Code::InvalidJson };
        Refusal::new(code, format!("expected {{\"reason\": \"…\"}}: {error}"))
    })?;
    let who = match &asked.by {
        Some(by) => format!("{by} ({})", asker.who()),
        None => asker.who().to_owned(),
    };
    let moving =
        Moving { target: &target, to, from: asked.from, force: asked.force, who: &who, why: &asked.reason };
    door.workflows().move_version(&moving).await.map(Json)
}
