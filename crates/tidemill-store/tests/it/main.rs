//! The store against real servers.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests say what they mean by failing")]

mod contract;
mod docs;
mod duties;
mod endings;
mod flow;
mod intake;
mod items;
mod jobs;
mod place;
mod pool;
mod runs;
