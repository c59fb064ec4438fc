//! From enqueueing to the start of the tool, at a steady rate that leaves the worker mostly idle.
//!
//! Sender and worker are in this process, so that one clock stamps both ends: just before XADD is sent, and first thing in the tool.

use std::sync::Arc;

use anyhow::Result;
use tidemill_tool::{Registry, Tool};

use crate::bench::Bench;
use crate::report::{Figure, Row, Unit};
use crate::samples::quantile;
use crate::stamp::{STAMP, Stamp, beside};

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

pub(super) async fn take(bench: &Bench) -> Result<Vec<Figure>> {
    let stamp = Arc::new(Stamp::new());
    let mut registry = Registry::new();
    registry.register(STAMP, Arc::clone(&stamp) as Arc<dyn Tool>)?;
    let all = async {
        let mut figures = Vec::new();
        for (rows, per_second, seconds) in [(&SLOW, 100, 20), (&FAST, 1_000, 10)] {
            let count = bench.scaled(per_second * seconds);
            let mut latencies = stamp.send(bench, per_second, count + WARM_UP).await?.split_off(WARM_UP);
            for (row, share) in rows.iter().zip([0.5, 0.99, 1.0]) {
                figures.push(Figure { row, value: quantile(&mut latencies, share) });
            }
        }
        Ok(figures)
    };
    beside(bench, registry, all).await
}
