//! What the vendor has seen: each call, how it went, and whether anybody asked again for what was done.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tidemill_runtime::clock::milliseconds;

use super::{Fault, LATENCY};

/// Calls by idempotency key. One owner, the vendor; connections call in.
#[derive(Debug)]
pub(super) struct Ledger {
    seed: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    keys: HashMap<String, Calls>,
    counts: VendorCounts,
}

#[derive(Debug, Default)]
struct Calls {
    made: u32,
    succeeded: bool,
}

/// The vendor's side of the story.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct VendorCounts {
    /// Calls that came.
    pub(crate) calls: u64,
    /// Calls that were answered well.
    pub(crate) succeeded: u64,
    /// Calls that were made to fail, by the way in which.
    pub(crate) failed: BTreeMap<Fault, u64>,
    /// Calls whose idempotency key had been answered well before: work done twice.
    pub(crate) repeated_after_success: u64,
}

impl VendorCounts {
    /// Calls that were made to fail.
    pub(crate) fn failures(&self) -> u64 {
        self.failed.values().sum()
    }

    /// How long one caller would wait who makes all these calls one after the other, in milliseconds: the vendor's latency for
    /// each, and for those without an answer the time after which they are given up.
    pub(crate) fn sequential_ms(&self, timeout_ms: u64) -> u64 {
        let latency_ms = milliseconds(LATENCY);
        let forgotten = self.failed.get(&Fault::Forgotten).copied().unwrap_or(0);
        self.calls * latency_ms + forgotten * timeout_ms.saturating_sub(latency_ms)
    }
}

impl Ledger {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, state: Mutex::default() }
    }

    /// Notes a call; tells how it fails, if it does.
    pub(super) fn call(&self, key: &str) -> Option<Fault> {
        let mut state = self.state();
        let calls = state.keys.entry(key.to_owned()).or_default();
        calls.made += 1;
        let (nth, done) = (calls.made, calls.succeeded);
        let fault = Fault::of(self.seed, key, nth);
        state.counts.calls += 1;
        state.counts.repeated_after_success += u64::from(done);
        if let Some(fault) = fault {
            *state.counts.failed.entry(fault).or_default() += 1;
        }
        fault
    }

    /// Notes that a call was answered well.
    pub(super) fn succeed(&self, key: &str) {
        let mut state = self.state();
        state.keys.entry(key.to_owned()).or_default().succeeded = true;
        state.counts.succeeded += 1;
    }

    pub(super) fn counts(&self) -> VendorCounts {
        self.state().counts.clone()
    }

    /// A panic while the lock is held leaves plain counters, which stay usable.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::{Fault, Ledger, VendorCounts};

    #[test]
    fn waiting_for_the_vendor_adds_up() {
        let failed = [(Fault::Cut, 5), (Fault::Forgotten, 2)].into();
        let counts = VendorCounts { calls: 100, failed, ..VendorCounts::default() };
        assert_eq!(counts.sequential_ms(1_000), 98 * 100 + 2 * 1_000);
    }

    #[test]
    fn asking_again_after_a_success_is_counted() {
        let ledger = Ledger::new(1);
        ledger.call("a");
        ledger.call("a");
        assert_eq!(ledger.counts().repeated_after_success, 0);
        ledger.succeed("a");
        ledger.call("b");
        ledger.call("a");
        let counts = ledger.counts();
        assert_eq!((counts.calls, counts.succeeded, counts.repeated_after_success), (4, 1, 1));
    }
}
