//! `tidemill service show`.

use tidemill_producer::services::{self, BreakerView, ServiceView, TierView};

use super::list::{amount, limit, state, wait};
use super::set::told_keys;
use crate::context::Context;
use crate::error::Outcome;
use crate::moment::{duration, moment};
use crate::output::Output;
use crate::table::{Cell, Style, Table, printable};
use crate::waiting::pretty;

/// Show a service: what is used of its limits, its breaker, its lines, its counters, its definition
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tidemill service show openai
  tidemill service show openai --tier openai/tenant:acme --json | jq .tiers")]
pub(crate) struct Arguments {
    /// Its name
    name: String,
    /// A tier to show besides; else its own, those with rules of their own, and those with a line
    #[arg(long = "tier", value_name = "TIER")]
    tiers: Vec<String>,
}

pub(super) async fn run(context: &Context, arguments: Arguments) -> Outcome {
    let Arguments { name, tiers } = arguments;
    let Some(service) = services::show(&context.store, &name, &tiers).await? else {
        // tells which is the nearest
        services::definition(&context.store, &name).await?;
        return Ok(());
    };
    if context.output.is_json() {
        context.output.document(&service);
        return Ok(());
    }
    context.output.text(&picture(context.output, &service));
    Ok(())
}

fn picture(output: Output, service: &ServiceView) -> String {
    let mut text = head(output, service);
    text.push_str(&tiers(service).render(output.has_color()));
    let limits = limits(service);
    if !limits.is_empty() {
        text.push('\n');
        text.push_str(&limits.render(output.has_color()));
    }
    text.push('\n');
    for tier in &service.tiers {
        text.push_str(&facts(tier));
    }
    if !service.learned.is_empty() {
        let mut table = Table::new(&["TOOL", "MODEL", "UNIT", ">P99"]);
        for learned in &service.learned {
            table.row(vec![
                Cell::new(&learned.tool),
                Cell::new(learned.model.as_deref().unwrap_or("-")),
                Cell::new(&learned.unit),
                Cell::new(amount(learned.p99)),
            ]);
        }
        text.push('\n');
        text.push_str(&table.render(output.has_color()));
    }
    if let Some(definition) = &service.definition {
        text.push_str(&format!("\ndefinition  {}\n", pretty(&told_keys(definition).to_string())));
    }
    text
}

fn head(output: Output, service: &ServiceView) -> String {
    let mut text = format!("service {}", output.styled(&printable(&service.name), Style::Bold));
    if let Some(description) = &service.description {
        text.push_str(&format!("  {}", printable(description)));
    }
    text.push('\n');
    if !service.tools.is_empty() {
        text.push_str(&format!("tools         {}\n", printable(&service.tools.join(", "))));
    }
    if !service.name.starts_with('@') {
        text.push_str(&format!("backpressure  {}\n", service.backpressure));
    }
    if let Some(problem) = &service.problem {
        let problem = format!("left out      {}", printable(problem));
        text.push_str(&format!("{}\n", output.styled(&problem, Style::Bad)));
    }
    text.push('\n');
    text
}

fn tiers(service: &ServiceView) -> Table {
    let mut table = Table::new(&[
        "TIER", "STATE", "UNTIL", ">LATENCY", ">PACE/S", ">LINE", ">OLDEST", ">WAIT", "BOUND BY",
    ]);
    for tier in &service.tiers {
        let until = tier.state_until_ms.map_or_else(String::new, moment);
        table.row(vec![
            Cell::new(&tier.tier),
            state(tier),
            Cell::new(until),
            Cell::new(tier.latency_ms.map_or_else(String::new, |ms| format!("{} ms", amount(ms)))),
            Cell::new(tier.per_second.map_or_else(String::new, amount)),
            tier.line.length.into(),
            Cell::new(tier.line.oldest_ms.map_or_else(String::new, duration)),
            Cell::new(wait(tier)),
            Cell::new(tier.bound_by.as_deref().unwrap_or_default()),
        ]);
    }
    table
}

fn limits(service: &ServiceView) -> Table {
    let mut table = Table::new(&["TIER", "LIMIT", "CONTRACT", ">USED", ">OF", ">USE", "MEASURE"]);
    for tier in &service.tiers {
        for one in &tier.limits {
            table.row(vec![
                Cell::new(&tier.tier),
                Cell::new(limit(one)),
                Cell::new(&one.contract),
                Cell::new(amount(one.used)),
                Cell::new(amount(one.of)),
                percent(one.used, one.of),
                Cell::new(one.measure),
            ]);
        }
        if let Some(calls) = &tier.concurrency {
            let [used, cap] =
                [calls.used, calls.cap].map(|n| f64::from(u32::try_from(n).unwrap_or(u32::MAX)));
            table.row(vec![
                Cell::new(&tier.tier),
                Cell::new(format!("{} calls at once", calls.cap)),
                Cell::new("concurrency"),
                calls.used.into(),
                calls.cap.into(),
                percent(used, cap),
                Cell::new("now"),
            ]);
        }
    }
    table
}

/// A share in its colour.
pub(super) fn percent(used: f64, of: f64) -> Cell {
    if of <= 0.0 {
        return Cell::default();
    }
    let share = used / of * 100.0;
    let style = if share >= 99.0 {
        Style::Bad
    } else if share >= 80.0 {
        Style::Waiting
    } else {
        Style::Plain
    };
    Cell::new(format!("{share:.0} %")).style(style)
}

/// Breaker, budget and counters, a line each.
fn facts(tier: &TierView) -> String {
    let mut text = String::new();
    let mut line = |what: &str, words: String| {
        text.push_str(&format!("{what:<9} {}: {words}\n", printable(&tier.tier)));
    };
    if let Some(why) = &tier.state_why {
        line("paused", printable(why));
    }
    if let Some(breaker) = &tier.breaker {
        line("breaker", breaker_words(breaker));
    }
    if let Some(budget) = &tier.retry_budget {
        let [tokens, burst] = [budget.tokens, budget.burst].map(amount);
        line("retries", format!("{tokens} of {burst} saved up; each first attempt earns {}", budget.ratio));
    }
    if !tier.counters.is_empty() {
        let words: Vec<String> = tier.counters.iter().map(|(word, n)| format!("{word} {n}")).collect();
        line("counted", printable(&words.join(", ")));
    }
    text
}

fn breaker_words(breaker: &BreakerView) -> String {
    let BreakerView { calls, failures, slow, min_calls, failure_ratio, .. } = breaker;
    let window = format!("{failures} of {calls} calls in its window failed, {slow} slow");
    match breaker.state.as_str() {
        "open" => {
            let until = breaker.open_until_ms.map_or_else(String::new, |at| format!(" until {}", moment(at)));
            format!("open{until}, opened {} times in a row", breaker.openings)
        }
        "half_open" => {
            let [granted, all] = breaker.probes.unwrap_or_default();
            format!("half open, {granted} of {all} probes are sent")
        }
        "closed" => {
            format!("closed; {window}; it opens at {:.0} % of {min_calls} or more", failure_ratio * 100.0)
        }
        other => format!("{other}; {window}"),
    }
}
