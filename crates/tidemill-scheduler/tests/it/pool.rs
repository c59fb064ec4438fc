//! A server of the test's own, schedulers on it, and short ways to do what callers and workers do.

use std::collections::BTreeSet;
use std::time::Duration;

use tidemill_protocol::EntryId;
use tidemill_runtime::health::Health;
use tidemill_runtime::metrics::Metrics;
use tidemill_runtime::tasks::{OnFailure, Tasks};
use tidemill_scheduler::{RetentionSettings, Scheduler, Settings, Setup};
use tidemill_store::{ClaimedEntry, Claimer, Cron, Partition, RunRecord, Store, keys};
use tidemill_testkit::{RedisServer, wait_for};

/// Long enough for a slow machine; nothing waits for it when all is well.
pub(crate) const SOON: Duration = Duration::from_secs(15);

pub(crate) struct Pool {
    pub(crate) server: RedisServer,
    pub(crate) store: Store,
}

/// A scheduler at work.
pub(crate) struct Working {
    pub(crate) name: String,
    pub(crate) metrics: Metrics,
    pub(crate) health: Health,
    tasks: Tasks,
}

/// Short periods, so that tests need not wait.
pub(crate) fn quick() -> Settings {
    Settings {
        block_ms: 100,
        promote_idle_ms: 20,
        watch_ms: 50,
        dead_after_ms: 600,
        beat_ms: 100,
        expire_ms: 20,
        audit_every_ms: 50,
        stalled_after_ms: 300,
        ..Settings::default()
    }
}

impl Pool {
    pub(crate) async fn start() -> Self {
        Self::with_partitions(1).await
    }

    pub(crate) async fn with_partitions(partitions: u32) -> Self {
        let server = RedisServer::start().await.unwrap();
        let settings = tidemill_store::Settings {
            url: server.url(),
            response_timeout_ms: 1_000,
            ..tidemill_store::Settings::default()
        };
        let store = Store::new(&settings, "tm", partitions).unwrap();
        store.check().await.unwrap();
        Self { server, store }
    }

    pub(crate) fn home(&self) -> &Partition {
        self.store.home()
    }

    /// A store with connections of its own, as another process has.
    pub(crate) fn another_store(&self) -> Store {
        Store::new(self.store.settings(), "tm", self.store.partition_count()).unwrap()
    }

    pub(crate) fn setup(&self, settings: Settings) -> Setup {
        Setup {
            settings,
            retention: RetentionSettings { every_ms: 50, ..RetentionSettings::default() },
            crons: Vec::new(),
            store: self.another_store(),
            built_in_tools: BTreeSet::from(["echo".to_owned()]),
            metrics: Metrics::new("test", "0"),
            health: Health::new("test", "0"),
            version: "0",
        }
    }

    pub(crate) async fn schedule(&self, settings: Settings) -> Working {
        self.schedule_with(self.setup(settings)).await
    }

    pub(crate) async fn schedule_crons(&self, crons: Vec<Cron>) -> Working {
        self.schedule_with(Setup { crons, ..self.setup(quick()) }).await
    }

    pub(crate) async fn schedule_with(&self, setup: Setup) -> Working {
        let (metrics, health, tasks) = (setup.metrics.clone(), setup.health.clone(), Tasks::new());
        let scheduler = Scheduler::new(setup).unwrap();
        scheduler.prepare().await.unwrap();
        let name = scheduler.name().to_owned();
        tasks.spawn("scheduler", OnFailure::ShutDown, scheduler.run(tasks.token()));
        Working { name, metrics, health, tasks }
    }

    pub(crate) async fn publish(&self, source: &str) {
        let definition = tidemill_workflow::Definition::parse(source, "test").unwrap();
        let version = definition.version.unwrap_or(1);
        assert!(self.home().publish(&definition.name, version, source).await.unwrap());
    }

    /// Adds an entry the way a foreign client does.
    pub(crate) async fn xadd(&self, key: &str, fields: &[&str]) -> EntryId {
        let mut words = vec!["XADD", key, "*"];
        words.extend_from_slice(fields);
        EntryId::parse(self.cli(&words).await).unwrap()
    }

    /// Asks for a run.
    pub(crate) async fn ask(&self, fields: &[&str]) -> EntryId {
        self.xadd("tm:{0}:runs", fields).await
    }

    /// Asks for a run of this id, in the partition where it belongs.
    pub(crate) async fn ask_in(&self, id: &str, fields: &[&str]) -> EntryId {
        self.xadd(&self.store.partition_of(id).keys().runs(), fields).await
    }

    pub(crate) async fn cli(&self, words: &[&str]) -> String {
        self.server.cli(words).await.unwrap().trim().to_owned()
    }

    pub(crate) fn worker(&self, consumer: &str) -> Claimer {
        self.store.claimer(0, keys::WORKERS, consumer, Duration::from_millis(500)).unwrap()
    }

    pub(crate) fn starter(&self, consumer: &str) -> Claimer {
        self.store.claimer(0, keys::SCHEDULERS, consumer, Duration::from_millis(500)).unwrap()
    }

    /// The run, once it is there and `wanted`.
    pub(crate) async fn run_when(&self, id: &str, wanted: impl Fn(&RunRecord) -> bool) -> RunRecord {
        wait_for(SOON, &format!("run {id}"), async || match self.home().run(id).await.unwrap() {
            Some(run) if wanted(&run) => Ok(run),
            other => Err(format!("{other:?}")),
        })
        .await
        .unwrap()
    }

    pub(crate) async fn run(&self, id: &str) -> RunRecord {
        self.run_when(id, |_| true).await
    }

    /// Waits until a stream or sorted set has so many members.
    pub(crate) async fn count_is(&self, command: &str, key: &str, wanted: u64) {
        let wanted = wanted.to_string();
        wait_for(SOON, &format!("{command} {key} = {wanted}"), async || {
            let count = self.cli(&[command, key]).await;
            if count == wanted { Ok(()) } else { Err(count) }
        })
        .await
        .unwrap();
    }

    /// The one dead letter about an id, once it is there: its code and reason.
    pub(crate) async fn letter_of(&self, id: &str) -> (String, String) {
        wait_for(SOON, &format!("a dead letter about {id}"), async || {
            let letters = self.home().letters(None, 1_000).await.unwrap();
            let found = letters.iter().find(|letter| letter.field("id").as_deref() == Some(id));
            found
                .map(|letter| (letter.code.clone(), letter.reason.clone()))
                .ok_or_else(|| format!("{letters:?}"))
        })
        .await
        .unwrap()
    }
}

impl Working {
    /// A counter or gauge by its line in the text, as `tidemill_runs_started_total`.
    pub(crate) fn count(&self, line: &str) -> u64 {
        let text = self.metrics.text();
        let values = text.lines().filter_map(|found| found.strip_prefix(line)?.trim().parse::<u64>().ok());
        values.sum()
    }

    pub(crate) async fn count_at_least(&self, line: &str, wanted: u64) {
        wait_for(SOON, &format!("{line} >= {wanted}"), async || {
            let count = self.count(line);
            if count >= wanted { Ok(()) } else { Err(count.to_string()) }
        })
        .await
        .unwrap();
    }

    pub(crate) async fn count_is(&self, line: &str, wanted: u64) {
        wait_for(SOON, &format!("{line} = {wanted}"), async || {
            let count = self.count(line);
            if count == wanted { Ok(()) } else { Err(count.to_string()) }
        })
        .await
        .unwrap();
    }

    /// Ends it in order.
    pub(crate) async fn stop(self) {
        let ended = self.tasks.shutdown(SOON).await;
        assert_eq!(ended, tidemill_runtime::tasks::Ended::default());
    }
}

/// Waits until two schedulers together have counted so many.
pub(crate) async fn sum_is(one: &Working, two: &Working, line: &str, wanted: u64) {
    wait_for(SOON, &format!("{line} = {wanted} over both"), async || {
        let sum = one.count(line) + two.count(line);
        if sum == wanted { Ok(()) } else { Err(sum.to_string()) }
    })
    .await
    .unwrap();
}

/// Claims from one queue until `count` entries came.
pub(crate) async fn claim(claimer: &mut Claimer, queue: &str, count: usize) -> Vec<ClaimedEntry> {
    claimer.create_groups(std::iter::once(queue)).await.unwrap();
    let mut all = Vec::new();
    for _ in 0..60 {
        let more = claimer.claim(&[(queue, count - all.len())], true).await.unwrap();
        all.extend(more.into_iter().flat_map(|(_, entries)| entries));
        if all.len() == count {
            return all;
        }
    }
    panic!("only {} of {count} entries came", all.len());
}

/// A field of an entry as text.
pub(crate) fn field(entry: &ClaimedEntry, name: &str) -> Option<String> {
    // a part of a run says which in one field: run, workflow, step, item
    let word = ["run", "wf", "step", "item"].iter().position(|word| *word == name);
    let stored = if word.is_some() { "run" } else { name };
    let found = entry.fields.iter().find(|(field, _)| &**field == stored.as_bytes());
    let text = found.map(|(_, value)| String::from_utf8_lossy(value).into_owned())?;
    match word {
        Some(word) => text.split(' ').nth(word).map(str::to_owned),
        None => Some(text),
    }
}
