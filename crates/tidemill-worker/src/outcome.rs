//! What became of a claimed entry, on its way from the executor to the settler. Everything is owned: the entry may be settled long
//! after its claim, when Redis is back.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidemill_protocol::{EntryId, ExecutionMode, RunState, StepState};
use tidemill_store::{DeferState, Due, Mode, Slot};
use tidemill_workflow::Plan;
use tidemill_workflow::orchestrate::{Close, Turn};

use crate::budget::Purse;

/// Where an entry stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) partition: u16,
    pub(crate) queue: u16,
}

/// What is to be recorded for an entry.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) place: Place,
    pub(crate) entry: EntryId,
    pub(crate) ending: Ending,
}

/// Ways to Redis: what is parked has one of its own, so that much of it does not hold up the ends of other work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    Settle,
    Park,
}

impl Lane {
    pub(crate) const ALL: [Self; 2] = [Self::Settle, Self::Park];
}

impl Outcome {
    pub(crate) const fn lane(&self) -> Lane {
        if let Ending::Park(_) = self.ending { Lane::Park } else { Lane::Settle }
    }

    /// Whether its entry counts as held until it is settled.
    pub(crate) const fn takes_room(&self) -> bool {
        if let Ending::Park(park) = &self.ending { park.takes_room } else { true }
    }
}

#[derive(Debug)]
pub(crate) enum Ending {
    /// A plain job that leaves nothing behind.
    Acknowledge,
    /// A plain job with a result.
    Complete(Box<Complete>),
    /// Goes to the dead letters.
    Bury(Box<Bury>),
    /// Waits in Redis.
    Defer(Box<Defer>),
    /// Waits in the line of a tier.
    Park(Box<Park>),
    /// Handed back.
    Release(Box<Release>),
    /// A step has ended.
    Step(Box<StepEnd>),
    /// An item of a `for_each` has ended.
    Item(Box<ItemEnd>),
    /// A `for_each` begins.
    Expand(Box<Expand>),
    /// A run's output is computed.
    Finish(Box<Finish>),
    /// A step waits.
    Wait(Box<WaitStep>),
    /// What is next at a run's end.
    Close(Box<CloseRun>),
}

#[derive(Debug)]
pub(crate) struct Complete {
    pub(crate) id: String,
    pub(crate) head: Vec<u8>,
    pub(crate) ttl_ms: u64,
    pub(crate) reply_to: Option<String>,
}

#[derive(Debug)]
pub(crate) struct Bury {
    pub(crate) id: String,
    pub(crate) code: String,
    pub(crate) reason: String,
    pub(crate) state: StepState,
    pub(crate) attempts: u32,
    pub(crate) ttl_ms: u64,
    pub(crate) reply_to: Option<String>,
}

#[derive(Debug)]
pub(crate) struct Defer {
    pub(crate) id: String,
    pub(crate) slot: Option<Slot>,
    pub(crate) state: DeferState,
    pub(crate) due: Due,
    pub(crate) note: String,
    pub(crate) ran: Duration,
    pub(crate) attempt: u32,
    pub(crate) changes: Vec<(&'static str, String)>,
}

#[derive(Debug)]
pub(crate) struct Park {
    pub(crate) id: String,
    pub(crate) slot: Option<Slot>,
    pub(crate) note: String,
    pub(crate) attempt: u32,
    pub(crate) tier: Arc<str>,
    pub(crate) tenant: Option<Arc<str>>,
    pub(crate) priority: u8,
    /// Whether it still counts as held: not while it is only on its way back.
    pub(crate) takes_room: bool,
}

#[derive(Debug)]
pub(crate) struct Release {
    pub(crate) slot: Option<Slot>,
    pub(crate) attempt: u32,
}

/// A run as far as settling needs it.
#[derive(Debug, Clone)]
pub(crate) struct RunRef {
    pub(crate) id: Arc<str>,
    pub(crate) workflow: Arc<str>,
    pub(crate) plan: Arc<Plan>,
    /// The queue that was asked for, in place of the workflow's.
    pub(crate) queue: Option<Arc<str>>,
    /// How long the run is kept after its end, in milliseconds.
    pub(crate) retention_ms: u64,
    /// Whether somebody wants the run's result.
    pub(crate) publishes: bool,
    pub(crate) reply_to: Option<Arc<str>>,
    /// The mode that it began with; its plan is the one for it.
    pub(crate) mode: ExecutionMode,
    /// When it started, in Redis's Unix milliseconds.
    pub(crate) started_ms: Option<u64>,
    /// What it may use up, where that is bounded.
    pub(crate) budget: Option<Arc<Purse>>,
}

impl RunRef {
    /// The queue of the run's own entries.
    pub(crate) fn home(&self) -> &str {
        self.queue.as_deref().unwrap_or(&self.plan.queue)
    }

    /// The queue of a step: its own, else the one asked for, else the workflow's.
    pub(crate) fn queue_of(&self, step: u32) -> &str {
        self.plan.step(step).and_then(|step| step.queue.as_deref()).unwrap_or_else(|| self.home())
    }
}

#[derive(Debug)]
pub(crate) struct StepEnd {
    pub(crate) run: RunRef,
    /// Absent when a wide fan-out goes on.
    pub(crate) step: Option<u32>,
    /// Where that fan-out comes from: a step, or absent for the run's first steps.
    pub(crate) origin: Option<u32>,
    pub(crate) from: u32,
    pub(crate) to: StepState,
    pub(crate) attempt: u32,
    pub(crate) ran: Duration,
    pub(crate) output: Bytes,
    pub(crate) error: Option<Fault>,
    pub(crate) mode: Mode,
}

impl StepEnd {
    /// How many steps count this end.
    pub(crate) fn width(&self) -> usize {
        self.origin.map_or_else(|| self.run.plan.roots(), |step| self.run.plan.dependents(step)).len()
    }
}

#[derive(Debug)]
pub(crate) struct ItemEnd {
    pub(crate) run: RunRef,
    pub(crate) step: u32,
    pub(crate) item: u64,
    pub(crate) to: StepState,
    pub(crate) attempt: u32,
    pub(crate) ran: Duration,
    pub(crate) output: Bytes,
    pub(crate) error: Option<Fault>,
    pub(crate) did_not_run: bool,
}

#[derive(Debug)]
pub(crate) struct Expand {
    pub(crate) run: RunRef,
    pub(crate) step: u32,
    pub(crate) attempt: u32,
    /// JSON texts of the items.
    pub(crate) items: Vec<Bytes>,
}

#[derive(Debug)]
pub(crate) struct Finish {
    pub(crate) run: RunRef,
    pub(crate) to: RunState,
    pub(crate) output: Bytes,
    pub(crate) error: Option<Fault>,
}

/// A step that is to wait.
#[derive(Debug)]
pub(crate) struct WaitStep {
    pub(crate) run: RunRef,
    pub(crate) step: u32,
    pub(crate) attempt: u32,
    pub(crate) ran: Duration,
    /// Memo, alarm, listened signals, published events, outputs and items put by.
    pub(crate) turn: Turn,
    /// The fields of the requests for its children.
    pub(crate) requests: Vec<Vec<(&'static str, Bytes)>>,
    /// Keys of the letters that it has read.
    pub(crate) read: Vec<String>,
    /// What its own tool has answered: it reads that next.
    pub(crate) answer: Option<Bytes>,
}

/// What is next at a run's end.
#[derive(Debug)]
pub(crate) struct CloseRun {
    pub(crate) run: RunRef,
    /// How many steps of its end had been dispatched.
    pub(crate) seen: u32,
    pub(crate) next: Close,
}

/// An error as it is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) code: String,
    pub(crate) message: String,
}

impl Fault {
    pub(crate) fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into() }
    }

    pub(crate) fn json(&self) -> String {
        serde_json::json!({ "code": self.code, "message": self.message }).to_string()
    }
}
