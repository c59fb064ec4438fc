//! `tidemill runs`.

use jiff::Timestamp;
use tidemill_producer::search;
use tidemill_protocol::RunState;
use tidemill_store::{RunCursor, RunQuery, RunRow};

use crate::context::Context;
use crate::error::{Error, Outcome};
use crate::moment::{duration, moment};
use crate::output::Output;
use crate::table::{Cell, Table};

/// Find runs by workflow, state, label, tenant, parent and time: the one that started last first
///
/// Runs that are asked for and not started are not among them: `tidemill queues` counts them, `tidemill group` shows those that wait
/// for their turn.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tidemill runs --state failed,timed_out --since 24h
  tidemill runs --workflow refund@3 --label team=billing --label env=prod --limit 200
  tidemill runs --parent order-42
  tidemill runs --state live --json | jq -r .id")]
pub(crate) struct Arguments {
    #[command(flatten)]
    filters: Filters,
    /// Most runs
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
    /// Go on where an earlier listing ended
    #[arg(long)]
    cursor: Option<String>,
}

/// Which runs.
#[derive(Debug, clap::Args)]
pub(super) struct Filters {
    /// Only of this workflow: NAME or NAME@VERSION
    #[arg(long, short)]
    workflow: Option<String>,
    /// Only in these states: running, failed, …; `live` for all that have not ended, `ended` for the others
    #[arg(long, short, value_name = "STATE", value_delimiter = ',')]
    state: Vec<String>,
    /// Only with this label; with several, those that have all of them
    #[arg(long, short, value_name = "NAME=VALUE")]
    label: Vec<String>,
    /// Only of this tenant
    #[arg(long)]
    tenant: Option<String>,
    /// Only those that this run has asked for
    #[arg(long, value_name = "RUN")]
    parent: Option<String>,
    /// Only those that started then or later: 90m, 24h, 7d ago, a time as 2026-11-21T16:00:00Z, or Unix milliseconds
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only those that started then or earlier
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Also blocks of workflows that run on their own: rounds of loops, branches of races
    #[arg(long)]
    blocks: bool,
}

/// Runs that are read for one page: between two pages Redis serves others.
const LOOKED_AT: usize = 2_000;

pub(crate) async fn run(context: &Context, arguments: Arguments) -> Outcome {
    let now_ms = context.store.home().now_ms().await?;
    let limit = arguments.limit as usize;
    let mut after = arguments.cursor.as_deref().map(cursor_of).transpose()?;
    let query = arguments.filters.query(now_ms)?;
    let (mut runs, mut more) = (Vec::new(), true);
    while more && runs.len() < limit {
        let page = context.store.search(&query, after.as_ref(), limit - runs.len(), LOOKED_AT).await?;
        runs.extend(page.runs);
        more = page.next.is_some();
        after = page.next.or(after);
    }
    show(context, &runs, now_ms);
    if let Some(cursor) = after.filter(|_| more) {
        Output::note(&format!("there may be more: --cursor {cursor}"));
    }
    Ok(())
}

pub(super) fn cursor_of(text: &str) -> Outcome<RunCursor> {
    let wrong = || Error::usage(format!("--cursor {text:?} is not one that a listing gave"));
    RunCursor::parse(text).ok_or_else(wrong)
}

impl Filters {
    /// As the store searches.
    pub(super) fn query(self, now_ms: u64) -> Outcome<RunQuery> {
        let usage = |flag: &str, why: String| Error::usage(format!("{flag}: {why}"));
        let states: Result<Vec<Vec<RunState>>, String> =
            self.state.iter().map(|word| search::states_of(word)).collect();
        let labels: Result<Vec<(String, String)>, String> =
            self.label.iter().map(|label| search::label_of(label)).collect();
        let time = |flag: &str, text: Option<String>| -> Outcome<Option<u64>> {
            text.map(|text| time_of(&text, now_ms).map_err(|why| usage(flag, why))).transpose()
        };
        Ok(RunQuery {
            workflow: self.workflow,
            states: states.map_err(|why| usage("--state", why))?.concat(),
            labels: labels.map_err(|why| usage("--label", why))?,
            tenant: self.tenant,
            parent: self.parent,
            since_ms: time("--since", self.since)?,
            until_ms: time("--until", self.until)?,
            blocks: self.blocks,
        })
    }
}

/// A time in Unix milliseconds: so long ago, an instant, or the number itself.
fn time_of(text: &str, now_ms: u64) -> Result<u64, String> {
    if let Ok(ms) = text.parse::<u64>() {
        return Ok(ms);
    }
    let unit = |letter: &str| match letter {
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(86_400_000_u64),
        _ => None,
    };
    let split = text.len() - text.chars().next_back().map_or(0, char::len_utf8);
    if let (Some(number), Some(letter)) = (text.get(..split), text.get(split..))
        && let (Ok(number), Some(unit)) = (number.parse::<u64>(), unit(letter))
    {
        return Ok(now_ms.saturating_sub(number.saturating_mul(unit)));
    }
    let at = text.parse::<Timestamp>().map_err(|_| {
        format!("{text:?} is no time: write 90m, 24h or 7d for so long ago, 2026-11-21T16:00:00Z, or Unix milliseconds")
    })?;
    u64::try_from(at.as_millisecond()).map_err(|_| format!("{text:?} is before 1970"))
}

fn show(context: &Context, runs: &[RunRow], now_ms: u64) {
    if context.output.is_json() {
        for run in runs {
            context.output.document(run);
        }
        return;
    }
    let mut table = Table::new(&["RUN", "STATE", "WORKFLOW", "STARTED", ">TOOK", "TENANT", "LABELS"]);
    for run in runs {
        let took = run.ended_ms.unwrap_or(now_ms).saturating_sub(run.started_ms);
        let labels: Vec<String> = run.labels.words().collect();
        table.row(vec![
            Cell::new(&run.id),
            Cell::state(run.state.as_str()),
            Cell::new(&run.workflow),
            Cell::new(moment(run.started_ms)),
            Cell::new(duration(took)),
            Cell::new(run.tenant.as_deref().unwrap_or_default()),
            Cell::new(labels.join(" ")),
        ]);
    }
    context.output.table(&table);
}

#[cfg(test)]
mod tests {
    use super::time_of;

    #[test]
    fn times_are_ages_instants_or_numbers() {
        let now = 1_732_000_000_000;
        assert_eq!(time_of("90m", now), Ok(now - 5_400_000));
        assert_eq!(time_of("7d", now), Ok(now - 604_800_000));
        assert_eq!(time_of("12345", now), Ok(12_345));
        assert_eq!(time_of("2024-11-19T07:06:40Z", now), Ok(1_732_000_000_000));
        for bad in ["", "m", "90x", "yesterday", "-3h", "9ä"] {
            assert!(time_of(bad, now).is_err(), "{bad:?}");
        }
    }
}
