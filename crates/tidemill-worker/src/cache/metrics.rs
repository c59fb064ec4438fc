//! The cache's metrics.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tidemill_runtime::metrics::{Counter, Gauge, Labelled, MetricName, Metrics};
use tidemill_store::cache::PutReply;

/// Look-ups.
const LOOKUPS: MetricName = MetricName::new(
    "tidemill_worker_cache_lookups",
    "Look-ups by what they came to: hit, negative (a kept failure), coalesced (the answer of an equal call under way), miss, \
     unavailable (Redis did not answer: called without asking), unreadable, stale (a fallback).",
    &["service", "result"],
);
/// Answers stored.
const STORED: MetricName = MetricName::new(
    "tidemill_worker_cache_stored",
    "Answers sent to the cache, by what became of them: stored, no_room, outdated (cleared meanwhile), lost.",
    &["service", "result"],
);
/// Evictions.
const EVICTIONS: MetricName = MetricName::new(
    "tidemill_worker_cache_evictions",
    "Answers that had to go for newer ones.",
    &["service"],
);
/// Bytes.
const BYTES: MetricName = MetricName::new(
    "tidemill_worker_cache_bytes",
    "Bytes in the service's cache over the whole pool, as this worker saw it last.",
    &["service"],
);
/// Entries.
const ENTRIES: MetricName = MetricName::new(
    "tidemill_worker_cache_entries",
    "Answers in the service's cache over the whole pool, as this worker saw it last.",
    &["service"],
);

/// All of them, for the documentation.
pub const ALL: &[MetricName] = &[LOOKUPS, STORED, EVICTIONS, BYTES, ENTRIES];

/// One for each service and word that was counted so far: there are few of both.
type Lookups = HashMap<(Arc<str>, &'static str), Counter>;

#[derive(Debug)]
pub(super) struct CacheMetrics {
    lookups: Labelled<Counter>,
    kept: Mutex<Lookups>,
    stored: Labelled<Counter>,
    evictions: Labelled<Counter>,
    bytes: Labelled<Gauge>,
    entries: Labelled<Gauge>,
}

impl CacheMetrics {
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self {
            lookups: metrics.counters(LOOKUPS),
            kept: Mutex::default(),
            stored: metrics.counters(STORED),
            evictions: metrics.counters(EVICTIONS),
            bytes: metrics.gauges(BYTES),
            entries: metrics.gauges(ENTRIES),
        }
    }

    pub(super) fn looked_up(&self, service: &Arc<str>, result: &'static str) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.entry((Arc::clone(service), result))
            .or_insert_with(|| self.lookups.with(&[service, result]))
            .inc();
    }

    pub(super) fn stored(&self, service: &str, result: &'static str, count: usize) {
        if count > 0 {
            self.stored.with(&[service, result]).inc_by(count as u64);
        }
    }

    pub(super) fn filled(&self, service: &str, reply: &PutReply) {
        if reply.evicted > 0 {
            self.evictions.with(&[service]).inc_by(reply.evicted);
        }
        let shown = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.bytes.with(&[service]).set(shown(reply.fullness.bytes));
        self.entries.with(&[service]).set(shown(reply.fullness.entries));
    }
}
