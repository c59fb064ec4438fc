//! Taking work in: [`Intake`] checks and enqueues, for any program; [`http`] is the door that people and other languages
//! reach it through.
//!
//! Nothing here is needed to enqueue: any Redis client may write to the streams itself. What the producer adds is an answer
//! before the work is queued: a misspelt member, an input that its workflow refuses, a queue that is full.

mod engine;
pub mod groups;
pub mod http;
pub mod intake;
pub mod metric_names;
pub mod modes;
pub mod operate;
mod rate_limit;
mod refusal;
pub mod search;
pub mod services;
mod settings;
pub mod views;
pub mod why;
mod workflows;

pub use engine::{Around, Unfit, spawn, validate, validate_later};
pub use intake::{Accepted, AcceptedAs, Intake, Kind, Number, Request};
pub use metric_names::Meters;
pub use rate_limit::RateLimit;
pub use refusal::{Code, Refusal};
pub use settings::{Queue as QueueSettings, Settings};
pub use workflows::{
    Against, Checked, Moved as MovedVersion, Moving as MovingVersion, Publish, PublishedAs, RunMisfit,
    VersionLine, Workflows,
};
