//! The producer as a part of a process.

use std::time::Duration;

use tidemill_runtime::duty::{self, Cadence, Duty, Tick};
use tidemill_runtime::health::{Component, Health};
use tidemill_runtime::http::admin_router;
use tidemill_runtime::metrics::{DutyMetrics, Metrics};
use tidemill_runtime::tasks::{OnFailure, Tasks};
use tidemill_store::{Error, Store};
use tokio::net::TcpListener;

use crate::http::{self, Listener};
use crate::intake::Intake;
use crate::metric_names::Meters;
use crate::settings::Settings;

/// What the process has around its engines.
#[derive(Debug, Clone)]
pub struct Around {
    /// Its tasks.
    pub tasks: Tasks,
    /// Its health.
    pub health: Health,
    /// Its metrics.
    pub metrics: Metrics,
    /// The metrics of its duties.
    pub duties: std::sync::Arc<DutyMetrics>,
}

/// Starts the producer on a listener, with `/health`, `/ready` and `/metrics` beside its own routes. It ends with the
/// process's tasks.
pub fn spawn(settings: Settings, store: Store, around: &Around, listener: TcpListener) -> Intake {
    let bounds = Listener::from(&settings);
    let intake = Intake::new(settings, store.clone(), Meters::new(&around.metrics));
    let admin = admin_router(around.health.clone(), around.metrics.clone());
    let router = http::router(intake.clone(), around.tasks.token()).merge(admin);
    let watcher = Watcher { store, component: around.health.component("redis"), checked: false };
    let cadence = Cadence { backoff_max: Duration::from_secs(2), ..Cadence::every(Duration::from_secs(1)) };
    duty::spawn(&around.tasks, watcher, cadence, &around.duties, OnFailure::ShutDown);
    let serving = http::serve(listener, router, bounds, around.tasks.token());
    around.tasks.spawn("http", OnFailure::ShutDown, serving);
    intake
}

/// Why the published workflows keep a producer from running.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// Redis cannot be asked.
    #[error(transparent)]
    Store(#[from] Error),
    /// Active versions of workflows cannot be used: runs of them would be taken in and fail.
    #[error(
        "published workflows are not valid, so runs of them would be taken in and fail; publish a corrected version and archive this one \
         (`tidemill workflow archive NAME@VERSION --reason …`):\n{0}"
    )]
    BadWorkflows(String),
}

/// Checks every active version of every workflow. A process does not start on a bad graph.
///
/// # Errors
/// Redis is not available, or a definition is not valid or damaged (with file, line and reason).
pub async fn validate(intake: &Intake) -> Result<(), Unfit> {
    let wrong = intake.workflows().validate_all().await?;
    if wrong.is_empty() { Ok(()) } else { Err(Unfit::BadWorkflows(wrong.join("\n"))) }
}

/// Does the same as [`validate`] for a producer that has started without Redis, as soon as Redis answers; the process ends if a
/// definition is bad. It is not ready before.
pub fn validate_later(intake: &Intake, around: &Around) {
    let (intake, definitions, token) =
        (intake.clone(), around.health.component("definitions"), around.tasks.token());
    around.tasks.spawn("definitions", OnFailure::ShutDown, async move {
        loop {
            match validate(&intake).await {
                Err(Unfit::Store(error)) if error.is_transient() => {
                    definitions.set_unready(error.to_string());
                }
                Err(unfit) => return Err(unfit),
                Ok(()) => {
                    definitions.set_ready();
                    return Ok(());
                }
            }
            tokio::select! {
                () = token.cancelled() => return Ok(()),
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            }
        }
    });
}

/// Tells whether Redis answers, and whether it is one that Tidemill may run on.
struct Watcher {
    store: Store,
    component: Component,
    checked: bool,
}

impl Duty for Watcher {
    const NAME: &'static str = "redis_watcher";
    type Error = Error;

    async fn tick(&mut self) -> Result<Tick, Error> {
        let outcome = if self.checked {
            self.store.home().now_ms().await.map(|_| ())
        } else {
            self.store.check().await.map(|_| ())
        };
        match outcome {
            Ok(()) => {
                self.checked = true;
                self.component.set_ready();
                Ok(Tick::Done)
            }
            Err(error) => {
                // after a fault another server may answer
                self.checked = false;
                self.component.set_unready(error.to_string());
                Err(error)
            }
        }
    }
}
