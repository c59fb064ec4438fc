//! `tidemill enqueue`.

use tidemill_producer::{Kind, Request};

use super::request::RequestArgs;
use crate::context::Context;
use crate::error::Outcome;

/// Enqueue a job: one call of a tool
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tidemill enqueue echo --input '{\"hello\":\"tide\"}' --wait
  tidemill enqueue http.request --input @request.json --id order-42 --max-attempts 5
  tidemill enqueue sleep --input '{\"ms\":50}' --queue low --delay-ms 60000

The same without this command:
  redis-cli XADD 'tm:{0}:jobs:default' '*' tool echo input '{\"hello\":\"tide\"}'")]
pub(crate) struct Arguments {
    /// The tool to run; `tidemill tools` lists them
    tool: String,
    /// Attempts in all
    #[arg(long, value_name = "N")]
    max_attempts: Option<u64>,
    /// Take it in however long its service lets it wait (backpressure `reject` and `adaptive`)
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    request: RequestArgs,
}

pub(crate) async fn run(context: &Context, arguments: Arguments) -> Outcome {
    let mut request = Request::new(Kind::Job, arguments.tool);
    request.max_attempts = arguments.max_attempts.map(Into::into);
    arguments.request.submit(context, request, arguments.force).await
}
