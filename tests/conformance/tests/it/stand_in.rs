//! What stands in for the public services that the scenarios call.

use std::sync::Arc;

use axum::extract::{Path, Query};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use tidemill_runtime::tasks::{OnFailure, Tasks};
use tidemill_tool::{Call, Payload, Tool, ToolFuture};

/// The hosts that it stands in for.
const HOSTS: [&str; 2] = ["petstore.swagger.io", "httpbin.org"];

fn pet(id: u64) -> Value {
    json!({ "id": id, "name": "Milou", "status": "available", "photoUrls": [] })
}

fn description() -> Value {
    let operation = |id: &str, name: &str, place: &str| json!({ "operationId": id, "parameters": [{ "name": name, "in": place, "required": true }] });
    json!({
        "swagger": "2.0", "host": "petstore.swagger.io", "basePath": "/v2", "schemes": ["https", "http"],
        "paths": {
            "/pet/findByStatus": { "get": operation("findPetsByStatus", "status", "query") },
            "/pet/{petId}": { "get": operation("getPetById", "petId", "path") },
        },
    })
}

async fn by_status(Query(query): Query<Vec<(String, String)>>) -> Result<Json<Value>, StatusCode> {
    let is_asked = query.iter().any(|(name, value)| name == "status" && value == "available");
    if is_asked { Ok(Json(json!([pet(7), pet(8)]))) } else { Err(StatusCode::BAD_REQUEST) }
}

async fn by_id(Path(id): Path<String>) -> Result<Json<Value>, StatusCode> {
    id.parse().map(|id| Json(pet(id))).map_err(|_| StatusCode::NOT_FOUND)
}

async fn guarded(Path((user, password)): Path<(String, String)>, headers: HeaderMap) -> StatusCode {
    // the only name and password that the scenarios have
    let known = "Basic c2VydmVybGVzcy13b3JrZmxvdzpjb25mb3JtYW5jZS10ZXN0";
    let is_known = (user.as_str(), password.as_str()) == ("serverless-workflow", "conformance-test");
    let given = headers.get("authorization").and_then(|value| value.to_str().ok());
    if is_known && given == Some(known) { StatusCode::OK } else { StatusCode::UNAUTHORIZED }
}

/// Starts it; gives its address.
pub(crate) async fn start(tasks: &Tasks) -> String {
    let routes = Router::new()
        .route("/petstore.swagger.io/v2/pet/findByStatus", get(by_status))
        .route("/petstore.swagger.io/v2/pet/{id}", get(by_id))
        .route("/petstore.swagger.io/v2/swagger.json", get(async || Json(description())))
        .route("/httpbin.org/basic-auth/{user}/{password}", get(guarded));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it listens");
    tasks.spawn("stand-in", OnFailure::Log, async move { axum::serve(listener, routes).await });
    format!("http://{address}")
}

/// `http.request`, with what is meant for the public services sent to the stand-in.
pub(crate) struct Rerouted {
    pub(crate) inner: Arc<dyn Tool>,
    pub(crate) stand_in: String,
}

impl Tool for Rerouted {
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    fn input_schema(&self) -> Value {
        self.inner.input_schema()
    }

    fn call(self: Arc<Self>, call: Call) -> ToolFuture {
        let mut input: Value = serde_json::from_slice(call.input.bytes()).unwrap_or_default();
        if let Some(url) = input.get("url").and_then(Value::as_str) {
            let host = HOSTS.iter().find(|host| url.starts_with(&format!("https://{host}/")));
            let host = host.unwrap_or_else(|| panic!("{url} is a service that nothing stands in for"));
            let rest = url.trim_start_matches("https://").trim_start_matches(host).to_owned();
            input["url"] = format!("{}/{host}{rest}", self.stand_in).into();
        }
        let input = Payload::json(input.to_string());
        Arc::clone(&self.inner).call(Call { input, ..call })
    }
}
