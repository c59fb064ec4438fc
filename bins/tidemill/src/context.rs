//! What every command works with: the settings, the store, the output.

use tidemill_producer::{Intake, Meters};
use tidemill_runtime::metrics::Metrics;
use tidemill_runtime::settings::Loaded;
use tidemill_store::{Partition, ServerFacts, Store, redact_url};

use crate::error::{Error, Outcome};
use crate::output::Output;
use crate::settings::Settings;

/// What every command works with.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) settings: Settings,
    pub(crate) store: Store,
    pub(crate) output: Output,
}

impl Context {
    /// Nothing is sent to Redis yet.
    pub(crate) fn new(loaded: Loaded<Settings>, output: Output) -> Outcome<Self> {
        let settings = loaded.settings;
        let store = Store::new(&settings.redis, &settings.namespace, settings.partitions)?;
        Ok(Self { settings, store, output })
    }

    /// Connects, and checks that this Redis can be used.
    pub(crate) async fn connect(&self) -> Outcome<ServerFacts> {
        self.store.check().await.map_err(|error| match &error {
            tidemill_store::Error::Settings(_) => Error::from(error),
            tidemill_store::Error::Redis { .. }
            | tidemill_store::Error::Unsuitable(_)
            | tidemill_store::Error::Damaged(_)
            | tidemill_store::Error::Corrupt(_) => Error::redis(format!(
                "cannot use Redis at {}: {error}\n  \
                 name another one with --redis-url or TIDEMILL_REDIS_URL; `tidemill dev` starts a private one",
                redact_url(&self.settings.redis.url)
            )),
        })
    }

    /// The way in for jobs and runs.
    pub(crate) fn intake(&self) -> Intake {
        let metrics = Metrics::new("tidemill", env!("CARGO_PKG_VERSION"));
        Intake::new(self.settings.producer.clone(), self.store.clone(), Meters::new(&metrics))
    }

    /// The partition that an id belongs to, then all others.
    pub(crate) fn partitions_for(&self, id: &str) -> Vec<&Partition> {
        let own = self.store.partition_of(id);
        let others = self.store.partitions().iter().filter(|other| other.index() != own.index());
        std::iter::once(own).chain(others).collect()
    }
}
