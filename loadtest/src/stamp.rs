//! A tool that notes how long ago its job was made: one clock for both ends, so no difference of clocks.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tidemill_runtime::health::Health;
use tidemill_runtime::metrics::Metrics;
use tidemill_tool::{Call, Payload, Registry, Tool, ToolError, ToolFuture};
use tidemill_worker::{Settings, Worker};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::bench::Bench;
use crate::queue::{JOBS, command};

/// What stamped jobs are for.
pub(crate) const STAMP: &str = "stamp";
/// Longest that the last job may take to start.
const WITHIN: Duration = Duration::from_secs(30);

/// Notes how long ago the job was stamped.
#[derive(Debug)]
pub(crate) struct Stamp {
    base: Instant,
    latencies_ms: Mutex<Vec<f64>>,
}

impl Stamp {
    /// One that has noted nothing.
    pub(crate) fn new() -> Self {
        Self { base: Instant::now(), latencies_ms: Mutex::default() }
    }

    /// Sends so many stamped jobs at a steady rate and gives, in milliseconds, how long each took to start, in the order of the
    /// starts.
    pub(crate) async fn send(&self, bench: &Bench, per_second: usize, count: usize) -> Result<Vec<f64>> {
        let mut connection = bench.connect().await?;
        self.latencies_ms.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / u32::try_from(per_second)?);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        for _ in 0..count {
            ticks.tick().await;
            let input = self.input();
            command(&["XADD", JOBS, "*", "tool", STAMP, "input", &input]).exec_async(&mut connection).await?;
        }
        let all = async || {
            while self.count() < count {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(WITHIN, all())
            .await
            .with_context(|| format!("{} of {count} stamped jobs were run", self.count()))?;
        Ok(self.latencies_ms.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// The input of a job that is made now.
    fn input(&self) -> String {
        format!(r#"{{"at":{},"pad":"{}"}}"#, self.base.elapsed().as_nanos(), "x".repeat(160))
    }

    fn count(&self) -> usize {
        self.latencies_ms.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn note(&self, call: &Call) -> Result<Payload, ToolError> {
        let now = self.base.elapsed();
        let invalid = |error: &dyn std::fmt::Display| ToolError::invalid_input(format!("no stamp: {error}"));
        let input: serde_json::Value =
            serde_json::from_slice(call.input.bytes()).map_err(|error| invalid(&error))?;
        let at = input
            .get("at")
            .and_then(serde_json::Value::as_u64)
            .ok_or_else(|| invalid(&"\"at\" is missing"))?;
        let latency = now.saturating_sub(Duration::from_nanos(at));
        self.latencies_ms.lock().unwrap_or_else(PoisonError::into_inner).push(latency.as_secs_f64() * 1e3);
        Ok(Payload::null())
    }
}

impl Tool for Stamp {
    fn kind(&self) -> &'static str {
        "inline"
    }

    fn call(self: Arc<Self>, call: Call) -> ToolFuture {
        Box::pin(async move { self.note(&call) })
    }
}

/// Runs a worker with these tools inside this process while something is done beside it.
pub(crate) async fn beside<T>(
    bench: &Bench,
    registry: Registry,
    act: impl Future<Output = Result<T>>,
) -> Result<T> {
    let (metrics, health) = (Metrics::new("loadtest", "0"), Health::new("loadtest", "0"));
    let worker = Worker::new(Settings::default(), bench.store()?, registry, (&metrics, &health))?;
    let (token, mut working) = (CancellationToken::new(), JoinSet::new());
    working.spawn(worker.run(token.clone()));
    let done = tokio::select! {
        ended = working.join_next() => bail!("the worker ended: {ended:?}"),
        done = act => done?,
    };
    token.cancel();
    while let Some(ended) = working.join_next().await {
        ended.context("the worker panicked")??;
    }
    Ok(done)
}
