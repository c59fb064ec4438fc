//! Cron: fires entries at their times, once each.
//!
//! When an entry is due next stands in Redis, so a restart neither forgets a time nor fires it again; of several schedulers the one
//! that still finds the due time it saw fires. The job's id is made from the entry's name and that time, so that even a doubled
//! request would be recognised. What happens to times that passed while no scheduler ran is each entry's own choice.

mod decision;
mod schedule;

use std::time::Duration;

use tidemill_runtime::clock::Instant;
use tidemill_runtime::duty::{Duty, Tick};
use tidemill_store::{Cron, Firing, Partition};

use crate::context::{Context, count};
use crate::{Error, InvalidSetting};
use decision::{Decision, decide};
pub use schedule::{Schedule, ScheduleError};

/// An entry that cannot be carried out is looked at again after this long.
const INVALID_PAUSE_MS: u64 = 60_000;
/// The longest pause between two looks.
const LONGEST_PAUSE_MS: u64 = 1_000;
/// How often entries without a next time are looked for.
const RECONCILE: Duration = Duration::from_secs(10);

/// See the module.
pub(crate) struct CronDuty {
    context: Context,
    configured: Vec<Cron>,
    reconciled: Option<Instant>,
}

/// Refuses configured entries that could not be carried out.
pub(crate) fn check(configured: &[Cron]) -> Result<(), InvalidSetting> {
    for (at, cron) in configured.iter().enumerate() {
        let invalid = |problem: String| InvalidSetting::new(format!("cron[{at}]"), problem);
        decision::check(cron).map_err(|error| invalid(format!("{:?}: {error}", cron.name)))?;
        if configured.iter().take(at).any(|other| other.name == cron.name) {
            return Err(invalid(format!("the name {:?} is there twice", cron.name)));
        }
    }
    Ok(())
}

impl CronDuty {
    pub(crate) const fn new(context: Context, configured: Vec<Cron>) -> Self {
        Self { context, configured, reconciled: None }
    }

    /// Stores what is configured, without disturbing the next time of an entry that has not changed, and gives a next time to
    /// entries that lack one (a client may have written the entry alone).
    async fn reconcile(&mut self, home: &Partition, now_ms: u64) -> Result<(), Error> {
        let stored = home.cron_texts().await?;
        // what cannot be read has no next time to plan; it is told when it is due
        let stored: Vec<(Cron, bool)> = stored
            .into_iter()
            .filter_map(|(_, text, has_next)| Some((serde_json::from_str(&text).ok()?, has_next)))
            .collect();
        for cron in std::mem::take(&mut self.configured) {
            if stored.iter().any(|(known, _)| *known == cron) {
                continue;
            }
            let next_ms = next_of(&cron, now_ms);
            if let Err(error) = home.set_cron(&cron, next_ms).await {
                self.configured.push(cron);
                return Err(error.into());
            }
            tracing::info!(cron = cron.name, schedule = cron.schedule, next_ms, "cron entry stored");
        }
        for (cron, _) in stored.iter().filter(|(_, has_next)| !has_next) {
            if let Some(next_ms) = next_of(cron, now_ms)
                && home.plan_cron(&cron.name, next_ms).await?
            {
                tracing::info!(cron = cron.name, next_ms, "cron entry planned");
            }
        }
        Ok(())
    }

    async fn fire(
        &self,
        home: &Partition,
        due: (String, u64, Option<String>),
        now_ms: u64,
    ) -> Result<(), Error> {
        let (name, due_ms, text) = due;
        let Some(text) = text else {
            // removed, or never described: nothing to fire, now or later
            let firing = Firing {
                name: &name,
                seen_ms: due_ms,
                next_ms: None,
                target: &home.keys().runs(),
                fields: vec![],
            };
            home.fire(&firing).await?;
            return Ok(());
        };
        let decided = serde_json::from_str::<Cron>(&text).map_err(|error| error.to_string());
        let decided = decided.and_then(|cron| {
            let decision = decide(&cron, due_ms, now_ms, self.context.settings.cron_late_ms)?;
            Ok((cron, decision))
        });
        let (cron, decision) = match decided {
            Ok(decided) => decided,
            Err(reason) => return self.postpone(home, (&name, due_ms), now_ms, &reason).await,
        };
        let target = match (&cron.workflow, &cron.tool) {
            (Some(_), _) => home.keys().runs(),
            (None, _) => home.keys().jobs(&cron.queue),
        };
        let (fires, next_ms) = match decision {
            Decision::Fire { next_ms } => (true, next_ms),
            Decision::LetPass { next_ms } => (false, next_ms),
        };
        let fields = decision::fields(&cron, due_ms);
        let fields: Vec<(&str, &[u8])> =
            fields.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        let fields = if fires { fields } else { Vec::new() };
        let won =
            home.fire(&Firing { name: &name, seen_ms: due_ms, next_ms, target: &target, fields }).await?;
        match (won, fires) {
            (true, true) => {
                self.context.counters.cron_fired.inc();
                tracing::info!(
                    cron = name,
                    due_ms,
                    late_ms = now_ms.saturating_sub(due_ms),
                    next_ms,
                    "cron entry fired"
                );
            }
            (true, false) if !cron.paused => {
                self.context.counters.cron_skipped.inc();
                tracing::info!(cron = name, due_ms, next_ms, "missed cron times let pass");
            }
            (true, false) => {}
            (false, _) => tracing::debug!(cron = name, due_ms, "another scheduler was faster"),
        }
        Ok(())
    }

    /// An entry that cannot be carried out stays, is told, and does not keep the others waiting.
    async fn postpone(
        &self,
        home: &Partition,
        (name, seen_ms): (&str, u64),
        now_ms: u64,
        reason: &str,
    ) -> Result<(), Error> {
        let next_ms = Some(now_ms + INVALID_PAUSE_MS);
        let target = home.keys().runs();
        if home.fire(&Firing { name, seen_ms, next_ms, target: &target, fields: Vec::new() }).await? {
            self.context.counters.cron_invalid.inc();
            tracing::error!(cron = name, reason, "cron entry is not valid, correct or remove it");
        }
        Ok(())
    }
}

fn next_of(cron: &Cron, now_ms: u64) -> Option<u64> {
    let schedule = Schedule::parse(&cron.schedule, &cron.time_zone).ok()?;
    if cron.paused { None } else { schedule.next_after(now_ms) }
}

impl Duty for CronDuty {
    const NAME: &'static str = "cron";
    type Error = Error;

    async fn tick(&mut self) -> Result<Tick, Error> {
        let home = self.context.store.home().clone();
        let (now_ms, next) = tokio::join!(home.now_ms(), home.next_cron());
        let (now_ms, mut next) = (now_ms?, next?);
        if self.reconciled.is_none_or(|at| at.elapsed() >= RECONCILE) {
            self.reconcile(&home, now_ms).await?;
            self.reconciled = Some(Instant::now());
            next = home.next_cron().await?;
        }
        if next.is_none_or(|next_ms| next_ms > now_ms) {
            let wait_ms = next.map_or(LONGEST_PAUSE_MS, |next_ms| (next_ms - now_ms).min(LONGEST_PAUSE_MS));
            return Ok(Tick::After(Duration::from_millis(wait_ms.max(1))));
        }
        let due = home.due_crons(now_ms).await?;
        let found = count(due.len());
        for one in due {
            self.fire(&home, one, now_ms).await?;
        }
        tracing::trace!(found, "looked at due cron entries");
        Ok(Tick::Again)
    }
}
