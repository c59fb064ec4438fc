//! Execution modes in the scheduler: what the settings say is put in force at the start, runs started are tallied by mode, and the
//! mode in force is shown among the metrics.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tidemill_protocol::ExecutionMode;
use tidemill_runtime::duty::{Duty, Tick};
use tidemill_store::{Fault, ModeMove, ModeMoved, ModeTally, Store};

use crate::Error;
use crate::context::Context;

/// How often the tally is added and the mode looked at.
pub(crate) const EVERY: Duration = Duration::from_secs(1);

/// Runs started since the tally was added last.
#[derive(Debug, Default)]
pub(crate) struct Starts(Mutex<ModeTally>);

impl Starts {
    pub(crate) fn count(&self, mode: ExecutionMode) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).started(mode, 1);
    }

    async fn add(&self, store: &Store) -> Result<(), Error> {
        let tally = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        if let Err(error) = store.home().add_mode_tally(&tally).await {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).merge(&tally);
            return Err(error.into());
        }
        Ok(())
    }
}

/// Puts in force what the settings say, where they have changed since they last said something.
pub(crate) async fn put_in_force(context: &Context) -> Result<(), Error> {
    let Some(mode) = context.settings.mode else { return Ok(()) };
    let who = format!("settings of {}", context.who);
    let author = (&*who, "the settings say so");
    match context.store.home().switch_mode(author, ModeMove::Settings(mode), None).await? {
        ModeMoved::Switched { from, to, .. } => {
            tracing::info!(
                from = from.as_str(),
                to = to.as_str(),
                "execution mode switched, as the settings say"
            );
        }
        ModeMoved::Unchanged { mode: now, .. } if now != mode => {
            tracing::info!(
                mode = now.as_str(),
                settings = mode.as_str(),
                "the execution mode was switched by hand since the settings were last changed, and stays"
            );
        }
        ModeMoved::Unchanged { .. } | ModeMoved::Conflict { .. } | ModeMoved::NothingBefore => {}
    }
    Ok(())
}

/// The mode of runs that start now and whose workflow and caller name none. A key of another type counts as the default, and is
/// told: runs must start.
pub(crate) async fn of_pool(context: &Context) -> Result<ExecutionMode, Error> {
    match context.store.home().execution_mode().await {
        Ok(mode) => Ok(mode),
        Err(error) if error.fault() == Some(Fault::WrongType) => {
            tracing::error!(%error, "the pool's execution mode cannot be read; runs start hybrid");
            Ok(ExecutionMode::default())
        }
        Err(error) => Err(error.into()),
    }
}

/// See the module.
pub(crate) struct ModeKeeper {
    context: Context,
}

impl ModeKeeper {
    pub(crate) const fn new(context: Context) -> Self {
        Self { context }
    }
}

impl Duty for ModeKeeper {
    const NAME: &'static str = "mode_keeper";
    type Error = Error;

    async fn tick(&mut self) -> Result<Tick, Error> {
        self.context.starts.add(&self.context.store).await?;
        let now = of_pool(&self.context).await?;
        for mode in ExecutionMode::ALL {
            self.context.counters.mode.with(&[mode.as_str()]).set(i64::from(mode == now));
        }
        Ok(Tick::Done)
    }
}
