//! Free ports, chosen below the range from which the system takes ports for outgoing connections, so that a server
//! that is stopped for a while finds its port free when it starts again.

use std::{
    collections::hash_map::RandomState,
    hash::BuildHasher,
    net::{Ipv4Addr, TcpListener},
    sync::atomic::{AtomicU64, Ordering},
};

use crate::TestkitError;

const LOW: u16 = 10_000;
const HIGH: u16 = 20_000;
const ATTEMPTS: u32 = 200;
/// A cluster node listens here as well, counted from its port.
const BUS_OFFSET: u16 = 10_000;

/// A port that is free now, and so is its cluster bus port. Another process may still win it: whoever binds it tries
/// again with another one.
pub(crate) fn free_port() -> Result<u16, TestkitError> {
    static TURN: AtomicU64 = AtomicU64::new(0);
    let random = RandomState::new();
    for _ in 0..ATTEMPTS {
        let turn = TURN.fetch_add(1, Ordering::Relaxed);
        let offset = random.hash_one((turn, std::process::id())) % u64::from(HIGH - LOW);
        let port = LOW + u16::try_from(offset).unwrap_or(0);
        if is_free(port) && is_free(port + BUS_OFFSET) {
            return Ok(port);
        }
    }
    Err(TestkitError::NoPort { attempts: ATTEMPTS, low: LOW, high: HIGH })
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}
