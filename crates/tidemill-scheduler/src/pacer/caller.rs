//! Calling up: takes the heads of a tier's lines over all partitions, in a fair order.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tidemill_runtime::clock::Instant;
use tidemill_store::{CalledUp, HeadRank};

use crate::Error;
use crate::context::{Context, count};
use crate::pacer::service_of;

/// Members that one call takes.
const MOST_AT_ONCE: usize = 500;
/// How often an allowance is tried on further heads, when those before did not need it.
const ROUNDS: usize = 10;

/// The pause between two complaints about the same line.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

/// A tier's line in one partition.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    /// The partition's index.
    pub(super) partition: usize,
    /// How many wait.
    pub(super) length: u64,
}

/// See the module.
pub(super) struct Caller {
    context: Context,
    /// Queues that have workers, none of which reads the stream `first`.
    deaf: BTreeSet<String>,
    /// When each line was complained about.
    told: Mutex<HashMap<String, Instant>>,
    /// Counts up, so that of equal heads each partition's comes first in turn.
    turn: usize,
}

/// A head that may be called up.
struct Head {
    rank: HeadRank,
    /// Its partition, counted from the one whose turn it is.
    seat: usize,
    partition: usize,
    place: String,
}

/// What came of one round.
#[derive(Default)]
struct Round {
    /// Of the allowance.
    used: u64,
    /// Heads that did not need it.
    passed: u64,
}

impl Caller {
    pub(super) fn new(context: Context) -> Self {
        Self { context, deaf: BTreeSet::new(), told: Mutex::default(), turn: 0 }
    }

    /// The next partition's turn.
    pub(super) const fn turn(&mut self) {
        self.turn = self.turn.wrapping_add(1);
    }

    /// Finds out which queues' workers do not read what comes first.
    pub(super) async fn look_at_workers(&mut self) -> Result<(), Error> {
        let (mut served, mut first) = (BTreeSet::new(), BTreeSet::new());
        for partition in self.context.partitions() {
            for member in partition.members().await? {
                if member.reads_first {
                    first.extend(member.queues.iter().cloned());
                }
                served.extend(member.queues);
            }
        }
        self.deaf = served.difference(&first).cloned().collect();
        Ok(())
    }

    /// Calls up as many of a tier's heads as it lets go. Replies how many of them will call the service.
    pub(super) async fn call_up(&self, tier: &str, standings: &[Standing], allowance: u64) -> u64 {
        let mut left = allowance;
        for _ in 0..ROUNDS {
            let round = self.round(tier, standings, left).await;
            left = left.saturating_sub(round.used);
            if left == 0 || round.passed == 0 {
                break;
            }
        }
        let called = allowance - left;
        if called > 0 {
            self.context.counters.called_up.with(&[service_of(tier)]).inc_by(called);
        }
        called
    }

    async fn round(&self, tier: &str, standings: &[Standing], allowance: u64) -> Round {
        let heads = self.heads(tier, standings, allowance).await;
        let mut by_partition: Vec<Vec<String>> = vec![Vec::new(); self.context.partitions().len()];
        for head in heads {
            by_partition[head.partition].push(head.place);
        }
        let calls = by_partition
            .iter()
            .enumerate()
            .flat_map(|(at, places)| places.chunks(MOST_AT_ONCE).map(move |some| (at, some)));
        let done = join_all(calls.map(|(at, some)| self.call(at, tier, some))).await;
        let mut round = Round::default();
        for (asked, answers) in done {
            let Some(answers) = answers else {
                // what came of it is not known
                round.used += count(asked);
                continue;
            };
            let used = count(answers.iter().filter(|answer| **answer == CalledUp::Called).count());
            round.used += used;
            round.passed += count(asked).saturating_sub(used);
        }
        round
    }

    /// The first heads over all partitions, as many as may be called up.
    async fn heads(&self, tier: &str, standings: &[Standing], allowance: u64) -> Vec<Head> {
        let partitions = self.context.partitions();
        let wanted = usize::try_from(allowance).unwrap_or(usize::MAX);
        let asked = standings.iter().map(async |one| {
            let most = wanted.min(usize::try_from(one.length).unwrap_or(usize::MAX));
            (one.partition, partitions[one.partition].ranked_heads(tier, most).await)
        });
        let mut heads = Vec::new();
        for (partition, found) in join_all(asked).await {
            let seat = (partition + partitions.len() - self.turn % partitions.len()) % partitions.len();
            match found {
                Ok(found) => {
                    heads.extend(found.into_iter().map(|(place, rank)| Head {
                        rank,
                        seat,
                        partition,
                        place,
                    }));
                }
                Err(error) => {
                    self.complain(tier, &format!("it cannot be read in partition {partition}: {error}"));
                }
            }
        }
        heads.sort_by_key(|head| (head.rank, head.seat));
        heads.truncate(wanted);
        heads
    }

    /// Calls these up; `None`: what came of it is not known.
    async fn call(&self, at: usize, tier: &str, places: &[String]) -> (usize, Option<Vec<CalledUp>>) {
        let partition = &self.context.partitions()[at];
        match partition.call_up(tier, places, |queue| !self.deaf.contains(queue)).await {
            Ok(answers) => {
                let stuck = answers.iter().filter(|answer| **answer == CalledUp::Stuck).count();
                if stuck > 0 {
                    let problem = format!(
                        "{stuck} of its members in partition {at} cannot be moved: a key of their queue or run holds something else"
                    );
                    self.complain(tier, &problem);
                }
                (places.len(), Some(answers))
            }
            Err(error) => {
                self.complain(tier, &format!("calling up failed in partition {at}: {error}"));
                (places.len(), None)
            }
        }
    }

    /// Calls these up beside any allowance: they have nothing to wait for. Replies how many left.
    pub(super) async fn let_go(&self, at: usize, tier: &str, places: &[String]) -> usize {
        let mut left = 0;
        for some in places.chunks(MOST_AT_ONCE) {
            let (_, answers) = self.call(at, tier, some).await;
            let gone = |answer: &&CalledUp| matches!(answer, CalledUp::Ended | CalledUp::Dropped);
            left += answers.iter().flatten().filter(gone).count();
        }
        left
    }

    /// Takes an empty line down.
    pub(super) async fn take_down(&self, at: usize, tier: &str) {
        self.call(at, tier, &[]).await;
    }

    /// Says that something is wrong with a line, now and then.
    pub(super) fn complain(&self, tier: &str, problem: &str) {
        let (mut told, now) = (self.told.lock().unwrap_or_else(PoisonError::into_inner), Instant::now());
        let due = told.get(tier).is_none_or(|at| now.saturating_duration_since(*at) >= COMPLAIN_EVERY);
        if due {
            told.insert(tier.to_owned(), now);
            tracing::error!(tier, problem, "something is wrong with a line");
        }
    }
}
