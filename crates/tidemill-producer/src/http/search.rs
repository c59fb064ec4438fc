//! Searching for runs, and what groups of them there are.

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use tidemill_protocol::{Labels, RunState};
use tidemill_store::{RunCursor, RunQuery, RunRow};
use utoipa::{IntoParams, ToSchema};

use super::Door;
use super::answer::ProblemView;
use super::query::Asked;
use crate::groups::{self, GroupDetail, GroupLine};
use crate::refusal::{Code, Refusal};
use crate::search;

/// Runs looked at for one page; filters that match few give short pages with a cursor.
const LOOKED_AT: usize = 2_000;
const MAX_PAGE: usize = 500;

/// Which runs.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RunsQuery {
    /// Only runs in one of these states, separated by commas; `live` stands for all that have not ended, `ended` for the others.
    state: Option<String>,
    /// Only runs of this workflow: `name` or `name@version`.
    workflow: Option<String>,
    /// Only runs with this label, `name=value`; several are separated by commas, and a comma in a value is written `\,`.
    label: Option<String>,
    /// Only runs of this tenant.
    tenant: Option<String>,
    /// Only runs that this run has asked for.
    parent: Option<String>,
    /// Only runs that started at this Unix millisecond or later.
    since_ms: Option<u64>,
    /// Only runs that started at this Unix millisecond or earlier.
    until_ms: Option<u64>,
    /// Also blocks of workflows that run on their own: rounds of loops, branches of races, … With `parent` they are always there.
    blocks: bool,
    /// Where the page before ended.
    cursor: Option<String>,
    /// Most runs of the page (default 50, at most 500).
    limit: Option<usize>,
}

/// Runs, the one that started last first.
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
    /// Its workflow as `name@version`; of a block `name@version#path`.
    workflow: String,
    /// When it started, in Unix milliseconds.
    started_at_ms: u64,
    /// When it ended.
    ended_at_ms: Option<u64>,
    /// Its owner.
    tenant: Option<String>,
    /// The run that asked for it.
    parent: Option<String>,
    /// What it is found by.
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    labels: Labels,
}

impl From<RunRow> for RunLine {
    fn from(run: RunRow) -> Self {
        Self {
            id: run.id,
            state: run.state.as_str(),
            workflow: run.workflow,
            started_at_ms: run.started_ms,
            ended_at_ms: run.ended_ms,
            tenant: run.tenant,
            parent: run.parent,
            labels: run.labels,
        }
    }
}

/// Lists runs, the one that started last first. A page after a cursor repeats nothing and leaves out nothing that was there, whatever
/// starts or ends meanwhile.
#[utoipa::path(get, path = "/v1/runs", tag = "runs", operation_id = "list_runs", params(RunsQuery),
    responses((status = 200, description = "A page of runs", body = RunsView),
        (status = "default", description = "A problem", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn list(
    State(door): State<Door>,
    Asked(asked): Asked<RunsQuery>,
) -> Result<Json<RunsView>, Refusal> {
    let limit = asked.limit.unwrap_or(50).clamp(1, MAX_PAGE);
    let cursor = asked.cursor.as_deref().map(|text| {
        let wrong = || Refusal::new(Code::InvalidQuery, "the cursor is not one that a page gave as \"next\"");
        RunCursor::parse(text).ok_or_else(wrong)
    });
    let cursor = cursor.transpose()?;
    let query = query_of(asked)?;
    let page = door.store().search(&query, cursor.as_ref(), limit, LOOKED_AT).await?;
    let runs = page.runs.into_iter().map(RunLine::from).collect();
    Ok(Json(RunsView { runs, next: page.next.map(|next| next.to_string()) }))
}

fn query_of(asked: RunsQuery) -> Result<RunQuery, Refusal> {
    let refuse = |why: String| Refusal::new(Code::InvalidQuery, why);
    let states: Result<Vec<Vec<RunState>>, String> =
        asked.state.iter().flat_map(|words| words.split(',')).map(search::states_of).collect();
    let labels: Result<Vec<(String, String)>, String> = asked
        .label
        .as_deref()
        .map(search::split_labels)
        .unwrap_or_default()
        .iter()
        .map(|l| search::label_of(l))
        .collect();
    Ok(RunQuery {
        workflow: asked.workflow,
        states: states.map_err(refuse)?.concat(),
        labels: labels.map_err(refuse)?,
        tenant: asked.tenant,
        parent: asked.parent,
        since_ms: asked.since_ms,
        until_ms: asked.until_ms,
        blocks: asked.blocks,
    })
}

/// Which groups.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct GroupsQuery {
    /// Only groups of this workflow.
    workflow: Option<String>,
}

/// Groups that have runs.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct GroupsView {
    groups: Vec<GroupLine>,
}

/// The groups that have runs, those in which most wait first; at most 1,000.
#[utoipa::path(get, path = "/v1/groups", tag = "runs", operation_id = "list_groups", params(GroupsQuery),
    responses((status = 200, description = "The groups", body = GroupsView),
        (status = "default", description = "A problem", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn list_groups(
    State(door): State<Door>,
    Asked(asked): Asked<GroupsQuery>,
) -> Result<Json<GroupsView>, Refusal> {
    let groups = groups::list(door.store(), asked.workflow.as_deref()).await?;
    Ok(Json(GroupsView { groups }))
}

/// A group: which of its runs have a place, and which wait for one.
#[utoipa::path(get, path = "/v1/groups/{name}", tag = "runs", operation_id = "get_group",
    params(("name" = String, Path, description = "The group's name, `workflow:key`")),
    responses((status = 200, description = "The group", body = GroupDetail),
        (status = "default", description = "A problem", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn show_group(
    State(door): State<Door>,
    Path(name): Path<String>,
) -> Result<Json<GroupDetail>, Refusal> {
    groups::show(door.store(), &name).await.map(Json)
}
