//! `tidemill status`.

use std::time::Duration;

use tidemill_producer::views::{self, JobView, RunView};
use tidemill_producer::{Intake, Refusal};
use tidemill_protocol::RunState;
use tidemill_store::{AuditPage, Partition, Store};

use super::audit;
use crate::context::Context;
use crate::error::Outcome;
use crate::locate::{Found, locate};
use crate::moment::{duration, moment, relative};
use crate::table::{Style, printable, shortened};
use crate::tree;

/// Show where a job or run is; of a run, its steps as a tree with states, attempts, times and workers
///
/// With --watch it goes on until the end: on a terminal the tree is drawn anew, elsewhere each transition is a line (with --json each
/// change is a document). The exit code tells only that it was shown; `result` tells whether it succeeded.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tidemill status order-42
  tidemill status order-42 --watch
  tidemill status order-42 --json | jq '.steps[] | select(.state == \"failed\")'")]
pub(crate) struct Arguments {
    /// Id of a job or run
    id: String,
    /// Go on until it has ended
    #[arg(long, short)]
    watch: bool,
    /// Of a run with more steps than this, those that succeeded or wait are counted only
    #[arg(long, value_name = "N", default_value_t = 200)]
    steps: usize,
}

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(250);
/// Stream entries of the audit in one read.
const PAGE: usize = 500;

pub(crate) async fn run(context: &Context, arguments: Arguments) -> Outcome {
    let (partition, found) = locate(context, &arguments.id).await?;
    let mut view = Look {
        context,
        partition,
        store: context.store.narrowed_to(partition),
        intake: context.intake(),
        arguments,
    };
    match (found, view.arguments.watch) {
        (Found::Job(_), false) => view.job().await.map(drop),
        (Found::Job(_), true) => view.watch_job().await,
        (_, false) => view.show_run().await,
        (_, true) if context.output.is_live() => view.watch_live().await,
        (_, true) => view.follow().await,
    }
}

struct Look<'c> {
    context: &'c Context,
    partition: &'c Partition,
    store: Store,
    intake: Intake,
    arguments: Arguments,
}

impl Look<'_> {
    async fn run(&self) -> Result<RunView, Refusal> {
        views::run(&self.store, self.intake.workflows(), &self.arguments.id).await
    }

    async fn show_run(&self) -> Outcome {
        let (run, now_ms) = (self.run().await?, self.partition.now_ms().await?);
        if self.context.output.is_json() {
            self.context.output.document(&run);
        } else {
            self.context.output.text(&self.picture(&run, now_ms));
        }
        Ok(())
    }

    /// Draws the tree anew until the run has ended.
    async fn watch_live(&self) -> Outcome {
        let mut lines = 0;
        loop {
            let (run, now_ms) = (self.run().await?, self.partition.now_ms().await?);
            let picture = self.picture(&run, now_ms);
            lines = self.context.output.redraw(&picture, lines);
            if has_ended(&run) {
                // once more, as it would be shown now: nothing of it cut
                self.context.output.text(&format!("\u{1b}[{lines}A\u{1b}[J{picture}"));
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Each transition as a line and the tree at the end; or each change as a document.
    async fn follow(&mut self) -> Outcome {
        let (mut page, mut shown) = (AuditPage::default(), None);
        loop {
            let run = self.run().await?;
            let before = page.cursor.clone();
            if self.context.output.is_json() {
                let document = serde_json::to_string(&run).unwrap_or_default();
                if shown.as_ref() != Some(&document) {
                    self.context.output.line(&document);
                    shown = Some(document);
                }
            } else {
                page = self.partition.audit_page(&self.arguments.id, before.as_deref(), PAGE).await?;
                audit::show(self.context, &page.records, before.is_none());
            }
            if has_ended(&run) && page.cursor == before {
                break;
            }
            if page.cursor == before {
                tokio::time::sleep(PAUSE).await;
            }
        }
        if self.context.output.is_json() { Ok(()) } else { self.show_run().await }
    }

    fn picture(&self, run: &RunView, now_ms: u64) -> String {
        let output = self.context.output;
        let workflow = run.workflow.as_deref().unwrap_or("(not started)");
        let state = output.styled(&run.state, Style::of_state(&run.state));
        let mut text = format!("run {}  {}  {state}\n", run.id, printable(workflow));
        let mut say = |name: &str, value: &str| text.push_str(&format!("{name:<9}{}\n", printable(value)));
        if let Some(due) = run.due_at_ms {
            say("due", &format!("{}, {}", moment(due), relative(due, now_ms)));
        }
        if let Some(from) = run.started_at_ms {
            let to = run.ended_at_ms.unwrap_or(now_ms);
            let so_far = if run.ended_at_ms.is_some() { "took" } else { "so far" };
            say("started", &format!("{}, {so_far} {}", moment(from), duration(to.saturating_sub(from))));
        }
        if let Some(error) = &run.error {
            say("error", &tree::error_text(error.get()));
        }
        if let Some(output) = &run.output {
            say("output", &shortened(output.get(), 200));
        }
        if run.steps.is_empty() {
            return text;
        }
        say("steps", &counted(run));
        let (table, hidden) = tree::steps(run, now_ms, self.arguments.steps);
        text.push('\n');
        text.push_str(&table.render(output.has_color()));
        if hidden > 0 {
            text.push_str(&format!("… and {hidden} more; --steps {} shows all\n", run.steps.len()));
        }
        text
    }

    /// Shows a job; tells its state.
    async fn job(&self) -> Outcome<String> {
        let job = views::job(&self.store, None, &self.arguments.id).await?;
        if self.context.output.is_json() {
            self.context.output.document(&job);
        } else {
            let now_ms = self.partition.now_ms().await?;
            self.context.output.text(&self.job_lines(&job, now_ms));
        }
        Ok(job.state)
    }

    async fn watch_job(&self) -> Outcome {
        let mut shown = String::new();
        loop {
            let job = views::job(&self.store, None, &self.arguments.id).await?;
            if job.state != shown {
                shown = self.job().await?;
            }
            if !matches!(shown.as_str(), "queued" | "running" | "deferred") {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn job_lines(&self, job: &JobView, now_ms: u64) -> String {
        let state = self.context.output.styled(&job.state, Style::of_state(&job.state));
        let mut text = format!("job {}  {state}\n", job.id);
        let mut say = |name: &str, value: &str| text.push_str(&format!("{name:<9}{}\n", printable(value)));
        if let Some(queue) = &job.queue {
            say("queue", queue);
        }
        if let Some(worker) = &job.worker {
            say("worker", &format!("{worker}, for {}", duration(job.held_ms.unwrap_or(0))));
        }
        if let Some(due) = job.due_at_ms {
            say("due", &format!("{}, {}", moment(due), relative(due, now_ms)));
        }
        if let Some(line) = &job.line {
            let since = line.since_ms.map(|at| format!(", since {}", moment(at))).unwrap_or_default();
            say("line", &format!("{}, place {} of {}{since}", line.tier, line.place, line.length));
        }
        if let Some(why) = &job.why {
            say("why", why);
        }
        if let Some(letter) = &job.dead_letter {
            say("error", &format!("{}: {}", letter.code, letter.reason));
            say("letter", &format!("{} (`tidemill dead show {}`)", letter.letter, letter.letter));
        }
        if let Some(result) = &job.result {
            say("result", &shortened(result.get(), 200));
        }
        if job.state == "accepted" {
            say("note", "it was taken in, and has ended without a result or waits far back in its queue");
        }
        text
    }
}

fn has_ended(run: &RunView) -> bool {
    RunState::parse(&run.state).is_some_and(RunState::is_terminal)
}

/// `3 succeeded, 1 running`, in the order of a life.
fn counted(run: &RunView) -> String {
    let words = tidemill_protocol::StepState::ALL.iter().map(|state| state.as_str());
    let counts = words.map(|word| (run.steps.iter().filter(|step| step.state == word).count(), word));
    let counts: Vec<String> =
        counts.filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}")).collect();
    counts.join(", ")
}
