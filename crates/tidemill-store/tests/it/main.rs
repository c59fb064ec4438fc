//! The store against real servers.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::string_slice,
    reason = "tests say what they mean by failing"
)]

mod admission_laws;
mod backup;
mod cache;
mod conflicts;
mod contract;
mod definitions;
mod docs;
mod duties;
mod endings;
mod faults;
mod flow;
mod groups;
mod intake;
mod items;
mod jobs;
mod library;
mod lines;
mod model;
mod modes;
mod moves;
mod place;
mod pool;
mod runs;
mod search;
mod sequences;
mod services_odd;
mod verify;
mod waits;
