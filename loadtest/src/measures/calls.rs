//! A thousand slow HTTP calls at once: a worker's day, and what it needs for it.

use anyhow::{Context, Result};
use std::time::Duration;
use tidemill_testkit::Process;

use crate::bench::Bench;
use crate::processor;
use crate::queue::{JOBS, Watched, fill, nothing_failed};
use crate::report::{Figure, Row, Unit};

static CALLS: Row = Row {
    label: "1,000 concurrent HTTP calls of 100 ms (10,000/s is all there is)",
    unit: Unit::PerSecond,
    aim: "≥ 9,700/s",
};
static MEMORY: Row =
    Row { label: "… memory of the worker at its most", unit: Unit::Mebibytes, aim: "≤ 20 MiB" };

pub(super) async fn take(bench: &Bench) -> Result<Vec<Figure>> {
    let count = bench.scaled(100_000);
    let mut vendor = Process::builder(std::env::current_exe()?).arg("vendor").start()?;
    let line = vendor.wait_for_line("listening on", Duration::from_secs(5)).await?;
    let addr = line.rsplit(' ').next().context("the vendor does not say where it listens")?;
    let input = format!(r#"{{"url":"http://{addr}/"}}"#);
    let mut connection = bench.connect().await?;
    fill(&mut connection, JOBS, &[("tool", "http.request"), ("input", &input)], count).await?;
    let mut watching = bench.connect().await?;
    let settings = ["worker.max_parallel=1000", "http_request.allow_networks=[\"127.0.0.0/8\"]"];
    let (worker, took) =
        tokio::try_join!(bench.worker(&settings), Watched::Jobs.until_done(&mut watching, count))?;
    nothing_failed(&mut connection).await?;
    Ok(vec![
        Figure { row: &CALLS, value: count as f64 / took.as_secs_f64() },
        Figure { row: &MEMORY, value: processor::resident(worker.pid())?.peak as f64 },
    ])
}
