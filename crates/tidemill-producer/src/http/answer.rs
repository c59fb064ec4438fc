//! Answers: refusals become problem documents, and each request is counted with its route and status.

use axum::Json;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::Door;
use crate::refusal::{Code, Refusal};

/// The content type of problem documents.
pub(super) const PROBLEM_TYPE: &str = "application/problem+json";

/// A problem document (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ProblemView {
    /// `urn:tidemill:problem:<code>`.
    r#type: String,
    /// What the code means in a few words.
    title: String,
    /// The HTTP status.
    status: u16,
    /// Stable word for programs.
    code: String,
    /// What is wrong, where, and what to do.
    detail: String,
    /// The path that was asked for.
    instance: String,
    /// When asking again makes sense, in milliseconds.
    retry_after_ms: Option<u64>,
    /// Single problems, when there are several.
    #[schema(value_type = Option<Vec<Object>>)]
    problems: Option<Vec<serde_json::Value>>,
}

/// Marks an answer for [`finish`], which knows the path.
impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = status.into_response();
        response.extensions_mut().insert(std::sync::Arc::new(self));
        response
    }
}

/// Writes the problem document of a refused request, and counts the request.
pub(super) async fn finish(State(door): State<Door>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "unknown".to_owned(), |path| format!("{} {}", request.method(), path.as_str()));
    let path = request.uri().path().to_owned();
    let mut response = next.run(request).await;
    if let Some(refusal) = response.extensions_mut().remove::<std::sync::Arc<Refusal>>() {
        tracing::debug!(%path, code = refusal.code.as_str(), detail = refusal.detail, "refused");
        response = problem(&refusal, &path);
    }
    let seconds = start.elapsed().as_secs_f64();
    door.intake().meters().answered(&route, response.status().as_u16(), seconds);
    response
}

/// A refusal's problem document.
pub(super) fn problem(refusal: &Refusal, path: &str) -> Response {
    let mut document = refusal.document();
    document["instance"] = path.into();
    let status = StatusCode::from_u16(refusal.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, [(header::CONTENT_TYPE, PROBLEM_TYPE)], document.to_string()).into_response();
    if let Some(pause) = refusal.retry_after {
        // whole seconds, rounded up: 0 would invite an immediate repetition
        let seconds = pause.as_secs() + u64::from(pause.subsec_nanos() > 0);
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    }
    response
}

pub(super) async fn unknown_path(request: Request) -> Refusal {
    let path = request.uri().path();
    Refusal::new(Code::UnknownPath, format!("there is nothing under {path:?}; /openapi.json lists all paths"))
}

pub(super) async fn method_not_allowed(method: Method, request: Request) -> Refusal {
    let path = request.uri().path();
    let detail = format!("{path:?} does not take {method}; /openapi.json lists what it takes");
    Refusal::new(Code::MethodNotAllowed, detail)
}

pub(super) async fn front_page() -> Response {
    Json(serde_json::json!({
        "service": "tidemill-producer",
        "version": env!("CARGO_PKG_VERSION"),
        "openapi": "/openapi.json",
    }))
    .into_response()
}

/// Stored JSON text as an answer.
pub(super) fn json_text(status: StatusCode, text: String) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], text).into_response()
}
