//! `tidemill skip` and `tidemill operations`.

use tidemill_producer::operate::{self, By, Skip};

use super::request::read_json;
use super::service::Why;
use crate::context::Context;
use crate::error::Outcome;
use crate::moment::moment;
use crate::table::{Cell, Table, shortened};

/// Give a step an output by hand, in place of what it would have done
///
/// It has succeeded, then: what needs it goes on. A step that a worker runs, or whose turn has not come, is not skipped.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tidemill skip order-42 payment --output '{\"paid\": true}' --reason 'paid in cash'
  tidemill skip order-42 wait-for-courier --reason 'fetched by hand'")]
pub(crate) struct Arguments {
    /// Id of the run
    run: String,
    /// Id of the step
    step: String,
    /// The step's output: JSON text, @FILE, or - for standard input
    #[arg(long, short, default_value = "null")]
    output: String,
    #[command(flatten)]
    why: Why,
}

/// Tell what was done by hand: to what, when, by whom and why; the newest first
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tidemill operations
  tidemill operations order-42")]
pub(crate) struct OperationsArguments {
    /// Only what was done to this: a run's id
    subject: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..))]
    limit: u16,
}

pub(crate) async fn run(context: &Context, arguments: Arguments) -> Outcome {
    let Arguments { run, step, output, why } = arguments;
    let (output, who) = (read_json(&output)?, why.who());
    let skip = Skip { output: Some(&output), by: By { who: &who, why: why.reason() } };
    let intake = context.intake();
    let skipped = operate::skip(&context.store, intake.workflows(), (&run, &step), skip).await?;
    let ended = if skipped.run_ended { "; the run has ended with it" } else { "" };
    let line = format!("step {} of {run} has this output now{ended}", skipped.step);
    context.output.told(&skipped, line);
    Ok(())
}

pub(crate) async fn operations(context: &Context, arguments: OperationsArguments) -> Outcome {
    let limit = usize::from(arguments.limit);
    let mut table = Table::new(&["WHEN", "WHAT", "TO", "STEP", "BY", "WHY"]);
    for operation in operate::operations(&context.store, arguments.subject.as_deref(), limit).await? {
        if context.output.is_json() {
            context.output.document(&operation);
            continue;
        }
        table.row(vec![
            Cell::new(moment(operation.at_ms)),
            Cell::new(&operation.kind),
            Cell::new(&operation.subject),
            Cell::new(operation.step.as_deref().unwrap_or("-")),
            Cell::new(shortened(&operation.by, 40)),
            Cell::new(shortened(&operation.why, 60)),
        ]);
    }
    context.output.listing(&table, "nothing was done by hand");
    Ok(())
}
