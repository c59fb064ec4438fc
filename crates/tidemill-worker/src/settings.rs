//! How a worker works.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidemill_protocol::DEFAULT_MAX_INPUT_BYTES;

/// In which order queues are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Each gets a share by its weight; none starves.
    #[default]
    Weighted,
    /// A queue is served only while those before it are empty (`queues` by falling weight).
    Strict,
}

/// The section `worker` of the settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The queues to serve, with weights: `critical=6,default=3,low=1`; a name alone weighs 1.
    pub queues: String,
    /// In which order they are served.
    pub order: Order,
    /// How many tools run at once.
    pub max_parallel: usize,
    /// Caps per tool kind (`http`, `exec`, …), each at most `max_parallel`.
    pub max_parallel_per_kind: BTreeMap<String, usize>,
    /// The most tools that run at once for one tenant (default: no cap); more of its work is put aside for a moment.
    pub max_parallel_per_tenant: Option<usize>,
    /// The most attempts that this worker begins in a second, whatever they are (default: no bound). A bound for the process
    /// alone: what holds for the pool is a service.
    pub max_starts_per_second: Option<u32>,
    /// How long an attempt may take where neither the job, the step nor the tool says so, in milliseconds.
    pub timeout_ms: u64,
    /// Attempts in all, the first one included, where neither the job, the step, the tool nor its service says so.
    pub max_attempts: u32,
    /// The most entries claimed beyond the running ones. How many are really claimed ahead follows from the measured rate:
    /// about 30 ms of work, none while work is slow.
    pub max_read_ahead: usize,
    /// The most entries in one read.
    pub max_batch: usize,
    /// The largest accepted input of a job, in bytes.
    pub max_input_bytes: usize,
    /// The largest accepted output of a tool, in bytes.
    pub max_output_bytes: usize,
    /// How often liveness is renewed, in milliseconds. Schedulers take a worker for dead after 5 s without.
    pub beat_ms: u64,
    /// How long a read blocks inside Redis when there is nothing to do, in milliseconds.
    pub block_ms: u64,
    /// How often the worker compares what Redis says it holds with what it knows, in milliseconds.
    pub sweep_ms: u64,
    /// How long running work may go on after SIGTERM, in milliseconds; the rest is handed back.
    pub grace_ms: u64,
    /// How long a caller's id is remembered, in milliseconds (default a day).
    pub id_retention_ms: u64,
    /// A job whose workers died this often goes to the dead letters instead of killing the next one.
    pub crash_budget: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            queues: "default".to_owned(),
            order: Order::Weighted,
            max_parallel: 100,
            max_parallel_per_kind: BTreeMap::new(),
            max_parallel_per_tenant: None,
            max_starts_per_second: None,
            timeout_ms: 30_000,
            max_attempts: 3,
            max_read_ahead: 2_000,
            max_batch: 1_000,
            max_input_bytes: DEFAULT_MAX_INPUT_BYTES,
            max_output_bytes: 1024 * 1024,
            beat_ms: 1_000,
            block_ms: 2_000,
            sweep_ms: 10_000,
            grace_ms: 25_000,
            id_retention_ms: 24 * 3600 * 1000,
            crash_budget: 3,
        }
    }
}

/// A setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("worker.{key}: {problem}")]
pub struct InvalidSetting {
    /// Which.
    pub key: &'static str,
    /// What is wrong, and what is possible.
    pub problem: String,
}

impl Settings {
    /// Reads `queues`.
    ///
    /// # Errors
    /// A name or a weight is not valid, a queue is there twice, or there is none.
    pub fn queue_weights(&self) -> Result<Vec<(String, u32)>, InvalidSetting> {
        let invalid = |problem: String| InvalidSetting { key: "queues", problem };
        let mut queues: Vec<(String, u32)> = Vec::new();
        for part in self.queues.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, weight) = part.split_once('=').unwrap_or((part, "1"));
            tidemill_protocol::check_queue(name).map_err(|error| invalid(error.to_string()))?;
            let weight = weight.trim().parse::<u32>().ok().filter(|weight| (1..=1_000).contains(weight));
            let weight = weight
                .ok_or_else(|| invalid(format!("the weight of {part:?} must be a number from 1 to 1000")))?;
            if queues.iter().any(|(queue, _)| queue == name) {
                return Err(invalid(format!("queue {name:?} is there twice")));
            }
            queues.push((name.to_owned(), weight));
        }
        if queues.is_empty() {
            return Err(invalid("no queue is named; use `default`, or `critical=6,default=3`".to_owned()));
        }
        if self.order == Order::Strict {
            queues.sort_by_key(|(_, weight)| std::cmp::Reverse(*weight));
        }
        Ok(queues)
    }

    /// Checks what the types cannot.
    ///
    /// # Errors
    /// A number is out of its range.
    pub fn check(&self) -> Result<(), InvalidSetting> {
        self.queue_weights()?;
        let ranges: [(&'static str, u64, u64, u64); 8] = [
            ("max_parallel", self.max_parallel as u64, 1, 100_000),
            ("timeout_ms", self.timeout_ms, 1, 30 * 24 * 3_600_000),
            ("max_attempts", u64::from(self.max_attempts), 1, 1_000),
            ("max_batch", self.max_batch as u64, 1, 5_000),
            ("max_read_ahead", self.max_read_ahead as u64, 0, 50_000),
            ("beat_ms", self.beat_ms, 50, 2_000),
            ("block_ms", self.block_ms, 10, 60_000),
            ("sweep_ms", self.sweep_ms, 100, 3_600_000),
        ];
        for (key, value, least, most) in ranges {
            if value < least || value > most {
                return Err(InvalidSetting {
                    key,
                    problem: format!("{value} is not between {least} and {most}"),
                });
            }
        }
        if self.max_parallel_per_tenant == Some(0) || self.max_starts_per_second == Some(0) {
            let key = if self.max_starts_per_second == Some(0) {
                "max_starts_per_second"
            } else {
                "max_parallel_per_tenant"
            };
            return Err(InvalidSetting {
                key,
                problem: "0 would let nothing run; leave it out, or give at least 1".to_owned(),
            });
        }
        if let Some((kind, _)) = self.max_parallel_per_kind.iter().find(|(_, cap)| **cap == 0) {
            let problem =
                format!("the cap of {kind:?} is 0: such jobs could never run; leave the tool out instead");
            return Err(InvalidSetting { key: "max_parallel_per_kind", problem });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Order, Settings};

    #[test]
    fn queues_are_read_with_their_weights() {
        let settings = Settings { queues: "critical=6, default=3,low".to_owned(), ..Settings::default() };
        let expected = [("critical".to_owned(), 6), ("default".to_owned(), 3), ("low".to_owned(), 1)];
        assert_eq!(settings.queue_weights().unwrap(), expected);
        let strict =
            Settings { queues: "low=1,high=9".to_owned(), order: Order::Strict, ..Settings::default() };
        assert_eq!(strict.queue_weights().unwrap()[0].0, "high");
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for (queues, word) in [("", "no queue"), ("a b", "not valid"), ("a=0", "1 to 1000"), ("a,a", "twice")]
        {
            let settings = Settings { queues: queues.to_owned(), ..Settings::default() };
            let text = settings.check().unwrap_err().to_string();
            assert!(text.contains(word) && text.contains("worker.queues"), "{text}");
        }
        let text = Settings { max_parallel: 0, ..Settings::default() }.check().unwrap_err().to_string();
        assert!(text.contains("worker.max_parallel"), "{text}");
    }
}
