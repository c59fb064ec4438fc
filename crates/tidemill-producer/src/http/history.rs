//! How a run went.

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use utoipa::IntoParams;

use super::Door;
use super::answer::ProblemView;
use super::query::Asked;
use crate::refusal::Refusal;
use crate::views::{self, HistoryView};

/// How much of it.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct HistoryQuery {
    /// The items of `for_each` steps, too.
    items: bool,
}

/// How a run went: in which state each step was from when to when, and how long in each.
#[utoipa::path(get, path = "/v1/runs/{id}/history", tag = "runs", operation_id = "get_history",
    params(("id" = String, Path, description = "The run's id"), HistoryQuery),
    responses((status = 200, description = "Its history", body = HistoryView),
        (status = "default", description = "A problem", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn show(
    State(door): State<Door>,
    Path(id): Path<String>,
    Asked(query): Asked<HistoryQuery>,
) -> Result<Json<HistoryView>, Refusal> {
    views::history(door.store(), door.workflows(), &id, query.items).await.map(Json)
}
