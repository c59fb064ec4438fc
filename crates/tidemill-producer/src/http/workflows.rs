//! Workflows: published, checked, listed, shown.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Door;
use super::answer::ProblemView;
use super::body::{self, BodyType};
use super::query::Asked;
use super::services::Asker;
use crate::refusal::{Code, Refusal};
use crate::workflows::{Against, Publish, target_of};

/// How a definition is checked.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PublishQuery {
    /// Let tools pass that no worker has announced yet.
    any_tool: bool,
    /// The file's name, for the places of problems (default `workflow`).
    file: Option<String>,
    /// `PUT` alone: publish it as a draft, which a plain name never starts.
    draft: bool,
    /// `PUT` alone: refuse it unless every live run of its other versions would also be possible under it.
    require_compatible: bool,
    /// `PUT` alone: why, for the audit.
    why: Option<String>,
    /// `POST` alone: compare it with every live run of its other versions.
    against_runs: bool,
}

/// A definition that was published.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PublishedView {
    /// The workflow's name.
    name: String,
    /// The version, given or assigned.
    version: u32,
    /// Its number of steps.
    steps: usize,
    /// Where it stands in its life: `draft`, `active`, `deprecated` or `archived`.
    state: &'static str,
    /// Whether the version is new; `false` when the same text was published before.
    new: bool,
}

/// A definition that was found good.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CheckedView {
    /// The workflow's name.
    name: String,
    /// The version that it names, if any.
    version: Option<u32>,
    /// Its number of steps.
    steps: usize,
    /// How it stands to the live runs, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    against_runs: Option<Against>,
}

/// A published workflow.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WorkflowView {
    /// Its name.
    name: String,
    /// The version shown.
    version: u32,
    /// All versions, oldest first.
    versions: Vec<u32>,
    /// The definition as it was published.
    source: String,
    /// The graph as a Mermaid diagram.
    mermaid: String,
}

/// All published workflows.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WorkflowsView {
    workflows: Vec<WorkflowLine>,
}

/// One line about a workflow.
#[derive(Debug, Serialize, ToSchema)]
struct WorkflowLine {
    /// Its name.
    name: String,
    /// Its newest active version; absent where none is active.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u32>,
}

async fn definition_of(door: &Door, request: Request) -> Result<String, Refusal> {
    let settings = door.intake().settings();
    body::type_of(request.headers(), &[BodyType::Json, BodyType::Yaml])?;
    let within = Duration::from_millis(settings.body_timeout_ms);
    let body = body::read(request, settings.max_body_bytes, within).await?;
    Ok(body::text(&body)?.to_owned())
}

/// Publishes a workflow, in YAML or JSON.
///
/// A version never changes once published. A definition without a version becomes the next one.
#[utoipa::path(put, path = "/v1/workflows", tag = "workflows", operation_id = "publish_workflow", params(PublishQuery),
    request_body(content((String = "application/yaml"), (Object = "application/json"))),
    responses((status = 201, description = "Published", body = PublishedView),
        (status = 200, description = "Published before with the same text", body = PublishedView),
        (status = "default", description = "A problem", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn publish(
    State(door): State<Door>,
    Asked(query): Asked<PublishQuery>,
    asker: Asker,
    request: Request,
) -> Result<Response, Refusal> {
    let text = definition_of(&door, request).await?;
    let publish = Publish {
        text: &text,
        file: query.file.as_deref().unwrap_or("workflow"),
        any_tool: query.any_tool,
        draft: query.draft,
        require_compatible: query.require_compatible,
        who: asker.who(),
        why: query.why.as_deref().unwrap_or("published"),
    };
    let published = door.workflows().publish(&publish).await;
    let published = published.inspect_err(|refusal| door.intake().meters().definition_refused(refusal))?;
    let status = if published.new { StatusCode::CREATED } else { StatusCode::OK };
    let view = PublishedView {
        name: published.name,
        version: published.version,
        steps: published.steps,
        state: published.state.as_str(),
        new: published.new,
    };
    Ok((status, Json(view)).into_response())
}

/// Checks a workflow without publishing it; all problems are told, each with its line.
#[utoipa::path(post, path = "/v1/workflows/validate", tag = "workflows", operation_id = "validate_workflow",
    params(PublishQuery),
    request_body(content((String = "application/yaml"), (Object = "application/json"))),
    responses((status = 200, description = "It is good", body = CheckedView),
        (status = "default", description = "A problem", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn validate(
    State(door): State<Door>,
    Asked(query): Asked<PublishQuery>,
    request: Request,
) -> Result<Json<CheckedView>, Refusal> {
    let text = definition_of(&door, request).await?;
    let file = query.file.as_deref().unwrap_or("workflow");
    let checked = door.workflows().check(&text, file, query.any_tool).await;
    let checked = checked.inspect_err(|refusal| door.intake().meters().definition_refused(refusal))?;
    let against_runs = match query.against_runs {
        true => Some(door.workflows().against_runs(&checked).await?),
        false => None,
    };
    let (version, steps) = (checked.version, checked.plan.steps.len());
    Ok(Json(CheckedView { name: checked.plan.name, version, steps, against_runs }))
}

/// Lists the published workflows.
#[utoipa::path(get, path = "/v1/workflows", tag = "workflows", operation_id = "list_workflows",
    responses((status = 200, description = "The workflows", body = WorkflowsView),
        (status = "default", description = "A problem", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn list(State(door): State<Door>) -> Result<Json<WorkflowsView>, Refusal> {
    let all = door.store().home().workflows().await?;
    let workflows = all.into_iter().map(|(name, version)| WorkflowLine { name, version }).collect();
    Ok(Json(WorkflowsView { workflows }))
}

/// A published workflow: `name` (the newest active version, else the newest) or `name@version`.
#[utoipa::path(get, path = "/v1/workflows/{name}", tag = "workflows", operation_id = "get_workflow",
    params(("name" = String, Path, description = "`name` or `name@version`")),
    responses((status = 200, description = "The workflow", body = WorkflowView),
        (status = "default", description = "A problem", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn show(
    State(door): State<Door>,
    Path(target): Path<String>,
) -> Result<Json<WorkflowView>, Refusal> {
    let plan = door.workflows().plan(&target).await?;
    let name = target_of(&target)?.name;
    let home = door.store().home();
    let Some(published) = home.definition(name, Some(plan.version)).await? else {
        return Err(Refusal::new(Code::UnknownWorkflow, format!("workflow {target:?} was removed just now")));
    };
    let versions = home.versions(name).await?.into_iter().map(|record| record.version).collect();
    let view = WorkflowView {
        name: published.name,
        version: published.version,
        versions,
        source: published.source,
        mermaid: plan.to_mermaid(),
    };
    Ok(Json(view))
}
