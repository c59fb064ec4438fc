//! The scheduler as a whole: checks itself, runs its duties, hands back at the end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tidemill_runtime::duty::{self, Cadence, Duty};
use tidemill_runtime::health::Health;
use tidemill_runtime::metrics::{DutyMetrics, Metrics};
use tidemill_runtime::tasks::{OnFailure, Tasks};
use tidemill_store::{Cron, Store};
use tokio_util::sync::CancellationToken;

use crate::auditor::Auditor;
use crate::context::Context;
use crate::courier::Courier;
use crate::cron::CronDuty;
use crate::expirer::Expirer;
use crate::groups::duty::Groups;
use crate::membership::{Membership, consumer_name, leave};
use crate::memory::MemoryWatch;
use crate::metrics::Counters;
use crate::modes::{self, ModeKeeper};
use crate::pacer::Pacer;
use crate::plans::Plans;
use crate::promoter::Promoter;
use crate::reclaimer::Reclaimer;
use crate::retention::{self, Retention};
use crate::starter::Starter;
use crate::{Error, Settings, cron, validation};

/// How often Redis's memory is looked at.
const MEMORY_EVERY: Duration = Duration::from_secs(10);

/// What a scheduler is made of.
#[derive(Debug)]
pub struct Setup {
    /// How it works.
    pub settings: Settings,
    /// What is kept of the past.
    pub retention: retention::Settings,
    /// Cron entries that are stored at the start.
    pub crons: Vec<Cron>,
    /// The pool's Redis.
    pub store: Store,
    /// Names of tools that every worker has, so that nobody is warned of them.
    pub built_in_tools: BTreeSet<String>,
    /// Where it counts.
    pub metrics: Metrics,
    /// Where it tells whether it can work.
    pub health: Health,
    /// The version it announces.
    pub version: &'static str,
}

/// A scheduler that has not been started.
#[derive(Debug)]
pub struct Scheduler {
    context: Context,
    retention: retention::Settings,
    crons: Vec<Cron>,
    built_in_tools: BTreeSet<String>,
    duty_metrics: Arc<DutyMetrics>,
    health: Health,
    version: &'static str,
}

impl Scheduler {
    /// Checks the settings and registers the metrics. Nothing is sent to Redis yet.
    ///
    /// # Errors
    /// A setting cannot be used.
    pub fn new(setup: Setup) -> Result<Self, Error> {
        setup.settings.check()?;
        setup.retention.check()?;
        cron::check(&setup.crons)?;
        let context = Context {
            who: consumer_name(),
            settings: Arc::new(setup.settings),
            counters: Arc::new(Counters::new(&setup.metrics)),
            plans: Arc::new(Plans::new(setup.store.home().clone())),
            starts: Arc::default(),
            store: setup.store,
        };
        let duty_metrics = Arc::new(DutyMetrics::new(&setup.metrics));
        let (retention, crons, built_in_tools) = (setup.retention, setup.crons, setup.built_in_tools);
        Ok(Self {
            context,
            retention,
            crons,
            built_in_tools,
            duty_metrics,
            health: setup.health,
            version: setup.version,
        })
    }

    /// Its consumer name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.context.who
    }

    /// Checks the server and every active version of every workflow. Call it before [`Scheduler::run`]; a process does not start on a bad graph.
    ///
    /// # Errors
    /// Redis cannot be reached or used, or a definition is not valid (with file, line and reason).
    pub async fn prepare(&self) -> Result<(), Error> {
        let redis = self.health.component("redis");
        let definitions = self.health.component("definitions");
        if let Err(error) = self.context.store.check().await {
            redis.set_unready(error.to_string());
            return Err(error.into());
        }
        let context = &self.context;
        let failed = &context.counters.validation_failed;
        validation::validate(&context.store, &context.plans, &self.built_in_tools, failed).await?;
        definitions.set_ready();
        modes::put_in_force(context).await?;
        Ok(())
    }

    /// Does its duties until `shutdown` is cancelled; then ends what is in hand, hands back the rest and deletes its consumer.
    ///
    /// # Errors
    /// A duty failed in a way that it cannot come back from (it panicked).
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let tasks = Tasks::new();
        let context = self.context.clone();
        let grace = Duration::from_millis(context.settings.grace_ms);
        let health = self.health.clone();
        tracing::info!(
            scheduler = &*context.who,
            partitions = context.partitions().len(),
            "scheduler started"
        );
        self.spawn(&tasks)?;
        let failed = tasks.token();
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = failed.cancelled() => {}
        }
        health.set_ending();
        let ended = tasks.shutdown(grace).await;
        match tokio::time::timeout(grace, leave(&context)).await {
            Ok(Ok(())) => tracing::info!(scheduler = &*context.who, "scheduler ended"),
            Ok(Err(error)) => tracing::warn!(%error, "could not hand back; other schedulers will take over"),
            Err(_) => tracing::warn!("could not hand back in time; other schedulers will take over"),
        }
        match ended.failure {
            Some((task, reason)) => Err(Error::Task { task, reason }),
            None => Ok(()),
        }
    }

    fn spawn(self, tasks: &Tasks) -> Result<(), Error> {
        let context = &self.context;
        let settings = Arc::clone(&context.settings);
        let every = |ms: u64| Cadence {
            backoff_max: Duration::from_secs(2),
            ..Cadence::every(Duration::from_millis(ms))
        };
        // these pause for as long as they know that nothing is due
        let exact = |ms: u64| Cadence { jitter: 0.0, ..every(ms) };
        let membership = Membership::new(context.clone(), self.health.component("redis"), self.version);
        self.duty(tasks, membership, exact(settings.beat_ms));
        for partition in context.partitions() {
            self.duty(
                tasks,
                Starter::new(context.clone(), partition, self.health.component("requests"))?,
                every(100),
            );
        }
        self.duty(tasks, Promoter::new(context.clone()), exact(settings.promote_idle_ms));
        self.duty(tasks, Pacer::new(context.clone()), exact(settings.pace_idle_ms));
        self.duty(tasks, CronDuty::new(context.clone(), self.crons.clone()), exact(1_000));
        for partition in context.partitions() {
            self.duty(tasks, Reclaimer::new(context.clone(), partition), every(settings.watch_ms));
        }
        for partition in context.partitions() {
            self.duty(tasks, Courier::new(context.clone(), partition), exact(200));
        }
        self.duty(tasks, Expirer::new(context.clone()), every(settings.expire_ms));
        let retention = Retention::new(context.clone(), self.retention.clone());
        self.duty(tasks, retention, Cadence::every(self.retention.every()));
        self.duty(tasks, ModeKeeper::new(context.clone()), Cadence::every(modes::EVERY));
        self.duty(tasks, MemoryWatch::new(context.clone()), Cadence::every(MEMORY_EVERY));
        self.duty(tasks, Auditor::new(context.clone()), every(1_000));
        self.duty(tasks, Groups::new(context.clone()), every(1_000));
        Ok(())
    }

    fn duty<D: Duty>(&self, tasks: &Tasks, duty: D, cadence: Cadence) {
        duty::spawn(tasks, duty, cadence, &self.duty_metrics, OnFailure::ShutDown);
    }
}
