//! A tenant with a hundred thousand jobs does not keep one with ten from its share.

use std::time::Duration;

use anyhow::{Result, bail};
use tidemill_testkit::referee::{Latency, Rules};
use tokio::time::Instant;

use super::load::{Load, VENDOR, WINDOW};
use super::pool::{Crew, Pool};
use super::table::Line;
use crate::bench::Mode;
use crate::queue::Info;

/// The limit of the service, a minute.
const LIMIT: u64 = 600;
/// Jobs of the small tenant.
const FEW: usize = 10;
/// Longest that anything may take.
const WITHIN: Duration = Duration::from_secs(180);

pub(super) async fn show(quick: bool) -> Result<Vec<Line>> {
    let many = if quick { 10_000 } else { 100_000 };
    let rules = Rules::default().requests(LIMIT, WINDOW).latency(Latency::Fixed(Duration::from_millis(20)));
    let mut pool = Pool::start(rules, Mode::Off).await?;
    pool.define(VENDOR, &Load::Requests(LIMIT).definition(1)).await?;
    pool.man(Crew::of(4)).await?;
    let mut connection = pool.bench.connect().await?;
    let before = Info::read(&mut connection).await?.memory()?;
    let start = Instant::now();
    add(&pool, many, "large").await?;
    let behind_added = Instant::now();
    add(&pool, FEW, "behind").await?;
    parked(&pool).await?;
    let parking = start.elapsed();
    let memory = Info::read(&mut connection).await?.memory()?.saturating_sub(before);
    let lined = pool.store.home().line_length(VENDOR).await?;
    let later_added = Instant::now();
    add(&pool, FEW, "later").await?;
    let later = served(&pool, "later", later_added).await?;
    let behind = served(&pool, "behind", behind_added).await?;
    pool.stop().await?;

    let share = Duration::from_secs_f64(FEW as f64 * 2.0 * WINDOW.as_secs_f64() / LIMIT as f64);
    let conditions = format!("4 workers, {LIMIT} requests/min, {many} jobs of one tenant, {FEW} of another");
    let aim = format!("≤ {:.1} s (twice its share's time)", 2.0 * share.as_secs_f64());
    let line = |what: &str, took: Duration| {
        let seen = format!("{:.2} s", took.as_secs_f64());
        Line::new((what, conditions.as_str()), aim.as_str(), seen, Some(took <= 2 * share))
    };
    let mut lines = vec![
        line("fairness: the small tenant comes when the large one's jobs are parked; served after", later),
        line("… it comes right behind them, before they are parked; served after", behind),
        Line::new(
            ("… parking the large tenant's jobs", conditions.as_str()),
            "",
            format!("{:.2} s, {:.0} jobs/s", parking.as_secs_f64(), lined as f64 / parking.as_secs_f64()),
            None,
        ),
        Line::new(
            ("… Redis memory of a parked job", conditions.as_str()),
            "",
            format!("{:.0} B", memory as f64 / lined.max(1) as f64),
            None,
        ),
    ];
    lines.push(pool.truth(&conditions).await?);
    Ok(lines)
}

async fn add(pool: &Pool, count: usize, tenant: &str) -> Result<()> {
    let url = format!("{}/{tenant}", pool.referee.url());
    pool.calls(0..count, |_| serde_json::json!({ "url": url }).to_string(), &[("tenant", tenant)]).await
}

/// Waits until no job is left in the queue itself.
async fn parked(pool: &Pool) -> Result<()> {
    let start = Instant::now();
    loop {
        let depth = pool.store.home().depth("default").await?;
        // a few have a ticket, and wait in workers
        if depth.ready + depth.running < 50 {
            return Ok(());
        }
        if start.elapsed() > WITHIN {
            bail!("after {WITHIN:?} jobs are still not parked: {depth:?}");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// How long it took from `since` until all few calls of a tenant had come.
async fn served(pool: &Pool, tenant: &str, since: Instant) -> Result<Duration> {
    let path = format!("/{tenant}");
    loop {
        let report = pool.referee.report();
        let mut calls = report.arrivals.iter().filter(|arrival| *arrival.path == *path);
        if let Some(last) = calls.nth(FEW - 1) {
            let ago = pool.referee.elapsed().saturating_sub(last.at);
            return Ok(since.elapsed().saturating_sub(ago));
        }
        if since.elapsed() > WITHIN {
            bail!("the calls of tenant {tenant:?} did not come within {WITHIN:?}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
