//! A pool: a server, a scheduler, workers, and what a foreign client would do.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;
use tidemill_runtime::health::Health;
use tidemill_runtime::metrics::Metrics;
use tidemill_runtime::tasks::{OnFailure, Tasks};
use tidemill_scheduler::{Scheduler, Setup};
use tidemill_store::{RunRecord, Store};
use tidemill_testkit::RedisServer;
use tidemill_tool::Registry;
use tidemill_worker::{Settings, Worker};
use tokio_util::sync::CancellationToken;

pub(crate) struct Pool {
    pub(crate) server: RedisServer,
    pub(crate) store: Store,
    tasks: Tasks,
    workers: BTreeMap<String, CancellationToken>,
}

/// Longest wait for anything in these tests.
pub(crate) const LONG: Duration = Duration::from_secs(30);

impl Pool {
    /// A server and a scheduler; workers come by [`Pool::worker`].
    pub(crate) async fn start() -> Self {
        Self::start_with(tidemill_scheduler::Settings::default()).await
    }

    pub(crate) async fn start_with(scheduler: tidemill_scheduler::Settings) -> Self {
        let server = RedisServer::start().await.unwrap();
        let settings = tidemill_store::Settings { url: server.url(), ..tidemill_store::Settings::default() };
        let store = Store::new(&settings, "tm", 1).unwrap();
        let pool = Self { server, store, tasks: Tasks::new(), workers: BTreeMap::new() };
        pool.scheduler_with(scheduler);
        pool
    }

    pub(crate) fn scheduler(&self) {
        self.scheduler_with(tidemill_scheduler::Settings::default());
    }

    pub(crate) fn scheduler_with(&self, mut settings: tidemill_scheduler::Settings) {
        (settings.block_ms, settings.dead_after_ms) = (200, 1_000);
        let setup = Setup {
            settings,
            retention: tidemill_scheduler::RetentionSettings::default(),
            crons: Vec::new(),
            store: self.store.clone(),
            built_in_tools: BTreeSet::new(),
            metrics: Metrics::new("test", "0"),
            health: Health::new("test", "0"),
            version: "0",
        };
        let scheduler = Scheduler::new(setup).unwrap();
        self.tasks.spawn("scheduler", OnFailure::Log, scheduler.run(self.tasks.token()));
    }

    /// A worker with the built-in tools.
    pub(crate) fn worker(&mut self, settings: Settings) -> String {
        self.worker_with(settings, tidemill_tools::builtin(&tidemill_tools::Settings::default()).unwrap())
    }

    pub(crate) fn worker_with(&mut self, settings: Settings, registry: Registry) -> String {
        let settings = Settings { block_ms: 200, beat_ms: 200, ..settings };
        let (metrics, health) = (Metrics::new("test", "0"), Health::new("test", "0"));
        let worker = Worker::new(settings, self.store.clone(), registry, (&metrics, &health)).unwrap();
        let (name, token) = (worker.consumer().to_owned(), CancellationToken::new());
        self.workers.insert(name.clone(), token.clone());
        self.tasks.spawn("worker", OnFailure::Log, worker.run(token));
        name
    }

    /// Tells a worker to drain and leave.
    pub(crate) fn drain(&self, worker: &str) {
        self.workers[worker].cancel();
    }

    pub(crate) async fn cli(&self, words: &[&str]) -> String {
        self.server.cli(words).await.unwrap().trim().to_owned()
    }

    /// Sends many commands at once, one a line, as anything that can open a socket may.
    pub(crate) async fn pipe(&self, commands: &str) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", self.server.port())).await.unwrap();
        let (mut reader, mut writer) = stream.split();
        let sending = async {
            writer.write_all(commands.as_bytes()).await.unwrap();
            writer.write_all(b"PING\r\n").await.unwrap();
        };
        let receiving = async {
            let (mut seen, mut buffer) = (Vec::new(), vec![0; 16 * 1024]);
            while !seen.ends_with(b"+PONG\r\n") {
                let count = reader.read(&mut buffer).await.unwrap();
                assert!(count > 0, "redis hung up");
                assert!(!buffer[..count].starts_with(b"-"), "{}", String::from_utf8_lossy(&buffer[..count]));
                seen.extend_from_slice(&buffer[..count]);
                let keep = seen.len().saturating_sub(64);
                seen.drain(..keep);
            }
        };
        futures_util::future::join(sending, receiving).await;
    }

    /// Adds a job the way a foreign client does; its result is kept.
    pub(crate) async fn job(&self, queue: &str, id: &str, fields: &[&str]) {
        let key = format!("tm:{{0}}:jobs:{queue}");
        let mut words = vec!["XADD", &key, "*", "id", id, "result_ttl_ms", "60000"];
        words.extend_from_slice(fields);
        self.cli(&words).await;
    }

    pub(crate) async fn result(&self, id: &str) -> Value {
        let mut found = None;
        tidemill_testkit::wait_until(LONG, &format!("the result of {id}"), async || {
            // while a test has Redis down this fails, as it should
            found = self.store.home().result(id).await.ok().flatten();
            found.is_some()
        })
        .await
        .unwrap();
        serde_json::from_str(&found.unwrap()).unwrap()
    }

    pub(crate) async fn publish(&self, source: &str) {
        let name = source.lines().find_map(|line| line.strip_prefix("name: ")).unwrap();
        assert!(self.store.home().publish(name, 1, source).await.unwrap());
    }

    pub(crate) async fn run(&self, workflow: &str, id: &str, input: &str) {
        self.cli(&["XADD", "tm:{0}:runs", "*", "workflow", workflow, "id", id, "input", input]).await;
    }

    /// Waits for a run's end; its audit must fold to what is stored.
    pub(crate) async fn ended(&self, id: &str) -> RunRecord {
        let run = self.ended_unchecked(id).await;
        self.check_audit(id).await;
        run
    }

    /// Waits for a run's end.
    pub(crate) async fn ended_unchecked(&self, id: &str) -> RunRecord {
        let mut found = None;
        let done = tidemill_testkit::wait_until(LONG, &format!("the end of run {id}"), async || {
            found = self.store.home().run(id).await.unwrap();
            found.as_ref().is_some_and(|run| run.state.is_terminal())
        })
        .await;
        if done.is_err() {
            panic!(
                "run {id} did not end: {found:#?}; letters: {:#?}",
                self.store.home().letters(None, 10).await.unwrap()
            );
        }
        found.unwrap()
    }

    /// Every record is a legal move from where the last one left, numbers have no gap, and the last states are the stored ones.
    pub(crate) async fn check_audit(&self, id: &str) {
        use tidemill_protocol::{RunState, StepState};
        let audit = self.store.home().audit(id, 0, usize::MAX).await.unwrap();
        let run = self.store.home().run(id).await.unwrap().unwrap();
        let mut states: BTreeMap<&str, &str> = BTreeMap::new();
        for (at, record) in audit.iter().enumerate() {
            assert_eq!(record.seq, at as u64 + 1, "no gap");
            let first = if record.subject == "@" { "queued" } else { "pending" };
            let was = states.insert(&record.subject, &record.to).unwrap_or(first);
            assert_eq!(was, record.from, "{record:?}");
            let legal = if record.subject == "@" {
                RunState::parse(was).unwrap().may_become(RunState::parse(&record.to).unwrap())
            } else {
                StepState::parse(was).unwrap().may_become(StepState::parse(&record.to).unwrap())
            };
            assert!(legal, "{record:?}");
        }
        assert_eq!(states.get("@").copied(), Some(run.state.as_str()));
        let plain = states.iter().filter(|(subject, _)| !subject.contains('[') && **subject != "@").count();
        assert_eq!(plain, run.steps.len());
    }

    pub(crate) fn output(run: &RunRecord) -> Value {
        run.output.as_ref().map_or(Value::Null, |output| serde_json::from_slice(output).unwrap())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.tasks.token().cancel();
        for token in self.workers.values() {
            token.cancel();
        }
    }
}
