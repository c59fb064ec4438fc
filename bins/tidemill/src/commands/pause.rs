//! `tidemill pause`, `tidemill resume` and `tidemill paused`.

use tidemill_producer::operate::{self, By, PausedView, What};
use tidemill_store::PauseNote;

use super::service::Why;
use crate::context::Context;
use crate::error::Outcome;
use crate::moment::moment;
use crate::table::{Cell, Table, shortened};

/// Hold a run, a workflow or a queue: what runs goes on to its end, nothing begins until `resume`
///
/// Workers learn of it within about a second. Timers go on, and the steps that they wake are held.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tidemill pause run order-42 --reason 'customer is on the phone'
  tidemill pause workflow refund --reason 'wrong rates'
  tidemill pause queue mail --reason 'mail server moves'")]
pub(crate) struct Arguments {
    #[command(flatten)]
    target: Target,
}

/// Let a run, a workflow or a queue go on that was paused
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tidemill resume workflow refund --reason 'rates are right again'")]
pub(crate) struct ResumeArguments {
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Kind {
    /// A run, with the runs that are parts of it
    Run,
    /// A workflow: its runs, and those that would start
    Workflow,
    /// A queue: workers claim nothing of it
    Queue,
}

#[derive(Debug, clap::Args)]
struct Target {
    /// What it is
    kind: Kind,
    /// Id of the run, or name of the workflow or queue
    name: String,
    #[command(flatten)]
    why: Why,
}

/// List the workflows and queues that are paused: since when, by whom and why
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tidemill paused")]
pub(crate) struct ListArguments {}

pub(crate) async fn pause(context: &Context, arguments: Arguments) -> Outcome {
    act(context, &arguments.target, true).await
}

pub(crate) async fn resume(context: &Context, arguments: ResumeArguments) -> Outcome {
    act(context, &arguments.target, false).await
}

async fn act(context: &Context, target: &Target, pauses: bool) -> Outcome {
    let Target { kind, name, why } = target;
    let what = match kind {
        Kind::Run => What::Run(name),
        Kind::Workflow => What::Workflow(name),
        Kind::Queue => What::Queue(name),
    };
    let who = why.who();
    let by = By { who: &who, why: why.reason() };
    let intake = context.intake();
    let view = operate::pause(&context.store, intake.workflows(), (what, pauses), by).await?;
    let subject = match what {
        What::Run(id) => format!("run {id}"),
        What::Workflow(_) | What::Queue(_) => view.subject.clone(),
    };
    let line = match (pauses, view.changed) {
        (true, true) => format!("{subject} is paused; what runs goes on to its end"),
        (true, false) => format!("{subject} was paused already"),
        (false, true) => format!("{subject} goes on; {} that waited are due now", view.woken),
        (false, false) => format!("{subject} was not paused"),
    };
    context.output.told(&view, line);
    Ok(())
}

pub(crate) async fn list(context: &Context) -> Outcome {
    let paused = operate::paused(&context.store).await?;
    if context.output.is_json() {
        context.output.document(&paused);
        return Ok(());
    }
    let PausedView { workflows, queues } = paused;
    let mut table = Table::new(&["PAUSED", "NAME", "SINCE", "BY", "WHY"]);
    let mut row = |kind: &str, name: &str, note: &PauseNote| {
        table.row(vec![
            Cell::new(kind),
            Cell::new(name),
            Cell::new(moment(note.at_ms)),
            Cell::new(shortened(&note.by, 40)),
            Cell::new(shortened(&note.why, 60)),
        ]);
    };
    workflows.iter().for_each(|(name, note)| row("workflow", name, note));
    queues.iter().for_each(|(name, note)| row("queue", name, note));
    context.output.listing(&table, "no workflow and no queue is paused");
    Ok(())
}
