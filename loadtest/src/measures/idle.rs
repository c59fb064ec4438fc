//! What the programs need when there is nothing to do.

use std::time::Duration;

use anyhow::Result;

use crate::bench::Bench;
use crate::processor;
use crate::report::{Figure, Row, Unit};

static ROWS: [(Row, Row); 3] = [
    (
        Row { label: "idle worker: share of a core", unit: Unit::Share, aim: "< 0.5 %" },
        Row { label: "… memory (worker)", unit: Unit::Mebibytes, aim: "< 15 MiB" },
    ),
    (
        Row { label: "idle scheduler: share of a core", unit: Unit::Share, aim: "< 0.5 %" },
        Row { label: "… memory (scheduler)", unit: Unit::Mebibytes, aim: "< 15 MiB" },
    ),
    (
        Row { label: "idle producer: share of a core", unit: Unit::Share, aim: "< 0.5 %" },
        Row { label: "… memory (producer)", unit: Unit::Mebibytes, aim: "< 15 MiB" },
    ),
];

/// Starting is over by then.
const SETTLED: Duration = Duration::from_secs(3);

pub(super) async fn take(bench: &Bench) -> Result<Vec<Figure>> {
    let programs = [bench.worker(&[]).await?, bench.scheduler().await?, bench.producer().await?];
    tokio::time::sleep(SETTLED).await;
    let mut before = Vec::new();
    for program in &programs {
        before.push(processor::used(program.pid())?);
    }
    let looked = Duration::from_secs(if bench.quick { 2 } else { 10 });
    tokio::time::sleep(looked).await;
    let mut figures = Vec::new();
    for ((program, before), (share, memory)) in programs.iter().zip(before).zip(&ROWS) {
        let used = processor::used(program.pid())?.saturating_sub(before);
        figures.push(Figure { row: share, value: used.as_secs_f64() / looked.as_secs_f64() });
        figures.push(Figure { row: memory, value: processor::resident(program.pid())?.now as f64 });
    }
    Ok(figures)
}
