//! The tools against real servers on loopback and real child processes.
#![expect(
    clippy::disallowed_methods,
    reason = "test servers are plain tasks; they end with the test's runtime"
)]

mod exec;
mod http;
mod http_feedback;
mod http_guard;
mod http_tls;
mod http_wire;
mod named;
mod server;

use std::sync::Arc;

use serde_json::Value;
use tidemill_tool::{Call, Context, ErrorClass, Feedback, Payload, Tool, ToolError};

type TestResult = Result<(), Box<dyn std::error::Error>>;

/// Calls a tool with a JSON input and reads its JSON output.
async fn call(tool: &Arc<dyn Tool>, input: &Value) -> Result<Value, ToolError> {
    call_with(tool, input, Feedback::default()).await
}

/// The same, with somebody who may listen.
async fn call_with(tool: &Arc<dyn Tool>, input: &Value, feedback: Feedback) -> Result<Value, ToolError> {
    let context = Context {
        id: Arc::from("job-7"),
        step: Some(Arc::from("hold")),
        attempt: 2,
        traceparent: Some(Arc::from("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")),
        feedback,
        ..Context::default()
    };
    let output = Arc::clone(tool).call(Call { input: Payload::json(input.to_string()), context }).await?;
    output.parse().map_err(|error| ToolError::new(ErrorClass::Internal, "test", error.to_string()))
}

/// The code of the error, or what came instead.
async fn code_of(tool: &Arc<dyn Tool>, input: &Value) -> String {
    match call(tool, input).await {
        Ok(output) => format!("no error but {output}"),
        Err(error) => error.code.into_owned(),
    }
}
