//! A limit is never exceeded and always used, however many workers share it.

use std::time::Duration;

use anyhow::Result;
use tidemill_testkit::referee::Report;

use super::load::{Load, VENDOR};
use super::pool::{Counted, Crew, Pool};
use super::table::{Line, percent};
use crate::bench::Mode;

/// The longest window and a half: long enough that windows are full and slide.
const LENGTH: Duration = Duration::from_secs(150);
/// A window and a quarter.
const QUICK: Duration = Duration::from_secs(75);

pub(super) async fn show(quick: bool) -> Result<Vec<Line>> {
    let length = if quick { QUICK } else { LENGTH };
    let crews = [Crew::of(1), Crew::of(8), Crew { processes: 16, each: 4 }];
    let mut lines = Vec::new();
    for crew in crews.into_iter().skip(usize::from(quick)).take(if quick { 1 } else { 3 }) {
        let (small, large, together) = tokio::try_join!(
            one(Load::Requests(600), crew, length),
            one(Load::Requests(10_000), crew, length),
            one(Load::Together, crew, length),
        )?;
        lines.extend([small, large, together].into_iter().flatten());
    }
    Ok(lines)
}

/// A pool whose queue never runs empty, watched for a while.
async fn one(load: Load, crew: Crew, length: Duration) -> Result<Vec<Line>> {
    let mut pool = Pool::start(load.rules(), Mode::Off).await?;
    pool.define(VENDOR, &load.definition(1)).await?;
    pool.man(crew).await?;
    fill(&pool, load, length).await?;
    tokio::time::sleep(length).await;
    let stopped = pool.stop().await?;
    let seen = Seen::of(&pool, stopped).await?;
    let conditions = format!("{}, {} s", crew.name(), length.as_secs());
    let mut lines = seen.lines(load, &conditions);
    lines.push(pool.truth(&conditions).await?);
    lines.push(pool.asking(&conditions).await?);
    Ok(lines)
}

/// More calls than can be made in that time.
pub(super) async fn fill(pool: &Pool, load: Load, length: Duration) -> Result<()> {
    let windows = length.as_secs_f64() / super::load::WINDOW.as_secs_f64();
    let count = (load.calls_per_window() as f64 * windows * 1.3) as usize + 100;
    let url = pool.referee.url();
    pool.calls(0..count, |id| load.input(&url, id), &[]).await
}

/// What the referee and the tier say at the end.
pub(super) struct Seen {
    pub(super) report: Report,
    pub(super) stopped: Duration,
    pub(super) counted: Counted,
}

impl Seen {
    pub(super) async fn of(pool: &Pool, stopped: Duration) -> Result<Self> {
        Ok(Self { report: pool.referee.report(), stopped, counted: pool.counted(VENDOR).await? })
    }

    /// The fullest window of any unit.
    pub(super) fn worst(&self) -> f64 {
        self.report.worst_window.requests_share.max(self.report.worst_window.tokens_share)
    }

    /// How much of the tightest limit was used, from the first call to the end.
    pub(super) fn used(&self) -> f64 {
        let first = self.report.arrivals.first().map_or(Duration::ZERO, |first| first.at);
        let used = self.report.use_share(first, self.stopped);
        used.requests_share.max(used.tokens_share)
    }

    pub(super) fn lines(&self, load: Load, conditions: &str) -> Vec<Line> {
        let Self { report, .. } = self;
        let (worst, used) = (self.worst(), self.used());
        let mut full = percent(worst);
        if load == Load::Together {
            full = format!(
                "{} of requests, {} of tokens, {} at once",
                percent(report.worst_window.requests_share),
                percent(report.worst_window.tokens_share),
                report.most_concurrent
            );
        }
        let stalled =
            format!("{conditions}; referee's longest stall {:.0} ms", report.worst_stall.as_secs_f64() * 1e3);
        vec![
            Line::new(
                (format!("{}: fullest sliding window", load.name()), stalled),
                "≤ 100.00 %",
                full,
                Some(worst <= 1.0),
            ),
            Line::new(
                ("… use of the limit, first call to last", conditions),
                "≥ 99 %",
                format!("{} ({} calls)", percent(used), report.calls),
                Some(used >= 0.99),
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
