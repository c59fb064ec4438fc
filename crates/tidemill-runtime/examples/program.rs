//! A program around no engine at all: flags, settings, log, tasks, health, exit code.
//!
//! `cargo run -p tidemill-runtime --example program -- config print`

use std::{convert::Infallible, sync::Arc, time::Duration};

use clap::{Parser, Subcommand};
use serde::{Deserialize, Serialize};
use tidemill_runtime::{
    cli::{self, CommonArgs, ConfigCommand},
    duty::{self, Cadence, Duty, Tick},
    exit::Exit,
    health::Health,
    http, log,
    metrics::{DutyMetrics, Metrics},
    program::{self, Failure},
    settings::{self, Loaded, Problem},
    shutdown,
    tasks::{OnFailure, Tasks},
};

/// Counts the tide.
#[derive(Debug, Parser)]
#[command(version)]
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

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    http: http::Settings,
    log: log::Settings,
    shutdown: shutdown::Settings,
}

fn check(loaded: &Loaded<Settings>) -> Vec<Problem> {
    let level = loaded.settings.log.check().err();
    level.map(|error| loaded.problem("log.level", error.to_string())).into_iter().collect()
}

struct Tide;

impl Duty for Tide {
    const NAME: &'static str = "tide";
    type Error = Infallible;

    async fn tick(&mut self) -> Result<Tick, Infallible> {
        tracing::info!("the tide has turned");
        Ok(Tick::Done)
    }
}

async fn start(loaded: Loaded<Settings>, tasks: Tasks) -> Result<Duration, Failure> {
    let problems = check(&loaded);
    if !problems.is_empty() {
        return Err(settings::SettingsError::new(problems).into());
    }
    log::init(&loaded.settings.log).map_err(|error| Failure::new(Exit::Settings, error))?;
    let health = Health::new("tide", env!("CARGO_PKG_VERSION"));
    let metrics = Metrics::new("tide", env!("CARGO_PKG_VERSION"));
    let duties = Arc::new(DutyMetrics::new(&metrics));
    let given = loaded.is_given("http.addr");
    let bound = http::bind(&loaded.settings.http, given).await;
    let (listener, _) = bound.map_err(|error| Failure::new(Exit::Failed, error))?;
    let router = http::admin_router(health.clone(), metrics);
    http::spawn_admin(&tasks, listener, router, health);
    duty::spawn(&tasks, Tide, Cadence::every(Duration::from_secs(10)), &duties, OnFailure::ShutDown);
    Ok(loaded.settings.shutdown.grace())
}

fn main() -> Exit {
    let arguments = Arguments::parse();
    let sources = arguments.common.sources();
    if let Some(Command::Config(command)) = arguments.command {
        return program::report("tide", cli::config(command, &sources, check));
    }
    match settings::load::<Settings>(&sources) {
        Ok(loaded) => program::run("tide", Some(1), |tasks| start(loaded, tasks)),
        Err(error) => program::report("tide", Err(error)),
    }
}
