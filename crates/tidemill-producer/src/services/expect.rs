//! How long a call that comes now has to wait.

use std::time::Duration;

use tidemill_policy::service::TierRules;
use tidemill_store::{Outlook, TierState};

use super::usage::request_rate;

/// What a call that comes now can expect of a tier.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Prospect {
    /// How long it waits; `None`: until a person ends it.
    pub(crate) wait: Option<Duration>,
    /// What bounds the tier: `limit:<unit>`, `concurrency`, `breaker`, `pause`, or nothing.
    pub(crate) why: String,
    /// Calls in a second that it lets go, as far as that is known.
    pub(crate) per_second: Option<f64>,
}

/// The longest wait that is reckoned with; a limit of one call a year is one.
const LONGEST_S: f64 = 366.0 * 86_400.0;

/// The wait of a tier: the rest of what blocks it, and the line before the call at the tier's pace. Where the pace is not known,
/// because only units other than requests are limited and nothing was used yet, a line counts for nothing.
pub(crate) fn prospect(
    rules: &TierRules,
    state: Option<&TierState>,
    outlook: &Outlook,
    waiting: u64,
) -> Prospect {
    let told = outlook.per_1000_s.and_then(|rate| u32::try_from(rate).ok());
    let per_second = told.map(|rate| f64::from(rate) / 1_000.0).or_else(|| request_rate(&rules.limits));
    let breaker = state.and_then(|state| state.breaker.as_ref());
    let is_isolated =
        rules.breaker.is_some() && breaker.is_some_and(|breaker| breaker.state == "forced_open");
    let is_paused = state.and_then(|state| state.paused_until_us).is_some_and(|until| until < 0.0);
    if is_paused || is_isolated {
        let why = if is_paused { "pause" } else { "breaker" };
        return Prospect { wait: None, why: why.to_owned(), per_second };
    }
    let is_used_up = outlook.allowance == 0 && outlook.blocked_for.is_none();
    let ahead = u32::try_from(waiting).unwrap_or(u32::MAX);
    let ahead = f64::from(ahead) + f64::from(u8::from(is_used_up));
    let in_line = per_second.filter(|rate| *rate > 0.0).map_or(0.0, |rate| ahead / rate);
    let wait = outlook.blocked_for.unwrap_or_default() + Duration::from_secs_f64(in_line.min(LONGEST_S));
    Prospect { wait: Some(wait), why: outlook.why.clone(), per_second }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::prospect;
    use tidemill_policy::service::TierRules;
    use tidemill_store::{BreakerState, Outlook, TierState};

    fn outlook() -> Outlook {
        Outlook {
            allowance: 0,
            blocked_for: None,
            why: "limit:requests".to_owned(),
            per_1000_s: Some(2_000),
            in_use: 0,
            lined: true,
        }
    }

    #[test]
    fn a_line_is_as_long_as_its_pace_lets_it_be() {
        let rules = TierRules::parse("d=requests,a,120,60000000,1,0,0,120,120").unwrap();
        assert_eq!(prospect(&rules, None, &outlook(), 99).wait, Some(Duration::from_secs(50)));
        let free = Outlook { allowance: 5, ..outlook() };
        assert_eq!(prospect(&rules, None, &free, 0).wait, Some(Duration::ZERO));
        // a pace too slow to be told in calls per 1,000 s is reckoned from the rules
        let slow = TierRules::parse("d=requests,a,1,86400000000,1,0,0,1,1").unwrap();
        let told = Outlook { per_1000_s: None, ..outlook() };
        assert_eq!(prospect(&slow, None, &told, 0).wait.unwrap().as_secs(), 86_400);
    }

    #[test]
    fn what_blocks_is_waited_for_before_the_line() {
        let rules = TierRules::parse("d=requests,a,120,60000000,1,0,0,120,120").unwrap();
        let blocked = Outlook {
            blocked_for: Some(Duration::from_secs(7)),
            per_1000_s: None,
            why: "pause".to_owned(),
            ..outlook()
        };
        let prospect = prospect(&rules, None, &blocked, 20);
        assert_eq!((prospect.wait, prospect.why.as_str()), (Some(Duration::from_secs(17)), "pause"));
    }

    #[test]
    fn what_only_a_person_ends_has_no_time() {
        let rules = TierRules::parse("b=t,10000000,20,0.5,0,1,5000000,60000000,3,30000000").unwrap();
        let mut paused = TierState::default();
        paused.paused_until_us = Some(-1.0);
        assert_eq!(prospect(&rules, Some(&paused), &outlook(), 0).wait, None);
        let breaker = BreakerState { state: "forced_open".to_owned(), ..BreakerState::default() };
        let mut isolated = TierState::default();
        isolated.breaker = Some(breaker);
        assert_eq!(prospect(&rules, Some(&isolated), &outlook(), 0).wait, None);
    }
}
