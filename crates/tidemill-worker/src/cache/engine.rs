//! The loop that owns every call that is under way, and speaks to Redis for all of them.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tidemill_store::Store;
use tidemill_store::cache::{Digest, Found, Put};
use tokio::sync::mpsc::{UnboundedReceiver, WeakUnboundedSender};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::calls::{self, Outcome};
use super::flights::{Flights, Surroundings};
use super::metrics::CacheMetrics;
use super::{Answer, Asked, Timing};

/// What the engine reacts to.
#[derive(Debug)]
pub(super) enum Event {
    /// A call is looked up.
    Ask(Asked),
    /// Whatever is kept is asked for.
    AskKept { service: Arc<str>, digest: Digest, seat: oneshot::Sender<Found> },
    /// A ticket's end.
    Ended(End),
}

/// What came of a call.
#[derive(Debug)]
pub(super) struct End {
    pub(super) service: Arc<str>,
    pub(super) digest: Digest,
    /// Whether others may wait for it.
    pub(super) shared: bool,
    /// None: it was not made.
    pub(super) answer: Option<Answer>,
    pub(super) put: Option<Put>,
}

type Call = Pin<Box<dyn Future<Output = (Arc<str>, Outcome)> + Send>>;

/// Owns what is under way; to be run by somebody, once.
pub struct Engine {
    store: Store,
    surroundings: Arc<Surroundings>,
    events: UnboundedReceiver<Event>,
    services: HashMap<Arc<str>, Flights>,
    calls: FuturesUnordered<Call>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("services", &self.services.len()).finish_non_exhaustive()
    }
}

/// Events that are taken in before Redis is asked.
const GATHERED: usize = 256;

impl Engine {
    pub(super) fn new(
        store: Store,
        metrics: Arc<CacheMetrics>,
        timing: Timing,
        (sender, events): (WeakUnboundedSender<Event>, UnboundedReceiver<Event>),
    ) -> Self {
        // unique in the pool: a lease is this process's or not
        let filler = format!("{:032x}", rand::random::<u128>()).into();
        let surroundings = Arc::new(Surroundings { metrics, timing, filler, sender });
        Self { store, surroundings, events, services: HashMap::new(), calls: FuturesUnordered::new() }
    }

    /// Runs until every handle and every ticket is gone and what they left is written.
    pub async fn run(mut self) {
        let (mut batch, mut open) = (Vec::with_capacity(GATHERED), true);
        while open || !self.calls.is_empty() {
            let next = self.services.values().filter_map(Flights::next_at).min();
            tokio::select! {
                taken = self.events.recv_many(&mut batch, GATHERED), if open => open = taken > 0,
                Some((service, outcome)) = self.calls.next(), if !self.calls.is_empty() => {
                    if let Some(flights) = self.services.get_mut(&service) {
                        flights.done(outcome, Instant::now());
                    }
                }
                () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if open && next.is_some() => {}
            }
            for event in batch.drain(..) {
                self.on(event);
            }
            self.send();
        }
    }

    fn on(&mut self, event: Event) {
        let now = Instant::now();
        match event {
            Event::Ask(asked) => self.service(&asked.service).ask(asked, now),
            Event::AskKept { service, digest, seat } => self.service(&service).ask_kept(digest, seat, now),
            Event::Ended(end) => self.service(&end.service).ended(end, now),
        }
    }

    fn service(&mut self, service: &Arc<str>) -> &mut Flights {
        self.services.entry(Arc::clone(service)).or_insert_with(|| {
            let cache = self.store.cache(service);
            if let Err(error) = &cache {
                tracing::warn!(%service, %error, "this service's answers are not kept");
            }
            Flights::new(Arc::clone(service), cache.ok(), Arc::clone(&self.surroundings))
        })
    }

    /// Whatever gathered goes to Redis, one call at a time for each service.
    fn send(&mut self) {
        let now = Instant::now();
        for (service, flights) in &mut self.services {
            if let Some((cache, batch)) = flights.take(now) {
                let (service, patience) = (Arc::clone(service), self.surroundings.timing.patience);
                self.calls
                    .push(Box::pin(async move { (service, calls::make(cache, batch, patience).await) }));
            }
        }
    }
}
