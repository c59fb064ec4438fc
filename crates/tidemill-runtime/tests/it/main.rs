//! The settings, the admin door and the life of a process, as a program sees them.
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test fails by panicking, its shared parts too"
)]

mod admin;
mod commands;
mod page;
mod precedence;
mod refusals;
mod sample;
mod secrets;
