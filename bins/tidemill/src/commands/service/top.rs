//! `tidemill service top`: services as they live.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use tidemill_producer::services::{self, TierView};
use tokio::time::Instant;

use super::list::{amount, calls, state, wait};
use super::show::percent;
use crate::context::Context;
use crate::error::Outcome;
use crate::moment::moment;
use crate::table::{Cell, Style, Table};

/// Watch all services: calls granted and ended in a second, use, lines, waits, breakers
///
/// Drawn anew on a terminal, one table a round elsewhere, one JSON document a round with --json. Rates are those of the last round.
/// Ctrl-C ends it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tidemill service top
  tidemill service top --once
  tidemill service top --json | jq '.services[] | {tier, granted_per_s, use_percent}'")]
pub(crate) struct Arguments {
    /// One round alone
    #[arg(long)]
    once: bool,
    /// The time of a round, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(50..=3_600_000))]
    every_ms: u64,
}

/// One round.
#[derive(Debug, Serialize)]
struct Round {
    at_ms: u64,
    services: Vec<Row>,
}

/// A tier, and what happened since the round before; `null` where that did not show it.
#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    tier: TierView,
    granted_per_s: Option<f64>,
    waits_per_s: Option<f64>,
    ok_per_s: Option<f64>,
    failed_per_s: Option<f64>,
    throttled_per_s: Option<f64>,
    /// The share of its tightest limit that is used.
    use_percent: Option<f64>,
}

type Counted = BTreeMap<String, BTreeMap<String, u64>>;

pub(super) async fn run(context: &Context, arguments: &Arguments) -> Outcome {
    let every = Duration::from_millis(arguments.every_ms);
    let mut rounds = tokio::time::interval(every);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    rounds.tick().await;
    let mut before = counted(&services::overview(&context.store).await?);
    let (mut since, mut lines) = (Instant::now(), 0);
    loop {
        rounds.tick().await;
        let tiers = services::overview(&context.store).await?;
        let now = Instant::now();
        let passed = now.duration_since(since).as_secs_f64().max(0.001);
        let counts = counted(&tiers);
        let rows = tiers.into_iter().map(|tier| row(tier, &before, passed)).collect();
        let round = Round { at_ms: context.store.home().now_ms().await?, services: rows };
        lines = show(context, &round, lines);
        if arguments.once {
            return Ok(());
        }
        (before, since) = (counts, now);
    }
}

fn counted(tiers: &[TierView]) -> Counted {
    tiers.iter().map(|tier| (tier.tier.clone(), tier.counters.clone())).collect()
}

fn row(tier: TierView, before: &Counted, passed: f64) -> Row {
    let known = before.get(&tier.tier);
    let rate = |word: &str| {
        let count = |counters: &BTreeMap<String, u64>| counters.get(word).copied().unwrap_or(0);
        // after a reset counting begins anew
        let more = count(&tier.counters).saturating_sub(count(known?));
        Some(f64::from(u32::try_from(more).unwrap_or(u32::MAX)) / passed)
    };
    let granted_per_s = rate("granted");
    Row {
        granted_per_s,
        waits_per_s: rate("waits"),
        ok_per_s: rate("ok"),
        failed_per_s: rate("failed"),
        throttled_per_s: rate("throttled"),
        use_percent: use_percent(&tier, granted_per_s),
        tier,
    }
}

#[expect(clippy::cast_precision_loss, reason = "windows are below 2^53 ms")]
fn use_percent(tier: &TierView, granted_per_s: Option<f64>) -> Option<f64> {
    let of_limits = tier.limits.iter().filter_map(|limit| {
        // a burst says nothing about the rate; grants do
        if limit.measure == "burst" && limit.unit == "requests" {
            Some(granted_per_s? * limit.window_ms as f64 / 1_000.0 / limit.limit)
        } else {
            Some(limit.used / limit.of)
        }
    });
    let of_cap = tier.concurrency.as_ref().map(|calls| calls.used as f64 / calls.cap as f64);
    of_limits.chain(of_cap).filter(|share| share.is_finite()).reduce(f64::max).map(|share| share * 100.0)
}

fn rate(per_s: Option<f64>) -> Cell {
    per_s.map_or_else(Cell::default, |per_s| Cell::new(amount(per_s)))
}

/// Shows a round in the place of the one before, which had so many lines; gives its own.
fn show(context: &Context, round: &Round, before: usize) -> usize {
    let output = context.output;
    if output.is_json() {
        output.document(round);
        return 0;
    }
    let mut picture = format!("{}  {} services and tiers\n", moment(round.at_ms), round.services.len());
    picture.push_str(&table(round).render(output.has_color()));
    if output.is_live() {
        return output.redraw(&picture, before);
    }
    picture.push('\n');
    output.text(&picture);
    0
}

fn table(round: &Round) -> Table {
    let mut table = Table::new(&[
        "SERVICE",
        "STATE",
        ">GRANTED/S",
        ">WAITS/S",
        ">OK/S",
        ">FAILED/S",
        ">429/S",
        ">USE",
        ">CALLS",
        ">LINE",
        ">WAIT",
        "BREAKER",
    ]);
    for row in &round.services {
        let tier = &row.tier;
        let breaker = tier.breaker.as_ref().map_or_else(String::new, |breaker| {
            format!("{} {}/{}", breaker.state, breaker.failures, breaker.calls)
        });
        table.row(vec![
            Cell::new(&tier.tier).style(Style::Bold),
            state(tier),
            rate(row.granted_per_s),
            rate(row.waits_per_s),
            rate(row.ok_per_s),
            rate(row.failed_per_s),
            rate(row.throttled_per_s),
            row.use_percent.map_or_else(Cell::default, |share| percent(share, 100.0)),
            Cell::new(calls(tier)),
            tier.line.length.into(),
            Cell::new(wait(tier)),
            Cell::new(breaker),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Counted, row};
    use tidemill_producer::services::{LimitView, LineView, TierView};

    fn tier(granted: u64) -> TierView {
        let limit = LimitView {
            unit: "requests".to_owned(),
            contract: "strict".to_owned(),
            limit: 600.0,
            configured: 600,
            auto: false,
            told: false,
            window_ms: 60_000,
            measure: "burst",
            used: 2.0,
            of: 2.0,
        };
        TierView {
            tier: "openai".to_owned(),
            state: "running".to_owned(),
            state_why: None,
            state_until_ms: None,
            limits: vec![limit],
            concurrency: None,
            breaker: None,
            retry_budget: None,
            counters: BTreeMap::from([("granted".to_owned(), granted)]),
            latency_ms: None,
            per_second: None,
            line: LineView::default(),
            expected_wait_ms: Some(0),
            bound_by: None,
        }
    }

    fn after(granted: u64) -> Counted {
        BTreeMap::from([("openai".to_owned(), tier(granted).counters)])
    }

    #[test]
    fn rates_are_what_was_added_in_a_round() {
        let row = row(tier(110), &after(100), 2.0);
        assert_eq!((row.granted_per_s, row.ok_per_s), (Some(5.0), Some(0.0)));
        assert_eq!(row.use_percent, Some(50.0), "5 of 10 a second");
    }

    #[test]
    fn what_was_not_there_before_has_no_rate_and_after_a_reset_it_begins_anew() {
        let new = row(tier(110), &Counted::new(), 1.0);
        assert_eq!((new.granted_per_s, new.use_percent), (None, None));
        assert_eq!(row(tier(3), &after(100), 1.0).granted_per_s, Some(0.0));
    }
}
