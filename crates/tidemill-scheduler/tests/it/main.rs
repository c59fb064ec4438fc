//! The scheduler against a real server. Each test has its own.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests say what they mean by failing")]

mod audit;
mod cron;
mod duties;
mod groups;
mod lines;
mod modes;
mod pool;
mod reclaim;
mod start;
mod versions;
