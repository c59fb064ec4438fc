//! How many retries a service is asked to bear: retries that each first attempt earns (Finagle's `RetryBudget`), bounded as
//! gRPC bounds its tokens (proposal A6, "retry throttling").

use crate::limit::{SECOND, scale_down, scale_up};
use crate::service::BudgetRules;

/// Parts of one retry: budgets are kept in millionths, so that a rate of 0.1 needs no fractions.
const WHOLE: u64 = 1_000_000;
/// When to ask again where time alone earns nothing.
const UNKNOWN_US: u64 = 10 * SECOND;
/// The longest wait that is answered.
const LONGEST_US: u64 = 60 * SECOND;

/// What is saved up for retries. It begins full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryBudget {
    ratio: u64,
    per_second: u64,
    burst: u64,
    saved: u64,
    since_us: Option<u64>,
}

impl RetryBudget {
    /// A full budget.
    #[must_use]
    pub fn new(rules: &BudgetRules) -> Self {
        let burst = millionths(rules.burst);
        Self {
            ratio: millionths(rules.ratio),
            per_second: millionths(rules.min_per_second),
            burst,
            saved: burst,
            since_us: None,
        }
    }

    /// How long until a retry is covered; 0: it is. At most a minute: by then first attempts may have earned more.
    pub fn wait_us(&mut self, now_us: u64) -> u64 {
        self.earn(now_us);
        match (WHOLE.saturating_sub(self.saved), self.per_second) {
            (0, _) => 0,
            (_, 0) => UNKNOWN_US,
            (missing, per_second) => scale_up(missing, SECOND, per_second).min(LONGEST_US),
        }
    }

    /// A first attempt was granted.
    pub fn attempted(&mut self, now_us: u64) {
        self.earn(now_us);
        self.saved = self.saved.saturating_add(self.ratio).min(self.burst);
    }

    /// A retry was granted.
    pub fn retried(&mut self, now_us: u64) {
        self.earn(now_us);
        self.saved = self.saved.saturating_sub(WHOLE);
    }

    fn earn(&mut self, now_us: u64) {
        let since = self.since_us.unwrap_or(now_us);
        let earned = scale_down(now_us.saturating_sub(since), self.per_second, SECOND);
        self.saved = self.saved.saturating_add(earned).min(self.burst);
        // time that was too short to earn anything is not forgotten
        if earned > 0 || self.since_us.is_none() {
            self.since_us = Some(now_us);
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float becomes the nearest whole number in range"
)]
fn millionths(share: f64) -> u64 {
    (share * 1e6).round() as u64
}

#[cfg(test)]
mod tests {
    use super::RetryBudget;
    use crate::limit::SECOND;
    use crate::service::BudgetRules;
    use proptest::prelude::*;

    fn rules(ratio: f64, min_per_second: f64, burst: f64) -> BudgetRules {
        BudgetRules { ratio, min_per_second, burst }
    }

    proptest! {
        #[test]
        fn retries_never_pass_what_was_earned(
            ratio in 0..40_u64, per_second in 0..40_u64, burst in 0..30_u64,
            steps in prop::collection::vec((prop_oneof![0..2_000_u64, 0..5 * SECOND], any::<bool>()), 1..300),
        ) {
            let (share, least) = (ratio as f64 / 20.0, per_second as f64 / 20.0);
            let mut budget = RetryBudget::new(&rules(share, least, burst as f64));
            let (mut now_us, mut first, mut retries) = (1_763_750_000_000_000, 0, 0);
            let start = now_us;
            for (pass, is_retry) in steps {
                now_us += pass;
                match budget.wait_us(now_us) {
                    0 if is_retry => {
                        budget.retried(now_us);
                        retries += 1;
                    }
                    _ if is_retry => {}
                    _ => {
                        budget.attempted(now_us);
                        first += 1;
                    }
                }
                // in twentieths
                let earned = burst * 20 + ratio * first + per_second * (now_us - start) / SECOND;
                prop_assert!(retries * 20 <= earned, "{retries} retries, {first} first attempts");
            }
        }

        #[test]
        fn a_wait_is_as_long_as_needed(per_second in 1..1_000_u64, spent in 1..20_u64, pass in 0..SECOND) {
            let mut budget = RetryBudget::new(&rules(0.1, per_second as f64 / 10.0, spent as f64));
            let now_us = 1_763_750_000_000_000;
            for _ in 0..spent {
                prop_assert_eq!(budget.wait_us(now_us), 0);
                budget.retried(now_us);
            }
            let now_us = now_us + pass;
            let wait = budget.wait_us(now_us);
            prop_assert_eq!(budget.wait_us(now_us + wait), 0);
            let mut early = RetryBudget::new(&rules(0.1, per_second as f64 / 10.0, spent as f64));
            (0..spent).for_each(|_| early.retried(now_us - pass));
            // what is earned comes in millionths of a retry
            let grain = 2 + 20_u64.div_ceil(per_second);
            prop_assert!(wait < grain || early.wait_us(now_us + wait - grain) > 0);
        }
    }

    #[test]
    fn a_service_that_fails_half_the_time_bears_a_tenth_more() {
        let mut budget = RetryBudget::new(&rules(0.1, 0.0, 10.0));
        let mut retries = 0;
        for call in 0..100_000_u64 {
            budget.attempted(call);
            if call % 2 == 0 && budget.wait_us(call) == 0 {
                budget.retried(call);
                retries += 1;
            }
        }
        assert_eq!(retries, 10_000 + 9, "a tenth, and what it began with");
    }

    #[test]
    fn a_quiet_service_may_retry_now_and_then() {
        let mut budget = RetryBudget::new(&rules(0.0, 0.1, 1.0));
        let retries = (0..600).filter(|second| {
            let granted = budget.wait_us(second * SECOND) == 0;
            if granted {
                budget.retried(second * SECOND);
            }
            granted
        });
        assert_eq!(retries.count(), 60, "one in ten seconds");
    }

    #[test]
    fn where_time_earns_nothing_it_is_asked_again() {
        let mut budget = RetryBudget::new(&rules(0.1, 0.0, 0.0));
        assert_eq!(budget.wait_us(0), 10 * SECOND);
        let mut slow = RetryBudget::new(&rules(0.1, 0.001, 1.0));
        slow.retried(0);
        assert_eq!(slow.wait_us(0), 60 * SECOND);
    }
}
