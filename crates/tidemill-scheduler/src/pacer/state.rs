//! What the lines are like, for metrics.

use std::collections::{BTreeMap, BTreeSet};

use tidemill_store::Partition;

use super::{Lines, service_of};
use crate::Error;
use crate::metrics::Counters;

/// Lines whose first member is looked at: the longest ones.
const MOST_LOOKED_AT: usize = 50;

fn gauge(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// For how long the first in line has waited, in milliseconds, by service.
pub(super) async fn oldest(partitions: &[Partition], lines: &Lines) -> Result<BTreeMap<String, u64>, Error> {
    let mut all: Vec<_> =
        lines.iter().flat_map(|(tier, standings)| standings.iter().map(move |one| (tier, *one))).collect();
    all.sort_by_key(|(_, one)| std::cmp::Reverse(one.length));
    let mut oldest: BTreeMap<String, u64> = BTreeMap::new();
    for (tier, one) in all.into_iter().take(MOST_LOOKED_AT) {
        let partition = &partitions[one.partition];
        let now_ms = partition.now_ms().await?;
        let Some((place, _)) = partition.line_heads(tier, 1).await?.into_iter().next() else { continue };
        let since_ms = partition.place_in_line(tier, &place).await?.and_then(|place| place.since_ms);
        let waited = since_ms.map_or(0, |since_ms| now_ms.saturating_sub(since_ms));
        let longest = oldest.entry(service_of(tier).to_owned()).or_default();
        *longest = waited.max(*longest);
    }
    Ok(oldest)
}

/// Shows the lines in metrics; replies the services that have any. Those of `before` without one are back at nothing.
pub(super) fn show(
    counters: &Counters,
    lines: &Lines,
    oldest: &BTreeMap<String, u64>,
    before: &BTreeSet<String>,
) -> BTreeSet<String> {
    let mut lengths: BTreeMap<&str, u64> = before.iter().map(|service| (service.as_str(), 0)).collect();
    for (tier, standings) in lines {
        *lengths.entry(service_of(tier)).or_default() += standings.iter().map(|one| one.length).sum::<u64>();
    }
    for (service, length) in &lengths {
        counters.line_length.with(&[service]).set(gauge(*length));
        counters.line_oldest.with(&[service]).set(gauge(oldest.get(*service).copied().unwrap_or(0)));
    }
    lengths.into_iter().filter(|(_, length)| *length > 0).map(|(service, _)| service.to_owned()).collect()
}
