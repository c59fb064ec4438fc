//! The worker: claim → admit → execute → settle.
//!
//! One claimer, one settler, one beat and one sweep per partition; one executor in the middle that owns what is under way. They
//! speak through channels, and each part's file says what it owns. Nothing that a worker holds is the only copy: what it does not
//! settle, somebody else will.

mod admission;
mod assignment;
mod budget;
pub mod cache;
mod capacity;
mod claiming;
mod executor;
mod fallback;
mod liveness;
pub mod metrics;
mod modes;
mod outcome;
mod part;
mod pausing;
mod plans;
mod queues;
mod settings;
mod settler;
mod shared;
mod sweep;
mod worker;

pub use settings::{InvalidSetting, Order, Settings};
pub use worker::{Worker, WorkerError};
