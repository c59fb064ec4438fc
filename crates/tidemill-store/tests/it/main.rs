//! The store against a real server.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests say what they mean by failing"
)]

mod jobs;
mod pool;
mod runs;
