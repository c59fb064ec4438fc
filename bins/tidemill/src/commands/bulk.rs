//! `tidemill bulk`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use tidemill_producer::operate::{self, Act, Bulk, BulkDone, BulkRefusal, By};
use tidemill_producer::{Code, Refusal};
use tidemill_protocol::RunState;
use tidemill_store::{RunCursor, RunQuery};

use super::runs::{Filters, cursor_of};
use super::service::Why;
use crate::context::Context;
use crate::error::{Error, Outcome};
use crate::output::Output;
use crate::table::{Cell, Table};

/// Do the same to all runs that a search finds: cancel, retry, pause or resume them
///
/// Each run is done by itself, as if it had been named: one that refuses does not hold up the others, and its refusal is told. Without
/// --state it is done to those that have not ended, and `retry` to those that ended badly. What was done stays done: an interrupted
/// bulk tells a cursor, and goes on there with --cursor.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tidemill bulk cancel --workflow sync --since 2h --dry-run
  tidemill bulk cancel --workflow sync --since 2h --reason 'wrong input file'
  tidemill bulk retry --workflow refund@3 --state failed --since 24h --per-second 5
  tidemill bulk pause --tenant acme --reason 'they asked for it'")]
pub(crate) struct Arguments {
    /// What is done to each
    #[arg(value_enum)]
    action: Action,
    #[command(flatten)]
    filters: Filters,
    /// Do nothing; list the runs to which it would be done
    #[arg(long)]
    dry_run: bool,
    /// To so many runs at most
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    limit: u32,
    /// So many runs a second at most
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    per_second: u32,
    /// Go on where an earlier bulk ended
    #[arg(long)]
    cursor: Option<String>,
    /// With cancel: do not undo what the runs did, where their workflow says how
    #[arg(long)]
    no_compensation: bool,
    #[command(flatten)]
    why: Why,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Action {
    /// End them
    Cancel,
    /// Do them again from what failed, as new runs
    Retry,
    /// Put aside what would begin in them
    Pause,
    /// Let them go on
    Resume,
}

/// What was done, of all pages.
#[derive(Debug, Default, Serialize)]
struct Summary {
    action: &'static str,
    dry_run: bool,
    found: u64,
    done: u64,
    refused: u64,
    refusals: Vec<BulkRefusal>,
    /// Of a dry run, the runs.
    runs: Vec<String>,
    /// Where to go on; absent when all were looked at.
    next: Option<String>,
}

/// Runs that are done together; a bulk that is interrupted is gone on with at a page's end.
const PAGE: u32 = 100;

impl Action {
    const fn act(self) -> (Act, &'static str) {
        match self {
            Self::Cancel => (Act::Cancel, "cancel"),
            Self::Retry => (Act::Retry, "retry"),
            Self::Pause => (Act::Pause, "pause"),
            Self::Resume => (Act::Resume, "resume"),
        }
    }

    /// The states of the runs to which it can be done.
    fn suits(self, state: RunState) -> bool {
        match self {
            Self::Cancel | Self::Pause | Self::Resume => !state.is_terminal(),
            Self::Retry => state.is_terminal() && state != RunState::Succeeded,
        }
    }
}

impl Summary {
    fn add(&mut self, page: BulkDone) {
        let BulkDone { found, done, refused, refusals, runs, next } = page;
        self.found += found;
        self.done += done;
        self.refused += refused;
        self.refusals.extend(refusals);
        self.runs.extend(runs);
        self.next = next;
    }
}

pub(crate) async fn run(context: &Context, arguments: Arguments) -> Outcome {
    let Arguments { action, filters, dry_run, limit, per_second, cursor, no_compensation, why } = arguments;
    let now_ms = context.store.home().now_ms().await?;
    let query = narrowed(action, filters.query(now_ms)?)?;
    let mut cursor = cursor.as_deref().map(cursor_of).transpose()?;
    let who = why.who();
    let (act, word) = action.act();
    let mut summary = Summary { action: word, dry_run, ..Summary::default() };
    let mut left = limit;
    let page = PAGE.min(per_second);
    while left > 0 {
        let due = tokio::time::Instant::now() + pause_after(left.min(page), per_second);
        let bulk = Bulk {
            act,
            query: &query,
            cursor: cursor.clone(),
            limit: left.min(page) as usize,
            dry_run,
            spares: no_compensation,
            by: By { who: &who, why: why.reason() },
        };
        let done = done_or_where(context, bulk, &summary).await?;
        left = left.saturating_sub(u32::try_from(done.found).unwrap_or(u32::MAX));
        summary.add(done);
        cursor = summary.next.as_deref().and_then(RunCursor::parse);
        if cursor.is_none() {
            break;
        }
        if !dry_run {
            tokio::time::sleep_until(due).await;
        }
    }
    tell(context, &summary);
    Ok(())
}

fn pause_after(runs: u32, per_second: u32) -> Duration {
    Duration::from_secs(1) * runs / per_second.max(1)
}

/// The search, with the states that the action suits unless it names some. One that names nothing else would be done to all runs.
fn narrowed(action: Action, mut query: RunQuery) -> Outcome<RunQuery> {
    let states = std::mem::take(&mut query.states);
    if states.is_empty() && query == RunQuery::default() {
        let detail = "this would be done to every run there is: give --workflow, --state, --label, --tenant, --parent, --since or --until";
        return Err(Error::usage(detail.to_owned()));
    }
    query.states = match states.is_empty() {
        true => RunState::ALL.into_iter().filter(|state| action.suits(*state)).collect(),
        false => states,
    };
    Ok(query)
}

/// A page; where it fails, what was done before is told, and where to go on.
async fn done_or_where(context: &Context, bulk: Bulk<'_>, before: &Summary) -> Result<BulkDone, Refusal> {
    let done = operate::bulk(&context.store, context.intake().workflows(), bulk).await;
    if let Err(Refusal { code: Code::RedisUnavailable | Code::RedisMemory, .. }) = &done {
        let at = before.next.as_ref().map_or_else(String::new, |next| format!(" with --cursor {next}"));
        Output::note(&format!("{} were done before this failed; go on{at}", before.done));
    }
    done
}

fn tell(context: &Context, summary: &Summary) {
    let Summary { action, dry_run, found, done, refused, refusals, runs, next } = summary;
    if context.output.is_json() {
        context.output.document(summary);
        return;
    }
    if *dry_run {
        for run in runs {
            context.output.line(run);
        }
        Output::note(&format!("{action} would be tried for {found}; nothing was done"));
    } else {
        context.output.line(format!("{action}: {found} found, {done} done, {refused} refused"));
        // one of each kind is enough to read; --json has more
        let mut kinds: BTreeMap<&str, &BulkRefusal> = BTreeMap::new();
        for refusal in refusals {
            kinds.entry(refusal.code).or_insert(refusal);
        }
        let mut table = Table::new(&["REFUSED", "RUN", "WHY"]);
        for (code, one) in &kinds {
            table.row(vec![Cell::new(*code), Cell::new(&one.id), Cell::new(&one.detail)]);
        }
        if !kinds.is_empty() {
            context.output.table(&table);
        }
    }
    if let Some(next) = next {
        Output::note(&format!("there may be more: --cursor {next}"));
    }
}

#[cfg(test)]
mod tests {
    use super::{Action, narrowed, pause_after};
    use std::time::Duration;
    use tidemill_protocol::RunState;
    use tidemill_store::RunQuery;

    #[test]
    fn a_search_that_names_nothing_is_refused_and_states_follow_from_the_action() {
        assert!(narrowed(Action::Cancel, RunQuery::default()).is_err());
        let tenant = RunQuery { tenant: Some("acme".to_owned()), ..RunQuery::default() };
        let live = narrowed(Action::Pause, tenant.clone()).unwrap().states;
        assert!(live.contains(&RunState::Waiting) && live.iter().all(|state| !state.is_terminal()));
        let bad = narrowed(Action::Retry, tenant.clone()).unwrap().states;
        assert!(bad.contains(&RunState::TimedOut) && !bad.contains(&RunState::Succeeded));
        let named = RunQuery { states: vec![RunState::Failed], ..tenant };
        assert_eq!(narrowed(Action::Retry, named.clone()).unwrap(), named);
        let state_alone = RunQuery { states: vec![RunState::Failed], ..RunQuery::default() };
        assert_eq!(narrowed(Action::Retry, state_alone.clone()).unwrap(), state_alone);
    }

    #[test]
    fn pages_take_as_long_as_their_runs_may() {
        assert_eq!(pause_after(100, 50), Duration::from_secs(2));
        assert_eq!(pause_after(5, 5), Duration::from_secs(1));
    }
}
