//! `tidemill-producer`: takes jobs and runs in over HTTP.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, Subcommand};
use serde::{Deserialize, Serialize};
use tidemill_policy::service::{self, Definition};
use tidemill_producer::{Around, Unfit, http::openapi_json};
use tidemill_runtime::cli::{self, CommonArgs, ConfigCommand};
use tidemill_runtime::exit::Exit;
use tidemill_runtime::health::Health;
use tidemill_runtime::metrics::{DutyMetrics, Metrics};
use tidemill_runtime::program::{self, Failure};
use tidemill_runtime::settings::{self, Loaded, Problem, SettingsError};
use tidemill_runtime::tasks::Tasks;
use tidemill_runtime::{http, log, shutdown};
use tidemill_store::Store;

const NAME: &str = "tidemill-producer";

/// Takes jobs and workflow runs in over HTTP and puts them into Redis.
///
/// Without settings it listens on 127.0.0.1:8080 and uses the Redis at 127.0.0.1:6379:
///
///   tidemill-producer --redis-url redis://10.0.0.5:6379/0
///   curl -d '{"tool":"echo","input":{"hello":"tide"},"result_ttl_ms":60000}' http://127.0.0.1:8080/v1/jobs
///
/// Whoever reaches the address is trusted. The API is described at /openapi.json and in docs/http-api.md.
#[derive(Debug, Parser)]
#[command(name = NAME, version, verbatim_doc_comment)]
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
    /// Print the OpenAPI document instead of running
    Openapi,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    redis: tidemill_store::Settings,
    /// Prefix of all keys.
    namespace: String,
    /// How many partitions the pool has; the same for every program.
    partitions: u32,
    http: http::Settings,
    log: log::Settings,
    shutdown: shutdown::Settings,
    producer: tidemill_producer::Settings,
    /// What tools depend on: limits, breakers, caches.
    services: BTreeMap<String, Definition>,
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
            producer: tidemill_producer::Settings::default(),
            services: BTreeMap::new(),
        }
    }
}

fn check(loaded: &Loaded<Settings>) -> Vec<Problem> {
    let settings = &loaded.settings;
    let mut problems: Vec<Problem> = settings
        .producer
        .problems()
        .into_iter()
        .map(|(key, message)| loaded.problem(&format!("producer.{key}"), message))
        .collect();
    problems.extend(
        service::check_all(&settings.services)
            .into_iter()
            .map(|found| loaded.problem(&format!("services.{}", found.path), found.message)),
    );
    problems.extend(settings.log.check().err().map(|error| loaded.problem("log.level", error.to_string())));
    if let Err(error) = Store::new(&settings.redis, &settings.namespace, settings.partitions) {
        problems.push(loaded.problem("redis", error.to_string()));
    }
    problems
}

async fn start(loaded: Loaded<Settings>, tasks: Tasks) -> Result<Duration, Failure> {
    let problems = check(&loaded);
    if !problems.is_empty() {
        return Err(SettingsError::new(problems).into());
    }
    let settings = &loaded.settings;
    log::init(&settings.log).map_err(|error| Failure::new(Exit::Settings, error))?;
    let store = Store::new(&settings.redis, &settings.namespace, settings.partitions)
        .map_err(|error| Failure::new(Exit::Settings, error))?;
    let answers = match store.check().await {
        Ok(facts) => {
            tracing::info!(product = facts.product, version = facts.version, "connected to redis");
            true
        }
        Err(error) if error.is_transient() => {
            tracing::warn!(%error, "redis does not answer yet; not ready until it does");
            false
        }
        Err(error) => return Err(Failure::new(Exit::Redis, error)),
    };
    let metrics = Metrics::new("producer", env!("CARGO_PKG_VERSION"));
    let around = Around {
        tasks,
        health: Health::new("producer", env!("CARGO_PKG_VERSION")),
        duties: Arc::new(DutyMetrics::new(&metrics)),
        metrics,
    };
    let (listener, _) = http::bind(&settings.http, loaded.is_given("http.addr"))
        .await
        .map_err(|error| Failure::new(Exit::Failed, error))?;
    let intake = tidemill_producer::spawn(settings.producer.clone(), store, &around, listener);
    if answers {
        tidemill_producer::validate(&intake).await.map_err(unfit)?;
    } else {
        tidemill_producer::validate_later(&intake, &around);
    }
    Ok(settings.shutdown.grace())
}

fn unfit(unfit: Unfit) -> Failure {
    let exit = match &unfit {
        Unfit::Store(_) => Exit::Redis,
        Unfit::BadWorkflows(_) => Exit::Settings,
    };
    Failure::new(exit, unfit)
}

#[expect(clippy::print_stdout, reason = "the document is what was asked for")]
fn print_openapi() -> Exit {
    println!("{}", openapi_json());
    Exit::Ok
}

fn main() -> Exit {
    let arguments = Arguments::parse();
    let sources = arguments.common.sources();
    match arguments.command {
        Some(Command::Config(command)) => {
            return program::report(NAME, cli::config(command, &sources, check));
        }
        Some(Command::Openapi) => return print_openapi(),
        None => {}
    }
    match settings::load::<Settings>(&sources) {
        Ok(loaded) => program::run(NAME, None, |tasks| start(loaded, tasks)),
        Err(error) => program::report(NAME, Err(error)),
    }
}
