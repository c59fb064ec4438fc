//! Pacer: calls jobs up from the lines in which they wait for limits, as fast as the limits let them go and no faster.
//!
//! While any line exists it looks every `pace_ms`, else every `pace_idle_ms`. Each look asks all partitions for their lines, and
//! then one function what the tiers would grant until `pace_horizon_ms` from now. What that answers is reserved in the same call, so
//! two schedulers do not both call it up; what one of them cannot use it gives back with its next question. A tier that is paused or
//! whose breaker is open is asked again when that ends, and twice a second at least.
//!
//! The horizon is a little more than the pause between two looks, so that a called-up job is with its worker just before it would be
//! granted: a longer one makes workers hold jobs that cannot run yet, a shorter one leaves a part of the limit unused.

mod caller;
mod leavers;
mod state;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use futures_util::future::join_all;
use tidemill_runtime::clock::Instant;
use tidemill_runtime::duty::{Duty, Tick};
use tidemill_store::{Forecast, Outlook, Partition};

use crate::Error;
use crate::context::{Context, count};
use caller::{Caller, Standing};
use leavers::Leavers;

/// Tiers that one call asks about.
const ASKED_AT_ONCE: usize = 100;
/// Tiers that are asked about in one tick; with more of them each has its turn.
const MOST_ASKED: usize = 400;
/// Tiers that are called up from at the same time.
const CALLED_AT_ONCE: usize = 16;
/// A tier that lets nothing go is asked again after this at the latest: somebody may have resumed it.
const BLOCKED_LONGEST: Duration = Duration::from_millis(500);
/// How often the lines are measured, and swept of those who need not wait any more.
const UPKEEP_EVERY: Duration = Duration::from_secs(1);
/// So many lines are looked at each time; of more, each less often.
const MANY_LINES: u64 = 200;

/// The lines of all partitions, by tier.
type Lines = BTreeMap<String, Vec<Standing>>;

/// See the module.
pub(crate) struct Pacer {
    context: Context,
    tracks: HashMap<String, Track>,
    caller: Caller,
    leavers: Vec<Leavers>,
    upkeep: Instant,
    /// Services whose gauges say something else than nothing.
    measured: BTreeSet<String>,
}

/// What is known of a tier from one look to the next.
struct Track {
    /// When it is asked about again.
    next: Instant,
    /// What of its last allowance was not called up.
    unused: u64,
}

/// The service of a tier, or the kind of one that belongs to none: what metrics tell apart.
fn service_of(tier: &str) -> &str {
    let end = if tier.starts_with('@') { ':' } else { '/' };
    tier.split(end).next().unwrap_or(tier)
}

impl Pacer {
    pub(crate) fn new(context: Context) -> Self {
        let leavers = context.partitions().iter().map(Leavers::new).collect();
        Self {
            caller: Caller::new(context.clone()),
            context,
            tracks: HashMap::new(),
            leavers,
            upkeep: Instant::now(),
            measured: BTreeSet::new(),
        }
    }

    /// The lines of every partition that answers. `Some` error: of some it is not known.
    async fn look(&self) -> (Lines, Option<Error>) {
        let partitions = self.context.partitions();
        let found = join_all(partitions.iter().map(lines_of)).await;
        let (mut lines, mut failure) = (Lines::new(), None);
        for (at, found) in found.into_iter().enumerate() {
            let found = match found {
                Ok(found) => found,
                Err(error) => {
                    failure = Some(error);
                    continue;
                }
            };
            for (tier, length) in found {
                match length {
                    Some(0) => self.caller.take_down(at, &tier).await,
                    Some(length) => {
                        lines.entry(tier).or_default().push(Standing { partition: at, length });
                    }
                    None => {
                        let key = partitions[at].keys().line(&tier);
                        self.caller
                            .complain(&tier, &format!("the key {key} holds something else: delete it"));
                    }
                }
            }
        }
        (lines, failure)
    }

    /// The tiers to ask about now, those that waited longest first. A tier whose lines are gone is asked about once more, so that it
    /// knows.
    fn due(&mut self, lines: &Lines, complete: bool) -> Vec<String> {
        let now = Instant::now();
        for tier in lines.keys() {
            self.tracks.entry(tier.clone()).or_insert(Track { next: now, unused: 0 });
        }
        let is_due = |(tier, track): &(&String, &Track)| {
            if lines.contains_key(*tier) { track.next <= now } else { complete }
        };
        let mut due: Vec<(&String, &Track)> = self.tracks.iter().filter(is_due).collect();
        due.sort_by_key(|(_, track)| track.next);
        due.into_iter().take(MOST_ASKED).map(|(tier, _)| tier.clone()).collect()
    }

    /// Asks what the tiers let go, and calls it up.
    async fn pace(&mut self, lines: &Lines, due: &[String]) -> Result<(), Error> {
        let services = self.context.store.services();
        let horizon = Duration::from_millis(self.context.settings.pace_horizon_ms);
        for tiers in due.chunks(ASKED_AT_ONCE) {
            let asked: Vec<Forecast<'_>> = tiers
                .iter()
                .map(|tier| Forecast {
                    tier,
                    waiting: lines.get(tier).map_or(0, |all| all.iter().map(|one| one.length).sum()),
                    unused: self.tracks.get(tier).map_or(0, |track| track.unused),
                })
                .collect();
            let outlooks = services.forecast(horizon, true, &asked).await?;
            let answered: Vec<(&String, Outlook)> = tiers.iter().zip(outlooks).collect();
            for some in answered.chunks(CALLED_AT_ONCE) {
                self.call_up(lines, some).await;
            }
        }
        Ok(())
    }

    /// Calls up what these tiers let go.
    async fn call_up(&mut self, lines: &Lines, answered: &[(&String, Outlook)]) {
        let calls = answered.iter().map(async |(tier, outlook)| match lines.get(*tier) {
            Some(standings) if outlook.allowance > 0 => {
                self.caller.call_up(tier, standings, outlook.allowance).await
            }
            _ => 0,
        });
        let called: Vec<u64> = join_all(calls).await;
        let pace = Duration::from_millis(self.context.settings.pace_ms);
        let now = Instant::now();
        for ((tier, outlook), called) in answered.iter().zip(called) {
            if !lines.contains_key(*tier) {
                self.tracks.remove(*tier);
                continue;
            }
            let pause =
                outlook.blocked_for.map_or(Duration::ZERO, |blocked| blocked.clamp(pace, BLOCKED_LONGEST));
            let unused = outlook.allowance.saturating_sub(called);
            self.tracks.insert((*tier).clone(), Track { next: now + pause, unused });
        }
        self.caller.turn();
    }

    /// Measures the lines, and lets those go who need not wait any more.
    async fn keep_up(&mut self, lines: &Lines) -> Result<(), Error> {
        self.caller.look_at_workers().await?;
        let partitions = self.context.partitions();
        let oldest = state::oldest(partitions, lines).await?;
        self.measured = state::show(&self.context.counters, lines, &oldest, &self.measured);
        for (at, leavers) in self.leavers.iter_mut().enumerate() {
            let here = |(tier, all): (&String, &Vec<Standing>)| {
                all.iter().any(|one| one.partition == at).then(|| tier.clone())
            };
            let tiers: Vec<String> = lines.iter().filter_map(here).collect();
            let left = leavers.sweep(&self.caller, at, tiers).await?;
            if left > 0 {
                self.context.counters.left_lines.inc_by(count(left));
            }
        }
        Ok(())
    }
}

/// The lines of a partition and how long they are; `None` where the key holds something else.
async fn lines_of(partition: &Partition) -> Result<Vec<(String, Option<u64>)>, Error> {
    let tiers = partition.lines().await?;
    let lengths = partition.line_lengths(&tiers).await?;
    Ok(tiers.into_iter().zip(lengths).collect())
}

impl Duty for Pacer {
    const NAME: &'static str = "pacer";
    type Error = Error;

    async fn tick(&mut self) -> Result<Tick, Error> {
        let (lines, failure) = self.look().await;
        let due = self.due(&lines, failure.is_none());
        self.pace(&lines, &due).await?;
        let now = Instant::now();
        if now >= self.upkeep && !(lines.is_empty() && self.measured.is_empty()) {
            self.upkeep = now + UPKEEP_EVERY;
            self.keep_up(&lines).await?;
        }
        if let Some(error) = failure {
            return Err(error);
        }
        let settings = &self.context.settings;
        // looking at very many lines takes Redis's time, too: ten thousand are looked at every second or so
        let many = 1 + u64::try_from(lines.len()).unwrap_or(u64::MAX) / MANY_LINES;
        let pause_ms =
            if lines.is_empty() { settings.pace_idle_ms } else { settings.pace_ms.saturating_mul(many) };
        Ok(Tick::After(Duration::from_millis(pause_ms)))
    }
}

#[cfg(test)]
mod tests {
    use super::service_of;

    #[test]
    fn metrics_tell_services_apart_and_not_their_tenants() {
        assert_eq!(service_of("openai"), "openai");
        assert_eq!(service_of("openai/tenant:acme"), "openai");
        assert_eq!(service_of("@tenant:a/b"), "@tenant");
        assert_eq!(service_of("@pool"), "@pool");
    }
}
