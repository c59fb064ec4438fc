//! One call to Redis for one service: what gathered goes together, and nobody waits for it longer than the patience.

use std::sync::Arc;
use std::time::Duration;

use tidemill_store::cache::{Answers, Asking, Bounds, Digest, Mode, Order, Put, PutReply, ServiceCache};
use tidemill_store::{Error, Fault};

/// What goes together.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) filler: Arc<str>,
    pub(super) lease: Duration,
    pub(super) bounds: Bounds,
    pub(super) puts: Vec<Put>,
    pub(super) drops: Vec<Digest>,
    pub(super) renew: Vec<Digest>,
    pub(super) looks: Vec<(Digest, Mode)>,
}

/// What became of it; `None` where nothing was to do.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) stored: Option<Result<PutReply, Lost>>,
    pub(super) found: Option<Result<Answers, Lost>>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    #[error(transparent)]
    Redis(#[from] Error),
    #[error("redis did not answer within {} ms", .0.as_millis())]
    Late(Duration),
}

impl Lost {
    pub(super) fn is_out_of_memory(&self) -> bool {
        matches!(self, Self::Redis(error) if error.fault() == Some(Fault::OutOfMemory))
    }
}

/// Makes the call.
pub(super) async fn make(cache: ServiceCache, batch: Batch, patience: Duration) -> Outcome {
    let writing = within(patience, write(&cache, &batch));
    let asking = within(patience, ask(&cache, &batch));
    let (stored, found) = tokio::join!(writing, asking);
    Outcome { stored: stored.transpose(), found: found.transpose() }
}

async fn within<T>(patience: Duration, call: impl Future<Output = Result<T, Error>>) -> Result<T, Lost> {
    match tokio::time::timeout(patience, call).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(Lost::Late(patience)),
    }
}

async fn write(cache: &ServiceCache, batch: &Batch) -> Result<Option<PutReply>, Error> {
    let stored = if batch.puts.is_empty() { None } else { Some(cache.put(&batch.bounds, &batch.puts).await) };
    let mut drops = batch.drops.clone();
    if matches!(stored, Some(Err(_))) {
        // nobody need wait for the end of these leases
        drops.extend(batch.puts.iter().map(|put| put.digest));
    }
    if !drops.is_empty()
        && let Err(error) = cache.give_up(&batch.filler, &drops).await
    {
        tracing::debug!(%error, "leases of the cache end by themselves");
    }
    stored.transpose()
}

async fn ask(cache: &ServiceCache, batch: &Batch) -> Result<Option<Answers>, Error> {
    if batch.looks.is_empty() && batch.renew.is_empty() {
        return Ok(None);
    }
    let Batch { filler, lease, bounds: Bounds { order, .. }, renew, looks, .. } = batch;
    cache.get(&Asking { filler, lease: *lease, order: *order, renew, looks }).await.map(Some)
}

/// The store's word for the order of eviction.
pub(super) const fn order_of(order: tidemill_policy::service::Order) -> Order {
    match order {
        tidemill_policy::service::Order::Lru => Order::Lru,
        tidemill_policy::service::Order::Lfu => Order::Lfu,
    }
}
