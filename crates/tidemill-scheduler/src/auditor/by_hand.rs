//! The audit of one run when somebody asks for it: the same look and the same repairs as on the auditor's walk, at once.

use std::sync::Arc;

use tidemill_runtime::metrics::Metrics;
use tidemill_store::{Partition, Store};

use super::run::{Audited, audit};
use crate::context::Context;
use crate::metrics::Counters;
use crate::{Error, Plans, Settings};

/// Repairs runs one by one, in somebody's name.
#[derive(Debug, Clone)]
pub struct RunRepair {
    context: Context,
}

impl RunRepair {
    /// `who` stands in the audit beside each repair. Nothing is sent to Redis yet.
    #[must_use]
    pub fn new(store: Store, plans: Arc<Plans>, who: &str) -> Self {
        let counters = Arc::new(Counters::new(&Metrics::new("tidemill", env!("CARGO_PKG_VERSION"))));
        let settings = Arc::new(Settings::default());
        Self {
            context: Context { store, who: who.into(), settings, counters, plans, starts: Arc::default() },
        }
    }

    /// Takes a run that is over, or gone, out of the live ones; dispatches again what is in flight by its record and is nowhere; and,
    /// with `stands_still`, carries on a run with nothing in flight. Each is one function that looks again, so a run that moves on
    /// meanwhile is left alone.
    ///
    /// # Errors
    /// Redis is not reachable or refuses, or the run's workflow cannot be read.
    pub async fn repair(&self, partition: &Partition, run: &str, stands_still: bool) -> Result<(), Error> {
        match audit(&self.context, partition, run).await? {
            Audited::Still { seq, run } if stands_still => {
                run.carry_on(&self.context, partition, seq).await?;
            }
            Audited::Still { .. } | Audited::InFlight => {}
        }
        Ok(())
    }
}
