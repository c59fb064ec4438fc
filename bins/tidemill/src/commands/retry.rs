//! `tidemill retry` and `tidemill rerun`.

use tidemill_producer::operate::{self, By, Redo};

use super::request::read_json;
use super::service::Why;
use crate::context::Context;
use crate::error::Outcome;

/// Do a run that has not ended well again, from what failed
///
/// A new run of the same version keeps the outputs of the steps that ended well; what failed, what did not come to its turn, what was
/// undone and all that is behind those is done again.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tidemill retry order-42 --reason 'the bank is back'
  tidemill retry order-42 --id order-42-again")]
pub(crate) struct RetryArguments {
    /// Id of the run
    run: String,
    #[command(flatten)]
    new: NewRun,
}

/// Do a run that has ended again from one of its steps on
///
/// A new run of the same version keeps the outputs of the other steps that ended well; the step and all behind it are done again, with
/// the inputs that they had or another input of the run.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tidemill rerun order-42 --from summary
  tidemill rerun order-42 --from summary --input @other.json --reason 'another prompt'")]
pub(crate) struct RerunArguments {
    /// Id of the run
    run: String,
    /// The step to begin with
    #[arg(long, value_name = "STEP")]
    from: String,
    /// An input in place of the run's own: JSON text, @FILE, or - for standard input
    #[arg(long, short)]
    input: Option<String>,
    #[command(flatten)]
    new: NewRun,
}

#[derive(Debug, clap::Args)]
struct NewRun {
    /// Id of the new run [default: that of the run with .r1, .r2, …]
    #[arg(long)]
    id: Option<String>,
    #[command(flatten)]
    why: Why,
}

pub(crate) async fn retry(context: &Context, arguments: RetryArguments) -> Outcome {
    redo(context, &arguments.run, (None, None), &arguments.new).await
}

pub(crate) async fn rerun(context: &Context, arguments: RerunArguments) -> Outcome {
    let input = arguments.input.as_deref().map(read_json).transpose()?;
    redo(context, &arguments.run, (Some(&arguments.from), input.as_deref()), &arguments.new).await
}

async fn redo(
    context: &Context,
    run: &str,
    (from, input): (Option<&str>, Option<&str>),
    new: &NewRun,
) -> Outcome {
    let who = new.why.who();
    let redo = Redo { from, input, id: new.id.as_deref(), by: By { who: &who, why: new.why.reason() } };
    let intake = context.intake();
    let redone = operate::redo(&context.store, intake.workflows(), run, redo).await?;
    let line = match redone.state {
        "queued" => format!("{} does {run} again", redone.id),
        _ => format!("a run {} was asked for before; nothing was added", redone.id),
    };
    context.output.told(&redone, line);
    Ok(())
}
