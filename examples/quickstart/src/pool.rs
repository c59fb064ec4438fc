//! The pool of the quickstart: a Redis of its own, a scheduler, workers, and (when kept) a producer, each a process.

mod process;
mod redis_server;
mod settings;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::FutureExt;
use futures_util::future::select_all;
use tidemill_runtime::tasks::Tasks;
use tidemill_store::{Partition, Store};
use tokio::time::Instant;

use process::Program;
pub(crate) use redis_server::free_port;
pub(crate) use settings::{CALL_TIMEOUT_MS, write as write_settings};

/// How long programs get to come up.
const STARTING: Duration = Duration::from_secs(20);
/// How long programs get to end before they are killed.
const ENDING: Duration = Duration::from_secs(8);
const SCHEDULER: &str = "tidemill-scheduler";
const WORKER: &str = "tidemill-worker";
const PRODUCER: &str = "tidemill-producer";

/// What a pool is made of.
#[derive(Debug)]
pub(crate) struct Setup {
    /// Where the built programs are.
    pub(crate) programs: PathBuf,
    /// Where its logs, its settings and Redis's files go.
    pub(crate) folder: PathBuf,
    /// How many workers.
    pub(crate) workers: usize,
    /// The settings file.
    pub(crate) settings: PathBuf,
}

/// The processes that were started, in that order. Whatever is dropped without [`Pool::stop`] is killed.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    programs: Vec<Program>,
}

impl Setup {
    /// Path of a built program.
    ///
    /// # Errors
    /// It has not been built.
    fn program(&self, name: &str) -> Result<PathBuf> {
        let path = self.programs.join(name);
        if !path.is_file() {
            bail!(
                "{} is not there; run `cargo build --bins` first, or ./tidemill-quickstart",
                path.display()
            );
        }
        Ok(path)
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.log"))
    }
}

impl Pool {
    /// Starts everything and waits until all workers and the scheduler have announced themselves. Gives Redis's URL.
    pub(crate) async fn start(&mut self, setup: &Setup, tasks: &Tasks) -> Result<String> {
        let (scheduler, worker) = (setup.program(SCHEDULER)?, setup.program(WORKER)?);
        let (redis, url) = redis_server::start(&setup.folder, tasks).await?;
        self.programs.push(redis);
        self.spawn(setup, SCHEDULER, &scheduler, &["--redis-url", &url])?;
        for n in 1..=setup.workers {
            self.spawn(setup, &format!("worker-{n}"), &worker, &["--redis-url", &url])?;
        }
        let store = connect(&url)?;
        tokio::select! {
            ready = announced(store.home(), setup.workers) => ready?,
            ended = self.watch() => return Err(ended),
        }
        Ok(url)
    }

    /// Starts the producer, for those who want to look around. Gives the address of its API.
    pub(crate) fn start_producer(&mut self, setup: &Setup, url: &str) -> Result<String> {
        let address = format!("127.0.0.1:{}", free_port()?);
        let program = setup.program(PRODUCER)?;
        self.spawn(setup, PRODUCER, &program, &["--redis-url", url, "--http-addr", &address])?;
        Ok(address)
    }

    fn spawn(&mut self, setup: &Setup, name: &str, path: &Path, arguments: &[&str]) -> Result<()> {
        let file = setup.settings.display().to_string();
        let mut all = vec!["--config", &file];
        all.extend_from_slice(arguments);
        self.programs.push(Program::start(name, path, &all, &setup.log(name))?);
        Ok(())
    }

    /// Waits until any of them ends, which none should while there is work.
    pub(crate) async fn watch(&mut self) -> anyhow::Error {
        if self.programs.is_empty() {
            return std::future::pending().await;
        }
        select_all(self.programs.iter_mut().map(|program| program.ended().boxed())).await.0
    }

    /// Ends everything, the last started first: workers hand back what they hold before Redis goes.
    pub(crate) async fn stop(&mut self) {
        let mut programs = std::mem::take(&mut self.programs);
        let redis = if programs.is_empty() { None } else { Some(programs.remove(0)) };
        for program in &programs {
            program.terminate();
        }
        for program in programs.into_iter().rev() {
            program.finish(ENDING).await;
        }
        if let Some(redis) = redis {
            redis.terminate();
            redis.finish(ENDING).await;
        }
    }
}

/// The pool's store.
pub(crate) fn connect(url: &str) -> Result<Store> {
    let settings = tidemill_store::Settings { url: url.to_owned(), ..tidemill_store::Settings::default() };
    Ok(Store::new(&settings, settings::NAMESPACE, 1)?)
}

async fn announced(home: &Partition, workers: usize) -> Result<()> {
    let until = Instant::now() + STARTING;
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    loop {
        pace.tick().await;
        let members = home.members().await.context("asking which programs have announced themselves")?;
        let of = |role: &str| members.iter().filter(|member| member.role == role).count();
        let (up, schedulers) = (of("worker"), of("scheduler"));
        if up >= workers && schedulers > 0 {
            return Ok(());
        }
        if Instant::now() > until {
            bail!(
                "after {} s only {up} of {workers} workers and {schedulers} of 1 schedulers have announced themselves; \
                 their logs are beside the settings file of the pool",
                STARTING.as_secs()
            );
        }
    }
}
