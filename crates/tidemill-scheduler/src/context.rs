//! What every duty works with.

use std::sync::Arc;

use tidemill_store::{Partition, Store};

use crate::metrics::Counters;
use crate::modes::Starts;
use crate::plans::Plans;
use crate::settings::Settings;

/// What every duty works with; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) store: Store,
    /// This scheduler's consumer name, which is also who its audit records name.
    pub(crate) who: Arc<str>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) plans: Arc<Plans>,
    /// Runs started, by their execution mode.
    pub(crate) starts: Arc<Starts>,
}

impl Context {
    pub(crate) fn partitions(&self) -> &[Partition] {
        self.store.partitions()
    }

    /// A partition by its number; there is none where the pool had more of them once.
    pub(crate) fn partition(&self, index: u32) -> Option<&Partition> {
        self.store.partitions().get(index as usize)
    }
}

/// A number for a counter.
pub(crate) fn count<N: TryInto<u64>>(number: N) -> u64 {
    number.try_into().unwrap_or(u64::MAX)
}
