//! How a scheduler works.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidemill_protocol::{DEFAULT_MAX_INPUT_BYTES, ExecutionMode};

/// The section `scheduler` of the settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The most runs that one call starts.
    pub start_batch: usize,
    /// How long a read of requested runs blocks inside Redis when there are none, in milliseconds. A drain takes this long.
    pub block_ms: u64,
    /// The largest accepted input of a run, in bytes.
    pub max_input_bytes: usize,
    /// How long an ended run is kept unless its workflow says otherwise, in milliseconds (default a day).
    pub run_retention_ms: u64,
    /// How runs are carried out, for the pool as a whole: `classic`, `state_machine`, `optimized` or `hybrid`. It is put in force at the
    /// start where it says something else than the settings did before, so it does not undo `tidemill mode switch`.
    pub mode: Option<ExecutionMode>,
    /// How long a run may take whose workflow and caller do not say so, in milliseconds (default: no bound).
    pub run_timeout_ms: Option<u64>,
    /// The most runs under way at once in the pool (default: no bound); more of them wait for their turn. Those of a workflow with a
    /// group of its own, and those that other runs have asked for, are not counted.
    pub max_live_runs: Option<u32>,
    /// The most pieces of work that one call promotes.
    pub promote_batch: usize,
    /// The longest pause between two looks at what is due, in milliseconds: work put aside for less than this may be late by it.
    pub promote_idle_ms: u64,
    /// The pause between two looks while work keeps becoming due, in milliseconds.
    pub promote_busy_ms: u64,
    /// The pause between two looks at lines while there are any, in milliseconds.
    pub pace_ms: u64,
    /// The longest pause between two looks for lines, in milliseconds: the first in a new line may be late by it.
    pub pace_idle_ms: u64,
    /// What limits let go until so long from now is called up from their lines, in milliseconds. Above `pace_ms` by what it takes
    /// to reach a worker; less than a service's `patience_ms` more than that.
    pub pace_horizon_ms: u64,
    /// A cron time that passed longer ago than this counts as missed, in milliseconds; before that it is only late.
    pub cron_late_ms: u64,
    /// How often liveness is renewed, in milliseconds.
    pub beat_ms: u64,
    /// How often the liveness of all processes is looked at, in milliseconds.
    pub watch_ms: u64,
    /// A process whose liveness stands still for this long is dead, in milliseconds, by this process's own clock. Shorter than three
    /// beats is not safe.
    pub dead_after_ms: u64,
    /// The most entries that one call takes from the dead.
    pub reclaim_batch: usize,
    /// A job that this many processes died holding goes to the dead letters instead of killing the next one.
    pub crash_budget: u32,
    /// How often overdue runs are looked for, in milliseconds.
    pub expire_ms: u64,
    /// How many live runs the audit looks at in a second, over all partitions.
    pub audit_runs_per_second: u32,
    /// The pause between two rounds of the audit, in milliseconds.
    pub audit_every_ms: u64,
    /// A run without a step in flight is carried on after it stood still for this long, in milliseconds.
    pub stalled_after_ms: u64,
    /// How long work in hand may take at the end, in milliseconds; the rest is handed back.
    pub grace_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            start_batch: 50,
            block_ms: 1_000,
            max_input_bytes: DEFAULT_MAX_INPUT_BYTES,
            run_retention_ms: 24 * 3600 * 1000,
            mode: None,
            run_timeout_ms: None,
            max_live_runs: None,
            promote_batch: 200,
            promote_idle_ms: 250,
            promote_busy_ms: 25,
            pace_ms: 25,
            pace_idle_ms: 150,
            pace_horizon_ms: 50,
            cron_late_ms: 5_000,
            beat_ms: 1_000,
            watch_ms: 250,
            dead_after_ms: 5_000,
            reclaim_batch: 100,
            crash_budget: 3,
            expire_ms: 250,
            audit_runs_per_second: 200,
            audit_every_ms: 5_000,
            stalled_after_ms: 30_000,
            grace_ms: 10_000,
        }
    }
}

/// A setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct InvalidSetting {
    /// Which, with its section.
    pub key: String,
    /// What is wrong, and what is possible.
    pub problem: String,
}

impl InvalidSetting {
    pub(crate) fn new(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { key: key.into(), problem: problem.into() }
    }
}

impl Settings {
    /// Checks what the types cannot.
    ///
    /// # Errors
    /// A number is out of its range.
    pub fn check(&self) -> Result<(), InvalidSetting> {
        let ranges: [(&str, u64, u64, u64); 17] = [
            ("start_batch", self.start_batch as u64, 1, 500),
            ("block_ms", self.block_ms, 10, 10_000),
            ("run_retention_ms", self.run_retention_ms, 1, u64::MAX / 2),
            ("promote_batch", self.promote_batch as u64, 1, 500),
            ("promote_idle_ms", self.promote_idle_ms, 1, 60_000),
            ("promote_busy_ms", self.promote_busy_ms, 1, 60_000),
            ("pace_ms", self.pace_ms, 1, 1_000),
            ("pace_idle_ms", self.pace_idle_ms, 1, 60_000),
            ("pace_horizon_ms", self.pace_horizon_ms, 1, 10_000),
            ("beat_ms", self.beat_ms, 50, 2_000),
            ("watch_ms", self.watch_ms, 20, 1_000),
            ("reclaim_batch", self.reclaim_batch as u64, 1, 500),
            ("crash_budget", u64::from(self.crash_budget), 1, 1_000),
            ("expire_ms", self.expire_ms, 20, 60_000),
            ("audit_runs_per_second", u64::from(self.audit_runs_per_second), 1, 100_000),
            ("audit_every_ms", self.audit_every_ms, 20, 3_600_000),
            ("stalled_after_ms", self.stalled_after_ms, 100, 86_400_000),
        ];
        for (key, value, least, most) in ranges {
            if value < least || value > most {
                let problem = format!("{value} is not between {least} and {most}");
                return Err(InvalidSetting::new(format!("scheduler.{key}"), problem));
            }
        }
        for (key, is_zero) in [
            ("run_timeout_ms", self.run_timeout_ms == Some(0)),
            ("max_live_runs", self.max_live_runs == Some(0)),
        ] {
            if is_zero {
                let problem = "0 would let no run begin; leave it out, or give at least 1";
                return Err(InvalidSetting::new(format!("scheduler.{key}"), problem));
            }
        }
        if self.dead_after_ms < 2 * self.watch_ms || self.dead_after_ms > 600_000 {
            let problem = format!(
                "{} is not between {} (two looks, `watch_ms`) and 600000; workers beat each second, so keep it above 3000",
                self.dead_after_ms,
                2 * self.watch_ms
            );
            return Err(InvalidSetting::new("scheduler.dead_after_ms", problem));
        }
        Ok(())
    }

    pub(crate) const fn dead_after(&self) -> Duration {
        Duration::from_millis(self.dead_after_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::Settings;

    #[test]
    fn the_defaults_are_valid_and_nonsense_is_refused_by_name() {
        Settings::default().check().unwrap();
        let text = Settings { crash_budget: 0, ..Settings::default() }.check().unwrap_err().to_string();
        assert!(text.contains("scheduler.crash_budget") && text.contains("between 1"), "{text}");
        let text = Settings { dead_after_ms: 300, ..Settings::default() }.check().unwrap_err().to_string();
        assert!(text.contains("scheduler.dead_after_ms"), "{text}");
    }
}
