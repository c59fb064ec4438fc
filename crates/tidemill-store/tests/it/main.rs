//! The store against real servers.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::string_slice,
    reason = "tests say what they mean by failing"
)]

mod admission_laws;
mod cache;
mod contract;
mod docs;
mod duties;
mod endings;
mod faults;
mod flow;
mod intake;
mod items;
mod jobs;
mod library;
mod lines;
mod model;
mod moves;
mod place;
mod pool;
mod runs;
mod sequences;
mod services_odd;
mod verify;
