//! The kit against real servers and processes.
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test fails by panicking, its shared parts too"
)]

mod faults;
mod processes;
mod referee;
mod servers;
