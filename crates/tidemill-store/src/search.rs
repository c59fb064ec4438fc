//! Searching for runs: newest first over all partitions, page by page, each page with a bound on what is read for it.
//!
//! Runs are gone through by one sorted set of each partition, the one that is likely to hold the fewest besides those that are
//! looked for: the children of a run, a label, the runs that live, or all by their start. What the set does not tell is
//! read from the runs themselves. Order and cursor are (start, id), which never change, so a page after a cursor holds nothing
//! twice, whatever starts or ends meanwhile.

mod rows;
mod stream;

use std::fmt;

use redis::{Cmd, Pipeline};
use tidemill_protocol::{RunState, check_any_id};

pub use rows::RunRow;
use stream::{Found, Streams};

use crate::{Error, Partition, Store};

/// Candidates that are read together.
const BATCH: usize = 100;
/// As many living runs are sorted here, in place of going through all that are kept.
const MOST_LIVE: usize = 5_000;

/// Which runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunQuery {
    /// Of this workflow: `name` or `name@version`.
    pub workflow: Option<String>,
    /// In one of these states; empty for any.
    pub states: Vec<RunState>,
    /// With all of these labels.
    pub labels: Vec<(String, String)>,
    /// Of this tenant.
    pub tenant: Option<String>,
    /// Asked for by this run.
    pub parent: Option<String>,
    /// Started at this Unix millisecond or later.
    pub since_ms: Option<u64>,
    /// Started at this Unix millisecond or earlier.
    pub until_ms: Option<u64>,
    /// Also blocks of workflows that run on their own: rounds of a loop, branches of a race, … They are always among the children of
    /// a run.
    pub blocks: bool,
}

/// Where a page ended.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RunCursor {
    pub(crate) started_ms: u64,
    pub(crate) id: String,
}

/// Runs found, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunPage {
    /// The runs.
    pub runs: Vec<RunRow>,
    /// Where to go on; absent when there are no more. A page may be short, or empty, and not the last.
    pub next: Option<RunCursor>,
}

impl RunCursor {
    /// Reads what a cursor was shown as.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (ms, id) = text.split_once('.')?;
        let is_number = !ms.is_empty() && ms.bytes().all(|byte| byte.is_ascii_digit());
        let started_ms = ms.parse().ok().filter(|_| is_number)?;
        check_any_id(id).ok()?;
        Some(Self { started_ms, id: id.to_owned() })
    }
}

impl fmt::Display for RunCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.started_ms, self.id)
    }
}

impl RunQuery {
    /// Whether only runs that live are looked for.
    fn is_live(&self) -> bool {
        !self.states.is_empty() && self.states.iter().all(|state| !state.is_terminal())
    }

    fn fits(&self, run: &RunRow) -> bool {
        let is_block = run.workflow.contains('#');
        let versioned = run.workflow.split('#').next().unwrap_or_default();
        let name = versioned.split('@').next().unwrap_or_default();
        (self.states.is_empty() || self.states.contains(&run.state))
            && (self.blocks || self.parent.is_some() || !is_block)
            && self.workflow.as_deref().is_none_or(|wanted| wanted == name || wanted == versioned)
            && self.tenant.as_ref().is_none_or(|tenant| run.tenant.as_ref() == Some(tenant))
            && self.parent.as_ref().is_none_or(|parent| run.parent.as_ref() == Some(parent))
            && self.labels.iter().all(|(name, value)| run.labels.get(name) == Some(value))
    }
}

impl Store {
    /// Up to `limit` runs after `after`, newest first, of at most about `budget` that are read for it.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn search(
        &self,
        query: &RunQuery,
        after: Option<&RunCursor>,
        limit: usize,
        budget: usize,
    ) -> Result<RunPage, Error> {
        let mut streams = self.streams(query, after).await?;
        let (mut page, mut read) = (RunPage::default(), 0);
        loop {
            let found = streams.next(BATCH.min(budget.saturating_sub(read).max(1))).await?;
            let Some(last) = found.last().map(|found| found.cursor.clone()) else { return Ok(page) };
            read += found.len();
            for run in self.rows(found).await?.into_iter().filter(|run| query.fits(run)) {
                page.runs.push(run);
                if page.runs.len() == limit.max(1) {
                    page.next = page.runs.last().map(RunRow::cursor);
                    return Ok(page);
                }
            }
            if read >= budget {
                page.next = Some(last);
                return Ok(page);
            }
        }
    }

    async fn streams<'s>(
        &'s self,
        query: &RunQuery,
        after: Option<&RunCursor>,
    ) -> Result<Streams<'s>, Error> {
        if query.labels.is_empty()
            && query.parent.is_none()
            && query.is_live()
            && let Some(living) = self.living(query, after).await?
        {
            return Ok(Streams::of_sorted(living));
        }
        let mut keys = Vec::with_capacity(self.partitions().len());
        for partition in self.partitions() {
            keys.push((partition, partition.narrowest(query).await?));
        }
        Ok(Streams::of_keys(keys, (query.since_ms, query.until_ms), after))
    }

    /// Every run that lives; `None` when there are too many to be sorted here.
    async fn living(&self, query: &RunQuery, after: Option<&RunCursor>) -> Result<Option<Vec<Found>>, Error> {
        let mut all = Vec::new();
        for (at, partition) in self.partitions().iter().enumerate() {
            let ids = partition.live_runs(0, MOST_LIVE + 1 - all.len()).await?;
            if ids.is_empty() {
                continue;
            }
            let mut ask = Cmd::new();
            ask.arg("ZMSCORE").arg(partition.keys().started()).arg(&ids);
            let starts: Vec<Option<f64>> = partition.link().query("asking when runs started", &ask).await?;
            for (id, start) in ids.into_iter().zip(starts) {
                let cursor = RunCursor { started_ms: stream::whole(start.unwrap_or(0.0)), id };
                all.push(Found { partition: at, cursor });
            }
            if all.len() > MOST_LIVE {
                return Ok(None);
            }
        }
        let (since, until) = (query.since_ms.unwrap_or(0), query.until_ms.unwrap_or(u64::MAX));
        all.retain(|found| {
            (since..=until).contains(&found.cursor.started_ms)
                && after.is_none_or(|after| found.cursor < *after)
        });
        all.sort_unstable_by(|a, b| b.cursor.cmp(&a.cursor));
        Ok(Some(all))
    }
}

impl Partition {
    /// The sorted set to go through.
    async fn narrowest(&self, query: &RunQuery) -> Result<String, Error> {
        if let Some(parent) = &query.parent {
            return Ok(self.keys().children(parent));
        }
        let labels: Vec<String> =
            query.labels.iter().map(|(name, value)| self.keys().label(&format!("{name}={value}"))).collect();
        if labels.len() > 1 {
            let mut ask = Pipeline::with_capacity(labels.len());
            for key in &labels {
                ask.cmd("ZCARD").arg(key);
            }
            let counts: Vec<u64> = self.link().pipeline("counting labels", &ask).await?;
            let least = labels.iter().zip(counts).min_by_key(|(_, count)| *count);
            return Ok(least.map_or_else(|| self.keys().started(), |(key, _)| key.clone()));
        }
        Ok(labels.into_iter().next().unwrap_or_else(|| self.keys().started()))
    }
}

#[cfg(test)]
mod tests {
    use super::RunCursor;

    #[test]
    fn a_cursor_reads_back_and_nonsense_does_not() {
        let cursor = RunCursor { started_ms: 1_700_000_000_123, id: "a.b/c~x.0".to_owned() };
        assert_eq!(RunCursor::parse(&cursor.to_string()), Some(cursor));
        for bad in ["", ".", "1", "1.", ".a", "x.a", "+1.a", "1.a b", "live.0.0"] {
            assert_eq!(RunCursor::parse(bad), None, "{bad:?}");
        }
    }
}
