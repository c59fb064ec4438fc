//! Tiers that were just seen to have a line: what comes without a ticket is parked at once, without asking. A worker that meets ten
//! thousand such jobs gets past them as fast as it can read them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::need::Need;

/// So long it is believed. A line that has ended meanwhile is found out by the next that asks; those who joined it are called up
/// at once.
const BELIEVED: Duration = Duration::from_millis(200);

/// Which tiers have a line, as far as this worker has seen.
#[derive(Debug, Default)]
pub(crate) struct Lined {
    until: Mutex<HashMap<Arc<str>, Instant>>,
    is_any: AtomicBool,
}

impl Lined {
    /// A call was sent into the line of a tier.
    pub(super) fn saw(&self, tier: &Arc<str>, now: Instant) {
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until.retain(|_, until| *until > now);
        until.insert(Arc::clone(tier), now + BELIEVED);
        self.is_any.store(true, Ordering::Release);
    }

    /// The tier of a call that has a line, if it has no ticket for it.
    pub(crate) fn before(&self, need: &Need) -> Option<Arc<str>> {
        if !self.is_any.load(Ordering::Acquire) {
            return None;
        }
        let (until, now) = (self.until.lock().unwrap_or_else(PoisonError::into_inner), Instant::now());
        let found = need
            .tiers
            .iter()
            .zip(&need.tickets)
            .filter(|(_, has_ticket)| !**has_ticket)
            .find(|(tier, _)| until.get(&tier.name).is_some_and(|until| *until > now));
        if until.values().all(|until| *until <= now) {
            self.is_any.store(false, Ordering::Release);
        }
        found.map(|(tier, _)| Arc::clone(&tier.name))
    }
}
