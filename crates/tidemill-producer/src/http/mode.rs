//! The pool's execution mode: shown, switched, rolled back, and how runs went under each.

use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Door;
use super::answer::ProblemView;
use super::body;
use super::query::Asked;
use super::services::Asker;
use crate::modes::{self, ModeChangeView, ModeMetrics, ModeView, SwitchedMode, Switching};
use crate::refusal::{Code, Refusal};

/// Switches told at once, unless asked otherwise, and at most.
const CHANGES: (usize, usize) = (100, 1_000);

/// To which mode, and why.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SwitchRequest {
    /// `classic`, `state_machine`, `optimized` or `hybrid`.
    mode: String,
    /// Why, for the history.
    reason: String,
    /// Who, for the history; the client's address is added.
    #[serde(default)]
    by: Option<String>,
    /// The `version` that you saw: if somebody else has switched since, nothing is switched.
    #[serde(default)]
    version: Option<u64>,
}

/// Why the mode is switched back.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RollbackRequest {
    /// Why, for the history.
    reason: String,
    /// Who, for the history; the client's address is added.
    #[serde(default)]
    by: Option<String>,
    /// The `version` that you saw: if somebody else has switched since, nothing is switched.
    #[serde(default)]
    version: Option<u64>,
}

/// Which switches are asked for.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct HistoryQuery {
    /// At most so many (default 100, at most 1,000).
    limit: Option<usize>,
}

/// What happened to the mode.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct HistoryView {
    /// The newest first.
    changes: Vec<ModeChangeView>,
}

/// The pool's execution mode, who switched it last, when and why.
#[utoipa::path(get, path = "/v1/mode", tag = "pool", operation_id = "get_mode",
    responses((status = 200, description = "The mode", body = ModeView),
        (status = "default", description = "A problem", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn show(State(door): State<Door>) -> Result<Json<ModeView>, Refusal> {
    modes::current(door.store()).await.map(Json)
}

/// Switches the mode of the runs that start from now on.
///
/// Of many who switch by the same `version` one succeeds; the others get 409 `conflict`. Runs under way keep the mode with which they began.
#[utoipa::path(put, path = "/v1/mode", tag = "pool", operation_id = "switch_mode",
    request_body(content = SwitchRequest),
    responses((status = 200, description = "It is so now", body = SwitchedMode),
        (status = "default", description = "A problem", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn switch(
    State(door): State<Door>,
    asker: Asker,
    request: Request,
) -> Result<Json<SwitchedMode>, Refusal> {
    let asked: SwitchRequest = read(&door, request, "{\"mode\": \"hybrid\", \"reason\": \"…\"}").await?;
    let to = modes::mode_of(&asked.mode)?;
    let who = who(&asker, asked.by.as_deref());
    let switching = Switching { who: &who, reason: &asked.reason, version: asked.version };
    modes::switch(door.store(), switching, to).await.map(Json)
}

/// Switches back to the mode before the last switch.
#[utoipa::path(post, path = "/v1/mode/rollback", tag = "pool", operation_id = "roll_mode_back",
    request_body(content = RollbackRequest),
    responses((status = 200, description = "It is as before", body = SwitchedMode),
        (status = "default", description = "A problem", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn roll_back(
    State(door): State<Door>,
    asker: Asker,
    request: Request,
) -> Result<Json<SwitchedMode>, Refusal> {
    let asked: RollbackRequest = read(&door, request, "{\"reason\": \"…\"}").await?;
    let who = who(&asker, asked.by.as_deref());
    let switching = Switching { who: &who, reason: &asked.reason, version: asked.version };
    modes::roll_back(door.store(), switching).await.map(Json)
}

/// What happened to the mode: from which to which, when, why and by whom.
#[utoipa::path(get, path = "/v1/mode/history", tag = "pool", operation_id = "list_mode_changes",
    params(HistoryQuery),
    responses((status = 200, description = "The switches", body = HistoryView),
        (status = "default", description = "A problem", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn history(
    State(door): State<Door>,
    Asked(query): Asked<HistoryQuery>,
) -> Result<Json<HistoryView>, Refusal> {
    let limit = query.limit.unwrap_or(CHANGES.0).clamp(1, CHANGES.1);
    Ok(Json(HistoryView { changes: modes::history(door.store(), limit).await? }))
}

/// The mode, its history, and how many runs there were of each mode and how long they took.
#[utoipa::path(get, path = "/v1/mode/metrics", tag = "pool", operation_id = "get_mode_metrics",
    responses((status = 200, description = "The figures", body = ModeMetrics),
        (status = "default", description = "A problem", body = ProblemView, content_type = "application/problem+json")))]
pub(super) async fn metrics(State(door): State<Door>) -> Result<Json<ModeMetrics>, Refusal> {
    modes::metrics(door.store()).await.map(Json)
}

pub(super) fn who(asker: &Asker, by: Option<&str>) -> String {
    let named = by.map(str::trim).filter(|by| !by.is_empty());
    named.map_or_else(|| asker.who().to_owned(), |by| format!("{by} ({})", asker.who()))
}

pub(super) async fn read<T: DeserializeOwned>(
    door: &Door,
    request: Request,
    example: &str,
) -> Result<T, Refusal> {
    let settings = door.intake().settings();
    let within = Duration::from_millis(settings.body_timeout_ms);
    let body = body::read(request, settings.max_body_bytes, within).await?;
    serde_json::from_slice(&body).map_err(|error| {
        let code = if error.is_data() { Code::InvalidRequest } else { Code::InvalidJson };
        Refusal::new(code, format!("expected {example}: {error}"))
    })
}
