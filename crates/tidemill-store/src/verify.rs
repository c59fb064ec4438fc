//! Whether what is stored of a run is what its audit leads to.
//!
//! A run is read, its audit folded by the table of moves, and the two compared: its state, every step and item, the counters,
//! the entry of everything in flight, the sets that the run is in. The first reading is one MULTI: a run that is not large is
//! read as it stood at one moment. A larger one is read in pieces, and a reading counts only if the number of its last audit
//! record is the same before and after it. What is found counts only if a second reading, begun after the first was done, finds
//! it too; so what a run does while it is looked at is no drift.

mod compare;
mod finding;
mod flight;
mod reading;
mod walk;

use std::future::Future;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use tidemill_protocol::RunState;

pub use finding::{Drift, Finding};
pub(crate) use flight::is_of;
pub use flight::{InFlight, Whereabouts};
pub use walk::RunWalk;

use crate::{Error, Partition};
use reading::Reading;

/// A run is read this often before it counts as one that does not stand still.
const MOST_READINGS: usize = 6;
/// Runs looked at side by side.
const AT_ONCE: usize = 8;

/// What a workflow says of its steps, as far as stored state depends on it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Shape {
    /// The steps in the order of their indexes.
    pub steps: Vec<StepShape>,
}

/// One step of a [`Shape`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StepShape {
    /// Its id.
    pub id: String,
    /// The steps whose ends it counts.
    pub needs: Vec<u32>,
    /// Whether it counts successes, too.
    pub counts_successes: bool,
    /// Whether it has items.
    pub has_items: bool,
    /// Whether its failure counts among the run's.
    pub fails_run: bool,
    /// Its dependents are counted in more than one call.
    pub is_wide: bool,
    /// It undoes another, or comes last: it does not count among the run's.
    pub is_closing: bool,
}

/// Where shapes come from.
pub trait Shapes {
    /// The shape of a workflow (`name@version`); `None`: it is not published, or cannot be read.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    fn of(&self, workflow: &str) -> impl Future<Output = Result<Option<Arc<Shape>>, Error>> + Send;

    /// The shape of a workflow whose runs go one step at a time: each counts the end of the one before it. As [`Self::of`] unless
    /// said otherwise.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    fn in_order(&self, workflow: &str) -> impl Future<Output = Result<Option<Arc<Shape>>, Error>> + Send {
        self.of(workflow)
    }
}

/// How much of a run's state can be relied on.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Verdict {
    /// The run's id.
    pub run: String,
    /// Its state as stored; absent when it is not there, or cannot be read.
    pub state: Option<RunState>,
    /// Its workflow as stored.
    pub workflow: Option<String>,
    /// Audit records folded.
    pub records: u64,
    /// Steps and items that an ended run still has in flight; each records its end when its entry is met.
    pub unsettled: u64,
    /// It moved during every reading: only what cannot change any more was judged.
    pub moving: bool,
    /// What does not fit.
    pub findings: Vec<Finding>,
    /// Findings beyond those listed.
    pub more: u64,
}

impl Verdict {
    /// Whether all that was looked at fits.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    /// Whether a repair would change anything.
    #[must_use]
    pub fn is_repairable(&self) -> bool {
        self.findings.iter().any(|finding| finding.repairable)
    }
}

/// Findings listed of one run.
const MOST_FINDINGS: usize = 100;

impl Partition {
    /// Compares a run's stored state with its audit. Only reads. `None`: there is no such run.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn verify<S: Shapes + Sync>(&self, id: &str, shapes: &S) -> Result<Option<Verdict>, Error> {
        let (mut last, mut moving): (Option<Vec<Finding>>, Option<Verdict>) = (None, None);
        for _ in 0..MOST_READINGS {
            let Some(reading) = Reading::take(self, id, shapes).await? else {
                // gone: unless it is still listed, it was never there, or its time is over
                return self.listed(id).await;
            };
            let mut found = reading.findings();
            if !reading.steady {
                found.retain(|finding| finding.kind.is_lasting());
                moving = Some(verdict(&reading, found));
                continue;
            }
            if let Some(before) = last {
                found.retain(|finding| before.iter().any(|other| other.is_like(finding)));
                return Ok(Some(verdict(&reading, found)));
            }
            if found.is_empty() {
                return Ok(Some(verdict(&reading, found)));
            }
            last = Some(found);
        }
        Ok(moving.map(|verdict| Verdict { moving: true, ..verdict }))
    }

    /// Several runs; those that are not there are left out. The verdicts come in no order.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn verify_all<S: Shapes + Sync>(
        &self,
        ids: &[String],
        shapes: &S,
    ) -> Result<Vec<Verdict>, Error> {
        let looks = ids.iter().map(|id| self.verify(id, shapes));
        let verdicts: Vec<_> = stream::iter(looks).buffer_unordered(AT_ONCE).try_collect().await?;
        Ok(verdicts.into_iter().flatten().collect())
    }
}

fn verdict(reading: &Reading, mut findings: Vec<Finding>) -> Verdict {
    let more = findings.len().saturating_sub(MOST_FINDINGS);
    findings.truncate(MOST_FINDINGS);
    Verdict {
        run: reading.id.clone(),
        state: reading.state(),
        workflow: reading.workflow.clone(),
        records: reading.records,
        unsettled: reading.unsettled(),
        moving: false,
        findings,
        more: more as u64,
    }
}
