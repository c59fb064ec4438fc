//! The same limits while everything goes wrong around them.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use tidemill_runtime::clock::Clock;
use tidemill_testkit::referee::{Change, Report, Rules};
use tokio::time::Instant;

use super::accuracy::{self, Seen};
use super::load::{Load, VENDOR, WINDOW};
use super::pool::{Crew, Pool};
use super::table::{Line, percent};
use crate::bench::Mode;

const LENGTH: Duration = Duration::from_secs(150);
const QUICK: Duration = Duration::from_secs(65);
/// Workers of each pool.
const WORKERS: usize = 8;
/// A worker dies so often.
const KILL_EVERY: Duration = Duration::from_secs(2);
/// The pool is told of a lower limit so long before the referee enforces it.
const TOLD_BEFORE: Duration = Duration::from_secs(1);

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Disturbance {
    Kills,
    Clocks,
    Restart,
    Halving,
}

impl Disturbance {
    const ALL: [Self; 4] = [Self::Kills, Self::Clocks, Self::Restart, Self::Halving];

    const fn name(self) -> &'static str {
        match self {
            Self::Kills => "a worker SIGKILLed every 2 s",
            Self::Clocks => "clocks of the workers an hour wrong, half of them ahead",
            Self::Restart => "Redis killed and started once (AOF everysec)",
            Self::Halving => "the limit halved in the middle",
        }
    }
}

pub(super) async fn show(quick: bool) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    if quick {
        let [kills, clocks, restart, halving] =
            Disturbance::ALL.map(|disturbance| one(disturbance, Load::Requests(600), QUICK));
        let (kills, clocks, restart, halving) = tokio::try_join!(kills, clocks, restart, halving)?;
        lines.extend([kills, clocks, restart, halving].into_iter().flatten());
        return Ok(lines);
    }
    for disturbance in Disturbance::ALL {
        let (small, large) = tokio::try_join!(
            one(disturbance, Load::Requests(600), LENGTH),
            one(disturbance, Load::Requests(10_000), LENGTH),
        )?;
        lines.extend(small);
        lines.extend(large);
    }
    Ok(lines)
}

async fn one(disturbance: Disturbance, load: Load, length: Duration) -> Result<Vec<Line>> {
    let mode = if disturbance == Disturbance::Restart { Mode::Aof } else { Mode::Off };
    // the stricter judge: what was used before counts in full against the lower limit
    let rules = Rules { change: Change::AtOnce, ..load.rules() };
    let mut pool = Pool::start(rules, mode).await?;
    pool.define(VENDOR, &load.definition(1)).await?;
    let conditions = format!("{WORKERS} workers, {} s, {}", length.as_secs(), disturbance.name());
    if disturbance == Disturbance::Clocks {
        let Some(library) = faketime() else {
            let line = Line::new(
                (load.name(), conditions),
                "≤ 100.00 %",
                "not measured: libfaketime is not installed",
                None,
            );
            return Ok(vec![line]);
        };
        for at in 0..WORKERS {
            let hour = if at % 2 == 0 { "+1h" } else { "-1h" };
            let variables =
                [("LD_PRELOAD", library), ("FAKETIME", hour), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
            let worker = pool.worker(&variables).await?;
            is_wrong(worker.said("timestamp")?)?;
            pool.workers.push(worker);
        }
    } else {
        pool.man(Crew::of(WORKERS)).await?;
    }
    accuracy::fill(&pool, load, length).await?;
    let halved = disturb(disturbance, load, &mut pool, length).await?;
    let stopped = pool.stop().await?;
    let seen = Seen::of(&pool, stopped).await?;
    let mut lines = match halved {
        Some(halved) => halved.lines(load, &seen, &conditions),
        None => seen.lines(load, &conditions),
    };
    lines.push(truth(&seen, load, &conditions));
    Ok(lines)
}

/// Where the library is that lies about the time.
fn faketime() -> Option<&'static str> {
    let places = [
        "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
        "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
        "/usr/lib64/faketime/libfaketimeMT.so.1",
        "/usr/lib/faketime/libfaketimeMT.so.1",
    ];
    places.into_iter().find(|place| Path::new(place).is_file())
}

/// Refuses to go on with a worker whose clock is right after all: nothing would be shown.
fn is_wrong(said: &str) -> Result<()> {
    let said: jiff::Timestamp = said.parse()?;
    let now = i64::try_from(Clock::system().wall_ms())?;
    let hours = (said.as_millisecond() - now) as f64 / 3_600_000.0;
    if (hours.abs() - 1.0).abs() > 0.1 {
        bail!("libfaketime is there, but the worker's clock is {hours:.3} h off and not an hour");
    }
    Ok(())
}

/// Lets it happen, for that long in all.
async fn disturb(
    disturbance: Disturbance,
    load: Load,
    pool: &mut Pool,
    length: Duration,
) -> Result<Option<Halved>> {
    let end = Instant::now() + length;
    let mut halved = None;
    match disturbance {
        Disturbance::Clocks => {}
        Disturbance::Kills => {
            let mut at = 0;
            while Instant::now() + KILL_EVERY < end {
                tokio::time::sleep(KILL_EVERY).await;
                let index = at % pool.workers.len();
                pool.workers[index].process.kill().await?;
                pool.workers[index] = pool.worker(&[]).await?;
                at += 1;
            }
        }
        Disturbance::Restart => {
            tokio::time::sleep(length / 2).await;
            pool.bench.server.restart().await?;
        }
        Disturbance::Halving => {
            tokio::time::sleep(length / 2).await;
            let told = pool.referee.elapsed();
            pool.define(VENDOR, &load.definition(2)).await?;
            tokio::time::sleep(TOLD_BEFORE).await;
            let enforced = pool.referee.elapsed();
            pool.referee.halve();
            halved = Some(Halved { told, enforced });
        }
    }
    tokio::time::sleep_until(end).await;
    if disturbance != Disturbance::Kills {
        for worker in &mut pool.workers {
            if !worker.process.is_running() {
                bail!("a worker has ended by itself: {}", worker.process.output());
            }
        }
    }
    Ok(halved)
}

/// When the pool was told of the lower limit, and when it held.
struct Halved {
    told: Duration,
    enforced: Duration,
}

impl Halved {
    /// When the lower limit lets anything go at all: what was used before it was told fills the window for a while.
    fn free(&self, report: &Report, limit: usize) -> Duration {
        let before = report.arrivals.partition_point(|arrival| arrival.at < self.enforced);
        let last = before.checked_sub(limit).and_then(|at| report.arrivals.get(at));
        last.map_or(self.enforced, |arrival| (arrival.at + WINDOW).max(self.enforced))
    }

    /// Use before and after apart: between the two nothing may be used.
    fn lines(&self, load: Load, seen: &Seen, conditions: &str) -> Vec<Line> {
        let report: &Report = &seen.report;
        let first = report.arrivals.first().map_or(Duration::ZERO, |first| first.at);
        let before = report.use_share(first, self.told).requests_share;
        let free = self.free(report, (load.calls_per_window() / 2) as usize);
        let after = report.use_share(free, seen.stopped).requests_share;
        let paused = free.saturating_sub(self.told).as_secs_f64();
        let worst = seen.worst();
        let what = format!("{}: fullest sliding window", load.name());
        vec![
            Line::new((what, conditions), "≤ 100.00 %", percent(worst), Some(worst <= 1.0)),
            Line::new(
                (
                    "… use of the limit, before the halving, and once the lower limit lets anything go",
                    conditions,
                ),
                "≥ 99 %",
                format!("{} and {} (nothing may go for {paused:.1} s)", percent(before), percent(after)),
                Some(before >= 0.99 && after >= 0.99),
            ),
            Line::new(
                ("… refused by the referee (429)", conditions),
                "0",
                report.violations.to_string(),
                Some(report.violations == 0),
            ),
        ]
    }
}

/// Grants of killed workers may have been used or not; nothing else may be unaccounted for.
fn truth(seen: &Seen, load: Load, conditions: &str) -> Line {
    let (counted, calls) = (seen.counted, seen.report.calls as u64);
    let accounted = calls + counted.unsent;
    let lost = counted.granted.saturating_sub(accounted);
    let is_met = accounted <= counted.granted && lost <= counted.open();
    let told = format!(
        "{} grants = {calls} calls + {} unsent + {lost} lost ({} grants whose end nobody told)",
        counted.granted,
        counted.unsent,
        counted.open()
    );
    Line::new(
        (format!("{}: grants and calls", load.name()), conditions),
        "all accounted for",
        told,
        Some(is_met),
    )
}
