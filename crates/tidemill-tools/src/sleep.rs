//! `sleep`: waits, for demonstrations and for tests of time.
//!
//! It holds a slot while it waits; to run something later, give the job a delay instead.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tidemill_tool::{Call, Payload, Tool, ToolError, ToolFuture};

use crate::input;

/// The longest wait, in milliseconds: one hour.
pub const MAX_MS: u64 = 60 * 60 * 1000;

/// Waits for a stated time and gives `null`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sleep;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    ms: u64,
}

impl Tool for Sleep {
    fn kind(&self) -> &'static str {
        "sleep"
    }

    fn input_schema(&self) -> serde_json::Value {
        serde_json::json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "additionalProperties": false,
            "required": ["ms"],
            "properties": {
                "ms": {"type": "integer", "minimum": 0, "maximum": MAX_MS, "description": "How long to wait, in milliseconds."}
            }
        })
    }

    fn call(self: Arc<Self>, call: Call) -> ToolFuture {
        Box::pin(async move {
            let json = input::prepare("sleep", None, call.input)?.json;
            let Input { ms } = input::read("sleep", &json)?;
            if ms > MAX_MS {
                return Err(ToolError::invalid_input(format!(
                    "sleep waits for at most {MAX_MS} ms, not {ms}; give the job a delay_ms instead"
                )));
            }
            tokio::time::sleep(Duration::from_millis(ms)).await;
            Ok(Payload::null())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_tool::Context;
    use tokio::time::Instant;

    async fn slept(input: &str) -> (Result<Payload, ToolError>, Duration) {
        let start = Instant::now();
        let call = Call { input: Payload::json(input.to_owned()), context: Context::default() };
        (Arc::new(Sleep).call(call).await, start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn it_waits_as_long_as_it_is_told() {
        let (output, waited) = slept(r#"{"ms": 1500}"#).await;
        assert_eq!(output, Ok(Payload::null()));
        assert!((1500..1510).contains(&waited.as_millis()), "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_fit_is_refused_with_the_members_name() {
        for (input, part) in [
            (r#"{"ms":1,"mss":2}"#, "mss"),
            ("{}", "ms"),
            (r#"{"ms":-1}"#, "-1"),
            (r#"{"ms":3600001}"#, "delay_ms"),
            ("[", "EOF"),
        ] {
            let (output, _) = slept(input).await;
            let message = output.err().map(|error| error.to_string()).unwrap_or_default();
            assert!(message.contains("invalid_input") && message.contains(part), "{input}: {message}");
        }
    }
}
