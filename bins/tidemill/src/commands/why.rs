//! `tidemill why`.

use tidemill_producer::why;

use crate::context::Context;
use crate::error::Outcome;
use crate::locate::{Found, locate};
use crate::moment::{moment, relative};
use crate::table::printable;

/// Tell why a job or run is where it is: what it waits for, and until when
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tidemill why order-42
  tidemill why 1732000000123-0 --json")]
pub(crate) struct Arguments {
    /// Id of a job or run
    id: String,
}

pub(crate) async fn run(context: &Context, arguments: Arguments) -> Outcome {
    let id = arguments.id;
    let (partition, found) = locate(context, &id).await?;
    let why = match found {
        Found::Run | Found::Requested => {
            let intake = context.intake();
            why::run(&context.store.narrowed_to(partition), intake.workflows(), &id).await?
        }
        Found::Job(_) => why::job(&context.store.narrowed_to(partition), None, &id).await?,
    };
    let mut line = format!("{id} is {}: {}", why.state, printable(&why.why));
    if let Some(until) = why.until_ms {
        let now_ms = partition.now_ms().await?;
        line.push_str(&format!("; it goes on {} ({})", relative(until, now_ms), moment(until)));
    }
    context.output.told(&why, line);
    Ok(())
}
