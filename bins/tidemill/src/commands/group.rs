//! `tidemill group`.

use tidemill_producer::groups::{self, GroupLine, GroupRunView};

use crate::context::Context;
use crate::error::Outcome;
use crate::moment::relative;
use crate::table::{Cell, Style, Table};

/// Look at groups: of the runs that share a key, only so many at once
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List the groups that have runs, those in which most wait first
    #[command(after_help = "Examples:
  tidemill group list
  tidemill group list --workflow sync --json | jq 'select(.waiting > 0)'")]
    List {
        /// Only those of this workflow
        #[arg(long, short)]
        workflow: Option<String>,
    },
    /// Show which runs of a group have a place, and which wait for one
    #[command(after_help = "Examples:
  tidemill group show sync:acme")]
    Show {
        /// Its name: WORKFLOW:KEY
        name: String,
    },
}

pub(crate) async fn run(context: &Context, command: Command) -> Outcome {
    match command {
        Command::List { workflow } => list(context, workflow.as_deref()).await,
        Command::Show { name } => show(context, &name).await,
    }
}

async fn list(context: &Context, workflow: Option<&str>) -> Outcome {
    let groups = groups::list(&context.store, workflow).await?;
    let mut table = Table::new(&["GROUP", ">LIMIT", ">RUNNING", ">WAITING"]);
    for group in &groups {
        if context.output.is_json() {
            context.output.document(group);
            continue;
        }
        table.row(row_of(group));
    }
    if !context.output.is_json() {
        context.output.table(&table);
    }
    Ok(())
}

fn row_of(group: &GroupLine) -> Vec<Cell> {
    let waiting = Cell::new(group.waiting.to_string());
    let waiting = if group.waiting > 0 { waiting.style(Style::Waiting) } else { waiting };
    vec![Cell::new(&group.name), group.limit.into(), group.holders.into(), waiting]
}

async fn show(context: &Context, name: &str) -> Outcome {
    let group = groups::show(&context.store, name).await?;
    if context.output.is_json() {
        context.output.document(&group);
        return Ok(());
    }
    let now_ms = context.store.home().now_ms().await?;
    let mut table = Table::new(&["RUN", "STANDS", "ASKED FOR"]);
    let mut add = |run: &GroupRunView, stands: Cell| {
        table.row(vec![Cell::new(&run.id), stands, Cell::new(relative(run.asked_at_ms, now_ms))]);
    };
    for run in &group.holding {
        add(run, Cell::new("has a place").style(Style::Busy));
    }
    for (place, run) in group.queue.iter().enumerate() {
        add(run, Cell::new(format!("waits, number {}", place + 1)).style(Style::Waiting));
    }
    let line = &group.line;
    context.output.line(format!(
        "{}: {} of {} places taken, {} waiting",
        line.name, line.holders, line.limit, line.waiting
    ));
    context.output.table(&table);
    Ok(())
}
