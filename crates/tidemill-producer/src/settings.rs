//! Settings of the producer.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidemill_protocol::check_queue;
use tidemill_store::Durability;

use crate::rate_limit::RateLimit;

/// The section `producer`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How safe work is before it counts as accepted, where neither the request nor its queue says otherwise: `fast`,
    /// `replicated` or `fsync`.
    pub durability: Durability,
    /// Longest wait for a replica or the disk, in milliseconds; then the answer says `unknown`. At most half of
    /// `redis.response_timeout_ms` counts.
    pub durability_timeout_ms: u64,
    /// Entries that a queue may hold before work is refused with `queue_full`, where the queue has no bound of its own;
    /// 0 means no bound.
    pub max_queue_length: u64,
    /// Bounds and durability of single queues, by name.
    pub queues: BTreeMap<String, Queue>,
    /// How long an id is remembered, in milliseconds: a second job with it is a duplicate for so long.
    pub id_retention_ms: u64,
    /// Share of Redis's `maxmemory`, in percent, from which work is refused with `redis_memory`.
    pub memory_limit_percent: u8,
    /// The largest input of one job or run, in bytes. Workers have a limit of their own.
    pub max_input_bytes: usize,
    /// The largest request that carries one thing, in bytes.
    pub max_body_bytes: usize,
    /// The largest batch, in bytes.
    pub max_batch_bytes: usize,
    /// Most lines of a batch.
    pub max_batch_lines: usize,
    /// Batches taken in at once; further ones wait. Each may hold `max_batch_bytes` in memory.
    pub max_batches_at_once: usize,
    /// Longest time for a client to send a request's head, in milliseconds.
    pub header_timeout_ms: u64,
    /// Longest time for a client to send a request's body, in milliseconds.
    pub body_timeout_ms: u64,
    /// Most connections at once; further ones wait to be taken.
    pub max_connections: usize,
    /// How often each client may ask, unless that is not bounded (default): `per_client: 100/15m`, and `burst`,
    /// `trusted_proxies`, `client_header`. Counted in this process alone.
    pub rate_limit: Option<RateLimit>,
}

/// What is special about one queue (`producer.queues.<name>`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Queue {
    /// Entries that it may hold before work is refused; 0 means no bound.
    pub max_length: Option<u64>,
    /// How safe its work is before it counts as accepted, where the request does not say.
    pub durability: Option<Durability>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            durability: Durability::Fast,
            durability_timeout_ms: 1_000,
            max_queue_length: 0,
            queues: BTreeMap::new(),
            id_retention_ms: 86_400_000,
            memory_limit_percent: 80,
            max_input_bytes: tidemill_protocol::DEFAULT_MAX_INPUT_BYTES,
            max_body_bytes: 2 * 1024 * 1024,
            max_batch_bytes: 64 * 1024 * 1024,
            max_batch_lines: 10_000,
            max_batches_at_once: 4,
            header_timeout_ms: 10_000,
            body_timeout_ms: 30_000,
            max_connections: 1_024,
            rate_limit: None,
        }
    }
}

impl Settings {
    /// What is wrong with the values: the key below `producer`, and a sentence.
    #[must_use]
    pub fn problems(&self) -> Vec<(String, String)> {
        let mut problems = Vec::new();
        let least_one = [
            ("durability_timeout_ms", self.durability_timeout_ms == 0),
            ("id_retention_ms", self.id_retention_ms == 0),
            ("max_input_bytes", self.max_input_bytes == 0),
            ("max_body_bytes", self.max_body_bytes == 0),
            ("max_batch_bytes", self.max_batch_bytes == 0),
            ("max_batch_lines", self.max_batch_lines == 0),
            ("max_batches_at_once", self.max_batches_at_once == 0),
            ("header_timeout_ms", self.header_timeout_ms == 0),
            ("body_timeout_ms", self.body_timeout_ms == 0),
            ("max_connections", self.max_connections == 0),
        ];
        for (key, wrong) in least_one {
            if wrong {
                problems.push((key.to_owned(), "must be at least 1".to_owned()));
            }
        }
        if !(1..=100).contains(&self.memory_limit_percent) {
            let message = "must be between 1 and 100".to_owned();
            problems.push(("memory_limit_percent".to_owned(), message));
        }
        if let Some(rate_limit) = &self.rate_limit {
            let found = rate_limit.problems();
            problems.extend(found.into_iter().map(|(key, message)| (format!("rate_limit.{key}"), message)));
        }
        for queue in self.queues.keys() {
            if let Err(error) = check_queue(queue) {
                problems.push((format!("queues.{queue:?}"), error.to_string()));
            }
        }
        problems
    }

    pub(crate) fn max_length_of(&self, queue: &str) -> u64 {
        self.queues.get(queue).and_then(|queue| queue.max_length).unwrap_or(self.max_queue_length)
    }

    pub(crate) fn durability_of(&self, queue: &str) -> Durability {
        self.queues.get(queue).and_then(|queue| queue.durability).unwrap_or(self.durability)
    }

    pub(crate) const fn id_retention(&self) -> Duration {
        Duration::from_millis(self.id_retention_ms)
    }

    pub(crate) const fn durability_timeout(&self) -> Duration {
        Duration::from_millis(self.durability_timeout_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::{Queue, Settings};

    #[test]
    fn the_defaults_have_no_problem_and_zeroes_do() {
        assert_eq!(Settings::default().problems(), []);
        let mut settings = Settings { max_batch_lines: 0, memory_limit_percent: 0, ..Settings::default() };
        settings.queues.insert("a b".to_owned(), Queue::default());
        let keys: Vec<_> = settings.problems().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["max_batch_lines", "memory_limit_percent", "queues.\"a b\""]);
    }

    #[test]
    fn a_queue_s_own_bound_wins() {
        let mut settings = Settings { max_queue_length: 5, ..Settings::default() };
        settings.queues.insert("free".to_owned(), Queue { max_length: Some(0), durability: None });
        assert_eq!((settings.max_length_of("free"), settings.max_length_of("other")), (0, 5));
    }
}
