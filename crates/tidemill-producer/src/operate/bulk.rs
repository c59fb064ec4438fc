//! One thing done to all runs that a search finds, page by page.
//!
//! Each run is done by itself, exactly as if it had been named: one that refuses does not hold up the others, and its refusal is told.

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tidemill_store::{RunCursor, RunQuery, RunRow, Store};
use utoipa::ToSchema;

use super::{By, Cancel, Redo, What, cancel, pause, redo};
use crate::refusal::{Code, Refusal};
use crate::workflows::Workflows;

/// Runs that are done at once.
const AT_ONCE: usize = 8;
/// Runs that are looked at for one page.
const LOOKED_AT: usize = 10_000;
/// Refusals that are told one by one.
const TOLD: usize = 20;

/// What is done to each run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// It is cancelled.
    Cancel,
    /// It is done again from what failed, as a new run.
    Retry,
    /// It is paused.
    Pause,
    /// It is resumed.
    Resume,
}

/// What is done, to which runs, and how many at most.
#[derive(Debug, Clone)]
pub struct Bulk<'a> {
    /// What.
    pub act: Act,
    /// To which runs.
    pub query: &'a RunQuery,
    /// Where the last call ended.
    pub cursor: Option<RunCursor>,
    /// To so many at most.
    pub limit: usize,
    /// Nothing is done; which runs it would be is told.
    pub dry_run: bool,
    /// With `cancel`: what they did is not undone.
    pub spares: bool,
    /// Who and why.
    pub by: By<'a>,
}

/// A run to which it was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct BulkRefusal {
    /// The run.
    pub id: String,
    /// The refusal's stable code.
    pub code: &'static str,
    /// Why.
    pub detail: String,
}

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct BulkDone {
    /// Runs that were found.
    pub found: u64,
    /// Runs to which it was done; of a dry run: to which it would be tried.
    pub done: u64,
    /// Runs to which it was not done.
    pub refused: u64,
    /// The first twenty of those.
    pub refusals: Vec<BulkRefusal>,
    /// Of a dry run, the runs.
    pub runs: Vec<String>,
    /// Give it as `cursor` to go on; absent when all were looked at.
    pub next: Option<String>,
}

/// Does one thing to the runs that are found, the one that started last first, a few at a time. What was done stays done: with the
/// cursor of the answer the next call goes on behind it.
///
/// # Errors
/// Redis is not available. What a single run is refused for is told in the answer.
pub async fn bulk(store: &Store, workflows: &Workflows, bulk: Bulk<'_>) -> Result<BulkDone, Refusal> {
    let page = store.search(bulk.query, bulk.cursor.as_ref(), bulk.limit.max(1), LOOKED_AT).await?;
    let mut done = BulkDone {
        found: page.runs.len() as u64,
        next: page.next.map(|cursor| cursor.to_string()),
        ..BulkDone::default()
    };
    if bulk.dry_run {
        done.done = done.found;
        done.runs = page.runs.into_iter().map(|run| run.id).collect();
        return Ok(done);
    }
    for few in page.runs.chunks(AT_ONCE) {
        let mut each = Vec::with_capacity(few.len());
        for run in few {
            each.push(one(store, workflows, run, &bulk));
        }
        for (run, answer) in few.iter().zip(join_all(each).await) {
            done.note(&run.id, answer)?;
        }
    }
    Ok(done)
}

impl BulkDone {
    /// # Errors
    /// Redis is not available: the rest need not be tried.
    fn note(&mut self, id: &str, answer: Result<(), Refusal>) -> Result<(), Refusal> {
        let Err(refusal) = answer else {
            self.done += 1;
            return Ok(());
        };
        if matches!(refusal.code, Code::RedisUnavailable | Code::RedisMemory) {
            return Err(refusal);
        }
        self.refused += 1;
        if self.refusals.len() < TOLD {
            let (id, code, detail) = (id.to_owned(), refusal.code.as_str(), refusal.detail);
            self.refusals.push(BulkRefusal { id, code, detail });
        }
        Ok(())
    }
}

async fn one(store: &Store, workflows: &Workflows, run: &RunRow, bulk: &Bulk<'_>) -> Result<(), Refusal> {
    let (id, by) = (&run.id, bulk.by);
    match bulk.act {
        Act::Cancel => {
            let own = Cancel { by, spares: bulk.spares, by_force: false };
            let is_there = cancel(store.partition_of(id), id, own).await?;
            if is_there { Ok(()) } else { Err(crate::views::unknown_run(id)) }
        }
        Act::Retry => {
            redo(store, workflows, id, Redo { from: None, input: None, id: None, by }).await.map(drop)
        }
        Act::Pause | Act::Resume => {
            pause(store, workflows, (What::Run(id), bulk.act == Act::Pause), by).await.map(drop)
        }
    }
}
