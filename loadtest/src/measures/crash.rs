//! SIGKILL of one of two workers in mid-drain: when what it held runs again, and that every job ends exactly once.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use redis::Value;
use redis::aio::MultiplexedConnection;
use tokio::time::Instant;

use crate::bench::Bench;
use crate::queue::{JOBS, ask, fill, nothing_failed};
use crate::report::{Figure, Row, Unit};
use crate::samples::quantile;

static HELD: Row = Row { label: "SIGKILL of a worker: jobs that it held", unit: Unit::Count, aim: "" };
static AGAIN: [Row; 3] = [
    Row { label: "… ran again after, p50", unit: Unit::Milliseconds, aim: "" },
    Row { label: "… ran again after, p99", unit: Unit::Milliseconds, aim: "≤ 6,000 ms" },
    Row { label: "… ran again after, longest", unit: Unit::Milliseconds, aim: "" },
];
static LOST: Row = Row { label: "… jobs lost", unit: Unit::Count, aim: "0" };
static TWICE: Row = Row { label: "… jobs settled twice", unit: Unit::Count, aim: "0" };

const REPLIES: &str = "loadtest:replies";
/// How long each job takes.
const JOB_MS: u64 = 50;
const WITHIN: Duration = Duration::from_secs(90);

pub(super) async fn take(bench: &Bench) -> Result<Vec<Figure>> {
    let count = bench.scaled(10_000);
    let mut connection = bench.connect().await?;
    let _scheduler = bench.scheduler().await?;
    let mut victim = bench.worker(&[]).await?;
    let _survivor = bench.worker(&[]).await?;
    let input = format!(r#"{{"ms":{JOB_MS}}}"#);
    fill(&mut connection, JOBS, &[("tool", "sleep"), ("input", &input), ("reply_to", REPLIES)], count)
        .await?;
    replies(&mut connection, count / 3).await?;
    let killed_ms = redis_ms(&mut connection).await?;
    victim.process.kill().await?;
    let held = held_by(&mut connection, victim.said("consumer")?).await?;
    if held.is_empty() {
        bail!("the killed worker held nothing: the kill came too late");
    }
    replies(&mut connection, count).await?;
    emptied(&mut connection).await?;
    nothing_failed(&mut connection).await?;

    let ends = ends(&mut connection).await?;
    let settled: usize = ends.values().map(|end| end.times).sum();
    let again = |id: &String| {
        let end = ends.get(id)?;
        Some(end.finished_ms.saturating_sub(JOB_MS).saturating_sub(killed_ms) as f64)
    };
    let mut after: Vec<f64> = held.iter().filter_map(again).collect();
    let mut figures = vec![Figure { row: &HELD, value: held.len() as f64 }];
    for (row, share) in AGAIN.iter().zip([0.5, 0.99, 1.0]) {
        figures.push(Figure { row, value: quantile(&mut after, share) });
    }
    figures.push(Figure { row: &LOST, value: count.saturating_sub(ends.len()) as f64 });
    figures.push(Figure { row: &TWICE, value: (settled - ends.len()) as f64 });
    Ok(figures)
}

async fn redis_ms(connection: &mut MultiplexedConnection) -> Result<u64> {
    let (seconds, microseconds): (u64, u64) = ask(connection, &["TIME"]).await?;
    Ok(seconds * 1_000 + microseconds / 1_000)
}

/// Waits until so many results have come.
async fn replies(connection: &mut MultiplexedConnection, count: usize) -> Result<()> {
    let start = Instant::now();
    loop {
        let came: usize = ask(connection, &["XLEN", REPLIES]).await?;
        if came >= count {
            return Ok(());
        }
        if start.elapsed() > WITHIN {
            bail!("{came} of {count} results came within {WITHIN:?}");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until the queue is empty: whatever would be settled twice has been.
async fn emptied(connection: &mut MultiplexedConnection) -> Result<()> {
    let start = Instant::now();
    while ask::<usize>(connection, &["XLEN", JOBS]).await? > 0 {
        if start.elapsed() > WITHIN {
            bail!("the queue is not empty after {WITHIN:?}");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// What a consumer holds. What a killed worker sent last may still be on its way, so this looks until nothing changes.
async fn held_by(connection: &mut MultiplexedConnection, consumer: &str) -> Result<HashSet<String>> {
    let mut before = None;
    loop {
        let words = ["XPENDING", JOBS, "workers", "-", "+", "100000", consumer];
        let rows: Vec<(String, String, u64, u64)> = ask(connection, &words).await?;
        let held: HashSet<String> = rows.into_iter().map(|(entry, _, _, _)| entry).collect();
        if before.as_ref() == Some(&held) {
            return Ok(held);
        }
        before = Some(held);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

struct End {
    finished_ms: u64,
    times: usize,
}

/// The results that came, by job.
async fn ends(connection: &mut MultiplexedConnection) -> Result<HashMap<String, End>> {
    let entries: Vec<(String, HashMap<String, Value>)> =
        ask(connection, &["XRANGE", REPLIES, "-", "+"]).await?;
    let mut ends: HashMap<String, End> = HashMap::new();
    for (_, mut fields) in entries {
        let text: String =
            redis::from_redis_value(fields.remove("result").context("a reply has no result")?)?;
        let result: serde_json::Value = serde_json::from_str(&text)?;
        let id = result.get("id").and_then(serde_json::Value::as_str).context("a result has no id")?;
        let finished_ms = result.get("finished_at_ms").and_then(serde_json::Value::as_u64).unwrap_or(0);
        let end = ends.entry(id.to_owned()).or_insert(End { finished_ms, times: 0 });
        end.times += 1;
        end.finished_ms = end.finished_ms.min(finished_ms);
    }
    Ok(ends)
}
