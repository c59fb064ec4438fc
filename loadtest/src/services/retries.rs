//! Retries make nothing worse: a service that fails half of its calls gets a tenth more of them, not twice as many.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use tidemill_testkit::referee::{Fault, Latency, Report, Rules};

use super::load::VENDOR;
use super::pool::{Crew, Pool};
use super::table::{Line, percent};
use crate::bench::Mode;
use crate::samples::quantile;

/// First attempts a second: retries are earned while they go on.
const PER_SECOND: usize = 250;
const WITHIN: Duration = Duration::from_secs(120);

pub(super) async fn show(quick: bool) -> Result<Vec<Line>> {
    let jobs = PER_SECOND * if quick { 4 } else { 40 };
    let latency = Latency::Fixed(Duration::from_millis(10));
    let rules = Rules::default().failing(0.5, Fault::ERROR).latency(latency).seed(7);
    let mut pool = Pool::start(rules, Mode::Off).await?;
    let definition = json!({
        "tools": ["http.request"],
        "breaker": { "enabled": false },
        "retry": { "base_ms": 10, "max_ms": 100, "max_attempts": 20 },
        "retry_budget": { "ratio": 0.1, "min_per_second": 0.0, "burst": 1.0, "when_spent": "fail" },
    });
    pool.define(VENDOR, &definition).await?;
    pool.man(Crew::of(4)).await?;
    let url = pool.referee.url();
    let input = |id| json!({ "url": format!("{url}/{id}") }).to_string();
    pool.steady(("http.request", PER_SECOND, jobs), input).await?;
    pool.drained(WITHIN).await?;
    let report = pool.referee.report();
    let mut took = successes(&report);
    let ratio = report.calls as f64 / jobs as f64;
    let conditions = format!(
        "4 workers, {jobs} jobs at {PER_SECOND}/s, half of all calls fail, up to 20 attempts, budget 0.1 with `when_spent: fail`"
    );
    let [half, most] = [0.5, 0.99].map(|share| quantile(&mut took, share));
    let good = format!(
        "p50 {half:.1} ms, p99 {most:.1} ms; {} of the jobs succeeded",
        percent(took.len() as f64 / jobs as f64)
    );
    Ok(vec![
        Line::new(
            ("retries: calls for each first attempt", conditions.as_str()),
            "≤ 1.1",
            format!("{ratio:.4} ({} calls)", report.calls),
            // the budget begins with one retry that nobody earned
            Some(report.calls as f64 <= 1.1 * jobs as f64 + 1.0),
        ),
        Line::new(("… first attempt to success", conditions.as_str()), "stated", good, None),
        pool.truth(&conditions).await?,
    ])
}

/// From a job's first call to its good answer, in milliseconds; each job has a path of its own.
pub(super) fn successes(report: &Report) -> Vec<f64> {
    let mut jobs: HashMap<Arc<str>, (Duration, Option<Duration>)> = HashMap::new();
    for arrival in &report.arrivals {
        let job = jobs.entry(Arc::clone(&arrival.path)).or_insert((arrival.at, None));
        if arrival.status == Some(200) {
            // of two answers the first counts
            job.1 = match (job.1, arrival.ended) {
                (Some(known), Some(ended)) => Some(known.min(ended)),
                (known, ended) => known.or(ended),
            };
        }
    }
    let took = |(from, to): &(Duration, Option<Duration>)| {
        Some(to.as_ref()?.saturating_sub(*from).as_secs_f64() * 1e3)
    };
    jobs.values().filter_map(took).collect()
}
