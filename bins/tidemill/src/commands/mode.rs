//! `tidemill mode`.

use serde_json::json;
use tidemill_producer::modes::{self, ModeMetrics, ModeView, SwitchedMode, Switching};

use super::service::Who;
use crate::context::Context;
use crate::error::Outcome;
use crate::moment::{duration, moment, relative};
use crate::table::{Cell, Table, shortened};

/// How runs are carried out: one step at a time, or side by side
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Tell the mode, who switched it last, when and why
    #[command(after_help = "Example:\n  tidemill mode get")]
    Get,
    Switch(SwitchArguments),
    Rollback(RollbackArguments),
    History(HistoryArguments),
    /// Tell how many runs there were of each mode, and how long they took
    #[command(after_help = "Example:\n  tidemill mode metrics --json | jq .performanceByMode.hybrid")]
    Metrics,
}

/// Switch the mode of the runs that start from now on; those under way keep theirs
#[derive(Debug, clap::Args)]
#[command(after_help = "Modes:
  classic        one step at a time, a call to Redis for each end: the reference
  state_machine  one step at a time, each transition checked before anything is run for it
  optimized      one step at a time; batches, coalescing of identical calls, cache
  hybrid         as optimized, and all that the graph allows side by side (the default)

Examples:
  tidemill mode switch optimized --reason 'the vendor asks for one call at a time'
  tidemill mode switch classic --reason 'compare with the reference' --by ada")]
pub(crate) struct SwitchArguments {
    /// classic, state_machine, optimized or hybrid
    mode: String,
    #[command(flatten)]
    why: Why,
}

/// Switch back to the mode before the last switch
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tidemill mode rollback --reason 'it made things slower'")]
pub(crate) struct RollbackArguments {
    #[command(flatten)]
    why: Why,
}

#[derive(Debug, clap::Args)]
struct Why {
    /// Why, for the history
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Who, for the history; your account is added
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// Only if it was switched so often by now (`mode get --json` tells), so that you do not undo what you have not seen
    #[arg(long, value_name = "N")]
    version: Option<u64>,
}

/// Tell what happened to the mode: from which to which, when, why and by whom; the newest first
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tidemill mode history --limit 5")]
pub(crate) struct HistoryArguments {
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..))]
    limit: u16,
}

pub(crate) async fn run(context: &Context, command: Command) -> Outcome {
    match command {
        Command::Get => get(context).await,
        Command::Switch(arguments) => {
            let to = modes::mode_of(&arguments.mode)?;
            let who = arguments.why.who();
            let switched = modes::switch(&context.store, arguments.why.switching(&who), to).await?;
            told(context, &switched);
            Ok(())
        }
        Command::Rollback(arguments) => {
            let who = arguments.why.who();
            let switched = modes::roll_back(&context.store, arguments.why.switching(&who)).await?;
            told(context, &switched);
            Ok(())
        }
        Command::History(arguments) => history(context, usize::from(arguments.limit)).await,
        Command::Metrics => metrics(context).await,
    }
}

impl Why {
    fn who(&self) -> String {
        let here = Who::here();
        let named = self.by.as_deref().map(str::trim).filter(|by| !by.is_empty());
        named.map_or_else(|| here.as_str().to_owned(), |by| format!("{by} ({})", here.as_str()))
    }

    fn switching<'a>(&'a self, who: &'a str) -> Switching<'a> {
        Switching { who, reason: &self.reason, version: self.version }
    }
}

fn told(context: &Context, switched: &SwitchedMode) {
    let SwitchedMode { from, to, changed, .. } = switched;
    let line = if *changed {
        format!("runs start {to} from now on; it was {from}, and runs under way keep theirs")
    } else {
        format!("the mode is {to} already")
    };
    context.output.told(switched, line);
}

async fn get(context: &Context) -> Outcome {
    let now = modes::current(&context.store).await?;
    let ModeView { mode, since_ms, reason, by, .. } = &now;
    let line = match since_ms {
        None => format!("{mode} (nobody has switched it)"),
        Some(since) => {
            let now_ms = context.store.home().now_ms().await?;
            let (by, why) = (by.as_deref().unwrap_or("-"), reason.as_deref().unwrap_or("-"));
            format!("{mode}, since {} ({}) by {by}: {why}", moment(*since), relative(*since, now_ms))
        }
    };
    context.output.told(&now, line);
    Ok(())
}

async fn history(context: &Context, limit: usize) -> Outcome {
    let mut table = Table::new(&["WHEN", ">NO", "WHAT", "FROM", "TO", "BY", "WHY"]);
    for change in modes::history(&context.store, limit).await? {
        if context.output.is_json() {
            context.output.document(&change);
            continue;
        }
        table.row(vec![
            Cell::new(moment(change.timestamp)),
            change.version.into(),
            Cell::new(&change.kind),
            Cell::new(change.from),
            Cell::new(change.to),
            Cell::new(shortened(&change.by, 60)),
            Cell::new(shortened(&change.reason, 60)),
        ]);
    }
    context.output.listing(&table, "nobody has switched the mode; it is hybrid");
    Ok(())
}

async fn metrics(context: &Context) -> Outcome {
    let metrics = modes::metrics(&context.store).await?;
    if context.output.is_json() {
        context.output.document(&json!(metrics));
        return Ok(());
    }
    let ModeMetrics { current_mode, mode_changes, executions_by_mode, performance_by_mode, .. } = metrics;
    let mut table = Table::new(&["MODE", ">STARTED", ">ENDED", ">AVERAGE", ">P50", ">P99", "NOW"]);
    for (mode, performance) in performance_by_mode {
        let time = |ms: u64| if performance.count == 0 { Cell::new("-") } else { Cell::new(duration(ms)) };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a mean of milliseconds, for people"
        )]
        let average = performance.average.round() as u64;
        table.row(vec![
            Cell::new(mode),
            executions_by_mode.get(mode).copied().unwrap_or(0).into(),
            performance.count.into(),
            time(average),
            time(performance.p50),
            time(performance.p99),
            Cell::new(if mode == current_mode { "current" } else { "" }),
        ]);
    }
    context.output.table(&table);
    context
        .output
        .line(format!("\nswitched {mode_changes} times; `tidemill mode history` tells when and why"));
    Ok(())
}
