//! The OpenAPI document: made from the handlers, served as it was made.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder};

use super::Door;
use super::answer::json_text;

const TAGS: [(&str, &str); 6] = [
    ("jobs", "Single tool calls"),
    ("runs", "Executions of workflows"),
    ("results", "What jobs and runs gave"),
    ("workflows", "Definitions"),
    ("services", "What tools depend on: limits, breakers, pauses"),
    ("pool", "Queues, workers, dead letters"),
];

/// What stands around the paths.
pub(super) fn base() -> OpenApi {
    let info = InfoBuilder::new()
        .title("Tidemill producer")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some("Takes jobs and runs in, and tells what became of them."))
        .license(Some(LicenseBuilder::new().name("MIT OR Apache-2.0").build()))
        .build();
    let tags =
        TAGS.map(|(name, description)| TagBuilder::new().name(name).description(Some(description)).build());
    OpenApiBuilder::new().info(info).tags(Some(tags)).build()
}

pub(super) fn text(document: &OpenApi) -> String {
    document.to_pretty_json().unwrap_or_else(|error| {
        tracing::error!(%error, "the OpenAPI document cannot be written");
        "{}".to_owned()
    })
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "pool", operation_id = "get_openapi",
    responses((status = 200, description = "The OpenAPI document", body = Object)))]
pub(super) async fn document(State(door): State<Door>) -> Response {
    json_text(StatusCode::OK, door.inner.openapi.clone())
}
