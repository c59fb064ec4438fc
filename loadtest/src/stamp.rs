//! A tool that notes how long ago its job was made: one clock for both ends, so no difference of clocks.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidemill_tool::{Call, Payload, Tool, ToolError, ToolFuture};
use tokio::time::Instant;

/// Notes how long ago the job was stamped.
#[derive(Debug)]
pub(crate) struct Stamp {
    base: Instant,
    latencies_ms: Mutex<Vec<f64>>,
}

impl Stamp {
    /// One that has noted nothing.
    pub(crate) fn new() -> Self {
        Self { base: Instant::now(), latencies_ms: Mutex::default() }
    }

    /// The input of a job that is made now.
    pub(crate) fn input(&self) -> String {
        format!(r#"{{"at":{},"pad":"{}"}}"#, self.base.elapsed().as_nanos(), "x".repeat(160))
    }

    /// How many have been noted since they were forgotten.
    pub(crate) fn count(&self) -> usize {
        self.latencies_ms.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// What was noted, in milliseconds, in the order of the starts.
    pub(crate) fn latencies_ms(&self) -> Vec<f64> {
        self.latencies_ms.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Begins anew.
    pub(crate) fn forget(&self) {
        self.latencies_ms.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn note(&self, call: &Call) -> Result<Payload, ToolError> {
        let now = self.base.elapsed();
        let invalid = |error: &dyn std::fmt::Display| ToolError::invalid_input(format!("no stamp: {error}"));
        let input: serde_json::Value =
            serde_json::from_slice(call.input.bytes()).map_err(|error| invalid(&error))?;
        let at = input
            .get("at")
            .and_then(serde_json::Value::as_u64)
            .ok_or_else(|| invalid(&"\"at\" is missing"))?;
        let latency = now.saturating_sub(Duration::from_nanos(at));
        self.latencies_ms.lock().unwrap_or_else(PoisonError::into_inner).push(latency.as_secs_f64() * 1e3);
        Ok(Payload::null())
    }
}

impl Tool for Stamp {
    fn kind(&self) -> &'static str {
        "inline"
    }

    fn call(self: Arc<Self>, call: Call) -> ToolFuture {
        Box::pin(async move { self.note(&call) })
    }
}
