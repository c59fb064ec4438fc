//! The producer's metrics.

use tidemill_runtime::metrics::{Counter, Histogram, Labelled, MetricName, Metrics, SECONDS};

use crate::intake::{AcceptedAs, Kind};
use crate::refusal::{Code, Refusal};

const ACCEPTED: MetricName = MetricName::new(
    "tidemill_producer_accepted",
    "Jobs and runs taken in, by what became of them",
    &["kind", "state"],
);
const REFUSED: MetricName =
    MetricName::new("tidemill_producer_refused", "Jobs and runs refused, by code", &["kind", "code"]);
const TURNED_AWAY: MetricName = MetricName::new(
    "tidemill_producer_turned_away",
    "Jobs refused because their service would let them wait too long, by what bounds it (`pause`, `breaker`, `limit`, `concurrency`, `line`)",
    &["service", "reason"],
);
const DEFINITIONS_REFUSED: MetricName = MetricName::new(
    "tidemill_producer_definitions_refused",
    "Workflow definitions that were sent to be published or checked and were refused, by code",
    &["code"],
);
const RATE_LIMITED: MetricName = MetricName::new(
    "tidemill_producer_rate_limited",
    "Requests refused because their client asks too often (`producer.rate_limit`)",
    &[],
);
const OPERATIONS: MetricName = MetricName::new(
    "tidemill_operations",
    "Things done by hand over HTTP (`signal`, `approve`, `reject`, `cancel`, `retry`, `rerun`, `skip`, `pause`, `resume`)",
    &["kind"],
);
const BATCH_LINES: MetricName = MetricName::new("tidemill_producer_batch_lines", "Lines of a batch", &[]);
const REQUEST_SECONDS: MetricName = MetricName::new(
    "tidemill_producer_request_seconds",
    "Time from a request's head to its answer's head",
    &["route", "status"],
);

/// The names of this crate, for the page that lists them.
pub const ALL: &[MetricName] = &[
    ACCEPTED,
    REFUSED,
    TURNED_AWAY,
    DEFINITIONS_REFUSED,
    RATE_LIMITED,
    OPERATIONS,
    BATCH_LINES,
    REQUEST_SECONDS,
];

const LINES: &[f64] = &[1.0, 10.0, 100.0, 500.0, 1_000.0, 2_500.0, 5_000.0, 10_000.0];

/// What the producer counts.
#[derive(Debug, Clone)]
pub struct Meters {
    accepted: [[Counter; 3]; 2],
    refused: Labelled<Counter>,
    turned_away: Labelled<Counter>,
    definitions_refused: Labelled<Counter>,
    operations: Labelled<Counter>,
    pub(crate) rate_limited: Counter,
    pub(crate) batch_lines: Histogram,
    request_seconds: Labelled<Histogram, tidemill_runtime::metrics::Buckets>,
}

impl Meters {
    /// Registers the metrics; once a process.
    #[must_use]
    pub fn new(metrics: &Metrics) -> Self {
        let family = metrics.counters(ACCEPTED);
        let of_kind = |kind: Kind| {
            [AcceptedAs::Queued, AcceptedAs::Deferred, AcceptedAs::Duplicate]
                .map(|state| family.with(&[kind.as_str(), state.as_str()]))
        };
        Self {
            accepted: [of_kind(Kind::Job), of_kind(Kind::Run)],
            refused: metrics.counters(REFUSED),
            turned_away: metrics.counters(TURNED_AWAY),
            definitions_refused: metrics.counters(DEFINITIONS_REFUSED),
            operations: metrics.counters(OPERATIONS),
            rate_limited: metrics.counter(RATE_LIMITED),
            batch_lines: metrics.histogram(BATCH_LINES, LINES),
            request_seconds: metrics.histograms(REQUEST_SECONDS, SECONDS),
        }
    }

    pub(crate) fn accepted(&self, kind: Kind, state: AcceptedAs) {
        self.accepted[kind as usize][state as usize].inc();
    }

    pub(crate) fn refused(&self, kind: Kind, code: Code) {
        self.refused.with(&[kind.as_str(), code.as_str()]).inc();
    }

    pub(crate) fn turned_away(&self, service: &str, why: &str) {
        let reason = why.split_once(':').map_or(why, |(reason, _)| reason);
        self.turned_away.with(&[service, reason]).inc();
    }

    pub(crate) fn definition_refused(&self, refusal: &Refusal) {
        self.definitions_refused.with(&[refusal.code.as_str()]).inc();
    }

    pub(crate) fn operated(&self, kind: &str) {
        self.operations.with(&[kind]).inc();
    }

    pub(crate) fn answered(&self, route: &str, status: u16, seconds: f64) {
        self.request_seconds.with(&[route, &status.to_string()]).observe(seconds);
    }
}
