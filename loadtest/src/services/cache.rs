//! Answers that are kept: calls saved on a workload in which few inputs are frequent.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use tidemill_testkit::referee::{Latency, Rules};

use super::load::VENDOR;
use super::pool::{Crew, Pool};
use super::table::{Line, percent};
use crate::bench::Mode;

/// Different inputs.
const KEYS: usize = 1_000;
/// Entries of the small caches.
const FEW: usize = 100;
const WITHIN: Duration = Duration::from_secs(120);

/// Which input each job has: Zipf's law with exponent 1, drawn from a fixed seed.
fn zipf(jobs: usize) -> Vec<usize> {
    let mut sums = Vec::with_capacity(KEYS);
    let mut sum = 0.0;
    for rank in 1..=KEYS {
        sum += 1.0 / rank as f64;
        sums.push(sum);
    }
    let mut state = 0x5EED_u64;
    let mut draw = || {
        // SplitMix64 (Steele, Lea, Flood 2014)
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64 * sum
    };
    (0..jobs)
        .map(|_| {
            let drawn = draw();
            sums.partition_point(|to| *to < drawn).min(KEYS - 1)
        })
        .collect()
}

pub(super) async fn show(quick: bool) -> Result<Vec<Line>> {
    let keys = zipf(if quick { 3_000 } else { 20_000 });
    let distinct = keys.iter().collect::<HashSet<_>>().len();
    let mut lines = Vec::new();
    for (entries, order) in [(10 * KEYS, "lru"), (FEW, "lru"), (FEW, "lfu")] {
        let conditions = format!(
            "4 workers, {} calls, {KEYS} inputs by Zipf's law, {entries} entries kept, {order}",
            keys.len()
        );
        let (calls, truth) = one(&keys, (entries, order), &conditions).await?;
        let saved = keys.len() - calls;
        let seen = format!("{} ({saved} of {} calls)", percent(saved as f64 / keys.len() as f64), keys.len());
        let is_whole = entries > KEYS;
        let aim = if is_whole { format!("{distinct} calls, one for each input") } else { String::new() };
        let is_met = is_whole.then_some(calls == distinct);
        lines.push(Line::new(
            ("cache: calls saved by answers that are kept, or shared in flight", conditions),
            aim,
            seen,
            is_met,
        ));
        lines.push(truth);
    }
    Ok(lines)
}

async fn one(keys: &[usize], (entries, order): (usize, &str), conditions: &str) -> Result<(usize, Line)> {
    let rules = Rules::default().latency(Latency::Fixed(Duration::from_millis(20)));
    let mut pool = Pool::start(rules, Mode::Off).await?;
    let cache = json!({ "ttl_ms": 600_000, "max_entries": entries, "order": order });
    pool.define(VENDOR, &json!({ "tools": ["http.request"], "cache": cache })).await?;
    pool.man(Crew::of(4)).await?;
    let url = pool.referee.url();
    let input = |id: usize| {
        json!({ "url": format!("{url}/{}", keys.get(id).copied().unwrap_or_default()) }).to_string()
    };
    pool.calls(0..keys.len(), input, &[]).await?;
    pool.drained(WITHIN).await?;
    Ok((pool.referee.calls(), pool.truth(conditions).await?))
}

#[cfg(test)]
mod tests {
    use super::{KEYS, zipf};

    #[test]
    fn the_first_of_a_thousand_inputs_has_a_seventh_of_all_calls() {
        let keys = zipf(20_000);
        assert!(keys.iter().all(|key| *key < KEYS));
        let first = keys.iter().filter(|key| **key == 0).count();
        assert!((2_500..2_850).contains(&first), "1 / H(1000) = 13.4 %: {first}");
        assert_eq!(keys[..100], zipf(100), "the seed is fixed");
    }
}
