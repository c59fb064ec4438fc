//! Workers and schedulers that can be killed: each has a runtime and connections of its own, and all of it is dropped at once, wherever
//! it stands.

use std::collections::BTreeSet;
use std::sync::Arc;

use tidemill_runtime::health::Health;
use tidemill_runtime::metrics::Metrics;
use tidemill_scheduler::{Scheduler, Setup};
use tidemill_store::Store;
use tidemill_worker::{Settings, Worker};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use super::script::Ledger;

/// A worker or scheduler.
pub(super) struct Mortal(Option<Runtime>);

fn store(url: &str) -> Store {
    let settings = tidemill_store::Settings { url: url.to_owned(), ..tidemill_store::Settings::default() };
    Store::new(&settings, "tm", 1).unwrap()
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

impl Mortal {
    pub(super) fn worker(url: &str, ledger: &Arc<Ledger>) -> Self {
        let (url, ledger, runtime) = (url.to_owned(), Arc::clone(ledger), runtime());
        let life = async move {
            let settings = Settings {
                block_ms: 200,
                beat_ms: 100,
                sweep_ms: 500,
                max_parallel: 20,
                crash_budget: 50,
                ..Settings::default()
            };
            let (metrics, health) = (Metrics::new("test", "0"), Health::new("test", "0"));
            let worker = Worker::new(settings, store(&url), ledger.registry(), (&metrics, &health)).unwrap();
            worker.run(CancellationToken::new()).await
        };
        drop(runtime.spawn(life));
        Self(Some(runtime))
    }

    pub(super) fn scheduler(url: &str) -> Self {
        let (url, runtime) = (url.to_owned(), runtime());
        let life = async move {
            let settings = tidemill_scheduler::Settings {
                block_ms: 200,
                beat_ms: 100,
                dead_after_ms: 600,
                promote_idle_ms: 25,
                crash_budget: 50,
                audit_every_ms: 500,
                stalled_after_ms: 5_000,
                ..tidemill_scheduler::Settings::default()
            };
            let setup = Setup {
                settings,
                retention: tidemill_scheduler::RetentionSettings::default(),
                crons: Vec::new(),
                store: store(&url),
                built_in_tools: BTreeSet::new(),
                metrics: Metrics::new("test", "0"),
                health: Health::new("test", "0"),
                version: "0",
            };
            Scheduler::new(setup).unwrap().run(CancellationToken::new()).await
        };
        drop(runtime.spawn(life));
        Self(Some(runtime))
    }
}

/// The end of all that it does, now.
impl Drop for Mortal {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
