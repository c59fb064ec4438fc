//! One thing done to all runs that a search finds.

use axum::Json;
use axum::extract::{Request, State};
use serde::Deserialize;
use tidemill_store::{RunCursor, RunQuery};
use utoipa::ToSchema;

use super::Door;
use super::answer::ProblemView;
use super::mode::{read, who};
use super::services::Asker;
use crate::operate::{self, Act, Bulk, BulkDone, By};
use crate::refusal::{Code, Refusal};
use crate::search;

/// Runs per call, unless asked otherwise, and at most.
const RUNS: (usize, usize) = (100, 1_000);

/// What is done, and to which runs.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BulkRequest {
    /// What is done to each.
    action: Act,
    /// Runs in one of these states; `live` stands for all that have not ended, `ended` for the others. One at least.
    states: Vec<String>,
    /// Only runs of this workflow: `name` or `name@version`.
    #[serde(default)]
    workflow: Option<String>,
    /// Only runs with all of these labels, each `name=value`.
    #[serde(default)]
    labels: Vec<String>,
    /// Only runs of this tenant.
    #[serde(default)]
    tenant: Option<String>,
    /// Only runs that started at this Unix millisecond or later.
    #[serde(default)]
    since_ms: Option<u64>,
    /// Only runs that started at this Unix millisecond or earlier.
    #[serde(default)]
    until_ms: Option<u64>,
    /// Nothing is done; which runs it would be is told.
    #[serde(default)]
    dry_run: bool,
    /// With `cancel`: whether what they did is undone (default true).
    #[serde(default)]
    compensate: Option<bool>,
    /// To so many (default 100, at most 1,000); with `next` of the answer as `cursor` the next call goes on.
    #[serde(default)]
    limit: Option<usize>,
    /// Where the last call ended.
    #[serde(default)]
    cursor: Option<String>,
    /// Why.
    reason: String,
    /// Who; the client's address is added.
    #[serde(default)]
    by: Option<String>,
}

fn query_of(asked: &BulkRequest) -> Result<RunQuery, Refusal> {
    let bad = |error: String| Refusal::new(Code::InvalidMember, error);
    let mut states = Vec::new();
    for word in &asked.states {
        states.extend(search::states_of(word).map_err(bad)?);
    }
    if states.is_empty() {
        let detail =
            "name the states of the runs that are meant (\"states\"): nothing is done to runs of any state";
        return Err(Refusal::new(Code::MissingMember, detail));
    }
    let labels: Result<Vec<_>, _> = asked.labels.iter().map(|label| search::label_of(label)).collect();
    Ok(RunQuery {
        workflow: asked.workflow.clone(),
        states,
        labels: labels.map_err(bad)?,
        tenant: asked.tenant.clone(),
        since_ms: asked.since_ms,
        until_ms: asked.until_ms,
        ..RunQuery::default()
    })
}

/// Does one thing to the runs that a search finds, the one that started last first: at most so many per call, each answer with the cursor
/// for the next.
#[utoipa::path(post, path = "/v1/bulk", tag = "runs", operation_id = "bulk",
    request_body(content = BulkRequest),
    responses((status = 200, description = "What was done", body = BulkDone),
        (status = "default", description = "A problem", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn bulk(
    State(door): State<Door>,
    asker: Asker,
    request: Request,
) -> Result<Json<BulkDone>, Refusal> {
    let asked: BulkRequest =
        read(&door, request, "{\"action\": \"cancel\", \"states\": [\"live\"], \"reason\": \"…\"}").await?;
    let query = query_of(&asked)?;
    let cursor = asked.cursor.as_deref().map(|text| {
        let wrong =
            || Refusal::new(Code::InvalidMember, "the cursor is not one that an answer gave as \"next\"");
        RunCursor::parse(text).ok_or_else(wrong)
    });
    let by = who(&asker, asked.by.as_deref());
    let bulk = Bulk {
        act: asked.action,
        query: &query,
        cursor: cursor.transpose()?,
        limit: asked.limit.unwrap_or(RUNS.0).clamp(1, RUNS.1),
        dry_run: asked.dry_run,
        spares: !asked.compensate.unwrap_or(true),
        by: By { who: &by, why: &asked.reason },
    };
    let done = operate::bulk(door.store(), door.workflows(), bulk).await?;
    if !asked.dry_run {
        door.intake().meters().operated("bulk");
    }
    Ok(Json(done))
}
