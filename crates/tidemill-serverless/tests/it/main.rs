//! Documents, read and carried out by a pool that stands in for Tidemill.
#![expect(clippy::expect_used, clippy::panic, unreachable_pub, reason = "tests")]

mod calls;
mod catches;
mod events;
mod flows;
mod host;
mod laws;
mod refusals;
