//! From enqueueing to the start of the tool, at a steady rate that leaves the worker mostly idle.
//!
//! Sender and worker are in this process, so that one clock stamps both ends: just before XADD is sent, and first thing in the tool.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tidemill_runtime::health::Health;
use tidemill_runtime::metrics::Metrics;
use tidemill_tool::{Registry, Tool};
use tidemill_worker::{Settings, Worker};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::bench::Bench;
use crate::queue::{JOBS, command};
use crate::report::{Figure, Row, Unit};
use crate::samples::quantile;
use crate::stamp::Stamp;

static SLOW: [Row; 3] = [
    Row { label: "enqueue to start at 100/s, p50", unit: Unit::Milliseconds, aim: "≤ 0.3 ms" },
    Row { label: "… p99 (100/s)", unit: Unit::Milliseconds, aim: "≤ 1.0 ms" },
    Row { label: "… longest (100/s)", unit: Unit::Milliseconds, aim: "" },
];
static FAST: [Row; 3] = [
    Row { label: "enqueue to start at 1,000/s, p50", unit: Unit::Milliseconds, aim: "≤ 0.3 ms" },
    Row { label: "… p99 (1,000/s)", unit: Unit::Milliseconds, aim: "≤ 1.0 ms" },
    Row { label: "… longest (1,000/s)", unit: Unit::Milliseconds, aim: "" },
];

/// Jobs before those that count: connections, caches and the first claim.
const WARM_UP: usize = 50;
const WITHIN: Duration = Duration::from_secs(10);

pub(super) async fn take(bench: &Bench) -> Result<Vec<Figure>> {
    let stamp = Arc::new(Stamp::new());
    let mut registry = Registry::new();
    registry.register("stamp", Arc::clone(&stamp) as Arc<dyn Tool>)?;
    let (metrics, health) = (Metrics::new("loadtest", "0"), Health::new("loadtest", "0"));
    let worker = Worker::new(Settings::default(), bench.store()?, registry, (&metrics, &health))?;
    let (token, mut working) = (CancellationToken::new(), JoinSet::new());
    working.spawn(worker.run(token.clone()));
    let mut figures = Vec::new();
    for (rows, per_second, seconds) in [(&SLOW, 100, 20), (&FAST, 1_000, 10)] {
        let count = bench.scaled(per_second * seconds);
        let mut latencies = tokio::select! {
            ended = working.join_next() => bail!("the worker ended: {ended:?}"),
            latencies = send(bench, &stamp, per_second, count) => latencies?,
        };
        for (row, share) in rows.iter().zip([0.5, 0.99, 1.0]) {
            figures.push(Figure { row, value: quantile(&mut latencies, share) });
        }
    }
    token.cancel();
    while let Some(ended) = working.join_next().await {
        ended.context("the worker panicked")??;
    }
    Ok(figures)
}

/// Sends so many stamped jobs at a steady rate and gives the latencies that the tool noted.
async fn send(bench: &Bench, stamp: &Stamp, per_second: usize, count: usize) -> Result<Vec<f64>> {
    let mut connection = bench.connect().await?;
    stamp.forget();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / u32::try_from(per_second)?);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for _ in 0..count + WARM_UP {
        ticks.tick().await;
        let input = stamp.input();
        command(&["XADD", JOBS, "*", "tool", "stamp", "input", &input]).exec_async(&mut connection).await?;
    }
    let all = async || {
        while stamp.count() < count + WARM_UP {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(WITHIN, all())
        .await
        .with_context(|| format!("{} of {} stamped jobs were run", stamp.count(), count + WARM_UP))?;
    Ok(stamp.latencies_ms().into_iter().skip(WARM_UP).collect())
}
