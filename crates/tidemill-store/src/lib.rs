//! The only crate that speaks Redis: connections that mend themselves, every key, the function library with one typed twin per
//! function, claiming, and the reading of what is stored.
//!
//! A [`Store`] knows where Redis is; a [`Partition`] of it is what engines work with. Every change of state is one call of one
//! function (or, for plain jobs that leave nothing behind, XACK with XDEL); nothing here repeats a call by itself.

pub mod backup;
pub mod cache;
mod claims;
mod crons;
mod definitions;
mod durability;
mod endpoint;
mod error;
mod events;
mod exclusive;
mod functions;
mod inspect;
pub mod keys;
mod letters;
mod library;
mod line_ages;
mod lines;
mod link;
mod members;
mod modes;
mod operations;
mod pauses;
mod queues;
mod records;
mod search;
mod services;
mod settings;
mod store;
mod upkeep;
mod verify;
mod wire;

pub use claims::{ClaimedEntry, Claimer, Pending};
pub use crons::{Cron, Missed};
pub use definitions::{
    Damage, Damaged, LiveRuns, Publication, Published, Publishing, Startable, VersionChange, VersionMove,
    VersionMoved, VersionRecord, VersionState, WorkflowTarget,
};
pub use durability::{Assurance, Durability};
pub use endpoint::redact_url;
pub use error::{Error, Fault, Remedy};
pub use events::{Ear, PublishedEvent};
pub use functions::{
    Admission, Answer, Author, Beat, BudgetField, Burial, CallOutcome, CallReport, CallRequest, CalledUp,
    Closing, Completion, Content, Control, Correction, DeferState, Deferral, Delivered, Dependent, Due,
    EndRun, Enqueued, Entered, Entrance, Exchange, Exchanged, Expansion, FinishRun, Firing, Forecast, Gift,
    Given, GivenEnd, GroupCount, GroupMember, GroupRow, GroupVerdict, Held, Hindrance, ItemOutcome,
    MOST_EARLY_SIGNALS, Mode, NewRun, NewSignal, NextClosing, Notice, Outlook, Overlooked, Parking,
    RefusedRun, Released, RootStep, Settled, Signalled, Slot, Spent, Started, StepLetter, StepOutcome,
    StopRun, TierUse, Waited, Waiting, WhenFull,
};
pub use inspect::{AuditPage, JobStatus};
pub use keys::Keys;

pub use letters::Letter;
pub use library::{LIBRARY_NAME, LIBRARY_VERSION, text as library_text};
pub use lines::{HeadRank, Place};
pub use link::Link;
pub use members::Member;
pub use modes::{ModeChange, ModeFigures, ModeMove, ModeMoved, ModeTally, Performance, PoolMode};
pub use operations::{Operation, OperationRecord};
pub use pauses::{PauseAnswer, PauseNote, PauseOf, Paused};
pub use queues::QueueDepth;
pub use records::{ItemText, RunRecord, RunSummary};
pub use search::{RunCursor, RunPage, RunQuery, RunRow};
pub use services::{
    ApplyError, BreakerState, BudgetState, CatalogRead, Counters, LimitState, ServiceChange, Services,
    TierState,
};
pub use settings::Settings;
pub use store::{Partition, ServerFacts, Store};
pub use verify::{Drift, Finding, InFlight, RunWalk, Shape, Shapes, StepShape, Verdict, Whereabouts};
