//! `tidemill signal`.

use tidemill_producer::operate::{self, Signal};

use super::request::read_json;
use super::service::Who;
use crate::context::Context;
use crate::error::Outcome;

/// Send a signal to a run: a step that waits for it gets the payload as its output
///
/// One that comes before a step listens is kept for it. The payload is checked against the schema of the step that waits.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tidemill signal order-42 paid '{\"amount\": 5}'
  tidemill signal order-42 paid @payment.json --id payment-7")]
pub(crate) struct Arguments {
    /// Id of the run
    run: String,
    /// Name of the signal, as the step that waits says it
    name: String,
    /// JSON text, @FILE, or - for standard input
    #[arg(default_value = "null")]
    payload: String,
    /// Your id of the signal: a second one of the same id changes nothing
    #[arg(long)]
    id: Option<String>,
}

pub(crate) async fn run(context: &Context, arguments: Arguments) -> Outcome {
    let Arguments { run, name, payload, id } = arguments;
    let (payload, who) = (read_json(&payload)?, Who::here());
    let signal = Signal { name: &name, payload: &payload, id: id.as_deref(), by: who.as_str() };
    let intake = context.intake();
    let sent = operate::signal(&context.store, intake.workflows(), &run, signal).await?;
    let line = match sent.state {
        "taken" => format!("{run} has signal {name}"),
        "kept" => format!("no step of {run} listens for signal {name} yet; it is kept until one does"),
        _ => format!("a signal of this id was sent to {run} before; nothing is changed"),
    };
    context.output.told(&sent, line);
    Ok(())
}
