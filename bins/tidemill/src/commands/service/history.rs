//! `tidemill service history`.

use tidemill_producer::services;

use crate::context::Context;
use crate::error::Outcome;
use crate::moment::moment;
use crate::table::{Cell, Table, shortened};

/// Tell what happened to services: who changed what and why, and each move of a breaker; the newest first
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tidemill service history openai
  tidemill service history --limit 1000 --json | jq 'select(.kind == \"breaker\")'")]
pub(crate) struct Arguments {
    /// Of this service and its tiers alone
    name: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..))]
    limit: u16,
}

pub(super) async fn run(context: &Context, arguments: Arguments) -> Outcome {
    let Arguments { name, limit } = arguments;
    let (changes, _) = services::history(&context.store, name.as_deref(), None, usize::from(limit)).await?;
    let mut table = Table::new(&["WHEN", "SERVICE", "WHAT", "FROM", "TO", "BY", "WHY"]);
    for change in changes {
        if context.output.is_json() {
            context.output.document(&change);
            continue;
        }
        // definitions are long; `--json` has them whole
        let is_definition = matches!(change.kind.as_str(), "set" | "remove");
        let state = |text: &str| if is_definition { Cell::default() } else { Cell::state(text) };
        table.row(vec![
            Cell::new(moment(change.at_ms)),
            Cell::new(&change.service),
            Cell::new(&change.kind),
            state(&change.from),
            state(&change.to),
            Cell::new(shortened(&change.by, 60)),
            Cell::new(shortened(&change.why, 60)),
        ]);
    }
    context.output.listing(&table, "nothing has happened to it yet");
    Ok(())
}
