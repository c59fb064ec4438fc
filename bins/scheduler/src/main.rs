//! `tidemill-scheduler`: starts runs, promotes what is due, fires cron entries, reclaims from the dead, audits.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clap::{Parser, Subcommand};
use serde::{Deserialize, Serialize};
use tidemill_policy::service::{self, Definition};
use tidemill_runtime::cli::{self, CommonArgs, ConfigCommand};
use tidemill_runtime::exit::Exit;
use tidemill_runtime::health::Health;
use tidemill_runtime::metrics::Metrics;
use tidemill_runtime::program::{self, Failure};
use tidemill_runtime::settings::{self, Loaded, Problem, SettingsError};
use tidemill_runtime::tasks::{OnFailure, Tasks};
use tidemill_runtime::{http, log, shutdown};
use tidemill_scheduler::{Error, RetentionSettings, Scheduler, Setup};
use tidemill_store::{ApplyError, Cron, Store};

const NAME: &str = "tidemill-scheduler";
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Starts requested runs, promotes what is due, fires cron entries, takes over from workers that died, ends overdue runs, bounds
/// what Redis keeps, and repairs what was lost.
///
/// Run as many as you like: they need no leader, and each thing is done once. One takes little; two survive the loss of a machine.
///
/// Settings come from the defaults, the file (--config), the environment (TIDEMILL_SCHEDULER__CRASH_BUDGET=5 is
/// scheduler.crash_budget) and flags, each overriding those before it. `tidemill-scheduler config print` shows what is in force.
///
/// Exit codes: 0 ended in order; 1 failed; 2 unknown flag; 3 settings or published workflows refused; 4 Redis cannot be reached or
/// used; 5 work was left when the grace was over; 130 ended at once by a second signal.
#[derive(Debug, Parser)]
#[command(name = NAME, version)]
struct Arguments {
    #[command(flatten)]
    common: CommonArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Look at the settings instead of running
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    redis: tidemill_store::Settings,
    /// Prefix of all keys.
    namespace: String,
    /// How many partitions the pool has; the same for every process of it, and never changed.
    partitions: u32,
    http: http::Settings,
    log: log::Settings,
    shutdown: shutdown::Settings,
    scheduler: tidemill_scheduler::Settings,
    retention: RetentionSettings,
    /// What tools depend on: limits, breakers, caches.
    services: BTreeMap<String, Definition>,
    /// Cron entries, stored at the start.
    cron: Vec<Cron>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            redis: tidemill_store::Settings::default(),
            namespace: "tm".to_owned(),
            partitions: 1,
            http: http::Settings::default(),
            log: log::Settings::default(),
            shutdown: shutdown::Settings::default(),
            scheduler: tidemill_scheduler::Settings::default(),
            retention: RetentionSettings::default(),
            services: BTreeMap::new(),
            cron: Vec::new(),
        }
    }
}

/// A scheduler made of the settings, with the health and metrics that it tells through; nothing is sent to Redis yet.
fn build(loaded: &Loaded<Settings>) -> Result<(Scheduler, Store, Health, Metrics), SettingsError> {
    let settings = &loaded.settings;
    let refuse = |key: &str, message: String| SettingsError::new(vec![loaded.problem(key, message)]);
    settings.log.check().map_err(|error| refuse("log.level", error.to_string()))?;
    let store = Store::new(&settings.redis, &settings.namespace, settings.partitions);
    let store = store.map_err(|error| refuse("redis", error.to_string()))?;
    let (health, metrics) = (Health::new(NAME, VERSION), Metrics::new(NAME, VERSION));
    let setup = Setup {
        settings: settings.scheduler.clone(),
        retention: settings.retention.clone(),
        crons: settings.cron.clone(),
        store: store.clone(),
        built_in_tools: BTreeSet::from(tidemill_scheduler::BUILT_IN_TOOLS.map(ToOwned::to_owned)),
        metrics: metrics.clone(),
        health: health.clone(),
        version: VERSION,
    };
    let scheduler = Scheduler::new(setup).map_err(|error| match error {
        Error::Setting(setting) => refuse(&setting.key, setting.problem),
        other => refuse("scheduler", other.to_string()),
    })?;
    Ok((scheduler, store, health, metrics))
}

/// What is wrong with the definitions of services.
fn check_services(loaded: &Loaded<Settings>) -> Vec<Problem> {
    let found = service::check_all(&loaded.settings.services).into_iter();
    found.map(|found| loaded.problem(&format!("services.{}", found.path), found.message)).collect()
}

/// The problems that only the scheduler itself can see.
fn check(loaded: &Loaded<Settings>) -> Vec<Problem> {
    let mut problems = check_services(loaded);
    problems.extend(build(loaded).err().map(|error| error.problems().to_vec()).unwrap_or_default());
    problems
}

async fn start(loaded: Loaded<Settings>, tasks: Tasks) -> Result<Duration, Failure> {
    if !check_services(&loaded).is_empty() {
        return Err(SettingsError::new(check(&loaded)).into());
    }
    let (scheduler, store, health, metrics) = build(&loaded)?;
    log::init(&loaded.settings.log).map_err(|error| Failure::new(Exit::Settings, error))?;
    let given = loaded.is_given("http.addr");
    let (listener, _) =
        http::bind(&loaded.settings.http, given).await.map_err(|error| Failure::new(Exit::Failed, error))?;
    let router = http::admin_router(health, metrics);
    tasks.spawn("http", OnFailure::ShutDown, http::serve(listener, router, tasks.token()));
    scheduler.prepare().await.map_err(|error| {
        let exit = match &error {
            Error::Store(_) => Exit::Redis,
            Error::BadWorkflows(_) | Error::Setting(_) => Exit::Settings,
            Error::Task { .. } => Exit::Failed,
        };
        Failure::new(exit, error)
    })?;
    store.services().seed(NAME, &loaded.settings.services).await.map_err(|error| match &error {
        ApplyError::Invalid(_) => Failure::new(Exit::Settings, error),
        ApplyError::Store(_) => Failure::new(Exit::Redis, error),
    })?;
    tasks.spawn("scheduler", OnFailure::ShutDown, scheduler.run(tasks.token()));
    Ok(loaded.settings.shutdown.grace())
}

fn main() -> Exit {
    let arguments = Arguments::parse();
    let sources = arguments.common.sources();
    if let Some(Command::Config(command)) = arguments.command {
        return program::report(NAME, cli::config(command, &sources, check));
    }
    match settings::load::<Settings>(&sources) {
        // everything it does is waiting for Redis: one thread carries it
        Ok(loaded) => program::run(NAME, Some(1), |tasks| start(loaded, tasks)),
        Err(error) => program::report(NAME, Err(error)),
    }
}
