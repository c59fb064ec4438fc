//! The worker's metrics.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use tidemill_runtime::metrics::{Buckets, Histogram, Labelled, MetricName, Metrics, SECONDS};

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
/// Definitions that cannot be used.
pub const VALIDATION_FAILED: MetricName = MetricName::new(
    "tidemill_worker_definition_validation_failed",
    "Published workflows that this worker could not use at its start (`invalid_workflow`, `damaged_definition`).",
    &["code"],
);

/// How long runs took.
pub const RUN_SECONDS: MetricName = MetricName::new(
    "tidemill_run_duration_seconds",
    "From the start of runs to the end that this worker settled, by execution mode.",
    &["mode"],
);
/// Looked-up transitions.
pub const TRANSITIONS: MetricName = MetricName::new(
    "tidemill_transitions_validated",
    "Transitions of steps that were looked up in the table, in the execution mode `state_machine`: accepted, refused.",
    &["verdict"],
);

/// Answers of admission.
pub const ADMISSIONS: MetricName = MetricName::new(
    "tidemill_admissions",
    "Answers to calls that asked for admission: granted, probe, wait, line, aside, never, local.",
    &["service", "answer"],
);
/// Why calls had to wait.
pub const ADMISSION_WAITS: MetricName =
    MetricName::new("tidemill_admission_waits", "Why calls could not be made at once.", &["service", "why"]);
/// Round trips for admission.
pub const ADMISSION_EXCHANGES: MetricName = MetricName::new(
    "tidemill_admission_exchanges",
    "Round trips to Redis for admission: `calls`, which carry what gathered, wanted calls and ended ones; `renewal`, at most one a second, which keep what is held.",
    &["for"],
);
/// Calls of services.
pub const SERVICE_CALLS: MetricName = MetricName::new(
    "tidemill_service_calls",
    "Granted calls that have ended: ok, failed, throttled, ignored, unsent.",
    &["service", "outcome"],
);
/// Hedges.
pub const HEDGES: MetricName = MetricName::new(
    "tidemill_hedges",
    "Late calls: made a second time (sent), of those answered first by the second (won), or not allowed to be (refused).",
    &["service", "outcome"],
);
/// Fallbacks.
pub const FALLBACKS: MetricName = MetricName::new(
    "tidemill_fallbacks",
    "Calls in whose place something else answered or was tried.",
    &["service", "by"],
);
/// Calls that wait in the worker.
pub const ADMISSION_WAITING: MetricName = MetricName::new(
    "tidemill_admission_waiting",
    "Jobs that ask for admission or wait for it in this worker, without a slot.",
    &[],
);

/// All of them, for the documentation.
pub const ALL: &[MetricName] = &[
    CLAIMED,
    ATTEMPTS,
    SETTLED,
    RUNNING,
    HELD,
    SLOTS,
    REDIS_FAULTS,
    SWEPT,
    RUN_SECONDS,
    TRANSITIONS,
    VALIDATION_FAILED,
    ADMISSIONS,
    ADMISSION_WAITS,
    ADMISSION_EXCHANGES,
    ADMISSION_WAITING,
    SERVICE_CALLS,
    HEDGES,
    FALLBACKS,
];

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
    pub(crate) validation_failed: Labelled<Counter>,
    pub(crate) run_seconds: Labelled<Histogram, Buckets>,
    pub(crate) transitions: Labelled<Counter>,
    pub(crate) admissions: Labelled<Counter>,
    pub(crate) waits: Labelled<Counter>,
    pub(crate) exchanges: Labelled<Counter>,
    pub(crate) waiting: Gauge,
    pub(crate) service_calls: Labelled<Counter>,
    pub(crate) hedges: Labelled<Counter>,
    pub(crate) fallbacks: Labelled<Counter>,
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
            validation_failed: metrics.counters(VALIDATION_FAILED),
            run_seconds: metrics.histograms(RUN_SECONDS, SECONDS),
            transitions: metrics.counters(TRANSITIONS),
            admissions: metrics.counters(ADMISSIONS),
            waits: metrics.counters(ADMISSION_WAITS),
            exchanges: metrics.counters(ADMISSION_EXCHANGES),
            waiting: metrics.gauge(ADMISSION_WAITING),
            service_calls: metrics.counters(SERVICE_CALLS),
            hedges: metrics.counters(HEDGES),
            fallbacks: metrics.counters(FALLBACKS),
        }
    }

    pub(crate) fn fault(&self, error: &tidemill_store::Error) {
        self.faults.with(&[error.fault().map_or("none", tidemill_store::Fault::as_str)]).inc();
    }
}
