//! A worker with a tool of its own, beside the built-in ones.
//!
//! ```sh
//! cargo run -p tidemill-example-own-tool -- redis://127.0.0.1:6379
//! redis-cli XADD 'tm:{0}:jobs:default' '*' tool text.count input '{"text":"one two"}' id c1 result_ttl_ms 60000
//! redis-cli GET 'tm:{0}:result:c1'
//! ```

use std::sync::Arc;

use serde::Deserialize;
use tidemill_runtime::health::Health;
use tidemill_runtime::metrics::Metrics;
use tidemill_store::Store;
use tidemill_tool::{Call, ErrorClass, Payload, Tool, ToolError, ToolFuture};
use tidemill_worker::{Settings, Worker};
use tokio_util::sync::CancellationToken;

/// Counts the words of a text.
struct CountWords;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    text: String,
}

impl Tool for CountWords {
    fn kind(&self) -> &'static str {
        "text"
    }

    fn input_schema(&self) -> serde_json::Value {
        serde_json::json!({
            "type": "object", "required": ["text"], "additionalProperties": false,
            "properties": { "text": { "type": "string" } },
        })
    }

    fn call(self: Arc<Self>, call: Call) -> ToolFuture {
        Box::pin(async move {
            let Input { text } =
                call.input.parse().map_err(|error| ToolError::invalid_input(error.to_string()))?;
            let count = serde_json::json!({ "words": text.split_whitespace().count() });
            Payload::from_value(&count)
                .map_err(|error| ToolError::new(ErrorClass::Internal, "encode", error.to_string()))
        })
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "redis://127.0.0.1:6379".to_owned());
    let store = Store::new(&tidemill_store::Settings { url, ..Default::default() }, "tm", 1)?;
    let mut tools = tidemill_tools::builtin(&tidemill_tools::Settings::default())?;
    tools.register("text.count", Arc::new(CountWords))?;

    let (metrics, health) = (Metrics::new("own-tool", "0"), Health::new("own-tool", "0"));
    let worker = Worker::new(Settings::default(), store, tools, (&metrics, &health))?;
    let stop = CancellationToken::new();
    let drain = stop.clone();
    let ctrl_c = async move {
        tokio::signal::ctrl_c().await?;
        drain.cancel();
        anyhow::Ok(())
    };
    tokio::try_join!(async { anyhow::Ok(worker.run(stop).await?) }, ctrl_c)?;
    Ok(())
}
