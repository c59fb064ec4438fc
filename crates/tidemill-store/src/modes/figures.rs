//! How many runs there were of each mode, and how long they took.
//!
//! Whoever starts or ends runs tallies them and adds the tally about once a second, so that a run costs nothing in Redis. These are
//! figures, not accounts: a process that dies takes its last second along, and a call whose reply was lost is not made again.

use std::collections::BTreeMap;
use std::collections::HashMap;

use redis::{Cmd, Pipeline};
use serde::Serialize;
use tidemill_protocol::ExecutionMode;

use crate::{Error, Partition};

/// Times below this many milliseconds have a bucket each.
const EXACT: u64 = 64;
/// Buckets for each doubling beyond: one is at most 1/32 wider than its lower bound.
const PER_DOUBLING: u64 = 32;

/// The bucket of a time.
fn bucket_of(ms: u64) -> u64 {
    if ms < EXACT {
        return ms;
    }
    let power = u64::from(ms.ilog2());
    EXACT + (power - 6) * PER_DOUBLING + ((ms >> (power - 5)) & (PER_DOUBLING - 1))
}

/// The middle of a bucket, in milliseconds.
fn middle_of(bucket: u64) -> u64 {
    let Some(beyond) = bucket.checked_sub(EXACT) else { return bucket };
    let (power, part) = (6 + beyond / PER_DOUBLING, beyond % PER_DOUBLING);
    if power > 62 {
        return u64::MAX;
    }
    let width = 1_u64 << (power - 5);
    (1_u64 << power) + part * width + width / 2
}

/// Runs started and ended since the last tally was added.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModeTally {
    counts: HashMap<(ExecutionMode, Count), u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Count {
    Started,
    Ended,
    /// Milliseconds that all ended ones took together.
    Total,
    /// Ended ones in a bucket.
    Bucket(u64),
}

impl Count {
    fn field(self, mode: ExecutionMode) -> String {
        let mode = mode.as_str();
        match self {
            Self::Started => format!("{mode}:started"),
            Self::Ended => format!("{mode}:ended"),
            Self::Total => format!("{mode}:total_ms"),
            Self::Bucket(bucket) => format!("{mode}:{bucket}"),
        }
    }
}

impl ModeTally {
    /// Runs that were started.
    pub fn started(&mut self, mode: ExecutionMode, runs: u64) {
        self.add(mode, Count::Started, runs);
    }

    /// A run that has ended after so many milliseconds.
    pub fn ended(&mut self, mode: ExecutionMode, ms: u64) {
        self.add(mode, Count::Ended, 1);
        self.add(mode, Count::Total, ms);
        self.add(mode, Count::Bucket(bucket_of(ms)), 1);
    }

    /// Adds what another has.
    pub fn merge(&mut self, other: &Self) {
        for ((mode, count), number) in &other.counts {
            self.add(*mode, *count, *number);
        }
    }

    /// Whether there is nothing to add.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    fn add(&mut self, mode: ExecutionMode, count: Count, number: u64) {
        if number > 0 {
            *self.counts.entry((mode, count)).or_default() += number;
        }
    }
}

/// How long the runs of a mode took, from their start to their end; times in milliseconds, percentiles within 2 %.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Performance {
    /// All of them together.
    pub total: u64,
    /// How many have ended.
    pub count: u64,
    /// The mean.
    pub average: f64,
    /// Half of them took no longer.
    pub p50: u64,
    /// 99 of 100 took no longer.
    pub p99: u64,
}

/// How runs went under each mode, since the pool began or the figures were deleted.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ModeFigures {
    /// Runs started, by mode.
    pub executions: BTreeMap<&'static str, u64>,
    /// Times of ended runs, by mode; of those that steps ended, not of those that were cancelled or ran out of time.
    pub performance: BTreeMap<&'static str, Performance>,
}

impl Partition {
    /// Adds a tally.
    ///
    /// # Errors
    /// Redis is not reachable or refuses; whether it was added is then unknown.
    pub async fn add_mode_tally(&self, tally: &ModeTally) -> Result<(), Error> {
        if tally.is_empty() {
            return Ok(());
        }
        let mut add = Pipeline::with_capacity(tally.counts.len());
        for ((mode, count), number) in &tally.counts {
            add.cmd("HINCRBY").arg(self.keys().mode_runs()).arg(count.field(*mode)).arg(*number);
        }
        self.link().pipeline::<Vec<i64>>("adding to the figures of modes", &add).await.map(drop)
    }

    /// How runs went under each mode.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn mode_figures(&self) -> Result<ModeFigures, Error> {
        let mut ask = Cmd::new();
        ask.arg("HGETALL").arg(self.keys().mode_runs());
        let fields: HashMap<String, u64> = self.link().query("reading the figures of modes", &ask).await?;
        Ok(figures_of(&fields))
    }
}

fn figures_of(fields: &HashMap<String, u64>) -> ModeFigures {
    let mut figures = ModeFigures::default();
    for mode in ExecutionMode::ALL {
        let number = |count: Count| fields.get(&count.field(mode)).copied().unwrap_or(0);
        figures.executions.insert(mode.as_str(), number(Count::Started));
        let prefix = format!("{mode}:");
        let of_mode =
            fields.iter().filter_map(|(field, number)| Some((field.strip_prefix(&prefix)?, *number)));
        let buckets: BTreeMap<u64, u64> =
            of_mode.filter_map(|(bucket, number)| Some((bucket.parse().ok()?, number))).collect();
        let (count, total) = (number(Count::Ended), number(Count::Total));
        #[expect(clippy::cast_precision_loss, reason = "a mean for people")]
        let average = if count == 0 { 0.0 } else { total as f64 / count as f64 };
        let (p50, p99) = (percentile(&buckets, 50), percentile(&buckets, 99));
        figures.performance.insert(mode.as_str(), Performance { total, count, average, p50, p99 });
    }
    figures
}

/// The time that so many of a hundred do not exceed.
fn percentile(buckets: &BTreeMap<u64, u64>, percent: u64) -> u64 {
    let all: u64 = buckets.values().sum();
    let wanted = (all * percent).div_ceil(100).max(1);
    let mut seen = 0;
    for (bucket, number) in buckets {
        seen += number;
        if seen >= wanted {
            return middle_of(*bucket);
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use tidemill_protocol::ExecutionMode;

    use super::{ModeTally, bucket_of, figures_of, middle_of};

    fn figures(times: &[u64]) -> super::ModeFigures {
        let mut tally = ModeTally::default();
        tally.started(ExecutionMode::Classic, times.len() as u64);
        for time in times {
            tally.ended(ExecutionMode::Classic, *time);
        }
        let fields: HashMap<String, u64> =
            tally.counts.into_iter().map(|((mode, count), number)| (count.field(mode), number)).collect();
        figures_of(&fields)
    }

    #[test]
    fn figures_are_those_of_the_runs_and_a_mode_without_runs_has_zeros() {
        let figures = figures(&[10, 20, 30, 40]);
        assert_eq!(figures.executions["classic"], 4);
        let classic = &figures.performance["classic"];
        assert_eq!((classic.count, classic.total, classic.p50, classic.p99), (4, 100, 20, 40));
        assert!((classic.average - 25.0).abs() < f64::EPSILON);
        assert_eq!(figures.performance["hybrid"], super::Performance::default());
    }

    proptest! {
        #[test]
        fn a_bucket_is_near_all_times_in_it_and_longer_times_have_later_ones(ms in 0..u64::MAX / 4, more in 0..1_000_000_u64) {
            let middle = middle_of(bucket_of(ms));
            prop_assert!(middle.abs_diff(ms) <= ms / 50, "{ms} is told as {middle}");
            prop_assert!(bucket_of(ms) <= bucket_of(ms.saturating_add(more)));
        }

        #[test]
        fn percentiles_are_within_two_percent_of_the_sorted_times(mut times in proptest::collection::vec(0..5_000_000_u64, 1..200)) {
            let figures = figures(&times);
            times.sort_unstable();
            for (percent, told) in [(50, figures.performance["classic"].p50), (99, figures.performance["classic"].p99)] {
                let exact = times[(times.len() * percent).div_ceil(100).max(1) - 1];
                prop_assert!(told.abs_diff(exact) <= exact / 50, "{percent} %: {told} for {exact}");
            }
        }
    }
}
