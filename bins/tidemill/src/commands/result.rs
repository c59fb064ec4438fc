//! `tidemill result`.

use std::time::Duration;

use serde_json::json;

use crate::context::Context;
use crate::error::{Error, Outcome};
use crate::waiting;

/// Show the result of a job or run
///
/// Writes its output; what did not succeed is told with its error, and the exit code is 1.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tidemill result order-42 --wait
  tidemill result order-42 --json | jq .output")]
pub(crate) struct Arguments {
    /// Id of a job or run
    id: String,
    /// Wait for its end
    #[arg(long, short)]
    wait: bool,
    /// Longest wait, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 600_000, requires = "wait")]
    wait_ms: u64,
}

pub(crate) async fn run(context: &Context, arguments: Arguments) -> Outcome {
    let id = arguments.id;
    if arguments.wait {
        let result = waiting::result(context, &id, Duration::from_millis(arguments.wait_ms)).await?;
        return waiting::show(context, &result);
    }
    let Some(text) = waiting::ended(context, &id).await? else {
        if context.output.is_json() {
            context.output.document(&json!({ "id": id, "state": "unfinished" }));
        }
        return Err(Error::unfinished(format!("{id} has not ended; wait for it with --wait")));
    };
    let result = waiting::read(&id, &text)?;
    waiting::show(context, &result)
}
