//! The producer against real servers, over real connections.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests say what they mean by failing")]

mod backpressure;
mod batches;
mod document;
mod door;
mod durability;
mod events;
mod limits;
mod lines;
mod mode;
mod page;

mod pool;
mod results;
mod runs;
mod services;
mod submitting;
mod versions;
mod worker;
mod workflows;
