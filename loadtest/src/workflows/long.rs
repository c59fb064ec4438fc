//! Runs of many steps and of many items: how long they take, what they need of Redis, and the longest call among all of theirs.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::Instant;

use super::requests::Requests;
use super::shape::Shape;
use super::sheet::Sheet;
use super::stalls::{AIM, Stalls, shown};
use crate::bench::{Bench, Mode};
use crate::processor;
use crate::queue::Info;
use crate::report::Unit;

const COLUMNS: &[&str] = &[
    "run",
    "publishing",
    "total time",
    "steps or items a second",
    "Redis memory at its most",
    "… kept after the end",
    "Redis, worker, scheduler time",
    "worker memory at its most",
    "longest call",
];
const LONGEST: &[&str] = &["run", "function or command", "longest", "calls of more than a millisecond"];

const STEPS: usize = 10_000;
const ITEMS: usize = 100_000;

pub(super) async fn show(quick: bool, set: &[String]) -> Result<Vec<Sheet>> {
    let scale = if quick { 10 } else { 1 };
    let (steps, items) = (STEPS / scale, ITEMS / scale);
    let (deep, wide) = (Shape::chain("", "deep", steps), Shape::wide("", "wide", steps - 2));
    let number = r#"{"n":1}"#.to_owned();
    let list: Vec<String> = (0..items).map(|at| at.to_string()).collect();
    let list = format!(r#"{{"items":[{}]}}"#, list.join(","));
    let runs = [
        (format!("{} steps, one after the other", grouped(steps)), deep, number.clone(), steps),
        (format!("{} steps, all but two at once", grouped(steps)), wide, number, steps),
        (
            format!("for_each of {} items, 100 at once", grouped(items)),
            Shape::for_each("", "each-100", 100),
            list.clone(),
            items,
        ),
        (
            format!("for_each of {} items, 500 at once", grouped(items)),
            Shape::for_each("", "each-500", 500),
            list,
            items,
        ),
    ];
    let mut sheet = Sheet::new("Long runs", COLUMNS);
    let mut longest = Sheet::new("Longest calls of long runs", LONGEST);
    for (label, shape, input, count) in runs {
        match one(&shape, &input, (quick, set)).await {
            Ok(seen) => seen.tell(&label, count, (&mut sheet, &mut longest)),
            // the others can be shown all the same
            Err(error) => sheet.note(format!("{label}: not shown: {error:#}")),
        }
    }
    longest
        .note(format!("The aim is less than {AIM:?} for every function call; Redis timed them (`SLOWLOG`)."));
    Ok(vec![sheet, longest])
}

/// What one run gave.
struct Seen {
    publishing: Duration,
    total: Duration,
    memory: (u64, u64, u64),
    used: [Duration; 3],
    worker_bytes: u64,
    stalls: Stalls,
}

async fn one(shape: &Shape, input: &str, (quick, set): (bool, &[String])) -> Result<Seen> {
    let bench = Bench::start(Mode::Aof, quick, None, set).await?;
    let store = bench.store()?;
    let source = shape.source();
    store.check().await?;
    let start = Instant::now();
    store.home().publish(shape.name, 1, &source).await?;
    let publishing = start.elapsed();
    let (worker, scheduler) = tokio::try_join!(bench.worker(&[]), bench.scheduler())?;
    let mut watching = bench.connect().await?;
    let mut requests = Requests::of(&bench, (shape.name, input), "loadtest:replies").await?;
    let before = Info::read(&mut watching).await?;
    Stalls::watch(&mut watching).await?;
    let start = Instant::now();
    requests.ask(1).await?;
    requests.ended().await.with_context(|| format!("a run of {}", shape.name))?;
    let total = start.elapsed();
    let (after, stalls) = (Info::read(&mut watching).await?, Stalls::read(&mut watching).await?);
    Ok(Seen {
        publishing,
        total,
        memory: (before.memory()?, after.peak_memory()?, after.memory()?),
        used: [
            after.processor()?.saturating_sub(before.processor()?),
            processor::used(worker.pid())?,
            processor::used(scheduler.pid())?,
        ],
        worker_bytes: processor::resident(worker.pid())?.peak,
        stalls,
    })
}

impl Seen {
    fn tell(&self, label: &str, count: usize, (sheet, longest): (&mut Sheet, &mut Sheet)) {
        let mebibytes = |bytes: u64| Unit::Mebibytes.show(bytes as f64);
        let (before, peak, after) = self.memory;
        let used: Vec<String> = self.used.iter().map(|used| format!("{:.2} s", used.as_secs_f64())).collect();
        sheet.add(vec![
            label.to_owned(),
            Unit::Milliseconds.show(self.publishing.as_secs_f64() * 1e3),
            format!("{:.2} s", self.total.as_secs_f64()),
            Unit::PerSecond.show(count as f64 / self.total.as_secs_f64()),
            mebibytes(peak.saturating_sub(before)),
            mebibytes(after.saturating_sub(before)),
            used.join(", "),
            mebibytes(self.worker_bytes),
            self.stalls.longest(),
        ]);
        for (name, noted) in self.stalls.by_length() {
            longest.add(vec![label.to_owned(), format!("`{name}`"), shown(noted), noted.slow.to_string()]);
        }
    }
}

fn grouped(count: usize) -> String {
    Unit::Count.show(count as f64)
}
