//! What one measure works with: a private Redis, connections to it, and Tidemill's programs.

use std::time::Duration;

use anyhow::{Context, Result};
use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use tidemill_store::Store;
use tidemill_testkit::{Process, ProcessBuilder, RedisServer, built_binary};

/// How Redis keeps its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mode {
    /// Nothing on disk.
    Off,
    /// Append-only file, fsync every second.
    Aof,
}

impl Mode {
    /// For people.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Aof => "AOF everysec",
        }
    }
}

/// What Redis gives to the bare commands of a job.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ceiling {
    /// Jobs per second.
    pub(crate) rate: f64,
    /// Processor time of Redis per job, in microseconds.
    pub(crate) redis: f64,
}

/// The surroundings of one measure.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) server: RedisServer,
    pub(crate) quick: bool,
    /// What the bare commands gave in this round.
    pub(crate) ceiling: Option<Ceiling>,
    set: Vec<String>,
}

const STARTS_WITHIN: Duration = Duration::from_secs(30);

impl Bench {
    /// Starts a Redis of its own.
    pub(crate) async fn start(
        mode: Mode,
        quick: bool,
        ceiling: Option<Ceiling>,
        set: &[String],
    ) -> Result<Self> {
        // a rewrite of the append-only file in the middle would be measured in one round and not in another
        let server = RedisServer::builder().aof(mode == Mode::Aof).config("auto-aof-rewrite-percentage", "0");
        Ok(Self { server: server.start().await?, quick, ceiling, set: set.to_vec() })
    }

    /// So much of something, or a tenth for a quick look.
    pub(crate) const fn scaled(&self, full: usize) -> usize {
        if self.quick { full / 10 } else { full }
    }

    /// A connection of its own, by TCP.
    pub(crate) async fn connect(&self) -> Result<MultiplexedConnection> {
        let client = redis::Client::open(self.server.url())?;
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        client
            .get_multiplexed_async_connection_with_config(&config)
            .await
            .context("connecting to the private Redis")
    }

    /// A program of Tidemill on this Redis, started and at work: it has logged a line with this text.
    pub(crate) async fn program(&self, name: &str, started: &str, settings: &[&str]) -> Result<Program> {
        let file = built_binary(name)
            .with_context(|| format!("{name} is needed; use loadtest/run, which builds it"))?;
        let mut builder = Process::builder(file);
        for setting in settings {
            builder = builder.arg("--set").arg(setting);
        }
        self.start_program(builder, started).await.with_context(|| format!("starting {name}"))
    }

    /// Starts what was put together, on this Redis.
    pub(crate) async fn start_program(&self, builder: ProcessBuilder, started: &str) -> Result<Program> {
        let mut process = builder
            .env("TIDEMILL_REDIS_URL", self.server.url())
            .env("TIDEMILL_HTTP_ADDR", "127.0.0.1:0")
            .env("TIDEMILL_LOG_FORMAT", "json")
            .start()?;
        let line = process.wait_for_line(started, STARTS_WITHIN).await?;
        let said =
            serde_json::from_str(&line).with_context(|| format!("it logged what is no JSON: {line}"))?;
        Ok(Program { process, said })
    }

    /// A worker with these settings and those of the command line.
    pub(crate) async fn worker(&self, settings: &[&str]) -> Result<Program> {
        let mut all = settings.to_vec();
        all.extend(self.set.iter().map(String::as_str));
        self.program("tidemill-worker", "worker started", &all).await
    }

    /// A scheduler.
    pub(crate) async fn scheduler(&self) -> Result<Program> {
        self.program("tidemill-scheduler", "scheduler started", &[]).await
    }

    /// A producer.
    pub(crate) async fn producer(&self) -> Result<Program> {
        self.program("tidemill-producer", "listening for HTTP", &[]).await
    }

    /// The server as Tidemill's own code sees it.
    pub(crate) fn store(&self) -> Result<Store> {
        let settings =
            tidemill_store::Settings { url: self.server.url(), ..tidemill_store::Settings::default() };
        Ok(Store::new(&settings, "tm", 1)?)
    }
}

/// A running program of Tidemill.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) process: Process,
    said: serde_json::Value,
}

impl Program {
    /// Its process id.
    pub(crate) const fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// A field of the log line that told that it is at work.
    pub(crate) fn said(&self, field: &str) -> Result<&str> {
        let value = self.said.get(field).and_then(serde_json::Value::as_str);
        value.with_context(|| format!("the program's line has no text {field:?}: {}", self.said))
    }

    /// A list of texts in that line.
    pub(crate) fn list(&self, field: &str) -> Result<Vec<String>> {
        let values = self.said.get(field).and_then(serde_json::Value::as_array);
        let values = values.with_context(|| format!("the program's line has no list {field:?}"))?;
        Ok(values.iter().filter_map(|value| value.as_str().map(str::to_owned)).collect())
    }
}
