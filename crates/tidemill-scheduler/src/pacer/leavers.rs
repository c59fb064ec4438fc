//! Those who need not wait any more: steps of runs that have ended. They are called up beside any allowance, so that a worker records
//! their end; without this they would stand in line until it is their turn.
//!
//! Only while runs are cut short is anything walked: then, second by second, a stretch of the partition's lines, until each of those
//! runs was looked for in all of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tidemill_protocol::RunState;
use tidemill_store::{Partition, Slot};

use super::caller::Caller;
use crate::Error;

/// Runs that are asked for at once.
const MOST_RUNS: usize = 10_000;
/// Members that one read gives, about.
const STRETCH: usize = 1_000;
/// Reads in one sweep.
const MOST_READS: usize = 20;
/// How far a look goes back, in milliseconds.
const FARTHEST_BACK_MS: u64 = 600_000;
/// Looks overlap by this much, in milliseconds.
const OVERLAP_MS: u64 = 2_000;

/// One partition's, see the module.
pub(super) struct Leavers {
    partition: Partition,
    /// From when on runs are asked for, in Redis's Unix milliseconds.
    since_ms: Option<u64>,
    /// Runs that were cut short, and in how many rounds they were looked for.
    runs: HashMap<String, u8>,
    /// When each of them was cut short, so that none is taken up twice.
    seen: BTreeSet<(u64, String)>,
    /// The lines that are still to be walked in this round, the current one last.
    round: Vec<String>,
    cursor: u64,
}

impl Leavers {
    pub(super) fn new(partition: &Partition) -> Self {
        Self {
            partition: partition.clone(),
            since_ms: None,
            runs: HashMap::new(),
            seen: BTreeSet::new(),
            round: Vec::new(),
            cursor: 0,
        }
    }

    /// Looks through a stretch of these lines. Replies how many left.
    pub(super) async fn sweep(
        &mut self,
        caller: &Caller,
        at: usize,
        tiers: Vec<String>,
    ) -> Result<usize, Error> {
        self.learn().await?;
        let mut left = 0;
        for _ in 0..MOST_READS {
            if self.runs.is_empty() {
                break;
            }
            if self.round.is_empty() {
                self.round.clone_from(&tiers);
                self.cursor = 0;
            }
            let Some(tier) = self.round.last().cloned() else {
                self.end_round();
                break;
            };
            // a line that cannot be read has been told of; the others are walked all the same
            let (next, places) =
                self.partition.walk_line(&tier, self.cursor, STRETCH).await.unwrap_or_default();
            let leaving = self.leaving(places).await?;
            if !leaving.is_empty() {
                left += caller.let_go(at, &tier, &leaving).await;
            }
            self.cursor = next;
            if next == 0 {
                self.round.pop();
                if self.round.is_empty() {
                    self.end_round();
                }
            }
        }
        Ok(left)
    }

    /// Hears of runs that were cut short since.
    async fn learn(&mut self) -> Result<(), Error> {
        let now_ms = self.partition.now_ms().await?;
        let since_ms = self.since_ms.unwrap_or(0).max(now_ms.saturating_sub(FARTHEST_BACK_MS));
        let (found, more) = self.partition.runs_cut_short(since_ms, MOST_RUNS).await?;
        // should more than a page of them share one millisecond, the rest wait for their turn
        let more = more.map(|at| if at == since_ms { at + 1 } else { at });
        let next = more.unwrap_or_else(|| now_ms.saturating_sub(OVERLAP_MS).max(since_ms));
        for (run, at) in found {
            if self.seen.insert((at, run.clone())) {
                self.runs.insert(run, 0);
            }
        }
        self.seen = self.seen.split_off(&(next, String::new()));
        self.since_ms = Some(next);
        Ok(())
    }

    /// A run that was taken up in the middle of a round is looked for in one more.
    fn end_round(&mut self) {
        self.runs.retain(|_, rounds| {
            *rounds += 1;
            *rounds < 2
        });
    }

    /// Those of the places whose run was cut short, and has ended: an id may have come back since.
    async fn leaving(&self, places: Vec<String>) -> Result<Vec<String>, Error> {
        let mut by_run: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for place in places {
            let slot = place.split_once('|').and_then(|(_, member)| Slot::of_member(member));
            if let Some(slot) = slot.filter(|slot| self.runs.contains_key(&slot.run)) {
                by_run.entry(slot.run).or_default().push(place);
            }
        }
        let mut leaving = Vec::new();
        for (run, places) in by_run {
            let state = self.partition.fields_of(&run, None, &["st".to_owned()]).await?.into_iter().next();
            let state = state.flatten().and_then(|state| RunState::parse(&String::from_utf8_lossy(&state)));
            if state.is_none_or(RunState::is_terminal) {
                leaving.extend(places);
            }
        }
        Ok(leaving)
    }
}
