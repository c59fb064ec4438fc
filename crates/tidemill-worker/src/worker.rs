//! A worker from its start to its end.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use tidemill_runtime::health::Health;
use tidemill_runtime::metrics::Metrics;
use tidemill_runtime::tasks::{OnFailure, Tasks};
use tidemill_store::{Error, Member, Store, keys};
use tidemill_tool::Registry;
use tidemill_workflow::Limits;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::{self, Admission, Message};
use crate::cache::{Cache, Engine};
use crate::capacity::Capacity;
use crate::executor::{Event, Executor};
use crate::metrics::WorkerMetrics;
use crate::modes::ModeRuns;
use crate::outcome::Lane;
use crate::plans::Plans;
use crate::queues::Queues;
use crate::settings::{InvalidSetting, Settings};
use crate::shared::{RedisClock, Shared};
use crate::{claiming, liveness, settler, sweep};

/// Why a worker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// A setting cannot be used.
    #[error(transparent)]
    Setting(#[from] InvalidSetting),
    /// Redis cannot be reached, or cannot be used.
    #[error(transparent)]
    Store(#[from] Error),
    /// An active version of a workflow cannot be used: its runs would fail here.
    #[error(
        "published workflows are not valid, so runs of them could not be carried out; publish a corrected version and archive this one \
         (`tidemill workflow archive NAME@VERSION --reason …`):\n{0}"
    )]
    BadWorkflows(String),
    /// A part of it panicked. Schedulers take what it held.
    #[error(
        "a part of the worker panicked (the log says where); the process ends, for it would live and be deaf"
    )]
    Panicked,
}

/// A worker that is ready to run.
#[derive(Debug)]
pub struct Worker {
    shared: Arc<Shared>,
    member: Member,
    health: Health,
    /// What runs beside the executor, until it is started.
    parts: Mutex<Option<(mpsc::UnboundedReceiver<Message>, Engine)>>,
}

/// How long the last outcomes and hand-backs may take after the grace.
const LAST_WORDS: Duration = Duration::from_secs(3);

impl Worker {
    /// A worker of these tools. Its consumer name is unique per start.
    ///
    /// # Errors
    /// A setting is out of its range.
    pub fn new(
        settings: Settings,
        store: Store,
        mut registry: Registry,
        (metrics, health): (&Metrics, &Health),
    ) -> Result<Self, InvalidSetting> {
        settings.check()?;
        registry.set_default_timeout(Duration::from_millis(settings.timeout_ms));
        let weights = settings.queue_weights()?;
        let queues: Vec<String> = weights.iter().map(|(queue, _)| queue.clone()).collect();
        let consumer = consumer_name();
        let member = Member {
            consumer: consumer.clone(),
            role: "worker".to_owned(),
            host: host_name(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            queues,
            reads_first: true,
            slots: u32::try_from(settings.max_parallel).unwrap_or(u32::MAX),
            started_at_ms: 0,
        };
        let (cache, filling) = Cache::new(store.clone(), metrics);
        let (admission, messages) = Admission::new();
        let metrics = WorkerMetrics::new(metrics);
        metrics.slots.set(i64::from(member.slots));
        let backlogs = store.partitions().iter().map(|_| Default::default()).collect();
        let shared = Shared {
            plans: Plans::new(store.home().clone()),
            store,
            registry: Arc::new(registry),
            queues: Queues::new(weights, settings.order),
            capacity: Capacity::new(settings.max_parallel, settings.max_read_ahead),
            consumer,
            clock: RedisClock::default(),
            limits: Limits { output_bytes: settings.max_output_bytes, ..Limits::default() },
            modes: ModeRuns::new(&metrics.run_seconds),
            spending: crate::budget::Spending::default(),
            pauses: crate::pausing::Pauses::default(),
            metrics,
            backlogs,
            admission,
            cache,
            settings,
        };
        Ok(Self {
            shared: Arc::new(shared),
            member,
            health: health.clone(),
            parts: Mutex::new(Some((messages, filling))),
        })
    }

    /// The name that Redis knows this worker by.
    #[must_use]
    pub fn consumer(&self) -> &str {
        &self.shared.consumer
    }

    /// Checks the server and every active version of every workflow. Call it before [`Worker::run`]; a process does not start on a bad
    /// graph.
    ///
    /// # Errors
    /// Redis cannot be reached or used, or a definition is not valid or damaged (with file, line and reason).
    pub async fn prepare(&self) -> Result<(), WorkerError> {
        self.shared.store.check().await?;
        let wrong = self.shared.plans.validate(&self.shared.metrics).await?;
        if wrong.is_empty() { Ok(()) } else { Err(WorkerError::BadWorkflows(wrong.join("\n"))) }
    }

    /// Works until the token is cancelled, then drains: nothing new is claimed, what runs may finish within the grace, the rest
    /// is handed back, and the consumer is deleted. Returns how many entries were handed back.
    ///
    /// # Errors
    /// Redis could not be reached at the start, or a vital part failed.
    pub async fn run(mut self, token: CancellationToken) -> Result<(), WorkerError> {
        self.introduce().await?;
        let shared = Arc::clone(&self.shared);
        let (sender, events) = mpsc::unbounded_channel();
        let (claiming, keeping) = (CancellationToken::new(), CancellationToken::new());
        let failed = CancellationToken::new();
        let (tracker, tasks) = (TaskTracker::new(), Tasks::new());
        let mut settlers = Vec::new();
        for partition in 0..shared.store.partitions().len() {
            settlers.push(Lane::ALL.map(|lane| {
                let (outcomes, settled) = mpsc::unbounded_channel();
                let settler = settler::run(Arc::clone(&shared), (partition, lane), settled);
                tracker.spawn(vital(failed.clone(), settler));
                outcomes
            }));
            self.partition(partition, &sender, &tasks, (&claiming, &keeping, &failed));
        }
        self.upkeep(&tasks, &keeping);
        self.admission(&sender, &tasks, (&keeping, &failed));
        let executor = Executor::new(Arc::clone(&shared), (sender.clone(), events), settlers).run();
        let mut executor = tracker.spawn(vital(failed.clone(), executor));
        tracing::info!(consumer = %shared.consumer, queues = ?shared.queues.served(), slots = shared.settings.max_parallel, "worker started");

        tokio::select! {
            () = token.cancelled() => {}
            () = failed.cancelled() => tracing::error!("a part of the worker panicked; it ends"),
        }
        tracing::info!(held = shared.capacity.held(), "draining");
        claiming.cancel();
        drop(sender.send(Event::Drain));
        let grace = Duration::from_millis(shared.settings.grace_ms);
        if tokio::time::timeout(grace, &mut executor).await.is_err() {
            tracing::info!("the grace is over; running work is stopped and handed back");
            drop(sender.send(Event::Stop));
            drop(tokio::time::timeout(LAST_WORDS, executor).await);
        }
        tracker.close();
        drop(tokio::time::timeout(LAST_WORDS, tracker.wait()).await);
        let panicked = failed.is_cancelled();
        if !panicked {
            self.leave().await;
        }
        keeping.cancel();
        tasks.shutdown(LAST_WORDS).await;
        // what it held may be what it died of: schedulers take it and count the death
        if panicked { Err(WorkerError::Panicked) } else { Ok(()) }
    }

    /// Announces the worker, its queues and its tools before anything is claimed.
    async fn introduce(&mut self) -> Result<(), WorkerError> {
        let shared = &self.shared;
        shared.store.check().await?;
        // before anything is claimed: nothing may run past its limits
        shared.admission.read(&shared.store.services()).await?;
        shared.pauses.read(shared.store.home()).await?;
        self.member.started_at_ms = shared.store.home().now_ms().await?;
        let tools: Vec<(String, String)> = shared
            .registry
            .iter()
            .map(|entry| {
                let text = serde_json::json!({
                    "kind": entry.kind, "description": &*entry.description, "input_schema": entry.tool.input_schema(),
                    "service": entry.service.as_deref(),
                });
                (entry.name.to_string(), text.to_string())
            })
            .collect();
        shared.store.home().register_tools(&tools).await?;
        for partition in shared.store.partitions() {
            let mut claimer = shared.store.claimer(
                partition.index(),
                keys::WORKERS,
                &shared.consumer,
                Duration::from_secs(1),
            )?;
            claimer.create_groups(shared.queues.names().iter().map(String::as_str)).await?;
            partition.announce(&self.member).await?;
            shared.clock.set(partition.beat(&shared.consumer, 0, 0).await?.now_ms);
        }
        for part in ["claiming", "liveness"] {
            self.health.component(part).set_ready();
        }
        Ok(())
    }

    /// What follows the rate of work, and adds figures.
    fn upkeep(&self, tasks: &Tasks, keeping: &CancellationToken) {
        let (shared, ended) = (Arc::clone(&self.shared), keeping.clone());
        tasks.spawn("rate", OnFailure::Log, async move {
            tokio::select! {
                () = ended.cancelled() => {}
                () = shared.capacity.follow_rate() => {}
            }
            Ok::<(), Error>(())
        });
        let (shared, ended) = (Arc::clone(&self.shared), keeping.clone());
        tasks.spawn("pauses", OnFailure::Log, async move {
            tokio::select! {
                () = ended.cancelled() => {}
                () = shared.pauses.follow(&shared.store) => {}
            }
            Ok::<(), Error>(())
        });
        let (shared, ended) = (Arc::clone(&self.shared), keeping.clone());
        tasks.spawn("figures of modes", OnFailure::Log, async move {
            tokio::select! {
                () = ended.cancelled() => {}
                () = shared.modes.keep_adding(&shared.store) => {}
            }
            shared.modes.add(&shared.store).await;
            Ok::<(), Error>(())
        });
    }

    /// Asking for admission, and the cache.
    fn admission(
        &mut self,
        sender: &mpsc::UnboundedSender<Event>,
        tasks: &Tasks,
        (keeping, failed): (&CancellationToken, &CancellationToken),
    ) {
        let shared = &self.shared;
        let parts = self.parts.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        let Some((messages, filling)) = parts else { return };
        let asking = admission::run(Arc::clone(shared), messages, sender.clone(), keeping.clone());
        let (asking, filling) = (vital(failed.clone(), asking), vital(failed.clone(), filling.run()));
        let keeping = keeping.clone();
        let filling = async move {
            tokio::select! {
                () = keeping.cancelled() => {}
                () = filling => {}
            }
        };
        tasks.spawn("admission", OnFailure::Log, async move {
            futures_util::future::join(asking, filling).await;
            Ok::<(), Error>(())
        });
    }

    fn partition(
        &self,
        partition: usize,
        sender: &mpsc::UnboundedSender<Event>,
        tasks: &Tasks,
        (claiming, keeping, failed): (&CancellationToken, &CancellationToken, &CancellationToken),
    ) {
        let shared = &self.shared;
        let sweeping = Arc::new(Notify::new());
        {
            let (shared, events) = (Arc::clone(shared), sender.clone());
            let tools = (claiming.clone(), Arc::clone(&sweeping), self.health.component("claiming"));
            let index = u16::try_from(partition).unwrap_or(u16::MAX);
            let claimer = vital(failed.clone(), claiming::run(shared, index, events, tools));
            tasks.spawn("claimer", OnFailure::Log, claimer);
        }
        {
            let (shared, events) = (Arc::clone(shared), sender.clone());
            let tools = (keeping.clone(), self.member.clone(), self.health.component("liveness"));
            let beats = vital(failed.clone(), liveness::run(shared, partition, events, tools));
            tasks.spawn("liveness", OnFailure::Log, async move {
                beats.await;
                Ok::<(), Error>(())
            });
        }
        let (shared, events, token) = (Arc::clone(shared), sender.clone(), claiming.clone());
        let sweeps = vital(failed.clone(), sweep::run(shared, partition, events, (token, sweeping)));
        tasks.spawn("sweep", OnFailure::Log, async move {
            sweeps.await;
            Ok::<(), Error>(())
        });
    }

    /// Hands back whatever Redis still says we hold and deletes the consumer.
    async fn leave(&self) {
        let shared = &self.shared;
        for partition in shared.store.partitions() {
            let leaving = async {
                let count = sweep::hand_back_all(shared, partition).await?;
                let streams: Vec<_> = shared
                    .queues
                    .names()
                    .iter()
                    .map(|queue| (partition.keys().jobs(queue), keys::WORKERS))
                    .collect();
                partition.forget(&shared.consumer, None, &streams).await?;
                Ok::<usize, Error>(count)
            };
            match tokio::time::timeout(LAST_WORDS, leaving).await {
                Ok(Ok(count)) => tracing::info!(handed_back = count, "worker left"),
                Ok(Err(error)) => {
                    tracing::warn!(%error, "the worker could not leave properly; schedulers will take its work");
                }
                Err(_) => {
                    tracing::warn!("redis did not answer in time; schedulers will take this worker's work");
                }
            }
        }
    }
}

/// A part without which the others would live and be deaf: its panic ends the worker.
async fn vital<T>(failed: CancellationToken, part: impl Future<Output = T>) -> T {
    match AssertUnwindSafe(part).catch_unwind().await {
        Ok(done) => done,
        Err(panic) => {
            failed.cancel();
            std::panic::resume_unwind(panic)
        }
    }
}

/// The machine's name, made fit for records whose words are parted by spaces.
fn host_name() -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "host".to_owned(), |name| name.trim().chars().take(48).map(plain).collect())
}

/// `<host>-<pid>-<random>`: unique per start, and told apart by people.
fn consumer_name() -> String {
    format!("{}-{}-{:06x}", host_name(), std::process::id(), rand::random::<u32>() & 0xff_ffff)
}
