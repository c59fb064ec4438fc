//! `tidemill service list`.

use tidemill_producer::services::{self, LimitView, TierView};

use crate::context::Context;
use crate::error::Outcome;
use crate::moment::duration;
use crate::table::{Cell, Style, Table, shortened};

/// List the services and the pool's own scopes, each with its state
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tidemill service list
  tidemill service list --json | jq 'select(.tiers[0].state != \"running\") | .name'")]
pub(crate) struct Arguments {}

pub(super) async fn run(context: &Context) -> Outcome {
    let mut table = Table::new(&[
        "SERVICE",
        "STATE",
        "LIMITS",
        ">CALLS",
        ">LINE",
        ">WAIT",
        "BACKPRESSURE",
        "TOOLS",
        "NOTE",
    ]);
    for service in services::list(&context.store).await? {
        if context.output.is_json() {
            context.output.document(&service);
            continue;
        }
        let Some(tier) = service.tiers.first() else { continue };
        let limits: Vec<String> = tier.limits.iter().map(limit).collect();
        table.row(vec![
            Cell::new(&service.name).style(Style::Bold),
            state(tier),
            Cell::new(limits.join(", ")),
            Cell::new(calls(tier)),
            tier.line.length.into(),
            Cell::new(wait(tier)),
            Cell::new(&service.backpressure),
            Cell::new(shortened(&service.tools.join(", "), 40)),
            service.problem.map_or_else(Cell::default, |problem| {
                Cell::new(format!("left out: {}", shortened(&problem, 80))).style(Style::Bad)
            }),
        ]);
    }
    context
        .output
        .listing(&table, "no service is defined; `tidemill service set --help` shows how to define one");
    Ok(())
}

/// `600 requests / 1 m 00 s`.
pub(super) fn limit(limit: &LimitView) -> String {
    let mark = match (limit.auto, limit.told) {
        (_, true) => " (told)",
        (true, false) => " (auto)",
        (false, false) => "",
    };
    format!("{} {} / {}{mark}", amount(limit.limit), limit.unit, duration(limit.window_ms))
}

/// A number without digits that nobody needs.
pub(super) fn amount(number: f64) -> String {
    if number.fract() == 0.0 || number.abs() >= 1_000.0 {
        format!("{number:.0}")
    } else {
        format!("{number:.1}")
    }
}

/// A state's word in its colour.
pub(super) fn state(tier: &TierView) -> Cell {
    let style = match tier.state.as_str() {
        "running" => Style::Good,
        "paused" | "half_open" | "disabled" => Style::Waiting,
        _ => Style::Bad,
    };
    Cell::new(&tier.state).style(style)
}

/// `3/50` calls at once, where there is a cap.
pub(super) fn calls(tier: &TierView) -> String {
    tier.concurrency.as_ref().map_or_else(String::new, |calls| format!("{}/{}", calls.used, calls.cap))
}

/// How long a call that comes now waits.
pub(super) fn wait(tier: &TierView) -> String {
    tier.expected_wait_ms.map_or_else(|| "no end".to_owned(), duration)
}
