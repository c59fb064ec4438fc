//! The worker program: settings, tools, health, the engine, an exit code.

use std::collections::BTreeMap;
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
use tidemill_runtime::{http, log};
use tidemill_store::{ApplyError, Store};
use tidemill_worker::{Worker, WorkerError};

/// Runs jobs and workflow steps: claims them from the queues in Redis, calls their tools, settles them.
///
/// A worker is stateless: start as many as you like, stop any of them at any time. SIGTERM drains it: running work may finish
/// within `worker.grace_ms`, the rest is handed back. With nothing but TIDEMILL_REDIS_URL it serves the queue `default` with the
/// built-in tools echo, sleep, http.request, jq.transform and template.render.
#[derive(Debug, Parser)]
#[command(name = "tidemill-worker", version, max_term_width = 100)]
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
    namespace: String,
    partitions: u32,
    http: http::Settings,
    log: log::Settings,
    worker: tidemill_worker::Settings,
    /// What tools depend on: limits, breakers, caches.
    services: BTreeMap<String, Definition>,
    tools: BTreeMap<String, tidemill_tools::NamedTool>,
    exec: tidemill_tools::exec::Settings,
    http_request: tidemill_tools::http::Settings,
    template: tidemill_tools::template::Settings,
    jq: tidemill_tools::jq::Settings,
}

impl Default for Settings {
    fn default() -> Self {
        let tidemill_tools::Settings { tools, http_request, exec, template, jq } =
            tidemill_tools::Settings::default();
        Self {
            redis: tidemill_store::Settings::default(),
            namespace: "tm".to_owned(),
            partitions: 1,
            http: http::Settings::default(),
            log: log::Settings::default(),
            worker: tidemill_worker::Settings::default(),
            services: BTreeMap::new(),
            tools,
            exec,
            http_request,
            template,
            jq,
        }
    }
}

impl Settings {
    fn tools(&self) -> tidemill_tools::Settings {
        tidemill_tools::Settings {
            tools: self.tools.clone(),
            http_request: self.http_request.clone(),
            exec: self.exec.clone(),
            template: self.template.clone(),
            jq: self.jq.clone(),
        }
    }
}

fn check(loaded: &Loaded<Settings>) -> Vec<Problem> {
    let settings = &loaded.settings;
    let mut problems = Vec::new();
    if let Err(error) = settings.log.check() {
        problems.push(loaded.problem("log.level", error.to_string()));
    }
    if let Err(error) = settings.worker.check() {
        problems.push(loaded.problem(&format!("worker.{}", error.key), error.problem));
    }
    if let Err(error) = Store::new(&settings.redis, &settings.namespace, settings.partitions) {
        problems.push(loaded.problem("redis", error.to_string()));
    }
    problems.extend(
        service::check_all(&settings.services)
            .into_iter()
            .map(|found| loaded.problem(&format!("services.{}", found.path), found.message)),
    );
    if let Err(error) = tidemill_tools::builtin(&settings.tools()) {
        problems.push(loaded.problem("tools", error.to_string()));
    }
    problems
}

/// What the settings say about services holds for the whole pool, unless it was changed since by hand.
async fn put_in_force(store: &Store, services: &BTreeMap<String, Definition>) -> Result<(), Failure> {
    match store.services().seed("tidemill-worker", services).await {
        Ok(_) => Ok(()),
        Err(error @ ApplyError::Invalid(_)) => Err(Failure::new(Exit::Settings, error)),
        Err(error @ ApplyError::Store(_)) => Err(Failure::new(Exit::Redis, error)),
    }
}

async fn start(loaded: Loaded<Settings>, tasks: Tasks) -> Result<Duration, Failure> {
    let problems = check(&loaded);
    if !problems.is_empty() {
        return Err(SettingsError::new(problems).into());
    }
    let settings = &loaded.settings;
    log::init(&settings.log).map_err(|error| Failure::new(Exit::Settings, error))?;
    let health = Health::new("tidemill-worker", env!("CARGO_PKG_VERSION"));
    let metrics = Metrics::new("tidemill-worker", env!("CARGO_PKG_VERSION"));
    let bound = http::bind(&settings.http, loaded.is_given("http.addr")).await;
    let (listener, _) = bound.map_err(|error| Failure::new(Exit::Failed, error))?;
    http::spawn_admin(&tasks, listener, http::admin_router(health.clone(), metrics.clone()), health.clone());

    let refused = |error: &dyn std::fmt::Display| Failure::new(Exit::Settings, error);
    let registry = tidemill_tools::builtin(&settings.tools()).map_err(|error| refused(&error))?;
    let store = Store::new(&settings.redis, &settings.namespace, settings.partitions)
        .map_err(|error| refused(&error))?;
    store.check().await.map_err(|error| Failure::new(Exit::Redis, error))?;
    put_in_force(&store, &settings.services).await?;
    let worker = Worker::new(settings.worker.clone(), store, registry, (&metrics, &health))
        .map_err(|error| refused(&error))?;
    worker.prepare().await.map_err(|error| {
        let exit = match &error {
            WorkerError::Store(_) => Exit::Redis,
            WorkerError::Setting(_) | WorkerError::BadWorkflows(_) => Exit::Settings,
            WorkerError::Panicked => Exit::Failed,
        };
        Failure::new(exit, error)
    })?;
    let token = tasks.token();
    tasks.spawn("worker", OnFailure::ShutDown, worker.run(token));
    // the worker bounds its own drain; this is the last resort
    Ok(Duration::from_millis(settings.worker.grace_ms) + Duration::from_secs(10))
}

fn main() -> Exit {
    let arguments = Arguments::parse();
    let sources = arguments.common.sources();
    if let Some(Command::Config(command)) = arguments.command {
        return program::report("tidemill-worker", cli::config(command, &sources, check));
    }
    match settings::load::<Settings>(&sources) {
        Ok(loaded) => program::run("tidemill-worker", None, |tasks| start(loaded, tasks)),
        Err(error) => program::report("tidemill-worker", Err(error)),
    }
}
