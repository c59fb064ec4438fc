//! Looking at tiers: how long a job that comes now would wait.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use tidemill_policy::service::TierRules;
use tidemill_store::{Error, Forecast, Partition, Store};
use tokio::time::Instant;

use super::known::Known;
use crate::services::{Prospect, prospect};

/// What was seen of a tier.
#[derive(Debug)]
pub(super) struct TierLook {
    pub(super) at: Instant,
    prospect: Prospect,
    /// Calls that could be made at once.
    allowance: f64,
    /// Jobs in line.
    waiting: f64,
    /// How long the oldest of them has waited.
    pub(super) oldest: Option<Duration>,
    /// Jobs let in that no line shows yet.
    pub(super) let_in: f64,
}

impl TierLook {
    /// How long a job that comes now waits; `None`: until a person ends it.
    pub(super) fn wait(&self) -> Option<Duration> {
        let wait = self.prospect.wait?;
        let unseen = (self.let_in - self.allowance).max(0.0);
        let rate = self.prospect.per_second.filter(|rate| *rate > 0.0);
        let more = rate.map_or(0.0, |rate| (unseen / rate).min(1e9));
        Some(wait + Duration::from_secs_f64(more))
    }

    /// `pause`, `breaker`, `limit:<unit>`, `concurrency` or `line`.
    pub(super) fn why(&self) -> String {
        if self.prospect.why.is_empty() { "line".to_owned() } else { self.prospect.why.clone() }
    }

    /// Jobs let in before this look are in the line, or gone at the tier's pace, or on their way to a worker still.
    pub(super) fn follow(&mut self, before: &Self) {
        let Some(rate) = self.prospect.per_second else { return };
        let passed = self.at.duration_since(before.at).as_secs_f64();
        let lined = (self.waiting - before.waiting).max(0.0);
        self.let_in = (before.let_in - lined - rate * passed).max(0.0);
    }
}

/// One look at each of these tiers.
pub(super) async fn look(store: &Store, known: &Known, tiers: &[Arc<str>]) -> Result<Vec<TierLook>, Error> {
    let at = Instant::now();
    let names: Vec<String> = tiers.iter().map(ToString::to_string).collect();
    let services = store.services();
    let borrowed: Vec<&str> = tiers.iter().map(|tier| &**tier).collect();
    let (lines, states) = tokio::try_join!(lines(store, &names), services.states(&borrowed))?;
    let asked: Vec<Forecast<'_>> = borrowed
        .iter()
        .map(|tier| Forecast { tier, waiting: lines.get(*tier).map_or(0, |line| line.0), unused: 0 })
        .collect();
    let outlooks = services.forecast(Duration::ZERO, false, &asked).await?;
    let none = TierRules::default();
    let rows = borrowed.iter().zip(outlooks).zip(states);
    Ok(rows
        .map(|((tier, outlook), state)| {
            let (waiting, oldest) = lines.get(*tier).copied().unwrap_or_default();
            let rules = known.rules_of(tier).unwrap_or(&none);
            TierLook {
                at,
                prospect: prospect(rules, state.as_ref(), &outlook, waiting),
                allowance: f64::from(u32::try_from(outlook.allowance).unwrap_or(u32::MAX)),
                waiting: f64::from(u32::try_from(waiting).unwrap_or(u32::MAX)),
                oldest,
                let_in: 0.0,
            }
        })
        .collect())
}

/// How many wait in each line, over all partitions, and how long the oldest has.
async fn lines(store: &Store, tiers: &[String]) -> Result<HashMap<String, (u64, Option<Duration>)>, Error> {
    let of_partition = |partition: Partition| async move {
        let lengths = partition.line_lengths(tiers).await?;
        let rows = tiers.iter().zip(lengths).filter_map(|(tier, length)| Some((tier.clone(), length?)));
        let rows: Vec<(String, u64)> = rows.filter(|(_, length)| *length > 0).collect();
        if rows.is_empty() {
            return Ok::<_, Error>(Vec::new());
        }
        let lined: Vec<String> = rows.iter().map(|(tier, _)| tier.clone()).collect();
        let (oldest, now_ms) = tokio::try_join!(partition.oldest_in_lines(&lined), partition.now_ms())?;
        let ages = oldest
            .into_iter()
            .map(move |since| since.map(|since| Duration::from_millis(now_ms.saturating_sub(since))));
        Ok(rows.into_iter().zip(ages).collect::<Vec<_>>())
    };
    let mut all: HashMap<String, (u64, Option<Duration>)> = HashMap::new();
    for rows in try_join_all(store.partitions().iter().cloned().map(of_partition)).await? {
        for ((tier, length), age) in rows {
            let line = all.entry(tier).or_default();
            *line = (line.0 + length, line.1.max(age));
        }
    }
    Ok(all)
}
