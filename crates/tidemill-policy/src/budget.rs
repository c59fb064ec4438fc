//! How many retries a service is asked to bear: retries that each first attempt earns (Finagle's `RetryBudget`), bounded as
//! gRPC bounds its tokens (proposal A6, "retry throttling").
//!
//! The budget binds only while the service fails: a retry now and then of a service that is well costs nothing. How much it
//! fails is a moving share of its calls, each counting a tenth; it halves every five seconds, so that what failed in an
//! outage does not hold up the retries after it.

use crate::service::BudgetRules;

/// One retry. Tenths do not add up to one exactly.
const WHOLE: f64 = 0.999_999;
/// What the latest call counts in the share of those that fail.
const LATEST: f64 = 0.1;
/// The share of those that fail halves in so many seconds.
const HALVES_S: f64 = 5.0;
/// Microseconds in a second.
const SECOND: f64 = 1e6;
/// The shortest wait that is answered, in microseconds.
const SHORTEST_US: f64 = 1e3;
/// The longest wait that is answered, in microseconds: by then first attempts may have earned more.
const LONGEST_US: f64 = 60.0 * SECOND;

/// What is saved up for retries. It begins full.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryBudget {
    rules: BudgetRules,
    saved: f64,
    failing: f64,
    since_us: Option<u64>,
}

impl RetryBudget {
    /// A full budget of a service that is well.
    #[must_use]
    pub const fn new(rules: BudgetRules) -> Self {
        let saved = rules.burst;
        Self { rules, saved, failing: 0.0, since_us: None }
    }

    /// How long until a retry may go; 0: it may. At most a minute.
    pub fn wait_us(&mut self, now_us: u64) -> u64 {
        self.pass(now_us);
        if !self.binds() || self.saved >= WHOLE {
            return 0;
        }
        let fades = (self.failing / self.rules.ratio.max(0.001)).log2() * HALVES_S * SECOND;
        let earns = (1.0 - self.saved) / self.rules.min_per_second * SECOND;
        let earns = if self.rules.min_per_second > 0.0 { earns } else { fades };
        whole_us(fades.min(earns).clamp(SHORTEST_US, LONGEST_US))
    }

    /// A first attempt was granted.
    pub fn attempted(&mut self, now_us: u64) {
        self.pass(now_us);
        self.saved = (self.saved + self.rules.ratio).min(self.rules.burst);
    }

    /// A retry was granted.
    pub fn retried(&mut self, now_us: u64) {
        self.pass(now_us);
        if self.binds() {
            self.saved -= 1.0;
        }
    }

    /// A call ended: well, or badly (the service failed, or asked for less).
    pub fn ended(&mut self, now_us: u64, well: bool) {
        self.pass(now_us);
        let bad = if well { 0.0 } else { 1.0 };
        self.failing += (bad - self.failing) * LATEST;
    }

    fn binds(&self) -> bool {
        self.failing >= self.rules.ratio
    }

    fn pass(&mut self, now_us: u64) {
        let since = self.since_us.replace(now_us).unwrap_or(now_us);
        let passed_s = real(now_us.saturating_sub(since)) / SECOND;
        self.saved = (self.saved + passed_s * self.rules.min_per_second).min(self.rules.burst);
        self.failing *= 0.5_f64.powf(passed_s / HALVES_S);
    }
}

#[expect(clippy::cast_precision_loss, reason = "times between calls are far below 2^53 microseconds")]
const fn real(us: u64) -> f64 {
    us as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a time from a millisecond to a minute"
)]
const fn whole_us(us: f64) -> u64 {
    us.ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::RetryBudget;
    use crate::limit::SECOND;
    use crate::limit::laws::config;
    use crate::service::BudgetRules;
    use proptest::prelude::*;

    const START: u64 = 1_763_750_000_000_000;

    fn budget(ratio: f64, min_per_second: f64, burst: f64) -> RetryBudget {
        RetryBudget::new(BudgetRules { ratio, min_per_second, burst })
    }

    proptest! {
        #![proptest_config(config())]

        #[test]
        fn retries_never_pass_what_was_earned_while_the_service_fails(
            ratio in 1..20_u64, per_second in 0..40_u64, burst in 0..30_u64,
            steps in prop::collection::vec((prop_oneof![0..2_000_u64, 0..5 * SECOND], 0..3_u8), 1..300),
        ) {
            let mut budget = budget(ratio as f64 / 20.0, per_second as f64 / 20.0, burst as f64);
            let (mut now_us, mut first, mut retries) = (START, 0, 0);
            for (pass, kind) in steps {
                now_us += pass;
                // it fails all the time
                (0..30).for_each(|_| budget.ended(now_us, false));
                match (kind, budget.wait_us(now_us)) {
                    (0, 0) => {
                        budget.retried(now_us);
                        retries += 1;
                    }
                    (0, _) => {}
                    _ => {
                        budget.attempted(now_us);
                        first += 1;
                    }
                }
                // in twentieths
                let earned = burst * 20 + ratio * first + per_second * (now_us - START) / SECOND;
                prop_assert!(retries * 20 <= earned + 1, "{retries} retries, {first} first attempts");
            }
        }

        #[test]
        fn a_wait_is_as_long_as_needed(per_second in 0..1_000_u64, spent in 1..20_u64, failed in 3..40_u32, pass in 0..SECOND) {
            let mut budget = budget(0.1, per_second as f64 / 10.0, spent as f64);
            (0..failed).for_each(|_| budget.ended(START, false));
            for _ in 0..spent {
                prop_assert_eq!(budget.wait_us(START), 0);
                budget.retried(START);
            }
            let now_us = START + pass;
            let wait = budget.clone().wait_us(now_us);
            prop_assert_eq!(budget.clone().wait_us(now_us + wait + 1), 0);
            // no wait is shorter than a millisecond
            prop_assert!(wait <= 1_000 || budget.wait_us(now_us + wait - 50) > 0);
        }
    }

    #[test]
    fn a_service_that_fails_half_the_time_bears_a_tenth_more() {
        let mut budget = budget(0.1, 0.0, 10.0);
        let mut retries = 0;
        for call in 0..100_000_u64 {
            budget.attempted(call);
            budget.ended(call, call % 2 == 0);
            if call % 2 == 1 && budget.wait_us(call) == 0 {
                budget.retried(call);
                budget.ended(call, false);
                retries += 1;
            }
        }
        assert!((9_900..=10_020).contains(&retries), "{retries}: a tenth, and what it began with");
    }

    #[test]
    fn a_service_that_is_well_may_be_asked_again() {
        let mut budget = budget(0.1, 0.0, 1.0);
        for call in 0..1_000_u64 {
            budget.attempted(call);
            budget.ended(call, call % 30 != 0);
            if call % 30 == 0 {
                assert_eq!(budget.wait_us(call), 0);
                budget.retried(call);
            }
        }
    }

    #[test]
    fn an_outage_does_not_hold_up_the_retries_after_it() {
        let mut budget = budget(0.1, 0.0, 1.0);
        (0..1_000).for_each(|_| budget.ended(START, false));
        budget.retried(START);
        let wait = budget.wait_us(START);
        assert!((16_000_000..17_000_000).contains(&wait), "{wait}: from all to a tenth");
        assert_eq!(budget.wait_us(START + wait), 0);
    }
}
