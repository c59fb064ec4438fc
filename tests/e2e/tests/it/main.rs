//! Worker and scheduler together, in one process, on a real Redis of the test's own.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests say what they mean by failing")]

mod budgets;
mod damage;
mod jobs;
mod modes;
mod odd;
mod operating;
mod pausing;
mod pool;
mod random;
mod reference;
mod services;
mod services_auto;
mod services_odd;
mod waits;
mod waits2;
mod workflows;
