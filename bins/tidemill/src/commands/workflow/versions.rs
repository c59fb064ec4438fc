//! `tidemill workflow list`, `versions` and `history`.

use serde_json::json;
use tidemill_workflow::Definition;

use crate::context::Context;
use crate::error::Outcome;
use crate::moment::moment;
use crate::table::{Cell, Table, shortened};

/// List the versions of a workflow: where each stands in its life, and how many of its runs are under way
///
/// Looks at every live run of the pool.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tidemill workflow versions order")]
pub(crate) struct Arguments {
    /// The workflow's name
    workflow: String,
}

/// Tell what happened to versions: who published, activated, deprecated and archived which, and why; the newest first
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tidemill workflow history order
  tidemill workflow history --limit 1000 --json | jq 'select(.to == \"archived\")'")]
pub(crate) struct HistoryArguments {
    /// Of this workflow alone
    workflow: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..))]
    limit: u16,
}

pub(super) async fn list(context: &Context) -> Outcome {
    let home = context.store.home();
    let mut table = Table::new(&["WORKFLOW", ">ACTIVE", ">VERSIONS", ">STEPS", "DESCRIPTION"]);
    for (name, active) in home.workflows().await? {
        let versions: Vec<u32> = home.versions(&name).await?.iter().map(|record| record.version).collect();
        // one that cannot be read is listed all the same
        let published = home.definition(&name, None).await.ok().flatten();
        let definition = published.and_then(|published| Definition::parse(&published.source, &name).ok());
        let count = definition.as_ref().map(|definition| definition.steps.len());
        let description = definition.and_then(|definition| definition.description);
        if context.output.is_json() {
            context.output.document(&json!({
                "name": name, "version": active, "versions": versions, "steps": count, "description": description,
            }));
            continue;
        }
        table.row(vec![
            Cell::new(&name),
            Cell::new(active.map_or_else(|| "none".to_owned(), |version| version.to_string())),
            versions.len().into(),
            Cell::new(count.map_or_else(|| "not readable".to_owned(), |count| count.to_string())),
            Cell::new(description.unwrap_or_default()),
        ]);
    }
    context.output.listing(&table, "no workflow is published; `tidemill workflow publish FILE` does that");
    Ok(())
}

pub(super) async fn run(context: &Context, arguments: &Arguments) -> Outcome {
    let mut table = Table::new(&[">VERSION", "STATE", ">LIVE RUNS", "PUBLISHED", "SHA-256", "TEXT"]);
    for line in context.intake().workflows().versions(&arguments.workflow).await? {
        if context.output.is_json() {
            context.output.document(&line);
            continue;
        }
        table.row(vec![
            line.version.into(),
            Cell::state(line.state.as_str()),
            line.live_runs.into(),
            Cell::new(moment(line.published_at_ms)),
            Cell::new(line.sha256.chars().take(12).collect::<String>()),
            Cell::new(line.damage.map_or_else(|| "whole".to_owned(), |damage| format!("damaged: {damage}"))),
        ]);
    }
    context.output.listing(&table, "it has no versions");
    Ok(())
}

pub(super) async fn history(context: &Context, arguments: &HistoryArguments) -> Outcome {
    let HistoryArguments { workflow, limit } = arguments;
    let changes = context.intake().workflows().changes(workflow.as_deref(), usize::from(*limit)).await?;
    let mut table = Table::new(&["WHEN", "VERSION", "FROM", "TO", "BY", "WHY"]);
    for change in changes {
        if context.output.is_json() {
            context.output.document(&change);
            continue;
        }
        table.row(vec![
            Cell::new(moment(change.at_ms)),
            Cell::new(format!("{}@{}", change.workflow, change.version)),
            Cell::state(&change.from),
            Cell::state(&change.to),
            Cell::new(shortened(&change.by, 60)),
            Cell::new(shortened(&change.why, 60)),
        ]);
    }
    context.output.listing(&table, "nothing has happened to it yet");
    Ok(())
}
