//! `tidemill run`.

use tidemill_producer::{Kind, Request};

use super::request::RequestArgs;
use crate::context::Context;
use crate::error::Outcome;

/// Ask for a run of a published workflow
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tidemill run enrich-order --input '{\"order\":42}' --wait
  tidemill run enrich-order@3 --input @order.json --id order-42
  tidemill status order-42 --watch")]
pub(crate) struct Arguments {
    /// The workflow, with or without @version
    workflow: String,
    #[command(flatten)]
    request: RequestArgs,
}

pub(crate) async fn run(context: &Context, arguments: Arguments) -> Outcome {
    arguments.request.submit(context, Request::new(Kind::Run, arguments.workflow), false).await
}
