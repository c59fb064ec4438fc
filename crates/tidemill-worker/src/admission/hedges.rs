//! How many calls of a service may be made a second time: a share of all, in this worker.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

#[derive(Debug, Default, Clone, Copy)]
struct Share {
    calls: f64,
    sent: f64,
    ratio: f64,
}

/// Counts calls and hedges by service.
#[derive(Debug, Default)]
pub(crate) struct HedgeShares {
    shares: Mutex<HashMap<String, Share>>,
}

/// Old counts fade, so that a long quiet time does not allow a burst of hedges.
const FADE_AT: f64 = 1_000.0;

impl HedgeShares {
    fn with<T>(&self, service: &str, act: impl FnOnce(&mut Share) -> T) -> T {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = shares.get_mut(service) {
            return act(share);
        }
        act(shares.entry(service.to_owned()).or_default())
    }

    /// A call is made; replies whether its service hedges at all.
    pub(crate) fn count_call(&self, service: &str, ratio: f64) -> bool {
        self.with(service, |share| {
            share.ratio = ratio;
            share.calls += 1.0;
            if share.calls >= FADE_AT {
                share.calls *= 0.5;
                share.sent *= 0.5;
            }
        });
        ratio > 0.0
    }

    /// Whether one more may be sent.
    pub(crate) fn may_send(&self, service: &str) -> bool {
        self.with(service, |share| share.sent + 1.0 <= share.calls * share.ratio)
    }

    /// One was sent.
    pub(crate) fn count_sent(&self, service: &str) {
        self.with(service, |share| share.sent += 1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::HedgeShares;

    #[test]
    fn hedges_are_a_share_of_the_calls() {
        let shares = HedgeShares::default();
        let mut sent = 0;
        for _ in 0..10_000 {
            shares.count_call("a", 0.05);
            if shares.may_send("a") {
                shares.count_sent("a");
                sent += 1;
            }
        }
        assert!((450..=500).contains(&sent), "{sent}");
    }
}
