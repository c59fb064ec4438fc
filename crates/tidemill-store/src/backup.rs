//! Backups: everything of a pool that must not be lost, as one stream of records, and back.
//!
//! A backup is logical: it holds hashes, sets and entries by what they mean, so it fits another version of Redis, another
//! namespace and, where ids allow it, another number of partitions. [`census`] says of every key whether it is copied, made anew
//! from what is copied, or left behind.
//!
//! A pool works on while it is read. Each run is read as it stood at one moment (see `run`); a plain job is a unit of its own, and
//! one that moves meanwhile may be written twice, but is never missed (see `jobs`). Restoring takes the first of two.
//! Neither way holds more than a few runs in memory.

pub mod census;
mod check;
mod copy;
mod create;
mod error;
mod flight;
mod format;
mod jobs;
mod record;
mod restore;
mod run;

pub use check::{Checked, Fault, check};
pub use create::{Created, LeftOut, Options, create};
pub use error::BackupError;
pub use format::{FORMAT, read_header};
pub use record::{Counts, Header};
pub use restore::{Restored, Target, restore};
