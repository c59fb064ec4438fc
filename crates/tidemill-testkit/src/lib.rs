//! Private servers, a fault proxy and real processes for tests of Tidemill.
//!
//! Everything here belongs to the one test that started it: its own ports, its own folder, and an end in `Drop`, or by a
//! guard when the test is killed.
//! Nothing is shared, so tests may run in any order and any number at once. This crate knows nothing of Tidemill's
//! keys or functions: the store's own tests use it, and what it reads of a server it reads through `redis-cli`.
//!
//! * [`RedisServer`], [`RedisCluster`], [`SentinelSetup`]: the real `redis-server` found on `PATH`.
//! * [`FaultProxy`]: a network that can be cut, delayed or silenced between a client and a server.
//! * [`referee::Referee`]: a service with limits that catches who breaks them.
//! * [`Process`]: a built program, started, watched and killed.
//! * [`wait_until`], [`wait_for`]: polling with a deadline and a message that tells what was last seen.
//!
//! The helpers use the real clock: do not call them under a paused tokio clock.

mod cluster;
mod error;
mod family;
mod port;
mod process;
mod proxy;
pub mod referee;
mod sentinel;
mod server;
mod signal;
mod wait;

pub use cluster::RedisCluster;
pub use error::TestkitError;
pub use process::{Process, ProcessBuilder, built_binary};
pub use proxy::{FaultProxy, Traffic};
pub use sentinel::SentinelSetup;
pub use server::{RedisServer, RedisServerBuilder};
pub use wait::{wait_for, wait_until};
