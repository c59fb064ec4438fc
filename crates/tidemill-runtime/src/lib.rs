//! What every process of Tidemill has around its engine: settings, logs, supervised tasks, shutdown, metrics, health.
//!
//! A program reads its flags ([`cli`]), loads its settings ([`settings`]), starts its log ([`log`]), and hands its
//! engine to [`program::run`], which ends it in order on a signal. Engines spawn only through [`tasks::Tasks`], loop
//! only as [`duty::Duty`]s, name their metrics in one place ([`metrics`]) and tell through [`health::Health`] whether
//! they can do their work.

pub mod cli;
pub mod clock;
pub mod crash;
pub mod duty;
pub mod exit;
pub mod health;
pub mod http;
pub mod log;
pub mod metrics;
pub mod program;
pub mod settings;
pub mod shutdown;
pub mod tasks;
