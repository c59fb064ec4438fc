//! What the operating system knows of this process, read when somebody asks.

use std::{fmt, fs};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};
use tokio::time::Instant;

use super::names::{CPU, MetricName, RESIDENT, UPTIME};

/// Reads `/proc`; where there is none, only the uptime is told.
#[derive(Debug)]
pub(super) struct ProcessCollector {
    start: Instant,
}

impl ProcessCollector {
    pub(super) fn starting_now() -> Self {
        Self { start: Instant::now() }
    }
}

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        gauge(&mut encoder, UPTIME, self.start.elapsed().as_secs_f64())?;
        if let Some(bytes) = resident_bytes() {
            #[expect(clippy::cast_precision_loss, reason = "exact to 9 PB")]
            gauge(&mut encoder, RESIDENT, bytes as f64)?;
        }
        if let Some(seconds) = cpu_seconds() {
            let counter = ConstCounter::new(seconds);
            let metric = encoder.encode_descriptor(CPU.name, CPU.help, None, counter.metric_type())?;
            counter.encode(metric)?;
        }
        Ok(())
    }
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: MetricName, value: f64) -> Result<(), fmt::Error> {
    let gauge = ConstGauge::new(value);
    let metric = encoder.encode_descriptor(name.name, name.help, None, gauge.metric_type())?;
    gauge.encode(metric)
}

fn resident_bytes() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    pages.checked_mul(u64::try_from(rustix::param::page_size()).ok()?)
}

fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The program's name stands in brackets and may hold blanks; what follows is numbered from field 3.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    #[expect(clippy::cast_precision_loss, reason = "ticks of a hundredth of a second")]
    Some((user + system) as f64 / rustix::param::clock_ticks_per_second() as f64)
}
