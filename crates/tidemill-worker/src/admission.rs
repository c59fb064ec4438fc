//! Admission: may this call be made now? All limits of all its tiers are asked in Redis, for the whole pool, in one call.
//!
//! The [`engine`] is one task per worker. It has at most one `tm1_admit` under way; whatever gathers meanwhile (wanted calls, ended
//! calls) travels in the next one, so that a busy service costs a fraction of a round trip per call. A call that has to wait takes no
//! slot: for a moment it waits here, for longer in a line in Redis.

mod amounts;
mod engine;
mod exchange;
mod hedges;
mod learned;
mod lease;
mod lined;
mod local;
mod need;
mod refusals;
mod snapshot;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tidemill_store::{Error, Services};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use crate::assignment::Assignment;
pub(crate) use engine::run;
pub(crate) use hedges::HedgeShares;
pub(crate) use learned::Learned;
pub(crate) use lease::{Ended, Lease};
pub(crate) use lined::Lined;
pub(crate) use need::Need;
pub(crate) use refusals::behind;
pub(crate) use snapshot::{ServiceFacts, Snapshot};

/// What the engine is told.
#[derive(Debug)]
pub(crate) enum Message {
    /// A call wants to be made; the executor's key of its assignment.
    Ask(u64, Box<Need>),
    /// A late call wants to be repeated beside itself.
    AskHedge(Box<Need>, oneshot::Sender<Option<Lease>>),
    /// It is not wanted any more.
    Withdraw(u64),
    /// A granted call has ended.
    Ended(Box<Ended>),
    /// What does not go at once is to be parked: the worker drains.
    Drain,
}

/// What is said to the executor about an assignment.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It may run now.
    Granted(Box<Lease>),
    /// It waits here, without a slot.
    Waits,
    /// It belongs into the line of a tier.
    Line {
        /// Which.
        tier: Arc<str>,
        /// `limit:<unit>`, `concurrency`, `breaker`, `pause`, `line`.
        why: String,
        /// Why it goes there, for people.
        note: String,
    },
    /// It is put aside for so long.
    Aside {
        /// For how long.
        wait: Duration,
        /// Why, for people.
        note: String,
    },
    /// It can never be granted.
    Never {
        /// Stable word.
        code: &'static str,
        /// Why, for people.
        note: String,
    },
}

/// What the executor and calls need of admission. The rest belongs to the engine's task.
#[derive(Debug)]
pub(crate) struct Admission {
    snapshot: RwLock<Arc<Snapshot>>,
    /// Whether anything is limited at all: most workers ask for nothing, and this is all that it costs them.
    is_wanted: AtomicBool,
    sender: UnboundedSender<Message>,
    pub(crate) learned: Learned,
    pub(crate) hedges: HedgeShares,
    pub(crate) lined: Lined,
}

impl Admission {
    pub(crate) fn new() -> (Self, UnboundedReceiver<Message>) {
        let (sender, messages) = unbounded_channel();
        let admission = Self {
            snapshot: RwLock::default(),
            is_wanted: AtomicBool::new(false),
            sender,
            learned: Learned::default(),
            hedges: HedgeShares::default(),
            lined: Lined::default(),
        };
        (admission, messages)
    }

    /// The definitions as last read.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the definitions that are in force.
    pub(crate) async fn read(&self, services: &Services) -> Result<(), Error> {
        let snapshot = Snapshot::read(services).await?;
        tracing::info!(generation = snapshot.generation, "definitions of services read");
        self.is_wanted.store(!snapshot.catalog.is_empty(), Ordering::Release);
        *self.snapshot.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(snapshot);
        Ok(())
    }

    /// The service of a tool, if it has one.
    pub(crate) fn service_of(&self, tool: &str, named: Option<&str>) -> Option<Arc<ServiceFacts>> {
        if !self.is_wanted.load(Ordering::Acquire) {
            return None;
        }
        self.snapshot().service_of(tool, named)
    }

    /// What an assignment has to be admitted for, if anything.
    pub(crate) fn need(&self, assignment: &Assignment) -> Option<Need> {
        if !self.is_wanted.load(Ordering::Acquire) {
            return None;
        }
        Need::of(&self.snapshot(), &self.learned, assignment)
    }

    /// Tells the engine; when it is gone, the process ends.
    pub(crate) fn tell(&self, message: Message) {
        drop(self.sender.send(message));
    }

    /// A granted call has ended.
    pub(crate) fn ended(&self, ended: Ended) {
        self.tell(Message::Ended(Box::new(ended)));
    }
}
