//! The worker's metrics.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use tidemill_runtime::metrics::{Labelled, MetricName, Metrics};

/// Entries claimed.
pub const CLAIMED: MetricName = MetricName::new("tidemill_worker_claimed", "Entries claimed.", &["queue"]);
/// Attempts that ended.
pub const ATTEMPTS: MetricName =
    MetricName::new("tidemill_worker_attempts", "Attempts that ended.", &["kind", "outcome"]);
/// Outcomes by what became of them.
pub const SETTLED: MetricName =
    MetricName::new("tidemill_worker_settled", "Outcomes by what became of them.", &["answer"]);
/// Tools running now.
pub const RUNNING: MetricName = MetricName::new("tidemill_worker_running", "Tools running now.", &[]);
/// Entries held.
pub const HELD: MetricName =
    MetricName::new("tidemill_worker_held", "Entries claimed and not yet settled.", &[]);
/// Places for running tools.
pub const SLOTS: MetricName = MetricName::new("tidemill_worker_slots", "Places for running tools.", &[]);
/// Faults.
pub const REDIS_FAULTS: MetricName =
    MetricName::new("tidemill_worker_redis_faults", "Faults of Redis, by class.", &["fault"]);
/// Entries handed back.
pub const SWEPT: MetricName = MetricName::new(
    "tidemill_worker_swept",
    "Entries that Redis said we hold and nobody knew of, handed back.",
    &[],
);

/// All of them, for the documentation.
pub const ALL: &[MetricName] = &[CLAIMED, ATTEMPTS, SETTLED, RUNNING, HELD, SLOTS, REDIS_FAULTS, SWEPT];

#[derive(Debug)]
pub(crate) struct WorkerMetrics {
    pub(crate) claimed: Labelled<Counter>,
    pub(crate) attempts: Labelled<Counter>,
    pub(crate) settled: Labelled<Counter>,
    pub(crate) running: Gauge,
    pub(crate) held: Gauge,
    pub(crate) slots: Gauge,
    pub(crate) faults: Labelled<Counter>,
    pub(crate) swept: Counter,
}

impl WorkerMetrics {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self {
            claimed: metrics.counters(CLAIMED),
            attempts: metrics.counters(ATTEMPTS),
            settled: metrics.counters(SETTLED),
            running: metrics.gauge(RUNNING),
            held: metrics.gauge(HELD),
            slots: metrics.gauge(SLOTS),
            faults: metrics.counters(REDIS_FAULTS),
            swept: metrics.counter(SWEPT),
        }
    }

    pub(crate) fn fault(&self, error: &tidemill_store::Error) {
        self.faults.with(&[error.fault().map_or("none", tidemill_store::Fault::as_str)]).inc();
    }
}
