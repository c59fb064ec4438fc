//! The engines of `tidemill dev`: scheduler, worker and producer, each with its own connections, one health, one page of metrics.

use std::collections::BTreeSet;
use std::sync::Arc;

use tidemill_producer::Around;
use tidemill_runtime::exit::Exit;
use tidemill_runtime::health::Health;
use tidemill_runtime::metrics::{DutyMetrics, Metrics};
use tidemill_runtime::program::Failure;
use tidemill_runtime::tasks::{OnFailure, Tasks};
use tidemill_scheduler::{BUILT_IN_TOOLS, Scheduler, Setup};
use tidemill_store::{ApplyError, Store};
use tidemill_worker::Worker;
use tokio::net::TcpListener;

use crate::catalog;
use crate::settings::Settings;

const NAME: &str = "tidemill-dev";
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Starts all of them; they end with `tasks`.
pub(super) async fn start(
    settings: Settings,
    store: Store,
    tasks: &Tasks,
    listener: TcpListener,
) -> Result<(), Failure> {
    let (health, metrics) = (Health::new(NAME, VERSION), Metrics::new(NAME, VERSION));
    let registry = catalog::registry(&settings)?;
    store.services().seed(NAME, &settings.services).await.map_err(|error| match &error {
        ApplyError::Invalid(_) => Failure::new(Exit::Settings, error),
        ApplyError::Store(_) => Failure::new(Exit::Redis, error),
    })?;
    let scheduler = Scheduler::new(Setup {
        settings: settings.scheduler,
        retention: settings.retention,
        crons: settings.cron,
        store: store.clone(),
        built_in_tools: BTreeSet::from(BUILT_IN_TOOLS.map(ToOwned::to_owned)),
        metrics: metrics.clone(),
        health: health.clone(),
        version: VERSION,
    })
    .map_err(refused)?;
    scheduler.prepare().await.map_err(refused)?;
    let worker = Worker::new(settings.worker, store.clone(), registry, (&metrics, &health))
        .map_err(|error| Failure::new(Exit::Settings, error))?;
    tasks.spawn("scheduler", OnFailure::ShutDown, scheduler.run(tasks.token()));
    tasks.spawn("worker", OnFailure::ShutDown, worker.run(tasks.token()));
    // the scheduler counts its duties on this page already, under the same names
    let duties = Arc::new(DutyMetrics::new(&Metrics::new(NAME, VERSION)));
    let around = Around { tasks: tasks.clone(), health: health.clone(), metrics, duties };
    tidemill_producer::spawn(settings.producer, store, &around, listener);
    health.await_ready().await;
    Ok(())
}

fn refused(error: tidemill_scheduler::Error) -> Failure {
    let exit = match &error {
        tidemill_scheduler::Error::Store(_) => Exit::Redis,
        tidemill_scheduler::Error::BadWorkflows(_) | tidemill_scheduler::Error::Setting(_) => Exit::Settings,
        tidemill_scheduler::Error::Task { .. } => Exit::Failed,
    };
    Failure::new(exit, error)
}
