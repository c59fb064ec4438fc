//! What waits for one service does not hold up another.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::json;
use tidemill_policy::service::Definition;
use tidemill_tool::{Call, Payload, Registry, Tool, ToolFuture};
use tokio::time::Instant;

use super::load::VENDOR;
use super::pool::AUTHOR;
use super::table::Line;
use crate::bench::{Bench, Mode};
use crate::queue::{JOBS, fill};
use crate::samples::quantile;
use crate::stamp::{STAMP, Stamp, beside};

/// The limited tool.
const LIMITED: &str = "limited";
/// How long it takes.
const TAKES: Duration = Duration::from_millis(100);
/// The most calls of it at once.
const CAP: usize = 2;
const WITHIN: Duration = Duration::from_secs(60);
/// Other jobs a second, and how many.
const OTHERS: (usize, usize) = (100, 500);

/// A tool that takes a while and notes how many run at once.
#[derive(Debug, Default)]
struct Limited {
    running: AtomicUsize,
    most: AtomicUsize,
    calls: AtomicUsize,
}

impl Tool for Limited {
    fn kind(&self) -> &'static str {
        "inline"
    }

    fn call(self: Arc<Self>, _: Call) -> ToolFuture {
        Box::pin(async move {
            let running = self.running.fetch_add(1, Ordering::Relaxed) + 1;
            self.most.fetch_max(running, Ordering::Relaxed);
            self.calls.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(TAKES).await;
            self.running.fetch_sub(1, Ordering::Relaxed);
            Ok(Payload::null())
        })
    }
}

pub(super) async fn show(quick: bool) -> Result<Vec<Line>> {
    let queued = if quick { 2_000 } else { 10_000 };
    let bench = Bench::start(Mode::Off, false, None, &[]).await?;
    let _scheduler = bench.scheduler().await?;
    let limit = json!({ "unit": "requests", "limit": 60, "window_ms": 60_000 });
    let definition = json!({ "tools": [LIMITED], "limits": [limit], "concurrency": CAP });
    let definition = Definition::from_json(&definition.to_string())?;
    let store = bench.store()?;
    store.services().apply(AUTHOR, VENDOR, Some(&definition)).await?;
    let (stamp, limited) = (Arc::new(Stamp::new()), Arc::new(Limited::default()));
    let mut registry = Registry::new();
    registry.register(STAMP, Arc::clone(&stamp) as Arc<dyn Tool>)?;
    registry.register(LIMITED, Arc::clone(&limited) as Arc<dyn Tool>)?;
    let mut connection = bench.connect().await?;
    let (per_second, count) = OTHERS;
    let all = async {
        fill(&mut connection, JOBS, &[("tool", LIMITED), ("input", "{}")], queued).await?;
        let at_once = stamp.send(&bench, per_second, count).await?;
        let start = Instant::now();
        while store.home().line_length(VENDOR).await? + 100 < queued as u64 {
            if start.elapsed() > WITHIN {
                bail!("the limited jobs were not parked within {WITHIN:?}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok((at_once, stamp.send(&bench, per_second, count).await?))
    };
    let (mut at_once, mut later) = beside(&bench, registry, all).await?;

    let conditions = format!(
        "1 worker, a service of 1/s with {queued} jobs queued first, then {count} of another tool at {per_second}/s"
    );
    let line = |what: &str, latencies: &mut [f64]| {
        let [half, most, all] = [0.5, 0.99, 1.0].map(|share| quantile(latencies, share));
        let late = latencies.iter().filter(|latency| **latency >= 50.0).count();
        let seen =
            format!("p50 {half:.2} ms, p99 {most:.2} ms, longest {all:.2} ms; {late} of 50 ms and more");
        Line::new((what, conditions.as_str()), "p99 < 50 ms", seen, Some(most < 50.0))
    };
    let mut lines = vec![
        line("no blocking: others, enqueue to start, while the limited jobs are being parked", &mut at_once),
        line("… and when they are parked", &mut later),
    ];
    let (most, calls) = (limited.most.load(Ordering::Relaxed), limited.calls.load(Ordering::Relaxed));
    let seen = format!("{most} at most ({calls} calls)");
    let what = "… slots in use by the limited service";
    lines.push(Line::new((what, conditions.as_str()), format!("≤ {CAP}, its cap"), seen, Some(most <= CAP)));
    Ok(lines)
}
