//! A client that keeps so many runs under way: whenever one has told its end, it asks for the next.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use redis::aio::MultiplexedConnection;
use redis::{Pipeline, Value};
use tidemill_protocol::ExecutionMode;
use tokio::time::Instant;

use crate::bench::Bench;
use crate::queue::{RUNS, command};

/// Longest that nothing may be told.
const STALLED: Duration = Duration::from_secs(120);

/// A client of one workflow.
#[derive(Debug)]
pub(super) struct Requests {
    connection: MultiplexedConnection,
    workflow: String,
    input: String,
    replies: String,
    /// The mode that each run asks for; the pool's own if it is absent.
    mode: Option<ExecutionMode>,
    /// The runs under way: when each was asked for.
    open: HashMap<String, Instant>,
    /// The last reply that was read.
    seen: String,
}

impl Requests {
    /// A client that nobody else shares the stream `replies` with.
    pub(super) async fn of(bench: &Bench, (workflow, input): (&str, &str), replies: &str) -> Result<Self> {
        let connection = bench.connect().await?;
        Ok(Self {
            connection,
            workflow: workflow.to_owned(),
            input: input.to_owned(),
            replies: replies.to_owned(),
            mode: None,
            open: HashMap::new(),
            seen: "0-0".to_owned(),
        })
    }

    /// The same client, whose runs ask for a mode.
    pub(super) fn in_mode(self, mode: ExecutionMode) -> Self {
        Self { mode: Some(mode), ..self }
    }

    /// Asks for runs, in one round trip. A run's time begins before it is asked for.
    pub(super) async fn ask(&mut self, count: usize) -> Result<()> {
        if count == 0 {
            return Ok(());
        }
        let mut batch = Pipeline::with_capacity(count);
        let (workflow, input) = (&*self.workflow, &*self.input);
        for _ in 0..count {
            batch.cmd("XADD").arg(RUNS).arg("*").arg("workflow").arg(workflow);
            batch.arg("input").arg(input).arg("reply_to").arg(&*self.replies);
            if let Some(mode) = self.mode {
                batch.arg("mode").arg(mode.as_str());
            }
        }
        let asked = Instant::now();
        let ids: Vec<String> = batch.query_async(&mut self.connection).await.context("asking for runs")?;
        // the id of a run is that of the entry that asks for it
        self.open.extend(ids.into_iter().map(|id| (id, asked)));
        Ok(())
    }

    /// Waits until at least one run has told its end; how long each took, in milliseconds.
    pub(super) async fn ended(&mut self) -> Result<Vec<f64>> {
        let block = STALLED.as_millis().to_string();
        let words = ["XREAD", "COUNT", "1000", "BLOCK", &block, "STREAMS", &self.replies, &self.seen];
        let reply: Value = command(&words).query_async(&mut self.connection).await?;
        let now = Instant::now();
        let entries = entries(reply)
            .with_context(|| format!("{} runs under way told nothing for {STALLED:?}", self.open.len()))?;
        let mut took = Vec::with_capacity(entries.len());
        for (entry, result) in entries {
            let result: serde_json::Value = serde_json::from_slice(&result)?;
            let id =
                result.get("id").and_then(serde_json::Value::as_str).context("a result without an id")?;
            if result.get("state").and_then(serde_json::Value::as_str) != Some("succeeded") {
                bail!("a run did not succeed, so the numbers mean nothing: {result}");
            }
            let asked = self
                .open
                .remove(id)
                .with_context(|| format!("run {id} told its end twice, or is a stranger"))?;
            took.push((now - asked).as_secs_f64() * 1e3);
            self.seen = entry;
        }
        Ok(took)
    }

    /// Keeps `level` runs under way for so long; gives how long each took that ended in that time, and the time itself.
    pub(super) async fn keep(&mut self, level: usize, length: Duration) -> Result<(Vec<f64>, Duration)> {
        let (start, mut took) = (Instant::now(), Vec::new());
        while start.elapsed() < length {
            self.ask(level.saturating_sub(self.open.len())).await?;
            took.extend(self.ended().await?);
        }
        Ok((took, start.elapsed()))
    }

    /// Waits until nothing is under way.
    pub(super) async fn drain(&mut self) -> Result<()> {
        while !self.open.is_empty() {
            self.ended().await?;
        }
        Ok(())
    }
}

/// The entries of a reply with one stream, as their ids and their only values; nothing when it timed out.
fn entries(reply: Value) -> Option<Vec<(String, Vec<u8>)>> {
    let Value::Array(streams) = reply else { return None };
    let Value::Array(mut pair) = streams.into_iter().next()? else { return None };
    let Value::Array(entries) = pair.pop()? else { return None };
    entries
        .into_iter()
        .map(|entry| {
            let Value::Array(parts) = entry else { return None };
            let mut parts = parts.into_iter();
            let id = redis::from_redis_value(parts.next()?).ok()?;
            let mut fields: Vec<Vec<u8>> = redis::from_redis_value(parts.next()?).ok()?;
            Some((id, fields.pop()?))
        })
        .collect()
}
