//! What calls use and how long they take, learned: a histogram per tool and model that forgets slowly. Other workers are told the
//! 99th percentile, and begin with it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Buckets grow by a sixteenth of their power of two: an error of at most about 6 %.
const PER_DOUBLING: f64 = 11.5;
const BUCKETS: usize = 512;
/// After so many observations all counts are halved.
const FORGET_AT: f64 = 2_000.0;
/// Fewer say nothing about a 99th percentile; what others told is used until then.
const ENOUGH: f64 = 20.0;
/// More series than this are not kept: models and tools come from inputs.
const MOST: usize = 4_096;

/// A histogram of logarithmic buckets whose old counts fade.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    counts: Vec<f32>,
    total: f64,
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "bounded by the number of buckets"
)]
fn bucket(value: f64) -> usize {
    if value <= 1.0 { 0 } else { ((value.log2() * PER_DOUBLING).ceil() as usize).min(BUCKETS - 1) }
}

#[expect(clippy::cast_precision_loss, reason = "bounded by the number of buckets")]
fn upper(bucket: usize) -> f64 {
    (bucket as f64 / PER_DOUBLING).exp2()
}

impl Histogram {
    pub(super) fn observe(&mut self, value: f64) {
        if self.counts.is_empty() {
            self.counts = vec![0.0; BUCKETS];
        }
        if self.total >= FORGET_AT {
            self.counts.iter_mut().for_each(|count| *count *= 0.5);
            self.total *= 0.5;
        }
        self.counts[bucket(value)] += 1.0;
        self.total += 1.0;
    }

    /// A value that this share of the observed ones does not exceed; `None` while little is known.
    pub(super) fn quantile(&self, share: f64) -> Option<f64> {
        if self.total < ENOUGH {
            return None;
        }
        let mut left = self.total * share;
        for (bucket, count) in self.counts.iter().enumerate() {
            left -= f64::from(*count);
            if left <= 1e-6 {
                return Some(upper(bucket));
            }
        }
        Some(upper(BUCKETS - 1))
    }
}

#[derive(Debug, Default)]
struct Series {
    histogram: Histogram,
    /// What other workers told, until enough is known here.
    told: Option<f64>,
    /// What others were told.
    tells: f64,
}

/// What is known about calls, by `<service> <tool> <model> <unit>`; latencies have the unit `ms`.
#[derive(Debug, Default)]
pub(crate) struct Learned {
    series: Mutex<HashMap<String, Series>>,
}

fn name((service, tool, model): (&str, &str, Option<&str>), unit: &str) -> String {
    format!("{service} {tool} {} {unit}", model.unwrap_or("-"))
}

const LATENCY: &str = "ms";

impl Learned {
    fn with<T>(&self, name: String, act: impl FnOnce(&mut Series) -> T) -> Option<T> {
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        if series.len() >= MOST && !series.contains_key(&name) {
            // names that hardly anybody uses must not keep out those that many will
            series.retain(|_, series| series.histogram.total >= ENOUGH);
            if series.len() >= MOST {
                return None;
            }
        }
        Some(act(series.entry(name).or_default()))
    }

    /// What is known of a series; asking does not begin one.
    fn known<T>(&self, name: &str, read: impl FnOnce(&Series) -> Option<T>) -> Option<T> {
        read(self.series.lock().unwrap_or_else(PoisonError::into_inner).get(name)?)
    }

    /// A call used so much.
    pub(crate) fn used(&self, of: (&str, &str, Option<&str>), unit: &str, amount: f64) {
        self.with(name(of, unit), |series| series.histogram.observe(amount));
    }

    /// A call took so long.
    pub(crate) fn took(&self, of: (&str, &str, Option<&str>), latency: Duration) {
        self.used(of, LATENCY, latency.as_secs_f64() * 1_000.0 * 16.0);
    }

    /// What 99 of 100 calls do not exceed.
    pub(crate) fn usual(&self, of: (&str, &str, Option<&str>), unit: &str) -> Option<f64> {
        self.known(&name(of, unit), |series| series.histogram.quantile(0.99).map(f64::ceil).or(series.told))
    }

    /// How long 95 of 100 calls take at most.
    pub(crate) fn late_after(&self, of: (&str, &str, Option<&str>)) -> Option<Duration> {
        let sixteenths = self.known(&name(of, LATENCY), |series| series.histogram.quantile(0.95))?;
        Some(Duration::from_secs_f64(sixteenths / 16_000.0))
    }

    /// Takes in what other workers know. What is not known there (any more) is told again.
    pub(crate) fn hear(&self, told: BTreeMap<String, f64>) {
        {
            let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
            for (_, series) in series.iter_mut().filter(|(name, _)| !told.contains_key(*name)) {
                series.tells = 0.0;
            }
        }
        for (name, amount) in told {
            self.with(name, |series| series.told = Some(amount));
        }
    }

    /// What is new enough to be told to others.
    pub(crate) fn news(&self) -> Vec<(String, f64)> {
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let mut news = Vec::new();
        for (name, series) in series.iter_mut() {
            if name.ends_with(" ms") {
                continue;
            }
            let Some(usual) = series.histogram.quantile(0.99).map(f64::ceil) else { continue };
            if (usual - series.tells).abs() > series.tells * 0.1 {
                series.tells = usual;
                news.push((name.clone(), usual));
            }
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::{Histogram, Learned, MOST};
    use proptest::prelude::*;
    use std::time::Duration;

    proptest! {
        #[test]
        fn a_quantile_is_near_the_exact_one(mut values in proptest::collection::vec(1_u32..1_000_000, 20..1_500)) {
            let mut histogram = Histogram::default();
            for value in &values {
                histogram.observe(f64::from(*value));
            }
            values.sort_unstable();
            let exact = f64::from(values[(values.len() * 99).div_ceil(100) - 1]);
            let found = histogram.quantile(0.99).unwrap();
            prop_assert!(found >= exact * 0.999 && found <= exact * 1.07, "{found} for {exact}");
        }
    }

    #[test]
    fn what_others_told_is_used_until_enough_is_known_here() {
        let (learned, of) = (Learned::default(), ("openai", "chat", Some("big")));
        assert_eq!(learned.usual(of, "total_tokens"), None);
        learned.hear([("openai chat big total_tokens".to_owned(), 700.0)].into());
        assert_eq!(learned.usual(of, "total_tokens"), Some(700.0));
        for _ in 0..30 {
            learned.used(of, "total_tokens", 100.0);
            learned.took(of, Duration::from_millis(40));
        }
        assert!(learned.usual(of, "total_tokens").is_some_and(|usual| (100.0..=107.0).contains(&usual)));
        let late = learned.late_after(of).unwrap();
        assert!(late >= Duration::from_millis(40) && late < Duration::from_millis(44), "{late:?}");
        assert_eq!(learned.news().len(), 1);
        assert!(learned.news().is_empty(), "nothing is told twice");
        learned.hear([].into());
        assert_eq!(learned.news().len(), 1, "unless it was forgotten");
    }

    #[test]
    fn names_that_nobody_uses_do_not_keep_out_the_others() {
        let learned = Learned::default();
        for at in 0..MOST * 2 {
            learned.used(("a", "t", Some(&format!("m{at}"))), "tokens", 1.0);
            assert_eq!(learned.usual(("a", "t", Some("never")), "tokens"), None);
        }
        (0..30).for_each(|_| learned.used(("a", "t", Some("real")), "tokens", 9.0));
        assert!(learned.usual(("a", "t", Some("real")), "tokens").is_some());
        assert!(learned.series.lock().unwrap().len() <= MOST);
    }

    #[test]
    fn old_behaviour_is_forgotten() {
        let mut histogram = Histogram::default();
        (0..2_000).for_each(|_| histogram.observe(1_000.0));
        (0..20_000).for_each(|_| histogram.observe(10.0));
        assert!(histogram.quantile(0.99).unwrap() < 11.0);
    }
}
