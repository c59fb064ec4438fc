//! Names of metrics, and those of this crate.

/// The name of a metric with its help text and its labels; a constant beside the code that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetricName {
    /// The name, with its unit and without `_total`.
    pub name: &'static str,
    /// One sentence for people, without a full stop.
    pub help: &'static str,
    /// The labels, in the order in which values are given.
    pub labels: &'static [&'static str],
}

impl MetricName {
    /// A name with its help text and its labels.
    #[must_use]
    pub const fn new(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Self {
        Self { name, help, labels }
    }
}

pub(super) const BUILD: MetricName =
    MetricName::new("tidemill_build", "Program and version of this process", &["program", "version"]);
pub(super) const RESIDENT: MetricName =
    MetricName::new("process_resident_memory_bytes", "Memory of this process that is in RAM", &[]);
pub(super) const CPU: MetricName =
    MetricName::new("process_cpu_seconds", "Processor time that this process has taken", &[]);
pub(super) const UPTIME: MetricName =
    MetricName::new("process_uptime_seconds", "Time since this process started", &[]);
pub(super) const DUTY_TICKS: MetricName =
    MetricName::new("tidemill_duty_ticks", "Ticks of a duty", &["duty"]);
pub(super) const DUTY_ERRORS: MetricName =
    MetricName::new("tidemill_duty_errors", "Ticks of a duty that failed", &["duty"]);
pub(super) const DUTY_SECONDS: MetricName =
    MetricName::new("tidemill_duty_tick_seconds", "Time that ticks of a duty took", &["duty"]);

/// The names of this crate, for the page that lists them.
pub const ALL: &[MetricName] = &[BUILD, RESIDENT, CPU, UPTIME, DUTY_TICKS, DUTY_ERRORS, DUTY_SECONDS];
