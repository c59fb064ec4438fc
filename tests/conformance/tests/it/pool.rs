//! A pool: a server, a scheduler, a worker.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tidemill_protocol::RunState;
use tidemill_runtime::health::Health;
use tidemill_runtime::metrics::Metrics;
use tidemill_runtime::tasks::{OnFailure, Tasks};
use tidemill_scheduler::{Scheduler, Setup};
use tidemill_store::{RunRecord, StopRun, Store};
use tidemill_testkit::RedisServer;
use tidemill_tool::{Registry, ToolEntry};
use tidemill_worker::{Settings, Worker};
use tokio_util::sync::CancellationToken;

use crate::stand_in::{self, Rerouted};

const LONG: Duration = Duration::from_secs(60);

pub(crate) struct Pool {
    server: RedisServer,
    pub(crate) store: Store,
    tasks: Tasks,
    stand_in: String,
}

impl Pool {
    pub(crate) async fn start() -> Self {
        let server = RedisServer::start().await.expect("a server starts");
        let settings = tidemill_store::Settings { url: server.url(), ..tidemill_store::Settings::default() };
        let store = Store::new(&settings, "tm", 1).expect("the settings are good");
        let tasks = Tasks::new();
        let stand_in = stand_in::start(&tasks).await;
        let setup = Setup {
            settings: tidemill_scheduler::Settings {
                block_ms: 200,
                ..tidemill_scheduler::Settings::default()
            },
            retention: tidemill_scheduler::RetentionSettings::default(),
            crons: Vec::new(),
            store: store.clone(),
            built_in_tools: BTreeSet::new(),
            metrics: Metrics::new("test", "0"),
            health: Health::new("test", "0"),
            version: "0",
        };
        let scheduler = Scheduler::new(setup).expect("the settings are good");
        tasks.spawn("scheduler", OnFailure::Log, scheduler.run(tasks.token()));
        let pool = Self { server, store, tasks, stand_in };
        pool.worker();
        pool
    }

    /// A worker; the token tells it to leave.
    pub(crate) fn worker(&self) -> CancellationToken {
        let settings = Settings { block_ms: 200, beat_ms: 200, ..Settings::default() };
        let (metrics, health) = (Metrics::new("test", "0"), Health::new("test", "0"));
        let worker = Worker::new(settings, self.store.clone(), self.registry(), (&metrics, &health));
        let token = self.tasks.token().child_token();
        self.tasks.spawn("worker", OnFailure::Log, worker.expect("the settings are good").run(token.clone()));
        token
    }

    /// The built-in tools, with `http.request` rerouted.
    fn registry(&self) -> Registry {
        let mut settings = tidemill_tools::Settings::default();
        settings.http_request.allow_hosts = vec!["127.0.0.1".to_owned()];
        let mut registry = tidemill_tools::builtin(&settings).expect("the settings are good");
        let inner = Arc::clone(&registry.get("http.request").expect("it is built in").tool);
        let tool = Rerouted { inner, stand_in: self.stand_in.clone() };
        registry.replace(ToolEntry::new("http.request", Arc::new(tool))).expect("the name is good");
        registry
    }

    pub(crate) async fn publish(&self, name: &str, version: u32, source: &str) {
        assert!(
            self.store.home().publish(name, version, source).await.expect("Redis answers"),
            "{name} is new"
        );
    }

    pub(crate) async fn run(&self, workflow: &str, id: &str, input: &Value) {
        let input = input.to_string();
        let words = ["XADD", "tm:{0}:runs", "*", "workflow", workflow, "id", id, "input", &input];
        self.server.cli(&words).await.expect("Redis answers");
    }

    /// Waits for a run's end.
    pub(crate) async fn ended(&self, id: &str) -> RunRecord {
        let mut found = None;
        let done = tidemill_testkit::wait_until(LONG, &format!("the end of run {id}"), async || {
            found = self.store.home().run(id).await.ok().flatten();
            found.as_ref().is_some_and(|run| run.state.is_terminal())
        })
        .await;
        if done.is_err() {
            let letters = self.store.home().letters(None, 10).await;
            panic!("run {id} did not end: {found:#?}; letters: {letters:#?}");
        }
        found.expect("it was found")
    }

    /// Waits until a run stands in a state that `wanted` accepts.
    async fn stands(&self, id: &str, what: &str, wanted: impl Fn(&RunRecord) -> bool) {
        let done = tidemill_testkit::wait_until(LONG, &format!("run {id} {what}"), async || {
            self.store.home().run(id).await.ok().flatten().is_some_and(|run| wanted(&run))
        })
        .await;
        if done.is_err() {
            panic!("run {id} is not {what}: {:#?}", self.store.home().run(id).await);
        }
    }

    /// Waits until a run waits.
    pub(crate) async fn waiting(&self, id: &str) {
        self.stands(id, "waiting", |run| run.state == RunState::Waiting).await;
    }

    /// Waits until a run has begun.
    pub(crate) async fn known(&self, id: &str) {
        self.stands(id, "known", |_| true).await;
    }

    /// How many runs a run has asked for.
    pub(crate) async fn children(&self, id: &str) -> usize {
        let keys = self.server.cli(&["KEYS", &format!("tm:{{0}}:run:{id}~*")]).await.expect("Redis answers");
        keys.lines().filter(|line| !line.is_empty()).count()
    }

    pub(crate) async fn cancel(&self, id: &str) {
        let stop = StopRun {
            id,
            to: RunState::Cancelled,
            who: "test",
            code: "cancelled",
            reason: "a test wants it",
            only_past_deadline: false,
            spares: false,
            by_force: false,
        };
        let stopped = self.store.home().stop_run(&stop).await.expect("Redis answers");
        assert_eq!(stopped, Some(true), "{id} was under way");
    }

    /// The events that were published, the oldest first.
    pub(crate) async fn events(&self) -> Vec<Value> {
        let text = self.server.cli(&["XRANGE", "tm:{0}:events", "-", "+"]).await.expect("Redis answers");
        text.lines()
            .filter(|line| line.starts_with('{'))
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.tasks.token().cancel();
    }
}
