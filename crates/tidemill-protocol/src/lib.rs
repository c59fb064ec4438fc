//! The words and bytes that every part of Tidemill agrees on: ids, states with their table of moves, jobs, payloads,
//! results, dead letters, audit records and error codes. Pure: no clock, no network, no Redis.

mod payload;
mod retry;

pub use payload::{Encoding, Payload, PayloadError};
pub use retry::{ErrorClass, RetryPolicy};
