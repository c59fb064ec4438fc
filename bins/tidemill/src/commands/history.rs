//! `tidemill history`.

mod funnel;
mod waterfall;

use tidemill_producer::views::{self, HistoryView, StepHistoryView};
use tidemill_protocol::{AuditRecord, Timeline, Track};
use tidemill_store::{AuditPage, Partition};

use super::service::milliseconds;
use crate::context::Context;
use crate::error::{Error, Outcome};
use crate::locate::{Found, locate};
use crate::moment::{duration, moment};
use crate::table::{Cell, Style, Table, printable};
use waterfall::Picture;

/// Show how a run went: its steps over time, how long each was in which state, and every transition
///
/// With --workflow: what became of the kept runs of a workflow, step by step.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tidemill history order-42
  tidemill history order-42 --items --json | jq '.steps[] | {id, durations_ms}'
  tidemill history --workflow enrich-order --since 1h

An attempt that is under way is drawn as running; its transition is written when it ends.")]
pub(crate) struct Arguments {
    /// Id of a run
    #[arg(required_unless_present = "workflow", conflicts_with_all = ["workflow", "since"])]
    run: Option<String>,
    /// The kept runs of this workflow, with or without @version
    #[arg(long, value_name = "NAME", conflicts_with_all = ["items", "most"])]
    workflow: Option<String>,
    /// Of these only the runs that began so long ago at most, such as 30m, 1h or 2d
    #[arg(long, value_name = "TIME", value_parser = milliseconds)]
    since: Option<u64>,
    /// Show the items of `for_each` steps, too
    #[arg(long)]
    items: bool,
    /// Steps and transitions shown at most; what is left out is counted
    #[arg(long, value_name = "N", default_value_t = 200)]
    most: usize,
}

/// Stream entries of the audit in one read.
const PAGE: usize = 500;

pub(crate) async fn run(context: &Context, arguments: Arguments) -> Outcome {
    if let Some(workflow) = &arguments.workflow {
        return funnel::run(context, workflow, arguments.since).await;
    }
    let id = arguments.run.clone().unwrap_or_default();
    let (partition, found) = locate(context, &id).await?;
    match found {
        Found::Run => {}
        Found::Requested => {
            let message = format!("run {id:?} has not started: it has no history yet");
            return Err(Error::failed("not_started", message));
        }
        Found::Job(_) => {
            let message = format!("{id:?} is a job; only runs have a history");
            return Err(Error::failed("no_audit", message));
        }
    }
    let store = context.store.narrowed_to(partition);
    let history = views::history(&store, context.intake().workflows(), &id, arguments.items).await?;
    if context.output.is_json() {
        context.output.document(&history);
        return Ok(());
    }
    show_steps(context, &history, arguments.most);
    show_transitions(context, partition, &history, arguments.most).await
}

fn show_steps(context: &Context, history: &HistoryView, most: usize) {
    let output = context.output;
    let state = output.styled(&history.state, Style::of_state(&history.state));
    let workflow = printable(history.workflow.as_deref().unwrap_or_default());
    output.line(format!("run {}  {workflow}  {state}", history.run));
    let (began, took) = (history.started_at_ms.unwrap_or(0), duration(history.took_ms));
    let so_far = if history.ended_at_ms.is_some() { "took" } else { "so far" };
    output.line(format!("began {}, {so_far} {took}", moment(began)));
    let shown = history.steps.get(..most).unwrap_or(&history.steps);
    if !shown.is_empty() {
        output.line("");
        let until = began.saturating_add(history.took_ms);
        let picture = Picture { began, until, columns: output.columns(), color: output.has_color() };
        output.text(&picture.draw(shown));
        output.line("");
        output.table(&durations(shown));
    }
    let hidden = history.steps.len() - shown.len();
    if hidden > 0 {
        output.line(format!("… and {hidden} more (--most)"));
    }
}

fn durations(steps: &[StepHistoryView]) -> Table {
    let mut table = Table::new(&["STEP", "STATE", ">TRY", ">WAITED", ">RAN", ">PARKED", ">RETRYING"]);
    for step in steps {
        let mut row = vec![Cell::new(&step.id), Cell::state(&step.state), step.attempts.into()];
        for (state, ms) in waterfall::times(step) {
            let was = step.spans.iter().any(|span| span.state == state);
            row.push(if was { Cell::new(duration(ms)) } else { Cell::default() });
        }
        table.row(row);
    }
    table
}

/// The first transitions, each with how long its subject was in the state that it left.
async fn show_transitions(
    context: &Context,
    partition: &Partition,
    history: &HistoryView,
    most: usize,
) -> Outcome {
    let mut table = Table::new(&["AT", "SUBJECT", "FROM → TO", ">TOOK", ">TRY", "WHO"]);
    let (mut timeline, mut page) = (Timeline::default(), AuditPage::default());
    while table.len() < most {
        let before = page.cursor.clone();
        page = partition.audit_page(&history.run, before.as_deref(), PAGE).await?;
        for record in std::mem::take(&mut page.records) {
            if table.len() < most {
                table.row(row(&timeline, &record));
            }
            timeline.add(record);
        }
        if page.cursor == before {
            break;
        }
    }
    context.output.line("");
    context.output.table(&table);
    let hidden = history.transitions.saturating_sub(table.len() as u64);
    if hidden > 0 {
        context.output.line(format!("… and {hidden} more; `tidemill audit` lists them all"));
    }
    Ok(())
}

fn row(timeline: &Timeline, record: &AuditRecord) -> Vec<Cell> {
    let before = timeline.track(&record.subject).map(Track::last_ms);
    let took = before.map(|before| duration(record.at_ms.saturating_sub(before)));
    vec![
        Cell::new(moment(record.at_ms)),
        Cell::new(&record.subject),
        Cell::new(format!("{} → {}", record.from, record.to)).style(Style::of_state(&record.to)),
        Cell::new(took.unwrap_or_default()),
        if record.attempt == 0 { Cell::default() } else { record.attempt.into() },
        Cell::new(record.who.as_deref().unwrap_or_default()),
    ]
}
