//! How fast one worker process empties a queue that is full when it comes, and what that costs Redis.

use std::time::Duration;

use anyhow::Result;
use redis::Value;

use crate::bench::Bench;
use crate::processor;
use crate::queue::{Info, JOBS, Watched, ask, fill, input, nothing_failed};
use crate::report::{Figure, Row, Unit};

static DRAIN: Row = Row { label: "drain of 200,000 queued jobs", unit: Unit::PerSecond, aim: "" };
static DRAIN_SHARE: Row = Row { label: "… as a share of the ceiling", unit: Unit::Share, aim: "≥ 75 %" };
static DRAIN_COST: Row =
    Row { label: "… Redis time of a ceiling's job as a share of this one's", unit: Unit::Share, aim: "" };
static COMMANDS: Row =
    Row { label: "… Redis commands per job, claimed to settled", unit: Unit::Number, aim: "≤ 0.03" };
static REDIS: Row =
    Row {
        label: "… Redis processor time per job, XADD included", unit: Unit::Microseconds, aim: "≤ 4 µs"
    };
static WORKER: Row = Row { label: "… worker processor time per job", unit: Unit::Microseconds, aim: "" };
static BYTES: Row = Row { label: "Redis memory per queued job", unit: Unit::Bytes, aim: "≤ 260 B" };
static RESULTS: Row = Row { label: "drain with a stored result per job", unit: Unit::PerSecond, aim: "" };
static RESULTS_SHARE: Row =
    Row { label: "… as a share of the ceiling (stored results)", unit: Unit::Share, aim: "≥ 50 %" };
static RESULTS_COST: Row = Row {
    label: "… Redis time of a ceiling's job as a share of this one's (stored results)",
    unit: Unit::Share,
    aim: "",
};
static RESULTS_REDIS: Row =
    Row { label: "… Redis processor time per job (stored results)", unit: Unit::Microseconds, aim: "" };
static RESULTS_WORKER: Row =
    Row { label: "… worker processor time per job (stored results)", unit: Unit::Microseconds, aim: "" };

struct Drained {
    rate: f64,
    bytes: f64,
    commands: f64,
    redis: f64,
    worker: f64,
}

pub(super) async fn take(bench: &mut Bench) -> Result<Vec<Figure>> {
    let drained = drain(bench, &[]).await?;
    let mut figures = vec![
        Figure { row: &DRAIN, value: drained.rate },
        Figure { row: &COMMANDS, value: drained.commands },
        Figure { row: &REDIS, value: drained.redis },
        Figure { row: &WORKER, value: drained.worker },
        Figure { row: &BYTES, value: drained.bytes },
    ];
    if let Some(ceiling) = bench.ceiling {
        figures.insert(1, Figure { row: &DRAIN_SHARE, value: drained.rate / ceiling.rate });
        figures.insert(2, Figure { row: &DRAIN_COST, value: ceiling.redis / drained.redis });
    }
    Ok(figures)
}

pub(super) async fn take_with_results(bench: &mut Bench) -> Result<Vec<Figure>> {
    let drained = drain(bench, &[("result_ttl_ms", "600000")]).await?;
    let mut figures = vec![
        Figure { row: &RESULTS, value: drained.rate },
        Figure { row: &RESULTS_REDIS, value: drained.redis },
        Figure { row: &RESULTS_WORKER, value: drained.worker },
    ];
    if let Some(ceiling) = bench.ceiling {
        figures.insert(1, Figure { row: &RESULTS_SHARE, value: drained.rate / ceiling.rate });
        figures.insert(2, Figure { row: &RESULTS_COST, value: ceiling.redis / drained.redis });
    }
    Ok(figures)
}

fn microseconds_per(used: Duration, count: usize) -> f64 {
    used.as_secs_f64() * 1e6 / count as f64
}

async fn drain(bench: &Bench, more: &[(&str, &str)]) -> Result<Drained> {
    let count = bench.scaled(200_000);
    let mut connection = bench.connect().await?;
    // the stream and its group are not part of what a job takes
    ask::<Value>(&mut connection, &["XGROUP", "CREATE", JOBS, "workers", "0", "MKSTREAM"]).await?;
    let empty = Info::read(&mut connection).await?;
    let input = input();
    let mut fields = vec![("tool", "echo"), ("input", input.as_str())];
    fields.extend_from_slice(more);
    fill(&mut connection, JOBS, &fields, count).await?;
    let full = Info::read(&mut connection).await?;
    ask::<Value>(&mut connection, &["CONFIG", "RESETSTAT"]).await?;

    let mut watching = bench.connect().await?;
    let watching = async { Watched::Jobs.until_done(&mut watching, count).await };
    let (worker, took) = tokio::try_join!(bench.worker(&[]), watching)?;
    let used = processor::used(worker.pid())?;
    nothing_failed(&mut connection).await?;
    let done = Info::read(&mut connection).await?;
    let commands: u64 = ["xreadgroup", "xack", "xdel", "fcall"].iter().map(|name| done.calls(name)).sum();
    Ok(Drained {
        rate: count as f64 / took.as_secs_f64(),
        bytes: (full.memory()?.saturating_sub(empty.memory()?)) as f64 / count as f64,
        commands: commands as f64 / count as f64,
        redis: microseconds_per(done.processor()?.saturating_sub(empty.processor()?), count),
        worker: microseconds_per(used, count),
    })
}
