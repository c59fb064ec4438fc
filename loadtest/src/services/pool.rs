//! A pool under test: a private Redis, a scheduler, workers, and the referee that they call.

use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use redis::Pipeline;
use serde_json::Value;
use tidemill_policy::service::Definition;
use tidemill_store::{Author, Control, Store};
use tidemill_testkit::referee::{Referee, Rules};
use tidemill_testkit::{Process, built_binary};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior};

use super::load::VENDOR;
use super::table::Line;
use crate::bench::{Bench, Mode, Program};
use crate::queue::{BATCH, JOBS};

/// Who changes services here.
pub(crate) const AUTHOR: Author<'static> = Author { who: "loadtest", why: "a measure", is_file: false };
/// What a worker program is started with.
const WORKER: [&str; 1] = ["http_request.allow_networks=[\"127.0.0.0/8\"]"];
/// Longest that calls under way may take to end and be told.
const QUIET_WITHIN: Duration = Duration::from_secs(15);
/// A grant about which nothing is told for so long is one about which nobody will tell.
const STUCK_AFTER: Duration = Duration::from_secs(4);

/// The workers of a pool.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Crew {
    /// Processes.
    pub(crate) processes: usize,
    /// Workers in each; more than one run inside the load test's own program.
    pub(crate) each: usize,
}

impl Crew {
    /// One worker program each.
    pub(crate) const fn of(processes: usize) -> Self {
        Self { processes, each: 1 }
    }

    /// For people.
    pub(crate) fn name(self) -> String {
        match (self.processes, self.each) {
            (1, 1) => "1 worker".to_owned(),
            (processes, 1) => format!("{processes} workers"),
            (processes, each) => format!("{} workers in {processes} processes", processes * each),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) bench: Bench,
    pub(crate) referee: Referee,
    pub(crate) store: Store,
    _scheduler: Program,
    pub(crate) workers: Vec<Program>,
}

/// What a service's tier has counted.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counted {
    /// Grants.
    pub(crate) granted: u64,
    /// Grants whose call was not made.
    pub(crate) unsent: u64,
    /// Calls that were cut off, and may have been made or not.
    pub(crate) ignored: u64,
    /// Calls that were told to have ended, the unsent ones included.
    pub(crate) ended: u64,
}

impl Counted {
    /// Grants whose end nobody has told.
    pub(crate) const fn open(self) -> u64 {
        self.granted.saturating_sub(self.ended)
    }
}

impl Pool {
    /// Starts one, without workers.
    pub(crate) async fn start(rules: Rules, mode: Mode) -> Result<Self> {
        let bench = Bench::start(mode, false, None, &[]).await?;
        let (store, _scheduler) = (bench.store()?, bench.scheduler().await?);
        Ok(Self { bench, referee: Referee::start_with(rules)?, store, _scheduler, workers: Vec::new() })
    }

    /// Starts workers.
    pub(crate) async fn man(&mut self, crew: Crew) -> Result<()> {
        for _ in 0..crew.processes {
            let worker =
                if crew.each == 1 { self.worker(&[]).await? } else { self.hosted(crew.each).await? };
            self.workers.push(worker);
        }
        Ok(())
    }

    /// One worker program with these variables.
    pub(crate) async fn worker(&self, variables: &[(&str, &str)]) -> Result<Program> {
        let file = built_binary("tidemill-worker").context("use loadtest/run, which builds it")?;
        let mut builder = Process::builder(file);
        for setting in WORKER {
            builder = builder.arg("--set").arg(setting);
        }
        for (name, value) in variables {
            builder = builder.env(name, value);
        }
        self.bench.start_program(builder, "worker started").await.context("starting a worker")
    }

    async fn hosted(&self, workers: usize) -> Result<Program> {
        let builder = Process::builder(std::env::current_exe()?)
            .arg("worker-host")
            .arg("--workers")
            .arg(workers.to_string());
        self.bench.start_program(builder, "workers started").await.context("starting a host of workers")
    }

    /// Puts a definition in force.
    pub(crate) async fn define(&self, name: &str, definition: &Value) -> Result<()> {
        let definition = Definition::from_json(&definition.to_string())?;
        self.store.services().apply(AUTHOR, name, Some(&definition)).await?;
        Ok(())
    }

    /// Adds jobs for `http.request`, with inputs by number.
    pub(crate) async fn calls(
        &self,
        ids: Range<usize>,
        input: impl Fn(usize) -> String,
        more: &[(&str, &str)],
    ) -> Result<()> {
        let mut connection = self.bench.connect().await?;
        let mut at = ids.start;
        while at < ids.end {
            let mut batch = Pipeline::with_capacity(BATCH);
            for id in at..ids.end.min(at + BATCH) {
                batch
                    .cmd("XADD")
                    .arg(JOBS)
                    .arg("*")
                    .arg("tool")
                    .arg("http.request")
                    .arg("input")
                    .arg(input(id));
                for (name, value) in more {
                    batch.arg(*name).arg(*value);
                }
            }
            batch.exec_async(&mut connection).await.context("adding jobs")?;
            at += BATCH;
        }
        Ok(())
    }

    /// Adds jobs at a steady rate: a tick of at least 5 ms, and at each the jobs that belong to it.
    pub(crate) async fn steady(
        &self,
        (tool, per_second, count): (&str, usize, usize),
        input: impl Fn(usize) -> String,
    ) -> Result<()> {
        let mut connection = self.bench.connect().await?;
        let each = per_second.div_ceil(200);
        let mut ticks = tokio::time::interval(Duration::from_secs_f64(each as f64 / per_second as f64));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        for at in (0..count).step_by(each) {
            ticks.tick().await;
            let mut batch = Pipeline::with_capacity(each);
            for id in at..count.min(at + each) {
                batch.cmd("XADD").arg(JOBS).arg("*").arg("tool").arg(tool).arg("input").arg(input(id));
            }
            batch.exec_async(&mut connection).await.context("adding jobs")?;
        }
        Ok(())
    }

    /// Whether every grant is accounted for by a call that the referee saw, by one that was not sent, or by one that was cut off on
    /// its way (the slower of two hedged calls may be); when all has ended.
    pub(crate) async fn truth(&self, conditions: &str) -> Result<Line> {
        let counted = self.quiet(VENDOR).await?;
        let granted = self.metric("tidemill_admissions_total", "answer=\"granted\"").await?
            + self.metric("tidemill_admissions_total", "answer=\"probe\"").await?;
        let calls = self.referee.calls() as u64;
        let accounted = calls + counted.unsent;
        let cut_off = counted.granted.saturating_sub(accounted);
        let seen = format!(
            "{} (Redis) = {granted} (workers) = {calls} calls + {} unsent + {cut_off} cut off",
            counted.granted, counted.unsent
        );
        let is_met = accounted + cut_off == counted.granted
            && cut_off <= counted.ignored
            && granted as u64 == counted.granted;
        Ok(Line::new(("… grants, and calls that the referee saw", conditions), "equal", seen, Some(is_met)))
    }

    /// What waiting for a limit that is used up costs: round trips for admission, and refusals, for each call.
    pub(crate) async fn asking(&self, conditions: &str) -> Result<Line> {
        let calls = self.referee.calls().max(1) as f64;
        let exchanges = self.metric("tidemill_admission_exchanges_total", "").await? / calls;
        let waits = self.metric("tidemill_admission_waits_total", "").await? / calls;
        let seen = format!("{exchanges:.2} and {waits:.2}");
        let what = "… round trips for admission, and refusals, per call while more waits than may go";
        Ok(Line::new((what, conditions), "", seen, None))
    }

    /// What a tier has counted so far.
    pub(crate) async fn counted(&self, tier: &str) -> Result<Counted> {
        let states = self.store.services().states(&[tier]).await?;
        let Some(Some(state)) = states.first() else { return Ok(Counted::default()) };
        let of = |word: &str| state.counters.get(word);
        let ended = ["ok", "failed", "throttled", "ignored", "unsent"].into_iter().map(of).sum();
        Ok(Counted { granted: of("granted"), unsent: of("unsent"), ignored: of("ignored"), ended })
    }

    /// Lets nothing more go, and waits until all that went has ended and been told (of killed workers' calls nobody tells).
    /// Gives when it stopped, by the referee's clock.
    pub(crate) async fn stop(&self) -> Result<Duration> {
        let stopped = self.referee.elapsed();
        let services = self.store.services();
        // pausing twice is pausing; the connection may be of before a restart
        while let Err(error) = services.control(AUTHOR, VENDOR, Control::Pause(None)).await {
            if !error.is_transient() || self.referee.elapsed() > stopped + QUIET_WITHIN {
                return Err(error).context("pausing the service");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.quiet(VENDOR).await?;
        Ok(stopped)
    }

    /// Waits until all that was granted has ended and been told, or nobody is left to tell.
    pub(crate) async fn quiet(&self, tier: &str) -> Result<Counted> {
        let start = Instant::now();
        let mut before = (0, start);
        loop {
            let counted = self.counted(tier).await?;
            if counted.open() != before.0 {
                before = (counted.open(), Instant::now());
            }
            // what stays open for longer than any call takes was a killed worker's
            let is_stuck = before.1.elapsed() > STUCK_AFTER || start.elapsed() > QUIET_WITHIN;
            if counted.open() == 0 || is_stuck {
                return Ok(counted);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The sum of a metric over all workers and over all of its lines that contain `label`.
    pub(crate) async fn metric(&self, name: &str, label: &str) -> Result<f64> {
        let mut sum = 0.0;
        for worker in &self.workers {
            for addr in addrs(worker)? {
                let text = page(&addr, "/metrics").await?;
                let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
                sum += lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>();
            }
        }
        Ok(sum)
    }

    /// Waits until the queue and its lines are empty.
    pub(crate) async fn drained(&self, within: Duration) -> Result<()> {
        let start = Instant::now();
        loop {
            let depth = self.store.home().depth("default").await?;
            let left = depth.ready + depth.running + depth.deferred + depth.parked;
            if left == 0 {
                return Ok(());
            }
            if start.elapsed() > within {
                bail!("after {within:?} there is still something to do: {depth:?}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Where a program's metrics are.
fn addrs(program: &Program) -> Result<Vec<String>> {
    if let Ok(addrs) = program.list("addrs") {
        return Ok(addrs);
    }
    let output = program.process.output();
    let said = output
        .lines()
        .find(|line| line.contains("listening for HTTP"))
        .context("no HTTP address was logged")?;
    let said: Value = serde_json::from_str(said)?;
    Ok(vec![said.get("addr").and_then(Value::as_str).context("the line has no addr")?.to_owned()])
}

/// The body of a page; HTTP/1.0, so that it is not chunked.
async fn page(addr: &str, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(addr).await.with_context(|| format!("connecting to {addr}"))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nhost: {addr}\r\n\r\n").as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    let (head, body) = text.split_once("\r\n\r\n").context("the answer has no head")?;
    if head.split_whitespace().nth(1) != Some("200") {
        bail!("{addr}{path} answered {head}");
    }
    Ok(body.to_owned())
}
