//! The built programs, real servers, and what breaks between them. Each test ends with the same question: did every job and run
//! end exactly once, and is nothing left?
//!
//! The programs must be built before (`cargo build --bins`). Sizes are small by default; `TIDEMILL_TEST_ALL=1` takes the full
//! ones.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests say what they mean by failing, and print what they measured"
)]

mod clock;
mod crashes;
mod deaths;
mod documents;
mod entries;
mod examples;
mod ledger;
mod outages;
mod pool;
mod services;
mod sizes;
mod topology;
