//! A service that fails for a while: the pool leaves it alone, asks now and then, and comes back at once and gently.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use tidemill_testkit::referee::{Arrival, Fault, Latency, Report, Rules};

use super::load::VENDOR;
use super::pool::{Crew, Pool};
use super::table::{Line, percent};
use crate::bench::Mode;
use crate::queue::ask;

/// The limit: so many requests in this window.
const LIMIT: (u64, Duration) = (500, Duration::from_secs(5));
const WORKERS: usize = 16;
/// Probes of the whole pool in each half-open period.
const PROBES: usize = 3;
const OPEN: Duration = Duration::from_secs(2);
/// The longest open period, without the tenth that is added at random.
const LONGEST_OPEN: Duration = Duration::from_secs(4);
/// The way from a grant to the service: calls of so long after an opening were granted before it.
const WAY: Duration = Duration::from_millis(30);
/// Full rate: so much of the limit within a second.
const FULL: f64 = 0.95;

/// A move of the breaker, by the referee's clock.
struct Move {
    at: Duration,
    to: String,
}

pub(super) async fn show(quick: bool) -> Result<Vec<Line>> {
    let [before, failing, after] = if quick { [3, 8, 9] } else { [10, 20, 20] }.map(Duration::from_secs);
    let (limit, window) = LIMIT;
    let per_second = limit as f64 / window.as_secs_f64();
    let rules = Rules::default().requests(limit, window).latency(Latency::Fixed(Duration::from_millis(20)));
    let mut pool = Pool::start(rules, Mode::Off).await?;
    let window_ms = window.as_millis();
    let definition = json!({
        "tools": ["http.request"],
        "limits": [{ "unit": "requests", "limit": limit, "window_ms": window_ms, "slack_ms": 100 }],
        "breaker": { "open_ms": OPEN.as_millis(), "max_open_ms": LONGEST_OPEN.as_millis(), "probes": PROBES },
        "retry": { "base_ms": 100, "max_ms": 1_000, "max_attempts": 10 },
    });
    pool.define(VENDOR, &definition).await?;
    pool.man(Crew::of(WORKERS)).await?;
    let jobs = ((before + failing + after).as_secs_f64() * per_second * 1.3) as usize;
    let url = pool.referee.url();
    pool.calls(0..jobs, |id| json!({ "url": format!("{url}/{id}") }).to_string(), &[]).await?;
    pool.referee.await_calls(1).await;
    tokio::time::sleep(before).await;
    let healed = pool.referee.fail_for(failing, Fault::ERROR) + failing;
    tokio::time::sleep(failing + after).await;
    pool.stop().await?;
    let report = pool.referee.report();
    let moves = moves(&pool).await?;
    let conditions = format!(
        "{WORKERS} workers at {per_second:.0}/s, failing for {} s, open {} s to {} s, {PROBES} probes",
        failing.as_secs(),
        OPEN.as_secs(),
        LONGEST_OPEN.as_secs()
    );
    let mut lines = while_open(&report, &moves, &conditions);
    lines.extend(recovery(&report, &moves, (healed, per_second), &conditions));
    lines.extend(burnt(&pool, &report, &conditions).await?);
    lines.push(pool.truth(&conditions).await?);
    Ok(lines)
}

/// What the breaker did, oldest first.
async fn moves(pool: &Pool) -> Result<Vec<Move>> {
    let mut connection = pool.bench.connect().await?;
    let elapsed = pool.referee.elapsed();
    let (seconds, micros): (u64, u64) = ask(&mut connection, &["TIME"]).await?;
    let started_ms = (seconds * 1_000 + micros / 1_000) as f64 - elapsed.as_secs_f64() * 1e3;
    let mut history = pool.store.services().history(None, 1_000).await?;
    history.retain(|change| change.kind == "breaker");
    history.reverse();
    Ok(history
        .into_iter()
        .map(|change| Move {
            at: Duration::from_secs_f64(((change.at_ms as f64 - started_ms) / 1e3).max(0.0)),
            to: change.to,
        })
        .collect())
}

/// Calls while it was open, and in each half-open period.
fn while_open(report: &Report, moves: &[Move], conditions: &str) -> Vec<Line> {
    let (mut open, mut openings, mut most, mut periods) = (0, 0, 0, 0);
    for (at, one) in moves.iter().enumerate() {
        let until = moves.get(at + 1).map_or(report.until, |next| next.at);
        match one.to.as_str() {
            "open" => {
                openings += 1;
                // it turns half-open with the first grant, whose call is then on its way
                open += report.between(one.at + WAY, until.saturating_sub(Duration::from_millis(2))).count();
            }
            "half_open" => {
                periods += 1;
                most =
                    most.max(report.between(one.at.saturating_sub(Duration::from_millis(2)), until).count());
            }
            _ => {}
        }
    }
    vec![
        Line::new(
            ("breaker: calls while open", conditions),
            "0",
            format!("{open} in {openings} openings"),
            Some(open == 0 && openings > 0),
        ),
        Line::new(
            ("… calls in a half-open period, at most", conditions),
            format!("≤ {PROBES}, the probes"),
            format!("{most} in {periods} periods"),
            Some(most <= PROBES && periods > 0),
        ),
    ]
}

/// How soon the limit is used again, and that it is kept then.
fn recovery(
    report: &Report,
    moves: &[Move],
    (healed, per_second): (Duration, f64),
    conditions: &str,
) -> Vec<Line> {
    let closed = moves.iter().rev().find(|one| one.to == "closed").map(|one| one.at);
    let second = Duration::from_secs(1);
    let is_full = |arrival: &&Arrival| {
        report.between(arrival.at, arrival.at + second).count() as f64 >= FULL * per_second
    };
    let mut since = report.between(healed, report.until);
    let full = since.find(is_full).map(|arrival| arrival.at.saturating_sub(healed));
    let period = LONGEST_OPEN.mul_f64(1.1);
    let seen = full.map_or_else(
        || "never".to_owned(),
        |full| {
            let closed = closed.map_or(0.0, |closed| (healed + full).saturating_sub(closed).as_secs_f64());
            format!("{:.2} s ({closed:.2} s after it closed)", full.as_secs_f64())
        },
    );
    let worst = report.worst_window_of(|arrival| arrival.at >= healed).requests_share;
    vec![
        Line::new(
            ("… full rate again after the service has healed", conditions),
            format!("≤ {:.1} s (one open period)", period.as_secs_f64()),
            seen,
            Some(full.is_some_and(|full| full <= period)),
        ),
        Line::new(
            ("… fullest window after that; in all; 429s", conditions),
            "≤ 100.00 %; 0",
            format!(
                "{}; {}; {}",
                percent(worst),
                percent(report.worst_window.requests_share),
                report.violations
            ),
            Some(report.worst_window.requests_share <= 1.0 && report.violations == 0),
        ),
    ]
}

/// Attempts that were counted without a call having been made.
async fn burnt(pool: &Pool, report: &Report, conditions: &str) -> Result<Vec<Line>> {
    let attempts = pool.metric("tidemill_worker_attempts_total", "").await? as usize;
    let letters = pool.store.home().letters(None, 10).await?.len();
    let most = report.per_idempotency_key().into_values().max().unwrap_or(0);
    let seen = format!(
        "{attempts} attempts, {} calls; {letters} jobs failed; {most} calls of one job at most",
        report.calls
    );
    let what = "… attempts without a call (waiting for the breaker costs none)";
    let is_met = attempts == report.calls && letters == 0;
    Ok(vec![Line::new((what, conditions), "0; 0 jobs failed", seen, Some(is_met))])
}
