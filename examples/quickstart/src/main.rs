//! The main job of the quickstart: a few hundred real records through a pool of its own, against a vendor that fails.
//!
//! It starts a vendor (in this process), a private Redis, a scheduler and workers, publishes a workflow, asks for one run per
//! record by plain XADD, follows them, and sums up. Whatever it started it ends, also on Ctrl-C.

mod folder;
mod pool;
mod progress;
mod records;
mod summary;
mod vendor;
mod work;

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use tidemill_runtime::exit::Exit;
use tidemill_runtime::tasks::Tasks;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use folder::Folder;
use pool::{Pool, Setup};
use progress::{Progress, say};
use summary::Summary;
use vendor::Vendor;

/// Runs several hundred real records through a pool of workers and sums up what happened.
#[derive(Debug, Parser)]
#[command(name = "tidemill-quickstart-job", version, max_term_width = 100)]
struct Arguments {
    /// How many cities to survey, at most 10,000
    #[arg(long, value_name = "N", default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    records: u32,
    /// How many worker processes to start
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=32))]
    workers: u32,
    /// Keep the pool running afterwards, until Ctrl-C
    #[arg(long)]
    keep: bool,
    /// Which of the vendor's calls fail: another number, other calls
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Where results, report, logs and Redis's files go
    #[arg(long, value_name = "FOLDER", default_value = "quickstart-data")]
    data: PathBuf,
}

/// How the job ended, other than by an error.
enum Ended {
    Done { clean: bool },
    Interrupted,
}

/// The signals that ask to end: Ctrl-C, `kill`, a closed terminal.
struct Signals([Signal; 3]);

impl Signals {
    fn install() -> io::Result<Self> {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [interrupt, terminate, hangup] = kinds.map(signal);
        Ok(Self([interrupt?, terminate?, hangup?]))
    }

    async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// Everything between the first process and the summary; gives what to say about a kept pool.
async fn job(
    arguments: &Arguments,
    folder: &Folder,
    pool: &mut Pool,
    tasks: &Tasks,
) -> Result<(bool, String)> {
    let records = records::take(arguments.records as usize);
    let workers = arguments.workers as usize;
    let vendor = Vendor::start(tasks, arguments.seed).await?;
    let setup = Setup {
        programs: folder.programs().to_owned(),
        folder: folder.pool(),
        workers,
        settings: folder.pool().join("settings.json"),
    };
    pool::write_settings(&setup.settings, |endpoint| vendor.url(endpoint))?;
    say(&format!(
        "Starting a private Redis, a scheduler and {workers} workers (logs in {}) …",
        setup.folder.display()
    ));
    let url = pool.start(&setup, tasks).await?;
    let store = pool::connect(&url)?;
    let home = store.home();
    let plan = work::publish(home).await?;
    say(&format!(
        "Published {}@{}, {} steps. The vendor takes {} ms and fails {} of 1,000 calls.",
        plan.name,
        plan.version,
        plan.steps.len(),
        vendor::LATENCY.as_millis(),
        vendor::FAULTS_PER_THOUSAND,
    ));
    let mut redis = work::plain_connection(&url).await?;
    let progress = Progress::new(records.len(), plan.steps.len());
    let begun = Instant::now();
    work::enqueue(&mut redis, &home.keys().runs(), &plan.name, &records).await?;
    let follower = work::Follower::new(&records);
    let returned = tokio::select! {
        returned = follower.follow(&mut redis, home, &progress, begun) => returned,
        ended = pool.watch() => Err(ended),
    };
    progress.clear();
    let returned = returned?;
    let summary =
        Summary { workers, ..Summary::read(home, &plan, &records, &returned, vendor.counts()).await? };
    summary.write(folder.path(), &returned.answers)?;
    let mut text = summary::text(&summary, folder.path());
    if arguments.keep {
        let api = pool.start_producer(&setup, &url)?;
        let run = records.first().map_or("", |record| record.id.as_str());
        text += &summary::next(Some((&url, &api, run)), folder.programs());
    } else {
        text += &summary::next(None, folder.programs());
    }
    Ok((summary.is_clean(), text))
}

async fn run(arguments: &Arguments) -> Result<Ended> {
    let mut signals = Signals::install().context("catching signals")?;
    let folder = Folder::open(&arguments.data)?;
    let (tasks, mut pool) = (Tasks::new(), Pool::default());
    let outcome = tokio::select! {
        outcome = job(arguments, &folder, &mut pool, &tasks) => outcome.map(Some),
        () = signals.next() => Ok(None),
    };
    let ended = match outcome {
        Ok(Some((clean, text))) => {
            // a reader that went away does not undo the work
            io::stdout().write_all(text.as_bytes()).unwrap_or_default();
            if arguments.keep {
                tokio::select! {
                    () = signals.next() => say("\nEnding the pool …"),
                    ended = pool.watch() => say(&format!("{ended:#}")),
                }
            }
            Ok(Ended::Done { clean })
        }
        Ok(None) => {
            say("\nInterrupted: ending what was started …");
            Ok(Ended::Interrupted)
        }
        Err(error) => Err(error),
    };
    pool.stop().await;
    tasks.shutdown(Duration::from_secs(2)).await;
    ended
}

fn main() -> Exit {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(run(&arguments)),
        Err(error) => Err(error.into()),
    };
    match outcome {
        Ok(Ended::Done { clean: true }) => Exit::Ok,
        Ok(Ended::Done { clean: false }) => {
            say("tidemill-quickstart: not every run succeeded exactly once; see the numbers above");
            Exit::Failed
        }
        Ok(Ended::Interrupted) => Exit::Interrupted,
        Err(error) => {
            say(&format!("tidemill-quickstart: {error:#}"));
            Exit::Failed
        }
    }
}
