//! The arithmetic of trying again: pure, so that its laws can be tested by themselves.
//!
//! The wait before attempt `n + 1` is drawn evenly from `0..=min(max_ms, base_ms · 2^(n-1))`: exponential backoff with *full
//! jitter*, which of the known variants spreads a herd best (Brooker, "Exponential Backoff And Jitter", AWS Architecture
//! Blog, 2015). What a service asks for (`Retry-After`) is a floor, with a tenth of it added at random so that those who were
//! told the same time do not come back together.

use std::time::Duration;

use rand::Rng;
use tidemill_protocol::{ErrorClass, RetryPolicy};

pub mod aimd;
pub mod breaker;
pub mod budget;
pub mod limit;
pub mod service;
pub mod tier;
pub mod usage;

/// Upper bound of the first wait, unless configured.
pub const DEFAULT_BASE_MS: u64 = 500;
/// Upper bound of any wait, unless configured.
pub const DEFAULT_MAX_MS: u64 = 30_000;
/// However long a service asks for, longer than this is not waited.
pub const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);

/// What to do after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Try again after this wait.
    Retry(Duration),
    /// It was the last attempt that the policy allows.
    Exhausted,
    /// The next attempt would begin later than `max_elapsed_ms` after the first.
    TooLate,
    /// The policy does not retry this class.
    NotRetryable,
}

/// One failed attempt.
#[derive(Debug, Clone, Copy)]
pub struct Failure {
    /// Why it failed.
    pub class: ErrorClass,
    /// Which attempt it was, from 1.
    pub attempt: u32,
    /// How long ago the first attempt began.
    pub elapsed: Duration,
    /// What the service asked for.
    pub retry_after: Option<Duration>,
}

/// Decides what follows a failed attempt.
pub fn decide(policy: &RetryPolicy, failure: Failure, random: &mut impl Rng) -> Decision {
    if !policy.retries(failure.class) {
        return Decision::NotRetryable;
    }
    if failure.attempt >= policy.max_attempts() {
        return Decision::Exhausted;
    }
    let wait = wait_before_next(policy, failure.attempt, failure.retry_after, random);
    match policy.max_elapsed_ms {
        Some(bound) if failure.elapsed + wait > Duration::from_millis(bound) => Decision::TooLate,
        _ => Decision::Retry(wait),
    }
}

/// The longest wait after attempt `attempt` (from 1) without a floor.
#[must_use]
pub fn ceiling_ms(policy: &RetryPolicy, attempt: u32) -> u64 {
    let base = policy.base_ms.unwrap_or(DEFAULT_BASE_MS);
    let doubled = base.saturating_mul(1_u64.checked_shl(attempt.saturating_sub(1)).unwrap_or(u64::MAX));
    doubled.min(policy.max_ms.unwrap_or(DEFAULT_MAX_MS))
}

fn wait_before_next(
    policy: &RetryPolicy,
    attempt: u32,
    floor: Option<Duration>,
    random: &mut impl Rng,
) -> Duration {
    let jittered = Duration::from_millis(random.random_range(0..=ceiling_ms(policy, attempt)));
    let Some(floor) = floor else { return jittered };
    let floor = floor.min(LONGEST_WAIT);
    let spread = u64::try_from(floor.as_millis() / 10).unwrap_or(0);
    jittered.max(floor + Duration::from_millis(random.random_range(0..=spread)))
}

#[cfg(test)]
mod tests {
    use super::{Decision, Failure, LONGEST_WAIT, ceiling_ms, decide};
    use proptest::prelude::*;
    use rand::SeedableRng;
    use std::time::Duration;
    use tidemill_protocol::{ErrorClass, RetryPolicy};

    fn failure(class: ErrorClass, attempt: u32) -> Failure {
        Failure { class, attempt, elapsed: Duration::ZERO, retry_after: None }
    }

    #[test]
    fn what_cannot_be_helped_is_not_retried() {
        let mut random = rand::rngs::SmallRng::seed_from_u64(1);
        let policy = RetryPolicy::default();
        assert_eq!(decide(&policy, failure(ErrorClass::Client, 1), &mut random), Decision::NotRetryable);
        assert_eq!(decide(&policy, failure(ErrorClass::Server, 3), &mut random), Decision::Exhausted);
        assert!(matches!(decide(&policy, failure(ErrorClass::Server, 2), &mut random), Decision::Retry(_)));
        let only = RetryPolicy { on: Some(vec![ErrorClass::Client]), ..RetryPolicy::default() };
        assert!(matches!(decide(&only, failure(ErrorClass::Client, 1), &mut random), Decision::Retry(_)));
        assert_eq!(decide(&only, failure(ErrorClass::Server, 1), &mut random), Decision::NotRetryable);
    }

    proptest! {
        #[test]
        fn a_wait_stays_between_its_floor_and_its_ceiling(
            seed: u64, attempt in 1_u32..80, base in 0_u64..10_000, max in 0_u64..100_000, floor in proptest::option::of(0_u64..200_000_000),
        ) {
            let mut random = rand::rngs::SmallRng::seed_from_u64(seed);
            let policy = RetryPolicy { max_attempts: Some(100), base_ms: Some(base), max_ms: Some(max), ..RetryPolicy::default() };
            let retry_after = floor.map(Duration::from_millis);
            let Decision::Retry(wait) = decide(&policy, Failure { retry_after, ..failure(ErrorClass::Throttled, attempt) }, &mut random)
                else { return Err(TestCaseError::fail("not retried")) };
            let floor = retry_after.unwrap_or_default().min(LONGEST_WAIT);
            prop_assert!(wait >= floor);
            prop_assert!(wait <= (floor + floor / 10).max(Duration::from_millis(ceiling_ms(&policy, attempt))) + Duration::from_millis(1));
        }

        #[test]
        fn nothing_starts_after_the_longest_elapsed_time(seed: u64, elapsed in 0_u64..20_000, bound in 0_u64..10_000) {
            let mut random = rand::rngs::SmallRng::seed_from_u64(seed);
            let policy = RetryPolicy { max_attempts: Some(100), max_elapsed_ms: Some(bound), ..RetryPolicy::default() };
            let failed = Failure { elapsed: Duration::from_millis(elapsed), ..failure(ErrorClass::Timeout, 1) };
            if let Decision::Retry(wait) = decide(&policy, failed, &mut random) {
                prop_assert!(failed.elapsed + wait <= Duration::from_millis(bound));
            }
        }
    }
}
