//! A second call when the first is late: what it cuts off the tail, and what it costs.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use tidemill_testkit::referee::{Latency, Rules};

use super::load::VENDOR;
use super::pool::{Crew, Pool};
use super::retries::successes;
use super::table::{Line, percent};
use crate::bench::Mode;
use crate::samples::quantile;

/// Calls a second.
const PER_SECOND: usize = 100;
/// The most hedges for each call.
const MOST: f64 = 0.05;
const WITHIN: Duration = Duration::from_secs(30);

/// What one run gave.
struct Tail {
    /// p50, p95, p99 in milliseconds.
    quantiles: [f64; 3],
    /// Calls beyond one for each job, as a share.
    extra: f64,
    truth: Line,
}

pub(super) async fn show(quick: bool) -> Result<Vec<Line>> {
    let jobs = PER_SECOND * if quick { 8 } else { 60 };
    let conditions = format!(
        "2 workers, {jobs} calls at {PER_SECOND}/s, latency Pareto from 10 ms (shape 1.1, at most 2 s)"
    );
    let usual = json!({ "tools": ["http.request"], "breaker": { "enabled": false } });
    let mut hedged = usual.clone();
    hedged["hedge"] = json!({ "after": "p95", "max_ratio": MOST });
    let (without, with) = tokio::try_join!(one(&usual, jobs, &conditions), one(&hedged, jobs, &conditions))?;
    let text = |tail: &Tail| {
        let [half, late, last] = tail.quantiles;
        format!("p50 {half:.1} ms, p95 {late:.1} ms, p99 {last:.1} ms")
    };
    let cut = 1.0 - with.quantiles[2] / without.quantiles[2].max(f64::MIN_POSITIVE);
    Ok(vec![
        Line::new(("hedging: latency without", conditions.as_str()), "", text(&without), None),
        Line::new(
            ("… with a hedge after p95", conditions.as_str()),
            "p99 lower",
            format!("{}; p99 cut by {}", text(&with), percent(cut)),
            Some(cut > 0.0),
        ),
        Line::new(
            ("… extra calls", conditions.as_str()),
            format!("≤ {}", percent(MOST)),
            percent(with.extra),
            Some(with.extra <= MOST),
        ),
        with.truth,
    ])
}

async fn one(definition: &Value, jobs: usize, conditions: &str) -> Result<Tail> {
    let latency = Latency::HeavyTailed {
        least: Duration::from_millis(10),
        shape: 1.1,
        at_most: Duration::from_secs(2),
    };
    let mut pool = Pool::start(Rules::default().latency(latency).seed(11), Mode::Off).await?;
    pool.define(VENDOR, definition).await?;
    pool.man(Crew::of(2)).await?;
    let url = pool.referee.url();
    let input = |id| json!({ "url": format!("{url}/{id}") }).to_string();
    pool.steady(("http.request", PER_SECOND, jobs), input).await?;
    pool.drained(WITHIN).await?;
    let truth = pool.truth(conditions).await?;
    let report = pool.referee.report();
    let mut took = successes(&report);
    Ok(Tail {
        quantiles: [0.5, 0.95, 0.99].map(|share| quantile(&mut took, share)),
        extra: report.calls as f64 / jobs as f64 - 1.0,
        truth,
    })
}
