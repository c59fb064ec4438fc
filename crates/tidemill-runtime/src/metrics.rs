//! Metrics: one registry a process, named in one place a crate, read as text at `/metrics`.
//!
//! A crate declares its names as constants in a module `metric_names` and makes its metrics from them:
//!
//! ```
//! use tidemill_runtime::metrics::{MetricName, Metrics};
//!
//! const SETTLED: MetricName = MetricName::new("tidemill_settled", "Outcomes recorded", &["queue"]);
//!
//! let metrics = Metrics::new("worker", "0.1.0");
//! let settled = metrics.counters(SETTLED);
//! let one = settled.with(&["default"]);
//! one.inc();
//! assert!(metrics.text().contains("tidemill_settled_total{queue=\"default\"} 1"));
//! ```
//!
//! Names carry their unit (`_seconds`, `_bytes`); counters get `_total` in the text by themselves. Labels have few
//! values by design: never an id, a URL or a message.

mod duties;
mod names;
mod process;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use prometheus_client::{
    encoding::text::encode,
    metrics::{
        family::{Family, MetricConstructor},
        histogram::Histogram as PlainHistogram,
        info::Info,
    },
    registry::{Metric, Registry},
};

pub use self::{
    duties::DutyMetrics,
    names::{ALL, MetricName},
};

/// A count that only grows.
pub type Counter = prometheus_client::metrics::counter::Counter;
/// A whole number that goes up and down.
pub type Gauge = prometheus_client::metrics::gauge::Gauge;
/// A distribution over buckets.
pub type Histogram = PlainHistogram;

/// Content type of [`Metrics::text`].
pub const TEXT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Buckets in seconds from half a millisecond to five minutes, for anything between a hand-over and a slow tool.
pub const SECONDS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
];

/// The metrics of one process. A cheap handle; all clones speak of the same registry.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

type Labels = Vec<(&'static str, String)>;

/// Metrics of one name, one for each combination of label values.
#[derive(Debug, Clone)]
pub struct Labelled<M, C = fn() -> M> {
    name: MetricName,
    family: Family<Labels, M, C>,
}

impl<M: Clone, C: MetricConstructor<M>> Labelled<M, C> {
    /// The metric for these label values, in the order of the name's labels; missing ones are empty. Keep the answer
    /// where it is used often.
    #[must_use]
    pub fn with(&self, values: &[&str]) -> M {
        let mut values = values.iter();
        let labels = self
            .name
            .labels
            .iter()
            .map(|label| (*label, values.next().copied().unwrap_or_default().to_owned()));
        self.family.get_or_create_owned(&labels.collect())
    }
}

/// Makes a histogram with fixed buckets.
#[derive(Debug, Clone, Copy)]
pub struct Buckets(&'static [f64]);

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

impl Metrics {
    /// A registry with what every process tells of itself: build, uptime, memory, processor time.
    #[must_use]
    pub fn new(program: &'static str, version: &'static str) -> Self {
        let mut registry = Registry::default();
        let build = Info::new(vec![("program", program), ("version", version)]);
        let name = names::BUILD;
        registry.register(name.name, name.help, build);
        registry.register_collector(Box::new(process::ProcessCollector::starting_now()));
        Self { registry: Arc::new(Mutex::new(registry)) }
    }

    /// A counter without labels.
    #[must_use]
    pub fn counter(&self, name: MetricName) -> Counter {
        self.register(name, Counter::default())
    }

    /// A gauge without labels.
    #[must_use]
    pub fn gauge(&self, name: MetricName) -> Gauge {
        self.register(name, Gauge::default())
    }

    /// A histogram without labels; [`SECONDS`] are usual buckets.
    #[must_use]
    pub fn histogram(&self, name: MetricName, buckets: &'static [f64]) -> Histogram {
        self.register(name, Buckets(buckets).new_metric())
    }

    /// Counters with labels.
    #[must_use]
    pub fn counters(&self, name: MetricName) -> Labelled<Counter> {
        let family = Family::new_with_constructor(Counter::default as fn() -> Counter);
        Labelled { name, family: self.register(name, family) }
    }

    /// Gauges with labels.
    #[must_use]
    pub fn gauges(&self, name: MetricName) -> Labelled<Gauge> {
        let family = Family::new_with_constructor(Gauge::default as fn() -> Gauge);
        Labelled { name, family: self.register(name, family) }
    }

    /// Histograms with labels.
    #[must_use]
    pub fn histograms(&self, name: MetricName, buckets: &'static [f64]) -> Labelled<Histogram, Buckets> {
        let family = Family::new_with_constructor(Buckets(buckets));
        Labelled { name, family: self.register(name, family) }
    }

    /// Registers any metric of the library under a name of ours. A name is registered once a process.
    pub fn register<M: Metric + Clone>(&self, name: MetricName, metric: M) -> M {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        registry.register(name.name, name.help, metric.clone());
        metric
    }

    /// All metrics in the OpenMetrics text format.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = encode(&mut text, &registry) {
            tracing::error!(%error, "metrics cannot be written");
        }
        text
    }
}

#[cfg(test)]
mod tests;
