//! Runs a second and how long each takes, at several levels of load, beside what Redis could do at most and what each run asks of it.

use std::time::Duration;

use anyhow::{Context, Result};

use super::requests::Requests;
use super::shape::Shape;
use super::sheet::Sheet;
use super::stalls::Stalls;
use crate::bench::{Bench, Ceiling, Mode, Program};
use crate::measures::Measure;
use crate::processor;
use crate::queue::Info;
use crate::report::Unit;
use crate::samples::quantile;
use crate::say;

const SPEED: &[&str] =
    &["workflow", "under way", "runs/s", "p50", "p99", "steps/s", "ceiling", "steps/s as a share of it"];
const COST: &[&str] = &[
    "workflow",
    "under way",
    "function calls per run",
    "time in functions",
    "commands, in functions and beside",
    "Redis in all",
    "Redis busy",
    "worker",
    "scheduler",
    "client",
    "longest call",
];
const BESIDE: &[&str] = &[
    "workflow",
    "Restate, three nodes, p99 40 ms and more",
    "Tidemill here, its best level",
    "under way, p99",
];
/// Runs kept under way.
const LEVELS: &[usize] = &[1, 16, 128, 1_024];
const QUICK_LEVELS: &[usize] = &[1, 128];

/// What Restate publishes: steps, and runs a second.
const RESTATE: &[(usize, f64)] = &[(1, 23_131.0), (9, 8_571.0)];

pub(super) async fn show(quick: bool, set: &[String]) -> Result<Vec<Sheet>> {
    let mut speed = Sheet::new("Runs a second", SPEED);
    let mut cost = Sheet::new("What a run costs", COST);
    let mut beside = Sheet::new("Beside what Restate publishes", BESIDE);
    let shapes = [
        Shape::single(),
        Shape::chain("3 steps, a chain", "chain-3", 3),
        Shape::chain("9 steps, a chain", "chain-9", 9),
        Shape::fan("1 → 10 → 1", "fan-10", 10),
    ];
    for shape in &shapes {
        let mut levels = levels(shape, (quick, set)).await.with_context(|| shape.label.to_owned())?;
        for seen in &levels {
            speed.add(seen.speed(shape));
            cost.add(seen.cost(shape));
        }
        levels.sort_by(|one, other| other.runs.total_cmp(&one.runs));
        let published = RESTATE.iter().find(|(steps, _)| *steps == shape.steps.len());
        if let (Some((_, rate)), Some(best)) = (published, levels.first()) {
            beside.add(vec![
                shape.label.to_owned(),
                Unit::PerSecond.show(*rate),
                format!("{} ({})", Unit::PerSecond.show(best.runs), Unit::Share.show(best.runs / rate)),
                format!("{}, {}", best.level, Unit::Milliseconds.show(best.p99)),
            ]);
        }
    }
    speed.note(
        "The ceiling is what that Redis gave just before to XADD, XREADGROUP, XACK and XDEL in batches of 100, per second: a step \
         costs at least that once.",
    );
    beside.note(
        "Not the same machines, and not the same promise: Restate's numbers are its own, of a cluster of three nodes that \
         replicates each step; these are of one Redis with `appendfsync everysec`, one worker, one scheduler and the client, all \
         on the processor named above.",
    );
    Ok(vec![speed, cost, beside])
}

/// What one level gave.
struct Seen {
    level: usize,
    ceiling: Ceiling,
    seconds: f64,
    runs: f64,
    p50: f64,
    p99: f64,
    count: f64,
    used: (Used, Used),
    stalls: Stalls,
}

impl Seen {
    fn speed(&self, shape: &Shape) -> Vec<String> {
        let steps = self.runs * shape.steps.len() as f64;
        vec![
            shape.label.to_owned(),
            self.level.to_string(),
            Unit::Count.show(self.runs),
            Unit::Milliseconds.show(self.p50),
            Unit::Milliseconds.show(self.p99),
            Unit::Count.show(steps),
            Unit::PerSecond.show(self.ceiling.rate),
            Unit::Share.show(steps / self.ceiling.rate),
        ]
    }

    fn cost(&self, shape: &Shape) -> Vec<String> {
        let (before, after) = &self.used;
        let each = |from: Duration, to: Duration| to.saturating_sub(from).as_secs_f64() * 1e6 / self.count;
        let shown = |from, to| Unit::Microseconds.show(each(from, to));
        vec![
            shape.label.to_owned(),
            self.level.to_string(),
            format!("{:.2}", (after.calls.0 - before.calls.0) as f64 / self.count),
            shown(before.calls.1, after.calls.1),
            // less the XADD that asked for the run
            format!("{:.1}", (after.commands - before.commands) as f64 / self.count - 1.0),
            shown(before.redis, after.redis),
            Unit::Share.show((after.redis - before.redis).as_secs_f64() / self.seconds),
            shown(before.worker, after.worker),
            shown(before.scheduler, after.scheduler),
            shown(before.client, after.client),
            self.stalls.longest(),
        ]
    }
}

/// All levels of one workflow on one Redis, the ceiling before them.
async fn levels(shape: &Shape, (quick, set): (bool, &[String])) -> Result<Vec<Seen>> {
    let mut bare = Bench::start(Mode::Aof, quick, None, set).await?;
    Measure::Ceiling.take(&mut bare).await?;
    let ceiling = bare.ceiling.context("the ceiling was not measured")?;
    drop(bare);
    let pool = Pool::start(shape, (quick, set)).await?;
    let mut seen = Vec::new();
    for level in if quick { QUICK_LEVELS } else { LEVELS } {
        say(&format!("  {}, {level} under way", shape.label));
        seen.push(pool.at(*level, ceiling, quick).await?);
    }
    Ok(seen)
}

/// A worker and a scheduler with one workflow.
struct Pool {
    bench: Bench,
    worker: Program,
    scheduler: Program,
    shape: Shape,
}

/// What everything had used at some time.
struct Used {
    redis: Duration,
    worker: Duration,
    scheduler: Duration,
    client: Duration,
    calls: (u64, Duration),
    commands: u64,
}

impl Pool {
    async fn start(shape: &Shape, (quick, set): (bool, &[String])) -> Result<Self> {
        let bench = Bench::start(Mode::Aof, quick, None, set).await?;
        bench.store()?.home().publish(shape.name, 1, &shape.source()).await?;
        let (worker, scheduler) = tokio::try_join!(bench.worker(&[]), bench.scheduler())?;
        Ok(Self { bench, worker, scheduler, shape: shape.clone() })
    }

    async fn used(&self, connection: &mut redis::aio::MultiplexedConnection) -> Result<Used> {
        let info = Info::read(connection).await?;
        // the client's own: one XADD a run, XREAD for the replies, and these looks
        let own = ["fcall", "xread", "info", "slowlog|reset", "slowlog|get", "config|set"];
        let commands =
            info.statistics().filter(|(name, _, _)| !own.contains(name)).map(|(_, calls, _)| calls);
        Ok(Used {
            redis: info.processor()?,
            worker: processor::used(self.worker.pid())?,
            scheduler: processor::used(self.scheduler.pid())?,
            client: processor::used(std::process::id())?,
            calls: info
                .statistics()
                .find_map(|(name, calls, took)| (name == "fcall").then_some((calls, took)))
                .unwrap_or_default(),
            commands: commands.sum(),
        })
    }

    /// One level of load.
    async fn at(&self, level: usize, ceiling: Ceiling, quick: bool) -> Result<Seen> {
        let (warm, length) = if quick { (500, 2_000) } else { (2_000, 10_000) };
        let mut watching = self.bench.connect().await?;
        let replies = format!("loadtest:replies:{level}");
        let mut requests = Requests::of(&self.bench, (self.shape.name, r#"{"n":1}"#), &replies).await?;
        requests.keep(level, Duration::from_millis(warm)).await?;
        Stalls::watch(&mut watching).await?;
        let before = self.used(&mut watching).await?;
        let (mut took, length) = requests.keep(level, Duration::from_millis(length)).await?;
        let after = self.used(&mut watching).await?;
        let stalls = Stalls::read(&mut watching).await?;
        requests.drain().await?;
        let (count, seconds) = (took.len() as f64, length.as_secs_f64());
        Ok(Seen {
            level,
            ceiling,
            seconds,
            runs: count / seconds,
            p50: quantile(&mut took, 0.5),
            p99: quantile(&mut took, 0.99),
            count,
            used: (before, after),
            stalls,
        })
    }
}
