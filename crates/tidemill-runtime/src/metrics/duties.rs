//! Metrics of duties, the same for all.

use std::time::Duration;

use super::{
    Buckets, Counter, Histogram, Labelled, Metrics, SECONDS,
    names::{DUTY_ERRORS, DUTY_SECONDS, DUTY_TICKS},
};

/// Counts ticks, errors and times of the duties of a process.
#[derive(Debug)]
pub struct DutyMetrics {
    ticks: Labelled<Counter>,
    errors: Labelled<Counter>,
    seconds: Labelled<Histogram, Buckets>,
}

impl DutyMetrics {
    /// Registers the three metrics; once a process.
    #[must_use]
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            ticks: metrics.counters(DUTY_TICKS),
            errors: metrics.counters(DUTY_ERRORS),
            seconds: metrics.histograms(DUTY_SECONDS, SECONDS),
        }
    }

    /// Metrics that nobody reads, for tests.
    #[must_use]
    pub fn unregistered() -> Self {
        Self::new(&Metrics::new("test", "0"))
    }

    /// How often the duty has ticked, and how often in vain.
    #[must_use]
    pub fn ticks(&self, duty: &str) -> (u64, u64) {
        (self.ticks.with(&[duty]).get(), self.errors.with(&[duty]).get())
    }

    pub(crate) fn record(&self, duty: &str, took: Duration, failed: bool) {
        self.ticks.with(&[duty]).inc();
        self.seconds.with(&[duty]).observe(took.as_secs_f64());
        let errors = self.errors.with(&[duty]); // made even when nothing failed, so that it reads 0, not absent
        if failed {
            errors.inc();
        }
    }
}
