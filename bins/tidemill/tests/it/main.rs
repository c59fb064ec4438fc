//! The command against a real server: what it says, for people and as JSON, and how it ends.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "what a test needs and does not get ends the test"
)]

mod backup;
mod bulk;
mod cli;
mod cron;
mod dead;
mod dev;
mod found;
mod jobs;
mod manual;
mod mode;
mod pool;
mod runs;
mod service;
mod tls;
mod verify;
mod versions;
mod workflows;
