//! Retention: bounds what is kept of the past, by count and by age. (Results, ids and audits expire by themselves.)

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidemill_runtime::duty::{Duty, Tick};
use tidemill_store::Partition;

use crate::context::Context;
use crate::{Error, InvalidSetting};

/// Runs deleted per partition and call: each is two keys that Redis frees in the background.
const MOST: usize = 500;

/// The section `retention` of the settings: what is kept of the past, in each partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The most ended runs that are kept, with their audit; the oldest go first.
    pub runs: u64,
    /// How long ended runs are kept at most, in milliseconds (default seven days). A workflow's own `retention_ms` may be shorter.
    pub runs_ms: u64,
    /// The most dead letters that are kept; the oldest go first.
    pub dead_letters: u64,
    /// How long dead letters are kept, in milliseconds (default 30 days).
    pub dead_letters_ms: u64,
    /// How long a cancellation is remembered, in milliseconds (default a day): as long as a worker may be away and still learn of it.
    pub cancellations_ms: u64,
    /// How often all of it is looked at, in milliseconds.
    pub every_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        const DAY_MS: u64 = 24 * 3600 * 1000;
        Self {
            runs: 100_000,
            runs_ms: 7 * DAY_MS,
            dead_letters: 10_000,
            dead_letters_ms: 30 * DAY_MS,
            cancellations_ms: DAY_MS,
            every_ms: 5_000,
        }
    }
}

impl Settings {
    /// Checks what the types cannot.
    ///
    /// # Errors
    /// A number is out of its range.
    pub fn check(&self) -> Result<(), InvalidSetting> {
        if self.every_ms < 20 || self.every_ms > 3_600_000 {
            let problem = format!("{} is not between 20 and 3600000", self.every_ms);
            return Err(InvalidSetting::new("retention.every_ms", problem));
        }
        if self.cancellations_ms < 60_000 {
            let problem =
                format!("{} is less than 60000: workers may not learn of it", self.cancellations_ms);
            return Err(InvalidSetting::new("retention.cancellations_ms", problem));
        }
        Ok(())
    }

    pub(crate) const fn every(&self) -> Duration {
        Duration::from_millis(self.every_ms)
    }
}

/// See the module.
pub(crate) struct Retention {
    context: Context,
    settings: Settings,
}

impl Retention {
    pub(crate) const fn new(context: Context, settings: Settings) -> Self {
        Self { context, settings }
    }

    /// `true`: there may be more.
    async fn trim(&self, partition: &Partition) -> Result<bool, Error> {
        let now_ms = partition.now_ms().await?;
        let before = |age_ms: u64| now_ms.saturating_sub(age_ms);
        let keep = &self.settings;
        let runs = partition.trim_ended(keep.runs, before(keep.runs_ms), MOST).await?;
        let letters = partition.trim_letters(keep.dead_letters, before(keep.dead_letters_ms)).await?;
        let cancellations = partition.trim_cancelled(before(keep.cancellations_ms)).await?;
        for (what, gone) in [("runs", runs), ("dead_letters", letters), ("cancellations", cancellations)] {
            if gone > 0 {
                self.context.counters.trimmed.with(&[what]).inc_by(gone);
                tracing::debug!(what, gone, partition = partition.index(), "trimmed");
            }
        }
        Ok(runs == MOST as u64)
    }
}

impl Duty for Retention {
    const NAME: &'static str = "retention";
    type Error = Error;

    async fn tick(&mut self) -> Result<Tick, Error> {
        let mut more = false;
        for partition in self.context.partitions() {
            more |= self.trim(partition).await?;
        }
        Ok(if more { Tick::Again } else { Tick::Done })
    }
}

#[cfg(test)]
mod tests {
    use super::Settings;

    #[test]
    fn the_defaults_are_valid_and_nonsense_is_refused_by_name() {
        Settings::default().check().unwrap();
        let text = Settings { every_ms: 0, ..Settings::default() }.check().unwrap_err().to_string();
        assert!(text.contains("retention.every_ms"), "{text}");
    }
}
