//! Runs of workflows: how many a second, and how fast one step hands over to the next.

use anyhow::{Context, Result, bail};
use redis::Value;
use tidemill_protocol::RunState;
use tidemill_store::Store;

use crate::bench::Bench;
use crate::processor;
use crate::queue::{Info, RUNS, Watched, ask, fill};
use crate::report::{Figure, Row, Unit};
use crate::samples::quantile;

static FLOWS: Row = Row {
    label: "flow of five children and their parent, audit on, runs",
    unit: Unit::PerSecond,
    aim: "≥ 7,000/s",
};
static REDIS: Row = Row { label: "… Redis processor time per run", unit: Unit::Microseconds, aim: "" };
static WORKER: Row = Row { label: "… worker processor time per run", unit: Unit::Microseconds, aim: "" };
static SCHEDULER: Row =
    Row { label: "… scheduler processor time per run", unit: Unit::Microseconds, aim: "" };
static HAND_OVER: Row =
    Row { label: "step hand-over in a 10-step chain, p50", unit: Unit::Milliseconds, aim: "< 0.4 ms" };
static HAND_OVER_99: Row = Row { label: "… p99 of the chains", unit: Unit::Milliseconds, aim: "" };

const FLOW: &str = r#"{"name":"flow","steps":[
{"id":"a","tool":"echo","with":{"n":1}},{"id":"b","tool":"echo","with":{"n":2}},{"id":"c","tool":"echo","with":{"n":3}},
{"id":"d","tool":"echo","with":{"n":4}},{"id":"e","tool":"echo","with":{"n":5}},
{"id":"parent","tool":"echo","needs":["a","b","c","d","e"],"with":{"done":true}}]}"#;

const CHAIN: u32 = 10;
const REPLIES: &str = "loadtest:replies";

pub(super) async fn take(bench: &Bench) -> Result<Vec<Figure>> {
    let count = bench.scaled(20_000);
    let store = bench.store()?;
    store.home().publish("flow", 1, FLOW).await?;
    let mut connection = bench.connect().await?;
    fill(&mut connection, RUNS, &[("workflow", "flow"), ("input", "{}")], count).await?;
    let before = Info::read(&mut connection).await?.processor()?;
    // its plans and connections are there before the first run starts
    let worker = bench.worker(&[]).await?;
    let mut watching = bench.connect().await?;
    let (scheduler, took) =
        tokio::try_join!(bench.scheduler(), Watched::Runs.until_done(&mut watching, count))?;
    let redis = Info::read(&mut connection).await?.processor()?.saturating_sub(before);
    all_succeeded(&store, count).await?;
    let each = |used: std::time::Duration| used.as_secs_f64() * 1e6 / count as f64;
    Ok(vec![
        Figure { row: &FLOWS, value: count as f64 / took.as_secs_f64() },
        Figure { row: &REDIS, value: each(redis) },
        Figure { row: &WORKER, value: each(processor::used(worker.pid())?) },
        Figure { row: &SCHEDULER, value: each(processor::used(scheduler.pid())?) },
    ])
}

async fn all_succeeded(store: &Store, count: usize) -> Result<()> {
    let ids = store.home().ended_runs(0, count).await?;
    let succeeded =
        store.home().summaries(&ids).await?.iter().filter(|run| run.state == RunState::Succeeded).count();
    if succeeded != count {
        bail!("{succeeded} of {count} runs succeeded ({} ended), so the numbers mean nothing", ids.len());
    }
    Ok(())
}

fn chain() -> String {
    let steps: Vec<String> = (0..CHAIN)
        .map(|step| match step {
            0 => r#"{"id":"s0","tool":"echo"}"#.to_owned(),
            step => format!(r#"{{"id":"s{step}","tool":"echo","needs":["s{}"]}}"#, step - 1),
        })
        .collect();
    format!(r#"{{"name":"chain","steps":[{}]}}"#, steps.join(","))
}

/// One chain after the other; each begins when the one before has told that it is done.
pub(super) async fn take_hand_over(bench: &Bench) -> Result<Vec<Figure>> {
    let count = bench.scaled(300).max(50);
    let store = bench.store()?;
    store.home().publish("chain", 1, &chain()).await?;
    let (worker, scheduler) = tokio::try_join!(bench.worker(&[]), bench.scheduler())?;
    let mut connection = bench.connect().await?;
    let mut seen = "0-0".to_owned();
    for _ in 0..count {
        let fields = ["XADD", RUNS, "*", "workflow", "chain", "reply_to", REPLIES];
        ask::<String>(&mut connection, &fields).await?;
        seen = next_reply(&mut connection, &seen).await?;
    }
    drop((worker, scheduler));
    all_succeeded(&store, count).await?;
    let ids = store.home().ended_runs(0, count).await?;
    let mut each: Vec<f64> = store
        .home()
        .summaries(&ids)
        .await?
        .iter()
        .filter_map(|run| Some(run.ended_ms?.saturating_sub(run.started_ms) as f64 / f64::from(CHAIN)))
        .collect();
    Ok(vec![
        Figure { row: &HAND_OVER, value: quantile(&mut each, 0.5) },
        Figure { row: &HAND_OVER_99, value: quantile(&mut each, 0.99) },
    ])
}

/// Waits for an entry of the replies after `seen`; its id.
async fn next_reply(connection: &mut redis::aio::MultiplexedConnection, seen: &str) -> Result<String> {
    let words = ["XREAD", "COUNT", "1", "BLOCK", "10000", "STREAMS", REPLIES, seen];
    let reply: Value = ask(connection, &words).await?;
    let entry = || {
        let Value::Array(streams) = reply else { return None };
        let Value::Array(mut pair) = streams.into_iter().next()? else { return None };
        let Value::Array(entries) = pair.pop()? else { return None };
        let Value::Array(parts) = entries.into_iter().next()? else { return None };
        redis::from_redis_value::<String>(parts.into_iter().next()?).ok()
    };
    entry().context("a run told nothing for 10 s")
}
